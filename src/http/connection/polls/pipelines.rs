//! Pipelined requests on the fast path: what each write carries, and what is counted when.

use super::{GET, LARGE, output::http1, script::End, world::World};
use crate::http::server::limits::{HalfClose, Limits};
use std::time::Duration;

const WAITS: &[u8] = b"GET /waits HTTP/1.1\r\nhost: a\r\n\r\n";
const HALVES: &[u8] = b"GET /halves HTTP/1.1\r\nhost: a\r\n\r\n";
const MIDDLING: &[u8] = b"GET /middling HTTP/1.1\r\nhost: a\r\n\r\n";
const LATE: &[u8] = b"GET /late HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &[u8] = b"POST /reads HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n12345";
const PANICS: &[u8] = b"GET /panics HTTP/1.1\r\nhost: a\r\n\r\n";

/// A connection whose client has sent these requests at once.
async fn after(requests: &[&[u8]]) -> World {
    let mut world = World::new();
    world.start().await;
    world.send(&requests.concat()).await;
    world
}

/// Names the responses that each write carried.
fn writes(world: &World) -> Vec<String> {
    world.wire().parts().into_iter().map(http1).collect()
}

#[tokio::test]
async fn the_responses_to_requests_that_arrive_together_leave_in_one_write() {
    let world = after(&[GET; 16]).await;
    assert_eq!(writes(&world), ["16x200"]);
    let requests = world.requests();
    assert_eq!((requests.started, requests.finished), (16, 16));
}

#[tokio::test]
async fn bodies_that_arrive_with_their_heads_are_read_without_hyper() {
    let world = after(&[POST, GET, POST]).await;
    assert_eq!(writes(&world), ["3x200"]);
    let written = String::from_utf8_lossy(&world.wire().written).into_owned();
    assert_eq!(written.matches("\r\n\r\n12345").count(), 2, "{written}");
    assert_eq!(world.requests().finished, 3);
}

// hyper reads the head of a request that it completes once more, and must skip the body, which the
// handler has.
#[tokio::test]
async fn a_body_that_arrived_with_its_head_is_not_read_as_the_next_request() {
    const WAITS: &[u8] = b"POST /waits HTTP/1.1\r\nhost: a\r\ncontent-length: 18\r\n\r\n\
        GET / HTTP/1.1\r\n\r\n";
    let mut world = after(&[POST, WAITS, POST]).await;
    world.release_handler();
    world.settle().await;
    assert_eq!(http1(&world.wire().written), "3x200");
    assert_eq!((world.requests().started, world.requests().finished), (3, 3));
    world.send(POST).await;
    assert_eq!(http1(&world.wire().written), "4x200");
}

#[tokio::test]
async fn lengths_with_several_readings_are_left_to_hyper() {
    for (fields, status) in [
        ("content-length: +5\r\n", "400"),
        ("content-length: 5, 5\r\n", "400"),
        ("content-length: 5\r\ncontent-length: 6\r\n", "400"),
        ("content-length: 5\r\ncontent-length: 5\r\n", "200"),
        ("content-length: 005\r\n", "200"),
    ] {
        let head = format!("POST /reads HTTP/1.1\r\nhost: a\r\n{fields}\r\n12345");
        let world = after(&[head.as_bytes()]).await;
        let output = http1(&world.wire().written);
        assert!(output.starts_with(status), "{fields:?}: {output}");
    }
}

// A body that is too long to be copied follows the responses before it, and no other is gathered
// after it.
#[tokio::test]
async fn a_long_body_is_the_last_that_is_gathered() {
    let world = after(&[GET, LARGE, GET]).await;
    assert_eq!(http1(&world.wire().written), "3x200");
    assert_eq!(world.wire().written.iter().filter(|byte| **byte == b'x').count(), 50_000);
    assert_eq!(world.requests().finished, 3);
}

// Over TLS a flush waits for ciphertext that the kernel has not taken. The bytes of a long response
// did not count as written then, and its connection closed although its client had received nothing
// (P15).
#[tokio::test]
async fn a_long_response_whose_flush_waits_is_delivered_or_times_out() {
    let mut world = World::with_limits(Limits::default().send_timeout(Duration::from_secs(2)));
    world.start().await;
    world.wire().stop_receiving(60_000);
    world.wire().hold_flushes(true);
    world.send(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(world.wire().written.len() > 50_000, "all of it was encrypted");
    world.wire().hold_flushes(false);
    world.settle().await;
    assert!(!world.has_ended(), "its client has received nothing");
    world.wait(4).await;
    assert_eq!(world.wire().how_it_ended(), End::Reset);
}

// A handler that waits would hold back the responses of the handlers before it.
#[tokio::test]
async fn responses_do_not_wait_for_a_later_handler() {
    let mut world = after(&[GET, GET, WAITS, GET]).await;
    assert_eq!(writes(&world), ["2x200"]);
    assert_eq!(world.requests().finished, 2);
    world.release_handler();
    world.settle().await;
    assert_eq!(http1(&world.wire().written), "4x200");
    assert_eq!(world.requests().finished, 4);
}

#[tokio::test]
async fn responses_do_not_wait_for_a_later_response_of_hyper() {
    let world = after(&[GET, GET, HALVES, GET]).await;
    assert_eq!(writes(&world)[0], "2x200");
    assert_eq!(http1(&world.wire().written), "4x200");
    assert_eq!(world.requests().finished, 4);
}

/// A client could let the process hold a response for each of its pipelined requests.
#[tokio::test]
async fn gathered_responses_are_sent_once_they_are_as_long_as_one_response_may_be() {
    let world = after(&[MIDDLING; 8]).await;
    assert_eq!(writes(&world), ["3x200", "3x200", "2x200"]);
}

#[tokio::test]
async fn the_last_response_of_a_connection_leaves_with_those_before_it() {
    let close = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let world = after(&[GET, GET, close, GET]).await;
    assert_eq!(writes(&world), ["2x200 200c"]);
    assert_eq!(world.requests().started, 3, "no request follows the last response");
}

// The kernel took only a part of the last response, and hyper continued with the rest. A request
// after it must not be served: its response would follow an announced close (RFC 9112 §9.6).
#[tokio::test]
async fn no_request_follows_a_last_response_that_waits_for_the_client() {
    let close = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let mut world = World::new();
    world.start().await;
    world.wire().stop_receiving(10);
    world.send(&[GET, close, GET].concat()).await;
    world.wire().make_room(usize::MAX);
    world.settle().await;
    assert_eq!(http1(&world.wire().written), "200 200c");
    assert_eq!((world.requests().started, world.requests().finished), (2, 2));
}

// Each response is finished once the kernel has it, not once it has all that were gathered.
#[tokio::test]
async fn of_responses_that_were_written_in_part_those_that_left_are_finished() {
    let mut world = World::new();
    world.start().await;
    let one = {
        let world = after(&[GET]).await;
        world.wire().written.len()
    };
    world.wire().stop_receiving(2 * one + 1);
    world.wire().send(&[GET; 4].concat());
    world.settle().await;
    assert_eq!((world.requests().started, world.requests().finished), (4, 2));
    world.wire().make_room(usize::MAX);
    world.settle().await;
    assert_eq!(http1(&world.wire().written), "4x200");
    assert_eq!(world.requests().finished, 4);
}

// A response of which a part has left must not stay in flight when the connection breaks: the drain
// would wait for it.
#[tokio::test]
async fn of_responses_that_were_written_in_part_the_others_are_gone_with_the_connection() {
    let mut world = World::new();
    world.start().await;
    let one = after(&[GET]).await.wire().written.len();
    world.wire().stop_receiving(2 * one + 1);
    world.wire().send(&[GET; 4].concat());
    world.settle().await;
    world.wire().reset();
    world.settle().await;
    let requests = world.requests();
    assert_eq!((requests.started, requests.finished, requests.gone), (4, 2, 2));
    assert!(world.has_ended());
}

#[tokio::test]
async fn gathered_responses_are_gone_if_the_connection_breaks_before_they_are_written() {
    let mut world = World::new();
    world.start().await;
    world.wire().send(&[GET; 4].concat());
    world.wire().break_writes();
    world.settle().await;
    let requests = world.requests();
    assert_eq!((requests.started, requests.finished, requests.gone), (4, 0, 4));
    assert!(world.has_ended());
}

// The memory of gathered responses is used again by the next connection of the thread. What a
// broken connection has left in it belongs to another client.
#[tokio::test]
async fn a_connection_that_breaks_leaves_nothing_to_the_next_one() {
    let mut broken = World::new();
    broken.start().await;
    broken.wire().send(&[GET; 4].concat());
    broken.wire().break_writes();
    broken.settle().await;
    assert!(broken.has_ended());
    let next = after(&[GET, GET]).await;
    assert_eq!(writes(&next), ["2x200"]);
    assert_eq!((next.requests().started, next.requests().finished), (2, 2));
}

// The connection's task ended with the panic, and the responses that it had gathered were lost.
#[tokio::test]
async fn a_body_that_panics_does_not_take_earlier_responses_with_it() {
    let world = after(&[GET, GET, PANICS, GET]).await;
    assert_eq!(writes(&world), ["2x200"]);
    assert_eq!(world.wire().how_it_ended(), End::Fin);
    assert!(world.wire().is_cut, "so that TLS sends no close_notify (P5d)");
    let requests = world.requests();
    assert_eq!((requests.started, requests.finished, requests.gone), (3, 2, 1));
}

// The end of the responses that were gathered was that of the last request without an outcome.
#[tokio::test]
async fn nor_the_response_to_a_request_that_had_its_outcome() {
    let world = after(&[GET, LATE, PANICS]).await;
    assert_eq!(writes(&world), ["200 503"]);
    let requests = world.requests();
    assert_eq!((requests.finished, requests.timed_out, requests.gone), (1, 1, 1));
}

// A client that had received nothing of its responses shut its side, or asked for a close with a
// short response. The connection was closed at once, and the kernel kept megabytes of it for
// minutes, which no limit counted (P15).
#[tokio::test]
async fn unread_responses_are_given_up_however_their_client_ends() {
    const OPTIONS: &[u8] = b"OPTIONS /large HTTP/1.1\r\nhost: a\r\n\r\n";
    const LAST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let many = [&MIDDLING.repeat(3)[..], LAST].concat();
    for (requests, ends) in
        [(LARGE, true), (OPTIONS, true), (&[LARGE, LAST].concat(), false), (&many, false)]
    {
        let limits = Limits::default().send_timeout(Duration::from_secs(2));
        let mut world = World::with_limits(limits);
        world.start().await;
        world.wire().stop_receiving(usize::MAX);
        world.send(requests).await;
        if ends {
            world.wire().end();
            world.settle().await;
        }
        assert!(!world.has_ended(), "{}", requests.escape_ascii());
        world.wait(6).await;
        assert_eq!(world.wire().how_it_ended(), End::Reset, "{}", requests.escape_ascii());
        assert_eq!(world.connections().send_timeouts, 1);
    }
}

// The part that had left without hyper was not counted, and the connection ended with a FIN (P5d).
#[tokio::test]
async fn a_response_that_left_in_part_is_reset_if_its_client_shuts_its_side_and_is_dropped() {
    let mut world = World::with_limits(Limits::default().half_close(HalfClose::Drop));
    world.start().await;
    world.wire().stop_receiving(10);
    world.send(&[GET, WAITS].concat()).await;
    assert_eq!(world.wire().written.len(), 10);
    world.wire().end();
    world.settle().await;
    assert_eq!(world.requests().gone, 2);
    world.wire().make_room(0);
    world.wait(1).await;
    assert!(world.has_ended());
    assert_eq!(world.wire().how_it_ended(), End::Reset);
}
