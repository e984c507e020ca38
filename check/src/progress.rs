//! Progress: one line that is overwritten on a terminal, and nothing but the start elsewhere.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Counts the repetitions.
#[derive(Debug, Default)]
pub struct Progress {
    is_shown: AtomicBool,
    counts: Mutex<(usize, usize)>,
}

impl Progress {
    /// Shows nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::default()
    }

    /// Shows a line on standard error if that is a terminal.
    #[must_use]
    pub fn on_terminal() -> Self {
        let progress = Self::default();
        progress.is_shown.store(io::stderr().is_terminal(), Relaxed);
        progress
    }

    /// Sets the number of repetitions to come.
    pub fn begin(&self, total: usize) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = (0, total);
    }

    /// Counts a repetition that begins.
    pub fn next(&self, name: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0 += 1;
        if self.is_shown.load(Relaxed) {
            let _ = write!(io::stderr(), "\r\x1b[K{} of {}: {name}", counts.0, counts.1);
        }
    }

    /// Removes the line.
    pub fn end(&self) {
        if self.is_shown.load(Relaxed) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
