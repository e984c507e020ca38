//! Clients of HTTP/2 that read slowly: a response that the kernel takes in parts is written whole,
//! and one that was written waits for nothing else.

use super::{
    HTTP2_FIRST, HTTP2_WAITS, PREFACE,
    output::http2,
    world::{Stage, World},
};
use std::time::Duration;

// A client without a PONG received nothing for a while. It lost the rest of an error response two
// seconds after the GOAWAY if its request had ended before that (P5d).
#[tokio::test]
async fn an_error_response_from_before_the_goaway_is_written_whole() {
    for request in [&HTTP2_WAITS[PREFACE.len()..], &refused()] {
        let mut world = World::new();
        world.start().await;
        world.send(PREFACE).await;
        world.wire().stop_receiving(10);
        world.send(request).await;
        world.wait(6).await;
        world.wire().make_room(1);
        world.settle().await;
        world.enter(Stage::Draining).await;
        takes_it_in_parts(&mut world).await;
        assert_eq!(http2(&world.wire().written), "H1 D1. Gmax/0 P");
    }
}

// The same for a request that was refused in the poll in which the GOAWAY was written.
#[tokio::test]
async fn a_refusal_that_meets_the_goaway_is_written_whole() {
    const GOAWAY_AND_PING: usize = 34;
    let mut world = World::new();
    world.start().await;
    world.send(PREFACE).await;
    world.enter(Stage::LameDuck).await;
    world.wire().stop_receiving(GOAWAY_AND_PING + 5);
    world.wire().arrive(&refused());
    world.enter(Stage::Draining).await;
    takes_it_in_parts(&mut world).await;
    assert_eq!(http2(&world.wire().written), "Gmax/0 P H1 D1.");
}

// A client sent PINGs without a pause, and read their responses slowly. Its only request was in
// flight as long as it did so, although its response was written: the connection was never idle,
// held the drain, and in its end counted as one whose response was cut (P5c, P6, P15).
#[tokio::test]
async fn a_response_that_was_written_does_not_wait_for_pongs() {
    for request in [HTTP2_FIRST, &refused()] {
        let mut world = World::new();
        world.start().await;
        world.send(PREFACE).await;
        world.wire().stop_receiving(5);
        world.send(request).await;
        world.wire().refill = b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678";
        for _ in 0..4 {
            world.wire().make_room(20_000);
            world.flood(Duration::from_secs(1)).await;
        }
        assert!(world.is_idle());
        assert_eq!(world.requests().finished, world.requests().started);
        world.enter(Stage::Draining).await;
        for _ in 0..4 {
            world.wire().make_room(20_000);
            world.flood(Duration::from_secs(1)).await;
        }
        assert!(world.has_ended());
    }
}

/// The client takes a few bytes now and then for four seconds, then all.
async fn takes_it_in_parts(world: &mut World) {
    for _ in 0..8 {
        world.wire().make_room(10);
        world.pass(Duration::from_millis(500)).await;
        assert!(!world.has_ended());
    }
    world.wire().make_room(usize::MAX);
    world.wait(3).await;
    assert!(world.has_ended());
}

/// A request with more fields than the host accepts.
fn refused() -> Vec<u8> {
    let mut refused = [HTTP2_FIRST, &b"\x00\x01a\x01b".repeat(101)].concat();
    let length = u16::try_from(refused.len() - 9).unwrap();
    refused[1..3].copy_from_slice(&length.to_be_bytes());
    refused
}
