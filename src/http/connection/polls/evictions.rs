//! Connections that make room for others, and which may.

use super::{
    GET, HTTP2_FIRST, HTTP2_SECOND, HTTP2_WAITS, PREFACE,
    script::End,
    uploads::{PART, UPLOAD},
    world::World,
};
use crate::http::server::{idle_policy::Awaited, limits::Limits};
use std::time::Duration;

// A connection was chosen to make room in the instant in which its next request arrived. It was
// closed right after that response, without an announcement: the client's next request was lost
// (P5b, P15). Later it stayed, and no other made room in its place. After eight of those nothing
// was accepted, however many connections were idle (P15).
#[tokio::test]
async fn a_request_keeps_a_connection_that_was_chosen_to_make_room() {
    const OPTIONS: &[u8] = b"OPTIONS / HTTP/1.1\r\nhost: a\r\n\r\n";
    let http2 = [PREFACE, HTTP2_FIRST].concat();
    for (first, next) in
        [(GET, GET), (GET, OPTIONS), (OPTIONS, GET), (OPTIONS, OPTIONS), (&http2, HTTP2_SECOND)]
    {
        let mut world = World::new();
        world.start().await;
        world.send(first).await;
        world.evict();
        world.send(next).await;
        assert_eq!(world.requests().finished, 2);
        assert!(world.is_another_to_make_room());
        assert_eq!(world.wire().how_it_ended(), End::Open, "after {:?}", next.escape_ascii());
        world.evict();
        world.settle().await;
        assert!(first == http2 || world.wire().how_it_ended() == End::Fin, "it was idle then");
        assert!(!world.is_another_to_make_room());
    }
}

// A client pipelined requests without a pause. Its connection counted as idle since before them,
// was chosen to make room, and took no notice: no other made room in its place. After eight of
// those nothing was accepted (P15).
#[tokio::test]
async fn a_flood_of_requests_on_a_connection_that_was_chosen_has_another_make_room() {
    let mut world = World::new();
    world.start().await;
    world.send(GET).await;
    world.wire().refill = GET;
    world.evict();
    world.flood(Duration::from_millis(100)).await;
    assert!(world.requests().finished > 16);
    assert!(world.is_another_to_make_room());
}

// On a runtime with several threads a connection was chosen while it was polled. It stayed, and no
// other made room in its place. After eight of those nothing was accepted (P15).
#[tokio::test]
async fn a_connection_that_is_chosen_while_it_is_polled_has_another_make_room() {
    const MEANWHILE: &[u8] = b"GET /meanwhile-and-ends HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut world = World::new();
    world.start().await;
    world.send(MEANWHILE).await;
    world.evict_meanwhile().await;
    assert_eq!(world.requests().finished, 1);
    assert_eq!(world.wire().how_it_ended(), End::Open);
    assert!(world.is_another_to_make_room());
    assert!(!world.is_another_to_make_room());
    world.evict();
    world.settle().await;
    assert_eq!(world.wire().how_it_ended(), End::Fin);
    assert!(!world.is_another_to_make_room());
}

// A connection of the internal server was chosen, and a request arrived before it was polled. It
// stayed, no other made room, and it was cut at its next poll without the grace of a request (P16).
#[tokio::test]
async fn a_request_keeps_a_connection_of_the_internal_server_that_was_chosen() {
    let mut world = World::internal();
    world.start().await;
    world.send(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    world.evict();
    world.send(b"GET /waits HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(world.is_another_to_make_room());
    world.wait(1).await;
    assert!(!world.has_ended());
}

// A connection was chosen to make room while its request was in the kernel, and the runtime had not
// reported it: on the internal server it was closed at once. So it was on each server if bytes
// without a request had delayed an earlier choice, some 64 polls ago (P5b).
#[tokio::test]
async fn a_request_that_the_runtime_has_not_reported_keeps_a_connection_that_was_chosen() {
    for internal in [true, false] {
        for earlier in [false, true] {
            let mut world = if internal { World::internal() } else { World::new() };
            world.start().await;
            world.send(GET).await;
            if earlier {
                world.wire().late_reads = 1;
                world.wire().arrive(b"\r\n");
                world.evict();
                world.settle().await;
                assert!(world.is_another_to_make_room());
                for _ in 0..70 {
                    world.pass(Duration::from_millis(100)).await;
                    world.send(b"\r\n").await;
                }
            }
            world.wire().late_reads = 1;
            world.wire().arrive(GET);
            world.evict();
            world.settle().await;
            assert_eq!(world.requests().finished, 2, "internal: {internal}, earlier: {earlier}");
            assert!(world.is_another_to_make_room());
        }
    }
}

// A request crossed the GOAWAY of a connection that made room. The connection stayed as long as its
// stream, and no other made room in its place (P15).
#[tokio::test]
async fn a_stream_that_crosses_the_goaway_of_an_eviction_has_another_make_room() {
    const WAITS_ON_3: &[u8] =
        b"\x00\x00\x0d\x01\x05\x00\x00\x00\x03\x82\x86\x04\x06/waits\x01\x01a";
    let mut world = World::new();
    world.start().await;
    world.send(&[PREFACE, HTTP2_FIRST].concat()).await;
    world.evict();
    world.settle().await;
    assert!(!world.is_another_to_make_room());
    world.send(WAITS_ON_3).await;
    assert_eq!(world.requests().started, 2);
    assert!(world.is_another_to_make_room());
    assert!(!world.has_ended());
}

// An upload went on after the GOAWAY of a connection that made room. The connection stayed, and no
// other made room in its place (P15).
#[tokio::test]
async fn an_upload_that_crosses_the_goaway_of_an_eviction_has_another_make_room() {
    let limits = Limits::default().body_timeout(Duration::from_secs(3));
    let mut world = World::with_limits(limits);
    world.start().await;
    world.send(&[PREFACE, UPLOAD].concat()).await;
    world.wait(5).await;
    assert!(world.is_idle(), "its upload has stopped");
    world.evict();
    world.settle().await;
    assert!(!world.is_another_to_make_room());
    world.send(PART).await;
    assert!(world.is_another_to_make_room());
    assert!(!world.has_ended());
}

// A connection that was to make room waited for a client that did not receive its last response,
// for 30 s. With eight of those nothing was accepted, whatever other idle connections there were
// (P15).
#[tokio::test]
async fn a_connection_makes_room_without_a_wait_for_its_client() {
    let http2 = [PREFACE, HTTP2_FIRST].concat();
    for request in [GET, &http2] {
        let mut world = World::new();
        world.start().await;
        world.wire().acknowledged = Some(0);
        world.send(request).await;
        assert_eq!(world.requests().finished, 1);
        world.evict();
        world.settle().await;
        world.wait(2).await;
        assert!(world.has_ended());
        assert_eq!(world.wire().how_it_ended(), End::Fin, "the kernel sends the rest");
        assert_eq!(world.connections().send_timeouts, 0);
    }
}

// On the internal server a connection makes room in the middle of its response, too. What is cut by
// that must not look complete, and what is not ends with a FIN (P5d, P15).
#[tokio::test]
async fn a_response_is_reset_if_its_connection_makes_room() {
    const OPTIONS: &[u8] = b"OPTIONS /large HTTP/1.1\r\nhost: a\r\n\r\n";
    const STREAMS: &[u8] = b"GET /streams HTTP/1.1\r\nhost: a\r\n\r\n";
    const HALF: &[u8] = b"GET / HTTP/1.1\r\nho";
    for (input, room, end) in [
        (OPTIONS, 20_000, End::Reset),
        (STREAMS, usize::MAX, End::Reset),
        (HALF, usize::MAX, End::Fin),
    ] {
        let mut world = World::internal();
        world.start().await;
        world.wire().stop_receiving(room);
        world.send(input).await;
        world.evict();
        world.settle().await;
        assert!(world.has_ended(), "{}", input.escape_ascii());
        assert_eq!(world.wire().how_it_ended(), end, "{}", input.escape_ascii());
        let requests = world.requests();
        assert_eq!(requests.started, requests.gone + requests.aborted);
    }
}

// hyper skips the rest of a body that its handler did not read in a later poll, of which nothing
// else would notify the connection: it was busy for a second, and could not make room (P15).
#[tokio::test]
async fn a_connection_is_idle_after_a_body_that_was_not_read() {
    for body in ["", "12345"] {
        let mut world = World::new();
        world.start().await;
        let head =
            format!("OPTIONS / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        world.send(format!("{head}{body}").as_bytes()).await;
        assert_eq!(world.requests().finished, 1);
        assert!(world.is_idle(), "after {:?}", head + body);
    }
}

// On the internal server a connection makes room in the middle of a request, earlier if its client
// delays it than if its handler runs. If the one was taken for the other, strangers that receive
// nothing kept their places longer than a probe that is being served (P16).
#[tokio::test]
async fn a_busy_connection_waits_for_its_handler_or_for_its_client() {
    const WAITS: &[u8] = b"GET /waits HTTP/1.1\r\nhost: a\r\n\r\n";
    const HALF: &[u8] = b"POST /reads HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345";
    for (request, during, after) in [
        (WAITS, Awaited::Handler, Awaited::Client),
        (HTTP2_WAITS, Awaited::Handler, Awaited::Client),
        (HALF, Awaited::Client, Awaited::Client),
    ] {
        let mut world = World::internal();
        world.start().await;
        world.send(request).await;
        assert_eq!(world.awaited(), Some(during), "{}", request.escape_ascii());
        // The client receives nothing of the response.
        world.wire().stop_receiving(0);
        world.release_handler();
        world.settle().await;
        assert_eq!(world.awaited(), Some(after), "{}", request.escape_ascii());
    }
}
