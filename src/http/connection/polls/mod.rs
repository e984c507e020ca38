//! A connection, poll by poll: each of its states, whatever the transport does next, in each phase.
//!
//! In every cell a connection that was not woken must have nothing to do (no wake-up is lost), must
//! come to rest (it does not spin), and must end at the cut with all requests accounted for. The
//! snapshot `connection_polls` has the rest: `*` if the event woke the connection, then what the
//! client received (by the names of [`output`]), how the connection ended, and the outcomes
//! (finished, timed out, aborted, gone). A cell in parentheses had ended before the event.

pub(in crate::http) mod clock;
mod ends;
mod evictions;
mod http2_requests;
pub(in crate::http) mod idle_sweeps;
mod openings;
mod output;
mod pipelines;
mod routes;
mod running;
pub(in crate::http) mod script;
mod slow_readers;
mod timeouts;
mod uploads;
mod world;

use self::{
    output::{http1, http2},
    script::End,
    world::{Stage, World},
};
use crate::http::server::limits::Limits;
use std::{fmt::Write as _, time::Duration};

/// How a connection comes into a state.
struct State {
    name: &'static str,
    input: &'static [u8],
    /// Bytes that the kernel takes from the responses, if the client receives nothing.
    room: Option<usize>,
    /// The next bytes of the client, which complete what it began.
    rest: &'static [u8],
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const LARGE: &[u8] = b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n";

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00";

/// A preface and a GET of `/waits` on stream 1.
const HTTP2_WAITS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\
    \x00\x00\x0d\x01\x05\x00\x00\x00\x01\x82\x86\x04\x06/waits\x01\x01a";

/// A GET of `/` on stream 1.
const HTTP2_FIRST: &[u8] = b"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x01\x01a";

/// A GET of `/` on stream 3.
const HTTP2_SECOND: &[u8] = b"\x00\x00\x06\x01\x05\x00\x00\x00\x03\x82\x86\x84\x01\x01a";

const STATES: [State; 16] = [
    State { name: "new", input: b"", room: None, rest: GET },
    State { name: "new, 40 requests at once", input: b"", room: None, rest: PIPELINE },
    State {
        name: "half a head",
        input: b"GET / HTTP/1.1\r\nho",
        room: None,
        rest: b"st: a\r\n\r\n",
    },
    State { name: "parked after a response", input: GET, room: None, rest: GET },
    State {
        name: "fast path, response half written",
        input: b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n",
        room: Some(20_000),
        rest: GET,
    },
    State {
        name: "fast path, 40 pipelined requests behind a full socket",
        input: PIPELINE,
        room: Some(1_000),
        rest: GET,
    },
    State {
        name: "HTTP/1, handler runs",
        input: b"GET /waits HTTP/1.1\r\nhost: a\r\n\r\n",
        room: None,
        rest: GET,
    },
    State {
        name: "HTTP/1, handler runs, a request behind it",
        input: b"GET /waits HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        room: None,
        rest: GET,
    },
    State {
        name: "HTTP/1, half a request body",
        input: b"POST /reads HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345",
        room: None,
        rest: b"67890",
    },
    State {
        name: "HTTP/1, half a chunked request body",
        input: b"POST /reads HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12",
        room: None,
        rest: b"345\r\n0\r\n\r\n",
    },
    State {
        name: "HTTP/1, response streams",
        input: b"GET /streams HTTP/1.1\r\nhost: a\r\n\r\n",
        room: None,
        rest: GET,
    },
    State {
        name: "HTTP/1, response half written",
        input: b"OPTIONS /large HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        room: Some(20_000),
        rest: GET,
    },
    State {
        name: "lingering after the last response",
        input: b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\nGET",
        room: None,
        rest: GET,
    },
    State { name: "HTTP/2, preface", input: PREFACE, room: None, rest: HTTP2_FIRST },
    State { name: "HTTP/2, handler runs", input: HTTP2_WAITS, room: None, rest: HTTP2_SECOND },
    State { name: "HTTP/2, half a frame", input: HTTP2_HALF, room: None, rest: HTTP2_OTHER_HALF },
];

const PIPELINE: &[u8] = &repeated::<40, { 40 * GET.len() }>(GET);

const HTTP2_HALF: &[u8] = PREFACE_AND_HALF.split_at(PREFACE.len() + 11).0;
const PREFACE_AND_HALF: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\
    \x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\
    \x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x01\x01a";
const HTTP2_OTHER_HALF: &[u8] = HTTP2_FIRST.split_at(11).1;

/// Returns `N` copies of a request.
const fn repeated<const N: usize, const L: usize>(request: &[u8]) -> [u8; L] {
    let mut all = [0; L];
    let mut at = 0;
    while at < L {
        all[at] = request[at % request.len()];
        at += 1;
    }
    all
}

/// What the transport, the handler or the clock does next.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    OneByte,
    Remainder,
    InPieces,
    Flood,
    IntoFullSocket,
    SocketDrained,
    Handler,
    End,
    RemainderAndEnd,
    Reset,
    Evicted,
    Time,
}

const EVENTS: [(Event, &str); 13] = [
    (Event::Nothing, "nothing"),
    (Event::OneByte, "one byte"),
    (Event::Remainder, "rest"),
    (Event::InPieces, "rest, in pieces"),
    (Event::Flood, "flood"),
    (Event::IntoFullSocket, "rest, full socket"),
    (Event::SocketDrained, "socket drained"),
    (Event::Handler, "handler returns"),
    (Event::End, "end"),
    (Event::RemainderAndEnd, "rest and end"),
    (Event::Reset, "reset"),
    (Event::Evicted, "evicted"),
    (Event::Time, "65 s"),
];

/// Takes a connection into a state, a stage, and through an event. Returns the cell of the table.
async fn cell(state: &State, stage: Stage, event: Event) -> String {
    let place = format!("{}, {stage:?}, {event:?}", state.name);
    let mut world = World::new();
    world.start().await;
    if let Some(room) = state.room {
        world.wire().stop_receiving(room);
    }
    world.send(state.input).await;
    world.nothing_was_left(&place).await;
    world.enter(stage).await;
    world.nothing_was_left(&place).await;
    if world.has_ended() {
        finish(&mut world, &place).await;
        return format!("({})", summary(state, &world));
    }
    match event {
        Event::Nothing => {}
        Event::OneByte => world.wire().send(&state.rest[..1]),
        Event::Remainder => world.wire().send(state.rest),
        Event::InPieces => {
            world.wire().piece = state.rest.len().div_ceil(40);
            world.wire().send(state.rest);
        }
        Event::Flood => world.wire().send(&[b'x'; 500_000]),
        Event::IntoFullSocket => {
            world.wire().stop_receiving(0);
            world.wire().send(state.rest);
        }
        Event::SocketDrained => world.wire().make_room(usize::MAX),
        Event::Handler => world.release_handler(),
        Event::End => world.wire().end(),
        Event::RemainderAndEnd => {
            world.wire().send(state.rest);
            world.wire().end();
        }
        Event::Reset => world.wire().reset(),
        Event::Evicted => world.evict(),
        Event::Time => world.wait(65).await,
    }
    let woken = if world.is_woken() { "*" } else { "" };
    world.settle().await;
    world.nothing_was_left(&place).await;
    let cell = format!("{woken}{}", summary(state, &world));
    finish(&mut world, &place).await;
    cell
}

fn summary(state: &State, world: &World) -> String {
    let wire = world.wire();
    let is_http2 = state.input.starts_with(b"PRI");
    let output = if is_http2 { http2(&wire.written) } else { http1(&wire.written) };
    let end = match wire.how_it_ended() {
        End::Open => "",
        End::Fin => " fin",
        End::Reset => " rst",
    };
    let requests = world.requests();
    let mut outcomes = String::new();
    let counts = [
        ("f", requests.finished),
        ("t", requests.timed_out),
        ("a", requests.aborted),
        ("g", requests.gone),
    ];
    for (letter, count) in counts {
        match count {
            0 => {}
            1 => outcomes.push_str(letter),
            _ => write!(outcomes, "{letter}{count}").unwrap(),
        }
    }
    let outcomes = if outcomes.is_empty() { outcomes } else { format!(" {outcomes}") };
    format!("{output}{end}{outcomes}")
}

/// Takes the connection through the rest of the shutdown. It must end, and so must its requests.
async fn finish(world: &mut World, place: &str) {
    world.enter(Stage::Cut).await;
    assert!(world.has_ended(), "it survives the cut: {place}");
    let requests = world.requests();
    let ended = requests.finished + requests.timed_out + requests.aborted + requests.gone;
    assert_eq!(requests.started, ended, "{place}: {requests:?}");
}

#[tokio::test]
async fn each_state_in_each_phase_does_what_the_table_says_at_each_event() {
    let mut table = String::new();
    for state in &STATES {
        writeln!(table, "\n{}", state.name).unwrap();
        for (event, name) in EVENTS {
            let mut row = format!("  {name:16}");
            for stage in Stage::ALL {
                write!(row, "| {:22}", cell(state, stage, event).await).unwrap();
            }
            writeln!(table, "{}", row.trim_end()).unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/core/snapshots");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(path);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("connection_polls", table));
}

// The 503 of an aborted request belongs to no request in flight. A connection that was cut while
// the 503 waited for the client ended like a complete one, with a close_notify over TLS (P5d).
#[tokio::test]
async fn a_503_that_waits_for_an_http2_client_is_cut() {
    for room in [0, 5, usize::MAX] {
        let mut world = World::new();
        world.start().await;
        world.send(HTTP2_WAITS).await;
        world.wire().stop_receiving(room);
        world.enter(Stage::Cut).await;
        let is_whole = room == usize::MAX;
        assert_eq!(world.wire().is_cut, !is_whole, "{room} bytes fit");
        assert_eq!(world.wire().how_it_ended(), End::Fin);
    }
}

// A request arrived after the abort, and the body of its response waited. Its client got a 503, but
// the app's observer a status of 500 (P5c). On the fast path the client got a 500, too (P5d).
#[tokio::test]
async fn a_body_that_waits_after_the_abort_is_replaced_by_a_503_that_is_observed() {
    for head in ["GET /stuck HTTP/1.1\r\n", "OPTIONS /stuck HTTP/1.1\r\n"] {
        let mut world = World::new();
        world.wire().send(format!("{head}host: a\r\n\r\n").as_bytes());
        world.enter(Stage::Abort).await;
        world.start().await;
        let response = String::from_utf8_lossy(&world.wire().written).into_owned();
        assert!(response.starts_with("HTTP/1.1 503 "), "{head}{response}");
        assert_eq!(world.observed(), [(Some(503), 0)], "{head}");
        assert_eq!(world.requests().aborted, 1);
    }
}

// The kernel counts a FIN that is not acknowledged as one byte. It was taken for a byte of the
// last response, and the kernel was queried a second time about each connection.
#[tokio::test]
async fn the_kernel_is_queried_once_about_a_last_response() {
    for method in ["GET", "OPTIONS"] {
        let mut world = World::new();
        world.start().await;
        world.enter(Stage::LameDuck).await;
        let rest = " / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        world.send(format!("{method}{rest}").as_bytes()).await;
        assert_eq!(world.wire().how_it_ended(), End::Fin);
        assert_eq!(world.wire().queries, 1, "{method}");
    }
}

// A client received a part of its response between two checks, which made no room for more of it in
// the kernel. What it had not acknowledged at the first check was compared with a number from
// before the response. With a send timeout of less than two checks the client was cut (P15).
#[tokio::test]
async fn a_client_that_receives_a_part_between_two_checks_has_its_time() {
    const HTTP2_LARGE: &[u8] =
        b"\x00\x00\x0d\x01\x05\x00\x00\x00\x01\x82\x86\x04\x06/large\x01\x01a";
    let http2 = [PREFACE, HTTP2_LARGE].concat();
    let fast = b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n";
    let hyper = b"OPTIONS /large HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    for request in [&fast[..], hyper, &http2] {
        let mut world = World::with_limits(Limits::default().send_timeout(Duration::from_secs(1)));
        world.start().await;
        world.wire().stop_receiving(20_000);
        world.send(request).await;
        for second in 1..5 {
            world.wire().acknowledge(1_000);
            world.wait(1).await;
            let end = world.wire().how_it_ended();
            assert_eq!(end, End::Open, "{second}: {}", request.escape_ascii());
        }
        world.wait(1).await;
        assert_eq!(world.wire().how_it_ended(), End::Reset, "{}", request.escape_ascii());
        assert_eq!(world.requests().gone, 1);
    }
}

// A client that receives its last response slowly must not be given up like one that receives
// nothing (P15).
#[tokio::test]
async fn a_client_that_receives_its_last_response_slowly_has_its_time() {
    for method in ["GET", "OPTIONS"] {
        let mut world = World::with_limits(Limits::default().send_timeout(Duration::from_secs(2)));
        world.start().await;
        world.enter(Stage::LameDuck).await;
        world.wire().stop_receiving(60_000);
        let rest = " /large HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
        world.send(format!("{method}{rest}").as_bytes()).await;
        assert!(world.wire().written.len() > 50_000, "the kernel has all of it");
        for second in 1..8 {
            world.wire().acknowledge(1_000);
            world.wait(1).await;
            assert!(!world.has_ended(), "{method}, after {second} s");
        }
        world.wait(4).await;
        assert!(world.has_ended(), "{method}");
    }
}

// A head whose first piece may also be HTTP/2's preface, as of each POST, got its time twice: once
// until hyper had it, and once again (P15).
#[tokio::test]
async fn a_head_that_begins_like_a_preface_has_its_time_once() {
    let mut world = World::new();
    world.start().await;
    for piece in ["P", "O", "ST / HTTP/1.1\r\nho"] {
        world.send(piece.as_bytes()).await;
        world.wait(3).await;
        assert_eq!(world.wire().how_it_ended(), End::Open, "after {piece:?}");
    }
    world.wait(1).await;
    let output = http1(&world.wire().written);
    assert!(output.starts_with("408"), "{output}");
}

// Half a head that came with a request for hyper had a second more than one that came alone (P15).
#[tokio::test]
async fn half_a_head_after_a_request_for_hyper_has_its_time_once() {
    let mut world = World::new();
    world.start().await;
    world.send(b"OPTIONS / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nho").await;
    world.wait(9).await;
    assert_eq!(http1(&world.wire().written), "200");
    world.wait(1).await;
    let output = http1(&world.wire().written);
    assert!(output.contains("408"), "{output}");
}

// Over TLS the time of a head begins with the first part of its record, and is not given twice. It
// is that of the first head in the record alone.
#[tokio::test]
async fn half_a_record_begins_the_time_of_one_head() {
    const PART: &[u8] = b"POST / HTTP/1.1\r\nho";
    for (sent, open_for) in [(PART, 1), (&[GET, PART].concat(), 9)] {
        let mut world = World::new();
        world.start().await;
        world.wire().send_half_a_record();
        world.settle().await;
        world.wait(8).await;
        world.send(sent).await;
        world.wait(open_for).await;
        assert_eq!(world.wire().how_it_ended(), End::Open, "{}", sent.escape_ascii());
        world.wait(1).await;
        let output = http1(&world.wire().written);
        assert!(output.contains("408"), "{output}");
    }
}

// hyper is not told a limit on fields that equals its own.
#[tokio::test]
async fn the_default_limit_on_fields_is_kept_by_hyper() {
    for (fields, status) in [(100, "200"), (101, "431")] {
        let mut world = World::new();
        world.start().await;
        // One of them is the host, and one the length.
        let others = "a: b\r\n".repeat(fields - 2);
        let request = format!("OPTIONS / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n{others}\r\n");
        world.send(request.as_bytes()).await;
        let output = http1(&world.wire().written);
        assert!(output.starts_with(status), "{fields} fields: {output}");
    }
}

// The fast path takes the first half of such a body, and leaves the response to hyper, which asks
// the body for its length. With the length of the second half alone, the response looked complete
// after its first half (P5d).
#[tokio::test]
async fn a_response_has_the_length_of_its_whole_body_also_after_a_part_was_taken() {
    let mut world = World::new();
    world.start().await;
    world.send(b"GET /halves HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let response = String::from_utf8_lossy(&world.wire().written).into_owned();
    assert!(response.contains("\r\ncontent-length: 8\r\n"), "{response}");
    assert!(response.ends_with("\r\n\r\nhalfhalf"), "{response}");
    assert_eq!(world.requests().finished, 1);
}

// A client whose first request was refused for its fields counted as one that had sent none. Its
// connection got a GOAWAY after the time for a head, and not after that of an idle connection.
#[tokio::test]
async fn an_http2_connection_stays_open_after_a_refused_request() {
    const TWO_FIELDS: &[u8] = b"\x00\x00\x10\x01\x05\x00\x00\x00\x01\
        \x82\x86\x84\x01\x01a\x00\x01a\x01b\x00\x01c\x01d";
    let limits = Limits::default().headers_max(1);
    let mut world = World::with_limits(limits);
    world.start().await;
    world.send(&[PREFACE, TWO_FIELDS].concat()).await;
    let time = limits.header_timeout + Duration::from_secs(2);
    world.wait(time.as_secs()).await;
    assert_eq!(http2(&world.wire().written), "H1 D1.");
    assert_eq!(world.wire().how_it_ended(), End::Open);
    assert_eq!(world.requests().started, 0, "it was refused");
}

// h2 passes on whole frames only. A body that arrived slowly in one frame was said to have brought
// no byte, and the request was cut (P15).
#[tokio::test]
async fn the_bytes_of_a_slow_http2_frame_count_before_it_is_whole() {
    const HEAD: &[u8] = b"\x00\x00\x0d\x01\x04\x00\x00\x00\x01\x83\x86\x04\x06/reads\x01\x01a";
    const DATA: &[u8] = b"\x00\x00\x04\x00\x01\x00\x00\x00\x01";
    let mut world = World::with_limits(Limits::default().body_timeout(Duration::from_secs(2)));
    world.start().await;
    world.wire().send(&[PREFACE, HEAD, DATA].concat());
    for byte in b"slow" {
        world.settle().await;
        world.wait(1).await;
        world.wire().send(&[*byte]);
    }
    world.settle().await;
    assert_eq!((world.requests().finished, world.requests().timed_out), (1, 0));
}
