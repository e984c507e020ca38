//! P5c: the outcome of each request, as the app's observer sees it.
//!
//! The observer gets no name of the request. Method, path and the moment of its arrival lead to its
//! handler, and the handler's name to the client. What several requests share is not judged.

use super::{ErrorKind, Exercise, Judgement, ObservedRequest, RequestResult, RunHistory};
use crate::{scenario::Traffic, trace::Record};
use std::{collections::BTreeMap, time::Duration};

/// Rounding of the durations in the trace.
const ROUNDING: Duration = Duration::from_micros(2);

/// The status of a request that is refused without a handler.
const REFUSED: u64 = 400;

/// Checks that each request has one outcome, with the phase, the duration, the status and the
/// length that its handler and its client saw.
pub(super) fn outcomes_are_observed(history: &RunHistory<'_>) -> Judgement {
    if history.uses_another_app() {
        return Ok(Exercise::No);
    }
    outcomes_are_those_of_the_report(history)?;
    let ended: Vec<(usize, &Record)> = history.places("request ended").collect();
    let mut begun: Vec<_> = history.server("handler begins").collect();
    begun.sort_by_key(|begins| begins.at);
    let mut of_handlers: BTreeMap<u64, Vec<(usize, &Record)>> = BTreeMap::new();
    for (place, record) in &ended {
        phase_is_the_current_one(history, *place, record)?;
        let handlers = handlers_of(history, &begun, record);
        if handlers.is_empty() && record.number("status") != Some(REFUSED) {
            return Err(format!("no handler began when the request of this outcome did: {record}"));
        }
        // In real time one that was refused may have arrived near another request, whose handler
        // is not its own.
        let has_handler = history.tolerance().is_zero() || record.number("status") != Some(REFUSED);
        if let ([handler], true) = (&handlers[..], has_handler) {
            let outcomes = of_handlers.entry(handler.number("handler").unwrap_or(0)).or_default();
            outcomes.push((*place, record));
        }
    }
    for begins in history.server("handler begins") {
        let outcomes = begins.number("handler").and_then(|handler| of_handlers.get(&handler));
        let Some([(place, outcome)]) = outcomes.map(Vec::as_slice) else { continue };
        let Some(observed) = client_of(history, begins) else { continue };
        is_what_the_client_saw(history, observed, outcome)?;
        head_was_sent_or_not(history, observed, *place)?;
    }
    Ok(Exercise::of(ended.len()))
}

/// Checks that the observer was called once for each request that the report counts.
fn outcomes_are_those_of_the_report(history: &RunHistory<'_>) -> Result<(), String> {
    let Some(report) = &history.outcome.report else { return Ok(()) };
    let requests = &report.requests;
    let counts = [
        ("finished", requests.finished),
        ("timed_out", requests.timed_out),
        ("aborted", requests.aborted),
        ("gone", requests.gone),
    ];
    for (name, counted) in counts {
        let observed = history.server("request ended");
        let observed = observed.filter(|record| record.text("outcome") == Some(name)).count();
        if observed as u64 != counted {
            return Err(format!(
                "{observed} requests ended as {name}, but the host counts {counted}"
            ));
        }
    }
    Ok(())
}

fn phase_is_the_current_one(
    history: &RunHistory<'_>,
    place: usize,
    outcome: &Record,
) -> Result<(), String> {
    let entered = history.phases.iter().rfind(|(_, entered, _)| *entered < place);
    let near = |at: Duration| at.abs_diff(outcome.at) <= history.tolerance();
    let changes = history.phases.iter().any(|(.., at)| near(*at));
    let is_it = entered.is_none_or(|(phase, ..)| Some(phase.name()) == outcome.text("phase"));
    if !is_it && (history.tolerance().is_zero() || !changes) {
        return Err(format!("the phase was {entered:?}, not the one of {outcome}"));
    }
    Ok(())
}

/// Returns the handlers that began when the request of this outcome arrived, of these, in order of
/// their times.
fn handlers_of<'a>(
    history: &RunHistory<'_>,
    begun: &[&'a Record],
    outcome: &Record,
) -> Vec<&'a Record> {
    let lasted = Duration::from_micros(outcome.number("duration_us").unwrap_or(0));
    let arrived = history.host(outcome.at).saturating_sub(lasted);
    let slack = ROUNDING + history.rounding();
    let first = begun.partition_point(|begins| history.host(begins.at) + slack < arrived);
    let last = begun.partition_point(|begins| history.host(begins.at) <= arrived + slack);
    let is_it = |begins: &&&Record| {
        let path = begins.text("target").and_then(|target| target.split('?').next());
        path == outcome.text("path") && begins.text("method") == outcome.text("method")
    };
    begun[first..last].iter().filter(is_it).copied().collect()
}

/// Returns the request of a handler as its client saw it.
fn client_of<'a>(history: &'a RunHistory<'_>, begins: &Record) -> Option<&'a ObservedRequest> {
    let (client, number) = begins.text("of")?.strip_prefix("client-")?.split_once('/')?;
    history.request(client.parse().ok()?, number.parse().ok()?)
}

/// Whether hyper may have had the response in one buffer with another one, which was cut. It does
/// not say which of them have left.
pub(super) fn shares_a_buffer(history: &RunHistory<'_>, observed: &ObservedRequest) -> bool {
    let is_cut = |other: &ObservedRequest| {
        (other.client, other.connection) == (observed.client, observed.connection)
            && (other.earlier > observed.earlier || history.is_http2(observed))
            && other.failure().is_some()
    };
    let begun = history.server("handler begins").filter_map(|begins| client_of(history, begins));
    begun.into_iter().any(is_cut)
}

/// Checks the status and the length of a response, and that one which its client has was not lost.
fn is_what_the_client_saw(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    outcome: &Record,
) -> Result<(), String> {
    let wrong = |what: &str| {
        Err(format!(
            "{what}: client-{} saw {:?} and {:?} for {}, and the outcome is {outcome}",
            observed.client, observed.head, observed.end, observed.target
        ))
    };
    let version = if history.is_http2(observed) { "HTTP/2.0" } else { "HTTP/1.1" };
    if outcome.text("version") != Some(version) {
        return wrong("another version");
    }
    // The status of a gRPC call is in its fields.
    if observed.call.is_some() {
        return Ok(());
    }
    if let Some((_, status, _)) = observed.head
        && outcome.number("status") != Some(status)
    {
        return wrong("another status");
    }
    let Some((at, RequestResult::Completed(status, bytes))) = observed.end else { return Ok(()) };
    let is_finished = outcome.text("outcome") == Some("finished");
    if is_finished && outcome.number("bytes") != Some(bytes) {
        return wrong("another length");
    }
    if !is_finished && status == 200 && !shares_a_buffer(history, observed) {
        return wrong("it was complete");
    }
    // Responses that follow on the same connection may keep the end of this one in a buffer.
    let is_alone = history.client(observed).is_some_and(|client| {
        matches!(client.traffic, Traffic::Once(_) | Traffic::KeepAlive { .. })
    });
    let is_late = outcome.at > at + history.tolerance() && !history.is_disturbed((at, outcome.at));
    if is_finished && is_alone && is_late {
        return wrong("its outcome came late");
    }
    Ok(())
}

/// Checks whether the log says of an aborted request that its client may have got a part of the
/// response.
fn head_was_sent_or_not(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    place: usize,
) -> Result<(), String> {
    let outcome = &history.records[place];
    if outcome.text("outcome") != Some("aborted") || observed.call.is_some() {
        return Ok(());
    }
    let before = history.records[..place].iter().rev().find(|record| record.event == "log");
    let Some(aborted) = before.filter(|log| {
        log.text("message") == Some("request aborted") && log.text("path") == outcome.text("path")
    }) else {
        return Ok(());
    };
    // A handler responds with a 503, too, when it is cancelled.
    let is_its_own = observed.said == ErrorKind::Anything;
    let is_error = match observed.end {
        Some((_, RequestResult::Completed(503, _))) => !is_its_own,
        Some((_, RequestResult::Completed(status, _))) => status >= 500,
        Some((_, RequestResult::Failed(_))) | None => false,
    };
    let wrong = match (aborted.text("head_sent"), observed.head) {
        (Some("true"), Some((_, 500.., _))) if is_error => "a response of the host",
        (Some("false"), Some((_, 200, _))) => "the head of the handler's response",
        _ => return Ok(()),
    };
    Err(format!(
        "client-{} got {wrong} to {}, and the log has {aborted}",
        observed.client, observed.target
    ))
}
