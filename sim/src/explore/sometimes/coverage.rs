//! Queries on a run history for the sometimes-table.

use super::{NEAR, RunHistory};
use crate::{
    draw::STOPS,
    oracle::{ObservedRequest, RequestResult},
    scenario::{Fault, SERVER, StopBy, Traffic, client_name},
    tasks::Until,
    trace::Record,
};
use lameduck::{
    Report, RequestStats,
    lifecycle::{HookResult, HookVerdict, Phase},
};
use std::time::Duration;

/// A run history with the values that many states need.
pub(in crate::explore) struct Coverage<'a> {
    pub(super) history: &'a RunHistory<'a>,
    /// All stop requests, each with the phase in which it was made.
    pub(super) stops: Vec<(Phase, StopBy)>,
    /// For each client, the times of its first and last record.
    spans: Vec<Option<(Duration, Duration)>>,
}

impl<'a> Coverage<'a> {
    pub(in crate::explore) fn new(history: &'a RunHistory<'a>) -> Self {
        let mut spans = vec![None; history.scenario.clients.len()];
        let mut stops = Vec::new();
        for (place, record) in history.records.iter().enumerate() {
            let client = record.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
            if let Some(span) = client.and_then(|n| spans.get_mut(n)) {
                let (from, _) = span.unwrap_or((record.at, record.at));
                *span = Some((from, record.at));
            } else if let Some(by) = stop_source(record) {
                let phase = history.phases.iter().rfind(|(_, entered, _)| *entered < place);
                stops.push((phase.map_or(Phase::Starting, |(phase, _, _)| *phase), by));
            }
        }
        Self { history, stops, spans }
    }

    pub(super) fn report(&self) -> Option<&Report> {
        self.history.outcome.report.as_ref()
    }

    pub(super) fn tally(&self) -> Option<&RequestStats> {
        self.report().map(|report| &report.requests)
    }

    pub(super) fn code(&self) -> Option<u64> {
        self.history.exit().map(|(_, code)| code)
    }

    pub(super) fn ended_in_start(&self) -> bool {
        self.history.began(Phase::Serving).is_none()
            && self.history.began(Phase::CleaningUp).is_some()
    }

    /// Whether a client that did not complete its handshake lost its connection at such a time.
    pub(super) fn gave_up_a_handshake(&self, at: impl Fn(Duration) -> bool) -> bool {
        let clients = self.history.scenario.clients.iter().enumerate();
        let mut slow =
            clients.filter(|(_, client)| matches!(client.traffic, Traffic::SlowHello { .. }));
        self.history.scenario.tls
            && slow.any(|(n, _)| {
                self.history
                    .events("ended")
                    .any(|record| at(record.at) && *record.actor == *client_name(n))
            })
    }

    pub(super) fn lasted(&self, phase: Phase, at_least: Duration) -> bool {
        self.history.span(phase).is_some_and(|span| span >= at_least)
    }

    /// Whether a further signal came in this phase, and the phase ended at that moment.
    pub(super) fn hurried(&self, phase: Phase) -> bool {
        let left = self.history.left(phase);
        self.stops
            .iter()
            .skip(1)
            .any(|(at, by)| *at == phase && matches!(by, StopBy::Sigint | StopBy::Sigquit))
            && self.history.impatient().any(|(_, signal)| Some(signal.at) == left)
    }

    fn number_at(&self, phase: Phase, name: &str) -> Option<u64> {
        let (_, place, _) = self.history.phases.iter().find(|(entered, _, _)| *entered == phase)?;
        self.history.records.get(*place)?.number(name)
    }

    pub(super) fn in_flight_at(&self, phase: Phase) -> Option<u64> {
        self.number_at(phase, "in_flight")
    }

    pub(super) fn is_across(&self, is: fn(&Traffic) -> bool) -> bool {
        let Some(draining) = self.history.began(Phase::Draining) else { return false };
        self.history.scenario.clients.iter().zip(&self.spans).any(|(client, span)| {
            is(&client.traffic) && span.is_some_and(|(from, to)| from < draining && draining < to)
        })
    }

    pub(super) fn aborted(&self, head_sent: &str) -> bool {
        self.history.server("abort").any(|abort| abort.text("head_sent") == Some(head_sent))
    }

    pub(super) fn completed(&self, wanted: u64) -> bool {
        let ends = self.history.requests.iter().filter_map(|observed| observed.end.as_ref());
        ends.into_iter()
            .any(|(_, end)| matches!(end, RequestResult::Completed(status, _) if *status == wanted))
    }

    pub(super) fn clients_did(&self, event: &str) -> bool {
        self.history.events(event).any(|record| record.actor.starts_with("client-"))
    }

    fn goaways(&self) -> impl Iterator<Item = &Record> {
        self.history.events("goaway")
    }

    /// Whether `such` holds for a request whose connection was opened in the lame duck delay and
    /// which had its response head there.
    pub(super) fn announced_late(&self, such: impl Fn(&ObservedRequest) -> bool) -> bool {
        let began = |phase| self.history.began(phase);
        let (Some(stop), Some(drain)) = (began(Phase::LameDuck), began(Phase::Draining)) else {
            return false;
        };
        let in_delay =
            |observed: &&ObservedRequest| observed.head.is_some_and(|(at, ..)| at < drain);
        let opened_late = |observed: &ObservedRequest| {
            self.history.events("connected").any(|record| {
                record.at > stop
                    && record.number("connection") == Some(observed.connection)
                    && *record.actor == *client_name(observed.client)
            })
        };
        let all = self.history.requests.iter();
        all.filter(in_delay).any(|observed| such(observed) && opened_late(observed))
    }

    pub(super) fn has_goaway(&self, observed: &ObservedRequest) -> bool {
        let drain = self.history.began(Phase::Draining);
        self.goaways().any(|goaway| {
            drain.is_none_or(|drain| goaway.at < drain)
                && goaway.number("connection") == Some(observed.connection)
                && *goaway.actor == *client_name(observed.client)
        })
    }

    pub(super) fn goaway_in(&self, phase: Phase) -> bool {
        let Some(began) = self.history.began(phase) else { return false };
        let next = self.history.left(phase);
        self.goaways().any(|record| record.at > began && next.is_none_or(|next| record.at < next))
    }

    pub(super) fn goaway_with_streams(&self) -> bool {
        self.goaways().any(|goaway| {
            let client = goaway.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
            self.history.requests.iter().any(|observed| {
                Some(observed.client) == client
                    && Some(observed.connection) == goaway.number("connection")
                    && observed.observed < goaway.at
                    && observed.end.as_ref().is_none_or(|(at, _)| *at > goaway.at)
            })
        })
    }

    pub(super) fn hook(&self, test: impl Fn(HookVerdict) -> bool) -> bool {
        self.report().is_some_and(|report| report.hooks.iter().any(|hook| test(hook.verdict)))
    }

    pub(super) fn started_with(&self, results: &[HookResult]) -> bool {
        self.hook(|verdict| results.iter().any(|result| verdict == HookVerdict::Started(*result)))
    }

    pub(super) fn task(&self, how: &str) -> bool {
        self.history.server("task ends").any(|record| record.text("how") == Some(how))
    }

    pub(super) fn task_notified(&self, of: Until) -> bool {
        self.history.server("task notified").any(|record| record.text("of") == Some(of.name()))
    }

    /// Whether work that outlives its response ended in the drain.
    pub(super) fn leftover_in_the_drain(&self) -> bool {
        let (Some(from), Some(to)) =
            (self.history.began(Phase::Draining), self.history.began(Phase::Cancelling))
        else {
            return false;
        };
        let is_left =
            |record: &&Record| record.text("task").is_some_and(|task| task.starts_with("left"));
        self.history
            .server("task ends")
            .filter(is_left)
            .any(|record| record.at > from && record.at <= to)
    }

    pub(super) fn completed_target(&self, target: &str) -> bool {
        let whole = |end: &Option<(Duration, RequestResult)>| {
            matches!(end, Some((_, RequestResult::Completed(200, _))))
        };
        self.history
            .requests
            .iter()
            .any(|observed| observed.target == target && whole(&observed.end))
    }

    pub(super) fn handler_near(&self, event: &'static str, phase: Phase) -> bool {
        let Some(edge) = self.history.began(phase) else { return false };
        self.history.server(event).any(|record| record.at.abs_diff(edge) <= NEAR)
    }

    pub(super) fn connected_while_settling(&self) -> bool {
        let Some(draining) = self.history.began(Phase::Draining) else { return false };
        self.history.events("connected").any(|record| {
            record.at >= draining && record.at <= draining + Duration::from_millis(20)
        })
    }

    pub(super) fn signal_at(&self, phase: Phase) -> bool {
        let Some(edge) = self.history.began(phase) else { return false };
        let observed = self.history.records.iter().filter(|record| stop_source(record).is_some());
        observed.skip(1).any(|record| record.at == edge)
    }

    pub(super) fn held_at(&self, phase: Phase) -> bool {
        let Some(edge) = self.history.began(phase) else { return false };
        self.history.scenario.faults.iter().any(|fault| {
            let Fault::Hold { at_ms, for_ms } = fault else { return false };
            let from = Duration::from_millis(*at_ms);
            from <= edge && edge <= from + Duration::from_millis(*for_ms)
        })
    }

    pub(super) fn has_fault(&self, is: impl Fn(&Fault) -> bool) -> bool {
        self.history.scenario.faults.iter().any(is)
    }

    pub(super) fn accept_failed_in(&self, how: &str, phase: Phase) -> bool {
        let Some(from) = self.history.began(phase) else { return false };
        let to = self.history.left(phase).unwrap_or(Duration::MAX);
        self.history
            .server("accept failed")
            .any(|record| record.text("how") == Some(how) && record.at >= from && record.at < to)
    }

    /// Whether the close of the internal server waited for a client.
    pub(super) fn internal_close_waited(&self) -> bool {
        let (Some(from), Some(to)) =
            (self.history.began(Phase::CleaningUp), self.history.began(Phase::Stopped))
        else {
            return false;
        };
        self.history.scenario.hooks.is_empty()
            && self.history.has_slow_internal_client()
            && to > from + Duration::from_millis(200)
    }

    pub(super) fn probed(&self, path: &str, status: u64, phase: Phase) -> bool {
        let Some(from) = self.history.began(phase) else { return false };
        let to = self.history.left(phase).unwrap_or(Duration::MAX);
        self.history.events("probe").any(|record| {
            let observed = Duration::from_micros(record.number("asked_us").unwrap_or(0));
            record.text("path") == Some(path)
                && record.number("status") == Some(status)
                && observed >= from
                && record.at <= to
        })
    }
}

fn stop_source(record: &Record) -> Option<StopBy> {
    if &*record.actor != SERVER || record.text("delivery") == Some("no receiver") {
        return None;
    }
    match record.event {
        "shutdown handle" => Some(StopBy::Handle),
        "signal" => STOPS.into_iter().find(|by| {
            by.signal().is_some_and(|signal| Some(signal.name()) == record.text("signal"))
        }),
        _ => None,
    }
}

/// Whether a client that sent half a head got a response.
pub(super) fn is_answered_half_head(record: &Record) -> bool {
    record.number("answer_bytes") > Some(0)
}
