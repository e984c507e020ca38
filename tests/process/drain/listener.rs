//! P5a: the end of the listeners. A connection that the kernel completed is served, and a later one
//! is refused before its client has sent anything.

use super::help::{Client, MAX_WAIT, Server, binary, connect, ms, pass, s};
use crate::support::{in_time, now};
use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The grace of a silent connection is 250 ms.
const WELL_WITHIN_THE_GRACE: Duration = Duration::from_millis(150);

/// A path for a socket, which is removed after the test.
struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        Self(
            std::env::temp_dir().join(format!("lameduck-drain-{}-{name}.sock", std::process::id())),
        )
    }

    fn address(&self) -> String {
        format!("unix:{}", self.0.display())
    }

    fn connect(&self) -> io::Result<Client<UnixStream>> {
        let stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(MAX_WAIT))?;
        Ok(Client::new(stream))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn new_connections_are_served_for_the_whole_lame_duck_delay_and_then_refused() {
    in_time(|| {
        let mut server = Server::start(&["--lame-duck", "1s"]);
        server.stop_and_await("lame_duck");
        let lame_duck = now();
        let mut served = 0;
        let refused = loop {
            // A client that is kept out gets its error when the process has exited: the kernel
            // sends its SYN again after a second.
            let begin = now();
            match connect(server.service.main) {
                Ok(stream) => {
                    let mut client = Client::new(stream);
                    client.get("/");
                    if begin.elapsed() > WELL_WITHIN_THE_GRACE {
                        return None;
                    }
                    let is_late = lame_duck.elapsed() > ms(800);
                    let answer = client.answer();
                    answer.is_hello();
                    // A first response announces the close in the last part of the delay, and not
                    // before it.
                    assert!(!is_late || answer.says_close(), "{answer:?}");
                    let is_early = server.since_stop() < ms(750);
                    assert!(!is_early || !answer.says_close(), "{answer:?}");
                    served += 1;
                }
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(server.since_stop() >= s(1));
        let exit = server.exit_clean();
        assert!(exit.took >= s(1), "P4: {exit:?}");
        assert_eq!(exit.requests("finished"), served);
        Some(())
    });
}

/// P5a: a process that was suspended or starved finds a full accept queue and the signal at the
/// same time. Every queued connection must be served.
#[test]
fn connections_in_the_accept_queue_of_a_suspended_process_are_all_served() {
    for lame_duck in ["0s", "300ms", "0s", "300ms", "0s"] {
        let mut server = Server::start(&["--lame-duck", lame_duck]);
        server.freeze();
        let mut clients: Vec<_> = (0..100).map(|_| server.ask("/")).collect();
        server.stop_and_thaw();
        for client in &mut clients {
            client.answer().is_hello();
        }
        drop(clients);
        let exit = server.exit_clean();
        assert_eq!(exit.requests("finished"), 100);
    }
}

/// As above, but the requests follow only after the process continues. Each connection is new and
/// silent at the stop, and must get its grace (P5a).
#[test]
fn silent_connections_in_the_accept_queue_of_a_suspended_process_get_their_grace() {
    in_time(|| {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        server.freeze();
        let mut clients: Vec<_> = (0..100).map(|_| server.connect()).collect();
        server.stop_and_thaw();
        pass(ms(60));
        for client in &mut clients {
            client.get("/");
        }
        if server.since_stop() > WELL_WITHIN_THE_GRACE {
            return None;
        }
        for client in &mut clients {
            client.answer().is_hello();
        }
        Some(server.exit_clean())
    });
}

#[test]
fn four_hundred_connections_at_the_time_of_the_signal_are_all_served() {
    let round = || {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let busy: Vec<_> = (0..200).map(|_| server.ask("/slow?ms=300")).collect();
        let begin = now();
        let mut silent: Vec<_> = (0..200).map(|_| server.connect()).collect();
        server.stop();
        for client in &mut silent {
            client.get("/");
        }
        if begin.elapsed() > WELL_WITHIN_THE_GRACE {
            return None;
        }
        for mut client in busy.into_iter().chain(silent) {
            assert_eq!(client.answer().status, 200);
        }
        let exit = server.exit_clean();
        assert_eq!(exit.requests("finished"), 400);
        Some(())
    };
    for _ in 0..3 {
        in_time(round);
    }
}

#[test]
fn a_unix_socket_serves_its_queue_and_removes_its_path() {
    let socket = Socket::new("queue");
    let mut server = Server::launch(Command::new(binary()).args([
        "--addr",
        &socket.address(),
        "--lame-duck",
        "200ms",
    ]));
    server.freeze();
    let mut clients: Vec<_> = (0..50).map(|_| socket.connect().unwrap()).collect();
    for client in &mut clients {
        client.get("/");
    }
    server.stop_and_thaw();
    for client in &mut clients {
        client.answer().is_hello();
    }
    server.exit_clean();
    assert!(!socket.0.exists());
}

#[test]
fn a_unix_socket_serves_in_the_lame_duck_delay_and_then_removes_its_path() {
    let socket = Socket::new("lame-duck");
    in_time(|| {
        let mut server = Server::launch(Command::new(binary()).args([
            "--addr",
            &socket.address(),
            "--lame-duck",
            "500ms",
        ]));
        server.stop_and_await("lame_duck");
        let refused = loop {
            let begin = now();
            match socket.connect() {
                Ok(mut client) => {
                    client.get("/");
                    if begin.elapsed() > WELL_WITHIN_THE_GRACE {
                        return None;
                    }
                    client.answer().is_hello();
                }
                Err(error) => break error,
            }
        };
        // The path is gone instead of a socket that does not accept, so a client can go elsewhere
        // at once.
        assert_eq!(refused.kind(), io::ErrorKind::NotFound);
        Some(server.exit_clean())
    });
}

/// All listeners are sealed before any queue is emptied. A client that one of them keeps out must
/// not get into another whose queue is no longer read (P5a).
#[test]
fn several_listeners_at_once_all_serve_their_queues() {
    let socket = Socket::new("several");
    for lame_duck in ["0s", "200ms"] {
        let mut server = Server::launch(Command::new(binary()).args([
            "--addr",
            "127.0.0.1:0",
            "--addr",
            "127.0.0.1:0",
            "--addr",
            &socket.address(),
            "--lame-duck",
            lame_duck,
        ]));
        let addresses: Vec<_> =
            server.service.addresses.iter().filter_map(|address| address.parse().ok()).collect();
        assert_eq!(addresses.len(), 2, "{:?}", server.service.addresses);
        server.freeze();
        let mut over_tcp: Vec<_> =
            (0..60).map(|n: usize| Client::new(connect(addresses[n % 2]).unwrap())).collect();
        let mut over_unix: Vec<_> = (0..30).map(|_| socket.connect().unwrap()).collect();
        over_tcp.iter_mut().for_each(|client| client.get("/"));
        over_unix.iter_mut().for_each(|client| client.get("/"));
        server.stop_and_thaw();
        over_tcp.iter_mut().for_each(|client| client.answer().is_hello());
        over_unix.iter_mut().for_each(|client| client.answer().is_hello());
        let exit = server.exit_clean();
        assert_eq!(exit.requests("finished"), 90);
        assert!(!Path::new(&socket.0).exists());
    }
}

/// P5a: a connection that the kernel completes between the last accept and the close of its
/// listener is reset with it. The moment is short, so the test stretches it. Many listeners are
/// emptied and closed one after the other, and meanwhile the process is suspended again and again.
/// A request on any connection that gets in must be served. The filter ensures that: it keeps new
/// connections out before the first queue is emptied.
#[test]
fn a_connection_that_gets_in_while_many_listeners_close_is_served() {
    const LISTENERS: usize = 24;
    let mut args = vec!["--lame-duck", "0s", "--workers", "2"];
    args.extend(["--addr", "127.0.0.1:0"].repeat(LISTENERS - 1));
    for _ in 0..30 {
        let mut server = Server::start(&args);
        let addresses: Vec<SocketAddr> =
            server.service.addresses.iter().map(|address| address.parse().unwrap()).collect();
        assert_eq!(addresses.len(), LISTENERS);
        let mut clients = Vec::new();
        server.stop();
        for round in 0..400 {
            server.freeze();
            // A dropped SYN is sent again after a second. The test does not wait for that.
            let some = addresses.iter().skip(round % 8).step_by(8);
            let let_in = some.filter_map(|address| TcpStream::connect_timeout(address, ms(2)).ok());
            let mut newcomers: Vec<_> = let_in.map(Client::new).collect();
            for client in &mut newcomers {
                client.stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
                client.get("/");
            }
            server.thaw();
            let all_are_kept_out = newcomers.is_empty();
            clients.extend(newcomers);
            if all_are_kept_out {
                break;
            }
            pass(Duration::from_micros(20 * (round % 16) as u64));
        }
        for client in &mut clients {
            client.answer().is_hello();
        }
        let exit = server.exit_clean();
        assert_eq!(exit.requests("finished"), clients.len() as u64);
    }
}

/// A server without a free descriptor, and more clients than it can accept.
struct Flooded {
    server: Server,
    flood: Vec<Client>,
}

fn flooded(lame_duck: &str) -> Flooded {
    const LIMIT: &str = "ulimit -n 80 && exec \"$@\"";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", LIMIT, "sh"]).arg(binary()).args([
        "--addr",
        "127.0.0.1:0",
        "--lame-duck",
        lame_duck,
    ]);
    // `--connections-max` equals the descriptor limit, and other files use some descriptors, so the
    // descriptors run out first.
    let server = Server::launch(command.args(["--connections-max", "80", "--workers", "2"]));
    let flood = (0..200).map(|_| server.ask("/")).collect();
    server.await_status(|status| status["connections"]["accept_errors"].as_u64() > Some(0));
    Flooded { server, flood }
}

/// P15, P16: an operator sees a server without descriptors. Probes must still get their responses,
/// no worker may spin, and the server must recover.
#[test]
fn without_descriptors_probes_get_responses_nothing_spins_and_the_server_recovers() {
    let Flooded { server, mut flood } = flooded("0s");
    let before = server.cpu_time();
    for _ in 0..10 {
        assert_eq!(server.status()["ready"], true);
        pass(ms(100));
    }
    let used = server.cpu_time() - before;
    assert!(used < ms(500), "it spins: {used:?} of processor time in a second");
    flood.truncate(1);
    // A client from before, and a new one.
    flood[0].answer().is_hello();
    server.keep();
}

#[test]
fn queued_clients_of_a_server_without_descriptors_are_served_as_others_leave() {
    let Flooded { mut server, mut flood } = flooded("300ms");
    server.stop();
    // From now on each response closes its connection, or its client does, and makes room for the
    // next.
    for mut client in flood.drain(..) {
        client.answer().is_hello();
    }
    let exit = server.exit_clean();
    assert_eq!(exit.requests("finished"), 200);
    assert!(exit.connections("accept_errors") > 0, "{exit:?}");
}

/// A worker without a descriptor for the connections in its queue waited for one, and did nothing
/// else. Clients with half a head held their descriptors for the whole drain, because their
/// timeouts were not applied. The queue was dropped with exit code 0. Expired connections must make
/// room for the queue (P5a).
#[test]
fn expired_connections_make_room_for_the_queue_of_a_server_without_descriptors() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -n 60 && exec \"$@\"", "sh"]).arg(binary());
    let mut server = Server::launch(command.args([
        "--addr",
        "127.0.0.1:0",
        "--lame-duck",
        "0s",
        "--workers",
        "1",
    ]));
    let mut clients: Vec<_> = (0..60).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("GET / HT");
    }
    server.await_status(|status| status["connections"]["accepted"] == 16);
    server.stop();
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!(answer.status, 408, "{answer:?}");
    }
    let exit = server.exit_clean().within(s(9));
    assert!(exit.connections("accept_errors") > 0, "they were to run out: {exit:?}");
    assert_eq!(exit.connections("accepted"), 60);
}
