//! Limits on log lines.

use crate::lifecycle::Moment;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Limits log lines that clients can cause to one per second.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<LogLimitState>);

/// When the next line may be logged, and how many were not logged since the last one.
#[derive(Debug, Default)]
struct LogLimitState {
    next: Moment,
    left_out: u64,
}

impl LogLimit {
    /// Returns the number of lines that were left out since the last one; `None` if this one is
    /// left out, too.
    pub(super) fn admit(&self, now: Moment) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if now < state.next {
            state.left_out += 1;
            return None;
        }
        state.next = now + Duration::from_secs(1);
        Some(std::mem::take(&mut state.left_out))
    }
}
