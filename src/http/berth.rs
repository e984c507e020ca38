//! A connection's place in its worker's table: how to wake it, and when at the latest.

use crate::{env::Address, lifecycle::Moment};
use atomic_waker::AtomicWaker;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};

/// Shared by a connection and its worker's sweep. The sweep is the connection's only timer.
#[derive(Debug)]
pub(crate) struct Berth {
    pub(crate) accepted: Moment,
    pub(crate) peer: Address,
    pub(crate) local: Arc<Address>,
    waker: AtomicWaker,
    wake_at: AtomicU64,
    left: AtomicBool,
}

impl Berth {
    pub(crate) fn new(accepted: Moment, peer: Address, local: Arc<Address>) -> Self {
        Self {
            accepted,
            peer,
            local,
            waker: AtomicWaker::new(),
            wake_at: AtomicU64::new(Moment::NEVER.as_nanos()),
            left: AtomicBool::new(false),
        }
    }

    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// Asks the sweep to wake the connection at its first round from `at` on.
    pub(crate) fn wake_at(&self, at: Moment) {
        self.wake_at.store(at.as_nanos(), Relaxed);
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    pub(crate) fn wake_if_due(&self, now: Moment) {
        if self.wake_at.load(Relaxed) <= now.as_nanos() {
            self.wake_at.store(Moment::NEVER.as_nanos(), Relaxed);
            self.waker.wake();
        }
    }

    pub(crate) fn leave(&self) {
        self.left.store(true, Relaxed);
    }

    pub(crate) fn has_left(&self) -> bool {
        self.left.load(Relaxed)
    }
}
