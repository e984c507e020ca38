//! Tests whether your own service survives shutdowns.
//!
//! ```
//! # use axum::{Router, routing::get};
//! # fn router() -> Router { Router::new().route("/orders", get(|| async { "tea" }).post(|| async {})) }
//! lameduck_sim::explore(|world| world.host().serve(router()))
//!     .get("/orders")
//!     .post("/orders", "tea")
//!     .seeds(0..50)
//!     .run()
//!     .unwrap();
//! ```
//! [`explore`] builds a new service for each seed, with the same [`Builder`](lameduck::Builder)
//! that a `main` would use, including hooks, background tasks and checks. Services that yours
//! depends on are part of the world: [`TestWorld::downstream`]. Clients drawn from the seed send
//! the requests that you named, over HTTP/1 and HTTP/2. Some give up early, some do not, and a stop
//! request comes at some moment.
//!
//! The run checks the promises of the host that it can judge without knowing the service, such as
//! one outcome per request. In addition it checks these promises of the service:
//!
//! - S1, **all requests and work finish.** The shutdown aborts no request or tracked work: they end
//!   within the drain, or react to the cancellation.
//! - S2, **no task is left.** No untracked task of the service is running at the exit. If tasks of
//!   a downstream could hide one, the run is repeated on a network that distinguishes them.
//! - S3, **the exit is clean.** No handler, response body or hook fails or panics, and the host
//!   refuses no response. A handler fails by an error that it returns to the host (axum's do not).
//!   Errors are excused after a downstream failed or in a cancelled request, or if clients leave.
//!   A stop hook that is given up is excused if a downstream was slow in the clean-up before it.
//! - S4, **the exit condition holds.** The condition of [`Trial::at_exit`] holds when the process
//!   exits.
//! - S5, **responses are as expected.** Each response of the service has an expected status and
//!   body: [`Request::expect`].
//! - S6, **each request succeeds.** Over all runs, each request got the response that it expects at
//!   least once, and the service connected to each of its downstreams. Otherwise the run proves
//!   nothing about it.
//! - S7, **assertions hold.** Each [`always!`](lameduck::always) holds whenever it is reached, and
//!   each [`sometimes!`](lameduck::sometimes) in some run. One that no run reaches fails the run:
//!   [`Trials::assertions_in`].
//! - S8, **runs can be replayed.** Some seeds are played twice, and the same happens each time:
//!   [`Trials::may_diverge`].
//!
//! Time is simulated: whatever sleeps by tokio's clock takes no real time. Threads and real sockets
//! are not simulated. `spawn_blocking` works if the service waits for its result.
//!
//! In the repository, `docs/test-your-shutdown.md` begins with an empty crate and lists what cannot
//! be simulated. `docs/cookbook.md` has the usual bugs of a shutdown, each with the output of these
//! tests. A handler alone is tested with a [`TestHost`](lameduck::TestHost).

mod account;
mod assertions;
pub mod deploy;
mod doctor;
pub(crate) mod downstream;
mod draw;
mod failure;
mod judge;
mod proof;
mod recorded;
mod runner;
mod seeds;
mod service;
mod trial;
mod world;

pub use downstream::{Connection, Connector, Downstream, ServerConnection};
pub use failure::Failure;
pub use trial::{Received, Trial};
pub use world::TestWorld;

use crate::{
    explore::{Exploration, Found, Runner, examine_by, quiet_panics},
    oracle::Broken,
    scenario::{Client, PlanMs, Request, Scenario, Statuses},
    shrink::shrink,
};
use account::{Account, in_words};
use assertions::Scope;
use judge::JUDGES;
use lameduck::{HttpService, lifecycle::Plan};
use proof::Proof;
use std::{
    io::{self, Write},
    ops::Range,
    panic::resume_unwind,
    sync::{Arc, atomic::AtomicBool},
    thread,
    time::Duration,
};

/// Maximum number of runs while shrinking.
const TRIES: u32 = 400;

/// Tests a service with simulated shutdowns. `setup` builds the service in a [`TestWorld`], once
/// per run.
pub fn explore<T, S>(setup: impl Fn(TestWorld) -> T + Send + Sync + 'static) -> Trials<S>
where
    T: Into<Trial<S>>,
    S: HttpService,
{
    Trials {
        setup: Arc::new(move |world| setup(world).into()),
        requests: Vec::new(),
        scope: Scope::All,
        seeds: 0..100,
        plan: Plan::default(),
        request_timeout: Some(Duration::from_secs(5)),
        may_diverge: false,
        replay: None,
    }
}

/// Builds a service.
type Setup<S> = Arc<dyn Fn(TestWorld) -> Trial<S> + Send + Sync>;

/// Settings of the shutdowns for a service. [`run`](Self::run) performs them.
#[must_use = "nothing is explored until it is run"]
pub struct Trials<S> {
    setup: Setup<S>,
    requests: Vec<Request>,
    scope: Scope,
    seeds: Range<u64>,
    plan: Plan,
    request_timeout: Option<Duration>,
    may_diverge: bool,
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
            .field("requests", &self.requests)
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
    pub fn get(self, target: impl Into<String>) -> Self {
        self.request(Request::get(target))
    }

    /// Adds a POST request that clients send.
    ///
    /// # Panics
    /// Panics for the same reasons as [`get`](Self::get).
    #[track_caller]
    pub fn post(self, target: impl Into<String>, body: impl Into<String>) -> Self {
        self.request(Request::post(target, body))
    }

    /// Adds a request of any kind that clients send.
    ///
    /// ```
    /// # use axum::{Router, routing::{delete, get, post}, extract::Path};
    /// # fn router() -> Router {
    /// #     let get = get(|Path(id): Path<u64>| async move { format!("order {id}") });
    /// #     let post = post(|| async { (http::StatusCode::CREATED, [("location", "/orders/7")]) });
    /// #     Router::new().route("/orders", post).route("/orders/{id}", get)
    /// # }
    /// use lameduck_sim::{Request, explore};
    ///
    /// let order = Request::post("/orders", "").json(&["tea"]).expect(201);
    /// explore(|world| world.host().serve(router()))
    ///     .request(order.then(Request::get("{location}").expect_body("order 7")))
    ///     .seeds(0..20)
    ///     .run()
    ///     .unwrap();
    /// ```
    pub fn request(mut self, request: Request) -> Self {
        self.requests.push(request);
        self
    }

    /// Sets the statuses that the response to the last request may have, as
    /// [`Request::expect`] does.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # fn router() -> Router { Router::new().route("/orders", get(|| async { "tea" })) }
    /// lameduck_sim::explore(|world| world.host().serve(router()))
    ///     .get("/orders").expect(200)
    ///     .get("/no-such-page").expect(404)
    ///     .seeds(0..20)
    ///     .run()
    ///     .unwrap();
    /// ```
    ///
    /// # Panics
    /// Panics if no request was added before.
    #[track_caller]
    pub fn expect(self, statuses: impl Into<Statuses>) -> Self {
        self.change_last(|request| request.expect(statuses))
    }

    /// Adds a header field to the last request, as [`Request::header`] does.
    ///
    /// # Panics
    /// Panics if no request was added before, or if the name or the value is invalid.
    #[track_caller]
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change_last(|request| request.header(name, value))
    }

    #[track_caller]
    fn change_last(mut self, change: impl FnOnce(Request) -> Request) -> Self {
        let last = self.requests.pop();
        let last = last.expect("there is no request yet: call it after .get(…) or .request(…)");
        self.requests.push(change(last));
        self
    }

    /// Limits the assertions that a run must reach to those in this module and in the modules
    /// inside it. Calls add up. Without a call these are all in the test binary, whichever crate
    /// they are in: each [`always!`](lameduck::always) and [`sometimes!`](lameduck::sometimes)
    /// that no run reaches fails the run (S7). An `always!` that is reached must hold in each
    /// module.
    ///
    /// A test binary that explores several services, or parts of one, names the part:
    ///
    /// ```standalone_crate
    /// mod orders {
    ///     pub async fn order() {
    ///         lameduck::sometimes!("an order arrives");
    ///     }
    /// }
    /// mod prices {
    ///     pub async fn price() {
    ///         lameduck::sometimes!("a price is read");
    ///     }
    /// }
    ///
    /// # use axum::{Router, routing::{get, post}};
    /// # fn router() -> Router {
    /// #     Router::new().route("/orders", post(orders::order)).route("/prices", get(prices::price))
    /// # }
    /// # fn main() {
    /// lameduck_sim::explore(|world| world.host().serve(router()))
    ///     .post("/orders", "tea")
    ///     .assertions_in(concat!(module_path!(), "::orders"))
    ///     .seeds(0..20)
    ///     .run()
    ///     .unwrap();
    /// # }
    /// ```
    ///
    /// # Panics
    /// [`run`](Self::run) panics if a module has no assertion, since its path is mistyped then.
    pub fn assertions_in(mut self, module: impl Into<String>) -> Self {
        self.scope = self.scope.with(module.into());
        self
    }

    /// Accepts that the runs reach no assertion, for this reason: `"it only measures the time"`.
    /// Those that are reached must hold.
    ///
    /// # Panics
    /// Panics if `why` is empty: an exception needs a reason.
    #[track_caller]
    pub fn may_miss_assertions(mut self, why: &str) -> Self {
        assert!(!why.trim().is_empty(), "an exception needs a reason: why are they not reached?");
        self.scope = Scope::None;
        self
    }

    /// Sets the seeds. Each is one shutdown, and there must be at least one. Default `0..100`.
    ///
    /// The environment has precedence: `LAMEDUCK_SEED=7` runs one seed, `LAMEDUCK_SEEDS=0..10000`
    /// runs many. `LAMEDUCK_FAILURES=FOLDER` [saves](Failure::save) a failure in this folder.
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

    /// Replays one scenario instead of the seeds: the text that a [`Failure`] printed, or of a file
    /// that it [saved](Failure::save). Writes what happens to the standard error: the timeline, and
    /// the log of the host, the service and the clients.
    ///
    /// `LAMEDUCK_REPLAY=FILE` replays a file without a change of the code, in each test that sends
    /// its requests.
    pub fn replay(mut self, scenario: impl Into<String>) -> Self {
        self.replay = Some(scenario.into());
        self
    }

    /// Accepts that two runs of one seed may differ (S8), for this reason:
    /// `"retries have a random delay"`. A failure may then not be seen again when it is replayed.
    ///
    /// # Panics
    /// Panics if `why` is empty: an exception needs a reason.
    #[track_caller]
    pub fn may_diverge(mut self, why: &str) -> Self {
        assert!(!why.trim().is_empty(), "an exception needs a reason: why do two runs differ?");
        self.may_diverge = true;
        self
    }

    /// Runs all shutdowns, on all cores.
    ///
    /// # Errors
    /// Returns the first [`Failure`], shrunk. Fails also if a request never got a response that it
    /// expects, if the service never connected to a downstream, or if no run reached an assertion:
    /// the run would then prove nothing about it.
    ///
    /// # Panics
    /// Panics if the run would prove nothing, since no request or no seed is given, or since a
    /// module of [`assertions_in`](Self::assertions_in) has no assertion. Panics if the
    /// text to replay is not a scenario, or one of another test, or if the environment has invalid
    /// seeds or a file that cannot be replayed.
    #[track_caller]
    pub fn run(self) -> Result<Passed, Failure> {
        let setup = Arc::clone(&self.setup);
        let proof = Arc::new(Proof::new(&self.requests, &self.scope));
        let play = {
            let proof = Arc::clone(&proof);
            move |scenario: &Scenario| runner::play(scenario, Arc::clone(&setup), &proof)
        };
        if let Some(text) = &self.replay {
            let scenario = recorded::read(text)
                .expect("the scenario to replay must be one that a failure printed or saved");
            assert!(
                self.requests.is_empty() || recorded::sends_only(&scenario, &self.requests),
                "the scenario to replay sends requests that this test does not have, so it proves \
                 nothing: remove .replay(…), or the requests"
            );
            return on_new_thread(|| replayed(&play, &scenario)).map_err(Failure::saved);
        }
        assert!(
            !self.requests.is_empty(),
            "the service gets no requests: add them with .get(\"/path\") or .post(…)"
        );
        if let Some(scenario) = recorded::from_environment(&self.requests) {
            return on_new_thread(|| replayed(&play, &scenario)).map_err(Failure::saved);
        }
        let seeds = seeds::from_environment(self.seeds.clone());
        assert!(!seeds.is_empty(), "the range {seeds:?} is empty: there is nothing to run");
        on_new_thread(|| self.explored(&play, &proof, seeds)).map_err(Failure::saved)
    }

    fn explored(&self, play: &Runner, proof: &Proof, seeds: Range<u64>) -> Result<Passed, Failure> {
        let draw =
            |seed| draw::draw(seed, self.plan_ms(), self.request_timeout_ms(), &self.requests);
        let never = AtomicBool::new(false);
        let mut exploration = Exploration::new(play, seeds.clone(), &never);
        exploration.draw = &draw;
        exploration.judges = JUDGES;
        exploration.found_max = 1;
        // Traces need not be equal: a service may generate random identifiers in its responses.
        exploration.replay_every = None;
        let summary = exploration.run();
        if let Some(found) = summary.found.first() {
            return Err(self.shrunk(play, found));
        }
        if let Some((broken, scenario)) = proof.missing() {
            return Err(failure(play, broken, scenario).of_all_runs());
        }
        if let Some(broken) = proof.unreached() {
            return Err(failure(play, broken, Box::new(draw(seeds.start))).of_all_runs());
        }
        if !self.may_diverge
            && let Some((broken, scenario)) = doctor::examine(play, &draw, &seeds)
        {
            return Err(failure(play, broken, scenario).of_all_runs());
        }
        Ok(Passed { scenarios: summary.scenarios })
    }

    fn shrunk(&self, play: &Runner, found: &Found) -> Failure {
        let first = &found.broken[0];
        let breaks = |candidate: &Scenario| {
            examine_by(JUDGES, play, candidate)
                .broken
                .into_iter()
                .find(|broken| (broken.promise, broken.words) == (first.promise, first.words))
        };
        // The plan and the requests belong to the service, so shrinking must not change them.
        let belongs = |client: &Client| {
            client.request_kind.user().is_some_and(|request| self.requests.contains(request))
        };
        let least = shrink(&found.scenario, TRIES, |candidate| {
            candidate.plan == found.scenario.plan
                && candidate.request_timeout_ms == found.scenario.request_timeout_ms
                && candidate.clients.iter().all(belongs)
                && breaks(candidate).is_some()
        });
        if let Some(broken) = breaks(&least) {
            return failure(play, broken, Box::new(least));
        }
        let mut failure = failure(play, first.clone(), Box::new(least));
        failure.account.note = Some(doctor::explain(play, &found.scenario));
        failure
    }

    fn plan_ms(&self) -> PlanMs {
        PlanMs::of(&self.plan)
    }

    fn request_timeout_ms(&self) -> Option<u64> {
        self.request_timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Calls `run` on a thread of its own, since the test's own may be in a runtime.
fn on_new_thread<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let ran = thread::scope(|scope| scope.spawn(run).join());
    ran.unwrap_or_else(|payload| resume_unwind(payload))
}

/// Runs a scenario once more, to describe what happens in it.
fn failure(play: &Runner, broken: Broken, scenario: Box<Scenario>) -> Failure {
    let examined = examine_by(JUDGES, play, &scenario);
    let account =
        examined.outcome.map_or_else(Account::default, |outcome| Account::of(&scenario, &outcome));
    Failure::new(broken, scenario, account)
}

/// Runs one scenario, writes what happens, and judges it.
fn replayed(play: &Runner, scenario: &Scenario) -> Result<Passed, Failure> {
    quiet_panics();
    let examined = examine_by(JUDGES, play, scenario);
    let account =
        examined.outcome.map_or_else(Account::default, |outcome| Account::of(scenario, &outcome));
    let Some(broken) = examined.broken.into_iter().next() else {
        let words = in_words(scenario, &account.downstreams);
        let said = format!("replayed: {words}\n{account}all promises held\n");
        // A test's output is captured, and a replay is made to be read.
        let _ = io::stderr().write_all(said.as_bytes());
        return Ok(Passed { scenarios: 1 });
    };
    Err(Failure::new(broken, Box::new(scenario.clone()), account))
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
            trials(explore(|world| world.host().serve(Router::new()))).run()
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
