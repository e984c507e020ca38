//! The promises, as judges: pure functions over a scenario and what came of it, one a promise.
//!
//! They know nothing of the host's insides: they read the trace, the report among it. Safety is judged throughout; what
//! depends on a network that delivers is judged only where the scenario has no fault. A bound of the host is held against the
//! host's own clock. What a judge cannot tell from outside it lets pass: a false alarm costs more trust than a miss.

mod accounting;
mod announcements;
mod lifecycle;
mod probes;
mod requests;
mod run_history;
mod shutdown;
mod timing;

pub use run_history::{ErrorKind, ObservedRequest, RequestResult, RunHistory};

use crate::scenario::{Outcome, Scenario};
use std::fmt;

/// What a judge says of one run.
pub type Judgement = Result<Exercise, String>;

/// Whether a run put a promise to the test at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exercise {
    /// It did, and the promise held.
    Yes,
    /// Nothing happened that it speaks of.
    No,
}

impl Exercise {
    const fn of(count: usize) -> Self {
        if count > 0 { Self::Yes } else { Self::No }
    }
}

/// One promise and its judge.
#[derive(Clone, Copy)]
pub struct Oracle {
    /// Its number.
    pub promise: &'static str,
    /// Its words.
    pub words: &'static str,
    judge: fn(&RunHistory<'_>) -> Judgement,
}

impl Oracle {
    pub(crate) const fn new(
        promise: &'static str,
        words: &'static str,
        judge: fn(&RunHistory<'_>) -> Judgement,
    ) -> Self {
        Self { promise, words, judge }
    }

    /// What it says of a story.
    ///
    /// # Errors
    /// What happened instead of what was promised.
    pub fn judge(&self, history: &RunHistory<'_>) -> Judgement {
        (self.judge)(history)
    }
}

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oracle").field("promise", &self.promise).finish_non_exhaustive()
    }
}

/// All judges, in the order of the promises.
pub const ORACLES: &[Oracle] = &[
    Oracle { promise: "P1", words: "forward only", judge: lifecycle::forward_only },
    Oracle { promise: "P2", words: "ready means ready", judge: probes::ready_means_ready },
    Oracle {
        promise: "P2b",
        words: "serving means responding",
        judge: probes::serving_means_responding,
    },
    Oracle { promise: "P3", words: "alive to the last", judge: probes::alive_to_the_last },
    Oracle { promise: "P4", words: "a lame duck serves", judge: lifecycle::a_lame_duck_serves },
    Oracle { promise: "P5", words: "one fate per request", judge: requests::one_fate_per_request },
    Oracle {
        promise: "P6",
        words: "no straggler holds the exit",
        judge: shutdown::no_straggler_holds_the_exit,
    },
    Oracle { promise: "P7", words: "bounded", judge: shutdown::bounded },
    Oracle { promise: "P8", words: "prompt", judge: shutdown::prompt },
    Oracle {
        promise: "P9",
        words: "a deadline per request",
        judge: requests::a_deadline_per_request,
    },
    Oracle {
        promise: "P10",
        words: "cancel after drain, clean up after cancel",
        judge: requests::cancel_after_drain,
    },
    Oracle { promise: "P11", words: "hooks in pairs", judge: shutdown::hooks_in_pairs },
    Oracle { promise: "P12", words: "impatience is heard", judge: lifecycle::impatience_is_heard },
    Oracle {
        promise: "P13",
        words: "the exit tells the truth",
        judge: shutdown::the_exit_tells_the_truth,
    },
];

/// Of these, what can be judged without knowing the app, its hooks and its checks.
pub(crate) const HOST_ORACLES: [Oracle; 5] =
    [ORACLES[0], ORACLES[3], ORACLES[4], ORACLES[5], ORACLES[7]];

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number.
    pub promise: &'static str,
    /// Its words.
    pub words: &'static str,
    /// What happened instead.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) is broken: {}", self.promise, self.words, self.why)
    }
}

/// Every promise and what its judge says.
#[must_use]
pub fn judge(scenario: &Scenario, outcome: &Outcome) -> Vec<(&'static Oracle, Judgement)> {
    let history = RunHistory::read(scenario, outcome);
    ORACLES.iter().map(|oracle| (oracle, (oracle.judge)(&history))).collect()
}

/// The promises that did not hold.
#[must_use]
pub fn broken(scenario: &Scenario, outcome: &Outcome) -> Vec<Broken> {
    let judged = judge(scenario, outcome).into_iter();
    judged
        .filter_map(|(oracle, judgement)| {
            judgement.err().map(|why| Broken { promise: oracle.promise, words: oracle.words, why })
        })
        .collect()
}
