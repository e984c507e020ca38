//! Tests whether your own service survives shutdowns.
//!
//! ```
//! # use axum::{Router, routing::get};
//! # fn router() -> Router { Router::new().route("/orders", get(|| async { "tea" }).post(|| async {})) }
//! lameduck_sim::explore(|host| host.serve(router()))
//!     .get("/orders")
//!     .post("/orders", "tea")
//!     .seeds(0..50)
//!     .run()
//!     .unwrap();
//! ```
//! [`explore`] builds a new service for each seed, with the same [`Builder`] that a `main` would
//! use, including hooks, background tasks and checks. Clients drawn from the seed send the requests
//! that you named, over HTTP/1 and HTTP/2. Some are patient, some are not, and a stop request comes
//! at some moment.
//!
//! The run checks the promises of the host that it can judge without knowing the service, such as
//! one outcome per request and the bound of the shutdown. In addition it checks these promises of
//! the service:
//!
//! - S1, **all requests and work finish.** The shutdown aborts no request or tracked work: they end
//!   within the drain, or react to the cancellation.
//! - S2, **no task is left.** No task of the service is running at the exit. An untracked task
//!   would be lost with the process.
//! - S3, **the exit is clean.** No handler and no hook fails or panics.
//! - S4, **the exit condition holds.** The condition of [`Trial::at_exit`] holds when the process
//!   exits.
//!
//! Time is simulated: whatever sleeps by tokio's clock takes no real time. Threads, real sockets
//! and `spawn_blocking` are not simulated.

mod draw;
mod failure;
mod judge;
mod runner;
mod trial;

pub use failure::Failure;
pub use trial::{Received, Trial};

use crate::{
    explore::{Exploration, Found, Runner, examine_by},
    scenario::{PlanMs, RequestKind, Scenario},
    shrink::shrink,
};
use judge::JUDGES;
use lameduck::{Builder, HttpService, lifecycle::Plan};
use std::{
    ops::Range,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

/// Maximum number of runs while shrinking.
const TRIES: u32 = 400;

/// Tests a service with simulated shutdowns. `setup` builds the service, once per run. The builder
/// that it receives already has a plan, ports and a request deadline; `setup` must not change them.
pub fn explore<T, S>(setup: impl Fn(Builder) -> T + Send + Sync + 'static) -> Trials<S>
where
    T: Into<Trial<S>>,
    S: HttpService,
{
    Trials {
        setup: Arc::new(move |builder| setup(builder).into()),
        request_kinds: Vec::new(),
        seeds: 0..100,
        plan: Plan::default(),
        request_timeout: Some(Duration::from_secs(5)),
        replay: None,
    }
}

/// Builds a service.
type Setup<S> = Arc<dyn Fn(Builder) -> Trial<S> + Send + Sync>;

/// Settings of the shutdowns for a service. [`run`](Self::run) performs them.
#[must_use = "nothing is explored until it is run"]
pub struct Trials<S> {
    setup: Setup<S>,
    request_kinds: Vec<RequestKind>,
    seeds: Range<u64>,
    plan: Plan,
    request_timeout: Option<Duration>,
    replay: Option<String>,
}

/// Result of a service that survived all shutdowns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Number of simulated shutdowns.
    pub scenarios: u64,
}

impl<S> std::fmt::Debug for Trials<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trials")
            .field("deeds", &self.request_kinds)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

impl<S: HttpService> Trials<S> {
    /// Adds a GET request that clients send: a path and query.
    ///
    /// # Panics
    /// Panics if `target` cannot be requested, since it does not begin with a slash or is not a
    /// path and query.
    #[track_caller]
    pub fn get(mut self, target: impl Into<String>) -> Self {
        self.request_kinds.push(RequestKind::Get(checked(target.into())));
        self
    }

    /// Adds a POST request that clients send.
    ///
    /// # Panics
    /// Panics for the same reasons as [`get`](Self::get).
    #[track_caller]
    pub fn post(mut self, target: impl Into<String>, body: impl Into<String>) -> Self {
        self.request_kinds.push(RequestKind::Post(checked(target.into()), body.into()));
        self
    }

    /// Sets the seeds. Each is one shutdown, and there must be at least one. Default `0..100`.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Sets the plan of the service. Default [`Plan::default`].
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// Sets the deadline of requests. Default 5 s.
    pub fn request_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Replays one scenario instead of the seeds: the text that a [`Failure`] printed.
    pub fn replay(mut self, scenario: impl Into<String>) -> Self {
        self.replay = Some(scenario.into());
        self
    }

    /// Runs all shutdowns, on all cores.
    ///
    /// # Errors
    /// Returns the first [`Failure`], shrunk.
    ///
    /// # Panics
    /// Panics if the run would prove nothing, since no request or no seed is given. Panics if the
    /// text to replay is not a scenario.
    #[track_caller]
    pub fn run(self) -> Result<Passed, Failure> {
        let setup = Arc::clone(&self.setup);
        let play = move |scenario: &Scenario| runner::play(scenario, Arc::clone(&setup));
        if let Some(text) = &self.replay {
            let scenario = serde_json::from_str(text)
                .expect("the scenario to replay must be one that a failure printed");
            return self.judge_one(&play, &scenario);
        }
        assert!(
            !self.request_kinds.is_empty(),
            "the service gets no requests: add them with .get(\"/path\") or .post(…)"
        );
        assert!(
            !self.seeds.is_empty(),
            "the range {:?} is empty: there is nothing to run",
            self.seeds
        );
        let draw =
            |seed| draw::draw(seed, self.plan_ms(), self.request_timeout_ms(), &self.request_kinds);
        let never = AtomicBool::new(false);
        let mut exploration = Exploration::new(&play, self.seeds.clone(), &never);
        exploration.draw = &draw;
        exploration.judges = JUDGES;
        exploration.found_max = 1;
        // Traces need not be equal: a service may generate random identifiers in its responses.
        exploration.replay_every = None;
        let summary = exploration.run();
        match summary.found.first() {
            None => Ok(Passed { scenarios: summary.scenarios }),
            Some(found) => Err(self.shrunk(&play, found)),
        }
    }

    fn judge_one(&self, play: &Runner, scenario: &Scenario) -> Result<Passed, Failure> {
        match examine_by(JUDGES, play, scenario).broken.into_iter().next() {
            None => Ok(Passed { scenarios: 1 }),
            Some(broken) => {
                Err(Failure { seed: scenario.seed, broken, scenario: Box::new(scenario.clone()) })
            }
        }
    }

    fn shrunk(&self, play: &Runner, found: &Found) -> Failure {
        let first = &found.broken[0];
        let breaks = |candidate: &Scenario| {
            examine_by(JUDGES, play, candidate)
                .broken
                .into_iter()
                .find(|broken| broken.promise == first.promise)
        };
        // The plan and the requests belong to the service, so shrinking must not change them.
        let least = shrink(&found.scenario, TRIES, |candidate| {
            candidate.plan == found.scenario.plan
                && candidate.request_timeout_ms == found.scenario.request_timeout_ms
                && candidate
                    .clients
                    .iter()
                    .all(|client| self.request_kinds.contains(&client.request_kind))
                && breaks(candidate).is_some()
        });
        let broken = breaks(&least).unwrap_or_else(|| first.clone());
        Failure { seed: found.seed, broken, scenario: Box::new(least) }
    }

    fn plan_ms(&self) -> PlanMs {
        PlanMs::of(&self.plan)
    }

    fn request_timeout_ms(&self) -> Option<u64> {
        self.request_timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Rejects a mistyped target. The request would get a 400 or not be sent at all, and every service
/// survives that.
#[track_caller]
fn checked(target: String) -> String {
    assert!(
        target.starts_with('/'),
        "invalid request target {target:?}: it must begin with a slash"
    );
    let whole =
        target.parse::<http::uri::PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == target);
    assert!(whole, "invalid request target {target:?}: it must be a path with an optional query");
    target
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;

    /// Returns the panic message of a run.
    fn panic_message(
        trials: impl FnOnce(
            Trials<lameduck::TowerService<Router>>,
        ) -> Trials<lameduck::TowerService<Router>>,
    ) -> String {
        let tried = std::panic::AssertUnwindSafe(|| {
            trials(explore(|host| host.serve(Router::new()))).run()
        });
        let panic = std::panic::catch_unwind(tried).expect_err("it proves nothing, and passed");
        let said = panic.downcast_ref::<String>().map(String::as_str);
        said.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
    }

    #[test]
    fn what_would_prove_nothing_fails() {
        // A target without its slash, no request and no seed: each of these tests passed, although
        // it tested nothing. Such a mistake must fail, with its cause.
        let said = panic_message(|trials| trials.get("no slash here").seeds(0..1));
        assert_eq!(said, "invalid request target \"no slash here\": it must begin with a slash");
        assert!(panic_message(|trials| trials.post("orders", "tea")).contains("\"orders\""));
        assert!(
            panic_message(|trials| trials.get("/two words"))
                .contains("it must be a path with an optional query")
        );
        assert!(
            panic_message(|trials| trials.get("/orders#first"))
                .contains("it must be a path with an optional query")
        );
        assert!(
            panic_message(|trials| trials.seeds(0..1)).starts_with("the service gets no requests")
        );
        assert_eq!(
            panic_message(|trials| trials.get("/").seeds(0..0)),
            "the range 0..0 is empty: there is nothing to run"
        );
    }
}
