//! Counts what the requests of a service proved: a request that never succeeded proves nothing.

use super::assertions::SOMETIMES;
use crate::{
    oracle::{Broken, ObservedRequest, RequestResult, RunHistory},
    scenario::{Outcome, Reads, Request, RequestKind, Scenario},
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
    /// For each `sometimes!`, whether it held.
    sometimes: Mutex<BTreeMap<String, bool>>,
}

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
}

impl Proof {
    /// `sometimes` are the texts of assertions that must be reached.
    pub(super) fn new(requests: &[Request], sometimes: &[String]) -> Self {
        let steps = requests.iter().flat_map(|first| {
            first.steps().enumerate().map(|(step, _)| StepProof {
                first: first.clone(),
                step,
                sent: 0,
                succeeded: 0,
                others: BTreeMap::new(),
                scenario: None,
            })
        });
        let sometimes = sometimes.iter().map(|what| (what.clone(), false)).collect();
        Self { steps: Mutex::new(steps.collect()), sometimes: Mutex::new(sometimes) }
    }

    /// Counts the requests of a run.
    pub(super) fn count(&self, scenario: &Scenario, outcome: &Outcome) {
        let history = RunHistory::read(scenario, outcome);
        let mut sometimes = self.sometimes.lock().unwrap_or_else(PoisonError::into_inner);
        for record in history.server(SOMETIMES) {
            let what = record.text("what").unwrap_or_default().to_owned();
            *sometimes.entry(what).or_insert(false) |= record.text("holds") == Some("yes");
        }
        drop(sometimes);
        let mut steps = self.lock();
        for observed in &history.requests {
            let Some(RequestKind::User(first)) = history.request_kind(observed) else { continue };
            let mut proofs = steps.iter_mut();
            let proof = proofs.find(|proof| proof.first == **first && proof.step == observed.step);
            if let Some(proof) = proof {
                proof.add(observed, scenario);
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

    /// Returns the first `sometimes!` that never held.
    pub(super) fn unreached(&self) -> Option<Broken> {
        let sometimes = self.sometimes.lock().unwrap_or_else(PoisonError::into_inner);
        sometimes.iter().find(|(_, held)| !**held).map(|(what, _)| Broken {
            promise: "S7",
            words: "assertions hold",
            why: format!(
                "sometimes: {what:?} was not reached in any run; run more seeds, or see whether it \
                 can happen at all"
            ),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<StepProof>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StepProof {
    fn request(&self) -> &Request {
        self.first.steps().nth(self.step).unwrap_or(&self.first)
    }

    fn add(&mut self, observed: &ObservedRequest, scenario: &Scenario) {
        self.sent += 1;
        if succeeded(self.request(), observed) {
            self.succeeded += 1;
            return;
        }
        let how = match &observed.end {
            Some((_, RequestResult::Completed(status, _))) => {
                format!("{status}{}", if observed.is_by_service() { "" } else { " by the host" })
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
            return format!("{name} was never sent: run more seeds");
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
             request never succeeds proves nothing about it. Correct the request, or add .expect(…) \
             if this is its right response",
            self.sent,
            others.join(", "),
            if self.always_times_out() { THREADS } else { "" }
        )
    }
}

/// Whether the service made the response that the client wants.
fn succeeded(request: &Request, observed: &ObservedRequest) -> bool {
    let body = observed.body.as_deref().unwrap_or_default();
    let events = body.matches("\n\n").count() as u64;
    match request.reads() {
        Reads::WebSocket(messages) => {
            observed.messages.is_some_and(|received| received == messages.len() as u64)
        }
        reads @ (Reads::Whole | Reads::Events(_)) => {
            let Some((_, RequestResult::Completed(status, _))) = &observed.end else {
                return false;
            };
            let enough = !matches!(reads, Reads::Events(least) if events < *least);
            observed.is_by_service()
                && request.expects(*status)
                && request.misses(body).is_none()
                && enough
        }
    }
}
