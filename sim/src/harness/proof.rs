//! Counts what the requests of a service proved: a request that never succeeded proves nothing.

use super::assertions::{Assertions, Scope};
use crate::{
    oracle::{Broken, ObservedRequest, RequestResult, RunHistory},
    scenario::{Outcome, Reads, Request, RequestKind, Scenario},
    trace::Record,
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Longest part of a response body in a message.
const QUOTE_MAX: usize = 120;

/// A cause of requests that always time out.
const THREADS: &str = ". Simulated time waits only for tasks and spawn_blocking: if the handler \
                       waits for a thread of its own, it is too late";

/// The results of all requests, over all runs.
#[derive(Debug)]
pub(super) struct Proof {
    steps: Mutex<Vec<StepProof>>,
    assertions: Assertions,
    /// For each downstream, whether the service connected to it.
    downstreams: Mutex<BTreeMap<String, bool>>,
    /// For each target that the exit condition counts, whether a client requested it.
    counted: Mutex<BTreeMap<String, bool>>,
}

/// Event for a downstream that the setup added.
pub(super) const ADDED: &str = "downstream added";
/// Event for an attempt to connect to a downstream.
pub(super) const CONNECTS: &str = "downstream connect";
/// Event for a target whose responses the exit condition counts.
pub(super) const COUNTED: &str = "counted";
/// Event for a request that could not be sent, since it takes a value from the response before it.
pub(super) const NO_VALUE: &str = "no value";

/// Status of an upgrade.
pub(super) const UPGRADED: u64 = 101;

/// The results of one request that clients send.
#[derive(Debug)]
struct StepProof {
    /// The first of the requests that follow each other.
    first: Request,
    step: usize,
    sent: u64,
    succeeded: u64,
    /// How the others ended, with their number and the body of one of them.
    others: BTreeMap<String, (u64, Option<String>)>,
    /// The first scenario without a success.
    scenario: Option<Box<Scenario>>,
    /// A value that no response before it had, so that it was not sent.
    no_value: Option<String>,
}

/// Merges what was seen in a run: whether each of `names` was reached.
fn merge<'a>(
    seen: &Mutex<BTreeMap<String, bool>>,
    records: impl Iterator<Item = &'a Record>,
    is_reached: impl Fn(&Record) -> bool,
) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    for record in records {
        let what = record.text("what").unwrap_or_default().to_owned();
        *seen.entry(what).or_insert(false) |= is_reached(record);
    }
}

/// Returns the first name that was never reached.
fn unreached(seen: &Mutex<BTreeMap<String, bool>>) -> Option<String> {
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.iter().find(|(_, reached)| !**reached).map(|(what, _)| what.clone())
}

impl Proof {
    /// # Panics
    /// Panics if a module of `scope` has no assertion.
    #[track_caller]
    pub(super) fn new(requests: &[Request], scope: &Scope) -> Self {
        let steps = requests.iter().flat_map(|first| {
            first.steps().enumerate().map(|(step, _)| StepProof {
                first: first.clone(),
                step,
                sent: 0,
                succeeded: 0,
                others: BTreeMap::new(),
                scenario: None,
                no_value: None,
            })
        });
        Self {
            steps: Mutex::new(steps.collect()),
            assertions: Assertions::of(scope),
            downstreams: Mutex::default(),
            counted: Mutex::default(),
        }
    }

    /// Counts the requests of a run.
    pub(super) fn count(&self, scenario: &Scenario, outcome: &Outcome) {
        let history = RunHistory::read(scenario, outcome);
        self.assertions.count(&outcome.trace);
        merge(&self.counted, history.server(COUNTED), |it| it.text("sent") == Some("yes"));
        merge(&self.downstreams, history.server(ADDED), |_| false);
        merge(&self.downstreams, history.server(CONNECTS), |_| true);
        let mut steps = self.lock();
        for observed in &history.requests {
            let Some(RequestKind::User(first)) = history.request_kind(observed) else { continue };
            let is_its = |proof: &&mut StepProof| proof.is(first, observed.step);
            for proof in steps.iter_mut().filter(is_its) {
                proof.add(observed, scenario);
            }
        }
        for record in history.records.iter().filter(|record| record.event == NO_VALUE) {
            let client = record.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
            let client = client.and_then(|client| scenario.clients.get(client));
            let Some(first) = client.and_then(|client| client.request_kind.user()) else {
                continue;
            };
            let step = record.number("step").and_then(|step| usize::try_from(step).ok());
            let is_its = |proof: &&mut StepProof| step.is_some_and(|step| proof.is(first, step));
            for proof in steps.iter_mut().filter(is_its) {
                proof.no_value = record.text("what").map(ToOwned::to_owned);
            }
        }
    }

    /// Returns the first request that never succeeded, with a scenario in which it was sent.
    pub(super) fn missing(&self) -> Option<(Broken, Box<Scenario>)> {
        self.lock().iter().find(|proof| proof.succeeded == 0).map(|proof| {
            let scenario =
                proof.scenario.clone().unwrap_or_else(|| Box::new(Scenario::new("none sent it")));
            let broken =
                Broken { promise: "S6", words: "each request succeeds", why: proof.words() };
            (broken, scenario)
        })
    }

    /// Returns the first thing that was never reached: assertions, a downstream, or a target that
    /// the exit condition counts.
    pub(super) fn unreached(&self) -> Option<Broken> {
        let counted = || {
            let target = unreached(&self.counted)?;
            let why = format!(
                "the condition counts the responses to {target:?}, which no client ever requested, \
                 so it proves nothing"
            );
            Some(Broken { promise: "S4", words: "the exit condition holds", why })
        };
        let downstream = || {
            let name = unreached(&self.downstreams)?;
            let why = format!(
                "the service never connected to its downstream {name:?}, so the run proves nothing \
                 about it. Send a request that needs it, or do not add it to the world"
            );
            Some(Broken { promise: "S6", words: "each request succeeds", why })
        };
        self.assertions.unreached().or_else(counted).or_else(downstream)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StepProof>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StepProof {
    fn request(&self) -> &Request {
        self.first.steps().nth(self.step).unwrap_or(&self.first)
    }

    fn is(&self, first: &Request, step: usize) -> bool {
        self.first == *first && self.step == step
    }

    fn add(&mut self, observed: &ObservedRequest, scenario: &Scenario) {
        self.sent += 1;
        if succeeded(self.request(), observed) {
            self.succeeded += 1;
            return;
        }
        let how = match &observed.end {
            Some((_, RequestResult::Completed(status, _))) => {
                let status = self.request().status_of(observed.grpc_status(), *status);
                let kind = if self.request().is_grpc() { "gRPC status " } else { "" };
                let by = if observed.is_all_by_service() { "" } else { " by the host" };
                format!("{kind}{status}{by}")
            }
            Some((_, RequestResult::Failed(how))) => how.clone(),
            None => "no end".to_owned(),
        };
        let other = self.others.entry(how).or_insert_with(|| (0, observed.body.clone()));
        other.0 += 1;
        if self.scenario.as_ref().is_none_or(|kept| scenario.seed < kept.seed) {
            self.scenario = Some(Box::new(scenario.clone()));
        }
    }

    /// Whether the host's deadline ended every attempt.
    fn always_times_out(&self) -> bool {
        self.others.values().all(|(_, body)| {
            body.as_deref().is_some_and(|body| body.starts_with("request timed out: no response"))
        })
    }

    fn words(&self) -> String {
        let name = self.request().name();
        if self.sent == 0 {
            return match &self.no_value {
                Some(value) => format!(
                    "{name} was never sent: no response of the request before it had a value for \
                     {value}"
                ),
                None => format!("{name} was never sent: run more seeds"),
            };
        }
        let others: Vec<String> = self
            .others
            .iter()
            .map(|(how, (count, body))| match body.as_deref().map(str::trim) {
                None | Some("") => format!("{count} × {how}"),
                Some(body) => {
                    let quote: String = body.chars().take(QUOTE_MAX).collect();
                    format!("{count} × {how} ({quote:?})")
                }
            })
            .collect();
        format!(
            "{name} never got the response that it expects, in {} attempts: {}{}; a run in which a \
             request never succeeds proves nothing about it. Correct the request, or add \
             .expect(…) if this is its right response",
            self.sent,
            others.join(", "),
            if self.always_times_out() { THREADS } else { "" }
        )
    }
}

/// Whether the service made the response that the client wants.
fn succeeded(request: &Request, observed: &ObservedRequest) -> bool {
    let body = observed.body.as_deref().unwrap_or_default();
    match request.reads() {
        Reads::WebSocket(messages) if observed.end.is_none() => {
            request.expects(UPGRADED)
                && observed.messages.is_some_and(|received| received == messages.len() as u64)
        }
        // A handshake that was refused, which is right only if that was expected.
        Reads::WebSocket(_) => {
            let status = observed.head.map_or(0, |(_, status, _)| status);
            observed.is_by_service() && request.has_statuses() && request.expects(status)
        }
        Reads::Grpc { least: Some(least), .. } => {
            observed.messages.is_some_and(|received| received >= *least)
        }
        reads @ (Reads::Whole | Reads::Events(_) | Reads::Grpc { least: None, .. }) => {
            let Some((_, RequestResult::Completed(status, _))) = &observed.end else {
                return false;
            };
            let enough = !matches!(reads, Reads::Events(least) if observed.events < *least);
            observed.is_all_by_service()
                && request.expects(request.status_of(observed.grpc_status(), *status))
                && request.misses(body).is_none()
                && enough
        }
    }
}
