//! A service under test, and the condition that must hold when its process exits.

use super::proof::COUNTED;
use crate::{
    scenario::{RequestKind, SERVER, Scenario},
    trace::{Record, Trace},
};
use lameduck::{Host, HttpService};
use std::fmt;

/// Condition on the service's state at the exit.
pub(super) type AtExit = Box<dyn FnOnce(&Received) -> Result<(), String> + Send>;

/// A service under test.
#[must_use = "returned by the setup"]
pub struct Trial<S> {
    pub(super) host: Host<S>,
    pub(super) at_exit: Option<AtExit>,
    pub(super) excepted: Vec<Excepted>,
}

/// Tasks that may be left at the exit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Excepted {
    pub(super) count: usize,
}

impl<S: HttpService> Trial<S> {
    /// Wraps a host, built as in `main`.
    pub fn of(host: Host<S>) -> Self {
        Self { host, at_exit: None, excepted: Vec::new() }
    }

    /// Lets up to `count` untracked tasks be left at the exit (S2), which may end with the process.
    /// `what` names them: the maintenance task of a connection pool, for example. Calls add up.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// use lameduck_sim::{Trial, explore};
    ///
    /// explore(|world| {
    ///     let router = Router::new().route("/", get(|| async { "tea" }));
    ///     Trial::of(world.host().serve(router)).except_tasks(1, "the pool's reaper")
    /// })
    /// .get("/")
    /// .seeds(0..5)
    /// .run()
    /// .unwrap();
    /// ```
    ///
    /// Tasks that the setup itself spawns are never counted. Only their number is known: one that
    /// ends before the exit may hide another task that is left.
    ///
    /// # Panics
    /// Panics if `what` is empty: an exception needs a reason. A
    /// [deploy](super::Trials::deploy) of a service with such an exception panics when it is run.
    #[track_caller]
    pub fn except_tasks(mut self, count: usize, what: &str) -> Self {
        assert!(!what.trim().is_empty(), "an exception needs a reason: which tasks are left?");
        self.excepted.push(Excepted { count });
        self
    }

    /// Adds a condition that compares the service's state with what its clients received. It is
    /// checked at the moment of the exit: whatever has not been stored by then is lost.
    ///
    /// A [deploy](super::Trials::deploy) of a service with such a condition panics when it is run,
    /// since clients there use several processes. A [`Ledger`](super::deploy::Ledger) records what
    /// was stored.
    pub fn at_exit(
        mut self,
        holds: impl FnOnce(&Received) -> Result<(), String> + Send + 'static,
    ) -> Self {
        self.at_exit = Some(Box::new(holds));
        self
    }
}

impl<S: HttpService> From<Host<S>> for Trial<S> {
    fn from(host: Host<S>) -> Self {
        Self::of(host)
    }
}

impl<S> fmt::Debug for Trial<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("host", &self.host).finish_non_exhaustive()
    }
}

/// What the clients of a service have received.
#[derive(Clone, Debug)]
pub struct Received {
    records: Vec<Record>,
    trace: Trace,
    calls: CallTargets,
}

/// The targets of the gRPC calls of a scenario.
#[derive(Clone, Debug)]
pub(super) struct CallTargets(Vec<String>);

impl CallTargets {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let mut targets = Vec::new();
        for client in &scenario.clients {
            let RequestKind::User(first) = &client.request_kind else { continue };
            let calls = first.steps().filter(|request| request.is_grpc());
            targets.extend(calls.map(|call| call.target().to_owned()));
        }
        Self(targets)
    }
}

impl Received {
    pub(super) fn by(trace: &Trace, calls: CallTargets) -> Self {
        Self { records: trace.records(), trace: trace.clone(), calls }
    }

    /// Returns how many requests for `target` (path and query) got a complete response with a
    /// status from 200 to 299; a gRPC call must have the status 0 (OK), too. If no client requests
    /// `target` in any run, the exploration fails: a condition on a mistyped target always holds.
    #[must_use]
    pub fn succeeded(&self, target: &str) -> usize {
        let is_sent =
            |record: &Record| record.event == "asks" && record.text("target") == Some(target);
        let sent = if self.records.iter().any(is_sent) { "yes" } else { "no" };
        let fields = [("what", target.to_owned().into()), ("sent", sent.into())];
        self.trace.record(SERVER, COUNTED, &fields);
        let completed = self.records.iter().filter(|record| {
            record.event == "completed"
                && record.number("status").is_some_and(|status| (200..300).contains(&status))
        });
        let of_target = completed.filter(|completed| self.target_of(completed) == Some(target));
        of_target.filter(|completed| self.is_ok(completed, target)).count()
    }

    fn target_of(&self, of: &Record) -> Option<&str> {
        self.record_of(of, "asks")?.text("target")
    }

    /// Whether a response has the status 0 of gRPC, or is none of a call.
    fn is_ok(&self, completed: &Record, target: &str) -> bool {
        match self.record_of(completed, "call status") {
            Some(status) => status.number("status") == Some(0),
            None => self.calls.0.iter().all(|call| call != target),
        }
    }

    /// Returns this event of the same request.
    fn record_of(&self, of: &Record, event: &str) -> Option<&Record> {
        self.records.iter().find(|record| {
            record.event == event
                && record.actor == of.actor
                && record.number("request") == of.number("request")
        })
    }
}
