//! The report of a run (P13).

use crate::{
    host_error::{HostError, HostErrorKind, TaskError},
    http::{AbortedRequest, ConnectionStats, RequestStats, millis},
    lifecycle::{HookVerdict, Phase, StopReason, Verdict},
    unwind::AppValue,
};
use serde_json::{Value, json};
use std::{
    fmt,
    process::{ExitCode, Termination},
    time::Duration,
};

/// The report of a run. [`Host::run`](crate::Host::run) returns it, one log line contains it, and
/// the exit code follows from it.
///
/// A `main` function may return it: it implements [`Termination`] with the exit code of P13.
#[derive(Clone, Debug)]
#[must_use = "return the report from `main` or exit with its code: a failed host must not exit \
              with 0"]
#[non_exhaustive]
pub struct Report {
    /// The verdict on the run.
    pub verdict: Verdict,
    /// The reason for the stop; `None` if the start failed before anything ran.
    pub reason: Option<StopReason>,
    /// The error that made the run fail.
    pub error: Option<HostError>,
    /// Every phase and how long it lasted, in order. Empty if the start ended before anything ran.
    pub phases: Vec<(Phase, Duration)>,
    /// The time from the stop request to the end.
    pub shutdown: Duration,
    /// The longest time that the shutdown could have taken.
    pub worst_case: Duration,
    /// Requests of the main server, by outcome.
    pub requests: RequestStats,
    /// Connections of the main server.
    pub connections: ConnectionStats,
    /// The requests that were aborted; at most the first thousand.
    pub aborts: Vec<AbortedRequest>,
    /// Long streams that the shutdown ended, each at its moment. They count as finished.
    pub streams_ended: u64,
    /// Background tasks and tracked work that did not end after the cancellation and were dropped.
    /// They count like aborted requests.
    pub work_dropped: u64,
    /// Background tasks and tracked work that panicked, in any phase.
    pub work_panicked: u64,
    /// Every stage of a hook pair that ran, in the order in which they ended.
    pub hooks: Vec<HookReport>,
}

/// The end of one stage of a hook pair.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HookReport {
    /// The name of the pair.
    pub name: String,
    /// The stage, start or stop, and how it ended.
    pub verdict: HookVerdict,
    /// How long it ran.
    pub took: Duration,
    /// The error that it returned, or its panic.
    pub error: Option<TaskError>,
}

/// The end of a run.
pub(crate) struct Ended {
    pub(crate) report: Report,
    /// What is left of the app. A destructor of it may block for ever. So this is dropped after the
    /// failure was logged or printed (P14), and where there is a watchdog, after it was armed (P7).
    pub(crate) leftovers: Vec<AppValue<Box<dyn Send>>>,
}

impl Ended {
    pub(crate) fn new(report: Report, leftover: impl Send + 'static) -> Self {
        Self { report, leftovers: Vec::new() }.with(leftover)
    }

    pub(crate) fn with(mut self, leftover: impl Send + 'static) -> Self {
        self.leftovers.push(AppValue::new(Box::new(leftover)));
        self
    }
}

impl Report {
    /// The report of a host that failed before anything ran. Logs nothing.
    pub(crate) fn failed_to_start(error: HostError, worst_case: Duration) -> Self {
        let verdict = match error.kind() {
            HostErrorKind::Settings => Verdict::BadPlan,
            HostErrorKind::Build
            | HostErrorKind::System
            | HostErrorKind::Listen
            | HostErrorKind::Tls
            | HostErrorKind::StartHook
            | HostErrorKind::StartTimeout
            | HostErrorKind::BackgroundTask
            | HostErrorKind::Work => Verdict::Failed,
        };
        Self { verdict, error: Some(error), ..Self::of_nothing(worst_case) }
    }

    /// The report of a host whose stop was requested before anything ran. Logs it.
    #[cfg(feature = "tls")]
    pub(crate) fn stopped_before_start(reason: StopReason, worst_case: Duration) -> Self {
        let report = Self { reason: Some(reason), ..Self::of_nothing(worst_case) };
        report.log();
        report
    }

    /// Returns the report of a start that failed or was stopped before anything ran.
    fn of_nothing(worst_case: Duration) -> Self {
        Self {
            verdict: Verdict::Clean,
            reason: None,
            error: None,
            phases: Vec::new(),
            shutdown: Duration::ZERO,
            worst_case,
            requests: RequestStats::default(),
            connections: ConnectionStats::default(),
            aborts: Vec::new(),
            streams_ended: 0,
            work_dropped: 0,
            work_panicked: 0,
            hooks: Vec::new(),
        }
    }

    /// The exit code: 0 clean; 1 the start or a background task failed, or tracked work panicked; 2
    /// bad plan or setting; 3 the shutdown cut requests or work; 4 a stop hook failed or was given
    /// up.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.verdict.exit_code()
    }

    /// The exit code in the form that `main` returns.
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
                let (name, end, ms) = (&hook.name, hook.verdict.to_string(), millis(hook.took));
                let message = hook.error.as_ref().map(TaskError::with_causes);
                json!({"name": name, "end": end, "ms": ms, "message": message})
            })
            .collect();
        json!({
            "verdict": self.verdict.name(),
            "exit_code": self.code(),
            "reason": self.reason.map(|reason| reason.to_string()),
            "error": self.error_text(),
            "shutdown_ms": millis(self.shutdown),
            "worst_case_ms": millis(self.worst_case),
            "phases": phases,
            "requests": requests_json(&self.requests),
            "connections": connections_json(&self.connections),
            "aborts": aborts,
            "streams_ended": self.streams_ended,
            "work_dropped": self.work_dropped,
            "work_panicked": self.work_panicked,
            "hooks": hooks,
        })
    }

    fn error_text(&self) -> Option<&str> {
        self.error.as_ref().map(HostError::with_causes)
    }

    /// Logs the error, if there is one (P14).
    pub(crate) fn log_failure(&self) {
        if let Some(error) = self.error_text() {
            crate::log::error!(error, exit_code = self.code(), "the host failed");
        }
    }

    /// Logs the report as one line.
    pub(crate) fn log(&self) {
        let requests = &self.requests;
        let hooks_failed = self.hooks.iter().filter(|hook| hook.verdict.is_stop_failure()).count();
        crate::log::info!(
            verdict = self.verdict.name(),
            exit_code = self.code(),
            reason = self.reason.map(|reason| reason.to_string()),
            error = self.error_text(),
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
            streams_ended = self.streams_ended,
            work_dropped = self.work_dropped,
            work_panicked = self.work_panicked,
            hooks_failed,
            report = %self.to_json(),
            "report"
        );
    }
}

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
            "{}: {} finished, {} timed out, {} aborted, {} gone of {} requests; shutdown took {:?} \
             of at most {:?}",
            self.verdict.name(),
            requests.finished,
            requests.timed_out,
            requests.aborted,
            requests.gone,
            requests.started,
            self.shutdown,
            self.worst_case
        )?;
        if self.work_dropped > 0 {
            write!(f, "; work dropped: {}", self.work_dropped)?;
        }
        for hook in self.hooks.iter().filter(|hook| hook.verdict.is_stop_failure()) {
            write!(f, "; hook {}: {}", hook.name, hook.verdict)?;
            if let Some(error) = &hook.error {
                write!(f, ": {}", error.with_causes())?;
            }
        }
        match self.error_text() {
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
        "proxy_headers_refused": connections.proxy_headers_refused,
        "handshakes": connections.handshakes,
        "handshakes_failed": connections.handshakes_failed,
        "handshake_timeouts": connections.handshake_timeouts,
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
