//! P5b: a response whose handler announces the close of its connection is the last one there, and
//! is not lost. Over HTTP/2 the announcement means nothing (RFC 9113 §8.2.2).

use super::{Exercise, Judgement, ObservedRequest, RequestResult, RunHistory};
use crate::scenario::{Client, Pacing, RareRequest, RequestKind, Traffic, client_name};
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// How long a client may read nothing before its response is given up.
const PATIENCE: Duration = Duration::from_secs(4);

/// Checks the responses whose handlers announce the close.
pub(super) fn handlers_may_close(history: &RunHistory<'_>) -> Judgement {
    let mut judged = 0;
    for observed in &history.requests {
        let kind = history.request_kind(observed);
        if !matches!(kind, Some(RequestKind::Rare(RareRequest::Closes { .. }))) {
            continue;
        }
        if history.is_http2(observed) {
            nothing_leaks(history, observed)?;
        } else {
            is_announced(observed)?;
            is_whole(history, observed)?;
        }
        judged += 1;
    }
    Ok(Exercise::of(judged))
}

fn is_announced(observed: &ObservedRequest) -> Result<(), String> {
    match observed.head {
        Some((at, 200, false)) => Err(format!(
            "the handler of {} announced the close, and its response to client-{} at {at:?} did \
             not",
            observed.target, observed.client
        )),
        Some(_) | None => Ok(()),
    }
}

/// Checks that a response of which its client has something, or that it reads late, is whole.
fn is_whole(history: &RunHistory<'_>, observed: &ObservedRequest) -> Result<(), String> {
    let until = history.began(Phase::Cancelling).or(history.began(Phase::CleaningUp));
    let until = until.or(history.exit().map(|(at, _)| at)).unwrap_or(Duration::MAX);
    let reads = |client: &Client| {
        let (Traffic::Once(Pacing::SlowReader(_, ms)) | Traffic::Stalls { for_ms: ms, .. }) =
            client.traffic
        else {
            return true;
        };
        Duration::from_millis(ms) < PATIENCE && history.scenario.limits.send_timeout.is_none()
    };
    let is_judged = history.delivers()
        && history.resets()
        && history.flushes()
        && history.client(observed).is_some_and(reads);
    let Some((at, how)) = lost(history, observed).filter(|(at, _)| is_judged && *at < until) else {
        return Ok(());
    };
    // What is not the first may have come after the close of the connection.
    let is_first = !history.requests.iter().any(|before| {
        (before.client, before.connection) == (observed.client, observed.connection)
            && before.earlier < observed.earlier
    });
    if observed.head.is_none() && !is_first {
        return Ok(());
    }
    Err(format!(
        "the response to {} of client-{}, which announces the close, was lost at {at:?}: {how}",
        observed.target, observed.client
    ))
}

/// Returns when and how the response was lost.
fn lost<'a>(
    history: &'a RunHistory<'_>,
    observed: &'a ObservedRequest,
) -> Option<(Duration, &'a str)> {
    if let Some((at, RequestResult::Failed(how))) = &observed.end {
        let is_cut = matches!(
            how.as_str(),
            "reset-before-head" | "reset-in-body" | "end-before-head" | "body-cut"
        );
        return is_cut.then_some((*at, how));
    }
    let name = client_name(observed.client);
    let record = history
        .events("response lost")
        .find(|record| *record.actor == *name && record.number("of") == Some(observed.number))?;
    Some((record.at, record.text("how").unwrap_or_default()))
}

/// Checks that over HTTP/2 the response is as any other, and that its connection goes on.
fn nothing_leaks(history: &RunHistory<'_>, observed: &ObservedRequest) -> Result<(), String> {
    let until = history.began(Phase::Cancelling).or(history.exit().map(|(at, _)| at));
    let until = until.unwrap_or(Duration::MAX);
    if let Some((at, RequestResult::Failed(how))) = &observed.end
        && history.delivers()
        && *at < until
        && how == "stream-reset"
    {
        return Err(format!(
            "the response to {} of client-{} was reset at {at:?}",
            observed.target, observed.client
        ));
    }
    let limits = &history.scenario.limits;
    let ends_early = limits.keep_alive.or(limits.connection_age_max).or(limits.header_timeout);
    let is_plain = |kind: &RequestKind| {
        matches!(kind, RequestKind::Fast | RequestKind::Rare(RareRequest::Closes { .. }))
    };
    let is_plain = |client: &Client| client.kinds().all(is_plain) && client.fields.is_none();
    if ends_early.or(limits.send_timeout).is_some()
        || !history.client(observed).is_some_and(is_plain)
    {
        return Ok(());
    }
    let left = history.left_serving().unwrap_or(Duration::MAX);
    let name = client_name(observed.client);
    let goaway = history.events("goaway").find(|goaway| {
        *goaway.actor == *name
            && goaway.number("connection") == Some(observed.connection)
            && goaway.at < left
    });
    match goaway {
        Some(goaway) => Err(format!("{name} got a GOAWAY while serving, at {:?}", goaway.at)),
        None => Ok(()),
    }
}
