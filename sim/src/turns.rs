//! The order in which tasks of one instant run, drawn from a seed.
//!
//! The executor runs tasks in the order of their wake-ups, and every `select!` is biased. Races of
//! order would never show. So a task that is woken lets others run first, now and then. The tasks
//! that hyper and users' code spawn themselves are not reordered.

use crate::{network::Stalls, spins};
use lameduck::runtime::{BoxFuture, Seed};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
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
}

impl Turns {
    pub(crate) const fn new(
        job: BoxFuture,
        order: Option<Seed>,
        stalls: Option<(Arc<Stalls>, usize)>,
    ) -> Self {
        Self { job, order, polls: 0, left: None, stalls }
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
        spins::note_poll();
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
