//! Sweeps of the idle set, while one takes longer than the next deadline is away.

use super::{
    clock::ManualClock,
    script::{Script, script},
    world::worker_context,
};
use crate::{
    http::{
        connection::{
            idle_handoff::{IdleInfo, IdleState},
            idle_set::IdleSet,
            transition::ReceivedAny,
        },
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
    sync::Arc,
    task::{Context, Poll},
};
use tokio::sync::Notify;

/// A poller of connections that never have anything to read.
struct Silent;

impl IdlePoller for Silent {
    type Io = Script;
    type Idle = Script;

    fn insert(&mut self, io: Script, _: usize) -> Result<Script, Script> {
        Ok(io)
    }

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &mut Vec<usize>) -> Poll<()> {
        Poll::Pending
    }

    fn remove(&mut self, idle: Script) -> io::Result<(Script, Bytes)> {
        Ok((idle, Bytes::new()))
    }
}

/// With 10,000 idle connections a stop slept for up to 100 ms with a few of them left. Their watch
/// had ended while the others were closed, batch by batch, and no sweep had looked at them (P8).
#[tokio::test]
async fn a_deadline_that_passes_while_others_are_handled_is_handled_after_them() {
    let clock = Arc::new(ManualClock::new());
    let worker = worker_context(&clock, Limits::default(), Arc::new(Notify::new()));
    let (server, batch) = (worker.shared.server.clone(), worker.server().caps().close_batch.get());
    let mut set = IdleSet::new(worker, Some(Silent));
    for _ in 0..=2 * batch {
        let info = IdleInfo {
            since: clock.now(),
            peer: Address::Unix(None),
            local: Arc::new(Address::Unix(None)),
            received_any: ReceivedAny::Yes,
            announcement: Announcement::OPENED_BEFORE,
            responded: true,
            delivered: true,
            state: IdleState::Waiting,
        };
        set.handoff().push(script().0, info).unwrap();
    }
    assert!(set.drain_handoff());
    // Two batches get their FIN now, the last one a moment later.
    server.publish(Phase::Draining, clock.now());
    assert_eq!(set.sweep(clock.now()), clock.now() + RACE_WATCH);
    assert_eq!(set.handle_expired(clock.now()), clock.now() + RACE_WATCH);
    assert!(set.has_more_expired());
    clock.advance(RACE_WATCH / 2);
    let last = set.handle_expired(clock.now());
    assert_eq!(last, clock.now() + RACE_WATCH);
    // The watches of two batches end. The second batch has its turn when the last watch ends.
    clock.advance(RACE_WATCH / 2);
    assert_eq!(set.sweep(clock.now()), last);
    clock.advance(RACE_WATCH / 2);
    assert_eq!(set.sweep(clock.now()), clock.now(), "the next sweep is due");
    assert!(!set.is_empty());
    assert_eq!(set.sweep(clock.now()), Moment::NEVER);
    assert!(set.is_empty());
}
