//! Ends of used connections: what an earlier request or another stream leaves behind must not
//! change them.

use super::{
    GET, HTTP2_FIRST, HTTP2_SECOND, HTTP2_WAITS, PREFACE,
    output::{http1, http2},
    script::End,
    world::{Stage, World},
};
use std::time::Duration;

// A connection of HTTP/2 that had been idle for longer than a PONG may take was closed with its
// GOAWAY. Requests that its client had sent before it received the GOAWAY were lost (P4).
#[tokio::test]
async fn a_connection_that_was_idle_for_long_serves_what_crosses_its_goaway() {
    let mut world = World::new();
    world.start().await;
    world.send(&[PREFACE, HTTP2_FIRST].concat()).await;
    world.wait(20).await;
    world.enter(Stage::Draining).await;
    assert_eq!(http2(&world.wire().written), "H1 D1. Gmax/0 P");
    assert_eq!(world.wire().how_it_ended(), End::Open);
    world.send(HTTP2_SECOND).await;
    assert_eq!(world.requests().finished, 2);
    world.wait(2).await;
    assert!(world.has_ended(), "its client returns no PONG");
}

// A body that no handler had read was taken for the body of the last request. The end of the
// connection then waited for the client, although nothing was unread (P8).
#[tokio::test]
async fn a_body_that_was_skipped_does_not_delay_the_end_after_a_later_request() {
    let mut world = World::new();
    world.start().await;
    world.send(b"OPTIONS / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n1234567890").await;
    assert_eq!(world.requests().finished, 1);
    let last = b"OPTIONS / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    world.send(last).await;
    assert_eq!(world.requests().finished, 2);
    assert!(world.has_ended());
}

// A handler dropped the body of its request, of which a part was on its way. The connection was
// closed after the response, which had not announced it, and the client lost its next request (P5).
#[tokio::test]
async fn a_response_before_the_end_of_a_dropped_body_announces_the_close() {
    const HEAD: &[u8] = b"OPTIONS / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n";
    for (body, response) in [(&b"12345"[..], "200c"), (b"1234567890", "200")] {
        let mut world = World::new();
        world.start().await;
        world.send(&[HEAD, body].concat()).await;
        assert_eq!(http1(&world.wire().written), response, "{}", body.escape_ascii());
    }
}

// A handler dropped the body of its request, and worked on until the abort. Its 503 was thrown
// away: nothing was in flight any more, so the connection took hyper apart. What arrived of the
// body later was then read as a request (P5d).
#[tokio::test]
async fn an_abort_long_after_a_body_was_dropped_gets_its_response() {
    const REST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut world = World::new();
    world.start().await;
    let length = REST.len();
    let head = format!("POST /drops HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    world.send(head.as_bytes()).await;
    world.enter(Stage::Abort).await;
    world.send(REST).await;
    assert_eq!(http1(&world.wire().written), "503c");
    assert_eq!((world.requests().started, world.requests().aborted), (1, 1));
}

// A response that waited for a client which does not read, and whose stream the client then reset,
// counted as in flight until everything else was flushed (P5c, P13).
#[tokio::test]
async fn a_stream_that_is_reset_before_its_response_left_has_its_outcome_at_once() {
    const RST_STREAM: &[u8] = b"\x00\x00\x04\x03\x00\x00\x00\x00\x03\x00\x00\x00\x08";
    const LARGE: &[u8] = b"\x00\x00\x0d\x01\x05\x00\x00\x00\x01\x82\x86\x04\x06/large\x01\x01a";
    let mut world = World::new();
    world.start().await;
    world.wire().stop_receiving(20_000);
    world.send(&[PREFACE, LARGE].concat()).await;
    world.send(HTTP2_SECOND).await;
    assert_eq!((world.requests().started, world.requests().gone), (2, 0));
    world.send(RST_STREAM).await;
    assert_eq!(world.requests().gone, 1);
}

// The kernel took a part of a `100 Continue`, and the rest counted as the begin of the response. A
// request whose response body failed then got a reset instead of its 500 (P5d).
#[tokio::test]
async fn an_interim_response_in_two_parts_is_no_part_of_the_response() {
    const HEAD: &[u8] =
        b"POST /breaks HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n";
    // After a large response hyper writes several slices at once.
    for (is_vectored, before) in [(false, ""), (true, "200 "), (false, "200 ")] {
        let mut world = World::new();
        world.start().await;
        world.wire().is_vectored = is_vectored;
        if !before.is_empty() {
            world.send(b"OPTIONS /large HTTP/1.1\r\nhost: a\r\n\r\n").await;
        }
        world.wire().write_piece = 20;
        world.send(HEAD).await;
        assert_eq!(http1(&world.wire().written), format!("{before}100"));
        world.send(b"1").await;
        assert_eq!(http1(&world.wire().written), format!("{before}100 500c"));
    }
}

// After a response that announced the close, only requests counted that had arrived before our FIN.
// One that crossed it got no response, and was not counted (P5b).
#[tokio::test]
async fn a_request_that_crosses_an_announced_close_is_counted() {
    const WAITS: &[u8] = b"GET /waits HTTP/1.1\r\nhost: a\r\n\r\n";
    for (crosses, races) in [(WAITS, 1), (&b"\r\n"[..], 0)] {
        let mut world = World::new();
        world.start().await;
        world.send(WAITS).await;
        world.enter(Stage::Draining).await;
        world.wire().stop_receiving(usize::MAX);
        world.release_handler();
        world.settle().await;
        assert_eq!(http1(&world.wire().written), "200c");
        assert!(world.wire().shut && !world.has_ended());
        world.send(crosses).await;
        world.send(crosses).await;
        assert_eq!(world.connections().close_races, races, "{}", crosses.escape_ascii());
        world.wire().make_room(usize::MAX);
        world.wait(1).await;
        assert!(world.has_ended());
        assert_eq!(world.requests().started, 1);
    }
}

// A task still held the body of an earlier request, or dropped it while the last one ran. What came
// after the last response was taken for a part of that body: a request that crossed the close was
// not counted, and the close took a second (P5b, P8).
#[tokio::test]
async fn a_late_body_of_an_earlier_request_does_not_change_the_end() {
    for is_dropped in [false, true] {
        let mut world = World::new();
        world.start().await;
        world.send(b"POST /ignores HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nx").await;
        world.send(b"yz").await;
        world.enter(Stage::Draining).await;
        world.wire().stop_receiving(usize::MAX);
        if is_dropped {
            world.send(b"OPTIONS /waits HTTP/1.1\r\nhost: a\r\n\r\n").await;
            // The task is the first that waits.
            world.release_handler();
            world.settle().await;
            assert_eq!(world.uploaded(), Some(Err(1)));
            world.release_handler();
            world.settle().await;
        } else {
            world.send(b"OPTIONS / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        }
        assert_eq!(http1(&world.wire().written), "200 200c");
        assert!(world.wire().shut && !world.has_ended());
        world.send(GET).await;
        assert_eq!(world.connections().close_races, 1, "dropped: {is_dropped}");
        world.wire().make_room(usize::MAX);
        world.pass(Duration::from_millis(100)).await;
        assert!(world.has_ended(), "dropped: {is_dropped}");
    }
}

// A handler or a 400 announced the close while serving, or the 503 or the 500 in place of a
// handler's response did. The connection was closed before the client had acknowledged the
// response. A request that crossed it caused a reset, which may discard the response, and was not
// counted (P5).
#[tokio::test]
async fn a_request_that_crosses_the_close_of_a_handler_is_counted() {
    for (request, response) in [
        (&b"GET /closes HTTP/1.1\r\nhost: a\r\n\r\n"[..], "200c"),
        (b"OPTIONS /closes HTTP/1.1\r\nhost: a\r\n\r\n", "200c"),
        (b"GET / HTTP/1.1\r\n\r\n", "400c"),
        (b"GET /closes-and-fails HTTP/1.1\r\nhost: a\r\n\r\n", "500c"),
        (b"OPTIONS /closes-and-fails HTTP/1.1\r\nhost: a\r\n\r\n", "500c"),
        // Nothing is served after trailers.
        (
            b"POST /late HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
              1\r\nx\r\n0\r\na: b\r\n\r\n",
            "503c",
        ),
    ] {
        let mut world = World::new();
        world.start().await;
        world.wire().stop_receiving(usize::MAX);
        world.send(request).await;
        assert_eq!(http1(&world.wire().written), response);
        assert!(world.wire().shut && !world.has_ended(), "{}", request.escape_ascii());
        world.send(GET).await;
        assert_eq!(world.connections().close_races, 1, "{}", request.escape_ascii());
        world.wire().make_room(usize::MAX);
        world.wait(1).await;
        assert!(world.has_ended());
        assert_eq!(world.wire().how_it_ended(), End::Fin);
        assert_eq!(world.connections().unannounced, 0);
    }
}

// In the delay a response that required an upgrade lost this option of its `Connection`, and kept
// `Upgrade` (RFC 9110 §7.6.1 and §7.8).
#[tokio::test]
async fn the_announcement_keeps_other_options_of_a_response() {
    for method in ["GET", "OPTIONS"] {
        let mut world = World::new();
        world.start().await;
        world.enter(Stage::LameDuck).await;
        let rest = " /requires-upgrade HTTP/1.1\r\nhost: a\r\n\r\n";
        world.send(format!("{method}{rest}").as_bytes()).await;
        let response = String::from_utf8_lossy(&world.wire().written).into_owned();
        assert!(response.starts_with("HTTP/1.1 426 "), "{response}");
        assert!(response.contains("\r\nconnection: upgrade, close\r\n"), "{response}");
        assert!(response.contains("\r\nupgrade: websocket\r\n"), "{response}");
        assert!(!response.contains("keep-alive"), "{response}");
        assert_eq!(world.wire().how_it_ended(), End::Fin);
    }
}

// An empty line that had arrived before the last response counted as a request that crossed its
// close, unless it had been read together with the request (P13). It is no request.
#[tokio::test]
async fn an_empty_line_before_an_announced_close_is_not_counted() {
    const WAITS: &[u8] = b"GET /waits HTTP/1.1\r\nhost: a\r\n\r\n";
    for (next, races) in [(WAITS, 1), (&b"\r\n"[..], 0)] {
        let mut world = World::new();
        world.start().await;
        world.send(WAITS).await;
        world.enter(Stage::Draining).await;
        world.wire().send(next);
        world.release_handler();
        world.settle().await;
        world.wire().end();
        world.settle().await;
        assert!(world.has_ended());
        assert_eq!(world.connections().close_races, races, "{}", next.escape_ascii());
    }
}

// Over TLS the kernel had no place for the close_notify that follows the last response. The
// connection was closed without one, as if the response had been cut (P5d).
#[tokio::test]
async fn the_end_after_a_last_response_waits_for_a_place() {
    for method in ["GET", "OPTIONS"] {
        let mut world = World::new();
        world.start().await;
        world.wire().hold_shutdown(true);
        let last = format!("{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        world.send(last.as_bytes()).await;
        assert_eq!(http1(&world.wire().written), "200c");
        assert!(!world.has_ended(), "{method}");
        world.wire().hold_shutdown(false);
        world.settle().await;
        assert!(world.wire().shut, "{method}");
        world.wait(1).await;
        assert!(world.has_ended(), "{method}");
    }
}

// A client had closed its idle connection, which the reactor had not reported yet as the drain
// began. The close was counted as one of the shutdown's that no response had announced (P13).
#[tokio::test]
async fn a_close_of_the_client_is_none_of_the_shutdown() {
    for resets in [false, true] {
        let mut world = World::new();
        world.start().await;
        world.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        world.wire().late_reads = 2;
        if resets {
            world.wire().reset();
        } else {
            world.wire().end();
        }
        world.enter(Stage::Draining).await;
        assert!(world.has_ended());
        assert_eq!(world.connections().unannounced, 0);
    }
}

// A client of HTTP/2 shut its side before a response was complete, or as its last part waited to be
// written. hyper threw the rest away, and over TLS a close_notify followed all the same (P5d).
#[tokio::test]
async fn a_response_whose_rest_is_thrown_away_is_cut() {
    const STREAMS: &[u8] = b"\x00\x00\x0f\x01\x05\x00\x00\x00\x01\x82\x86\x04\x08/streams\x01\x01a";
    let waits = &HTTP2_WAITS[PREFACE.len()..];
    let cases = [(STREAMS, 0), (STREAMS, 4), (waits, 0), (waits, 4)];
    for ((request, half_frame), ends) in
        cases.into_iter().flat_map(|case| [(case, true), (case, false)])
    {
        let mut world = World::new();
        world.start().await;
        world.send(&[PREFACE, request].concat()).await;
        if ends {
            world.release_handler();
        }
        world.wire().send(&HTTP2_SECOND[..half_frame]);
        world.wire().end();
        world.settle().await;
        assert_eq!((world.requests().finished, world.requests().gone), (0, 1));
        assert!(world.wire().is_cut && world.has_ended());
    }
}

// The FIN of an HTTP/2 connection came with the close of its socket. Bytes that its client had sent
// in between replaced it by a reset, which may discard a response (RFC 9112 §9.6).
#[tokio::test]
async fn an_http2_connection_sends_its_fin_before_it_is_closed() {
    // The payload is that of hyper's PING after a GOAWAY.
    const PONG: &[u8] = b"\x00\x00\x08\x06\x01\x00\x00\x00\x00\x0b\x7b\xa2\xf0\x8b\x9b\xfe\x54";
    for pong in [PONG, &[]] {
        let mut world = World::new();
        world.start().await;
        world.send(&[PREFACE, HTTP2_FIRST].concat()).await;
        world.enter(Stage::Draining).await;
        world.send(pong).await;
        if pong.is_empty() {
            world.wait(2).await;
        }
        assert!(world.has_ended() && world.wire().shut);
    }
}

// A client that never returned its PONG, and sent frames without a pause, held the drain. Each was
// one more byte that had to be read before the end (P6, P8).
#[tokio::test]
async fn frames_without_an_end_do_not_hold_a_connection_that_has_no_pong() {
    let mut world = World::new();
    world.start().await;
    world.send(&[PREFACE, HTTP2_FIRST].concat()).await;
    world.enter(Stage::Draining).await;
    world.tease(Duration::from_millis(1_500)).await;
    assert!(!world.has_ended(), "what it sends may be a request");
    world.tease(Duration::from_secs(3)).await;
    assert!(world.has_ended());
    assert_eq!(world.requests().started, 1);
}

// A client took nothing for a moment, and its connection had nothing left but the GOAWAY. Closed
// earlier, it would lose a request that crosses the GOAWAY. One that never reads holds no drain
// (P4, P5b, P6).
#[tokio::test]
async fn a_goaway_that_its_client_does_not_take_has_two_seconds() {
    for reads_again in [true, false] {
        let mut world = World::new();
        world.start().await;
        world.send(&[PREFACE, HTTP2_FIRST].concat()).await;
        world.wire().stop_receiving(0);
        world.enter(Stage::Draining).await;
        world.wait(1).await;
        assert_eq!(world.wire().how_it_ended(), End::Open);
        if reads_again {
            world.wire().make_room(usize::MAX);
            world.send(HTTP2_SECOND).await;
            assert_eq!(world.requests().finished, 2);
        } else {
            world.wait(1).await;
            assert_eq!(world.wire().how_it_ended(), End::Fin);
        }
    }
}

// The process was suspended after its GOAWAY. A request that arrived meanwhile was lost (P5b).
#[tokio::test]
async fn what_arrived_in_a_pause_after_the_goaway_is_served() {
    let mut world = World::new();
    world.start().await;
    world.send(&[PREFACE, HTTP2_FIRST].concat()).await;
    world.enter(Stage::Draining).await;
    world.wire().late_reads = 1;
    world.wire().arrive(HTTP2_SECOND);
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(world.requests().finished, 2);
}

// A client had sent the first half of a request when its GOAWAY came. The connection was closed as
// if it were idle, and the request was lost (P4, P5b).
#[tokio::test]
async fn a_request_of_which_bytes_have_arrived_has_its_time_after_a_goaway() {
    let (half, rest) = HTTP2_SECOND.split_at(12);
    for completes in [true, false] {
        let mut world = World::new();
        world.start().await;
        world.send(&[PREFACE, HTTP2_FIRST].concat()).await;
        world.enter(Stage::Draining).await;
        world.send_after(Duration::from_millis(900), half).await;
        world.pass(Duration::from_millis(900)).await;
        assert_eq!(world.wire().how_it_ended(), End::Open);
        if completes {
            world.send(rest).await;
            assert_eq!(world.requests().finished, 2);
        }
        world.wait(1).await;
        assert!(world.has_ended(), "its client returns no PONG");
    }
}

// The budget of long streams is not for a connection that has none: its client could read nothing
// until that budget ends (P7).
#[tokio::test]
async fn a_connection_without_a_long_stream_is_cut_with_ordinary_requests() {
    const LARGE: &[u8] = b"\x00\x00\x0d\x01\x05\x00\x00\x00\x01\x82\x86\x04\x06/large\x01\x01a";
    let http2 = [PREFACE, LARGE].concat();
    let large = [
        &b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        b"OPTIONS /large HTTP/1.1\r\nhost: a\r\n\r\n",
        &http2,
    ];
    for request in large {
        let mut world = World::new();
        world.start().await;
        world.wire().stop_receiving(20_000);
        world.send(request).await;
        world.enter(Stage::Draining).await;
        assert!(!world.has_ended());
        world.cut_requests().await;
        assert!(world.has_ended(), "{}", request.escape_ascii());
        assert_eq!(world.requests().aborted, 1);
    }
}
