//! P6: no straggler delays the exit. Each of these would make a naive drain wait for ever.

use crate::support::{
    Client, End, Service,
    frames::{GOAWAY, Http2, WINDOW_UPDATE},
    now, until_holds,
};
use rustix::process::Signal;
use std::time::Duration;

/// A drain so long that a connection without its own timer is noticed.
const LONG: [&str; 2] = ["--lame-duck=0s", "--drain=15s"];

#[track_caller]
fn assert_leaves_early(mut service: Service, code: i32) -> serde_json::Value {
    let asked = now();
    service.signal(Signal::TERM);
    let (exit, took) = service.exit_code_since(asked);
    assert_eq!(exit, code, "{}", service.report());
    assert!(took < Duration::from_secs(6), "{took:?}");
    service.report()
}

fn wait_for_open(service: &Service, count: u64) {
    until_holds("the connections", || service.status()["connections"]["open"] == count);
}

#[test]
fn an_http2_connection_without_a_stream_gets_a_goaway_and_is_closed() {
    let service = Service::start(&LONG);
    let mut client = Http2::connect(service.main);
    let stream = client.get("/");
    assert_eq!(client.body(stream), "hello world");
    let reader = crate::support::aside(move || {
        client.read_to_end();
        client.seen.iter().any(|frame| frame.kind == GOAWAY)
    });
    assert_leaves_early(service, 0);
    assert!(reader.join().unwrap());
}

#[test]
fn an_http2_peer_that_neither_reads_nor_responds_to_pings_is_closed() {
    // After a graceful GOAWAY, hyper waits for the PONG without a timer.
    let service = Service::start(&LONG);
    let mut client = Http2::connect(service.main);
    let stream = client.get("/");
    client.body(stream);
    assert_leaves_early(service, 0);
}

#[test]
fn an_unfinished_http2_handshake_is_closed() {
    let service = Service::start(&LONG);
    let mut preface = Client::connect(service.main);
    preface.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let mut part = Client::connect(service.main);
    part.send("PRI * HTT");
    wait_for_open(&service, 2);
    assert_leaves_early(service, 0);
    assert_ne!(part.end(), End::ClosedEarly);
}

#[test]
fn a_client_that_shut_down_its_write_side_gets_its_response() {
    let mut service = Service::start(&["--lame-duck=0s", "--drain=5s"]);
    let mut client = Client::connect(service.main);
    client.send_get("/slow?ms=600");
    client.shut_write();
    service.wait_for_started(1);
    service.signal(Signal::TERM);
    assert_eq!(client.answer().body(), "slow done\n");
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn a_client_that_left_is_counted_as_gone_and_not_as_aborted() {
    let service = Service::start(&["--lame-duck=0s", "--drain=15s"]);
    let mut client = Client::connect(service.main);
    // The client reads nothing of a large response and closes. A close with unread bytes is a
    // reset.
    client.send_get("/big?bytes=1073741824");
    service.wait_for_in_flight(1);
    crate::support::block(Duration::from_millis(50));
    drop(client);
    until_holds("it to be missed", || service.status()["requests"]["gone"] == 1);
    let report = assert_leaves_early(service, 0);
    assert_eq!(report["requests"]["aborted"], 0, "{report}");
}

#[test]
fn an_http2_client_with_a_closed_window_is_bounded_by_the_cancel_wait() {
    let mut service = Service::start(&["--lame-duck=0s", "--drain=500ms", "--cancel=500ms"]);
    let mut client = Http2::connect(service.main);
    // More than the 65,535 bytes that a stream may send without a WINDOW_UPDATE.
    let stream = client.get("/big?bytes=1000000");
    service.wait_for_in_flight(1);
    let asked = now();
    service.signal(Signal::TERM);
    let (code, took) = service.exit_code_since(asked);
    assert_eq!(code, 3);
    assert!(took < Duration::from_secs(5), "{took:?}");
    client.read_to_end();
    assert!(
        !client.seen.iter().any(|frame| frame.stream == stream && frame.ends_stream()),
        "it must not look whole"
    );
    assert_eq!(service.report()["requests"]["aborted"], 1);
}

/// A drain far longer than the five seconds that a client may stall.
const FAR: [&str; 3] = ["--lame-duck=0s", "--drain=20s", "--request-timeout=15s"];

/// More than the 65,535 bytes that a stream may send without a WINDOW_UPDATE.
const MORE_THAN_A_WINDOW: &str = "/big?bytes=1000000";

#[test]
fn an_http2_client_that_stops_reading_is_cut_even_if_it_sends_pings() {
    // Such a client held its connection until the end of the drain, here 20 s, with nothing left to
    // do. PINGs are no progress (P6).
    let mut service = Service::start(&FAR);
    let mut client = Http2::connect(service.main);
    let stream = client.get(MORE_THAN_A_WINDOW);
    service.wait_for_in_flight(1);
    let asked = now();
    service.signal(Signal::TERM);
    while service.is_running() && asked.elapsed() < Duration::from_secs(15) {
        client.ping();
        crate::support::block(Duration::from_millis(500));
    }
    let (code, took) = service.exit_code_since(asked);
    assert_eq!(code, 3, "{}", service.report());
    assert!(took >= Duration::from_secs(5), "it has five seconds: {took:?}");
    assert!(took < Duration::from_secs(12), "{took:?}");
    client.read_to_end();
    assert!(
        !client.seen.iter().any(|frame| frame.stream == stream && frame.ends_stream()),
        "it must not look whole"
    );
    assert_eq!(service.report()["requests"]["aborted"], 1);
}

#[test]
fn an_http2_client_that_stops_reading_one_response_gets_the_other() {
    let mut service = Service::start(&FAR);
    let mut client = Http2::connect(service.main);
    let (slow, _) = (client.get("/slow?ms=8000"), client.get(MORE_THAN_A_WINDOW));
    service.wait_for_in_flight(2);
    // Only the one stream stalls. The connection has enough window for the other response.
    client.send(WINDOW_UPDATE, 0, 0, &1_000_u32.to_be_bytes());
    service.signal(Signal::TERM);
    assert_eq!(client.body(slow), "slow done\n", "what a handler takes is not its client's fault");
    assert_eq!(service.exit_code(), 3);
    let requests = &service.report()["requests"];
    assert_eq!((&requests["finished"], &requests["aborted"]), (&1.into(), &1.into()), "{requests}");
}

#[test]
fn an_http2_client_that_reads_slowly_is_not_cut() {
    let mut service = Service::start(&FAR);
    let mut client = Http2::connect(service.main);
    let stream = client.get("/big?bytes=150000");
    service.wait_for_in_flight(1);
    service.signal(Signal::TERM);
    let mut opened = 65_535;
    while opened < 150_000 {
        // Each interval is more than half of the time that it may take, and their sum is far more.
        crate::support::block(Duration::from_secs(3));
        let more = 30_000_u32.to_be_bytes();
        client.send(WINDOW_UPDATE, 0, 0, &more);
        client.send(WINDOW_UPDATE, 0, stream, &more);
        opened += 30_000;
    }
    assert_eq!(client.body(stream).len(), 150_000);
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn a_slow_reader_that_reads_on_gets_its_complete_response() {
    let mut service = Service::start(&["--lame-duck=0s", "--drain=15s"]);
    let mut client = Client::connect(service.main);
    let length = 20_000_000;
    client.send_get(&format!("/big?bytes={length}"));
    client.head().unwrap();
    service.signal(Signal::TERM);
    let mut left = length;
    while left > 0 {
        let part = left.min(1_000_000);
        client.exactly(part).unwrap();
        left -= part;
        crate::support::block(Duration::from_millis(20));
    }
    assert_eq!(client.end(), End::Closed);
    assert_eq!(service.exit_code(), 0);
    assert_eq!(service.report()["requests"]["finished"], 1);
}
