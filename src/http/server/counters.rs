//! Counters and gauges. They are relaxed atomics: each value is exact, two values need not be of the same instant.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// How many threads run the tasks of one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerThreads {
    /// One at a time: no other thread adds to the worker's own counts meanwhile.
    One,
    Several,
}

/// One number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// Adds to what only a worker adds to, whose tasks run on so many threads.
    pub(crate) fn add(&self, more: u64, threads: WorkerThreads) {
        match threads {
            // Nobody comes in between.
            WorkerThreads::One => self.0.store(self.get().wrapping_add(more), Relaxed),
            WorkerThreads::Several => drop(self.0.fetch_add(more, Relaxed)),
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// The requests of one worker, as P5 counts them.
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
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn take_one(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}
