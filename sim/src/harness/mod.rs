//! Your own service, put through shutdowns: does it survive them?
//!
//! ```
//! # use axum::{Router, routing::get};
//! # fn router() -> Router { Router::new().route("/orders", get(|| async { "tea" }).post(|| async {})) }
//! lameduck_sim::explore(|host| host.tower(router()))
//!     .get("/orders")
//!     .post("/orders", "tea")
//!     .seeds(0..50)
//!     .run()
//!     .unwrap();
//! ```
//! [`explore`] builds the service anew for each seed, with the very [`Builder`] that a `main` would use: hooks, background tasks
//! and checks come along. Clients drawn from the seed ask for what you named, over HTTP/1 and HTTP/2, patiently and otherwise, across
//! a stop request at some moment. What must hold is the host's part (every request has one fate, the bound, …) and the service's:
//!
//! | | |
//! |---|---|
//! | S1 | **Its work is finished.** No request and no tracked work is cut by the shutdown: they end within the drain, or see the cancellation. |
//! | S2 | **Nothing is left behind.** At the exit no task of its is alive: work that nobody waits for dies with the process. |
//! | S3 | **It ends well.** No handler and no hook fails or panics. |
//! | S4 | **What it said is so.** What [`Trial::at_exit`] holds of its state is true in the moment of the exit. |
//!
//! Time is the world's: what sleeps by tokio's clock sleeps here too, and costs nothing. Threads, real sockets and
//! `spawn_blocking` are outside of it.

mod draw;
mod failure;
mod judge;
mod runner;
mod trial;

pub use failure::Failure;
pub use trial::{Told, Trial};

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

/// How many plays shrinking may take.
const TRIES: u32 = 400;

/// Puts a service through shutdowns. `setup` makes it, anew for each of them; the builder that it gets has a plan, ports and a deadline
/// already, and they must stay.
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

/// Makes a service.
type Setup<S> = Arc<dyn Fn(Builder) -> Trial<S> + Send + Sync>;

/// What a service is put through. [`run`](Self::run) does it.
#[must_use = "nothing is tried until it is run"]
pub struct Trials<S> {
    setup: Setup<S>,
    request_kinds: Vec<RequestKind>,
    seeds: Range<u64>,
    plan: Plan,
    request_timeout: Option<Duration>,
    replay: Option<String>,
}

/// What a service survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passed {
    /// How many shutdowns.
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
    /// Clients ask for this, too: a path with its query.
    ///
    /// # Panics
    /// If nobody can ask for it, since it does not begin with a slash or is no part of a URI.
    #[track_caller]
    pub fn get(mut self, target: impl Into<String>) -> Self {
        self.request_kinds.push(RequestKind::Get(checked(target.into())));
        self
    }

    /// Clients send this, too.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    #[track_caller]
    pub fn post(mut self, target: impl Into<String>, body: impl Into<String>) -> Self {
        self.request_kinds.push(RequestKind::Post(checked(target.into()), body.into()));
        self
    }

    /// One shutdown a seed, so at least one. Default `0..100`.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// The plan of the service. Default [`Plan::default`].
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// The deadline of its requests. Default 5 s.
    pub fn request_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Instead of all seeds, this scenario alone: what a [`Failure`] printed.
    pub fn replay(mut self, scenario: impl Into<String>) -> Self {
        self.replay = Some(scenario.into());
        self
    }

    /// Puts it through all of them, on all cores.
    ///
    /// # Errors
    /// The first [`Failure`], shrunk.
    ///
    /// # Panics
    /// If it would prove nothing: no request is named, or no seed. If what is to be replayed is no scenario.
    #[track_caller]
    pub fn run(self) -> Result<Passed, Failure> {
        let setup = Arc::clone(&self.setup);
        let play = move |scenario: &Scenario| runner::play(scenario, Arc::clone(&setup));
        if let Some(text) = &self.replay {
            let scenario =
                serde_json::from_str(text).expect("a scenario to replay is what a flaw printed");
            return self.judge_one(&play, &scenario);
        }
        assert!(
            !self.request_kinds.is_empty(),
            "nothing is asked of the service: name requests with .get(\"/path\") or .post(…)"
        );
        assert!(!self.seeds.is_empty(), "no seed in {:?}: nothing would be tried", self.seeds);
        let draw =
            |seed| draw::draw(seed, self.plan_ms(), self.request_timeout_ms(), &self.request_kinds);
        let never = AtomicBool::new(false);
        let mut exploration = Exploration::new(&play, self.seeds.clone(), &never);
        exploration.draw = &draw;
        exploration.judges = JUDGES;
        exploration.found_max = 1;
        // A service may make up identifiers: its answers are its own affair.
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
        // The plan and what is asked for are the service's.
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

/// A typo would be answered with 400 or not even sent, and a service survives that.
#[track_caller]
fn checked(target: String) -> String {
    assert!(target.starts_with('/'), "nobody can ask for {target:?}: a target begins with a slash");
    let whole =
        target.parse::<http::uri::PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == target);
    assert!(whole, "nobody can ask for {target:?}: it is no path with a query");
    target
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;

    /// What it says as it fails.
    fn complaint(
        trials: impl FnOnce(
            Trials<lameduck::TowerService<Router>>,
        ) -> Trials<lameduck::TowerService<Router>>,
    ) -> String {
        let tried = std::panic::AssertUnwindSafe(|| {
            trials(explore(|host| host.tower(Router::new()))).run()
        });
        let panic = std::panic::catch_unwind(tried).expect_err("it proves nothing, and passed");
        let said = panic.downcast_ref::<String>().map(String::as_str);
        said.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
    }

    #[test]
    fn what_would_prove_nothing_fails() {
        // A target without its slash, no request and no seed passed: a typo in a test of one's own was a test that holds.
        let said = complaint(|trials| trials.get("no slash here").seeds(0..1));
        assert_eq!(said, "nobody can ask for \"no slash here\": a target begins with a slash");
        assert!(complaint(|trials| trials.post("orders", "tea")).contains("\"orders\""));
        assert!(complaint(|trials| trials.get("/two words")).contains("no path with a query"));
        assert!(complaint(|trials| trials.get("/orders#first")).contains("no path with a query"));
        assert!(
            complaint(|trials| trials.seeds(0..1)).starts_with("nothing is asked of the service")
        );
        assert_eq!(
            complaint(|trials| trials.get("/").seeds(0..0)),
            "no seed in 0..0: nothing would be tried"
        );
    }
}
