//! The wait for handshakes in progress, between the seal of the listeners and their close (P5a,
//! P8).
//!
//! A sealed listener keeps new connections out. But a client whose handshake is in progress may
//! already be connected from its own point of view, and may have sent its request, while the server
//! cannot accept it yet. So the listener stays open until no handshake is in progress. Without one
//! that is at once, otherwise after a round trip.
//!
//! A blocked worker does not seal its listeners. The others then keep theirs, sealed, and accept
//! what these still get, until that worker runs again or the drain ends.

use crate::{
    lifecycle::{Moment, Phase},
    runtime::{Clock, Sleep},
};
use std::{
    future::pending,
    mem,
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
}

/// The part of one worker in the barrier. Dropping it counts as a seal: drop the listeners first.
#[derive(Debug)]
pub(super) struct WorkerSeal {
    barrier: Arc<SealBarrier>,
    is_sealed: bool,
}

impl WorkerSeal {
    pub(super) const fn new(barrier: Arc<SealBarrier>) -> Self {
        Self { barrier, is_sealed: false }
    }

    /// Records that all listeners of this worker are sealed.
    pub(super) fn set(&mut self) {
        let was_sealed = mem::replace(&mut self.is_sealed, true);
        if !was_sealed && self.barrier.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.barrier.all.cancel();
        }
    }
}

impl Drop for WorkerSeal {
    fn drop(&mut self) {
        self.set();
    }
}

/// Maximum time that a worker with a shared port waits for the others to seal; only a blocked
/// worker exceeds it. Until the port is closed, a successor's new clients may be kept out, too.
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
    /// Until all listeners are sealed. A blocked worker has one that is not, to which the kernel
    /// sends the new connections of all ports that are closed meanwhile.
    WaitingForSeals { is_port_shared: bool },
    /// Until the timer fires for the next check.
    Checking { since: Moment, pause: Duration },
}

impl HandshakeWait {
    /// Waits until all listeners are sealed, if other processes listen on the port for at most
    /// [`SEAL_BARRIER_MAX`], then for handshakes.
    pub(super) fn new(clock: Arc<dyn Clock>, seal: &WorkerSeal, is_port_shared: bool) -> Self {
        let timer = clock.sleep_until(clock.now() + SEAL_BARRIER_MAX);
        let stage = Stage::WaitingForSeals { is_port_shared };
        Self { clock, seal_barrier: seal.barrier.clone(), timer, stage }
    }

    /// Ready when the next check is due. Never ready if there is no wait.
    ///
    /// # Cancel safety
    /// A dropped call loses nothing: the next one continues the wait.
    pub(super) async fn is_due(wait: Option<&mut Self>) {
        let Some(this) = wait else { return pending().await };
        if let Stage::WaitingForSeals { is_port_shared } = this.stage {
            tokio::select! {
                biased;
                () = this.seal_barrier.all.cancelled() => {}
                () = this.timer.as_mut(), if is_port_shared => {}
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
        // The wait is part of the drain, and ends with it at the latest.
        if phase > Phase::Draining {
            return Done::Yes;
        }
        let Stage::Checking { since, pause } = &mut self.stage else { return Done::NotYet };
        let now = self.clock.now();
        if now.since(*since) >= max_wait(handshakes) {
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
    use super::{
        Done, Duration, FIRST_CHECK_AFTER, HANDSHAKE_WAIT_MAX, HANDSHAKE_WAIT_UNKNOWN,
        HandshakeWait, SealBarrier, Stage, WorkerSeal, max_wait,
    };
    use crate::{
        http::connection::polls::clock::ManualClock, lifecycle::Phase, runtime::Clock as _,
    };
    use std::sync::Arc;

    // The wait is a part of the drain, whatever it waits for: a stop that is cut short does not go
    // on accepting (P8, P12).
    #[tokio::test]
    async fn the_wait_ends_with_the_drain() {
        let seal_of_one = WorkerSeal::new(Arc::new(SealBarrier::new(2)));
        let clock = Arc::new(ManualClock::new());
        for is_sealed in [false, true] {
            let mut wait = HandshakeWait::new(clock.clone(), &seal_of_one, false);
            if is_sealed {
                wait.stage = Stage::Checking { since: clock.now(), pause: FIRST_CHECK_AFTER };
            }
            assert_eq!(wait.check(Phase::Draining, [Some(1)].into_iter()), Done::NotYet);
            assert_eq!(wait.check(Phase::Cancelling, [Some(1)].into_iter()), Done::Yes);
        }
    }

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
