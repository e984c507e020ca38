//! Workers that do not run for a while, as if something blocked their threads.
//!
//! A stalled worker runs neither its loop nor its connections: their reads, writes and accepts are
//! pending until the stall ends. Handlers continue, since they are users' code.

use crate::trace::Trace;
use std::{
    sync::{Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

/// The stalls of one host.
#[derive(Debug)]
pub struct Stalls {
    trace: Trace,
    /// Worker, from, until, in the world's time.
    spans: Vec<(usize, Duration, Duration)>,
    waiting: Mutex<Vec<Waker>>,
}

impl Stalls {
    /// Creates the stalls: for each, the worker, its begin and its end in the world's time.
    #[must_use]
    pub fn new(trace: Trace, mut spans: Vec<(usize, Duration, Duration)>) -> Self {
        spans.sort_unstable_by_key(|(_, _, until)| *until);
        Self { trace, spans, waiting: Mutex::default() }
    }

    /// Whether a worker is stalled now.
    pub(super) fn are_on(&self, worker: usize) -> bool {
        if self.spans.is_empty() {
            return false;
        }
        let now = self.trace.now().unwrap_or_default();
        let is_it = |(stalled, from, until): &(usize, Duration, Duration)| {
            *stalled == worker && *from <= now && now < *until
        };
        self.spans.iter().any(is_it)
    }

    /// Whether a worker is stalled now. If it is, the task is woken at the end.
    pub fn is_stalled(&self, worker: usize, cx: &Context<'_>) -> bool {
        let stalled = self.are_on(worker);
        if stalled {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
        }
        stalled
    }

    /// Pending while a worker is stalled.
    pub(super) fn poll_runs(&self, worker: usize, cx: &Context<'_>) -> Poll<()> {
        if self.is_stalled(worker, cx) { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Wakes what waits, at the end of each stall. Never returns.
    pub async fn run(&self) {
        let mut now = Duration::ZERO;
        for (_, _, until) in &self.spans {
            crate::client::pause(until.saturating_sub(now)).await;
            now = *until;
            let waiting =
                std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_iter().for_each(Waker::wake);
        }
        std::future::pending::<()>().await;
    }
}
