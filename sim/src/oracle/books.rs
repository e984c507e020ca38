//! The books of each connection: what was sent, what began, what arrived (P5).
//!
//! Each request carries a name, which its handler records and its response repeats.

use super::{ObservedRequest, RequestResult, RunHistory, accounting::is_http2};
use crate::{
    scenario::{Pacing, RareRequest, RequestKind, Traffic},
    trace::Record,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Time for the host's part of a response that needs no wait.
const SOON: Duration = Duration::from_millis(20);

/// Checks that each handler that begins and each response that arrives belongs to a request, in
/// order, once, and in time.
pub(super) fn balance(history: &RunHistory<'_>) -> Result<(), String> {
    if history.uses_another_app() {
        return Ok(());
    }
    every_handler_was_asked_for(history)?;
    every_response_is_of_its_request(history)?;
    dates_are_true(history)?;
    ends_follow_the_last_response(history)?;
    goaways_name_what_began(history)?;
    responses_come_soon(history)
}

/// A request as its client recorded it.
struct SentRequest<'a> {
    record: &'a Record,
    /// Client and connection.
    on: (usize, u64),
    earlier: u64,
}

/// Returns the requests by name, and for each connection the first request whose response announced
/// its close.
fn asked<'a>(
    history: &'a RunHistory<'_>,
) -> (BTreeMap<String, SentRequest<'a>>, BTreeMap<(usize, u64), u64>) {
    let (mut all, mut last) = (BTreeMap::new(), BTreeMap::new());
    for record in &history.records {
        let client = record.actor.strip_prefix("client-").and_then(|n| n.parse().ok());
        let (Some(client), Some(request)) = (client, record.number("request")) else { continue };
        let name = format!("{}/{request}", record.actor);
        match record.event {
            "asks" => {
                let on = (client, record.number("connection").unwrap_or(0));
                let earlier = record.number("earlier").unwrap_or(0);
                all.insert(name, SentRequest { record, on, earlier });
            }
            "head" if record.text("close") == Some("yes") => {
                if let Some(asked) = all.get(&name) {
                    let last = last.entry(asked.on).or_insert(asked.earlier);
                    *last = asked.earlier.min(*last);
                }
            }
            _ => {}
        }
    }
    (all, last)
}

/// Checks that each handler serves a request that was sent, as it was sent, once, in order, and
/// none after the last response of its connection.
fn every_handler_was_asked_for(history: &RunHistory<'_>) -> Result<(), String> {
    let (asked, last) = asked(history);
    let (mut begun, mut before) = (BTreeSet::new(), BTreeMap::new());
    for record in history.server("handler begins") {
        let target = record.text("target").unwrap_or_default();
        let Some(of) = record.text("of") else {
            // These are not recorded by their clients.
            if target.starts_with("/upgrade?heeds=") {
                continue;
            }
            return Err(format!("a handler of {target} began at {:?} without a name", record.at));
        };
        let Some(asked) = asked.get(of) else {
            return Err(format!("a handler began for {target}, {of}, which no client sent"));
        };
        let is_same = |field: &str| record.text(field) == asked.record.text(field);
        if !is_same("method") || !is_same("target") {
            return Err(format!("a handler got {record} for {}", asked.record));
        }
        if !begun.insert(of) {
            return Err(format!("a second handler began for {target}, {of}, at {:?}", record.at));
        }
        if is_http2(history.scenario.clients.get(asked.on.0)) {
            continue;
        }
        // And one for the name. hyper removes a `Content-Length` beside a `Transfer-Encoding` (RFC
        // 9112 §6.3).
        let removed = u64::from(target.contains("odd=chunked-length"));
        let fields = asked.record.number("fields").map(|fields| fields + 1 - removed);
        if record.number("fields") != fields {
            return Err(format!("{of} was sent with {fields:?} fields, its handler got {record}"));
        }
        let before = before.insert(asked.on, asked.earlier);
        if before.is_some_and(|before| before >= asked.earlier) {
            return Err(format!("{of} began after a later request of its connection"));
        }
        if last.get(&asked.on).is_some_and(|last| *last < asked.earlier) {
            return Err(format!(
                "a handler of {target} began at {:?}, after the last response of its connection",
                record.at
            ));
        }
    }
    Ok(())
}

/// Checks that a response belongs to the request that it is read for.
fn every_response_is_of_its_request(history: &RunHistory<'_>) -> Result<(), String> {
    let heads = history.events("head").filter(|record| record.actor.starts_with("client-"));
    for head in heads {
        match head.text("of") {
            Some("mine") => {}
            None if is_error_of_a_call(history, head) => {}
            None if head.number("status") != Some(200) => {}
            Some(_) => return Err(format!("a response is of another request: {head}")),
            None => return Err(format!("a response lost its fields: {head}")),
        }
    }
    Ok(())
}

/// Checks that each response has a `Date`: of a moment between its request and its arrival, by the
/// host's clock, whose wall time begins at midnight.
fn dates_are_true(history: &RunHistory<'_>) -> Result<(), String> {
    if !history.tolerance().is_zero() {
        return Ok(());
    }
    let asked: BTreeMap<_, _> = history
        .requests
        .iter()
        .map(|observed| {
            let sent = left_at_once(history, observed).unwrap_or(observed.observed);
            ((observed.client, observed.number), sent.max(observed.observed))
        })
        .collect();
    for head in history.events("head") {
        let client = head.actor.strip_prefix("client-").and_then(|n| n.parse().ok());
        let asked = client.zip(head.number("request")).and_then(|key| asked.get(&key));
        // The HTTP/2 library refuses a head that is too long by itself.
        let is_refused = head.number("status") == Some(431) && head.text("of").is_none();
        let Some(asked) = asked.filter(|_| !is_refused) else { continue };
        let rounding = history.rounding();
        let from = history.host(asked.saturating_sub(rounding)).as_secs();
        let to = history.host(head.at + rounding).as_secs();
        if head.number("date").is_none_or(|date| date < from || date > to) {
            return Err(format!(
                "a response to a request of {asked:?} had no date from {from} to {to} s: {head}"
            ));
        }
    }
    Ok(())
}

/// Returns the earliest moment at which a response was made whose head is on its way as soon as it
/// is known: that of the only request of an HTTP/1 connection at that time.
fn left_at_once(history: &RunHistory<'_>, observed: &ObservedRequest) -> Option<Duration> {
    let (head, ..) = observed.head?;
    let reads_at_once = matches!(
        history.client(observed)?.traffic,
        Traffic::Once(Pacing::Prompt) | Traffic::KeepAlive { .. } | Traffic::PerRequest { .. }
    );
    let is_whole = matches!(
        history.request_kind(observed)?,
        RequestKind::Slow(_)
            | RequestKind::Unlimited(_)
            | RequestKind::Within(..)
            | RequestKind::Stuck(..)
            | RequestKind::Rare(RareRequest::Late { .. })
    );
    let delays = !history.delivers() || history.has_partial_io() || history.scenario.tls;
    (reads_at_once && is_whole && !delays).then(|| head.saturating_sub(history.under_way() + SOON))
}

/// Checks that nothing but the end follows a response that announces the end of its connection, and
/// that the end comes soon.
fn ends_follow_the_last_response(history: &RunHistory<'_>) -> Result<(), String> {
    for end in history.events("ended after the last") {
        let how = end.text("how").unwrap_or_default();
        if how == "unasked-bytes" {
            return Err(format!("bytes followed the last response of a connection: {end}"));
        }
        if how == "none" && history.delivers() {
            return Err(format!("a connection went on after its last response: {end}"));
        }
        let is_exact = history.delivers() && !history.has_partial_io() && history.resets();
        let last = history
            .events("completed")
            .rfind(|record| record.actor == end.actor && record.at <= end.at);
        let by = last.map_or(end.at, |last| last.at)
            + history.under_way() * 2
            + SOON
            + history.rounding()
            + history.tolerance();
        if is_exact && end.at > by {
            return Err(format!(
                "a connection had to end by {by:?} after its last response: {end}"
            ));
        }
    }
    Ok(())
}

/// The last stream of the first, graceful GOAWAY (RFC 9113 §6.8).
const ALL_STREAMS: u64 = (1 << 31) - 1;

/// Checks that no GOAWAY calls a request unprocessed whose handler began: its client would send it
/// again. The n-th request of a connection has the stream 2n - 1, or a later one. And no GOAWAY
/// calls a stream processed that its client has not begun, or not completely.
fn goaways_name_what_began(history: &RunHistory<'_>) -> Result<(), String> {
    let (asked, _) = asked(history);
    let mut begun: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    for record in history.server("handler begins") {
        if let Some(asked) = record.text("of").and_then(|of| asked.get(of)) {
            *begun.entry(asked.on).or_default() += 1;
        }
    }
    let mut sent: BTreeMap<(usize, u64), u64> = BTreeMap::new();
    for asked in asked.values() {
        *sent.entry(asked.on).or_default() += 1;
    }
    for goaway in history.events("goaway") {
        let client = goaway.actor.strip_prefix("client-").and_then(|n| n.parse().ok());
        let Some(on) = client.zip(goaway.number("connection")) else { continue };
        let least = begun.get(&on).map_or(0, |begun| begun * 2 - 1);
        if goaway.number("last_stream").is_none_or(|last| last < least) {
            return Err(format!(
                "handlers of the streams up to {least} or later began, and the client got {goaway}"
            ));
        }
        let most = sent.get(&on).map_or(0, |sent| sent * 2 - 1);
        if goaway.number("last_stream").is_some_and(|last| last > most && last != ALL_STREAMS) {
            return Err(format!("the client had sent streams up to {most}, and got {goaway}"));
        }
    }
    Ok(())
}

/// Whether a head is the host's error response to a gRPC call, whose HTTP status is 200.
fn is_error_of_a_call(history: &RunHistory<'_>, head: &Record) -> bool {
    history.events("call status").any(|record| {
        record.text("place") == Some("head")
            && record.number("status") != Some(0)
            && record.actor == head.actor
            && record.number("request") == head.number("request")
    })
}

/// Checks that a response that needs no wait arrives a round trip after its request, or after the
/// response before it on the same HTTP/1 connection.
fn responses_come_soon(history: &RunHistory<'_>) -> Result<(), String> {
    if !history.resets() || !history.tolerance().is_zero() || history.may_wait_for_room() {
        return Ok(());
    }
    let until = history.left_lame_duck().or(history.exit().map(|(at, _)| at));
    let until = until.unwrap_or(Duration::MAX);
    for observed in history.requests.iter().filter(|observed| needs_no_wait(history, observed)) {
        let Some(from) = may_begin(history, observed) else { continue };
        let by = from + history.under_way() * 4 + SOON;
        let span = (from.saturating_sub(history.under_way() * 8), by);
        if by >= until || history.is_disturbed(span) {
            continue;
        }
        let failed = matches!(&observed.end, Some((at, RequestResult::Failed(_))) if *at <= by);
        if !failed && observed.head.is_none_or(|(at, ..)| at > by) {
            return Err(format!(
                "client-{} could have its response to {} soon after {from:?}, and had none by \
                 {by:?}",
                observed.client, observed.target
            ));
        }
    }
    Ok(())
}

fn needs_no_wait(history: &RunHistory<'_>, observed: &ObservedRequest) -> bool {
    let is_prompt = history.client(observed).is_some_and(|client| {
        matches!(
            client.traffic,
            Traffic::Once(Pacing::Prompt)
                | Traffic::KeepAlive { .. }
                | Traffic::PerRequest { .. }
                | Traffic::Http2 { .. }
                | Traffic::Pipelined { .. }
        )
    });
    let kind = history.request_kind(observed);
    let at_once =
        matches!(kind, Some(RequestKind::Fast | RequestKind::Head | RequestKind::Bytes(..=10_000)))
            || matches!(kind, Some(RequestKind::Odd(odd)) if !odd.has_body());
    is_prompt && at_once && !history.may_cross_an_idle_close(observed)
}

/// Returns when the host may begin to serve a request; `None` if that is unknown.
fn may_begin(history: &RunHistory<'_>, observed: &ObservedRequest) -> Option<Duration> {
    if history.is_http2(observed) {
        return (!history.may_wait_for_a_stream(observed)).then_some(observed.observed);
    }
    let sent = observed.sent?;
    if observed.earlier == 0 {
        return Some(sent);
    }
    let before = history.requests.iter().find(|before| {
        (before.client, before.connection) == (observed.client, observed.connection)
            && before.earlier + 1 == observed.earlier
    });
    match before?.end {
        Some((at, RequestResult::Completed(..))) => Some(sent.max(at)),
        Some((_, RequestResult::Failed(_))) | None => None,
    }
}
