//! Counters and gauges as relaxed atomics: each value is exact, but two values need not be of the
//! same instant.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The number of threads that run the tasks of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerThreads {
    /// One thread at a time: no other thread adds to the worker's counters in the meantime.
    One,
    Several,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Adds to a counter that only one worker adds to. `threads` is the number of threads that run
    /// that worker's tasks.
    pub(super) fn add(&self, more: u64, threads: WorkerThreads) {
        match threads {
            // No other thread writes between the load and the store.
            WorkerThreads::One => self.0.store(self.get().wrapping_add(more), Relaxed),
            WorkerThreads::Several => drop(self.0.fetch_add(more, Relaxed)),
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The requests of one worker, by outcome (P5c).
#[derive(Debug, Default)]
pub(crate) struct RequestCounters {
    pub(crate) started: Counter,
    pub(crate) finished: Counter,
    pub(crate) timed_out: Counter,
    pub(crate) aborted: Counter,
    pub(crate) gone: Counter,
    pub(crate) panicked: Counter,
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    pub(super) fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn subtract_one(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}
