//! P5d: a response to `HEAD` has no content, and states the length of one to `GET`, or none (RFC
//! 9110 §9.3.2).

use super::{Exercise, Judgement, ObservedRequest, RequestResult, RunHistory};
use crate::{
    app::{SLOW_CANCELLED, SLOW_DONE, STUCK_HALVES},
    scenario::{OddRequest, RareRequest, RequestKind, StuckResponse, client_name},
};
use std::time::Duration;

/// The host's line about a request that it has aborted, and about a handler that has failed.
const ABORTED: &str = "request aborted: the service is shutting down and the drain has ended\n";
const FAILED: &str = "internal server error\n";
/// The host's line about a request that has timed out, before its deadline.
const TIMED_OUT: &str = "request timed out: no response within its deadline of ";
/// What a record has as the length of a response whose length is unknown.
const UNKNOWN: u64 = u64::MAX;

/// Checks each response to `HEAD`, those of the host included.
pub(super) fn heads_have_no_content(history: &RunHistory<'_>) -> Judgement {
    if history.uses_another_app() {
        return Ok(Exercise::No);
    }
    let mut judged = 0;
    for observed in history.requests.iter().filter(|observed| observed.is_head) {
        let Some((_, status, _)) = observed.head else { continue };
        has_no_content(history, observed)?;
        has_a_due_status(history, observed, status)?;
        states_a_due_length(history, observed, status)?;
        judged += 1;
    }
    Ok(Exercise::of(judged))
}

/// Checks that the response ends with its head: a byte of content is an error of its stream on
/// HTTP/2, and belongs to the next response on HTTP/1.
fn has_no_content(history: &RunHistory<'_>, observed: &ObservedRequest) -> Result<(), String> {
    let why = match &observed.end {
        Some((at, RequestResult::Completed(status, bytes))) if *bytes > 0 => {
            format!("a {status} with {bytes} bytes at {at:?}")
        }
        Some((at, RequestResult::Failed(how))) if history.is_http2(observed) => {
            format!("a head, and then failed at {at:?}: {how}")
        }
        Some((at, RequestResult::Failed(how))) if how == "garbled" => {
            format!("no response to HEAD at {at:?}")
        }
        Some(_) | None => return Ok(()),
    };
    Err(format!("HEAD {} of client-{} got {why}", observed.target, observed.client))
}

/// Checks the status of a response to one of these kinds.
fn has_a_due_status(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    status: u64,
) -> Result<(), String> {
    let Some(RequestKind::HeadOf(kind)) = history.request_kind(observed) else { return Ok(()) };
    let may_fail = matches!(
        **kind,
        RequestKind::Panic | RequestKind::Breaks | RequestKind::Mismatch(_) | RequestKind::Rare(_)
    );
    let is_due = match status {
        200 => **kind != RequestKind::Panic,
        500 => may_fail,
        431 => history.scenario.limits.headers_max.is_some(),
        _ => status == 503,
    };
    if is_due {
        return Ok(());
    }
    Err(format!("HEAD {} of client-{} got a {status}", observed.target, observed.client))
}

/// Checks the stated length, where it is known.
fn states_a_due_length(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    status: u64,
) -> Result<(), String> {
    let name = client_name(observed.client);
    let is_it = |head: &&crate::trace::Record| {
        *head.actor == *name && head.number("request") == Some(observed.number)
    };
    let stated = history.events("head").find(is_it).and_then(|head| head.number("length"));
    let Some(stated) = stated else { return Ok(()) };
    let due = match status {
        503 => lengths_of_a_503(history, observed),
        500 => vec![FAILED.len() as u64],
        200 => match history.request_kind(observed).and_then(length_of_a_get) {
            Some(due) => due,
            None => return Ok(()),
        },
        _ => return Ok(()),
    };
    if due.contains(&stated) {
        return Ok(());
    }
    let said = if stated == UNKNOWN { "an unknown length".to_owned() } else { stated.to_string() };
    Err(format!(
        "a {status} to HEAD {} of {name} states {said}, and one to GET has {due:?} bytes",
        observed.target
    ))
}

/// The lengths of the lines that a response to `GET` may have: of a request that was aborted, that
/// has timed out, or whose handler was cancelled.
fn lengths_of_a_503(history: &RunHistory<'_>, observed: &ObservedRequest) -> Vec<u64> {
    let own = match history.request_kind(observed).map(RequestKind::as_get) {
        Some(RequestKind::Within(_, ms)) => Some(*ms),
        _ => history.scenario.request_timeout_ms,
    };
    let timed_out = own.map(|ms| {
        let deadline = humantime::format_duration(Duration::from_millis(ms));
        format!("{TIMED_OUT}{deadline}\n").len()
    });
    let lines = [ABORTED, SLOW_CANCELLED].map(str::len);
    lines.into_iter().chain(timed_out).map(|length| length as u64).collect()
}

/// The lengths that a response to `GET` of this kind may state; `None` if this is not judged.
fn length_of_a_get(kind: &RequestKind) -> Option<Vec<u64>> {
    let length = |length: usize| Some(vec![length as u64]);
    match kind.as_get() {
        RequestKind::Fast | RequestKind::Head => length(5),
        RequestKind::Odd(
            OddRequest::HeadClose | OddRequest::HeadHttp10 | OddRequest::HeadTwoHosts,
        ) => length(5),
        RequestKind::Slow(_) | RequestKind::Within(..) | RequestKind::Unlimited(_) => {
            length(SLOW_DONE.len())
        }
        RequestKind::Stuck(_, StuckResponse::Nothing | StuckResponse::Length) => {
            length(STUCK_HALVES.concat().len())
        }
        RequestKind::Stuck(_, StuckResponse::Chunked)
        | RequestKind::Stream(_)
        | RequestKind::Events
        | RequestKind::Breaks => Some(vec![UNKNOWN]),
        RequestKind::Bytes(bytes) => length(*bytes),
        RequestKind::Mismatch(says) => Some(vec![says.said()]),
        RequestKind::Rare(RareRequest::Fails) => length(4),
        RequestKind::Rare(RareRequest::Late { bytes, chunked, .. }) => {
            if *chunked {
                Some(vec![UNKNOWN])
            } else {
                length(*bytes)
            }
        }
        RequestKind::Rare(RareRequest::Empty { content, .. }) => {
            length(if *content { "content".len() } else { 0 })
        }
        RequestKind::Echo(_)
        | RequestKind::Unread(_)
        | RequestKind::Panic
        | RequestKind::HeadOf(_)
        | RequestKind::Work(..)
        | RequestKind::User(_)
        | RequestKind::Odd(_)
        | RequestKind::Rare(_) => None,
    }
}
