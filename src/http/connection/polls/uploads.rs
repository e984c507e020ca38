//! Request bodies that a task of the app reads after the response.

use super::{
    HTTP2_SECOND, PREFACE,
    output::{http1, http2},
    script::End,
    world::{Stage, World},
};
use crate::http::server::limits::Limits;
use std::time::Duration;

/// A POST of `/spawns` on stream 1, with the begin of its body.
pub(super) const UPLOAD: &[u8] =
    b"\x00\x00\x0e\x01\x04\x00\x00\x00\x01\x83\x86\x04\x07/spawns\x01\x01a\
    \x00\x00\x01\x00\x00\x00\x00\x00\x01x";
pub(super) const PART: &[u8] = b"\x00\x00\x01\x00\x00\x00\x00\x00\x01x";
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
        // The task is asked first whether it still reads.
        world.wait(1).await;
        world.pass(Duration::from_millis(50)).await;
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

// A stream beside the upload sent data. The client of the upload was no longer given up, and held
// its connection for ever (P15, P6).
#[tokio::test]
async fn data_of_another_stream_does_not_make_an_upload_endless() {
    const OTHER: &[u8] = b"\x00\x00\x0d\x01\x04\x00\x00\x00\x03\x83\x86\x04\x06/reads\x01\x01a\
        \x00\x00\x01\x00\x01\x00\x00\x00\x03x";
    let limits = Limits::default().body_timeout(Duration::from_secs(3));
    let mut world = uploading(limits).await;
    world.send(OTHER).await;
    assert_eq!(world.requests().finished, 2);
    world.wait(5).await;
    assert!(world.is_idle() && !world.has_ended());
    assert_eq!(world.connections().body_timeouts, 1);
}

// The task of an earlier request on the connection dropped its body. A later upload, which had
// stopped, then had no time limit (P15, P6).
#[tokio::test]
async fn each_of_two_late_bodies_has_its_own_wait() {
    let head = |path: &str, length: usize| {
        format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nx")
    };
    let limits = Limits::default().body_timeout(Duration::from_secs(3));
    let mut world = World::with_limits(limits);
    world.start().await;
    world.send(head("/ignores", 3).as_bytes()).await;
    world.send(b"yz").await;
    world.send(head("/spawns", 10).as_bytes()).await;
    assert_eq!(world.requests().finished, 2);
    world.release_handler();
    world.wait(6).await;
    assert_eq!(world.connections().body_timeouts, 1);
    assert!(world.has_ended());
}

// The last bytes of another stream waited for a window that the client did not open. An upload on
// the connection was cut a send timeout later, although its data arrived all the time (P5).
#[tokio::test]
async fn an_upload_goes_on_beside_bytes_that_wait_for_their_client() {
    const WINDOWS_OF_1: &[u8] = b"\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x04\x00\x00\x00\x01";
    const WINDOW_UPDATE: &[u8] = b"\x00\x00\x04\x08\x00\x00\x00\x00\x01\x00\x00\x00\x20";
    let limits = Limits::default().send_timeout(Duration::from_secs(2));
    let mut world = World::with_limits(limits);
    world.start().await;
    world.send(&[PREFACE, WINDOWS_OF_1, UPLOAD, WINDOW_UPDATE].concat()).await;
    world.send(HTTP2_SECOND).await;
    assert_eq!((world.requests().started, world.requests().finished), (2, 1));
    for _ in 0..10 {
        world.send(PART).await;
        world.wait(1).await;
        assert!(!world.has_ended());
    }
    assert_eq!(world.uploaded(), None);
    world.wait(3).await;
    assert!(world.has_ended(), "nothing moves");
    assert_eq!(world.uploaded(), Some(Err(11)));
}

// A task had read a body whole after the response, and then dropped it. Its connection was busy for
// up to a second more, and the drain waited for it (P8).
#[tokio::test]
async fn the_drain_goes_on_when_a_late_body_is_dropped() {
    let mut world = World::new();
    world.start().await;
    world.send(b"POST /keeps HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nx").await;
    world.enter(Stage::Draining).await;
    world.send(b"yz").await;
    assert_eq!(world.uploaded(), None, "the task has the body");
    assert_eq!(world.wire().how_it_ended(), End::Open);
    world.release_handler();
    world.settle().await;
    assert_eq!(world.uploaded(), Some(Ok(3)));
    assert_eq!(world.wire().how_it_ended(), End::Fin);
}

// The same over HTTP/2, where a body is no longer held once all of it was read.
#[tokio::test]
async fn the_drain_goes_on_when_a_late_body_was_read() {
    const KEEPS: &[u8] = b"\x00\x00\x0d\x01\x04\x00\x00\x00\x01\x83\x86\x04\x06/keeps\x01\x01a\
        \x00\x00\x01\x00\x00\x00\x00\x00\x01x";
    let mut world = World::new();
    world.start().await;
    world.send(&[PREFACE, KEEPS].concat()).await;
    world.send(LAST).await;
    assert!(world.is_idle());
}

// A client sent the rest of its upload after the response, which had taken one poll. The connection
// counted as idle after that poll. So the rest was taken for the begin of a head, and the client
// got a 408 and the end of its connection (P5).
#[tokio::test]
async fn an_upload_whose_response_takes_one_poll_is_read_to_its_end() {
    for stage in [Stage::Serving, Stage::Draining] {
        let mut world = World::new();
        world.wire().send(b"POST /spawns HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nx");
        world.enter(stage).await;
        world.start().await;
        assert_eq!(world.requests().finished, 1);
        assert!(!world.is_idle());
        world.send(b"yz").await;
        assert_eq!(world.uploaded(), Some(Ok(3)), "{stage:?}");
        world.wait(15).await;
        assert!(!http1(&world.wire().written).contains("408"));
    }
}

// A handler that collected its body held a whole read buffer of 8 KB for each byte that its client
// sent alone (P15).
#[tokio::test]
async fn a_short_frame_of_a_body_holds_no_buffer() {
    const HEAD: &[u8] = b"POST /collects HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n";
    const HTTP2_HEAD: &[u8] =
        b"\x00\x00\x10\x01\x04\x00\x00\x00\x01\x83\x86\x04\x09/collects\x01\x01a";
    let http2 = [PREFACE, HTTP2_HEAD].concat();
    for (head, parts) in [(HEAD, [&b"1"[..]; 3]), (&http2, [PART, PART, LAST])] {
        let mut world = World::new();
        world.start().await;
        world.send(head).await;
        for part in parts {
            world.send(part).await;
        }
        let written = String::from_utf8_lossy(&world.wire().written).into_owned();
        assert!(written.contains("3 frames"), "{written}");
    }
}
