//! Exact checks of the waits for clients: how long a silent, slow or half-sent connection has, and
//! how soon a client that has left is noticed (P5b, P6, P15, P16).

use super::{ErrorKind, ObservedRequest, RequestResult, RunHistory};
use crate::{
    app::has_failing_body,
    scenario::{Client, HeaderFault, Pacing, RequestKind, StuckResponse, Traffic, client_name},
    trace::Record,
};
use lameduck::lifecycle::Phase;
use std::{collections::BTreeSet, time::Duration};

/// First-byte grace of a new connection in the drain; time limit of a partial head in the drain.
const FIRST_BYTE_GRACE: Duration = Duration::from_millis(250);
const HEAD_GRACE: Duration = Duration::from_secs(1);
/// How long an upload may make no progress in the drain.
const PROGRESS_WAIT: Duration = Duration::from_secs(5);
/// Time limit of a partial head on the internal port.
const INTERNAL_HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval between sweeps over the connections while serving, and after the stop request.
const SWEEP: Duration = Duration::from_millis(250);
const SWEEP_STOPPING: Duration = Duration::from_millis(10);
/// Longest time in which the host does not notice that a client has left.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// The same if its departure makes the socket readable.
const NOTICES: Duration = Duration::from_millis(5);
/// The same once the client has shut its side.
const HALF_CLOSED_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Checks that silent connections have their grace, and partial heads their time limit.
pub(super) fn silent_connections_have_their_grace(history: &RunHistory<'_>) -> Result<(), String> {
    if !history.resets() {
        return Ok(());
    }
    let Some(draining) = history.began(Phase::Draining) else { return Ok(()) };
    // A drain that goes on for long streams cuts the others before its end.
    let cut = history
        .requests_cancelled()
        .or(history.began(Phase::CleaningUp))
        .or(history.exit().map(|(at, _)| at))
        .unwrap_or(Duration::MAX);
    let near = Duration::from_millis(history.scenario.latency_ms.0);
    if !history.delivers() {
        return Ok(());
    }
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let when = |event| history.of_client(n, event).next().map(|record| record.at);
        let (Some(connected), Some(ended)) = (when("connected"), when("ended")) else { continue };
        // The client counts as connected while its ACK is still under way.
        let accepted = connected + near;
        let least = match client.traffic {
            Traffic::ByteLess => {
                let least = draining.max(accepted + history.world(FIRST_BYTE_GRACE));
                let least = first_byte_timeout(history)
                    .map_or(least, |timeout| least.min(accepted + timeout));
                // At the connection limit it makes room after its grace.
                if history.may_wait_for_room() {
                    least.min(accepted + history.world(FIRST_BYTE_GRACE))
                } else {
                    least
                }
            }
            Traffic::HalfHead | Traffic::BadHeader(HeaderFault::Half) => (accepted
                + history.header_timeout())
            .min(draining.max(accepted) + history.world(HEAD_GRACE)),
            Traffic::Once(_)
            | Traffic::KeepAlive { .. }
            | Traffic::PerRequest { .. }
            | Traffic::Http2 { .. }
            | Traffic::Http2GoesOn { .. }
            | Traffic::Pipelined { .. }
            | Traffic::Session { .. }
            | Traffic::Late { .. }
            | Traffic::InPieces(_)
            | Traffic::SendsOn(_)
            | Traffic::Leaves { .. }
            | Traffic::Http2Windowless { .. }
            | Traffic::Http2Resets { .. }
            | Traffic::Http2HalfFrame { .. }
            | Traffic::Http2Upload { .. }
            | Traffic::Http2Slowly { .. }
            | Traffic::Http2Stalls { .. }
            | Traffic::Stalls { .. }
            | Traffic::InternalHalfHead
            | Traffic::InternalStrangers { .. }
            | Traffic::SilentHttp2
            | Traffic::SlowHttp2 { .. }
            | Traffic::SlowHello { .. }
            | Traffic::Abandons { .. }
            | Traffic::BadHeader(_)
            | Traffic::Upgraded { .. }
            | Traffic::Http2Leaves { .. } => continue,
        };
        if connected + history.under_way() < draining
            && ended < cut
            && ended + history.rounding() + history.outcome.grain < least + near
        {
            return Err(format!(
                "{} had time until {least:?}, but was refused by {ended:?}",
                client_name(n)
            ));
        }
    }
    Ok(())
}

/// Checks that a connection without a byte is closed after its timeout plus one sweep.
pub(super) fn silent_connections_are_closed(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(timeout), true) =
        (first_byte_timeout(history), history.resets() && history.delivers())
    else {
        return Ok(());
    };
    let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    let left = history.left_serving().unwrap_or(Duration::MAX);
    let mut closed = 0;
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let when = |event| history.of_client(n, event).next().map(|record| record.at);
        let (Traffic::ByteLess, Some(connected)) = (client.traffic, when("connected")) else {
            continue;
        };
        closed += u64::from(when("ended").is_some_and(|ended| ended < left));
        let latest = connected
            + timeout
            + history.world(SWEEP)
            + history.under_way() * 2
            + history.rounding();
        if latest < draining && when("ended").is_none_or(|ended| ended > latest) {
            return Err(format!(
                "{} sent nothing, but was not closed by {latest:?}",
                client_name(n)
            ));
        }
    }
    first_byte_timeouts_are_counted(history, closed)
}

/// Checks that the silent connections that were `closed` while serving are counted, and none that
/// got a response.
fn first_byte_timeouts_are_counted(history: &RunHistory<'_>, closed: u64) -> Result<(), String> {
    let Some(report) = &history.outcome.report else { return Ok(()) };
    let opened = history
        .records
        .iter()
        .filter(|record| record.event == "connected" && record.actor.starts_with("client-"));
    let answered: BTreeSet<_> = history
        .requests
        .iter()
        .filter(|observed| observed.head.is_some())
        .map(|observed| (observed.client, observed.connection))
        .collect();
    let most = opened.count().saturating_sub(answered.len()) as u64;
    let counted = report.connections.first_byte_timeouts;
    if counted < closed || counted > most {
        return Err(format!(
            "{closed} silent connections were closed, and at most {most} had no response, but the \
             host counts {counted}"
        ));
    }
    Ok(())
}

fn first_byte_timeout(history: &RunHistory<'_>) -> Option<Duration> {
    history.scenario.limits.first_byte_timeout.map(|ms| history.world(Duration::from_millis(ms)))
}

/// Checks that an upload without progress in the drain is given up at its time limit, and not
/// before.
pub(super) fn uploads_have_their_time(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(draining), true) = (history.began(Phase::Draining), history.delivers()) else {
        return Ok(());
    };
    uploads_time_out_at_their_timeouts(history)?;
    let (near, far) = (Duration::from_millis(history.scenario.latency_ms.0), history.under_way());
    for observed in history.requests.iter().filter(|observed| observed.said == ErrorKind::Stalled) {
        let (Some(client), Some((head, ..))) = (history.client(observed), observed.head) else {
            continue;
        };
        let Some(pause) = client.traffic.upload_pause() else { continue };
        let pause = Duration::from_millis(pause.max(1));
        // The client sends a piece after each pause.
        let piece_before = |at: Duration| {
            let count = at.saturating_sub(observed.observed).as_micros() / pause.as_micros();
            observed.observed + pause * u32::try_from(count).unwrap_or(0)
        };
        let still = head.saturating_sub(near)
            - draining.max(piece_before(head.saturating_sub(near + far)) + near).min(head - near);
        let most = history.world(PROGRESS_WAIT + CLIENT_CHECK_INTERVAL)
            + SWEEP_STOPPING * 2
            + (far - near) * 2
            + history.rounding();
        if pause + (far - near) + history.rounding() < history.world(PROGRESS_WAIT) {
            return Err(format!("an upload with progress every {pause:?} was aborted at {head:?}"));
        }
        if still > most {
            return Err(format!(
                "an upload stalled for {still:?} in the drain; the limit is {most:?}"
            ));
        }
    }
    Ok(())
}

/// Checks that no upload is said to have timed out before its deadline and its body timeout. One
/// that is given up earlier was aborted by the shutdown.
fn uploads_time_out_at_their_timeouts(history: &RunHistory<'_>) -> Result<(), String> {
    let body = history.world(history.scenario.limits().body_timeout);
    let host = history.scenario.request_timeout_ms.map(Duration::from_millis);
    let least = host.map_or(body, |host| history.world(host).min(body));
    let timed_out = |observed: &&ObservedRequest| {
        let uploads = |client: &Client| client.traffic.upload_pause().is_some();
        observed.said == ErrorKind::TimedOut
            && history.client(observed).is_some_and(uploads)
            && matches!(history.request_kind(observed), Some(RequestKind::Echo(_)))
    };
    for observed in history.requests.iter().filter(timed_out) {
        let due = observed.observed + least;
        if observed.head.is_some_and(|(at, ..)| at + history.early() + history.rounding() < due) {
            return Err(format!(
                "an upload of client-{} had time until {due:?}, and timed out at {:?}",
                observed.client, observed.head
            ));
        }
    }
    Ok(())
}

/// Checks that a client which stops reading in the drain is given up at its time limit, and not
/// before.
pub(super) fn readers_have_their_time(history: &RunHistory<'_>) -> Result<(), String> {
    if !history.resets() {
        return Ok(());
    }
    let (Some(draining), Some(cancelling), true) =
        (history.began(Phase::Draining), history.began(Phase::Cancelling), history.delivers())
    else {
        return Ok(());
    };
    // A shorter timeout applies in the drain, too.
    if history.scenario.limits.send_timeout.is_some() {
        return Ok(());
    }
    let stalls =
        |client: &Client| matches!(client.traffic, Traffic::Once(Pacing::SlowReader(_, 7_001..)));
    let ordinary_until = history.requests_cancelled().unwrap_or(Duration::MAX);
    let aborted = |record: &&Record| {
        record.text("message") == Some("request aborted")
            && record.text("phase") == Some("draining")
            && record.at < ordinary_until
            && !record.text("path").is_some_and(has_failing_body)
            && !history.is_of_a_failed_body(record)
    };
    for record in history.server("log").filter(aborted) {
        if record.at + history.early() < draining + history.world(PROGRESS_WAIT) {
            return Err(format!(
                "a client was cut at {:?}, but the drain began at {draining:?}",
                record.at
            ));
        }
    }
    for observed in &history.requests {
        let (Some(client), Some(RequestKind::Bytes(300_000..))) =
            (history.client(observed), history.request_kind(observed))
        else {
            continue;
        };
        let Traffic::Once(Pacing::SlowReader(_, pause)) = client.traffic else { continue };
        // The client reads after each pause, which is its progress.
        let mut reads = (1..20).map(|n| observed.observed + Duration::from_millis(pause) * n);
        let moved = reads
            .rfind(|at| *at <= draining + history.under_way() * 2)
            .unwrap_or(observed.observed);
        let next = moved + Duration::from_millis(pause);
        let by = draining
            + history.world(PROGRESS_WAIT + CLIENT_CHECK_INTERVAL * 2)
            + SWEEP_STOPPING * 4
            + history.under_way() * 6;
        let was_there = observed.observed + history.under_way() * 4 < draining;
        let given_up = history.server("log").filter(aborted).any(|record| record.at <= by);
        if stalls(client) && was_there && by < next && by < cancelling && !given_up {
            return Err(format!(
                "client-{} read nothing from {moved:?} on, but was not cut by {by:?}",
                observed.client
            ));
        }
    }
    Ok(())
}

/// Checks that, while serving, a partial head is refused at its time limit.
pub(super) fn half_heads_are_refused(history: &RunHistory<'_>) -> Result<(), String> {
    let left = history.left_serving().unwrap_or(Duration::MAX);
    for (n, _) in history.scenario.clients.iter().enumerate().filter(|(_, client)| {
        matches!(client.traffic, Traffic::HalfHead | Traffic::BadHeader(HeaderFault::Half))
    }) {
        let when = |event| history.of_client(n, event).next().map(|record| record.at);
        let Some(connected) = when("connected") else { continue };
        let by = connected
            + history.header_timeout()
            + history.world(SWEEP)
            + SWEEP_STOPPING
            + history.under_way() * 3
            + history.rounding();
        if history.delivers() && by < left && when("ended").is_none_or(|ended| ended > by) {
            return Err(format!(
                "{} sent a partial head at {connected:?}, but was not refused by {by:?}",
                client_name(n)
            ));
        }
    }
    Ok(())
}

/// Checks that the internal server waits for a partial head up to its time limit. A further SIGTERM
/// does not shorten that.
pub(super) fn internal_heads_have_their_time(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(cleaning_up), Some(stopped)) =
        (history.began(Phase::CleaningUp), history.began(Phase::Stopped))
    else {
        return Ok(());
    };
    let impatient =
        history.impatient().any(|(_, signal)| signal.at >= cleaning_up && signal.at <= stopped);
    let is_stop = |record: &&Record| {
        let said = record.text("end").is_some_and(|end| end.starts_with("stop"));
        let is_other = matches!(record.event, "hook report" | "status page");
        said || (record.text("stage") == Some("stop") && !is_other)
    };
    let last = history.records.iter().filter(is_stop).map(|record| record.at).max();
    let closes = last.map_or(cleaning_up, |last| last.max(cleaning_up));
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let when = |event| history.of_client(n, event).next();
        let (Traffic::InternalHalfHead, Some(connected), Some(ended)) =
            (client.traffic, when("connected"), when("ended"))
        else {
            continue;
        };
        let came = connected.at + Duration::from_millis(history.scenario.latency_ms.0);
        let own = history.header_timeout().min(history.world(INTERNAL_HEADER_TIMEOUT));
        let own = (came + own).min(closes + history.world(HEAD_GRACE));
        let until = own.min(closes + history.world(history.scenario.plan().internal_close));
        // The overall bound takes any delay of the earlier phases from the last wait.
        let is_there = connected.at + history.under_way() < closes && ended.at >= stopped;
        if is_there
            && history.delivers()
            && !impatient
            && stopped + Duration::from_millis(1) + history.rounding() * 3 < until
        {
            return Err(format!(
                "the internal server had time until {until:?} to read from {}, but closed at \
                 {stopped:?}",
                client_name(n)
            ));
        }
    }
    Ok(())
}

/// Checks that a head which arrives in two parts is served if it is complete in time, and only
/// then.
pub(super) fn heads_have_their_time(history: &RunHistory<'_>) -> Result<(), String> {
    let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    let cut = history
        .began(Phase::Cancelling)
        .or(history.exit().map(|(at, _)| at))
        .unwrap_or(Duration::MAX);
    if !history.delivers() {
        return Ok(());
    }
    let (near, far) = (Duration::from_millis(history.scenario.latency_ms.0), history.under_way());
    for observed in &history.requests {
        let (Some(client), Some((_, end))) = (history.client(observed), &observed.end) else {
            continue;
        };
        let Traffic::Once(Pacing::HeadPause(pause)) = client.traffic else { continue };
        let pause = Duration::from_millis(pause);
        let limit = |first: Duration| {
            let usual = first + history.header_timeout();
            let drained = draining.max(first).saturating_add(history.world(HEAD_GRACE));
            usual.min(drained)
        };
        // The connection's first packet arrives before the request's.
        let (first, last) = (observed.observed + near, observed.observed + far + pause);
        let heard = observed.head.is_some_and(|(_, status, _)| status != 408);
        // Otherwise the client connects while the listeners close, or not at all.
        let late = history.tolerance();
        let was_there = observed.observed + far + late < draining;
        // Of the 503 at the cut only a byte may have left.
        let flushes = history.flushes() || !history.has_partial_io();
        let is_judged = flushes && was_there;
        if !heard && is_judged && last + SWEEP_STOPPING + late < limit(first).min(cut) {
            return Err(format!(
                "a head that was complete by {last:?} had time until {:?}, but got {end:?}",
                limit(first)
            ));
        }
        let latest = limit(observed.observed + far)
            + history.world(SWEEP)
            + SWEEP_STOPPING
            + history.rounding();
        let whole = observed.observed + near + pause;
        if heard && whole > latest {
            return Err(format!(
                "a partial head had time until {latest:?}, but was read until {whole:?}"
            ));
        }
    }
    Ok(())
}

/// Checks that a request sent within the first-byte grace is served.
pub(super) fn late_first_bytes_are_served(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(draining), true) = (history.began(Phase::Draining), history.delivers()) else {
        return Ok(());
    };
    let cut = history.began(Phase::Cancelling).unwrap_or(Duration::MAX);
    for observed in &history.requests {
        let (Some(client), Some((at, RequestResult::Failed(how)))) =
            (history.client(observed), &observed.end)
        else {
            continue;
        };
        let connected = history.events("connected").find(|record| {
            *record.actor == *client_name(observed.client)
                && record.number("connection") == Some(observed.connection)
        });
        let (Traffic::Late { .. }, Some(connected), 0) =
            (client.traffic, connected, observed.earlier)
        else {
            continue;
        };
        let arrives = observed.observed + history.under_way();
        let accepted = connected.at + Duration::from_millis(history.scenario.latency_ms.0);
        let until = draining.max(accepted + history.world(FIRST_BYTE_GRACE));
        let lost = observed.head.is_none()
            && matches!(how.as_str(), "reset-before-head" | "end-before-head");
        if lost
            && connected.at + history.under_way() < draining
            && arrives + history.tolerance() < until.min(cut)
            && *at < cut
        {
            return Err(format!(
                "client-{} sent a byte at {:?} and had time until {until:?}, but got no response",
                observed.client, observed.observed
            ));
        }
    }
    Ok(())
}

/// Checks that a handler ends at once after its client has reset the connection, or soon if the
/// client had shut its side before.
pub(super) fn departed_clients_are_noticed(history: &RunHistory<'_>) -> Result<(), String> {
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let (Traffic::Leaves { resets: true, half_closed, next_ms, .. }, true) =
            (client.traffic, history.resets())
        else {
            continue;
        };
        let target = client.request_kind.ask().target;
        let alone =
            history.requests.iter().filter(|observed| observed.target == target).count() == 1;
        let waits = matches!(
            client.request_kind,
            RequestKind::Slow(_)
                | RequestKind::Unlimited(_)
                | RequestKind::Stuck(_, StuckResponse::Nothing)
        );
        let left = history.of_client(n, "leaves").next();
        let (Some(left), true, true) = (left, alone && waits, history.delivers()) else { continue };
        let Some(begins) = history
            .server("handler begins")
            .find(|record| record.text("target") == Some(target.as_str()))
        else {
            continue;
        };
        // A client that is known to have shut its side is checked more often.
        let shut = history.of_its_handler(begins, "half-close noticed").filter(|_| half_closed);
        let interval =
            if shut.is_some() { HALF_CLOSED_CHECK_INTERVAL } else { CLIENT_CHECK_INTERVAL };
        let from = left.at.max(shut.map_or(begins.at, |shut| shut.at)) + history.under_way();
        let at_once = from + NOTICES + history.rounding();
        let is_exact = history.tolerance().is_zero() && !history.is_disturbed((left.at, at_once));
        let by = if half_closed || next_ms.is_some() || !is_exact {
            from + history.world(interval * 2 + SWEEP) + SWEEP_STOPPING
        } else {
            // Nothing but its departure makes the socket readable.
            at_once
        };
        let by = by + history.tolerance();
        let ends = history.of_its_handler(begins, "handler ends");
        if ends.is_some_and(|ends| ends.at > by) {
            return Err(format!(
                "client-{n} left at {:?}, but its handler was running after {by:?}",
                left.at
            ));
        }
    }
    Ok(())
}
