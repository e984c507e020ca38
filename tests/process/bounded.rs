//! P15: what a client can make the process hold is bounded.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    Client, End, Service, block,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Http2, RST_STREAM, frame,
    },
    now, until_holds,
};
use std::time::Duration;

/// Returns the resident memory of the process, in KiB.
fn resident(service: &Service) -> i64 {
    let status =
        std::fs::read_to_string(format!("/proc/{}/status", service.pid().as_raw_nonzero()))
            .unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn in_flight(service: &Service) -> u64 {
    service.status()["in_flight"].as_u64().unwrap()
}

const STREAMS_MAX: u64 = 200;
/// The memory that allocators and the first use of code add, in KiB.
const GROWTH_MAX: i64 = 24 * 1024;

/// Opens 90 streams with an indexed path of 4 KB and resets them, again and again, while the client
/// reads nothing. Returns the largest number of requests in flight, and the growth of the memory in
/// KiB.
fn reset_streams_unread(service: &Service, method: &[u8]) -> (u64, i64) {
    let mut client = Http2::connect(service.main);
    client.read_nothing();
    // More than the kernel takes.
    client.get("/big?bytes=30000000");
    until_holds("the socket is full", || in_flight(service) == 1);
    block(Duration::from_millis(200));
    let path = format!("/{}", "x".repeat(4000));
    // RFC 7541 §6.2.1: incremental indexing, the name of entry 4, and a length that needs more than
    // seven bits.
    let path = [&[0x44, 0x7f, 0xa2, 0x1e], path.as_bytes()].concat();
    let block_by = |path: &[u8]| [method, &[0x86], path].concat();
    let mut first = Some(block_by(&path));
    let before = resident(service);
    let mut most = 0;
    for _ in 0..60 {
        let streams: Vec<u32> = (0..90).map(|_| client.take_stream()).collect();
        let heads = streams.iter().flat_map(|stream| {
            // The newest entry of the dynamic table.
            let block = first.take().unwrap_or_else(|| block_by(&[0x80 | 62]));
            frame(HEADERS, END_STREAM | END_HEADERS, *stream, &block)
        });
        let heads: Vec<u8> = heads.collect();
        let opened = client.try_send(&heads, Duration::from_millis(100));
        block(Duration::from_millis(30));
        let resets: Vec<u8> = streams
            .iter()
            .flat_map(|stream| frame(RST_STREAM, 0, *stream, &[0, 0, 0, 8]))
            .collect();
        if opened.and_then(|()| client.try_send(&resets, Duration::from_millis(100))).is_err() {
            // The server no longer reads from this connection.
            break;
        }
        most = most.max(in_flight(service));
    }
    (most, resident(service) - before)
}

/// A client left its responses unread until its socket was full. Then it opened 90 streams and
/// reset them, again and again. Ended requests waited for a flush that never came:
/// `requests_in_flight` was 61,650 on one connection, and memory grew by 60 MB/s. Both must be
/// bounded (P15).
#[test]
fn streams_that_are_reset_while_nothing_is_read_are_released() {
    // GET, and HEAD, whose response has no body that could be dropped.
    for method in [&b"\x82"[..], b"\x02\x04HEAD"] {
        let service = Service::start(&[]);
        let (most, growth) = reset_streams_unread(&service, method);

        assert!(most <= STREAMS_MAX, "{most} requests in flight");
        assert!(growth < GROWTH_MAX, "{growth} KiB");
        assert_eq!(service.get("/").status, 200);
    }
}

/// An HTTP/1 pipeline without a reader, which must be bounded, too. hyper takes 16 requests at a
/// time.
#[test]
fn the_host_stops_reading_a_pipeline_whose_responses_are_not_read() {
    let service = Service::start(&[]);
    let small = "GET / HTTP/1.1\r\nhost: t\r\n\r\n".repeat(10);
    let mut pipelined = Client::connect(service.main);
    pipelined.read_nothing();
    while pipelined.try_send_within(small.as_bytes(), Duration::from_millis(200)).is_ok() {}
    let flying = in_flight(&service);
    assert!(flying <= 100, "{flying} requests in flight");
    assert_eq!(service.get("/").status, 200);
}

/// A client that reads late gets every response. The server stops reading from it only while it
/// does not read.
#[test]
fn a_client_that_reads_late_is_served() {
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

/// The preface alone, half a frame or an incomplete head kept an HTTP/2 connection for 620 s.
/// `--header-timeout` bounded only heads of HTTP/1, by 10 s. It must bound these, too (P15).
#[test]
fn an_http2_head_or_frame_must_be_complete_within_the_header_timeout() {
    const TIMEOUT: Duration = Duration::from_millis(700);
    let service = Service::start(&["--header-timeout=700ms"]);
    let preface = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..];
    let settings = [preface, &frame(4, 0, 0, &[])].concat();
    let head = b"\x82\x86\x04\x01/";
    let begun = frame(HEADERS, END_STREAM, 1, head);
    let went_on = [&begun[..], &frame(CONTINUATION, 0, 1, &[])].concat();
    let asked = [&settings[..], &frame(HEADERS, END_HEADERS | END_STREAM, 1, head)].concat();
    let uploads =
        [&settings[..], &frame(HEADERS, END_HEADERS, 1, b"\x83\x86\x04\x05/echo")].concat();
    let cases = [
        ("the preface alone", preface.to_vec()),
        ("no request", settings.clone()),
        ("half the head of a frame", [&settings[..], &[0, 0, 4]].concat()),
        ("half a frame", [&settings[..], &begun[..12]].concat()),
        (
            "half a frame that is no head",
            [&settings[..], &frame(6, 0, 0, b"12345678")[..13]].concat(),
        ),
        ("a head without END_HEADERS", [&settings[..], &begun].concat()),
        ("a head that goes on", [&settings[..], &went_on].concat()),
        ("half a frame after a response", [&asked[..], &frame(HEADERS, 4, 3, head)[..12]].concat()),
        (
            "a head without END_HEADERS after a response",
            [&asked[..], &frame(HEADERS, 1, 3, head)].concat(),
        ),
        ("half a PING in an upload", [&uploads[..], &frame(6, 0, 0, b"12345678")[..10]].concat()),
    ];
    let begin = now();
    let mut clients: Vec<_> = cases
        .iter()
        .map(|(_, bytes)| {
            let mut client = Client::connect(service.main);
            client.send(bytes);
            client
        })
        .collect();
    // The clients after this line have completed what they began to send, or send more.
    let mut idle = Client::connect(service.main);
    idle.send(&asked);
    let mut body = Client::connect(service.main);
    body.send([&uploads[..], &frame(DATA, 0, 1, b"half a frame of data")[..15]].concat());
    for ((what, _), client) in cases.iter().zip(&mut clients) {
        assert_eq!(client.end(), End::Closed, "{what}");
        assert!(begin.elapsed() >= TIMEOUT, "{what} after {:?}", begin.elapsed());
        assert!(begin.elapsed() < TIMEOUT * 6, "{what} after {:?}", begin.elapsed());
    }
    for client in [&mut idle, &mut body] {
        assert!(client.exactly(9).is_ok());
        client.try_send(b"").unwrap();
    }
    body.send(
        [&frame(DATA, 0, 1, b"half a frame of data")[15..], &frame(DATA, END_STREAM, 1, b"")]
            .concat(),
    );
    until_holds("the echo", || service.status()["requests"]["finished"] == 4);
    idle.send(frame(HEADERS, END_HEADERS | END_STREAM, 3, head));
    until_holds("the second response", || service.status()["requests"]["finished"] == 5);
}

/// The client gets the reason: GOAWAY with ENHANCE_YOUR_CALM, and the last stream that was read.
#[test]
fn a_client_that_does_not_complete_its_head_gets_a_goaway_with_the_reason() {
    let service = Service::start(&["--header-timeout=300ms"]);
    let mut client = Http2::connect(service.main);
    let id = client.get("/");
    assert_eq!(client.body(id), "hello world");
    client.send(HEADERS, END_STREAM, 3, b"\x82\x86");
    let goaway = client.wait_for("GOAWAY", |frame| frame.kind == GOAWAY);
    assert_eq!((goaway.last_stream(), goaway.payload[7]), (1, 11), "{goaway:?}");
    client.read_to_end();
}

/// 500 fields passed a limit of 10, and 1.8 MB of fields of one byte each cost 143 MB. A head above
/// the limit must be refused on its stream, without the memory (P15).
#[test]
fn header_fields_above_the_limit_are_refused_on_their_stream_without_memory() {
    let service = Service::start(&["--headers-max=10"]);
    let mut client = Http2::connect(service.main);
    // RFC 7541 appendix A: 21 is `age` with an empty value.
    let head = |fields: usize| [&b"\x82\x86\x04\x01/"[..], &vec![0x80 | 21; fields]].concat();
    let ask = |client: &mut Http2, fields: usize| {
        let id = client.take_stream();
        client.send(HEADERS, END_STREAM | END_HEADERS, id, &head(fields));
        let body = client.body(id);
        (id, body)
    };
    assert_eq!(ask(&mut client, 10).1, "hello world");
    assert_eq!(ask(&mut client, 11).1, "the request has 11 header fields, above the limit of 10\n");
    let before = resident(&service);
    let mut clients: Vec<Http2> = (0..9).map(|_| Http2::connect(service.main)).collect();
    for client in &mut clients {
        for _ in 0..200 {
            let id = client.take_stream();
            client.send(HEADERS, END_HEADERS, id, &head(900));
        }
    }
    for client in &mut clients {
        client.wait_for("the last 431", |frame| frame.stream == 399 && frame.ends_stream());
    }
    let growth = resident(&service) - before;
    assert!(growth < GROWTH_MAX, "{growth} KiB");
    assert_eq!(ask(&mut client, 3).1, "hello world", "the connection goes on");
    assert_eq!(
        service.status()["requests"]["started"],
        2,
        "what is refused is no request, as with HTTP/1"
    );
}
