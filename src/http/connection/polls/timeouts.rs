//! Timeouts at the moment at which what they wait for arrives, and waits that end together.

use super::{
    GET, HTTP2_FIRST, HTTP2_SECOND, HTTP2_WAITS, PREFACE,
    output::{http1, http2},
    script::End,
    world::{Stage, World},
};
#[cfg(feature = "__caps")]
use crate::http::server::caps::Caps;
use crate::http::server::limits::Limits;
use std::time::Duration;

/// The head of a request with a body over HTTP/2, and a half of its only DATA frame.
const HEAD: &[u8] = b"\x00\x00\x0d\x01\x04\x00\x00\x00\x01\x83\x86\x04\x06/reads\x01\x01a";
const HALF: &[u8] = b"\x00\x00\x04\x00\x01\x00\x00\x00\x01sl";

// A client that stopped within a DATA frame kept its request. Each check took the bytes that had
// come before for new ones, until the timeout of the frame ended the whole connection (P15).
#[tokio::test]
async fn a_client_that_stops_within_a_frame_has_its_time_once() {
    let limits = Limits::default().body_timeout(Duration::from_secs(1));
    let mut world = World::with_limits(limits);
    world.start().await;
    world.send(&[PREFACE, HEAD].concat()).await;
    world.send(HALF).await;
    // Before the request's deadline.
    world.wait(4).await;
    assert_eq!((world.requests().timed_out, world.requests().gone), (1, 0));
    assert_eq!(world.wire().how_it_ended(), End::Open);
}

// A DATA frame may take longer than a head.
#[tokio::test]
async fn a_client_that_pauses_within_a_frame_has_the_time_of_a_body() {
    let limits = Limits::default().header_timeout(Duration::from_secs(1));
    let mut world = World::with_limits(limits.body_timeout(Duration::from_secs(10)));
    world.start().await;
    world.send(&[PREFACE, HEAD].concat()).await;
    world.send(HALF).await;
    world.wait(3).await;
    world.send(b"ow").await;
    assert_eq!(world.requests().finished, 1);
    assert_eq!(world.wire().how_it_ended(), End::Open);
}

// What a client sent besides its bodies counted for them. After half a megabyte of it, no handler
// gave up the wait for a body, since the receive window might have been closed (P15).
#[tokio::test]
async fn frames_without_data_do_not_close_the_receive_window() {
    const HEADS: [&[u8]; 2] = [
        b"\x00\x00\x0d\x01\x04\x00\x00\x00\x01\x83\x86\x04\x06/reads\x01\x01a",
        b"\x00\x00\x0d\x01\x04\x00\x00\x00\x03\x83\x86\x04\x06/reads\x01\x01a",
    ];
    // Of a kind that RFC 9113 does not know.
    let unknown = [&b"\x00\x40\x00\x20\x00\x00\x00\x00\x00"[..], &[0; 0x4000]].concat();
    let limits = Limits::default().body_timeout(Duration::from_secs(1));
    let mut world = World::with_limits(limits);
    world.start().await;
    world.send(&[&[PREFACE][..], &HEADS].concat().concat()).await;
    for _ in 0..33 {
        world.send(&unknown).await;
    }
    world.wait(4).await;
    assert_eq!((world.requests().timed_out, world.requests().gone), (2, 0));
}

// Half a megabyte of bodies that handlers had dropped counted as unread for ever. While two other
// uploads overlapped, neither had a timeout any more (P15).
#[tokio::test]
async fn a_body_that_was_dropped_does_not_close_the_receive_window() {
    const DROPPED: &[u8] = b"\x00\x00\x06\x01\x04\x00\x00\x00\x01\x83\x86\x84\x01\x01a";
    const READ: [&[u8]; 2] = [
        b"\x00\x00\x0d\x01\x04\x00\x00\x00\x03\x83\x86\x04\x06/reads\x01\x01a",
        b"\x00\x00\x0d\x01\x04\x00\x00\x00\x05\x83\x86\x04\x06/reads\x01\x01a",
    ];
    let data = [&b"\x00\x40\x00\x00\x00\x00\x00\x00\x01"[..], &[0; 0x4000]].concat();
    let limits = Limits::default().body_timeout(Duration::from_secs(1));
    let mut world = World::with_limits(limits);
    world.start().await;
    world.send(&[PREFACE, DROPPED].concat()).await;
    for _ in 0..33 {
        world.send(&data).await;
    }
    world.send(&READ.concat()).await;
    world.wait(4).await;
    assert_eq!((world.requests().finished, world.requests().timed_out), (1, 2));
}

// So it was while another handler held its body: a body that it had read to its end counted as
// unread, and so did the padding of an upload, for which h2 opens the window again (P15). Half a
// megabyte that a handler does not read may close the window of the connection: then no client is
// to blame.
#[tokio::test]
async fn a_body_that_is_held_does_not_switch_off_the_timeout_of_others() {
    const HOLDS: &[u8] = b"\x00\x00\x0d\x01\x04\x00\x00\x00\x01\x83\x86\x04\x06/holds\x01\x01a\
        \x00\x00\x01\x00\x01\x00\x00\x00\x01x";
    const WAITS: &[u8] = b"\x00\x00\x0d\x01\x04\x00\x00\x00\x01\x83\x86\x04\x06/waits\x01\x01a";
    const DROPPED: &[u8] = b"\x00\x00\x06\x01\x04\x00\x00\x00\x03\x83\x86\x84\x01\x01a";
    const READ: [&[u8]; 2] = [
        b"\x00\x00\x0d\x01\x04\x00\x00\x00\x03\x83\x86\x04\x06/reads\x01\x01a",
        b"\x00\x00\x0d\x01\x04\x00\x00\x00\x05\x83\x86\x04\x06/reads\x01\x01a",
    ];
    let data = [&b"\x00\x40\x00\x00\x00\x00\x00\x00\x03"[..], &[0; 0x4000]].concat();
    // 1,000 bytes of data, and 255 of padding.
    let padded = [&b"\x00\x04\xe8\x00\x08\x00\x00\x00\x03\xff"[..], &[0; 1_255]].concat();
    let unread = [&b"\x00\x40\x00\x00\x00\x00\x00\x00\x01"[..], &[0; 0x4000]].concat();
    for (held, head, data, timed_out) in [
        (HOLDS, DROPPED, data.repeat(33), 1),
        (WAITS, READ[0], padded.repeat(2_100), 2),
        (WAITS, &[][..], unread.repeat(33), 0),
    ] {
        let limits = Limits::default().body_timeout(Duration::from_secs(1));
        let mut world = World::with_limits(limits);
        world.start().await;
        world.send(&[PREFACE, held, head].concat()).await;
        for part in data.chunks(0x4000) {
            world.send(part).await;
        }
        world.send(READ[1]).await;
        world.wait(4).await;
        assert_eq!((world.requests().timed_out, world.requests().gone), (timed_out, 0));
    }
}

// A client had all of a response after a wait. When the next one, more than a timeout later, could
// not be sent at once, the connection was reset in the same moment: the time since the first wait
// counted (P15).
#[tokio::test]
async fn the_time_to_receive_a_response_does_not_begin_with_an_earlier_one() {
    const OPTIONS: &[u8] = b"OPTIONS / HTTP/1.1\r\nhost: a\r\n\r\n";
    let timeout = Duration::from_millis(200);
    let http2 = [PREFACE, HTTP2_FIRST].concat();
    for (first, second) in [(OPTIONS, OPTIONS), (&http2, HTTP2_SECOND)] {
        let mut world = World::with_limits(Limits::default().send_timeout(timeout));
        world.start().await;
        world.wire().make_room(0);
        world.send(first).await;
        world.wire().make_room(usize::MAX);
        world.settle().await;
        assert_eq!(world.requests().finished, 1);
        world.pass(timeout * 2).await;
        world.wire().make_room(0);
        world.send(second).await;
        assert_eq!(world.wire().how_it_ended(), End::Open);
        world.pass(timeout / 2).await;
        assert_eq!(world.wire().how_it_ended(), End::Open);
        world.wait(2).await;
        assert_eq!(world.wire().how_it_ended(), End::Reset);
    }
}

// The PINGs of an idle client came in the moments in which the delivery of the last response was
// checked, and the responses to them were not acknowledged yet. They were taken for a response that
// the client did not read, and its connection was reset (P5b).
#[tokio::test]
async fn the_response_to_a_ping_is_none_that_its_client_does_not_read() {
    const PING: &[u8] = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00pingping";
    for (unread, ends) in [(0, End::Open), (10, End::Reset)] {
        let mut world = World::with_limits(Limits::default());
        world.start().await;
        world.send(&[PREFACE, HTTP2_FIRST].concat()).await;
        assert_eq!(world.requests().finished, 1);
        let of_response = world.wire().written.len();
        for _ in 0..4 {
            let written = world.wire().written.len();
            let read = if unread == 0 { written } else { of_response - unread };
            world.wire().acknowledged = Some(read);
            world.send_after(Duration::from_secs(30), PING).await;
        }
        assert_eq!(world.wire().how_it_ended(), ends);
    }
}

// A byte of a frame came in the moment in which the frame had to be complete, and the runtime did
// not know of it yet. The time of the frame began again (P15).
#[tokio::test]
async fn a_byte_at_the_end_of_the_time_of_a_frame_does_not_begin_it_again() {
    let limits = Limits::default().header_timeout(Duration::from_secs(2));
    let mut world = World::with_limits(limits);
    world.start().await;
    world.send(&[PREFACE, HTTP2_FIRST, &HTTP2_SECOND[..4]].concat()).await;
    world.wait(1).await;
    world.wire().late_reads = 2;
    world.wire().arrive(&HTTP2_SECOND[4..5]);
    world.wait(1).await;
    // ENHANCE_YOUR_CALM.
    assert_eq!(http2(&world.wire().written), "H1 D1. G1/11");
}

// The last bytes of a body had arrived when its time was over, and were not read any more: the
// request timed out (P15).
#[tokio::test]
async fn what_has_arrived_of_a_body_is_read_before_its_time_is_over() {
    let limits = Limits::default().body_timeout(Duration::from_secs(2));
    let mut world = World::with_limits(limits);
    world.start().await;
    world.send(b"POST /reads HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\na").await;
    world.wait(1).await;
    // The runtime knows of them only after the time is over.
    world.wire().late_reads = usize::MAX;
    world.wire().arrive(b"bcd");
    world.pass(Duration::from_secs(2)).await;
    world.wire().late_reads = 0;
    world.send(b"").await;
    assert_eq!(http1(&world.wire().written), "200");
    assert_eq!(world.requests().finished, 1);
}

// The head of a response that promised no byte waited for the end of its body for a second, also
// past the deadline of its request (P9).
#[tokio::test]
async fn a_body_without_an_end_holds_its_head_no_longer_than_the_deadline() {
    let mut world = World::new();
    world.start().await;
    world.send(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await;
    world.pass(Duration::from_millis(4_500)).await;
    world.release_handler();
    world.settle().await;
    assert_eq!(http1(&world.wire().written), "-");
    world.pass(Duration::from_millis(600)).await;
    assert_eq!(http1(&world.wire().written), "200");
}

// A connection without a byte that the drain closed was counted as one whose client had taken too
// long (P13).
#[tokio::test]
async fn a_connection_without_a_byte_has_not_timed_out_when_the_drain_closes_it() {
    let mut world = World::new();
    world.start().await;
    world.enter(Stage::Draining).await;
    world.wait(5).await;
    assert!(world.has_ended());
    assert_eq!(world.connections().first_byte_timeouts, 0);
}

// The cut followed the abort at once, and came before the 503 of a stream, which is a task of its
// own (P5d).
#[tokio::test]
async fn a_cut_that_follows_the_abort_at_once_leaves_the_stream_its_503() {
    let mut world = World::new();
    world.start().await;
    world.send(HTTP2_WAITS).await;
    world.abort_and_cut().await;
    let written = http2(&world.wire().written);
    assert!(written.contains("H1"), "{written}");
    assert!(world.has_ended());
    assert_eq!(world.requests().aborted, 1);
}

// A call was over while its handler or its body was polled, by another thread or the clock. Its
// stream was reset, so that its client did not learn why (P5d, P9).
#[tokio::test]
async fn a_call_that_is_over_while_it_is_polled_ends_by_trailers() {
    const CALL: &[u8] = b"\x00\x00\x35\x01\x05\x00\x00\x00\x01\x83\x86\x04\x0a/meanwhile\x01\x01a\
        \x0f\x10\x10application/grpc\x00\x0cgrpc-timeout\x021S";
    const STREAM: &[u8] =
        b"\x00\x00\x3d\x01\x05\x00\x00\x00\x01\x83\x86\x04\x12/streams-meanwhile\x01\x01a\
        \x0f\x10\x10application/grpc\x00\x0cgrpc-timeout\x021S";
    for (call, response) in [(CALL, "H1."), (STREAM, "H1 D1 H1.")] {
        for expires in [false, true] {
            let mut world = World::new();
            world.start().await;
            world.send(&[PREFACE, call].concat()).await;
            if expires {
                world.pass_meanwhile(Duration::from_secs(2)).await;
            } else {
                world.enter(Stage::Cancelling).await;
                world.abort_meanwhile().await;
            }
            let written = http2(&world.wire().written);
            // Without the GOAWAY and its PING.
            let frames = written.split(' ').filter(|frame| !frame.starts_with(['G', 'P']));
            assert_eq!(frames.collect::<Vec<_>>().join(" "), response, "expires: {expires}");
            let (timed_out, aborted) = if expires { (1, 0) } else { (0, 1) };
            assert_eq!(
                (world.requests().timed_out, world.requests().aborted),
                (timed_out, aborted)
            );
        }
    }
}

// A stream that stood still was never given up as long as the client left the kernel no room, while
// it received the other streams (P15).
#[cfg(feature = "__caps")]
#[tokio::test]
async fn a_stream_that_stands_still_is_reset_on_a_blocked_connection() {
    // RFC 9113 §6.5.2: SETTINGS_INITIAL_WINDOW_SIZE is 1. Stream 3 gets 60,000 bytes more.
    const ONE_BYTE: &[u8] = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x01";
    const STILL: &[u8] = b"\x00\x00\x0f\x01\x05\x00\x00\x00\x01\x82\x86\x04\x08/streams\x01\x01a";
    const MOVING: &[u8] = b"\x00\x00\x0d\x01\x05\x00\x00\x00\x03\x82\x86\x04\x06/large\x01\x01a\
        \x00\x00\x04\x08\x00\x00\x00\x00\x03\x00\x00\xea\x60";
    let mut caps = Caps::DEFAULT;
    assert!(caps.set("stream_turn_bytes", 1_000));
    let limits = Limits::default().send_timeout(Duration::from_secs(2)).caps(caps);
    let mut world = World::with_limits(limits);
    world.start().await;
    world.wire().stop_receiving(5_000);
    world.send(&[PREFACE, ONE_BYTE, STILL, MOVING].concat()).await;
    world.pass(Duration::from_millis(100)).await;
    for _ in 0..4 {
        world.wire().make_room(10_000);
        world.wait(1).await;
    }
    world.wire().make_room(usize::MAX);
    world.settle().await;
    let written = http2(&world.wire().written);
    assert!(written.contains("R1/8") && !written.contains("R3"), "{written}");
    assert!(written.contains("D3."), "{written}");
}

// A client accepted frames of megabytes, and read all the time. One response became one frame. A
// second stream had to wait for it, and was reset as if its client did not read (P6, P13).
#[tokio::test]
async fn a_stream_whose_turn_comes_after_a_large_frame_is_not_reset() {
    // RFC 9113 §6.5.2: both windows and SETTINGS_MAX_FRAME_SIZE have room for the whole response.
    const LARGE_FRAMES: &[u8] = b"\x00\x00\x0c\x04\x00\x00\x00\x00\x00\
        \x00\x04\x00\xff\xff\xff\x00\x05\x00\xff\xff\xff\
        \x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\xff\xff\xff";
    const HUGE: [&[u8]; 2] = [
        b"\x00\x00\x0c\x01\x05\x00\x00\x00\x01\x82\x86\x04\x05/huge\x01\x01a",
        b"\x00\x00\x0c\x01\x05\x00\x00\x00\x03\x82\x86\x04\x05/huge\x01\x01a",
    ];
    let limits = Limits::default().send_timeout(Duration::from_secs(2));
    let mut world = World::with_limits(limits);
    world.start().await;
    world.wire().stop_receiving(1_000);
    world.send(&[PREFACE, LARGE_FRAMES, HUGE[0]].concat()).await;
    world.send(HUGE[1]).await;
    for _ in 0..25 {
        world.wire().make_room(200_000);
        world.wait(1).await;
    }
    let written = http2(&world.wire().written);
    assert!(written.contains("D3.") && written.contains("D1."), "{written}");
    assert_eq!((world.requests().finished, world.requests().gone), (2, 0));
}

// A client that sent empty lines faster than they were read, or records of TLS without data,
// outlived each time limit of its idle connection and of half a head, and made no room (P6, P15).
#[tokio::test]
async fn input_without_a_request_delays_no_time_limit() {
    let limits = Limits::default().keep_alive(Duration::from_secs(5));
    for is_hollow in [false, true] {
        let mut world = World::with_limits(limits);
        world.start().await;
        world.send(GET).await;
        world.wire().refill = if is_hollow { b"" } else { b"\r\n" };
        world.wire().is_hollow = is_hollow;
        world.flood(Duration::from_secs(1)).await;
        world.flood(Duration::from_secs(3)).await;
        assert!(!world.has_ended(), "records: {is_hollow}");
        world.flood(Duration::from_secs(3)).await;
        assert_eq!(world.wire().how_it_ended(), End::Fin, "records: {is_hollow}");
    }
    for is_hollow in [false, true] {
        for internal in [false, true] {
            let mut world = if internal { World::internal() } else { World::new() };
            world.start().await;
            world.wire().refill = if is_hollow { b"" } else { b"\r\n" };
            world.wire().is_hollow = is_hollow;
            world.evict();
            world.flood(Duration::from_millis(100)).await;
            assert!(!world.has_ended() && world.is_another_to_make_room());
            if !internal {
                world.flood(Duration::from_secs(1)).await;
            }
            world.evict();
            world.flood(Duration::from_millis(100)).await;
            assert_eq!(world.wire().how_it_ended(), End::Fin, "records: {is_hollow}");
        }
    }
    for half in [&b"GET / HT"[..], b"OPTIONS / HT"] {
        let mut world = World::with_limits(limits);
        world.start().await;
        world.send(half).await;
        world.wire().is_hollow = true;
        world.flood(Duration::from_secs(9)).await;
        assert_eq!(world.wire().how_it_ended(), End::Open);
        world.flood(Duration::from_secs(3)).await;
        assert_eq!(http1(&world.wire().written), "408c");
    }
}

// A client of HTTP/2 without a request sent PINGs and read their responses slowly. It had no time
// limit but that of a response, which each byte restarted, and made no room (P15).
#[tokio::test]
async fn pings_do_not_suspend_the_time_to_the_first_request() {
    const PING: &[u8] = b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678";
    let mut world = World::new();
    world.start().await;
    world.send(PREFACE).await;
    world.wire().stop_receiving(5);
    world.send(PING).await;
    for _ in 0..4 {
        assert!(world.is_idle());
        world.wait(2).await;
        world.wire().make_room(1);
        world.settle().await;
    }
    assert!(!world.has_ended());
    world.wait(5).await;
    assert!(world.has_ended());
}

// The same records of TLS kept half a header block of HTTP/2 for the whole keep-alive time.
#[tokio::test]
async fn records_without_data_do_not_delay_the_end_of_half_a_header_block() {
    let mut world = World::new();
    world.start().await;
    world.send(&[PREFACE, HTTP2_FIRST, &HTTP2_SECOND[..12]].concat()).await;
    world.wire().is_hollow = true;
    world.flood(Duration::from_secs(9)).await;
    assert_eq!(world.wire().how_it_ended(), End::Open);
    world.flood(Duration::from_secs(3)).await;
    assert_eq!(http2(&world.wire().written), "H1 D1. G1/11");
}

// A thread that was blocked for more than a second between two polls threw away a request that the
// runtime had not reported yet (P5b).
#[tokio::test]
async fn a_request_that_arrived_before_a_pause_is_served() {
    for (begin, rest) in [(&b""[..], GET), (&GET[..8], &GET[8..])] {
        let mut world = World::new();
        world.start().await;
        world.send(GET).await;
        world.send(begin).await;
        world.wire().late_reads = 4;
        world.wire().arrive(rest);
        world.drain_with_pauses(Duration::from_secs(2)).await;
        assert_eq!(world.requests().finished, 2, "{}", begin.escape_ascii());
    }
}
