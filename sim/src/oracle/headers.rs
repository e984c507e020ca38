//! PROXY headers: the peer of a request is the client that the header announces, what is no header
//! gets no response, and the wait for a header is bounded (P5, P6, P15).

use super::{Exercise, Judgement, RunHistory};
use crate::{
    scenario::{Client, HeaderFault, Traffic, UNANNOUNCED, client_name},
    trace::Record,
};
use lameduck::lifecycle::Phase;
use std::{collections::BTreeSet, time::Duration};

/// Time limit of a header in the drain.
const HEAD_GRACE: Duration = Duration::from_secs(1);
/// Interval between sweeps over the connections while serving, and after the stop request.
const SWEEP: Duration = Duration::from_millis(250);
const SWEEP_STOPPING: Duration = Duration::from_millis(20);

/// Judges all connections on which a header is due, or comes unexpectedly.
pub(super) fn headers_are_read(history: &RunHistory<'_>) -> Judgement {
    let clients = &history.scenario.clients;
    let is_bad = |client: &Client| matches!(client.traffic, Traffic::BadHeader(_));
    if !clients.iter().any(|client| client.header.is_some() || is_bad(client)) {
        return Ok(Exercise::No);
    }
    peers_are_announced(history)?;
    headers_are_no_requests(history)?;
    refused_headers_are_counted(history)?;
    slow_headers_have_their_time(history)?;
    Ok(Exercise::Yes)
}

/// Returns the first such record of a client.
fn first<'a>(history: &'a RunHistory<'_>, n: usize, event: &str) -> Option<&'a Record> {
    history.of_client(n, event).next()
}

/// Checks that each handler sees the client that the header of its connection announces, and no
/// client that another connection's header announces.
fn peers_are_announced(history: &RunHistory<'_>) -> Result<(), String> {
    for begins in history.server("handler begins") {
        let client = begins.text("of").and_then(|of| of.split_once('/'));
        let n = client.and_then(|(name, _)| name.strip_prefix("client-")?.parse::<usize>().ok());
        let Some((n, client)) = n.and_then(|n| Some((n, history.scenario.clients.get(n)?))) else {
            continue;
        };
        let announced = client.header.and_then(|header| header.kind.announced(n));
        let announced = announced.map(|address| address.to_string());
        if begins.text("peer") != announced.as_deref() {
            return Err(format!(
                "{} is announced as {announced:?}, and its handler at {:?} saw {:?}",
                client_name(n),
                begins.at,
                begins.text("peer")
            ));
        }
    }
    Ok(())
}

/// Checks that no header becomes a request, and that a connection without the header that it has to
/// have gets no byte of a response.
fn headers_are_no_requests(history: &RunHistory<'_>) -> Result<(), String> {
    let is_wrong = |begins: &&Record| {
        begins.text("target") == Some(UNANNOUNCED) || begins.text("method") == Some("PROXY")
    };
    if let Some(begins) = history.server("handler begins").find(is_wrong) {
        return Err(format!("a handler was called at {:?} without a header: {begins}", begins.at));
    }
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let (Traffic::BadHeader(fault), Some(ended)) = (client.traffic, first(history, n, "ended"))
        else {
            continue;
        };
        let bytes = ended.number("answer_bytes").unwrap_or(0);
        if fault != HeaderFault::Unexpected && bytes > 0 {
            return Err(format!("{} sent no valid header, and got {bytes} bytes", client_name(n)));
        }
        let serving = history.began(Phase::Serving).unwrap_or(Duration::MAX);
        let connected = first(history, n, "connected").filter(|connected| connected.at > serving);
        let by = connected.map_or(Duration::MAX, |connected| {
            connected.at + history.under_way() * 4 + SWEEP_STOPPING + history.tolerance()
        });
        let is_refused = matches!(fault, HeaderFault::Missing | HeaderFault::Invalid);
        if is_refused && history.delivers() && !history.has_partial_io() && ended.at > by {
            return Err(format!(
                "{} sent no valid header, and its connection ended at {:?} instead of {by:?}",
                client_name(n),
                ended.at
            ));
        }
    }
    Ok(())
}

/// Checks the number of refused headers in the report: at least those that were seen to be refused,
/// and at most those that could be.
fn refused_headers_are_counted(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(report), true) = (&history.outcome.report, history.delivers()) else {
        return Ok(());
    };
    let stopping = history.left_serving().unwrap_or(Duration::MAX);
    let counted = report.connections.proxy_headers_refused;
    let (mut seen, mut possible) = (0, 0);
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let is_refused =
            matches!(client.traffic, Traffic::BadHeader(fault) if fault != HeaderFault::Unexpected);
        possible += u64::from(is_refused || client.has_slow_header());
        let ended = first(history, n, "ended");
        let by_host = ended.is_some_and(|ended| {
            ended.at < stopping && matches!(ended.text("how"), Some("fin" | "reset"))
        });
        seen += u64::from(is_refused && by_host);
    }
    if counted < seen || counted > possible {
        return Err(format!(
            "{seen} connections without a valid header were closed while serving, and {possible} \
             clients could have one refused, but the host counts {counted}"
        ));
    }
    Ok(())
}

/// Checks that a header which arrives in pieces is followed by a response if it is complete in
/// time, and only then.
fn slow_headers_have_their_time(history: &RunHistory<'_>) -> Result<(), String> {
    if !history.delivers() || history.has_partial_io() {
        return Ok(());
    }
    let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    let end = history.began(Phase::Cancelling).or(history.exit().map(|(at, _)| at));
    let cut = end.unwrap_or(Duration::MAX);
    let near = Duration::from_millis(history.scenario.latency_ms.0);
    let far = history.under_way() + history.tolerance();
    let served: BTreeSet<usize> = history
        .requests
        .iter()
        .filter(|observed| observed.head.is_some())
        .map(|observed| observed.client)
        .collect();
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let (Some(header), true) = (client.header, client.has_slow_header()) else { continue };
        let Some(begins) = first(history, n, "header begins").map(|begins| begins.at) else {
            continue;
        };
        let lasts = header.lasts();
        let limit = |accepted: Duration| {
            let usual = accepted + history.header_timeout();
            usual.min(draining.max(accepted).saturating_add(history.world(HEAD_GRACE)))
        };
        // With TLS, the handshake has the same time.
        let ways = if history.scenario.tls { 5 } else { 1 };
        let (whole, least) = (begins + lasts + far * ways, limit(begins + near));
        let was_there = begins + far < draining;
        if was_there && whole + SWEEP_STOPPING < least.min(cut) && !served.contains(&n) {
            return Err(format!(
                "{} had sent its header by {whole:?}, had time until {least:?}, and got no \
                 response",
                client_name(n)
            ));
        }
        let latest = limit(begins + far) + history.world(SWEEP) + SWEEP_STOPPING;
        let whole = begins + lasts + near;
        if whole > latest + history.rounding() && served.contains(&n) {
            return Err(format!(
                "{} had time for its header until {latest:?}, and was served after {whole:?}",
                client_name(n)
            ));
        }
    }
    Ok(())
}
