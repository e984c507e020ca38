//! The wait for handshakes in progress, between the seal of the listeners and their close (P5a,
//! P8).
//!
//! A sealed listener keeps new connections out. But a client whose handshake is in progress may
//! already be connected from its own point of view, and may have sent its request, while the server
//! cannot accept it yet. So the listener stays open until no handshake is in progress. Without one
//! that is at once, otherwise after a round trip.

use crate::{
    lifecycle::{Moment, Phase},
    runtime::{Clock, Sleep},
};
use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Notifies each worker when all listeners of all workers are sealed. A queue is emptied only after
/// that: a client that is kept out of one queue must not get into another that was emptied already.
#[derive(Debug)]
pub(crate) struct SealBarrier {
    open: AtomicUsize,
    all: CancellationToken,
}

impl SealBarrier {
    pub(crate) fn new(workers: usize) -> Self {
        Self { open: AtomicUsize::new(workers), all: CancellationToken::new() }
    }

    pub(super) fn on_worker_sealed(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all.cancel();
        }
    }
}

/// Maximum time that a worker waits for the others to seal; only a wedged worker exceeds it.
const SEAL_BARRIER_MAX: Duration = Duration::from_millis(200);
/// Maximum wait for handshakes: more than the round trip of clients on the other side of the world.
/// A handshake that takes longer has lost a packet or its client, and connections that are left
/// half-open on purpose must not hold the exit.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_millis(250);
/// Wait for handshakes that the kernel does not report: the round trip of clients on the same
/// continent.
const HANDSHAKE_WAIT_UNKNOWN: Duration = Duration::from_millis(50);
/// Pause before the first check. It is not zero, because a segment that passed the filter just
/// before the seal may still be on its way through the kernel, on another core.
const FIRST_CHECK_AFTER: Duration = Duration::from_millis(2);
/// The pause doubles with each check, up to this. A check has a cost, and a slow handshake can wait
/// a little longer.
const CHECK_INTERVAL_MAX: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Yes,
    NotYet,
}

/// The wait of one worker.
pub(super) struct HandshakeWait {
    clock: Arc<dyn Clock>,
    seal_barrier: Arc<SealBarrier>,
    timer: Pin<Box<dyn Sleep>>,
    stage: Stage,
}

enum Stage {
    /// Until all listeners are sealed, or the timer fires.
    WaitingForSeals,
    /// Until the timer fires for the next check.
    Checking { since: Moment, pause: Duration },
}

impl HandshakeWait {
    pub(super) fn new(clock: Arc<dyn Clock>, seal_barrier: Arc<SealBarrier>) -> Self {
        let timer = clock.sleep_until(clock.now() + SEAL_BARRIER_MAX);
        Self { clock, seal_barrier, timer, stage: Stage::WaitingForSeals }
    }

    /// Ready when the next check is due. Never ready if there is no wait.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing: the next one continues the wait.
    pub(super) async fn is_due(wait: Option<&mut Self>) {
        let Some(this) = wait else { return pending().await };
        if matches!(this.stage, Stage::WaitingForSeals) {
            tokio::select! {
                biased;
                () = this.seal_barrier.all.cancelled() => {}
                () = this.timer.as_mut() => {}
            }
            let since = this.clock.now();
            this.stage = Stage::Checking { since, pause: FIRST_CHECK_AFTER };
            this.timer.as_mut().reset(since + FIRST_CHECK_AFTER);
        }
        this.timer.as_mut().await;
    }

    /// Whether the wait is over, given the number of handshakes of each listener. If it is not,
    /// sets the timer for the next check.
    pub(super) fn check(
        &mut self,
        phase: Phase,
        handshakes: impl Iterator<Item = Option<usize>>,
    ) -> Done {
        let Stage::Checking { since, pause } = &mut self.stage else { return Done::NotYet };
        let now = self.clock.now();
        // The wait is part of the drain, and ends with it at the latest.
        if phase > Phase::Draining || now.since(*since) >= max_wait(handshakes) {
            return Done::Yes;
        }
        *pause = (*pause * 2).min(CHECK_INTERVAL_MAX);
        self.timer.as_mut().reset((now + *pause).min(*since + HANDSHAKE_WAIT_MAX));
        Done::NotYet
    }
}

/// Returns the maximum wait, counted from the seal. Listeners after the first one with a handshake
/// are not queried.
fn max_wait(handshakes: impl Iterator<Item = Option<usize>>) -> Duration {
    let mut max_wait = Duration::ZERO;
    for in_progress in handshakes {
        match in_progress {
            Some(0) => {}
            Some(_) => return HANDSHAKE_WAIT_MAX,
            None => max_wait = HANDSHAKE_WAIT_UNKNOWN,
        }
    }
    max_wait
}

#[cfg(test)]
mod tests {
    use super::{Duration, HANDSHAKE_WAIT_MAX, HANDSHAKE_WAIT_UNKNOWN, max_wait};

    #[test]
    fn without_a_handshake_in_progress_there_is_no_wait() {
        assert_eq!(max_wait([].into_iter()), Duration::ZERO);
        assert_eq!(max_wait([Some(0), Some(0)].into_iter()), Duration::ZERO);
    }

    #[test]
    fn a_known_handshake_outweighs_a_listener_without_a_count() {
        assert_eq!(max_wait([Some(0), None, Some(0)].into_iter()), HANDSHAKE_WAIT_UNKNOWN);
        assert_eq!(max_wait([None, Some(1)].into_iter()), HANDSHAKE_WAIT_MAX);
    }

    #[test]
    fn no_listener_is_queried_after_one_with_a_handshake() {
        let mut asked = 0;
        let metrics = [Some(0), Some(3), Some(0), None].into_iter().inspect(|_| asked += 1);
        assert_eq!(max_wait(metrics), HANDSHAKE_WAIT_MAX);
        assert_eq!(asked, 2);
    }
}
