//! Oracles, one or several for most promises: pure functions over a scenario and its outcome.
//!
//! The oracles know nothing of the host's internals. They read only the scenario and the trace,
//! which includes the report. Safety is always judged. What depends on a network that delivers is
//! judged only in scenarios without such faults. Time limits of the host are measured by the host's
//! own clock.
//!
//! An oracle accepts a run if it cannot decide from outside: a false alarm costs more trust than a
//! missed bug.

mod accounting;
mod announcements;
mod blocked;
mod books;
mod calls;
mod cancellation;
mod checks;
mod client_times;
mod closes;
mod exit_code;
mod failure_lines;
mod gauges;
mod half_close;
mod handler_closes;
mod handler_times;
mod handshakes;
mod head_requests;
mod headers;
mod heads;
mod hooks;
mod lifecycle;
mod log_lines;
mod metrics;
mod observed_request;
mod open_connections;
mod outcomes;
mod outstanding;
mod pong_waits;
mod probes;
mod reloads;
mod request_deadline;
mod requests;
mod run_history;
mod sealing;
mod serving;
mod shutdown;
mod status;
mod stragglers;
mod streams;
mod tls;

pub(crate) use observed_request::{ENDS_CALL, RESPONDS};
pub use observed_request::{ErrorKind, ObservedRequest, RequestResult};
pub(crate) use run_history::REFUSED;
pub use run_history::RunHistory;

use crate::scenario::{Outcome, Scenario};
use std::fmt;

/// Verdict of an oracle on one run: the error says what happened instead of what was promised.
pub type Judgement = Result<Exercise, String>;

/// Whether a run exercised a promise at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exercise {
    /// The promise was exercised, and held.
    Yes,
    /// Nothing happened that the promise is about.
    No,
}

impl Exercise {
    const fn of(count: usize) -> Self {
        if count > 0 { Self::Yes } else { Self::No }
    }
}

/// A promise and the function that judges it.
#[derive(Clone, Copy)]
pub struct Oracle {
    /// Number of the promise.
    pub promise: &'static str,
    /// Short name of the promise.
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

    /// Judges one run.
    ///
    /// # Errors
    /// Says what happened instead of what was promised.
    pub fn judge(&self, history: &RunHistory<'_>) -> Judgement {
        (self.judge)(history)
    }
}

impl fmt::Debug for Oracle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Oracle").field("promise", &self.promise).finish_non_exhaustive()
    }
}

/// All oracles, in the order of the promises.
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
    Oracle {
        promise: "P5",
        words: "one outcome per request",
        judge: requests::one_outcome_per_request,
    },
    Oracle {
        promise: "P6",
        words: "no straggler holds the exit",
        judge: stragglers::no_straggler_holds_the_exit,
    },
    Oracle { promise: "P7", words: "bounded", judge: shutdown::bounded },
    Oracle { promise: "P8", words: "prompt", judge: shutdown::prompt },
    Oracle {
        promise: "P9",
        words: "a deadline per request",
        judge: request_deadline::a_deadline_per_request,
    },
    Oracle {
        promise: "P10",
        words: "cancel after drain, clean up after cancel",
        judge: cancellation::cancel_after_drain,
    },
    Oracle { promise: "P11", words: "hooks in pairs", judge: hooks::hooks_in_pairs },
    Oracle {
        promise: "P12",
        words: "a second interrupt ends the current wait",
        judge: lifecycle::an_interrupt_ends_the_wait,
    },
    Oracle {
        promise: "P13",
        words: "exit code and report are accurate",
        judge: exit_code::the_exit_code_is_accurate,
    },
    Oracle { promise: "P15", words: "contained", judge: serving::contained },
    Oracle { promise: "P16", words: "separate", judge: probes::probes_have_a_response },
    Oracle { promise: "P5d", words: "an end over TLS shows a cut", judge: tls::ends_show_cuts },
    Oracle {
        promise: "P5b",
        words: "a response that announces the close is the last, and is not lost",
        judge: handler_closes::handlers_may_close,
    },
    Oracle {
        promise: "P5d",
        words: "a response to HEAD has no content, and the length of one to GET",
        judge: head_requests::heads_have_no_content,
    },
    Oracle {
        promise: "P5d",
        words: "the status of a gRPC call is the one of its end",
        judge: calls::statuses_are_true,
    },
    Oracle {
        promise: "P15",
        words: "a PROXY header is read, and only where it is due",
        judge: headers::headers_are_read,
    },
    Oracle {
        promise: "P6",
        words: "a head has one time limit, from its first byte to its last",
        judge: heads::heads_have_one_time,
    },
    Oracle {
        promise: "P6",
        words: "a preface of HTTP/2 has one time limit, from its first byte to its last",
        judge: heads::prefaces_have_one_time,
    },
    Oracle {
        promise: "P15",
        words: "a head has a limited number of fields and bytes",
        judge: heads::heads_are_limited,
    },
    Oracle {
        promise: "P6",
        words: "a handler learns that its client has shut its side",
        judge: half_close::half_closes_are_noticed,
    },
    Oracle {
        promise: "P10",
        words: "an upgraded connection is told to end",
        judge: streams::conversations_are_told,
    },
    Oracle {
        promise: "P7",
        words: "long streams have a budget, and only they",
        judge: streams::streams_have_a_budget,
    },
    Oracle { promise: "P13", words: "the status page is true", judge: status::pages_are_true },
    Oracle {
        promise: "P13",
        words: "the metrics count what the report counts",
        judge: metrics::scrapes_agree,
    },
    Oracle {
        promise: "P13",
        words: "the gauges of the metrics show the state of one moment",
        judge: gauges::gauges_are_true,
    },
    Oracle {
        promise: "P13",
        words: "the log says what a shutdown waits for, and since when",
        judge: log_lines::lines_are_true,
    },
    Oracle {
        promise: "P13",
        words: "each failure is logged once",
        judge: failure_lines::failures_are_logged,
    },
    Oracle {
        promise: "P12",
        words: "a SIGHUP reloads, and changes nothing else",
        judge: reloads::hangups_are_followed_by_reloads,
    },
    Oracle {
        promise: "P6",
        words: "a TLS handshake has one time limit, and delays no other",
        judge: handshakes::handshakes_have_their_time,
    },
    Oracle {
        promise: "P5",
        words: "the app observes the outcome of each request",
        judge: outcomes::outcomes_are_observed,
    },
];

/// The oracles that need no knowledge of the app, its hooks and its checks.
pub(crate) const HOST_ORACLES: [Oracle; 5] =
    [ORACLES[0], ORACLES[3], ORACLES[4], ORACLES[5], ORACLES[7]];

/// A promise that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Number of the promise.
    pub promise: &'static str,
    /// Short name of the promise.
    pub words: &'static str,
    /// What happened instead.
    pub why: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) is broken: {}", self.promise, self.words, self.why)
    }
}

/// Returns every oracle with its verdict.
#[must_use]
pub fn judge(scenario: &Scenario, outcome: &Outcome) -> Vec<(&'static Oracle, Judgement)> {
    let history = RunHistory::read(scenario, outcome);
    ORACLES.iter().map(|oracle| (oracle, (oracle.judge)(&history))).collect()
}

/// Returns the promises that did not hold.
#[must_use]
pub fn broken(scenario: &Scenario, outcome: &Outcome) -> Vec<Broken> {
    let judged = judge(scenario, outcome).into_iter();
    judged
        .filter_map(|(oracle, judgement)| {
            judgement.err().map(|why| Broken { promise: oracle.promise, words: oracle.words, why })
        })
        .collect()
}
