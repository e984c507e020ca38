//! P5, P7: a handler that blocks its worker cannot be cut, and neither can other requests of that
//! worker. None of them may look complete. The victim is this test binary, started again with a
//! role, because the test is how its sockets end at the exit.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{MAX_WAIT, block, pause};
use axum::{Router, body::Body, routing::get};
use lameduck::{Host, Settings, lifecycle::Plan, runtime::ListenAddress};
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroUsize,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Holds the number of workers of the victim, and its drain in milliseconds.
const ROLE: &str = "LAMEDUCK_TEST_BLOCKED";

const PLAN: Plan = Plan::new()
    .start(Duration::from_secs(10))
    .lame_duck(Duration::ZERO)
    .drain(Duration::from_millis(300))
    .cancel(Duration::from_millis(300))
    .cleanup(Duration::from_millis(500))
    .internal_close(Duration::from_millis(500));

/// A body without a length and without an end.
async fn drip() -> Body {
    Body::from_stream(futures_util::stream::unfold((), |()| async {
        pause(20).await;
        Some((Ok::<_, io::Error>("drop\n"), ()))
    }))
}

/// The process under test. Does nothing without a role; with one it does not return.
#[test]
fn victim() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (workers, drain_ms) = role.split_once(' ').unwrap();
    let plan = PLAN.drain(Duration::from_millis(drain_ms.parse().unwrap()));
    let anywhere = || "127.0.0.1:0".parse::<ListenAddress>().unwrap();
    let mut settings = Settings::default();
    settings.workers = Some(workers.parse::<NonZeroUsize>().unwrap());
    let router = Router::new().route("/drip", get(drip)).route(
        "/block",
        get(|| async {
            block(Duration::from_secs(600));
            "at last"
        }),
    );
    lameduck::run(|| {
        let builder = Host::builder(
            settings.plan(plan).main_address(anywhere()).internal_address(anywhere()),
        );
        let builder = builder.on_bound(|bound| {
            writeln!(io::stdout(), "\nbound {}", bound.main[0]).unwrap();
        });
        Ok(builder.serve(router))
    })
}

fn start_victim(role: &str) -> (Child, SocketAddr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "blocked::victim", "--nocapture"]).env(ROLE, role);
    let mut victim =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let bound = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("bound ").map(str::to_owned))
        .unwrap();
    (victim, bound.parse().unwrap())
}

fn ask(address: SocketAddr, path: &str) -> TcpStream {
    let mut stream = crate::support::until("the victim", || TcpStream::connect(address).ok());
    stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
    stream
}

#[test]
fn a_response_on_a_blocked_worker_is_reset_at_the_exit_and_does_not_look_complete() {
    // An HTTP/1.0 response ends with its connection. The blocked worker could not perform the cut,
    // the process exited, and the kernel closed the connection with a FIN. Four chunks of a stream
    // looked like a complete response. The connection must be reset (P5d).
    let (mut victim, address) = start_victim("1 300");
    let ask = |path: &str| ask(address, path);
    let mut neighbour = ask("/drip");
    let mut seen = String::new();
    while !seen.contains("drop") {
        let mut part = [0; 256];
        let read = neighbour.read(&mut part).unwrap();
        assert!(read > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    let mut blocking = ask("/block");
    block(Duration::from_millis(200));
    kill_process(Pid::from_child(&victim), Signal::TERM).unwrap();
    let mut rest = Vec::new();
    let end = neighbour.read_to_end(&mut rest);
    assert_eq!(
        end.map_err(|error| error.kind()),
        Err(ErrorKind::ConnectionReset),
        "it must not look whole"
    );
    let end = blocking.read_to_end(&mut rest);
    assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    assert_eq!(victim.wait().unwrap().code(), Some(3));
}

/// One worker was blocked at the stop. The other one closed its sealed listener after 200 ms, and
/// the kernel sent all further clients to the blocked one: they were connected for the whole drain,
/// and reset at its end. Those that are kept out must stay so (P5a).
#[test]
fn new_clients_are_not_left_to_a_blocked_worker() {
    let (mut victim, address) = start_victim("2 3000");
    let idle: Vec<_> = (0..32).map(|_| ask_nothing(address)).collect();
    let mut blocking = ask(address, "/block");
    block(Duration::from_millis(200));
    kill_process(Pid::from_child(&victim), Signal::TERM).unwrap();
    let is_closed = |stream: &TcpStream| matches!(stream.peek(&mut [0]), Ok(0));
    crate::support::until("the drain of the other worker", || {
        idle.iter().find(|idle| is_closed(idle))
    });
    block(Duration::from_millis(300));
    let new: Vec<_> = (0..32).map(|_| begin_connect(address)).collect();
    block(Duration::from_millis(300));
    let connected = new.iter().filter(|socket| socket.peer_addr().is_ok()).count();
    assert!(connected < new.len(), "all of them are at the blocked worker");
    let end = blocking.read_to_end(&mut Vec::new());
    assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    assert_eq!(victim.wait().unwrap().code(), Some(3));
}

fn ask_nothing(address: SocketAddr) -> TcpStream {
    let stream = crate::support::until("the victim", || TcpStream::connect(address).ok());
    stream.set_nonblocking(true).unwrap();
    stream
}

/// A socket that connects in the background.
fn begin_connect(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_nonblocking(true).unwrap();
    let _ = socket.connect(&address.into());
    socket
}

/// Under `Host::run` the caller owns the runtime. When it was dropped during a response, the
/// connection closed with a FIN, and half a response looked complete. The connection must be reset
/// (P5d).
#[test]
fn a_response_that_its_runtime_drops_is_reset() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (bound, address) = std::sync::mpsc::channel();
    let anywhere = || "127.0.0.1:0".parse::<ListenAddress>().unwrap();
    let builder = Host::builder(
        Settings::default().main_address(anywhere()).internal_address(anywhere()).plan(PLAN),
    );
    let builder = builder.on_bound(move |to| bound.send(to.main[0].tcp().unwrap()).unwrap());
    let host = builder.serve(Router::new().route("/drip", get(drip)));
    let running = runtime.spawn(host.run());
    let address = address.recv_timeout(MAX_WAIT).unwrap();
    let mut stream = crate::support::until("the host", || TcpStream::connect(address).ok());
    stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
    write!(stream, "GET /drip HTTP/1.0\r\n\r\n").unwrap();
    let mut seen = String::new();
    while !seen.contains("drop") {
        let mut part = [0; 256];
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "{seen}");
        seen.push_str(std::str::from_utf8(&part[..read]).unwrap());
    }
    runtime.shutdown_background();
    drop(running);
    let end = stream.read_to_end(&mut Vec::new());
    assert_eq!(end.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}
