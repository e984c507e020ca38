//! Between the seal of the listeners and their close: the wait for handshakes that were under way (P5a, P8).
//!
//! Newcomers are kept out by then. Whoever has begun a handshake may be connected in its own eyes and have its request on the
//! wire, while we cannot accept it yet. So the listener stays until none is under way, which is at once if nobody is
//! connecting and a round trip if somebody is.

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

/// Lets each worker know when all listeners of all workers are sealed: a queue is emptied only after that, since a client that
/// is kept out of one must not find its way into another that was emptied already.
#[derive(Debug)]
pub(crate) struct SealBarrier {
    open: AtomicUsize,
    all: CancellationToken,
}

impl SealBarrier {
    pub(crate) fn new(workers: usize) -> Self {
        Self { open: AtomicUsize::new(workers), all: CancellationToken::new() }
    }

    pub(crate) fn seal_one(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all.cancel();
        }
    }
}

/// How long a worker waits for the others to seal; only one that is wedged takes longer.
const SEAL_BARRIER_MAX: Duration = Duration::from_millis(200);
/// The longest that handshakes are waited for: more than the round trip of clients on the other side of the world. One that
/// takes longer has lost a packet or its client, and who opens half a connection on purpose must not hold us.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_millis(250);
/// How long they get where nobody can tell: the round trip of clients on the same continent.
const HANDSHAKE_WAIT_UNKNOWN: Duration = Duration::from_millis(50);
/// The pause before the first look. Not none: a segment that passed the filter just before the seal may still be on its way
/// through the kernel, on another core.
const FIRST_CHECK_AFTER: Duration = Duration::from_millis(2);
/// The pause doubles up to this. A look has its price, and who took long may take a little longer.
const CHECK_INTERVAL_MAX: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    Yes,
    NotYet,
}

/// A worker's wait.
pub(crate) struct HandshakeWait {
    clock: Arc<dyn Clock>,
    seal_barrier: Arc<SealBarrier>,
    timer: Pin<Box<dyn Sleep>>,
    stage: Stage,
}

enum Stage {
    /// Until all are sealed, or the timer rings.
    WaitingForSeals,
    /// The timer rings for a look.
    Checking { since: Moment, pause: Duration },
}

impl HandshakeWait {
    pub(crate) fn new(clock: Arc<dyn Clock>, seal_barrier: Arc<SealBarrier>) -> Self {
        let timer = clock.sleep_until(clock.now() + SEAL_BARRIER_MAX);
        Self { clock, seal_barrier, timer, stage: Stage::WaitingForSeals }
    }

    /// Ready when it is time for a look; never, if nothing is waited for.
    ///
    /// # Cancel safety
    /// Dropped early, it goes on where it was.
    pub(crate) async fn is_due(wait: Option<&mut Self>) {
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

    /// Whether it is over, by what each listener says of its handshakes. If not, the next look is arranged.
    pub(crate) fn check(
        &mut self,
        phase: Phase,
        handshakes: impl Iterator<Item = Option<usize>>,
    ) -> Done {
        let Stage::Checking { since, pause } = &mut self.stage else { return Done::NotYet };
        let now = self.clock.now();
        // It is part of the drain, and ends with it at the latest.
        if phase > Phase::Draining || now.since(*since) >= max_wait(handshakes) {
            return Done::Yes;
        }
        *pause = (*pause * 2).min(CHECK_INTERVAL_MAX);
        self.timer.as_mut().reset((now + *pause).min(*since + HANDSHAKE_WAIT_MAX));
        Done::NotYet
    }
}

/// How long it may last, counted from the seal. Listeners are asked no further than to the first with a handshake.
fn max_wait(handshakes: impl Iterator<Item = Option<usize>>) -> Duration {
    let mut max_wait = Duration::ZERO;
    for under_way in handshakes {
        match under_way {
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
    fn with_no_handshake_under_way_nothing_is_waited_for() {
        assert_eq!(max_wait([].into_iter()), Duration::ZERO);
        assert_eq!(max_wait([Some(0), Some(0)].into_iter()), Duration::ZERO);
    }

    #[test]
    fn a_handshake_that_is_known_of_outweighs_a_listener_that_cannot_tell() {
        assert_eq!(max_wait([Some(0), None, Some(0)].into_iter()), HANDSHAKE_WAIT_UNKNOWN);
        assert_eq!(max_wait([None, Some(1)].into_iter()), HANDSHAKE_WAIT_MAX);
    }

    #[test]
    fn no_listener_is_asked_once_a_handshake_is_known_of() {
        let mut asked = 0;
        let metrics = [Some(0), Some(3), Some(0), None].into_iter().inspect(|_| asked += 1);
        assert_eq!(max_wait(metrics), HANDSHAKE_WAIT_MAX);
        assert_eq!(asked, 2);
    }
}
