//! Connections before their first request.

use super::{
    GET, HTTP2_FIRST, PREFACE,
    clock::ManualClock,
    routes::Routes,
    script::End,
    world::{Stage, World, worker_with},
};
use crate::{
    http::server::{idle_policy::EvictionGrace, limits::Limits},
    lifecycle::{Moment, Phase},
    runtime::{Clock, Negotiated},
};
use std::{sync::Arc, time::Duration};

/// Length of the header in these tests.
const HEADER: usize = 20;

// The time of a PROXY header may expire in the moment in which the rest of it arrives, and of which
// the runtime does not know yet. The kernel was queried once more before the close, which proves
// nothing after a pause of the thread: the header and its request were thrown away (P5b).
#[tokio::test]
async fn a_header_that_has_arrived_at_its_deadline_is_read() {
    for late_reads in [0, 1, 3] {
        let mut world = World::with_header(HEADER);
        world.wire().send(&[b'x'; HEADER / 2]);
        world.start().await;
        world.wait(9).await;
        assert_eq!(world.wire().how_it_ended(), End::Open);
        world.wire().late_reads = late_reads;
        world.wire().arrive(&[b'x'; HEADER / 2]);
        world.wire().arrive(GET);
        world.wait(1).await;
        assert_eq!(world.requests().finished, 1, "{late_reads} late reads");
    }
}

// A client that had agreed on HTTP/2 and sent a part of its preface held the drain for five
// seconds, and counted as one that does not receive a response. It has the second of every
// incomplete head (P6).
#[tokio::test]
async fn half_a_preface_has_the_time_of_half_a_head() {
    for negotiated in [Negotiated::Unknown, Negotiated::Http2] {
        let mut world = World::new();
        world.wire().negotiated = negotiated;
        world.start().await;
        world.send(&PREFACE[..5]).await;
        world.enter(Stage::Draining).await;
        assert_eq!(world.wire().how_it_ended(), End::Open);
        world.wait(1).await;
        assert_eq!(world.wire().how_it_ended(), End::Fin, "{negotiated:?}");
        assert!(world.wire().written.is_empty(), "no response of another protocol");
        world.wait(1).await;
        assert!(world.has_ended());
        assert_eq!(world.connections().send_timeouts, 0);
    }
}

// Two parts of a preface, or one and the end.
#[tokio::test]
async fn a_preface_that_was_agreed_on_may_come_in_parts() {
    let mut world = World::new();
    world.wire().negotiated = Negotiated::Http2;
    world.start().await;
    world.send(&PREFACE[..5]).await;
    world.send(&[&PREFACE[5..], HTTP2_FIRST].concat()).await;
    assert_eq!(world.requests().finished, 1);
    let mut world = World::new();
    world.wire().negotiated = Negotiated::Http2;
    world.start().await;
    world.send(&PREFACE[..5]).await;
    world.wire().end();
    world.settle().await;
    assert!(world.has_ended());
    assert!(!world.wire().written.starts_with(b"HTTP/1"), "{:?}", world.wire().written);
}

// A worker accepts before Serving is published. Without an age limit a connection that was accepted
// then would stay as long as its client likes (P4).
#[tokio::test]
async fn a_connection_that_is_accepted_before_serving_has_an_age_limit() {
    let age_max = Duration::from_secs(100);
    let limits = Limits::default().connection_age_max(Some(age_max));
    let clock = Arc::new(ManualClock::new());
    let worker = worker_with(&clock, limits, EvictionGrace::MAIN, Routes::default(), None);
    for phase in [Phase::Starting, Phase::Serving] {
        worker.server().publish(phase, clock.now());
        let aged_at = worker.server().announcement(clock.now(), || 1).aged_at();
        assert!(aged_at <= Moment::EPOCH + age_max, "{phase:?}: {aged_at:?}");
    }
}
