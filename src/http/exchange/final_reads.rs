//! The last reads before a time limit takes effect (P5b).

use crate::{http::server::limits::HEAD_GRACE, lifecycle::Moment};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// The runtime asks the kernel what can be read after at most 61 polls of tasks. Time alone proves
/// nothing: the thread may have been blocked between two polls.
const POLLS_MIN: u8 = 64;

/// How long input in which no request was found may delay a time limit. It may be a request that
/// the runtime has not reported yet. It may also be empty lines, or records of TLS without data,
/// which a client can send for ever.
#[derive(Debug, Default)]
pub(crate) struct FinalReads {
    /// In nanoseconds since the clock's epoch.
    until: AtomicU64,
    polls: AtomicU8,
}

impl FinalReads {
    /// The next delay is the first one.
    pub(crate) fn reset(&self) {
        self.polls.store(0, Relaxed);
    }

    /// Counts a poll in which no time limit was over, once there was a delay. A second after the
    /// end of that one, the next is the first again.
    pub(crate) fn note_poll(&self, now: Moment) {
        let polls = self.polls.load(Relaxed);
        if polls > 0 {
            let is_over = now > Moment::from_nanos(self.until.load(Relaxed)) + HEAD_GRACE;
            self.polls.store(if is_over { 0 } else { polls.saturating_add(1) }, Relaxed);
        }
    }

    /// Whether the input delays the time limit once more. It does for [`HEAD_GRACE`], and for some
    /// polls at least.
    pub(crate) fn may_delay(&self, now: Moment) -> bool {
        let polls = self.polls.load(Relaxed);
        if polls == 0 {
            self.until.store((now + HEAD_GRACE).as_nanos(), Relaxed);
        }
        self.polls.store(polls.saturating_add(1), Relaxed);
        polls < POLLS_MIN || now < Moment::from_nanos(self.until.load(Relaxed))
    }

    /// Whether the input delays the close of a connection whose place another needs at once: for
    /// the polls alone.
    pub(crate) fn may_delay_room(&self, now: Moment) -> bool {
        self.may_delay(now) && self.polls.load(Relaxed) <= POLLS_MIN
    }
}
