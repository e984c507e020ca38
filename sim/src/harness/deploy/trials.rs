//! Deploys of a service on lameduck.

use super::super::{
    assertions::{Assertions, Scope},
    on_new_thread,
};
use super::{
    failure::{self, DeployFailure},
    hosted::{HostSetup, SETUP_PANICKED, UNSUPPORTED, version},
    judge::{Case, Finding},
    losses::Losses,
    platform::Deploy,
    play::{DeployOutcome, for_each_seed, play},
    proved::Proved,
    scenario::{DeployClient, DeployScenario},
    server::checked,
};
use crate::{
    explore::{exploring, quiet_panics},
    harness::{Passed, Setup, TestWorld, Trial, Trials, downstream::Serving, world::Shared},
    oracle::Broken,
    scenario::Request,
    trace::Trace,
};
use lameduck::HttpService;
use std::{fmt, ops::Range, panic::resume_unwind, sync::Arc};
use tokio::sync::mpsc::unbounded_channel;

impl<S: HttpService> Trials<S> {
    /// Deploys the service instead of stopping one process of it. Without
    /// [`DeployTrials::to`] the new version is the same as the old one.
    ///
    /// The requests, assertions, seeds, plan and deadline that were set before are kept.
    pub fn deploy(self, deploy: Deploy) -> DeployTrials<S> {
        DeployTrials {
            old: Arc::clone(&self.setup),
            new: self.setup,
            requests: self.requests,
            seeds: self.seeds,
            host: HostSetup { plan: self.plan, request_timeout: self.request_timeout },
            deploy,
            scope: self.scope,
            replay: self.replay,
        }
    }
}

/// Settings of the deploys of a service, from version `S` to version `T`.
#[must_use = "nothing is explored until it is run"]
pub struct DeployTrials<S, T = S> {
    old: Setup<S>,
    new: Setup<T>,
    requests: Vec<Request>,
    seeds: Range<u64>,
    host: HostSetup,
    deploy: Deploy,
    scope: Scope,
    replay: Option<String>,
}

/// Most plays while shrinking.
const TRIES: u32 = 40;

/// A play that was judged.
struct Judged {
    found: Option<Finding>,
    /// The requests that succeeded.
    proved: Proved,
    /// Whether the setup asked for something that deploys do not have.
    is_unsupported: bool,
}

impl Judged {
    /// # Panics
    /// Panics if the setup asked for something that deploys do not have.
    fn checked(self) -> Self {
        check_supported(self.is_unsupported);
        self
    }
}

/// A play whose losses were counted.
struct Counted {
    losses: Losses,
    proved: Proved,
    setup_panic: Option<String>,
    is_unsupported: bool,
}

impl Counted {
    fn of(outcome: &DeployOutcome) -> Self {
        let panicked = outcome.trace.events(SETUP_PANICKED);
        Self {
            losses: Losses::of(outcome),
            proved: Proved::of(outcome),
            setup_panic: panicked.first().and_then(|it| it.text("why").map(ToOwned::to_owned)),
            is_unsupported: !outcome.trace.events(UNSUPPORTED).is_empty(),
        }
    }

    /// # Panics
    /// Panics if the setup panicked, or asked for something that deploys do not have.
    fn checked(self) -> Self {
        check_supported(self.is_unsupported);
        if let Some(panic) = &self.setup_panic {
            panic!("the deploys prove nothing: {panic}");
        }
        self
    }
}

fn check_supported(is_unsupported: bool) {
    assert!(
        !is_unsupported,
        "Trial::at_exit and Trial::except_tasks have no effect in a deploy, which judges no exit \
         of a process (S2, S4): let the setup return the host itself"
    );
}

impl<S, T> fmt::Debug for DeployTrials<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeployTrials")
            .field("requests", &self.requests)
            .field("deploy", &self.deploy)
            .field("seeds", &self.seeds)
            .finish_non_exhaustive()
    }
}

impl<S: HttpService, T: HttpService> DeployTrials<S, T> {
    /// Sets the new version of the service.
    pub fn to<New, U>(
        self,
        setup: impl Fn(TestWorld) -> U + Send + Sync + 'static,
    ) -> DeployTrials<S, New>
    where
        U: Into<Trial<New>>,
        New: HttpService,
    {
        let Self { old, requests, seeds, host, deploy, scope, replay, .. } = self;
        DeployTrials {
            old,
            new: Arc::new(move |world| setup(world).into()),
            requests,
            seeds,
            host,
            deploy,
            scope,
            replay,
        }
    }

    /// Sets the seeds, as [`Trials::seeds`] does.
    pub fn seeds(mut self, seeds: Range<u64>) -> Self {
        self.seeds = seeds;
        self
    }

    /// Plays one scenario instead of the seeds: the text that a [`DeployFailure`] printed.
    pub fn replay(mut self, scenario: impl Into<String>) -> Self {
        self.replay = Some(scenario.into());
        self
    }

    /// Performs all deploys, on all cores, and judges them by D1 to D6.
    ///
    /// # Errors
    /// Returns the first [`DeployFailure`], shrunk. Fails also if a request never got a response
    /// that it expects (S6), or if no run reached an assertion (S7), since the run would then prove
    /// nothing about it.
    ///
    /// # Panics
    /// Panics if the run would prove nothing, since no request or no seed is given, or since a
    /// module of [`Trials::assertions_in`] has no assertion. Panics if a setup returns a [`Trial`]
    /// with [`Trial::at_exit`] or [`Trial::except_tasks`]: a deploy judges no exit of a process.
    /// Panics if the text to replay is not a scenario, or one of another test, or if the seeds in
    /// the environment are invalid.
    #[track_caller]
    pub fn run(self) -> Result<Passed, DeployFailure> {
        let assertions = Assertions::of(&self.scope);
        if let Some(text) = &self.replay {
            let scenario: DeployScenario = serde_json::from_str(text)
                .expect("the scenario to replay must be one that a failure printed");
            let is_its = |client: &DeployClient| self.requests.contains(&client.request);
            assert!(
                self.requests.is_empty() || scenario.clients.iter().all(is_its),
                "the scenario to replay sends requests that this test does not have, so it proves \
                 nothing: remove .replay(…), or the requests"
            );
            return on_new_thread(|| self.replayed(scenario));
        }
        let seeds = checked(&self.requests, self.seeds.clone());
        on_new_thread(|| self.explored(&assertions, seeds))
    }

    fn replayed(&self, scenario: DeployScenario) -> Result<Passed, DeployFailure> {
        quiet_panics();
        let judged = exploring(|| self.judged(&scenario));
        match judged.unwrap_or_else(|payload| resume_unwind(payload)).checked().found {
            Some(found) => Err(self.failure(scenario, found)),
            None => Ok(Passed { scenarios: 1 }),
        }
    }

    fn explored(
        &self,
        assertions: &Assertions,
        seeds: Range<u64>,
    ) -> Result<Passed, DeployFailure> {
        let played = for_each_seed(
            seeds,
            |seed| {
                let outcome = self.play(&self.draw(seed));
                assertions.count(&outcome.trace);
                self.judge(&outcome)
            },
            |played| played.found.is_some() || played.is_unsupported,
        );
        let scenarios = played.len() as u64;
        let mut proved = Proved::default();
        for (seed, played) in played {
            let played = played.unwrap_or_else(|payload| resume_unwind(payload)).checked();
            if let Some(found) = played.found {
                return Err(self.shrunk(seed, found));
            }
            proved.add(played.proved);
        }
        let unproved = proved.missing(&self.requests).map(|request| Broken {
            promise: "S6",
            words: "each request succeeds",
            why: format!(
                "{} never got the response that it expects in {scenarios} deploys{}",
                request.name(),
                proved.why(request)
            ),
        });
        match unproved.or_else(|| assertions.unreached()) {
            None => Ok(Passed { scenarios }),
            Some(broken) => Err(DeployFailure {
                seed: 0,
                broken,
                scenario: None,
                log: Vec::new(),
                downstreams: Vec::new(),
            }),
        }
    }

    fn judged(&self, scenario: &DeployScenario) -> Judged {
        self.judge(&self.play(scenario))
    }

    fn judge(&self, outcome: &DeployOutcome) -> Judged {
        let found = Case::new(self.deploy, self.host.plan.lame_duck, outcome).judge();
        let proved = Proved::of(outcome);
        let is_unsupported = !outcome.trace.events(UNSUPPORTED).is_empty();
        Judged { found, proved, is_unsupported }
    }

    /// Shrinks the scenario of a seed for as long as it breaks the same promise.
    fn shrunk(&self, seed: u64, mut found: Finding) -> DeployFailure {
        let mut least = self.draw(seed);
        let mut tries = TRIES;
        'again: loop {
            for candidate in least.simpler() {
                if tries == 0 {
                    break 'again;
                }
                tries -= 1;
                let again =
                    exploring(|| self.judged(&candidate)).ok().and_then(|again| again.found);
                if let Some(again) = again
                    && again.broken.promise == found.broken.promise
                {
                    (least, found) = (candidate, again);
                    continue 'again;
                }
            }
            break;
        }
        self.failure(least, found)
    }

    fn failure(&self, scenario: DeployScenario, found: Finding) -> DeployFailure {
        let outcome = exploring(|| self.play(&scenario));
        let outcome = outcome.unwrap_or_else(|payload| resume_unwind(payload));
        let (log, downstreams) = (failure::log(&outcome, &found), failure::downstreams(&outcome));
        let (seed, broken) = (scenario.seed, found.broken);
        DeployFailure { seed, broken, scenario: Some(Box::new(scenario)), log, downstreams }
    }

    fn draw(&self, seed: u64) -> DeployScenario {
        let length = self.deploy.length(self.host.plan.lame_duck);
        DeployScenario::draw(seed, &self.requests).with_faults(length)
    }

    /// Performs all deploys, and counts what their clients lose, as
    /// [`explore_server`](super::explore_server) does. Nothing else is judged.
    ///
    /// # Panics
    /// Panics if the run would prove nothing, since no request or no seed is given, a request never
    /// succeeded, a setup panicked, or a setup returns a [`Trial`] that [`run`](Self::run) refuses.
    /// Panics if the seeds in the environment are invalid, or if a scenario is to be
    /// [replayed](Self::replay).
    #[track_caller]
    pub fn losses(self) -> Losses {
        assert!(self.replay.is_none(), "losses are counted over the seeds: remove .replay(…)");
        let seeds = checked(&self.requests, self.seeds.clone());
        let draw = |seed| DeployScenario::draw(seed, &self.requests);
        let played = for_each_seed(
            seeds,
            |seed| Counted::of(&self.play(&draw(seed))),
            |counted| counted.setup_panic.is_some() || counted.is_unsupported,
        );
        let mut losses = Losses::default();
        let mut proved = Proved::default();
        for (_, counted) in played {
            let counted = counted.unwrap_or_else(|payload| resume_unwind(payload)).checked();
            losses.add(&counted.losses);
            proved.add(counted.proved);
        }
        losses.checked(&proved, &self.requests, None)
    }

    fn play(&self, scenario: &DeployScenario) -> DeployOutcome {
        let (sender, servers) = unbounded_channel();
        let (trace, serving) = (Trace::new(), Serving::default());
        let faults = scenario.faults.clone();
        let shared = Arc::new(Shared::new(sender, trace.clone(), faults, serving.clone()));
        let old = version(Arc::clone(&self.old), self.host, Arc::clone(&shared));
        let new = version(Arc::clone(&self.new), self.host, shared);
        play(scenario, self.deploy, (old, new), &trace, servers, serving)
    }
}
