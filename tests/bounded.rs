//! P15: what a client can make the process hold is bounded.

#![cfg(target_os = "linux")]

mod support;

use std::time::Duration;
use support::{
    Client, Service, block,
    frames::{END_HEADERS, END_STREAM, HEADERS, Http2, RST_STREAM, frame},
    until_holds,
};

/// Resident memory of the process, in KiB.
fn resident(service: &Service) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.pid().as_raw_nonzero())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn in_flight(service: &Service) -> u64 {
    service.status()["in_flight"].as_u64().unwrap()
}

const STREAMS_MAX: u64 = 200;
/// What allocators and the first use of code add, in KiB.
const GROWTH_MAX: i64 = 24 * 1024;

/// Opens 90 streams with a path of 4 KB by its index and resets them, again and again, while nothing is read.
/// Returns the most requests in flight that were seen, and the growth of the memory in KiB.
fn reset_streams_unread(service: &Service, method: &[u8]) -> (u64, i64) {
    let mut client = Http2::connect(service.main);
    client.read_nothing();
    // More than the kernel takes.
    client.get("/big?bytes=30000000");
    until_holds("the socket is full", || in_flight(service) == 1);
    block(Duration::from_millis(200));
    let path = format!("/{}", "x".repeat(4000));
    // RFC 7541 §6.2.1: with incremental indexing, the name of entry 4; the length in seven bits and more.
    let path = [&[0x44, 0x7f, 0xa2, 0x1e], path.as_bytes()].concat();
    let block_by = |path: &[u8]| [method, &[0x86], path].concat();
    let mut first = Some(block_by(&path));
    let before = resident(service);
    let mut most = 0;
    for _ in 0..60 {
        let streams: Vec<u32> = (0..90).map(|_| client.take_stream()).collect();
        let heads = streams.iter().flat_map(|stream| {
            // The newest entry of the table.
            let block = first.take().unwrap_or_else(|| block_by(&[0x80 | 62]));
            frame(HEADERS, END_STREAM | END_HEADERS, *stream, &block)
        });
        let heads: Vec<u8> = heads.collect();
        let opened = client.try_send(&heads, Duration::from_millis(100));
        block(Duration::from_millis(30));
        let resets: Vec<u8> = streams.iter().flat_map(|stream| frame(RST_STREAM, 0, *stream, &[0, 0, 0, 8])).collect();
        if opened.and_then(|()| client.try_send(&resets, Duration::from_millis(100))).is_err() {
            // It is not read from any more.
            break;
        }
        most = most.max(in_flight(service));
    }
    (most, resident(service) - before)
}

/// A client left its responses unread until its socket was full, then opened 90 streams and reset them, again and again. Requests
/// that had ended waited for a flush that never came: `requests_in_flight` was 61,650 on one connection, and memory grew 60 MB/s.
#[test]
fn streams_that_are_reset_while_nothing_is_read_are_not_kept() {
    // GET, and HEAD, whose response has no body that could be seen to be thrown away.
    for method in [&b"\x82"[..], b"\x02\x04HEAD"] {
        let service = Service::start(&[]);
        let (most, growth) = reset_streams_unread(&service, method);

        assert!(most <= STREAMS_MAX + 90, "{most} requests in flight");
        assert!(growth < GROWTH_MAX, "{growth} KiB");
        assert_eq!(service.get("/").status, 200);
    }
}

/// The same by a pipeline of HTTP/1, of which hyper takes 16 requests at a time.
#[test]
fn a_pipeline_whose_responses_are_not_read_is_not_read_either() {
    let service = Service::start(&[]);
    let small = "GET / HTTP/1.1\r\nhost: t\r\n\r\n".repeat(10);
    let mut pipelined = Client::connect(service.main);
    pipelined.read_nothing();
    while pipelined.try_send_within(small.as_bytes(), Duration::from_millis(200)).is_ok() {}
    let flying = in_flight(&service);
    assert!(flying <= 100, "{flying} requests in flight");
    assert_eq!(service.get("/").status, 200);
}

/// A client that reads late gets all that it asked for: reading from it is held up only for as long as it does not read.
#[test]
fn a_client_that_reads_at_last_is_served_on() {
    let service = Service::start(&[]);
    let mut client = Http2::connect(service.main);
    client.read_nothing();
    let big = client.get("/big?bytes=8000000");
    block(Duration::from_millis(200));
    for _ in 0..5 {
        let streams: Vec<u32> = (0..100).map(|_| client.get("/nothing")).collect();
        block(Duration::from_millis(50));
        for stream in streams {
            client.send(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
        }
    }
    let last = client.get("/");
    client.read_again();
    assert_eq!(client.body(big).len(), 8_000_000);
    assert_eq!(client.body(last), "hello world");
    until_holds("nothing in flight", || in_flight(&service) == 0);
}
