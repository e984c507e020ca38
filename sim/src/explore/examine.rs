//! Runs one scenario and judges it. A panic that leaves the world is a finding like any other.

use super::sometimes::{Coverage, sometimes};
use crate::{
    draw::{draw, draw_in_real_time},
    network::{TurmoilNetWorld, TurmoilWorld},
    oracle::{Broken, Exercise, ORACLES, Oracle, RunHistory},
    scenario::{Outcome, SERVER, Scenario, run, run_in_real_time},
    trace::Trace,
};
use serde::{Deserialize, Serialize};
use std::{
    any::Any,
    cell::{Cell, RefCell},
    panic::{self, AssertUnwindSafe},
    str::FromStr,
    sync::Once,
    time::Duration,
};

/// Runs a scenario in a world, with an app.
pub type Runner = dyn Fn(&Scenario) -> Outcome + Sync;

/// Network on which scenarios run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// [`TurmoilNetWorld`]: close to Linux, and fast.
    #[default]
    TurmoilNet,
    /// [`TurmoilWorld`].
    Turmoil,
    /// [`LinuxWorld`](crate::network::LinuxWorld): real sockets in real time.
    Linux,
}

impl Network {
    /// Returns the name for the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TurmoilNet => "turmoil-net",
            Self::Turmoil => "turmoil",
            Self::Linux => "linux",
        }
    }

    /// Returns whether a seed gives the same trace each time (P17).
    #[must_use]
    pub const fn replays(self) -> bool {
        match self {
            Self::TurmoilNet | Self::Turmoil => true,
            Self::Linux => false,
        }
    }

    /// Draws the scenario of a seed for this network.
    #[must_use]
    pub fn draw(self, seed: u64) -> Scenario {
        if self.replays() { draw(seed) } else { draw_in_real_time(seed) }
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::TurmoilNet, Self::Turmoil, Self::Linux]
            .into_iter()
            .find(|network| network.name() == name)
            .ok_or_else(|| {
                format!("unknown network {name}; available: turmoil-net, turmoil and linux")
            })
    }
}

/// Returns the runner that uses the default app on a network.
pub fn play_on(network: Network) -> &'static Runner {
    match network {
        Network::TurmoilNet => &run::<TurmoilNetWorld>,
        Network::Turmoil => &run::<TurmoilWorld>,
        Network::Linux => &run_in_real_time,
    }
}

/// Result of one scenario.
#[derive(Debug)]
pub struct Examined {
    /// The promises that did not hold.
    pub broken: Vec<Broken>,
    /// For each oracle, whether the scenario exercised its promise.
    pub exercised: Vec<bool>,
    /// For each of the [`sometimes`] states, whether it was reached.
    pub reached: Vec<bool>,
    /// Simulated time that the run took.
    pub simulated: Duration,
    /// Hash of the trace.
    pub hash: u64,
    /// Whether the scenario was run twice.
    pub replayed: bool,
    /// Number of runs that prove nothing because the machine stalled.
    pub void_runs: u64,
    /// Whether the last run proves nothing either. It was not judged.
    pub is_void: bool,
    /// The whole outcome; `None` if the run panicked.
    pub outcome: Option<Outcome>,
}

/// A scenario that broke promises.
#[derive(Clone, Debug)]
pub struct Found {
    /// Seed from which the scenario was drawn.
    pub seed: u64,
    /// The scenario.
    pub scenario: Scenario,
    /// The promises that it broke.
    pub broken: Vec<Broken>,
}

/// Runs a scenario and judges it by all promises.
#[must_use]
pub fn examine(play: &Runner, scenario: &Scenario) -> Examined {
    examine_by(ORACLES, play, scenario)
}

/// Runs a scenario and judges it by the given oracles.
#[must_use]
pub fn examine_by(judges: &[Oracle], play: &Runner, scenario: &Scenario) -> Examined {
    let outcome = match exploring(|| play(scenario)) {
        Ok(outcome) => outcome,
        Err(payload) => return Examined::panicked(&*payload),
    };
    if outcome.is_void() {
        return Examined::void(outcome);
    }
    let history = RunHistory::read(scenario, &outcome);
    let mut broken = Vec::new();
    let mut exercised = vec![false; judges.len()];
    for (oracle, exercised) in judges.iter().zip(&mut exercised) {
        match oracle.judge(&history) {
            Ok(exercise) => *exercised = exercise == Exercise::Yes,
            Err(why) => broken.push(Broken { promise: oracle.promise, words: oracle.words, why }),
        }
    }
    let coverage = Coverage::new(&history);
    let reached = sometimes().iter().map(|state| state.is_reached(&coverage)).collect();
    let simulated = match &outcome.ended {
        Ok(span) => *span,
        Err(overrun) => overrun.limit,
    };
    let (hash, void_runs) = (outcome.trace.hash(), outcome.void_runs);
    Examined {
        broken,
        exercised,
        reached,
        simulated,
        hash,
        replayed: false,
        void_runs,
        is_void: false,
        outcome: Some(outcome),
    }
}

/// Calls `play`, whose panics are not printed.
pub(crate) fn exploring<T>(play: impl FnOnce() -> T) -> std::thread::Result<T> {
    EXPLORING.set(true);
    let played = panic::catch_unwind(AssertUnwindSafe(play));
    EXPLORING.set(false);
    played
}

impl Examined {
    fn nothing() -> Self {
        Self {
            broken: Vec::new(),
            exercised: vec![false; ORACLES.len()],
            reached: vec![false; sometimes().len()],
            simulated: Duration::ZERO,
            hash: 0,
            replayed: false,
            void_runs: 0,
            is_void: false,
            outcome: None,
        }
    }

    fn void(outcome: Outcome) -> Self {
        let void_runs = outcome.void_runs + 1;
        Self { void_runs, is_void: true, outcome: Some(outcome), ..Self::nothing() }
    }

    fn panicked(payload: &(dyn Any + Send)) -> Self {
        let broken = match payload.downcast_ref::<Broken>() {
            Some(broken) => broken.clone(),
            None => Self::panic_of_host(message_of(payload)),
        };
        Self { broken: vec![broken], ..Self::nothing() }
    }

    fn panic_of_host(said: &str) -> Broken {
        let at = LAST_PANIC.with_borrow(Clone::clone);
        // Assertions of the host begin with the number of their promise.
        let named = ORACLES.iter().find(|oracle| said.starts_with(&format!("{}:", oracle.promise)));
        let (promise, words) =
            named.map_or(("P15", "contained"), |oracle| (oracle.promise, oracle.words));
        Broken { promise, words, why: format!("a panic at {at}: {said}") }
    }

    /// P17: compares the hash of a second run of the same scenario.
    pub(super) fn hold_against(&mut self, hash: u64) {
        self.replayed = true;
        if hash != self.hash {
            let why = format!(
                "a second run has the trace hash {hash:016x} instead of {:016x}",
                self.hash
            );
            self.broken.push(Broken { promise: "P17", words: "replayable", why });
        }
    }
}

thread_local! {
    static EXPLORING: Cell<bool> = const { Cell::new(false) };
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
    static CURRENT_TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// Makes `trace` the one of this thread: each panic is recorded in it as `panic` of the server,
/// with its place and message. A trace that has ended takes no records.
pub(crate) fn set_current_trace(trace: Trace) {
    CURRENT_TRACE.set(Some(trace));
}

/// Makes this thread one of the service of `trace`.
pub(crate) fn enter_thread(trace: Trace) {
    EXPLORING.set(true);
    set_current_trace(trace);
}

/// Calls code of a test. If it panics, returns where and with which message.
pub(crate) fn call<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(code)).map_err(|payload| {
        let at = LAST_PANIC.with_borrow(Clone::clone);
        format!("panicked at {at}: {}", message_of(&*payload))
    })
}

/// Returns the trace of the service that runs on this thread, if one does.
pub(crate) fn current_trace() -> Option<Trace> {
    CURRENT_TRACE.with_borrow(Clone::clone)
}

fn record_panic(at: &str, payload: &(dyn Any + Send)) {
    if let Some(trace) = current_trace() {
        let fields = [("at", at.into()), ("message", message_of(payload).into())];
        trace.record(SERVER, "panic", &fields);
    }
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("(no message)")
}

/// Installs a panic hook that prints no panics inside a scenario. Most of them belong to the
/// scenario, and a panic that leaves it becomes a finding. Panics elsewhere are printed as before.
pub fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            // The threads of a world in real time, and of the hosts in it.
            let is_world = |name: &str| name.starts_with("world-") || name.starts_with("lameduck-");
            if EXPLORING.get() || std::thread::current().name().is_some_and(is_world) {
                let at = info.location().map(ToString::to_string).unwrap_or_default();
                record_panic(&at, info.payload());
                LAST_PANIC.set(at);
            } else {
                before(info);
            }
        }));
    });
}
