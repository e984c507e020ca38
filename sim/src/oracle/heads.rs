//! The heads of requests: how long one may take, and how many fields and bytes it may have (P5, P6,
//! P15).

use super::{Exercise, Judgement, ObservedRequest, RequestResult, RunHistory};
use crate::{
    client::RequestSpec,
    scenario::{Client, HeadInPieces, RareRequest, RequestKind, Traffic, client_name},
};
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// Length of the preface of HTTP/2.
const PREFACE_BYTES: usize = 24;
/// Grace of a new connection of HTTP/2 in the drain, before it gets its GOAWAY.
const FIRST_BYTE_GRACE: Duration = Duration::from_millis(250);
/// Time limit of a partial head in the drain.
const HEAD_GRACE: Duration = Duration::from_secs(1);
/// Idle time after which a connection gives up its task.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// Interval between sweeps over the connections while serving, and after the stop request.
const SWEEP: Duration = Duration::from_millis(250);
const SWEEP_STOPPING: Duration = Duration::from_millis(20);

/// The end of a request whose head came too late, or not at all.
#[derive(Clone, Copy, Debug)]
struct HeadTimes {
    /// Arrival of the first byte at the earliest and at the latest.
    first: (Duration, Duration),
    /// Arrival of the last byte at the earliest and at the latest; `None` if it never comes.
    last: Option<(Duration, Duration)>,
}

/// P6: a head that comes in pieces is served if it is whole in its time, which begins once, with
/// its first byte. Otherwise it is refused then, and not before.
pub(super) fn heads_have_one_time(history: &RunHistory<'_>) -> Judgement {
    let mut judged = 0;
    if !history.delivers() || !history.resets() || history.has_partial_io() {
        return Ok(Exercise::No);
    }
    for observed in &history.requests {
        let Some(Traffic::InPieces(how)) = history.client(observed).map(|client| client.traffic)
        else {
            continue;
        };
        let Some(times) = times(history, observed, how) else { continue };
        has_its_time(history, observed, times)?;
        judged += 1;
    }
    Ok(Exercise::of(judged))
}

/// Returns when the head of a request arrived; `None` if that is unknown, or if the connection had
/// to end for another reason.
fn times(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    how: HeadInPieces,
) -> Option<HeadTimes> {
    if observed.earlier < how.earlier {
        return None;
    }
    let client = history.client(observed)?;
    let ask = client.ask(history.request_kind(observed)?);
    let named = ask.named(&format!("{}/{}", client_name(observed.client), observed.number));
    let pieces = how.pieces(&named.bytes(), named.head().len());
    let lasts = how.lasts(pieces.len());
    let near = Duration::from_millis(history.scenario.latency_ms.0);
    let far = history.under_way() + history.tolerance();
    let has_one_before = how.earlier > 0 && how.idle_ms.is_none();
    let before_ms = if has_one_before { how.before_ms } else { 0 };
    let sent = observed.observed + Duration::from_millis(before_ms);
    let mut begun = sent + far;
    if how.earlier > 0 {
        let before = history.requests.iter().find(|before| {
            (before.client, before.connection) == (observed.client, observed.connection)
                && before.earlier + 1 == observed.earlier
        })?;
        let Some((at, RequestResult::Completed(..))) = before.end else { return None };
        let closes = before.head.is_none_or(|(_, _, closes)| closes);
        if closes || history.may_cross_an_idle_close(observed) {
            return None;
        }
        // In one write with a request that hyper serves, it may be found only when the connection
        // gives up its task.
        begun = begun.max(at);
        // A part of a record, too.
        let fast = before_ms == 0 && is_on_the_fast_path(history, before);
        let in_one_write = how.idle_ms.is_none() && !fast;
        if in_one_write || how.in_one_record && history.scenario.tls {
            begun += history.world(PARK_AFTER);
        }
    }
    let last = how.is_whole.then_some((sent + lasts + near, (sent + lasts + far).max(begun)));
    Some(HeadTimes { first: (sent + near, begun), last })
}

/// Whether a request was certainly served without hyper, which finds a part of the next head in the
/// same write at once.
fn is_on_the_fast_path(history: &RunHistory<'_>, observed: &ObservedRequest) -> bool {
    let has_no_fields = |client: &Client| client.fields.is_none();
    history.request_kind(observed) == Some(&RequestKind::Fast)
        && history.client(observed).is_some_and(has_no_fields)
        && history.scenario.caps.is_empty()
        && !history.scenario.tls
}

fn has_its_time(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    times: HeadTimes,
) -> Result<(), String> {
    let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    let end = history.began(Phase::Cancelling).or(history.began(Phase::CleaningUp));
    let cut = end.or(history.exit().map(|(at, _)| at)).unwrap_or(Duration::MAX);
    let near = Duration::from_millis(history.scenario.latency_ms.0);
    let far = history.under_way() + history.tolerance();
    let limit = |first: Duration| {
        let drained = draining.max(first).saturating_add(history.world(HEAD_GRACE));
        (first + history.header_timeout()).min(drained)
    };
    let (least, most) = (limit(times.first.0), limit(times.first.1));
    let most = most + history.world(SWEEP) + SWEEP_STOPPING + history.rounding();
    // One that arrives as the drain closes the connection crosses that.
    if times.first.1 + SWEEP_STOPPING >= draining || history.may_wait_for_room() {
        return Ok(());
    }
    let who = format!(
        "client-{} sent the first piece of a head at {:?}",
        observed.client, observed.observed
    );
    let refused = match (observed.head, &observed.end) {
        (Some((at, 408, _)), _) => Some(at),
        (None, Some((at, RequestResult::Failed(_)))) => Some(*at),
        (Some(_), _) | (None, _) => None,
    };
    let served = observed.head.filter(|(_, status, _)| *status != 408);
    if let Some(at) = refused
        && at < cut
        && at + history.early() < least + near
    {
        return Err(format!("{who}, had time until {least:?}, and was refused at {at:?}"));
    }
    if let Some((whole, _)) = times.last.filter(|_| served.is_some())
        && whole > most
    {
        return Err(format!("{who}, had time until {most:?}, and was read until {whole:?}"));
    }
    let in_time = times.last.is_some_and(|(_, last)| last + SWEEP_STOPPING < least.min(cut));
    if in_time && served.is_none() && observed.end.is_some() {
        return Err(format!("{who}, was whole before {least:?}, and got {:?}", observed.end));
    }
    let by = most + far * 2;
    let comes_late = times.last.is_none_or(|(first, _)| first > by);
    if comes_late && by < cut && refused.is_none_or(|at| at > by) {
        return Err(format!("{who}, had time until {most:?}, and was not refused by {by:?}"));
    }
    Ok(())
}

/// P6: a preface of HTTP/2 that comes in pieces has one time, too. After it the first request has
/// as much again, and then the client has some time to follow a GOAWAY.
pub(super) fn prefaces_have_one_time(history: &RunHistory<'_>) -> Judgement {
    let mut judged = 0;
    if !history.delivers() || !history.resets() || history.has_partial_io() {
        return Ok(Exercise::No);
    }
    let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    let end = history.began(Phase::Cancelling).or(history.began(Phase::CleaningUp));
    let cut = end.or(history.exit().map(|(at, _)| at)).unwrap_or(Duration::MAX);
    let near = Duration::from_millis(history.scenario.latency_ms.0);
    let far = history.under_way() + history.tolerance();
    for (n, client) in history.scenario.clients.iter().enumerate() {
        let Traffic::SlowHttp2 { bytes, every_ms, is_whole } = client.traffic else { continue };
        let when = |event| history.of_client(n, event).next().map(|record| record.at);
        let Some(connected) = when("connected") else { continue };
        let pauses = PREFACE_BYTES.div_ceil(bytes.max(1)) as u64 - 1;
        let lasts = Duration::from_millis(every_ms * pauses);
        let timeout = history.header_timeout();
        let limit = |since: Duration| {
            (since + timeout).min(draining.max(since).saturating_add(history.world(HEAD_GRACE)))
        };
        let least = limit(connected + near);
        let (in_time, swept) = (limit(connected + far), history.world(SWEEP) + SWEEP_STOPPING);
        let comes = is_whole && connected + lasts <= in_time;
        // One that comes whole after its time, but before a sweep, begins HTTP/2.
        let may_come = is_whole && connected + lasts <= in_time + swept;
        let most = if may_come {
            let since = connected + far + lasts;
            let drained = draining.max(since).saturating_add(history.world(FIRST_BYTE_GRACE));
            (since + timeout).min(drained) + history.world(HEAD_GRACE)
        } else {
            // Over TLS the protocol is known before the preface.
            let known = if history.scenario.tls { FIRST_BYTE_GRACE } else { Duration::ZERO };
            in_time + history.world(known)
        };
        let by = most + swept + far * 2 + history.rounding();
        let ended = when("ended");
        let is_early = |at: Duration| at < cut && at + history.early() < least + near;
        if !comes && !history.scenario.tls && ended.is_some_and(is_early) {
            return Err(format!(
                "client-{n} began HTTP/2 at {connected:?}, had time until {least:?}, and was closed at \
                 {ended:?}"
            ));
        }
        if by < cut && ended.is_none_or(|at| at > by) {
            return Err(format!(
                "client-{n} began HTTP/2 at {connected:?}, in pieces every {every_ms} ms, had time \
                 until {most:?}, and was not closed by {by:?}"
            ));
        }
        judged += usize::from(ended.is_some_and(|at| at < cut));
    }
    Ok(Exercise::of(judged))
}

/// P15: a request with more header fields or bytes than the limits gets a 431, and no other does.
pub(super) fn heads_are_limited(history: &RunHistory<'_>) -> Judgement {
    let limits = history.scenario.limits();
    let mut judged = 0;
    for observed in &history.requests {
        let (Some(client), Some(kind)) = (history.client(observed), history.request_kind(observed))
        else {
            continue;
        };
        // Calls have their own status, and odd requests their own head.
        let other = matches!(
            kind,
            RequestKind::User(_) | RequestKind::Odd(_) | RequestKind::Rare(RareRequest::Call(_))
        );
        let Some((at, status, _)) = observed.head.filter(|_| !other) else { continue };
        let ask = client.ask(kind);
        let (count, bytes) = head_size(history, observed, &ask);
        let is_large = count > limits.headers_max || bytes > limits.header_bytes_max + SLACK;
        let is_small = count <= limits.headers_max && bytes + SLACK <= limits.header_bytes_max;
        if is_small && status == 431 || is_large && !matches!(status, 431 | 408) {
            return Err(format!(
                "a head of client-{} with {count} fields of {} and {bytes} bytes of {} got a \
                 {status} at {at:?}",
                observed.client, limits.headers_max, limits.header_bytes_max
            ));
        }
        judged += usize::from(is_large);
    }
    Ok(Exercise::of(judged))
}

/// What a protocol may count for a head in addition to its text.
const SLACK: usize = 4_500;

/// Returns the number of fields of a head, and its length.
fn head_size(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
    ask: &RequestSpec,
) -> (usize, usize) {
    let named = ask.named(&format!("{}/{}", client_name(observed.client), observed.number));
    // On HTTP/2 the host is no field.
    let host = usize::from(history.is_http2(observed));
    (named.field_count() - host, named.head().len())
}
