//! P5, P7: a handler that blocks its worker cannot be cut, and neither can other requests of that
//! worker. None of them may look complete. The victim is this test binary, started again with a
//! role, because the test is how its sockets end at the exit.

#![cfg(target_os = "linux")]

use crate::support::{MAX_WAIT, block, pause};
use axum::{Router, body::Body, routing::get};
use lameduck::{Host, Settings, lifecycle::Plan, runtime::ListenAddress};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroUsize,
    process::{Command, Stdio},
    time::Duration,
};

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
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let anywhere = || "127.0.0.1:0".parse::<ListenAddress>().unwrap();
    let mut settings = Settings::default();
    settings.workers = NonZeroUsize::new(1);
    let router = Router::new().route("/drip", get(drip)).route(
        "/block",
        get(|| async {
            block(Duration::from_secs(600));
            "at last"
        }),
    );
    lameduck::run(|| {
        let builder = Host::builder(
            settings.plan(PLAN).main_address(anywhere()).internal_address(anywhere()),
        );
        let builder = builder.on_bound(|bound| {
            writeln!(io::stdout(), "\nbound {}", bound.main[0]).unwrap();
        });
        Ok(builder.serve(router))
    })
}

#[test]
fn a_response_on_a_blocked_worker_is_reset_at_the_exit_and_does_not_look_complete() {
    // An HTTP/1.0 response ends with its connection. The blocked worker could not perform the cut,
    // the process exited, and the kernel closed the connection with a FIN. Four chunks of a stream
    // looked like a complete response. The connection must be reset (P5d).
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "blocked::victim", "--nocapture"]).env(ROLE, "1");
    let mut victim =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let bound = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("bound ").map(str::to_owned))
        .unwrap();
    let address: SocketAddr = bound.parse().unwrap();
    let ask = |path: &str| {
        let mut stream = crate::support::until("the victim", || TcpStream::connect(address).ok());
        stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        stream
    };
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
