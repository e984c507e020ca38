//! Result of an exploration, as numbers and as text.

use super::{Examined, Found, per_second, sometimes};
use crate::{oracle::ORACLES, scenario::Scenario};
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt, time::Duration};

/// Number of scenarios from which on a run must have reached every state. A shorter run may miss
/// some.
pub const REACHES_ALL: u64 = 5_000;

/// Of this many runs in real time at most one may be void.
const RUNS_A_VOID_ONE: u64 = 50;

/// Result of an exploration.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Number of scenarios that were run and judged.
    pub scenarios: u64,
    /// Number of scenarios that were run twice (P17).
    pub replayed: u64,
    /// Number of runs in real time that prove nothing because the machine stalled. Each was
    /// repeated, up to a limit.
    pub void_runs: u64,
    /// Number of scenarios without any run that proves something.
    pub void: u64,
    /// Total simulated time.
    pub simulated: Duration,
    /// For each oracle, the number of scenarios that exercised its promise.
    pub exercised: Vec<u64>,
    /// For each of the [`sometimes`] states, the number of scenarios that reached it.
    pub reached: Vec<u64>,
    /// Whether the network can reach every state. A long run must then do so.
    pub can_reach_all: bool,
    /// Scenarios that broke promises.
    pub found: Vec<Found>,
    /// Real time that the exploration took. The caller measures it.
    pub real: Duration,
    /// CPU time that the exploration took. The caller measures it.
    pub cpu: Option<Duration>,
}

impl Summary {
    /// Returns an empty summary.
    #[must_use]
    pub fn new() -> Self {
        Self {
            scenarios: 0,
            replayed: 0,
            void_runs: 0,
            void: 0,
            simulated: Duration::ZERO,
            exercised: vec![0; ORACLES.len()],
            reached: vec![0; sometimes().len()],
            can_reach_all: true,
            found: Vec::new(),
            real: Duration::ZERO,
            cpu: None,
        }
    }

    pub(super) fn add(&mut self, seed: u64, scenario: Scenario, examined: Examined) {
        self.scenarios += 1;
        self.replayed += u64::from(examined.replayed);
        self.void_runs += examined.void_runs;
        self.void += u64::from(examined.is_void);
        self.simulated += examined.simulated;
        let count = |counts: &mut Vec<u64>, seen: &[bool]| {
            counts.iter_mut().zip(seen).for_each(|(count, seen)| *count += u64::from(*seen));
        };
        count(&mut self.exercised, &examined.exercised);
        count(&mut self.reached, &examined.reached);
        if !examined.broken.is_empty() {
            self.found.push(Found { seed, scenario, broken: examined.broken });
        }
    }

    /// Returns the states that no scenario reached.
    #[must_use]
    pub fn missed(&self) -> Vec<&'static str> {
        let missed = sometimes().iter().zip(&self.reached).filter(|(_, count)| **count == 0);
        missed.map(|(state, _)| state.what.as_str()).collect()
    }

    /// Whether too many runs were void for the others to prove anything.
    #[must_use]
    pub const fn proves_nothing(&self) -> bool {
        let runs = self.scenarios - self.void + self.void_runs;
        self.void_runs * RUNS_A_VOID_ONE > runs
    }

    /// Whether every promise held and, if the run was long enough, every state was reached.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.found.is_empty()
            && !self.proves_nothing()
            && (self.scenarios < REACHES_ALL || !self.can_reach_all || self.missed().is_empty())
    }

    /// Returns the CPU time per run, in milliseconds.
    #[must_use]
    pub fn cpu_ms_each(&self) -> Option<f64> {
        let played = self.scenarios + self.replayed;
        self.cpu.filter(|_| played > 0).map(|cpu| cpu.as_secs_f64() * 1_000.0 / played as f64)
    }

    /// Returns the summary as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // Several oracles may judge one promise.
        let mut promises: BTreeMap<&str, u64> = BTreeMap::new();
        for (oracle, count) in ORACLES.iter().zip(&self.exercised) {
            *promises.entry(oracle.promise).or_default() += count;
        }
        let states: serde_json::Map<String, Value> = sometimes()
            .iter()
            .zip(&self.reached)
            .map(|(state, count)| (state.what.clone(), json!(count)))
            .collect();
        let found: Vec<Value> = self
            .found
            .iter()
            .map(|found| {
                let broken: Vec<String> = found.broken.iter().map(ToString::to_string).collect();
                json!({"seed": found.seed, "broken": broken, "scenario": found.scenario})
            })
            .collect();
        json!({
            "good": self.is_good(),
            "scenarios": self.scenarios,
            "replayed": self.replayed,
            "void_runs": self.void_runs,
            "void": self.void,
            "simulated_s": self.simulated.as_secs_f64(),
            "real_s": self.real.as_secs_f64(),
            "cpu_ms_each": self.cpu_ms_each(),
            "exercised": promises,
            "sometimes": states,
            "found": found,
        })
    }

    /// Returns the result in one line.
    #[must_use]
    pub fn last_line(&self) -> String {
        let missed = self.missed().len();
        let promises = match self.found.len() {
            0 => "all promises held".to_owned(),
            found => format!("{found} broke a promise"),
        };
        let states = match missed {
            0 => format!("all {} states reached", self.reached.len()),
            missed => format!("{missed} of {} states not reached", self.reached.len()),
        };
        let void = match (self.void_runs, self.proves_nothing()) {
            (0, _) => String::new(),
            (runs, false) => format!(", {runs} runs repeated because the machine stalled"),
            (runs, true) => format!(
                ", but {runs} runs were void because the machine stalled: this proves nothing"
            ),
        };
        format!("{} scenarios, {promises}, {states}{void}", self.scenarios)
    }
}

impl Default for Summary {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "promise                                          exercised by")?;
        for (oracle, count) in ORACLES.iter().zip(&self.exercised) {
            writeln!(f, "  {:<4} {:<42} {count:>9}", oracle.promise, oracle.words)?;
        }
        writeln!(f, "  {:<4} {:<42} {:>9}", "P17", "replayable", self.replayed)?;
        writeln!(f, "\nsometimes                                        reached by")?;
        for (state, count) in sometimes().iter().zip(&self.reached) {
            let mark = if *count == 0 { "  never" } else { "" };
            writeln!(f, "  {:<62} {count:>9}{mark}", state.what)?;
        }
        let ratio = per_second(1, self.real) * self.simulated.as_secs_f64();
        write!(
            f,
            "\n{:.0} scenarios per second; {:.1} simulated seconds each, {ratio:.0} times real \
             time",
            per_second(self.scenarios, self.real),
            self.simulated.as_secs_f64() / self.scenarios.max(1) as f64,
        )?;
        if let Some(cpu) = self.cpu_ms_each() {
            write!(f, "; {cpu:.2} ms of CPU each")?;
        }
        writeln!(f)?;
        write!(f, "{}", self.last_line())
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;
    use crate::oracle::ORACLES;

    // Of several oracles of one promise, the JSON had the count of the last one.
    #[test]
    fn the_counts_of_all_oracles_of_a_promise_are_added_up() {
        let mut summary = Summary::new();
        summary.exercised.fill(1);
        let json = summary.to_json();
        let of = |promise| ORACLES.iter().filter(|oracle| oracle.promise == promise).count() as u64;
        let counts = ORACLES.iter().map(|oracle| (oracle.promise, of(oracle.promise)));
        for (promise, count) in counts {
            assert_eq!(json["exercised"][promise], count, "{promise}");
        }
        assert!(ORACLES.iter().any(|oracle| of(oracle.promise) > 1));
    }
}
