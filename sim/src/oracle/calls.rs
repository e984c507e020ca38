//! P5d, P9 for gRPC: the status of a call is the one of its end.

use super::{Exercise, Judgement, ObservedRequest, RequestResult, RunHistory};
use crate::scenario::{Call, CallEnd, RareRequest, RequestKind, Traffic, client_name};
use lameduck::lifecycle::Phase;
use std::time::Duration;

const OK: u64 = 0;
const DEADLINE_EXCEEDED: u64 = 4;
const UNAVAILABLE: u64 = 14;

/// Rounding of clocks.
const EARLY: Duration = Duration::from_micros(1);

/// How long a call may continue after its timeout, by the host's clock.
const LATE: Duration = Duration::from_millis(20);

/// Checks each call: its status is 0 only if all messages came, `DEADLINE_EXCEEDED` only at a
/// deadline, and `UNAVAILABLE` only when the shutdown cuts. No call outlasts its timeout, none is
/// refused as unprocessed after its handler began, and none is reset whose client takes everything.
pub(super) fn statuses_are_true(history: &RunHistory<'_>) -> Judgement {
    let mut ended = 0;
    for observed in &history.requests {
        let Some(RequestKind::Rare(RareRequest::Call(call))) = history.request_kind(observed)
        else {
            continue;
        };
        a_call_that_nobody_takes_ends(history, observed, *call)?;
        let Some((at, end)) = &observed.end else { continue };
        ended += 1;
        let wrong = match (observed.call, end) {
            (Some((OK, bytes)), _) if bytes != call.bytes() => {
                Some(format!("the status 0 after {bytes} of {} bytes", call.bytes()))
            }
            (Some((OK, _)), _) => None,
            (Some((DEADLINE_EXCEEDED, _)), _) => before_its_deadline(history, observed, *call, *at),
            (Some((UNAVAILABLE, _)), _) => before_the_cut(history, *call, *at),
            (Some((status, _)), _) => Some(format!("the status {status}")),
            (None, RequestResult::Completed(200, _)) => Some("no status".to_owned()),
            (None, RequestResult::Failed(how)) if how == "stream-refused" => {
                after_its_handler_began(history, observed)
            }
            (None, RequestResult::Failed(how)) if how == "stream-reset" => {
                without_a_status(history, observed, *at)
            }
            (None, _) => None,
        };
        let wrong = wrong
            .or_else(|| after_its_timeout(history, observed, *call, *at))
            .or_else(|| after_its_end(history, observed, *call, *at));
        if let Some(wrong) = wrong {
            return Err(format!(
                "a call of client-{} to {}, sent at {:?}, ended at {at:?} with {wrong}",
                observed.client, observed.target, observed.observed
            ));
        }
    }
    Ok(Exercise::of(ended))
}

/// Checks that a call whose client gives it no window ends at its timeout.
fn a_call_that_nobody_takes_ends(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    call: Call,
) -> Result<(), String> {
    let client = history.client(observed);
    let is_windowless =
        client.is_some_and(|client| matches!(client.traffic, Traffic::Http2Windowless { .. }));
    let (Some(timeout), true, true) = (call.timeout_ms, is_windowless, history.delivers()) else {
        return Ok(());
    };
    let due = observed.observed
        + history.under_way() * 6
        + history.world(Duration::from_millis(timeout) + LATE)
        + history.tolerance();
    let lost = history.events("response lost").find(|record| {
        *record.actor == *client_name(observed.client)
            && record.number("of") == Some(observed.number)
    });
    let ended = observed.end.as_ref().map(|(at, _)| *at).or(lost.map(|lost| lost.at));
    let exit = history.exit().map_or(Duration::MAX, |(at, _)| at);
    let served = observed.head.is_some() && due < exit;
    if served && ended.is_none_or(|at| at > due) {
        return Err(format!(
            "a call of client-{}, which takes nothing of it, had time until {due:?}, and ended at \
             {ended:?}",
            observed.client
        ));
    }
    Ok(())
}

fn before_its_deadline(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    call: Call,
    at: Duration,
) -> Option<String> {
    // The deadline of the host ends with the response head.
    let host = history.scenario.request_timeout_ms;
    let host = host.filter(|_| !call.is_unlimited);
    let host = host.filter(|_| call.messages == 0 || history.has_partial_io());
    let Some(timeout) = call.timeout_ms.into_iter().chain(host).min() else {
        return Some("a deadline that it did not have".to_owned());
    };
    let due = observed.observed + history.world(Duration::from_millis(timeout));
    (at + EARLY + history.tolerance() < due).then(|| format!("its deadline, before {due:?}"))
}

fn before_the_cut(history: &RunHistory<'_>, call: Call, at: Duration) -> Option<String> {
    let cut = history.began(Phase::Cancelling).or(history.began(Phase::CleaningUp));
    let cut = if call.ends.is_some() { history.began(Phase::Draining).or(cut) } else { cut };
    let early = cut.is_none_or(|cut| at + history.tolerance() < cut);
    (early && history.delivers()).then(|| format!("UNAVAILABLE, before the cut at {cut:?}"))
}

fn after_its_handler_began(history: &RunHistory<'_>, observed: &ObservedRequest) -> Option<String> {
    let name = format!("client-{}/{}", observed.client, observed.number);
    let begun = history.server("handler begins").any(|record| record.text("of") == Some(&name));
    begun.then(|| "a refusal, although its handler had begun".to_owned())
}

/// Whether a call was reset although its client had taken all that came before, so that trailers
/// with a status would have arrived.
fn without_a_status(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    at: Duration,
) -> Option<String> {
    let takes_all = history
        .client(observed)
        .is_some_and(|client| matches!(client.traffic, Traffic::Http2 { .. }));
    let is_cut = history.began(Phase::CleaningUp).is_some_and(|cut| at >= cut);
    let is_judged = takes_all
        && !is_cut
        && history.delivers()
        && !history.has_partial_io()
        && history.scenario.caps.is_empty();
    is_judged.then(|| "a reset, and without a status".to_owned())
}

/// Whether a call whose head came before the drain went on after the host had to end it.
fn after_its_end(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    call: Call,
    at: Duration,
) -> Option<String> {
    let draining = history.began(Phase::Draining)?;
    let budget = match call.ends? {
        CallEnd::Draining => Duration::ZERO,
        CallEnd::Spread => history.scenario.plan().streams,
    };
    let (head, ..) = observed.head?;
    let due =
        draining + history.world(budget + LATE) + history.under_way() * 2 + history.tolerance();
    let is_judged = head < draining && history.delivers() && !history.has_partial_io();
    (is_judged && at > due).then(|| format!("its end at the drain, by {due:?}, ignored"))
}

fn after_its_timeout(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    call: Call,
    at: Duration,
) -> Option<String> {
    let timeout = Duration::from_millis(call.timeout_ms?);
    let due = observed.observed
        + history.under_way() * 6
        + history.world(timeout + LATE)
        + history.tolerance();
    let is_judged = history.delivers() && !history.may_wait_for_a_stream(observed);
    (is_judged && at > due).then(|| format!("its timeout at {due:?} ignored"))
}
