//! Sockets that the manager bound: inherited as descriptors from 3 on, served, and left unchanged.

use super::is_installed;
use crate::support::{
    MAX_WAIT, Service, aside, scratch_path,
    service::{ANYWHERE, run_to_end},
    until, until_holds, wire,
};
use rustix::process::Signal;
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::{Command, Stdio},
};

/// Returns a command for the binary whose descriptors 3 and 4 are these.
fn handed(variables: &str, third: OwnedFd, fourth: Option<OwnedFd>) -> Command {
    let exec_service = format!("{variables} exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null");
    let mut command = Command::new("/bin/sh");
    command
        .env_clear()
        .args(["-c", &exec_service, env!("CARGO_BIN_EXE_lameduck")])
        .args(ANYWHERE)
        .arg("--lame-duck=0s");
    command
        .stdin(third)
        .stdout(fourth.map_or_else(Stdio::piped, Stdio::from))
        .stderr(Stdio::piped());
    command
}

fn ask(path: &Path) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[test]
fn an_inherited_socket_replaces_the_configured_addresses_and_is_left_unchanged() {
    let (held, address) = listener();
    let mut command = handed("LISTEN_FDS=1 LISTEN_PID=$$", held.try_clone().unwrap().into(), None);
    // This address is in use, and the service does not even try it.
    let mut service = Service::watch(command.arg(format!("--addr={address}")));
    assert_eq!(service.main, address);
    let line = service.wait_for_line("sockets inherited");
    assert_eq!((&line["main"], &line["internal"]), (&address.to_string().into(), &"".into()));
    service.wait_for_phase("serving");
    for _ in 0..20 {
        assert_eq!(wire::get(address, "/").body(), "hello world", "by any worker");
    }
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
    // No filter is left on the socket: a handshake completes, and the holder accepts it.
    let waiting = aside(move || wire::Client::try_connect(address).map(drop));
    held.set_nonblocking(false).unwrap();
    held.accept().unwrap();
    waiting.join().unwrap().unwrap();
}

// Clients that wait in the queue during a restart are accepted before Serving is published. Their
// connections never reached the age limit: 0 of 60.
#[test]
fn connections_that_waited_for_the_start_have_the_age_limit() {
    let (held, address) = listener();
    let mut waiting = wire::Client::connect(address);
    let mut command = handed("LISTEN_FDS=1 LISTEN_PID=$$", held.into(), None);
    let mut service = Service::watch(command.arg("--connection-age-max=500ms"));
    until_holds("a response that announces the close", || waiting.get("/").says_close());
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn an_inherited_socket_named_internal_belongs_to_the_internal_server() {
    let ((main, main_address), (internal, internal_address)) = (listener(), listener());
    let variables = "LISTEN_FDS=2 LISTEN_FDNAMES=internal:web LISTEN_PID=$$";
    let service = Service::watch(&mut handed(variables, internal.into(), Some(main.into())));
    assert_eq!((service.main, service.internal), (main_address, internal_address));
    service.wait_for_phase("serving");
    assert_eq!((service.get("/").status, service.probe("/readiness").status), (200, 200));
    let line = service.wait_for_line("sockets inherited");
    let (main, internal) = (main_address.to_string(), internal_address.to_string());
    assert_eq!((&line["main"], &line["internal"]), (&main.into(), &internal.into()));
}

/// The default connection limit left no descriptors for the second of two inherited sockets. Under
/// a flood, workers had none for their epoll and their shutdown.
#[test]
fn the_default_connection_limit_leaves_descriptors_for_each_inherited_socket() {
    let limit = |variables: &str, fourth: Option<OwnedFd>| {
        let variables = format!("ulimit -n 200; {variables} LISTEN_PID=$$");
        let service = Service::watch(&mut handed(&variables, listener().0.into(), fourth));
        service.wait_for_phase("serving");
        let page = service.probe("/metrics").body();
        let limit = page.lines().find_map(|line| line.strip_prefix("lameduck_connections_max "));
        limit.and_then(|limit| limit.parse::<f64>().ok()).unwrap()
    };
    let (one, two) =
        (limit("LISTEN_FDS=1", None), limit("LISTEN_FDS=2", Some(listener().0.into())));
    assert_eq!((one, one - two), (120.0, 4.0), "two descriptors for each of two workers");
}

#[test]
fn an_inherited_unix_socket_keeps_its_path_for_the_successor() {
    let path = scratch_path("held.sock");
    let held = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let mut command =
            handed("LISTEN_FDS=1 LISTEN_PID=$$", held.try_clone().unwrap().into(), None);
        let mut service = Service::watch(&mut command);
        assert!(ask(&path).ends_with("hello world"));
        service.signal(Signal::TERM);
        assert_eq!(service.exit_code(), 0);
    }
    // Between the two processes, and after them, connections wait in the queue.
    drop(UnixStream::connect(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn sockets_for_another_process_are_not_inherited() {
    let (held, address) = listener();
    for variables in ["LISTEN_FDS=1 LISTEN_PID=1", "LISTEN_FDS=1", "LISTEN_PID=$$"] {
        let service =
            Service::watch(&mut handed(variables, held.try_clone().unwrap().into(), None));
        assert_ne!(service.main, address, "{variables}");
    }
}

#[test]
fn a_descriptor_that_is_no_listening_socket_is_refused_in_one_line() {
    let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let unconnected = || OwnedFd::from(UnixStream::pair().unwrap().0);
    let two = || Some(OwnedFd::from(listener().0));
    let cases = [
        ("LISTEN_FDS=1 LISTEN_PID=$$", file(), None, "descriptor 3 is not a socket"),
        ("LISTEN_FDS=1 LISTEN_PID=$$", unconnected(), None, "not a listening stream socket"),
        ("LISTEN_FDS=many LISTEN_PID=$$", listener().0.into(), None, "LISTEN_FDS=many"),
        ("LISTEN_FDS=1000 LISTEN_PID=$$", listener().0.into(), None, "at most 64"),
        (
            "LISTEN_FDS=2 LISTEN_FDNAMES=internal:internal LISTEN_PID=$$",
            listener().0.into(),
            two(),
            "only one is allowed",
        ),
    ];
    for (variables, third, fourth, words) in cases {
        let mut command = handed(variables, third, fourth);
        // The line is on standard error. Standard output may be a socket.
        let mut child = command.spawn().unwrap();
        let code = crate::support::service::wait(&mut child);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(code, Some(1), "{variables}: {stderr}");
        assert!(
            stderr.lines().count() == 1 && stderr.contains(words) && stderr.contains("LISTEN_FD"),
            "{stderr}"
        );
    }
}

/// The tool executes the program at the first connection, which is then the first in the queue.
#[test]
fn systemd_socket_activate_passes_its_sockets() {
    if !is_installed("systemd-socket-activate") {
        return;
    }
    let (main, internal) = (scratch_path("main.sock"), scratch_path("internal.sock"));
    let mut command = Command::new("systemd-socket-activate");
    command.arg("-l").arg(&main).arg("-l").arg(&internal).arg("--fdname=web:internal");
    command.arg(env!("CARGO_BIN_EXE_lameduck")).args(ANYWHERE).arg("--lame-duck=0s");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let first = {
        let main = main.clone();
        aside(move || {
            until("the socket", || UnixStream::connect(&main).ok());
            ask(&main)
        })
    };
    let mut service = Service::watch(&mut command);
    assert!(first.join().unwrap().ends_with("hello world"));
    assert!(ask(&internal).contains("<h1>"), "the other one is the internal server, with its page");
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
    assert!(main.exists() && internal.exists(), "they are not ours to unlink");
    for path in [main, internal] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn without_the_variables_nothing_is_inherited() {
    let ended = run_to_end(handed("", listener().0.into(), None).arg("--print-plan"));
    assert_eq!(ended.code, Some(0));
}
