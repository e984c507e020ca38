//! What became of a life (P13).

use crate::{
    http::{AbortedRequest, ConnectionStats, RequestStats, millis},
    lifecycle::{HookVerdict, Phase, StopReason, Verdict},
};
use serde_json::{Value, json};
use std::{
    fmt,
    process::{ExitCode, Termination},
    time::Duration,
};

/// What became of a life: returned by [`Host::run`](crate::Host::run), logged as one line, mapped to the exit code.
///
/// A `main` may return it: it is a [`Termination`], with the exit code of P13.
#[derive(Clone, Debug)]
#[must_use = "a host that failed must not exit with 0: return the report from `main`, or exit with its code"]
#[non_exhaustive]
pub struct Report {
    /// The truth in one word.
    pub verdict: Verdict,
    /// Why it stopped; `None` if it never began.
    pub reason: Option<StopReason>,
    /// What made it fail: one sentence, then the whole chain of causes.
    pub error: Option<String>,
    /// Every phase and how long it lasted, in order.
    pub phases: Vec<(Phase, Duration)>,
    /// From the stop request to the end.
    pub shutdown: Duration,
    /// The longest it could have taken.
    pub worst_case: Duration,
    /// Requests of the main side, by fate.
    pub requests: RequestStats,
    /// Connections of the main side.
    pub connections: ConnectionStats,
    /// The requests that were aborted, the first thousand of them.
    pub aborts: Vec<AbortedRequest>,
    /// Background work that did not end when it was cancelled, and was dropped. It counts like an aborted request.
    pub work_dropped: u64,
    /// Background tasks, and work that they or handlers spawned, that panicked, in whatever phase.
    pub work_panicked: u64,
    /// Every half of a hook pair that ran.
    pub hooks: Vec<HookReport>,
}

/// How one half of a hook pair went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookReport {
    /// The pair's name.
    pub name: String,
    /// Which half, and how it ended.
    pub verdict: HookVerdict,
    /// From its start to its end.
    pub took: Duration,
    /// Its error with the whole chain of causes, or its panic.
    pub message: Option<String>,
}

impl Report {
    /// The exit code: 0 clean, 1 could not start, a background task failed or tracked work panicked, 2 bad plan, 3 the
    /// shutdown cut requests, or work, 4 a hook failed or overran.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.verdict.exit_code()
    }

    /// The exit code, as `main` returns it.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// The report as JSON. Durations are milliseconds.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let phases: Vec<Value> = self
            .phases
            .iter()
            .map(|(phase, span)| json!({"phase": phase.name(), "ms": millis(*span)}))
            .collect();
        let aborts: Vec<Value> = self.aborts.iter().map(abort_json).collect();
        let hooks: Vec<Value> = self
            .hooks
            .iter()
            .map(|hook| {
                let (name, end, ms) = (&hook.name, hook_end(hook.verdict), millis(hook.took));
                json!({"name": name, "end": end, "ms": ms, "message": hook.message})
            })
            .collect();
        json!({
            "verdict": self.verdict.name(),
            "exit_code": self.code(),
            "reason": self.reason.map(|reason| reason.to_string()),
            "error": self.error,
            "shutdown_ms": millis(self.shutdown),
            "worst_case_ms": millis(self.worst_case),
            "phases": phases,
            "requests": requests_json(&self.requests),
            "connections": connections_json(&self.connections),
            "aborts": aborts,
            "work_dropped": self.work_dropped,
            "work_panicked": self.work_panicked,
            "hooks": hooks,
        })
    }

    /// Logs what made it fail (P14).
    pub(crate) fn log_failure(&self) {
        if let Some(error) = &self.error {
            crate::log::error!(error, exit_code = self.code(), "the host failed");
        }
    }

    /// Says it in one log line.
    pub(crate) fn log(&self) {
        let requests = &self.requests;
        let hooks_failed = self.hooks.iter().filter(|hook| hook.verdict.is_stop_failure()).count();
        crate::log::info!(
            verdict = self.verdict.name(),
            exit_code = self.code(),
            reason = self.reason.map(|reason| reason.to_string()),
            error = self.error,
            shutdown_ms = millis(self.shutdown),
            worst_case_ms = millis(self.worst_case),
            started = requests.started,
            finished = requests.finished,
            timed_out = requests.timed_out,
            aborted = requests.aborted,
            gone = requests.gone,
            panicked = requests.panicked,
            connections = self.connections.accepted,
            drained = self.connections.drained,
            reset = self.connections.reset,
            close_races = self.connections.close_races,
            unannounced = self.connections.unannounced,
            work_dropped = self.work_dropped,
            work_panicked = self.work_panicked,
            hooks_failed,
            report = %self.to_json(),
            "report"
        );
    }
}

/// So that `main` can return a report.
impl Termination for Report {
    fn report(self) -> ExitCode {
        self.exit_code()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests = &self.requests;
        write!(
            f,
            "{}: {} finished, {} timed out, {} aborted, {} gone of {} requests; shutdown took {:?} of at most {:?}",
            self.verdict.name(),
            requests.finished,
            requests.timed_out,
            requests.aborted,
            requests.gone,
            requests.started,
            self.shutdown,
            self.worst_case
        )?;
        match &self.error {
            Some(error) => write!(f, "; {error}"),
            None => Ok(()),
        }
    }
}

pub(crate) fn requests_json(requests: &RequestStats) -> Value {
    json!({
        "started": requests.started,
        "in_flight": requests.in_flight(),
        "finished": requests.finished,
        "timed_out": requests.timed_out,
        "aborted": requests.aborted,
        "gone": requests.gone,
        "panicked": requests.panicked,
    })
}

pub(crate) fn connections_json(connections: &ConnectionStats) -> Value {
    json!({
        "accepted": connections.accepted,
        "open": connections.open(),
        "drained": connections.drained,
        "reset": connections.reset,
        "close_races": connections.close_races,
        "unannounced": connections.unannounced,
        "upgraded": connections.upgraded,
        "accept_errors": connections.accept_errors,
        "evicted": connections.evicted,
        "first_byte_timeouts": connections.first_byte_timeouts,
        "send_timeouts": connections.send_timeouts,
        "body_timeouts": connections.body_timeouts,
    })
}

fn abort_json(abort: &AbortedRequest) -> Value {
    json!({
        "method": abort.method,
        "path": abort.path,
        "age_ms": millis(abort.age),
        "phase": abort.phase.name(),
        "head_sent": abort.head_sent,
        "by_shutdown": abort.by_shutdown,
    })
}

/// How a hook ended, as logs and reports say it.
pub(crate) fn hook_end(verdict: HookVerdict) -> String {
    match verdict {
        HookVerdict::Started(result) => format!("start {}", result.name()),
        HookVerdict::StartDropped => "start dropped".to_owned(),
        HookVerdict::Stopped(result) => format!("stop {}", result.name()),
        HookVerdict::GivenUp(why) => format!("stop given up: {why:?}").to_lowercase(),
    }
}
