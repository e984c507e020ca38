//! How much of a response HTTP/2 has written.
//!
//! The chunks of the response update it: see [`tracked_chunk`](super::tracked_chunk).

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
};

/// Counts the bytes of one response that h2 takes, writes and discards.
#[derive(Debug, Default)]
pub(crate) struct ResponseProgress {
    /// Bytes of the response that h2 has taken.
    taken: AtomicU64,
    /// Bytes of these that h2 no longer holds, because it has written or discarded them.
    passed: AtomicU64,
    /// h2 has discarded bytes of the response.
    discarded: AtomicBool,
    /// The last chunk of the response carries the end of its HTTP/2 stream.
    ends_with_chunk: AtomicBool,
    /// The response body waits until h2 has written all that it took.
    is_awaited: AtomicBool,
    /// Wakes the response body from that wait.
    on_written: Mutex<Option<Waker>>,
}

/// How much of a response was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Complete,
    Pending,
    /// The stream was reset.
    Incomplete,
}

impl ResponseProgress {
    /// Begins the next response. No chunk of the last one exists.
    pub(super) fn begin(&mut self) {
        *self.taken.get_mut() = 0;
        *self.passed.get_mut() = 0;
        *self.discarded.get_mut() = false;
        *self.ends_with_chunk.get_mut() = false;
        *self.is_awaited.get_mut() = false;
    }

    pub(super) fn on_buffered(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn on_written(&self, bytes: usize) {
        self.passed.fetch_add(bytes as u64, SeqCst);
        if self.is_awaited.load(SeqCst) {
            self.wake_if_written();
        }
    }

    pub(super) fn on_discarded(&self, bytes: usize) {
        self.discarded.store(true, Relaxed);
        self.passed.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn record_last_chunk(&self) {
        self.ends_with_chunk.store(true, Relaxed);
    }

    pub(super) fn ends_with_chunk(&self) -> bool {
        self.ends_with_chunk.load(Relaxed)
    }

    /// Bytes of the response that h2 holds and has not written.
    pub(crate) fn unwritten(&self) -> u64 {
        let passed = self.passed();
        self.taken.load(Relaxed).saturating_sub(passed)
    }

    /// Bytes of the response that h2 took and no longer holds.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Relaxed)
    }

    /// Ready once h2 has written all that it took.
    pub(super) fn poll_written(&self, cx: &Context<'_>) -> Poll<()> {
        *self.on_written.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.is_awaited.store(true, SeqCst);
        if self.taken.load(SeqCst) > self.passed.load(SeqCst) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    #[cold]
    fn wake_if_written(&self) {
        if self.unwritten() == 0
            && let Some(waker) =
                self.on_written.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            waker.wake();
        }
    }

    /// Returns how much of a response was written whose body has ended.
    pub(super) fn written_part(&self) -> Written {
        if self.discarded.load(Relaxed) {
            Written::Incomplete
        } else if self.unwritten() > 0 {
            Written::Pending
        } else {
            Written::Complete
        }
    }
}
