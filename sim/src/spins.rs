//! Ends a world in which something is polled without end in one instant, so that the world's time
//! would never advance.
//!
//! Counted are the polls of the tasks that the spawner is given, the reads and writes of the main
//! server, and the reads of a host's clock. A world runs on one thread, which counts for it.

use std::cell::RefCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// More polls in one instant than anything needs.
const POLLS_AN_INSTANT: u32 = 50_000;

#[derive(Default)]
struct Spins {
    polls: u32,
    /// When that many polls had been counted before.
    checked: Option<Instant>,
    found: CancellationToken,
}

thread_local! {
    static SPINS: RefCell<Spins> = RefCell::default();
}

/// Returns a token that is cancelled when something is polled without end on this thread.
pub(crate) fn found() -> CancellationToken {
    SPINS.with_borrow_mut(|spins| {
        if spins.found.is_cancelled() {
            *spins = Spins::default();
        }
        spins.found.clone()
    })
}

/// Returns what is to be said of it.
pub(crate) fn message(process: &str) -> String {
    format!(
        "P15: {process} polls something without end, more than {POLLS_AN_INSTANT} times at once"
    )
}

/// Counts a poll.
///
/// # Panics
/// In a loop that never returns to the scheduler, which could not end the world.
pub(crate) fn note_poll() {
    let spins = SPINS.with_borrow_mut(|spins| {
        spins.polls += 1;
        spins.polls >= POLLS_AN_INSTANT && spins.check()
    });
    assert!(!spins, "{}", message("a task"));
}

impl Spins {
    /// Whether the loop continues although it was found.
    fn check(&mut self) -> bool {
        let (was_found, now) = (self.found.is_cancelled(), Instant::now());
        self.polls = 0;
        if self.checked.replace(now) == Some(now) {
            self.found.cancel();
        }
        was_found
    }
}
