//! The order in which tasks of one instant run, drawn from a seed.
//!
//! The executor runs tasks in the order of their wake-ups, and every `select!` is biased. Races of
//! order would never show. So a task that is woken lets others run first, now and then. The tasks
//! that hyper and users' code spawn themselves are not reordered.

use crate::{network::Stalls, trace::Trace};
use lameduck::runtime::{BoxFuture, Seed};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// One wake-up in this many lets others run first.
const LATE_ONE_IN: u64 = 4;
/// Most turns of the scheduler that a task lets pass.
const TURNS_MAX: u64 = 3;

/// A task whose turns are delayed.
pub(crate) struct Turns {
    job: BoxFuture,
    order: Option<Seed>,
    polls: u64,
    /// Turns to let pass; `None` if none was drawn for this wake-up.
    left: Option<u64>,
    stalls: Option<(Arc<Stalls>, usize)>,
    spins: Spins,
}

/// Detects what is polled without end in one instant, in which case the world's time would not
/// advance.
#[derive(Debug)]
pub(crate) struct Spins {
    trace: Trace,
    actor: String,
    checked: Duration,
    polls: u32,
    has_spun: bool,
}

/// More polls in one instant than anything needs.
const POLLS_AN_INSTANT: u32 = 20_000;

impl Spins {
    pub(crate) const fn new(trace: Trace, actor: String) -> Self {
        Self { trace, actor, checked: Duration::MAX, polls: 0, has_spun: false }
    }

    /// Counts a poll. Returns true if there must be no more, which is recorded once.
    pub(crate) fn is_spinning(&mut self) -> bool {
        self.polls += 1;
        if self.polls < POLLS_AN_INSTANT || self.has_spun {
            return self.has_spun;
        }
        self.polls = 0;
        let now = self.trace.now().unwrap_or_default();
        self.has_spun = now == self.checked;
        self.checked = now;
        if self.has_spun {
            self.trace.record(&self.actor, "spins", &[]);
        }
        self.has_spun
    }
}

impl Turns {
    pub(crate) const fn new(
        job: BoxFuture,
        order: Option<Seed>,
        stalls: Option<(Arc<Stalls>, usize)>,
        spins: Spins,
    ) -> Self {
        Self { job, order, polls: 0, left: None, stalls, spins }
    }

    /// Draws the number of turns to let pass.
    const fn draw(&mut self, order: Seed) -> u64 {
        self.polls += 1;
        let drawn = order.nth(self.polls) >> 8;
        if drawn.is_multiple_of(LATE_ONE_IN) { 1 + drawn / LATE_ONE_IN % TURNS_MAX } else { 0 }
    }
}

impl Future for Turns {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.spins.is_spinning() {
            return Poll::Pending;
        }
        if self.stalls.as_ref().is_some_and(|(stalls, worker)| stalls.is_stalled(*worker, cx)) {
            return Poll::Pending;
        }
        if let Some(order) = self.order {
            let left = match self.left {
                Some(left) => left,
                None => self.draw(order),
            };
            if left > 0 {
                self.left = Some(left - 1);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.left = None;
        }
        self.job.as_mut().poll(cx)
    }
}
