//! P7: long streams end inside their budget, and nothing else benefits from it.

use super::{Exercise, Judgement, ObservedRequest, RequestResult, RunHistory};
use crate::{
    scenario::{RareRequest, RequestKind},
    trace::Record,
};
use lameduck::lifecycle::{ABORT_FLUSH, Phase};
use std::time::Duration;

/// Time for the host's part of an end.
const SOON: Duration = Duration::from_millis(20);

/// Probability below which it is no chance that all streams end together.
const UNLIKELY: f64 = 1e-6;

/// The target of a long stream.
const TARGET: &str = "/events?end=spread";

/// Checks that a long stream ends complete and inside its budget, that those that ended so are
/// counted, and that every other handler ends when it would without a budget of streams.
pub(super) fn streams_have_a_budget(history: &RunHistory<'_>) -> Judgement {
    let plan = history.scenario.plan();
    let Some(draining) = history.began(Phase::Draining).filter(|_| !plan.streams.is_zero()) else {
        return Ok(Exercise::No);
    };
    let is_stream = |observed: &&ObservedRequest| {
        matches!(
            history.request_kind(observed),
            Some(RequestKind::Rare(RareRequest::LongStream | RareRequest::StreamWork(_)))
        )
    };
    let by = draining + history.world(plan.streams);
    let mut ended = 0;
    let mut ends = Vec::new();
    for observed in history.requests.iter().filter(is_stream) {
        let (Some(_), Some((at, end))) = (observed.head, &observed.end) else { continue };
        let late = by.max(observed.observed + history.under_way())
            + history.under_way() * 2
            + SOON
            + history.tolerance();
        let wrong = match end {
            RequestResult::Completed(200, _) if *at < draining => "before the drain",
            RequestResult::Completed(200, _) if *at > late && history.delivers() => {
                "after its budget"
            }
            RequestResult::Completed(200, _) => {
                ended += 1;
                ends.extend(observed.head.filter(|(head, ..)| *head < draining).map(|_| *at));
                continue;
            }
            // Without a cancel wait before the abort, the last stream may end in its moment.
            RequestResult::Failed(_) if plan.cancel <= ABORT_FLUSH && *at >= by => continue,
            RequestResult::Failed(_) if history.delivers() && !history.is_impatient() => "by a cut",
            RequestResult::Failed(_) | RequestResult::Completed(..) => continue,
        };
        return Err(format!(
            "a long stream of client-{} ended at {at:?}, {wrong}; its budget was from {draining:?} \
             to {by:?}",
            observed.client
        ));
    }
    ends_are_spread(history, &ends)?;
    ended += conversations_end(history, draining)?;
    let counted = history.outcome.report.as_ref().map(|report| report.streams_ended);
    if counted.is_some_and(|counted| counted < ended) {
        return Err(format!("{ended} long streams ended, but the host counts {counted:?}"));
    }
    let most = streams_in_the_drain(history, draining);
    if counted.is_some_and(|counted| counted > most) {
        return Err(format!("the drain had {most} long streams, but the host counts {counted:?}"));
    }
    work_of_streams_has_their_time(history)?;
    nothing_else_benefits(history, draining)?;
    Ok(Exercise::of(usize::try_from(ended).unwrap_or(usize::MAX)))
}

/// The number of long streams and of upgraded ones that the drain may have found, or got.
fn streams_in_the_drain(history: &RunHistory<'_>, draining: Duration) -> u64 {
    let is_stream = |begins: &&Record| {
        let target = begins.text("target").unwrap_or_default();
        target == TARGET || target.contains("&end=spread")
    };
    let is_long = |begins: &&Record| {
        let ends = history.of_its_handler(begins, "conversation ends");
        ends.is_none_or(|ends| ends.text("long") == Some("yes") && ends.at >= draining)
    };
    let streams = history.server("handler begins").filter(is_stream).count();
    let conversations = history.server("conversation begins").filter(is_long).count();
    (streams + conversations) as u64
}

/// Checks that many streams which were open at the drain do not end together.
fn ends_are_spread(history: &RunHistory<'_>, ends: &[Duration]) -> Result<(), String> {
    let budget = history.world(history.scenario.plan().streams);
    let (Some(first), Some(last)) = (ends.iter().min(), ends.iter().max()) else { return Ok(()) };
    let near = budget / 50 + history.under_way();
    // All moments are within `near` after the first of them.
    let share = near.as_secs_f64() / budget.as_secs_f64();
    let chance = ends.iter().skip(1).fold(ends.len() as f64, |chance, _| chance * share);
    let is_judged = chance < UNLIKELY
        && budget > SOON * 10
        && history.delivers()
        && !history.is_impatient()
        && history.tolerance().is_zero();
    if is_judged && *last - *first < near {
        return Err(format!(
            "{} long streams ended between {first:?} and {last:?}, with {budget:?} to be \
             spread over",
            ends.len()
        ));
    }
    Ok(())
}

/// Checks that upgraded connections which are long streams are told so inside their budget, and
/// have all of it, and that others have the time of requests. Returns the number that were told.
fn conversations_end(history: &RunHistory<'_>, draining: Duration) -> Result<u64, String> {
    let plan = history.scenario.plan();
    let slack = SOON + history.tolerance();
    let by = draining + history.world(plan.streams);
    let whole = draining + history.world(plan.drain.max(plan.streams));
    let requests = draining + history.world(plan.drain + plan.cancel);
    let mut told = 0;
    for ends in history.server("conversation ends") {
        let at = ends.at;
        let is_longer = plan.streams > plan.drain;
        let in_peace = history.delivers() && !history.is_impatient();
        let wrong = match (ends.text("long"), ends.text("heeds")) {
            (Some("yes"), Some("yes")) => {
                // A fault may have ended it before its moment.
                let was_told = history.of_its_handler(ends, "conversation told").is_some();
                told += u64::from(was_told && in_peace && at > draining && at < by);
                // What is upgraded later ends at once, or after its first line.
                let begins = history.of_its_handler(ends, "conversation begins");
                let began = begins.map_or(at, |begins| begins.at);
                let due = by.max(began + history.under_way() * 2);
                let late = at > due + slack && !history.is_disturbed((due, at));
                (late || (in_peace && at + history.early() < draining))
                    .then(|| format!("was told between {draining:?} and {by:?}"))
            }
            (Some("yes"), _) => (in_peace && at + slack < whole)
                .then(|| format!("is a long stream, and has until {whole:?}")),
            (_, _) => (is_longer && at > requests + slack)
                .then(|| format!("is no long stream, and has until {requests:?}")),
        };
        if let Some(wrong) = wrong {
            return Err(format!("an upgraded connection that {wrong} ended at {at:?}"));
        }
    }
    Ok(told)
}

/// Whether this is the end of work that a long stream left behind.
pub(super) fn is_work_of_a_stream(history: &RunHistory<'_>, ends: &Record) -> bool {
    let left_by = ends.text("task").and_then(|task| task.strip_prefix("left by "));
    let Some(handler) = left_by.and_then(|n| n.parse::<u64>().ok()) else { return false };
    history.server("handler begins").any(|begins| {
        begins.number("handler") == Some(handler)
            && begins.text("target").is_some_and(|target| target.contains("&end=spread"))
    })
}

/// Checks that work of a long stream is not dropped with the requests, but with the streams.
fn work_of_streams_has_their_time(history: &RunHistory<'_>) -> Result<(), String> {
    let plan = history.scenario.plan();
    let cancelling = history.phases.iter().find(|(phase, ..)| *phase == Phase::Cancelling);
    let until = cancelling.map(|(_, _, at)| *at + history.world(plan.cancel));
    let until = until.map_or(Duration::MAX, |until| until.saturating_sub(ABORT_FLUSH * 2));
    for ends in history.server("task ends") {
        let dropped = ends.text("how") == Some("dropped") && is_work_of_a_stream(history, ends);
        if dropped && ends.at < until && !history.is_impatient() {
            return Err(format!(
                "work of a long stream was dropped at {:?}, and had time until {until:?}",
                ends.at
            ));
        }
    }
    Ok(())
}

/// P10: an upgraded connection whose handler waits for the drain, or for its moment in it, is told.
pub(super) fn conversations_are_told(history: &RunHistory<'_>) -> Judgement {
    let Some(draining) = history.began(Phase::Draining) else { return Ok(Exercise::No) };
    let hurried = history.scenario.plan().drain < SOON * 2 + history.under_way() * 4;
    if hurried || history.is_impatient() || !history.delivers() {
        return Ok(Exercise::No);
    }
    let mut judged = 0;
    let heeds = |record: &&Record| record.text("heeds") == Some("yes");
    for begins in history.server("conversation begins").filter(heeds) {
        let of_it = |event| history.of_its_handler(begins, event);
        // Its first line has arrived by then.
        let was_there = begins.at + history.under_way() * 2 + SOON < draining;
        let ends = of_it("conversation ends").map(|ends| ends.at);
        let is_over = ends.is_some_and(|ends| ends < draining);
        if was_there && !is_over && of_it("conversation told").is_none() {
            return Err(format!(
                "an upgraded connection since {:?} ended at {ends:?}, and its handler was told \
                 nothing",
                begins.at
            ));
        }
        judged += usize::from(was_there);
    }
    Ok(Exercise::of(judged))
}

fn nothing_else_benefits(history: &RunHistory<'_>, draining: Duration) -> Result<(), String> {
    let plan = history.scenario.plan();
    let until = draining + history.world(plan.drain + plan.cancel) + SOON + history.tolerance();
    let seen = until + history.under_way() * 2;
    // A client that begins to read again may find a complete response.
    let late = |record: &&Record| {
        record.event == "stall ends" && record.text("how") == Some("reset") && record.at > seen
    };
    // Without resets a client that reads nothing sees no cut.
    let sees = history.delivers() && history.resets();
    if let Some(late) = history.records.iter().find(late).filter(|_| sees) {
        return Err(format!(
            "{} read nothing, and kept its connection until {:?}, after {seen:?}",
            late.actor, late.at
        ));
    }
    for ends in history.server("handler ends").filter(|ends| ends.at > until) {
        let begins = history.of_its_handler(ends, "handler begins");
        let target = begins.and_then(|begins| begins.text("target")).unwrap_or_default();
        // What waited in the accept queue for descriptors begins later, and is cancelled at once.
        let is_new = begins.is_some_and(|begins| ends.at <= begins.at + SOON);
        if target != TARGET && !target.contains("&end=spread") && !is_new {
            return Err(format!(
                "the handler of {target} ran until {:?}, but the drain and the cancel wait of \
                 requests ended at {until:?}",
                ends.at
            ));
        }
    }
    Ok(())
}
