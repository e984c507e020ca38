//! The thread that ends the process when its shutdown exceeds the bound (P7).
//!
//! It shares nothing with the rest of the process: no runtime, no log, and no lock that is held for
//! longer than a store. It starts before it is needed, because a process that is short of threads
//! is one that needs it. It cannot be disarmed: either the process ends before its bound, or the
//! watchdog ends it.

use super::{signals::block_signals, stdio::write_stderr_line};
use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Exit code of a process that its watchdog ended (P13).
pub const WATCHDOG_EXIT_CODE: u8 = 5;

/// Handle to the watchdog's thread. Dropping it leaves the thread as it is, armed or not.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    shared: Arc<Shared>,
    is_started: Mutex<bool>,
}

#[derive(Debug, Default)]
struct Shared {
    ends_at: Mutex<Option<Instant>>,
    armed: Condvar,
}

impl Watchdog {
    /// Starts the thread, which waits to be armed; nothing, if it runs.
    pub(super) fn start(&self) -> io::Result<()> {
        let mut is_started = self.is_started.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_started {
            return Ok(());
        }
        let watched = self.shared.clone();
        thread::Builder::new().name("lameduck-watchd".into()).stack_size(64 * 1024).spawn(
            move || {
                block_signals();
                watched.wait();
                write_stderr_line(
                    "watchdog: the shutdown exceeded its bound; exiting at once with code 5",
                );
                // Not `std::process::exit`: it runs exit handlers and flushes standard output, and
                // waits for ever if another thread is stuck in doing so.
                signal_hook::low_level::exit(i32::from(WATCHDOG_EXIT_CODE))
            },
        )?;
        *is_started = true;
        Ok(())
    }

    /// Ends the process after `remaining`, if there is a thread for that. If armed again, the
    /// earlier end counts (P1: a deadline never moves later).
    pub(super) fn arm(&self, remaining: Duration) {
        let Some(end) = real_now().checked_add(remaining) else { return };
        // Already started, unless nothing else was: then no caller can get the error.
        let _ = self.start();
        let mut ends_at = self.shared.lock();
        *ends_at = Some(ends_at.map_or(end, |earlier| earlier.min(end)));
        self.shared.armed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.ends_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the armed end is reached.
    fn wait(&self) {
        let mut ends_at = self.lock();
        loop {
            ends_at = match *ends_at {
                None => self.armed.wait(ends_at).unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let remaining = end.saturating_duration_since(real_now());
                    if remaining.is_zero() {
                        return;
                    }
                    self.armed
                        .wait_timeout(ends_at, remaining)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the bound holds in real time, whatever the injected clock believes"
)]
fn real_now() -> Instant {
    Instant::now()
}
