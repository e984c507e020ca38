//! The driver's log lines, and its report at the end.

use super::Driver;
use crate::{
    host_error::{HostError, HostErrorKind},
    http::{HttpService, Outstanding, millis},
    lifecycle::{Event, Moment, Outcome, Phase, StopReason, Verdict},
    report::{Ended, Report},
    runtime::{Reservation, SignalSource, Spawner},
    settings::Settings,
};
use std::time::Duration;

impl<S: HttpService, M: Reservation, G: SignalSource, R: Spawner> Driver<S, M, G, R> {
    pub(super) fn announce(&self) {
        let addresses: Vec<String> =
            self.status.main_addresses.iter().map(ToString::to_string).collect();
        let settings = &self.config.settings;
        crate::log::info!(
            main = addresses.join(", "),
            internal = %self.status.internal_address,
            app_version = settings.app_version,
            workers = self.spawner.workers().get(),
            worst_case = %humantime::format_duration(settings.plan.worst_case()),
            grace_period = %humantime::format_duration(settings.grace_period),
            "bound"
        );
    }

    /// Logs what the drain or the cancel wait waits for, if that is due.
    pub(super) fn log_wait(&mut self, now: Moment) {
        if !self.wait_log.as_mut().is_some_and(|log| log.is_due(now)) {
            return;
        }
        let stop = self.lifecycle.history().stop;
        crate::log::info!(
            phase = self.lifecycle.phase().name(),
            requests = self.main.metrics.requests().in_flight(),
            connections = self.main.metrics.connections().open(),
            since_stop_ms = stop.map(|stop| millis(now.since(stop.at))),
            waiting_for = Outstanding::of(&self.main).to_text(),
            "still waiting"
        );
    }

    /// Logs a stop request that arrives after the stop has begun.
    pub(super) fn log_further_stop(&self, event: Event, outcome: Outcome) {
        if let Event::StopRequested(reason) = event
            && reason != StopReason::TaskFailed
        {
            let effect = match outcome {
                Outcome::Applied => "ends the current wait",
                Outcome::Ignored => "ignored, the shutdown is in progress",
            };
            let phase = self.lifecycle.phase().name();
            crate::log::info!(%reason, phase, effect, "further stop request");
        }
    }

    pub(super) fn report(mut self) -> Ended {
        let history = self.lifecycle.history();
        let now = self.clock.now();
        let mut requests = self.main.metrics.requests();
        // A handler that blocks its worker cannot even be dropped. The exit cuts every request that
        // has no outcome by now.
        let stuck = requests.in_flight();
        requests.aborted += stuck;
        if stuck > 0 {
            let waiting_for = Outstanding::of(&self.main).to_text();
            crate::log::error!(
                requests = stuck,
                waiting_for,
                "requests aborted at exit: their handlers block a worker thread"
            );
        }
        // The same holds for work that blocks its thread.
        let stuck_work = self.main.tracked_work.len() as u64;
        if stuck_work > 0 {
            let waiting_for = Outstanding::of(&self.main).to_text();
            crate::log::error!(
                work = stuck_work,
                waiting_for,
                "work dropped at exit: it blocks its thread"
            );
        }
        let work_dropped = self.main.work_dropped.get() + stuck_work;
        let cut = self.main.aborted_by_stop.get() + stuck + work_dropped;
        let verdict = Verdict::of(history, cut, self.main.work_panicked.get());
        let stop = history.stop;
        let error = self
            .failure
            .take()
            .or_else(|| {
                let summary = self.main.work_panic_summary()?;
                Some(HostError::new(HostErrorKind::Work, summary))
            })
            .or_else(|| start_timeout(stop?.reason, &self.config.settings));
        let report = Report {
            verdict,
            reason: stop.map(|stop| stop.reason),
            error,
            phases: history
                .phases
                .iter()
                .map(|span| (span.phase, span.to.unwrap_or(now).since(span.from)))
                .collect(),
            shutdown: stop.map(|stop| now.since(stop.at)).unwrap_or_default(),
            worst_case: self.config.settings.plan.worst_case(),
            requests,
            connections: self.main.metrics.connections(),
            aborts: self.main.aborts(),
            streams_ended: self.main.metrics.streams_ended.get(),
            work_dropped,
            work_panicked: self.main.work_panicked.get(),
            hooks: self.status.hooks(),
        };
        report.log();
        Ended::new(report, self)
    }
}

/// When a wait of the shutdown is logged again: one second after its start, then each time after
/// twice the time, at most ten seconds.
#[derive(Debug)]
pub(super) struct WaitLog {
    next: Moment,
    interval: Duration,
}

impl WaitLog {
    pub(super) fn new(now: Moment) -> Self {
        let interval = Duration::from_secs(1);
        Self { next: now + interval, interval }
    }

    pub(super) const fn next(&self) -> Moment {
        self.next
    }

    fn is_due(&mut self, now: Moment) -> bool {
        let is_due = now >= self.next;
        if is_due {
            self.interval = (self.interval * 2).min(Duration::from_secs(10));
            self.next = now + self.interval;
        }
        is_due
    }
}

/// Returns the error of a start that took too long.
fn start_timeout(reason: StopReason, settings: &Settings) -> Option<HostError> {
    match reason {
        StopReason::StartTimedOut => {
            let limit = humantime::format_duration(settings.plan.start);
            let knobs = settings.knobs(&["start"]);
            let message = format!("the start took longer than its limit plan.start={limit}{knobs}");
            Some(HostError::new(HostErrorKind::StartTimeout, message))
        }
        StopReason::Signal(_)
        | StopReason::Requested
        | StopReason::TaskFailed
        | StopReason::StartFailed => None,
    }
}

/// The log message of a phase.
pub(super) const fn phase_message(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting: not ready yet",
        Phase::Serving => "serving: ready",
        Phase::LameDuck => "lame duck: no longer ready, still serving",
        Phase::Draining => "draining: listeners close, requests in flight finish",
        Phase::Cancelling => "cancelling: remaining requests and work are cancelled",
        Phase::CleaningUp => "cleaning up: stop hooks run",
        Phase::Stopped => "stopped: shutdown complete",
    }
}
