//! What clients of HTTP/2 send in other ways than those of HTTP/1.

use super::{
    HTTP2_FIRST, HTTP2_WAITS, PREFACE,
    output::http2,
    script::End,
    world::{Stage, World},
};

/// A CONNECT with a `content-length` on stream 3.
const CONNECT: &[u8] = b"\x00\x00\x10\x01\x04\x00\x00\x00\x03\
    \x02\x07CONNECT\x01\x01a\x0f\x0d\x015";

/// Returns a GET of `/cookies` on stream 1 with these fields of the name `cookie`.
fn with_cookies(crumbs: &[&str]) -> Vec<u8> {
    let mut block = b"\x82\x86\x04\x08/cookies\x01\x01a".to_vec();
    for crumb in crumbs {
        block.extend_from_slice(&[0x0f, 0x11, u8::try_from(crumb.len()).unwrap()]);
        block.extend_from_slice(crumb.as_bytes());
    }
    let [_, _, high, low] = u32::try_from(block.len()).unwrap().to_be_bytes();
    [PREFACE, &[0, high, low, 1, 5, 0, 0, 0, 1], &block].concat()
}

// A client of HTTP/2 may split its cookies. The handler got the parts as separate fields, and each
// counted against the limit on fields: the request was refused (RFC 9113 §8.2.3).
#[tokio::test]
async fn the_cookies_of_a_client_are_joined() {
    let many = ["c=d"; 120];
    for (crumbs, joined) in [
        (&["a=1", "b=2"][..], "a=1; b=2".to_owned()),
        (&["a=1"], "a=1".to_owned()),
        (&[], String::new()),
        (&many, many.join("; ")),
    ] {
        let mut world = World::new();
        world.start().await;
        world.send(&with_cookies(crumbs)).await;
        assert_eq!(world.requests().finished, 1, "{crumbs:?}");
        let written = world.wire().written.clone();
        assert!(written.ends_with(joined.as_bytes()), "{}", written.escape_ascii());
    }
}

// hyper drops a connection at a CONNECT with a body. The requests on it counted as gone, as if the
// client had left, and their clients got no GOAWAY (P13).
#[tokio::test]
async fn a_connect_with_a_body_aborts_the_other_requests() {
    for is_draining in [false, true] {
        let mut world = World::new();
        world.start().await;
        world.send(HTTP2_WAITS).await;
        if is_draining {
            world.enter(Stage::Draining).await;
        }
        world.send(CONNECT).await;
        world.settle().await;
        let goaway = if is_draining { "Gmax/0 P G3/2" } else { "G3/2" };
        assert_eq!(http2(&world.wire().written), goaway);
        assert_eq!(world.wire().how_it_ended(), End::Fin);
        assert!(world.wire().is_cut);
        assert_eq!((world.requests().aborted, world.requests().gone), (1, 0));
        world.wire().end();
        world.settle().await;
        assert!(world.has_ended());
    }
}

// A response left in the same poll in which hyper dropped the connection at a CONNECT with a body.
// It counted as aborted (P5c).
#[tokio::test]
async fn a_response_that_leaves_before_a_connect_is_refused_is_finished() {
    let mut world = World::new();
    world.start().await;
    world.send(HTTP2_WAITS).await;
    world.release_handler();
    world.wire().send(CONNECT);
    world.settle().await;
    assert_eq!((world.requests().finished, world.requests().aborted), (1, 0));
}

// A client that ends its side, or sends a GOAWAY, ends its connection itself. It must not be taken
// for one that hyper drops.
#[tokio::test]
async fn the_end_of_a_client_gets_no_goaway_of_an_error() {
    const GOAWAY: &[u8] = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    for (waits, end) in [(true, &b""[..]), (false, b""), (false, GOAWAY)] {
        let mut world = World::new();
        world.start().await;
        let first = [PREFACE, HTTP2_FIRST].concat();
        world.send(if waits { HTTP2_WAITS } else { &first }).await;
        world.wire().send(end);
        if end.is_empty() {
            world.wire().end();
        }
        world.settle().await;
        let written = http2(&world.wire().written);
        assert!(!written.contains("/2"), "{written}");
        assert_eq!(world.wire().how_it_ended(), End::Fin);
        assert_eq!(world.requests().aborted, 0);
    }
}

// hyper ends a connection at a CONNECT with a body, whatever it has still to write. A response that
// the kernel had never taken was counted as finished (P5c).
#[tokio::test]
async fn a_response_that_the_kernel_never_took_is_not_finished() {
    let mut world = World::new();
    world.start().await;
    world.send(PREFACE).await;
    world.wire().stop_receiving(0);
    world.send(HTTP2_FIRST).await;
    world.send(CONNECT).await;
    world.wait(1).await;
    assert!(world.has_ended());
    assert_eq!((world.requests().finished, world.requests().aborted), (0, 1));
}
