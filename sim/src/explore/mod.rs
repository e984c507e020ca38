//! Exploration: runs many scenarios on all cores, each drawn from a seed, and judges each by every
//! promise.
//!
//! ```text
//!  seeds ──▶ draw ──▶ play ──▶ judge ──▶ promises exercised, states reached ──▶ summary
//!              (one world a thread)  └──▶ a promise broken: shrink, write it down
//! ```
//! A [`Runner`] runs each scenario in some world, with some app. At regular intervals a seed is run
//! again on a fresh thread; both traces must be equal (P17). Real time serves only to measure the
//! speed.

mod examine;
mod sometimes;
mod summary;
mod surface;

pub use examine::{Examined, Found, Network, Runner, examine, examine_by, play_on, quiet_panics};
pub(crate) use examine::{call, current_trace, enter_thread, exploring, set_current_trace};
pub use sometimes::{Sometimes, sometimes};
pub use summary::{REACHES_ALL, Summary};
pub use surface::{SURFACE, Seen};

use crate::{
    draw::draw,
    oracle::{ORACLES, Oracle},
    scenario::Scenario,
};
use std::{
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Default of [`Exploration::replay_every`].
const REPLAY_EVERY: Option<u64> = Some(50);
/// Default of [`Exploration::found_max`].
const FOUND_MAX: usize = 5;

/// Settings of an exploration.
pub struct Exploration<'a> {
    /// Runs one scenario.
    pub play: &'a Runner,
    /// Draws the scenario of a seed.
    pub draw: &'a (dyn Fn(u64) -> Scenario + Sync),
    /// Seeds, in this order.
    pub seeds: Range<u64>,
    /// Oracles that judge each run.
    pub judges: &'static [Oracle],
    /// One in this many seeds is run twice (P17).
    pub replay_every: Option<u64>,
    /// The exploration ends after this many failing scenarios.
    pub found_max: usize,
    /// Number of threads; each runs one world at a time.
    pub threads: usize,
    /// Ends the exploration before the next scenario once it is set.
    pub stop: &'a AtomicBool,
    /// Called after each scenario.
    pub on_progress: &'a (dyn Fn() + Sync),
}

impl std::fmt::Debug for Exploration<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exploration")
            .field("seeds", &self.seeds)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl<'a> Exploration<'a> {
    /// Explores all of `seeds` on all cores, with the default generator and oracles.
    pub fn new(play: &'a Runner, seeds: Range<u64>, stop: &'a AtomicBool) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self {
            play,
            draw: &draw,
            seeds,
            judges: ORACLES,
            replay_every: REPLAY_EVERY,
            found_max: FOUND_MAX,
            threads,
            stop,
            on_progress: &|| {},
        }
    }

    /// Explores until all seeds are done, `found_max` failures are found, or `stop` is set.
    #[must_use]
    pub fn run(&self) -> Summary {
        quiet_panics();
        let next = AtomicU64::new(self.seeds.start);
        let whole = Mutex::new(Summary::new());
        thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    while let Some(seed) = self.take(&next, &whole) {
                        let (scenario, examined) = self.examine(seed);
                        let mut whole = whole.lock().unwrap_or_else(PoisonError::into_inner);
                        whole.add(seed, scenario, examined);
                        drop(whole);
                        (self.on_progress)();
                    }
                });
            }
        });
        let mut whole = whole.into_inner().unwrap_or_else(PoisonError::into_inner);
        whole.found.sort_by_key(|found| found.seed);
        whole
    }

    fn take(&self, next: &AtomicU64, whole: &Mutex<Summary>) -> Option<u64> {
        if self.stop.load(Ordering::Relaxed) {
            return None;
        }
        if whole.lock().unwrap_or_else(PoisonError::into_inner).found.len() >= self.found_max {
            return None;
        }
        let seed = next.fetch_add(1, Ordering::Relaxed);
        self.seeds.contains(&seed).then_some(seed)
    }

    fn examine(&self, seed: u64) -> (Scenario, Examined) {
        let scenario = (self.draw)(seed);
        let mut examined = examine_by(self.judges, self.play, &scenario);
        let replays = self.replay_every.is_some_and(|every| seed.is_multiple_of(every));
        if replays && examined.broken.is_empty() {
            let again = thread::scope(|scope| {
                scope.spawn(|| examine_by(self.judges, self.play, &scenario)).join()
            });
            examined.hold_against(again.ok().map_or(0, |again| again.hash));
        }
        (scenario, examined)
    }
}

/// Returns the rate of `count` scenarios in `span`, per second.
#[must_use]
pub fn per_second(count: u64, span: Duration) -> f64 {
    let seconds = span.as_secs_f64();
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
