//! P7, P10, P13: a request that does not finish is cancelled, then cut. Every cut is visible to its
//! client and in the report.

use crate::support::{
    Client, End, Service,
    frames::{Http2, RST_STREAM},
    now,
};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const PLAN: [&str; 5] =
    ["--lame-duck=0s", "--drain=500ms", "--cancel=600ms", "--cleanup=1s", "--internal-close=1s"];

/// The worst case of the plan above, and the time that a slow machine adds.
const WORST_CASE: Duration = Duration::from_millis(3_100);
const SLACK: Duration = Duration::from_secs(2);

fn stop(service: &Service) -> Instant {
    let asked = now();
    service.signal(Signal::TERM);
    asked
}

#[track_caller]
fn assert_exits(service: &mut Service, asked: Instant, expected: i32) {
    let (code, took) = service.exit_code_since(asked);
    assert_eq!(code, expected, "{:?}", service.report());
    assert!(took < WORST_CASE + SLACK, "{took:?}");
}

#[test]
fn a_cooperative_handler_is_cancelled_after_the_drain_and_its_response_arrives() {
    let mut service = Service::start(&PLAN);
    let mut client = Client::connect(service.main);
    client.send_get("/slow?ms=60000");
    service.wait_for_in_flight(1);
    let asked = stop(&service);
    let answer = client.answer();
    assert_eq!((answer.status, answer.body().as_str()), (503, "cancelled\n"));
    assert!(asked.elapsed() >= Duration::from_millis(500), "P10: never before the drain ran out");
    assert_exits(&mut service, asked, 0);
    assert_eq!(service.report()["requests"]["finished"], 1, "its own answer, in time");
}

#[test]
fn a_stuck_handler_is_cut_with_a_503_that_names_the_reason() {
    let mut service = Service::start(&PLAN);
    let mut client = Client::connect(service.main);
    client.send_get("/stuck?ms=60000&head=0");
    service.wait_for_in_flight(1);
    let asked = stop(&service);
    let answer = client.answer();
    assert_eq!(answer.status, 503);
    assert!(answer.says_close());
    assert!(
        answer.body().contains("aborted") && answer.body().contains("shutting down"),
        "{}",
        answer.body()
    );
    assert!(
        asked.elapsed() >= Duration::from_millis(850),
        "only when the cancel wait is nearly over"
    );
    assert_exits(&mut service, asked, 3);
    let report = service.report();
    assert_eq!(
        (&report["verdict"], &report["requests"]["aborted"]),
        (&"aborted".into(), &1.into())
    );
    let abort = &report["aborts"][0];
    assert_eq!(abort["method"], "GET");
    assert_eq!(abort["path"], "/stuck", "without its query");
    assert_eq!(abort["phase"], "cancelling");
    assert_eq!(abort["head_sent"], false);
    assert!(abort["age_ms"].as_u64().unwrap() >= 850, "{abort}");
    assert_eq!(report["aborts"].as_array().unwrap().len(), 1);
    let line = service.wait_for_line("request aborted");
    assert!(line["path"] == "/stuck" && !line.to_string().contains("60000"), "{line}");
}

#[test]
fn after_the_head_a_cut_response_of_known_length_ends_in_a_reset() {
    let mut service = Service::start(&PLAN);
    let mut client = Client::connect(service.main);
    client.send_get("/stuck?ms=60000&head=1");
    assert_eq!(client.head().unwrap().status, 200);
    client.exactly(8).unwrap();
    let asked = stop(&service);
    assert_eq!(client.end(), End::Reset);
    assert_exits(&mut service, asked, 3);
    let report = service.report();
    assert_eq!(
        (&report["aborts"][0]["head_sent"], &report["connections"]["reset"]),
        (&true.into(), &1.into())
    );
}

#[test]
fn after_the_head_a_cut_chunked_response_ends_in_a_reset_and_without_a_last_chunk() {
    let mut service = Service::start(&PLAN);
    let mut client = Client::connect(service.main);
    client.send_get("/stuck?ms=60000&chunked=1");
    client.head().unwrap();
    assert_eq!(client.chunk().unwrap(), b"stuck ha");
    let asked = stop(&service);
    assert_eq!(client.chunk().unwrap_err(), End::Reset);
    assert_exits(&mut service, asked, 3);
}

#[test]
fn after_the_head_a_cut_http_1_0_response_that_ends_with_the_connection_is_reset() {
    // RFC 9112 §8: here a FIN is the end of the response, so only a reset marks it as incomplete
    // (P5d).
    let mut service = Service::start(&PLAN);
    let mut client = Client::connect(service.main);
    client.send("GET /stuck?ms=60000&chunked=1 HTTP/1.0\r\n\r\n");
    let head = client.head().unwrap();
    assert!(
        head.header("transfer-encoding").is_none() && head.header("content-length").is_none(),
        "{head:?}"
    );
    client.exactly(8).unwrap();
    let asked = stop(&service);
    assert_eq!(client.end(), End::Reset);
    assert_exits(&mut service, asked, 3);
}

#[test]
fn on_http2_a_stuck_stream_gets_a_503_and_a_cut_one_a_rst_stream() {
    let mut service = Service::start(&PLAN);
    let mut client = Http2::connect(service.main);
    let stuck = client.get("/stuck?ms=60000");
    let known = client.get("/stuck?ms=60000&head=1");
    let chunked = client.get("/stuck?ms=60000&chunked=1");
    service.wait_for_in_flight(3);
    let asked = stop(&service);
    assert!(client.body(stuck).contains("shutting down"));
    client.read_to_end();
    for cut in [known, chunked] {
        let frames: Vec<_> = client.seen.iter().filter(|frame| frame.stream == cut).collect();
        assert!(frames.iter().any(|frame| frame.kind == RST_STREAM), "{frames:?}");
        assert!(
            !frames.iter().any(|frame| frame.ends_stream()),
            "it must not look whole: {frames:?}"
        );
    }
    assert_exits(&mut service, asked, 3);
    assert_eq!(service.report()["requests"]["aborted"], 3);
}

#[test]
fn a_client_whose_upload_is_cut_can_read_its_503_before_a_reset() {
    // After the 503 of a cut upload the connection closed at once. The next bytes of the upload
    // caused a reset, and on many systems a reset destroys what the client has not read yet. The
    // flush at the end of the cancel wait must prevent that (P5d).
    let mut service = Service::start(&PLAN);
    let mut client = Client::connect(service.main);
    client.send("POST /echo HTTP/1.1\r\nhost: t\r\ncontent-length: 10000000\r\n\r\n");
    service.wait_for_in_flight(1);
    let asked = stop(&service);
    let mut silent_at = now();
    while client.is_silent_for(Duration::from_millis(5)) {
        silent_at = now();
        client.send([b'x'; 100]);
    }
    for _ in 0..4 {
        let sent = client.try_send([b'x'; 100]);
        // If this thread was delayed, the flush may have ended.
        if silent_at.elapsed() > Duration::from_millis(150) {
            break;
        }
        sent.expect("no reset while the answers are flushed");
        crate::support::block(Duration::from_millis(20));
    }
    assert_eq!(client.answer().status, 503);
    assert_exits(&mut service, asked, 3);
}

#[test]
fn an_unread_body_harms_neither_the_response_nor_the_next_connection() {
    let service = Service::start(&PLAN);
    let mut client = Client::connect(service.main);
    client.send("POST /slow HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(client.answer().status, 405);
    assert_eq!(service.get("/").status, 200);
}

#[test]
fn a_slow_reader_of_a_big_response_is_bounded_and_reset() {
    let mut service = Service::start(&PLAN);
    let mut client = Client::connect(service.main);
    client.send_get("/big?bytes=1073741824");
    assert_eq!(client.head().unwrap().status, 200);
    let asked = stop(&service);
    let (code, took) = service.exit_code_since(asked);
    assert_eq!(code, 3);
    assert!(took < WORST_CASE + SLACK, "{took:?}");
    assert_eq!(client.end(), End::Reset);
}

#[test]
fn half_a_head_in_the_drain_gets_a_408_or_a_close_and_delays_the_exit_only_by_its_timer() {
    let mut service = Service::start(&["--lame-duck=0s", "--drain=10s"]);
    let mut client = Client::connect(service.main);
    client.send("GET / HTTP/1.1\r\nhos");
    crate::support::until_holds("it to be accepted", || {
        service.status()["connections"]["open"] == 1
    });
    let asked = stop(&service);
    assert_eq!(client.answer().status, 408);
    let (code, took) = service.exit_code_since(asked);
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

// The report was made while workers still performed the cut. A connection was open in it, and on a
// busy machine an abort would have been counted without its name. Every request must be counted
// once and named (P13).
#[test]
fn everything_at_once_is_counted_once_each_and_ends_within_the_worst_case() {
    let mut service = Service::start(&PLAN);
    let paths = [
        "/stuck?ms=60000",
        "/slow?ms=60000",
        "/stream?ms=60000",
        "/stuck?ms=60000&head=1",
        "/big?bytes=1073741824",
    ];
    let mut clients = Vec::new();
    for path in paths.iter().cycle().take(20) {
        let mut client = Client::connect(service.main);
        client.send_get(path);
        clients.push(client);
    }
    service.wait_for_in_flight(20);
    let asked = stop(&service);
    assert_exits(&mut service, asked, 3);
    let report = service.report();
    let requests = &report["requests"];
    assert_eq!(
        (&requests["started"], &requests["in_flight"]),
        (&20.into(), &0.into()),
        "{requests}"
    );
    assert_eq!(
        (&requests["finished"], &requests["aborted"]),
        (&4.into(), &16.into()),
        "{requests}"
    );
    assert_eq!(report["aborts"].as_array().unwrap().len(), 16);
    assert_eq!(report["connections"]["open"], 0, "{report}");
}
