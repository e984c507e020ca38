//! HTTP/2 request bodies that a task of the app reads after the response.

use super::{
    PREFACE,
    output::http2,
    world::{Stage, World},
};
use crate::http::server::limits::Limits;
use std::time::Duration;

/// A POST of `/spawns` on stream 1, with the begin of its body.
const UPLOAD: &[u8] = b"\x00\x00\x0e\x01\x04\x00\x00\x00\x01\x83\x86\x04\x07/spawns\x01\x01a\
    \x00\x00\x01\x00\x00\x00\x00\x00\x01x";
const PART: &[u8] = b"\x00\x00\x01\x00\x00\x00\x00\x00\x01x";
const LAST: &[u8] = b"\x00\x00\x01\x00\x01\x00\x00\x00\x01x";
/// The payload is that of hyper's PING after a GOAWAY.
const PONG: &[u8] = b"\x00\x00\x08\x06\x01\x00\x00\x00\x00\x0b\x7b\xa2\xf0\x8b\x9b\xfe\x54";
const PING: &[u8] = b"\x00\x00\x08\x06\x00\x00\x00\x00\x0012345678";

async fn uploading(limits: Limits) -> World {
    let mut world = World::with_limits(limits);
    world.start().await;
    world.send(&[PREFACE, UPLOAD].concat()).await;
    assert_eq!(world.requests().finished, 1, "it has its response");
    world
}

// A client that still sent a request body after its response was cut a second after the GOAWAY. The
// task that read the body got an error in the middle of the upload (P5).
#[tokio::test]
async fn an_upload_that_goes_on_after_its_response_holds_the_connection() {
    let mut world = uploading(Limits::default()).await;
    world.enter(Stage::Draining).await;
    world.send(PONG).await;
    for _ in 0..8 {
        world.pass(Duration::from_millis(500)).await;
        world.send(PART).await;
        assert!(!world.has_ended());
    }
    assert_eq!(world.uploaded(), None);
    world.send(LAST).await;
    assert_eq!(world.uploaded(), Some(Ok(10)));
    world.wait(1).await;
    assert!(world.has_ended());
    assert_eq!(http2(&world.wire().written), "H1 D1. Gmax/0 P G1/0");
    assert_eq!(world.connections().body_timeouts, 0);
}

// A client that sends PINGs in place of the rest of its upload must not hold the drain (P6).
#[tokio::test]
async fn an_upload_that_stops_after_its_response_has_the_body_timeout() {
    const HALF: &[u8] = b"\x00\x00\x02\x00\x00\x00\x00\x00\x01x";
    for (last, then, read) in [(PART, &b""[..], 2), (PART, PING, 2), (HALF, b"", 1)] {
        let mut world = uploading(Limits::default()).await;
        world.enter(Stage::Draining).await;
        world.send(PONG).await;
        world.wait(2).await;
        world.send(last).await;
        for _ in 0..4 {
            world.send(then).await;
            world.wait(1).await;
            assert!(!world.has_ended(), "{}", last.escape_ascii());
        }
        world.wait(1).await;
        assert!(world.has_ended(), "{}", last.escape_ascii());
        assert_eq!(world.uploaded(), Some(Err(read)));
        assert_eq!(world.connections().body_timeouts, 1);
    }
}

// While serving, such a client has the timeout of the settings. Then its connection is idle.
#[tokio::test]
async fn a_connection_is_idle_once_its_upload_has_stopped() {
    let limits = Limits::default().body_timeout(Duration::from_secs(3));
    let mut world = uploading(limits).await;
    world.wait(2).await;
    assert!(!world.is_idle());
    world.wait(2).await;
    assert!(world.is_idle() && !world.has_ended());
    assert_eq!(world.connections().body_timeouts, 1);
    world.send(PART).await;
    assert!(!world.is_idle(), "it goes on");
    world.send(LAST).await;
    assert_eq!(world.uploaded(), Some(Ok(3)));
    assert!(world.is_idle());
}

// A task that does not read what has arrived waits for no client. The client must not be given up.
#[tokio::test]
async fn an_upload_that_its_task_does_not_read_is_no_fault_of_the_client() {
    const IGNORED: &[u8] = b"\x00\x00\x0f\x01\x04\x00\x00\x00\x01\x83\x86\x04\x08/ignores\x01\x01a\
        \x00\x00\x01\x00\x00\x00\x00\x00\x01x";
    let mut world = World::new();
    world.start().await;
    world.send(&[PREFACE, IGNORED].concat()).await;
    world.enter(Stage::Draining).await;
    world.send(PONG).await;
    world.send(PART).await;
    world.wait(8).await;
    assert!(!world.has_ended());
    world.release_handler();
    world.wait(1).await;
    assert_eq!(world.uploaded(), Some(Err(1)), "it is dropped");
    assert!(world.has_ended());
    assert_eq!(world.connections().body_timeouts, 0);
}
