//! What a scenario contains that excepts a run from what would otherwise hold.

use super::{ObservedRequest, RunHistory, SKEW_ROUNDING};
use crate::{
    scenario::{Client, RareRequest, RequestKind, StopBy, Traffic},
    trace::Record,
};
use lameduck::lifecycle::{HookVerdict, Phase};
use std::time::Duration;

/// Message of the host's log about a response that it refused to send.
pub(crate) const REFUSED: &str = "invalid response; the client gets a 500";
/// Messages of the host's log about a response body that did not come to its end.
const BODY_FAILURES: [&str; 3] = ["response body failed", "response body panicked", REFUSED];

impl RunHistory<'_> {
    /// Whether the host logged that a response body of a user's service failed, of this request or
    /// of another one with the same path, while this one was in flight.
    #[must_use]
    pub fn failed_in_its_body(&self, observed: &ObservedRequest) -> bool {
        let path = observed.target.split('?').next();
        let end = observed.end.as_ref().map_or(Duration::MAX, |(at, _)| *at);
        let mut failures = self.users_body_failures();
        failures.any(|log| log.text("path") == path && (observed.observed..=end).contains(&log.at))
    }

    /// Whether a response may be lost as the host closes the connection after it, with input on its
    /// way: in a network without acknowledgements the host does not see whether it has arrived.
    #[must_use]
    pub fn may_be_lost_at_its_close(&self, observed: &ObservedRequest) -> bool {
        let closes = |kind: &RequestKind| {
            matches!(kind, RequestKind::Rare(RareRequest::Closes { .. } | RareRequest::Late { .. }))
                || matches!(kind, RequestKind::Odd(odd) if odd.closes())
        };
        !self.resets() && self.request_kind(observed).is_some_and(closes)
    }

    /// Whether this line of the host's log, about an aborted request, follows from a response body
    /// of a user's service that failed.
    #[must_use]
    pub fn is_of_a_failed_body(&self, aborted: &Record) -> bool {
        let mut failures = self.users_body_failures();
        failures.any(|log| log.at == aborted.at && log.text("path") == aborted.text("path"))
    }

    /// Returns the lines of the host's log about response bodies of a user's service that failed.
    fn users_body_failures(&self) -> impl Iterator<Item = &Record> {
        let is_users = |client: &Client| matches!(client.request_kind, RequestKind::User(_));
        let is_any = self.scenario.clients.iter().any(is_users);
        self.server("log").filter(move |log| {
            is_any && log.text("message").is_some_and(|message| BODY_FAILURES.contains(&message))
        })
    }

    /// Whether a background task failed while it was needed. Returns `None` if the failure and the
    /// cancellation are too near to each other.
    #[must_use]
    pub fn a_task_failed(&self) -> Option<bool> {
        let cancelling = self.began(Phase::Cancelling).unwrap_or(Duration::MAX);
        let fails = |record: &&Record| {
            matches!(record.text("how"), Some("failed" | "panicked"))
                && self
                    .scenario
                    .tasks
                    .iter()
                    .any(|task| Some(task.name.as_str()) == record.text("task"))
        };
        let at = self.server("task ends").filter(fails).map(|record| record.at).min();
        let is_clear =
            at.is_none_or(|at| at != cancelling && at.abs_diff(cancelling) >= self.tolerance());
        is_clear.then_some(at < Some(cancelling) && at.is_some())
    }

    /// Whether the start of this hook was dropped. It may have finished all the same.
    #[must_use]
    pub fn was_dropped(&self, hook: &str) -> bool {
        let dropped = |report: &lameduck::HookReport| {
            report.name == hook && report.verdict == HookVerdict::StartDropped
        };
        self.outcome.report.as_ref().is_some_and(|report| report.hooks.iter().any(dropped))
    }

    /// Whether a start hook blocks its thread, so that it cannot be cancelled.
    #[must_use]
    pub fn has_blocking_start(&self) -> bool {
        self.scenario.hooks.iter().any(|hook| hook.start_blocks)
    }

    /// Whether a request waited at its client, which had as many streams open as the host allows.
    #[must_use]
    pub fn may_wait_for_a_stream(&self, observed: &ObservedRequest) -> bool {
        // Before the SETTINGS, hyper's client opens 100.
        let most = self.scenario.limits().http2_streams_max.min(100);
        let is_open = |other: &&ObservedRequest| {
            (other.client, other.connection) == (observed.client, observed.connection)
                && other.number != observed.number
                && other.observed <= observed.observed
                && other.end.as_ref().is_none_or(|(at, _)| *at >= observed.observed)
        };
        let open = self.requests.iter().filter(is_open).count();
        u32::try_from(open).is_ok_and(|open| open >= most)
    }

    /// Whether anything except requests and idle connections may be running in the drain.
    #[must_use]
    pub fn has_long_running_work(&self) -> bool {
        let keeps = |client: &Client| {
            let lasts = |request_kind: &RequestKind| {
                matches!(
                    request_kind,
                    RequestKind::Work(..)
                        | RequestKind::Events
                        | RequestKind::HeadOf(_)
                        | RequestKind::Rare(_)
                )
            };
            client.kinds().any(lasts) || matches!(client.traffic, Traffic::Upgraded { .. })
        };
        !self.scenario.tasks.is_empty() || self.scenario.clients.iter().any(keeps)
    }

    /// Whether the time of a stop hook may expire before the hook begins: its guaranteed time is
    /// within the rounding of timers.
    #[must_use]
    pub fn has_no_time(&self, hook: &str) -> bool {
        let hooks = &self.scenario.hooks;
        let own = hooks.iter().filter_map(|hook| hook.budget_ms).sum::<u64>();
        let sharing = hooks.iter().filter(|hook| hook.budget_ms.is_none()).count().max(1) as u64;
        let share = self.scenario.plan.cleanup.saturating_sub(own) / sharing;
        let mine = hooks
            .iter()
            .find(|script| script.name == hook)
            .and_then(|script| script.budget_ms)
            .unwrap_or(share);
        Duration::from_millis(mine) <= SKEW_ROUNDING + self.tolerance()
    }

    /// Whether a further SIGINT or SIGQUIT may have ended a wait.
    #[must_use]
    pub fn is_impatient(&self) -> bool {
        self.scenario.stops.len() > self.initial_stops()
            && self
                .scenario
                .stops
                .iter()
                .any(|stop| matches!(stop.by, StopBy::Sigint | StopBy::Sigquit))
    }
}
