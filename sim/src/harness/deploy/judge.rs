//! Oracles of a deploy.

use super::{
    hosted::SETUP_PANICKED,
    platform::{Deploy, Platform},
    play::DeployOutcome,
    process::KILLED,
    records::{ACKNOWLEDGED, CLOSED, DELIVERED, OPENED, RETURNED, USED, WROTE},
    rollout::{ENDS, SIGTERM, STUCK},
    traffic::{AttemptResult, Observed},
};
use crate::{
    client::How,
    harness::{assertions::BROKEN, downstream::EFFECT},
    oracle::Broken,
    trace::Record,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// What is judged.
pub(super) struct Case<'a> {
    pub(super) deploy: Deploy,
    pub(super) lame_duck: Duration,
    pub(super) outcome: &'a DeployOutcome,
    records: Vec<Record>,
}

/// A promise that did not hold.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) broken: Broken,
    /// The client, key or message that shows it.
    pub(super) of: Option<String>,
    /// When it shows.
    pub(super) at: Duration,
}

/// Why a promise does not hold, which client, key or message shows it, and when.
type Why = (String, Option<String>, Duration);
type Check = fn(&Case<'_>) -> Option<Why>;

/// Each oracle with its promise.
const ORACLES: [(&str, &str, Check); 7] = [
    ("D6", "the deploy ends", the_deploy_ends),
    ("S7", "assertions hold", assertions_hold),
    ("D1", "no acknowledged write is lost", no_acknowledged_write_is_lost),
    ("D2", "no write is applied twice", no_write_is_applied_twice),
    ("D3", "every message is acknowledged once or delivered again", messages_are_acknowledged_once),
    ("D4", "nothing is used after its stop hook ran", nothing_is_used_after_its_stop_hook),
    ("D5", "no client sees an avoidable error", no_avoidable_error),
];

impl<'a> Case<'a> {
    pub(super) fn new(deploy: Deploy, lame_duck: Duration, outcome: &'a DeployOutcome) -> Self {
        Self { deploy, lame_duck, outcome, records: outcome.trace.records() }
    }

    /// Returns the first promise that does not hold.
    pub(super) fn judge(&self) -> Option<Finding> {
        ORACLES.iter().find_map(|(promise, words, check)| {
            let (why, of, at) = check(self)?;
            Some(Finding { broken: Broken { promise, words, why }, of, at })
        })
    }

    fn events(&self, event: &'static str) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(move |record| record.event == event)
    }

    /// Returns when a process was stopped.
    fn stopped(&self, process: &str) -> Option<Duration> {
        self.events(SIGTERM).find(|record| &*record.actor == process).map(|record| record.at)
    }

    fn has_failing_downstream(&self, until: Duration) -> bool {
        self.events(EFFECT).any(|record| record.at <= until)
    }

    /// Returns what has happened to each message, in order.
    fn messages(&self) -> BTreeMap<(&str, &str), Vec<&Record>> {
        let mut messages: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for record in &self.records {
            if matches!(record.event, DELIVERED | ACKNOWLEDGED | RETURNED)
                && let Some(of) = record.text("of")
            {
                messages.entry((&*record.actor, of)).or_default().push(record);
            }
        }
        messages
    }
}

fn the_deploy_ends(case: &Case<'_>) -> Option<Why> {
    if let Some(stuck) = case.events(STUCK).next() {
        let process = stuck.text("process").unwrap_or_default();
        let panicked = case.events(SETUP_PANICKED).filter(|record| *record.actor == *process);
        let cause = panicked.filter_map(|record| record.text("why")).last();
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        let after = stuck.text("after")?;
        let why = format!("{process} did not become ready within {after}{cause}");
        return Some((why, None, stuck.at));
    }
    if let Some(killed) = case.events(KILLED).next() {
        let (process, after) = (&killed.actor, killed.text("after")?);
        let why = format!("{process} was still running {after} after its SIGTERM, and was killed");
        return Some((why, None, killed.at));
    }
    let ended = case.outcome.is_finished && case.events(ENDS).next().is_some();
    (!ended).then(|| ("it took longer than an hour".to_owned(), None, Duration::ZERO))
}

fn assertions_hold(case: &Case<'_>) -> Option<Why> {
    let record = case.events(BROKEN).next()?;
    let why = format!(
        "always: {} does not hold at {}, {:?} after the begin",
        record.text("what")?,
        record.text("at")?,
        record.at
    );
    Some((why, None, record.at))
}

fn no_acknowledged_write_is_lost(case: &Case<'_>) -> Option<Why> {
    case.events(OPENED).next()?;
    let written: BTreeSet<&str> =
        case.events(WROTE).filter_map(|record| record.text("of")).collect();
    let lost = case.outcome.observed.iter().find(|observed| {
        let key = observed.key.as_deref();
        observed.request.is_write()
            && observed.is_acknowledged()
            && key.is_some_and(|key| !written.contains(key))
    })?;
    let key = lost.key.clone()?;
    let why = format!(
        "{} was acknowledged at {:?}{}, and {key} was never written",
        lost.request.name(),
        lost.ended,
        case.by_whom(lost)
    );
    Some((why, Some(key), lost.ended))
}

fn no_write_is_applied_twice(case: &Case<'_>) -> Option<Why> {
    let mut first: BTreeMap<(&str, &str), Duration> = BTreeMap::new();
    for record in case.events(WROTE) {
        let key = record.text("of")?;
        if let Some(before) = first.insert((&*record.actor, key), record.at) {
            let sent = case.outcome.observed.iter().find(|seen| seen.key.as_deref() == Some(key));
            let sent = sent.map_or(String::new(), |sent| {
                format!(" ({}, sent {} times)", sent.request.name(), sent.attempts)
            });
            let why = format!(
                "{} applied {key}{sent} at {before:?} and again at {:?}",
                record.actor, record.at
            );
            return Some((why, Some(key.to_owned()), record.at));
        }
    }
    None
}

fn messages_are_acknowledged_once(case: &Case<'_>) -> Option<Why> {
    let ends = case.events(ENDS).next()?.at;
    for ((queue, message), records) in case.messages() {
        let at = |event: &str| -> Vec<Duration> {
            records.iter().filter(|record| record.event == event).map(|record| record.at).collect()
        };
        let (acknowledged, delivered) = (at(ACKNOWLEDGED), at(DELIVERED));
        let why = if acknowledged.len() > 1 {
            format!(
                "the message {message} of {queue}, delivered at {delivered:?}, was acknowledged at \
                 {acknowledged:?}"
            )
        } else if acknowledged.is_empty()
            && records.last().is_some_and(|last| last.event == DELIVERED && last.at < ends)
        {
            // The old processes are gone, and the new ones have had some seconds more (`SETTLE`).
            format!(
                "the message {message} of {queue}, delivered at {delivered:?}, was neither \
                 acknowledged nor delivered again"
            )
        } else {
            continue;
        };
        return Some((why, Some(message.to_owned()), records.last()?.at));
    }
    None
}

fn nothing_is_used_after_its_stop_hook(case: &Case<'_>) -> Option<Why> {
    let mut closed: BTreeMap<(&str, &str), Duration> = BTreeMap::new();
    for record in &case.records {
        let process = &*record.actor;
        match (record.event, record.text("of")) {
            // It may be started again.
            ("process begins", _) => closed.retain(|(of, _), _| *of != process),
            (CLOSED, Some(of)) => drop(closed.entry((process, of)).or_insert(record.at)),
            (USED, Some(of)) => {
                if let Some(at) = closed.get(&(process, of)) {
                    let why = format!(
                        "{process} used {of} at {:?}, {:?} after its stop hook closed it",
                        record.at,
                        record.at.saturating_sub(*at)
                    );
                    return Some((why, None, record.at));
                }
            }
            _ => {}
        }
    }
    None
}

fn no_avoidable_error(case: &Case<'_>) -> Option<Why> {
    let lost = case.outcome.observed.iter().find(|observed| {
        let fails = observed.lost().is_some() || observed.is_refused();
        (fails || observed.missed().is_some()) && !case.is_unavoidable(observed)
    })?;
    let cause = match &lost.last.result {
        AttemptResult::Response { status, body } => {
            let missed = lost.missed().map_or_else(String::new, |text| {
                format!(" in place of a body that contains {text:?}")
            });
            format!("{status} {:?}{missed}", body.trim())
        }
        AttemptResult::Failed(failure) => failure.how.name().to_owned(),
        AttemptResult::Unserved => "no process to send it to".to_owned(),
    };
    let why = format!(
        "{} got {cause} at {:?}{}{}",
        lost.request.name(),
        lost.ended,
        case.by_whom(lost),
        case.hint(lost)
    );
    Some((why, Some(lost.client.to_string()), lost.ended))
}

impl Case<'_> {
    /// Returns the process that ran on a host at a time.
    fn process_on(&self, target: usize, at: Duration) -> Option<&Record> {
        let place = target % self.deploy.replicas;
        let is_old = target < self.deploy.replicas;
        let names = [format!("old-{place}"), format!("new-{place}")];
        let surge = self.deploy.platform.has_surge();
        let fits = |record: &&Record| {
            record.at <= at
                && names
                    .iter()
                    .enumerate()
                    .any(|(new, name)| *name == *record.actor && (!surge || is_old == (new == 0)))
        };
        self.events("process begins").filter(fits).last()
    }

    /// Describes the process of the last attempt, and what happened to it before.
    fn by_whom(&self, observed: &Observed) -> String {
        let process =
            observed.last.target.and_then(|target| self.process_on(target, observed.ended));
        let Some(begin) = process else { return String::new() };
        let since = |at: Duration| observed.ended.saturating_sub(at);
        let stopped = self.stopped(&begin.actor).filter(|stop| *stop <= observed.ended);
        match stopped {
            Some(stop) => format!(" from {}, {:?} after its SIGTERM", begin.actor, since(stop)),
            None => format!(" from {}, {:?} after its start", begin.actor, since(begin.at)),
        }
    }

    fn hint(&self, observed: &Observed) -> String {
        let lag = self.deploy.platform.propagation();
        let refused = matches!(&observed.last.result, AttemptResult::Failed(failure)
            if matches!(failure.how, How::Refused | How::ResetBeforeHead | How::EndBeforeHead));
        if refused && self.lame_duck < lag {
            return format!(
                "; nodes may send requests for {lag:?} after it, and the lame duck delay is {:?}",
                self.lame_duck
            );
        }
        String::new()
    }

    /// Whether no service could have avoided the error on this platform.
    fn is_unavoidable(&self, observed: &Observed) -> bool {
        if self.has_failing_downstream(observed.ended) {
            return true;
        }
        let alone = match self.deploy.platform {
            Platform::Systemd(_) => true,
            Platform::ProbingBalancer(_) => self.deploy.replicas == 1,
            Platform::Kubernetes(_) | Platform::BlueGreen(_) => false,
        };
        match &observed.last.result {
            AttemptResult::Unserved => alone,
            AttemptResult::Response { .. } => false,
            AttemptResult::Failed(failure) => {
                (alone && failure.how == How::Refused)
                    || (failure.answer_bytes == 0 && self.was_unused_in_the_delay(observed))
            }
        }
    }

    /// Whether the connection had no response in the lame duck delay, so that its close could not
    /// be announced (RFC 9112 §9.5).
    fn was_unused_in_the_delay(&self, observed: &Observed) -> bool {
        let stopped = observed
            .last
            .target
            .and_then(|target| self.process_on(target, observed.last.used?))
            .and_then(|begin| self.stopped(&begin.actor));
        stopped.is_some_and(|stop| {
            observed.last.used.is_some_and(|used| used <= stop)
                && observed.ended >= stop + self.lame_duck
        })
    }
}
