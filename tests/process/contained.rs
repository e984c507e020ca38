//! P15: a fault costs only the request, connection or log line that it belongs to.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    App, Client, End, Service, builder, now,
    service::{command, end, wait},
    until, until_holds, wire,
};
use axum::{Router, body::Body, routing::get};
use rustix::process::Signal;
use std::{
    io::Read,
    process::{Child, Command, Stdio},
    time::Duration,
};

#[test]
fn a_panic_in_a_handler_is_a_500_for_its_client_only() {
    let mut service = Service::start(&["--lame-duck=0s"]);
    let mut neighbour = Client::connect(service.main);
    neighbour.send_get("/slow?ms=500");
    let mut client = Client::connect(service.main);
    for _ in 0..3 {
        assert_eq!(client.get("/panic").status, 500);
    }
    assert_eq!(client.get("/").status, 200, "even its connection goes on");
    assert_eq!(neighbour.answer().body(), "slow done\n");
    assert_eq!(service.probe("/liveness").status, 200);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
    let requests = &service.report()["requests"];
    assert_eq!(
        (&requests["panicked"], &requests["finished"]),
        (&3.into(), &5.into()),
        "P5: a 500 is an answer"
    );
    service.wait_for_line("requested by GET /panic");
}

#[test]
fn a_panic_in_a_body_resets_only_its_connection() {
    async fn breaks() -> Body {
        let pieces = futures_util::stream::unfold(0, |n| async move {
            crate::support::pause(20).await;
            assert!(n < 3, "on purpose");
            Some((Ok::<_, std::io::Error>(format!("piece {n}")), n + 1))
        });
        Body::from_stream(pieces)
    }
    let app =
        App::start(builder().serve(
            Router::new().route("/breaks", get(breaks)).route("/", get(|| async { "hello" })),
        ));
    let mut neighbour = Client::connect(app.main);
    assert_eq!(neighbour.get("/").body(), "hello");
    let mut client = Client::connect(app.main);
    client.send_get("/breaks");
    assert_eq!(client.try_answer().unwrap_err(), End::Reset, "it must not look whole");
    let mut http2 = crate::support::frames::Http2::connect(app.main);
    let (broken, whole) = (http2.get("/breaks"), http2.get("/"));
    assert_eq!(http2.body(whole), "hello");
    http2.wait_for("RST_STREAM", |frame| {
        frame.stream == broken && frame.kind == crate::support::frames::RST_STREAM
    });
    let again = http2.get("/");
    assert_eq!(http2.body(again), "hello", "on HTTP/2 it costs its stream, not its connection");
    assert_eq!(neighbour.get("/").body(), "hello");
    let report = app.end();
    assert_eq!((report.code(), report.requests.panicked), (0, 2), "{report:?}");
}

#[test]
fn garbage_gets_a_400_or_a_close_and_others_are_served() {
    let service = Service::start(&[]);
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET\r\n\r\n",
        b"\r\n\r\n\r\n\r\nnonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"POST /echo HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\nnot a chunk\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nthis is no frame at all, whatever it may look like",
        &[0xff; 4096],
    ] {
        let mut client = Client::connect(service.main);
        let _ = client.try_send(garbage);
        client.shut_write();
        match client.head() {
            // An HTTP/2 peer that violates the protocol gets frames, which are no HTTP/1 head.
            Ok(answer) => assert!((400..500).contains(&answer.status), "{answer:?}"),
            Err(end) => {
                assert!(
                    end != End::Reset || garbage.len() >= 50,
                    "{end:?} after {:?}",
                    String::from_utf8_lossy(garbage)
                );
            }
        }
        assert_eq!(service.get("/").status, 200);
    }
}

#[test]
fn a_head_too_large_or_with_too_many_fields_gets_a_431_that_arrives() {
    let service = Service::start(&["--header-bytes-max=8192", "--headers-max=20"]);
    let large = format!("GET / HTTP/1.1\r\nhost: t\r\nx: {}\r\n\r\n", "y".repeat(100_000));
    assert_eq!(wire::request(service.main, &large).status, 431);
    let many: String = (0..30).map(|n| format!("x-{n}: y\r\n")).collect();
    assert_eq!(
        wire::request(service.main, &format!("GET / HTTP/1.1\r\nhost: t\r\n{many}\r\n")).status,
        431
    );
    let fits = format!(
        "GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\nx: {}\r\n\r\n",
        "y".repeat(7_000)
    );
    assert_eq!(wire::request(service.main, &fits).status, 200);
}

#[test]
fn half_a_head_gets_a_408_after_the_header_timeout_even_if_it_trickles() {
    let service = Service::start(&["--header-timeout=500ms"]);
    let mut client = Client::connect(service.main);
    let begin = now();
    client.send("GET / HTTP/1.1\r\nhost: t\r\n");
    while begin.elapsed() < Duration::from_secs(10)
        && client.is_silent_for(Duration::from_millis(50))
    {
        let _ = client.try_send("x");
    }
    assert_eq!(client.answer().status, 408);
    assert!(begin.elapsed() >= Duration::from_millis(500));
    assert_eq!(client.end(), End::Closed);
}

// Each worker checked the limit before it waited for a connection, and not again when one arrived.
// A worker that had waited since before the others reached the limit accepted one more. The limit
// must hold.
#[test]
fn at_the_connection_limit_the_next_one_waits_and_is_served_when_one_leaves() {
    let mut service = Service::start(&["--connections-max=4", "--lame-duck=0s"]);
    let mut held: Vec<Client> = (0..4).map(|_| Client::connect(service.main)).collect();
    for client in &mut held {
        // An idle connection would be evicted.
        client.send_get("/slow?ms=4000");
    }
    until_holds("the limit", || service.status()["connections"]["open"].as_u64() >= Some(4));
    let mut next = Client::connect(service.main);
    next.send_get("/");
    assert!(
        next.is_silent_for(Duration::from_millis(400)),
        "the kernel's queue is the back-pressure"
    );
    assert_eq!(service.probe("/readiness").status, 200, "probes have connections of their own");
    held.clear();
    assert_eq!(next.answer().body(), "hello world");
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
}

/// Starts a service that has fewer descriptors than it may have connections.
fn with_60_descriptors(workers: usize) -> Service {
    let mut shell = Command::new("sh");
    let script = "ulimit -n 60; exec \"$0\" --addr=127.0.0.1:0 --internal-addr=127.0.0.1:0 \
                  --log-format=json --lame-duck=0s --workers=$1 --connections-max=60 --drain=5s";
    shell
        .args(["-c", script, env!("CARGO_BIN_EXE_lameduck"), &workers.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let service = Service::watch(&mut shell);
    service.wait_for_phase("serving");
    service
}

#[test]
fn when_descriptors_run_out_probes_get_responses_and_the_service_recovers() {
    // P16: the main listeners shared the descriptor reserve of the internal one, and used it up. No
    // probe got a response. Probes must get theirs, and the service must recover.
    let mut service = with_60_descriptors(2);
    let mut held: Vec<Client> = (0..70).map(|_| Client::connect(service.main)).collect();
    until_holds("an accept that fails", || {
        service.status()["connections"]["accept_errors"].as_u64() > Some(0)
    });
    for _ in 0..20 {
        assert_eq!(service.probe("/liveness").status, 200);
    }
    // Silent clients of the internal server then took the reserve, and were far fewer than its
    // limit. So none made room, and no probe got a response for a minute.
    let strangers: Vec<Client> = (0..20).map(|_| Client::connect(service.internal)).collect();
    for _ in 0..20 {
        let asked = now();
        assert_eq!(service.probe("/liveness").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    }
    drop(strangers);
    held.truncate(5);
    assert_eq!(held[0].get("/").body(), "hello world");
    assert_eq!(service.get("/").body(), "hello world");
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
}

// With few free descriptors accepts failed and succeeded in turn, and each failure was logged: up
// to 50 lines a second for each worker. At most one a second is logged (P15).
#[test]
fn accepts_that_fail_in_turn_are_logged_once_a_second() {
    let mut service = with_60_descriptors(1);
    let begin = now();
    let held: Vec<Client> = (0..70).map(|_| Client::connect(service.main)).collect();
    let connections = |name: &str| service.status()["connections"][name].as_u64().unwrap();
    until_holds("an accept that fails", || connections("accept_errors") > 0);
    let mut accepted = connections("accepted");
    for client in held.into_iter().take(10) {
        drop(client);
        until_holds("the next one", || connections("accepted") > accepted);
        let failed = connections("accept_errors");
        until_holds("the next failure", || connections("accept_errors") > failed);
        accepted = connections("accepted");
    }
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
    let most = 1 + begin.elapsed().as_secs() as usize;
    let lines = service.lines();
    let logged = lines.iter().filter(|line| line.to_string().contains("cannot accept")).count();
    assert!((1..=most).contains(&logged), "{logged} lines, and {most} seconds");
}

/// Starts a process whose log is a pipe. The test reads it up to the line with the addresses, and
/// no further.
fn with_log_pipe(flags: &[&str]) -> (Child, std::process::ChildStderr, [std::net::SocketAddr; 2]) {
    let mut child = command()
        .args(crate::support::service::ANYWHERE)
        .args(["--lame-duck=100ms", "--drain=1s", "--cancel=600ms"])
        .args(flags)
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while line.last() != Some(&b'\n') {
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "no first line");
        line.push(byte[0]);
    }
    let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
    let address = |name: &str| line[name].as_str().unwrap().parse().unwrap();
    (child, stderr, [address("main"), address("internal")])
}

#[track_caller]
fn assert_serves_and_exits(mut child: Child, [main, internal]: [std::net::SocketAddr; 2]) {
    until("the start", || (wire::get(internal, "/startupz").status == 200).then_some(()));
    for _ in 0..50 {
        assert_eq!(wire::get(main, "/panic").status, 500);
        assert_eq!(wire::get(main, "/").status, 200);
    }
    let mut stuck = Client::connect(main);
    stuck.send_get("/stuck?ms=60000");
    until("the request", || {
        wire::get(internal, "/status").body().contains("\"in_flight\": 1").then_some(())
    });
    let asked = now();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(stuck.answer().status, 503);
    assert_eq!(wait(&mut child), Some(3), "the exit tells the truth without a log, too");
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    end(&mut child);
}

#[test]
fn a_log_reader_that_is_gone_costs_only_lines() {
    let (child, stderr, addresses) = with_log_pipe(&["--log-level=trace"]);
    drop(stderr);
    assert_serves_and_exits(child, addresses);
}

// The panic hook of the standard library writes to stderr itself. With a stuck reader, a panicking
// handler blocked its worker for ever. Such a reader must cost only lines (P15).
#[test]
fn a_stuck_log_reader_costs_only_lines() {
    let (child, stderr, addresses) = with_log_pipe(&["--log-level=trace"]);
    assert_serves_and_exits(child, addresses);
    drop(stderr);
}

#[test]
fn an_error_line_to_a_stuck_or_closed_stderr_does_not_delay_the_exit() {
    let service = Service::start(&[]);
    let address = service.main.to_string();
    let mut child =
        command().args(["--addr", &address, "--internal-addr=127.0.0.1:0"]).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(wait(&mut child), Some(1));
    end(&mut child);
}

#[test]
fn a_stuck_log_reader_does_not_make_the_watchdog_end_an_exit_at_the_bound() {
    // P13: writing the last lines could take more than a second, and the watchdog fires after half
    // of one. The exit code was 5 instead of 3. A stuck reader must not change the exit code.
    let (child, stderr, addresses) =
        with_log_pipe(&["--log-level=trace", "--cleanup=0s", "--internal-close=0s"]);
    assert_serves_and_exits(child, addresses);
    drop(stderr);
}
