//! Sweeps of the idle set, while one takes longer than the next deadline is away.

use super::{
    GET, LARGE,
    clock::ManualClock,
    output::http1,
    routes::Routes,
    script::{End, Script, lock, script},
    world::worker_context,
};
use crate::{
    http::{
        connection::{
            idle_handoff::{IdleInfo, IdleState},
            idle_set::IdleSet,
            transition::ReceivedAny,
            worker_context::WorkerContext,
        },
        exchange::http_service::HttpService,
        server::{
            announcement::Announcement,
            limits::{Limits, RACE_WATCH},
        },
    },
    lifecycle::{Moment, Phase},
    runtime::{Address, Clock, IdlePoller},
};
use bytes::Bytes;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

const LAST: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

/// A poller of connections that have nothing to read until the test says so. Counts the queries to
/// the kernel.
#[derive(Default)]
struct Silent {
    queries: Arc<AtomicUsize>,
    are_readable: Arc<AtomicBool>,
    keys: Vec<usize>,
}

impl IdlePoller for Silent {
    type Io = Script;
    type Idle = Script;

    fn insert(&mut self, io: Script, key: usize) -> Result<Script, Script> {
        self.keys.push(key);
        Ok(io)
    }

    fn poll_ready(&mut self, _: &mut Context<'_>, found: &mut Vec<usize>) -> Poll<()> {
        if !self.are_readable.load(Relaxed) {
            return Poll::Pending;
        }
        found.extend(&self.keys);
        Poll::Ready(())
    }

    fn query_shut(&mut self) -> bool {
        self.queries.fetch_add(1, Relaxed);
        true
    }

    fn remove(&mut self, idle: Script) -> io::Result<(Script, Bytes)> {
        Ok((idle, Bytes::new()))
    }
}

/// Idle connections, and their worker's clock.
struct Idle {
    clock: Arc<ManualClock>,
    worker: Arc<WorkerContext<Routes>>,
    set: IdleSet<Silent, Routes>,
    queries: Arc<AtomicUsize>,
    are_readable: Arc<AtomicBool>,
}

impl Idle {
    /// Begins the drain with these connections. Whether each is known to have received its last
    /// response is `delivered`.
    fn draining(connections: impl IntoIterator<Item = Script>, delivered: bool) -> Self {
        let idle = Self::serving(connections, delivered);
        idle.worker.server().publish(Phase::Draining, idle.clock.now());
        idle
    }

    /// The same before a stop.
    fn serving(connections: impl IntoIterator<Item = Script>, delivered: bool) -> Self {
        let clock = Arc::new(ManualClock::new());
        let worker = worker_context(&clock);
        let poller = Silent::default();
        let (queries, are_readable) = (poller.queries.clone(), poller.are_readable.clone());
        let mut set = IdleSet::new(worker.clone(), Some(poller));
        for io in connections {
            let info = IdleInfo {
                since: clock.now(),
                peer: Address::Unix(None),
                local: Arc::new(Address::Unix(None)),
                received_any: ReceivedAny::Yes,
                announcement: Announcement::OPENED_BEFORE,
                responded: true,
                delivered,
                state: IdleState::Waiting,
                sent: if delivered { 0 } else { u32::MAX },
            };
            set.handoff().push(io, info).unwrap();
        }
        assert!(set.drain_handoff());
        Self { clock, worker, set, queries, are_readable }
    }

    fn sweep(&mut self) -> Moment {
        self.set.sweep(self.clock.now())
    }

    /// Sweeps, and handles all that have expired. Returns the next deadline.
    fn sweep_all(&mut self) -> Moment {
        let mut next = self.sweep();
        while self.set.has_more_expired() {
            next = next.min(self.set.handle_expired(self.clock.now()));
        }
        next
    }

    fn queries(&self) -> usize {
        self.queries.load(Relaxed)
    }
}

/// An idle set without connections.
pub(in crate::http) fn empty_idle_set() -> IdleSet<impl IdlePoller, impl HttpService> {
    let clock = Arc::new(ManualClock::new());
    IdleSet::new(worker_context(&clock), Some(Silent::default()))
}

/// With 10,000 idle connections a stop slept for up to 100 ms with a few of them left. Their watch
/// had ended while the others were closed, batch by batch, and no sweep had looked at them (P8).
#[tokio::test]
async fn a_deadline_that_passes_while_others_are_handled_is_handled_after_them() {
    let batch = Limits::default().fixed().close_batch.get();
    let mut idle = Idle::draining((0..=2 * batch).map(|_| script().0), true);
    // Two batches get their FIN now, the last one a moment later.
    assert_eq!(idle.sweep(), idle.clock.now() + RACE_WATCH);
    assert_eq!(idle.set.handle_expired(idle.clock.now()), idle.clock.now() + RACE_WATCH);
    assert!(idle.set.has_more_expired());
    idle.clock.advance(RACE_WATCH / 2);
    let last = idle.set.handle_expired(idle.clock.now());
    assert_eq!(last, idle.clock.now() + RACE_WATCH);
    // The watches of two batches end. The second batch has its turn when the last watch ends.
    idle.clock.advance(RACE_WATCH / 2);
    assert_eq!(idle.sweep(), last);
    idle.clock.advance(RACE_WATCH / 2);
    assert_eq!(idle.sweep(), idle.clock.now(), "the next sweep is due");
    assert!(!idle.set.is_empty());
    assert_eq!(idle.sweep(), Moment::NEVER);
    assert!(idle.set.is_empty());
    assert_eq!(idle.queries(), 0, "all are known to have their responses");
}

/// A query walks through all connections of the machine. Each sweep that ended watches made one for
/// each address family: a sixth of the time of a stop with 10,000 idle connections.
#[tokio::test]
async fn one_query_is_the_answer_for_all_that_are_closing() {
    const CROWD: usize = 2_000;
    let (stuck, wire) = script();
    lock(&wire).stop_receiving(0);
    lock(&wire).written.extend(b"a response");
    let crowd = (0..CROWD).map(|_| script().0).chain([stuck]);
    let mut idle = Idle::draining(crowd, false);
    // Half of the connections get their FIN now, the others while the first are watched.
    idle.sweep();
    for _ in 1..CROWD / 2 / Limits::default().fixed().close_batch.get() {
        idle.set.handle_expired(idle.clock.now());
    }
    idle.clock.advance(RACE_WATCH / 2);
    assert!(idle.set.has_more_expired());
    while idle.set.has_more_expired() {
        idle.set.handle_expired(idle.clock.now());
    }
    assert_eq!(idle.queries(), 0, "no watch has ended");
    idle.clock.advance(RACE_WATCH / 2);
    idle.sweep_all();
    assert!(!idle.set.is_empty());
    idle.clock.advance(RACE_WATCH / 2);
    assert_eq!(idle.sweep_all(), Moment::NEVER);
    assert!(idle.set.is_empty());
    assert_eq!(idle.queries(), 1);
    assert_eq!(idle.set.drain_resumed().count(), 1, "one client lacks a part of its response");
}

/// At the connection limit the worker waits for a close, and a connection waits in the kernel's
/// queue.
#[tokio::test]
async fn a_close_frees_a_place_at_once() {
    let mut idle = Idle::draining([script().0], true);
    idle.sweep_all();
    idle.worker.capacity.wait();
    let worker = idle.worker.clone();
    let mut freed = tokio_test::task::spawn(worker.capacity.changed());
    assert!(freed.poll().is_pending());
    idle.clock.advance(RACE_WATCH);
    idle.sweep_all();
    assert!(idle.set.is_empty());
    assert!(freed.poll().is_ready());
}

/// At a stop each idle connection got a task once more, although its client had acknowledged all,
/// or the kernel was queried although it had said so before (P8).
#[tokio::test]
async fn a_connection_whose_response_has_arrived_is_closed_without_a_task() {
    for (delivered, queries) in [(false, 1), (true, 0)] {
        let (io, wire) = script();
        lock(&wire).written.extend(b"a response");
        let mut idle = Idle::draining([io], delivered);
        idle.sweep_all();
        idle.clock.advance(RACE_WATCH);
        assert_eq!(idle.sweep_all(), Moment::NEVER);
        assert!(idle.set.is_empty());
        assert_eq!(idle.set.drain_resumed().count(), 0);
        assert_eq!(lock(&wire).queries, queries);
    }
}

/// In a burst of new connections the requests on idle ones waited for the end of the burst.
#[tokio::test]
async fn idle_connections_are_served_after_each_batch_of_new_ones() {
    let (io, wire) = script();
    let mut idle = Idle::serving([io], true);
    idle.set.serve_ready_now().await;
    assert!(lock(&wire).written.is_empty());
    lock(&wire).send(GET);
    idle.are_readable.store(true, Relaxed);
    idle.set.serve_ready_now().await;
    assert_eq!(http1(&lock(&wire).written), "200");
}

/// A client that read as fast as the host wrote had all of a long response before other connections
/// had a turn: without a task there was no budget.
#[tokio::test]
async fn a_long_response_leaves_others_a_turn() {
    let (io, wire) = script();
    lock(&wire).write_piece = 1_000;
    lock(&wire).send(LARGE);
    let mut idle = Idle::serving([io], true);
    idle.are_readable.store(true, Relaxed);
    idle.set.serve_ready_now().await;
    let writes_max = Limits::default().fixed().writes_per_poll.get();
    assert_eq!(lock(&wire).writes.len(), writes_max);
    assert_eq!(idle.set.drain_resumed().count(), 1, "a task writes the rest");
}

/// A client that had taken long for one response lost its connection soon after the next one, of
/// which as much was on its way (P15).
#[tokio::test]
async fn the_time_for_a_response_does_not_begin_with_the_one_before() {
    let timeout = Limits::default().send_timeout;
    let (io, wire) = script();
    let mut idle = Idle::serving([io], true);
    idle.are_readable.store(true, Relaxed);
    lock(&wire).stop_receiving(usize::MAX);
    lock(&wire).send(GET);
    idle.set.serve_ready_now().await;
    idle.clock.advance(timeout);
    idle.sweep_all();
    assert_eq!(idle.sweep_all(), idle.clock.now() + timeout, "nothing was acknowledged");
    lock(&wire).make_room(usize::MAX);
    lock(&wire).stop_receiving(usize::MAX);
    lock(&wire).send(GET);
    idle.clock.advance(timeout / 2);
    idle.set.serve_ready_now().await;
    assert_eq!(http1(&lock(&wire).written), "2x200");
    assert_eq!(idle.sweep_all(), idle.clock.now() + timeout);
    idle.clock.advance(timeout);
    idle.sweep_all();
    assert_eq!(idle.sweep_all(), idle.clock.now() + timeout);
    assert_eq!(idle.worker.server().metrics.connections().send_timeouts, 0);
    idle.clock.advance(timeout);
    idle.sweep_all();
    assert_eq!(idle.worker.server().metrics.connections().send_timeouts, 1);
}

/// The cut closed a connection without a task although a request had arrived on it. The kernel then
/// sent a reset, which may discard the response before, and it was counted as drained (P5d, P13).
#[tokio::test]
async fn the_cut_reads_what_has_arrived_before_it_closes() {
    let (io, wire) = script();
    let mut idle = Idle::draining([io], true);
    lock(&wire).send(GET);
    idle.worker.server().cut();
    idle.sweep_all();
    assert!(idle.set.is_empty());
    assert_eq!(lock(&wire).how_it_ended(), End::Fin);
}

/// Responses of which each was short added up to much, of which the client received nothing. The
/// connection was closed at once after the last one, and the kernel kept them for minutes (P15).
#[tokio::test]
async fn short_responses_that_were_not_received_add_up() {
    const MIDDLING: &[u8] = b"GET /middling HTTP/1.1\r\nhost: a\r\n\r\n";
    let (io, wire) = script();
    lock(&wire).acknowledged = Some(0);
    let mut idle = Idle::serving([io], true);
    idle.are_readable.store(true, Relaxed);
    for request in [MIDDLING, MIDDLING, MIDDLING, LAST] {
        lock(&wire).send(request);
        idle.set.serve_ready_now().await;
    }
    assert_eq!(http1(&lock(&wire).written), "3x200 200c");
    assert_eq!(idle.set.drain_resumed().count(), 1);
}

/// A connection without a task had sent much that its client had not received. It was closed at
/// once after a short last response, and the kernel kept the rest for minutes (P15).
#[tokio::test]
async fn a_short_last_response_does_not_hide_what_was_sent_before() {
    for (delivered, lingering) in [(false, 1), (true, 0)] {
        let (io, wire) = script();
        lock(&wire).acknowledged = (!delivered).then_some(0);
        lock(&wire).send(LAST);
        let mut idle = Idle::serving([io], delivered);
        idle.are_readable.store(true, Relaxed);
        idle.set.serve_ready_now().await;
        assert_eq!(http1(&lock(&wire).written), "200c");
        assert_eq!(idle.set.drain_resumed().count(), lingering);
    }
}

/// The kernel had no place for the close_notify of an idle connection, since its client received
/// slowly. The connection was closed without one, as if something had been cut (P5d).
#[tokio::test]
async fn a_close_that_waits_for_a_place_is_continued_by_a_task() {
    let (io, wire) = script();
    lock(&wire).hold_flushes(true);
    let mut idle = Idle::draining([io], true);
    assert_eq!(idle.sweep_all(), Moment::NEVER);
    assert!(idle.set.is_empty());
    assert_eq!(idle.set.drain_resumed().count(), 1);
    tokio::task::yield_now().await;
    assert!(!lock(&wire).shut);
    lock(&wire).hold_flushes(false);
    tokio::task::yield_now().await;
    assert!(lock(&wire).shut);
    assert_eq!(idle.worker.server().metrics.connections().unannounced, 1);
}
