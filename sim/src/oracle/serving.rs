//! Oracles for what a host bounds and refuses while it serves: P15, and its part of P5.

mod places;
mod unread;

use super::{Exercise, Judgement, ObservedRequest, RequestResult, RunHistory};
use crate::{
    scenario::{Client, Pacing, RareRequest, RequestKind, Traffic, client_name},
    trace::Record,
};
use lameduck::{Report, lifecycle::Phase};
use std::time::Duration;

/// Longest time between two checks of a busy client.
const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Idle time after which a connection gives up its task.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// Interval between sweeps over the connections while serving.
const SWEEP: Duration = Duration::from_millis(250);
/// Tolerance of a timer, including a second look and a write.
const MOMENT: Duration = Duration::from_millis(50);
/// A response larger than this does not fit into the buffers of both kernels.
const LARGER_THAN_THE_BUFFERS: usize = 300_000;

/// P15: a client that makes no progress is cut after its timeout, and not before.
pub(super) fn contained(history: &RunHistory<'_>) -> Judgement {
    let mut judged = 0;
    if history.delivers() && history.resets() && !history.has_partial_io() {
        judged += stalled_readers_are_cut(history)?;
        judged += slow_readers_are_not_cut(history)?;
        judged += closed_windows_are_cut(history)?;
        judged += stalled_uploads_are_cut(history)?;
        judged += half_frames_are_given_up(history)?;
        judged += unread::unread_requests_are_held(history)?;
        judged += unread::one_unread_stream_is_reset(history)?;
        judged += unread::slow_readers_are_served(history)?;
    }
    judged += places::limits_of_connections(history)?;
    judged += unread::resets_are_bounded(history)?;
    timeouts_are_counted(history)?;
    Ok(Exercise::of(judged))
}

/// The end of the time in which only a client's own timeout may cut it.
fn served_until(history: &RunHistory<'_>) -> Duration {
    let end = history.began(Phase::Cancelling).or(history.began(Phase::CleaningUp));
    end.or(history.exit().map(|(at, _)| at)).unwrap_or(Duration::MAX)
}

/// Returns the record of an event that a client made about the request `of`.
fn of_request<'a>(
    history: &'a RunHistory<'_>,
    observed: &ObservedRequest,
    event: &str,
) -> Option<&'a Record> {
    let (actor, place) = (client_name(observed.client), Some(request_number(history, observed)));
    history.events(event).find(|record| *record.actor == *actor && record.number("of") == place)
}

/// Returns the number of a request among those of its client.
fn request_number(history: &RunHistory<'_>, observed: &ObservedRequest) -> u64 {
    let key = (observed.client, observed.number);
    let before = |key| history.requests.partition_point(|other| (other.client, other.number) < key);
    (before(key) - before((observed.client, 0))) as u64
}

fn send_timeout(history: &RunHistory<'_>) -> Option<Duration> {
    history.scenario.limits.send_timeout.map(|ms| history.world(Duration::from_millis(ms)))
}

/// Checks that a client which stops reading loses its connection in time, and one that goes
/// on in time does not.
fn stalled_readers_are_cut(history: &RunHistory<'_>) -> Result<usize, String> {
    let Some(timeout) = send_timeout(history) else { return Ok(0) };
    let until = served_until(history);
    let mut judged = 0;
    for observed in &history.requests {
        let (for_ms, requests, has_task) =
            match history.client(observed).map(|client| client.traffic) {
                Some(Traffic::Stalls { for_ms, requests, idle_ms, between_ms, .. }) => {
                    // What hyper serves, and what a small cap moves, has a task for another time.
                    let simple = history.scenario.caps.is_empty() && !history.scenario.tls;
                    let has_task = idle_ms.is_some_and(|ms| Duration::from_millis(ms) < PARK_AFTER);
                    // So is what follows before the first half was received.
                    let round_trip = history.scenario.latency_ms.1 * 2;
                    let apart = between_ms.is_some_and(|ms| ms > round_trip);
                    (for_ms, requests, has_task && apart && simple)
                }
                Some(Traffic::Http2Stalls { for_ms, beside_ms: None, .. }) => (for_ms, 1, true),
                Some(_) | None => continue,
            };
        let Some(RequestKind::Bytes(bytes)) = history.request_kind(observed) else { continue };
        // One response fills no buffer, if none follows it.
        let is_last = matches!(observed.head, Some((_, _, true)));
        if is_last && requests > 1 {
            continue;
        }
        let of_it = |event| of_request(history, observed, event);
        let (Some(stalls), Some(ends)) = (of_it("stalls"), of_it("stall ends")) else { continue };
        // A response that is wholly in the kernels is checked once a timeout, and is cut if nothing
        // of it moved since the check before. The drain begins such a wait again.
        let is_large = *bytes > LARGER_THAN_THE_BUFFERS;
        let waits = if is_large {
            timeout + history.world(CLIENT_CHECK_INTERVAL + SWEEP * 2)
        } else {
            two_checks(history, timeout, has_task)
        };
        let draining = history.began(Phase::Draining).filter(|_| !is_large);
        let since = draining.filter(|at| *at < stalls.at + waits * 2).unwrap_or(stalls.at);
        let slack = MOMENT + history.under_way() * 8 + history.rounding() * 2;
        let by = since.max(stalls.at) + waits + slack;
        let comes_back = stalls.at + Duration::from_millis(for_ms);
        let cut = ends.text("how") == Some("reset");
        if cut && ends.at < until && ends.at + history.rounding() < stalls.at + timeout {
            return Err(format!(
                "client-{} read nothing from {:?} on, had {timeout:?}, and was cut by {:?}",
                observed.client, stalls.at, ends.at
            ));
        }
        // In real time all of a small response may be acknowledged.
        let is_judged = is_large || history.tolerance().is_zero();
        if is_judged && by < until.min(comes_back) && (!cut || ends.at > by) {
            return Err(format!(
                "client-{} read nothing from {:?} on, and was not cut by {by:?}",
                observed.client, stalls.at
            ));
        }
        let completed = matches!(observed.end, Some((_, RequestResult::Completed(200, _))));
        let lost = of_it("response lost").is_some_and(|lost| lost.at < until);
        if !cut && lost && !completed {
            return Err(format!(
                "client-{} went on to read in time, at {:?}, and got no whole response",
                observed.client, ends.at
            ));
        }
        judged += usize::from(cut);
    }
    Ok(judged)
}

/// Checks that a client which reads slowly, and never pauses for its timeout, gets the whole
/// response.
fn slow_readers_are_not_cut(history: &RunHistory<'_>) -> Result<usize, String> {
    let until = served_until(history);
    let mut judged = 0;
    for observed in &history.requests {
        let Some((progress, timeout)) = slow_reader(history, observed) else { continue };
        let lost = matches!(&observed.end, Some((at, RequestResult::Failed(_))) if *at < until);
        if lost && observed.head.is_some() && progress < timeout {
            return Err(format!(
                "client-{} read every {progress:?}, had {timeout:?} for each, and lost its \
                 response: {:?}",
                observed.client, observed.end
            ));
        }
        judged += 1;
    }
    Ok(judged)
}

/// Returns the longest time between two signs of progress of a slow reader, and its timeout, if the
/// scenario has one.
fn slow_reader(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
) -> Option<(Duration, Duration)> {
    let Some(RequestKind::Bytes(_)) = history.request_kind(observed) else { return None };
    let Traffic::Once(Pacing::SlowReader(_, pause)) = history.client(observed)?.traffic else {
        return None;
    };
    // Its progress shows a round trip after each read, and at the next sweep.
    let progress = Duration::from_millis(pause) + history.under_way() * 2 + history.rounding();
    Some((progress, send_timeout(history)?))
}

/// Returns the number of slow readers that lost their response, where a busy machine may have made
/// them later than their timeout. The host counts each as a timeout of its client, and its request
/// as gone. In simulated time none is late.
pub(super) fn late_readers(history: &RunHistory<'_>, report: &Report) -> u64 {
    if history.tolerance().is_zero() {
        return 0;
    }
    let is_late = |observed: &&ObservedRequest| {
        slow_reader(history, observed).is_some_and(|(progress, timeout)| progress >= timeout)
            && observed.head.is_some_and(|(_, status, _)| status == 200)
            && observed.failure() == Some("reset-in-body")
    };
    let late = history.requests.iter().filter(is_late).count() as u64;
    late.min(report.connections.send_timeouts).min(report.requests.gone)
}

/// Returns the longest time until two checks have found that a client acknowledged nothing. Each
/// comes a timeout after the one before, with the next sweep. On HTTP/1 a connection may give up
/// its task between them, and the checks begin again; with `has_task` only after its time.
fn two_checks(history: &RunHistory<'_>, timeout: Duration, has_task: bool) -> Duration {
    let (sweep, parks) = (history.world(SWEEP), history.world(PARK_AFTER));
    let with_a_task = (timeout + sweep) * 2;
    if has_task && with_a_task < parks {
        with_a_task
    } else {
        timeout.max(parks + sweep) + timeout + sweep * 2
    }
}

/// Whether this request may be reset for another reason: it is a call with its own deadline, or its
/// handler closes the connection, which a further request may cross.
fn has_another_end(history: &RunHistory<'_>, observed: &ObservedRequest) -> bool {
    match history.request_kind(observed) {
        Some(RequestKind::Rare(RareRequest::Call(call))) => call.timeout_ms.is_some(),
        Some(RequestKind::Rare(RareRequest::Closes { .. })) => true,
        _ => false,
    }
}

/// Checks that a stream whose window stays closed is reset in time, and not before.
fn closed_windows_are_cut(history: &RunHistory<'_>) -> Result<usize, String> {
    let Some(timeout) = send_timeout(history) else { return Ok(0) };
    let until = served_until(history);
    let near = Duration::from_millis(history.scenario.latency_ms.0);
    let mut judged = 0;
    for observed in &history.requests {
        let windowless = history
            .client(observed)
            .is_some_and(|client| matches!(client.traffic, Traffic::Http2Windowless { .. }));
        let (true, Some((head, 200, _))) = (windowless, observed.head) else { continue };
        let lost = of_request(history, observed, "response lost");
        let least = observed.observed + near * 2 + timeout;
        let by = head + timeout + MOMENT + history.under_way() * 2 + history.rounding() * 2;
        if let Some(lost) = lost
            && !has_another_end(history, observed)
            && lost.at < until
            && lost.at + history.early() < least
        {
            return Err(format!(
                "a stream of client-{} was to have until {least:?}, and was cut at {:?}",
                observed.client, lost.at
            ));
        }
        // A response without content needs no window.
        let completed = matches!(
            &observed.end,
            Some((at, RequestResult::Completed(_, 0))) if *at <= by
        );
        if by < until && !completed && lost.is_none_or(|lost| lost.at > by) {
            return Err(format!(
                "client-{} opened no window from {head:?} on, and its stream was not cut by {by:?}",
                observed.client
            ));
        }
        judged += usize::from(lost.is_some());
    }
    Ok(judged)
}

/// Checks that a request whose body stops gets its 503 in time, and one whose body continues does
/// not.
fn stalled_uploads_are_cut(history: &RunHistory<'_>) -> Result<usize, String> {
    let Some(timeout) = history.scenario.limits.body_timeout else { return Ok(0) };
    let timeout = history.world(Duration::from_millis(timeout));
    let until = served_until(history);
    let deadline = history
        .scenario
        .request_timeout_ms
        .map_or(Duration::MAX, |ms| history.world(Duration::from_millis(ms)));
    let far = history.under_way();
    let near = Duration::from_millis(history.scenario.latency_ms.0);
    let mut judged = 0;
    for observed in &history.requests {
        let (Some(RequestKind::Echo(_)), Some(pause)) = (
            history.request_kind(observed),
            history.client(observed).and_then(|client| client.traffic.upload_pause()),
        ) else {
            continue;
        };
        let pause = Duration::from_millis(pause);
        let cut = observed.head.filter(|(_, status, _)| *status == 503).map(|(at, ..)| at);
        let until = until.min(observed.observed.saturating_add(deadline));
        if let Some(cut) = cut.filter(|cut| *cut < until) {
            let goes_on = pause + (far - near) + history.rounding() < timeout;
            if goes_on || cut + history.early() < observed.observed + near * 2 + timeout {
                return Err(format!(
                    "an upload of client-{} with a piece every {pause:?} had {timeout:?} for each, \
                     and was cut at {cut:?}",
                    observed.client
                ));
            }
            judged += 1;
        }
        let by = observed.observed + timeout + MOMENT + far * 2 + history.rounding() * 2;
        let stands_still = by < until.min(observed.observed + pause);
        if stands_still && cut.is_none_or(|cut| cut > by) {
            return Err(format!(
                "client-{} sent nothing of its body from {:?} on, and got no 503 by {by:?}",
                observed.client, observed.observed
            ));
        }
    }
    Ok(judged)
}

/// Checks that an HTTP/2 client which stops within a frame loses its connection in time, and its
/// responses not before.
fn half_frames_are_given_up(history: &RunHistory<'_>) -> Result<usize, String> {
    let until = served_until(history);
    let left = history.left_serving().unwrap_or(Duration::MAX);
    let near = Duration::from_millis(history.scenario.latency_ms.0);
    let mut judged = 0;
    for stops in history.events("stops in a frame") {
        // While it sends the part, the client does not see the end of its connection.
        let is_end = |record: &Record| {
            matches!(record.event, "ended" | "end received")
                || record.event == "goaway" && record.number("code").is_some_and(|code| code > 0)
        };
        let ends = history.records.iter().find(|record| {
            is_end(record)
                && record.actor == stops.actor
                && record.number("connection") == stops.number("connection")
        });
        let timeout = history.header_timeout();
        let by = stops.at
            + timeout
            + history.world(SWEEP)
            + MOMENT
            + history.under_way() * 2
            + history.rounding() * 2;
        // The host begins the time again when it has read as much as it may in one poll. With the
        // usual cap no incomplete frame is that long.
        let is_whole_poll = history.scenario.cap("read_per_poll").is_none();
        if is_whole_poll && by < until && ends.is_none_or(|ends| ends.at > by) {
            return Err(format!(
                "{} sent half a frame at {:?}, and was not given up by {by:?}",
                stops.actor, stops.at
            ));
        }
        let lost = |observed: &&ObservedRequest| {
            let keeps = |client: &Client| {
                matches!(client.traffic, Traffic::Http2HalfFrame { half_closes: false, .. })
            };
            let least = stops.at + near * 2 + timeout;
            *stops.actor == *client_name(observed.client)
                && history.client(observed).is_some_and(keeps)
                && matches!(&observed.end, Some((at, RequestResult::Failed(_)))
                    if *at < left && *at + history.early() < least)
        };
        if let Some(lost) = history.requests.iter().find(lost) {
            return Err(format!(
                "client-{} had {timeout:?} for its frame since {:?}, and lost {} by {:?}",
                lost.client, stops.at, lost.target, lost.end
            ));
        }
        judged += 1;
    }
    Ok(judged)
}

/// Checks that each client that was seen to be cut was counted, and none if all read at once.
fn timeouts_are_counted(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(report), true) = (&history.outcome.report, history.delivers() && history.resets())
    else {
        return Ok(());
    };
    let until = served_until(history).saturating_sub(history.under_way() + MOMENT);
    let lost = |observed: &&ObservedRequest| {
        let is = |event, how| {
            let record = of_request(history, observed, event);
            record.is_some_and(|record| record.text("how") == Some(how) && record.at < until)
        };
        !has_another_end(history, observed)
            && (is("stall ends", "reset") || is("response lost", "stream-reset"))
    };
    let cut = history.requests.iter().filter(lost).count() as u64;
    let connections = &report.connections;
    if send_timeout(history).is_some() && cut > connections.send_timeouts {
        return Err(format!(
            "{cut} responses were cut because nobody took them, and the host counts {}",
            connections.send_timeouts
        ));
    }
    let all_read = history.scenario.clients.iter().all(|client| client.traffic.is_patient());
    if all_read && connections.send_timeouts > 0 {
        return Err(format!(
            "all clients read at once, and the host counts {} that did not",
            connections.send_timeouts
        ));
    }
    body_timeouts_are_counted(history, connections.body_timeouts)
}

/// Checks that each upload that was given up is counted, on both protocols, and no other.
fn body_timeouts_are_counted(history: &RunHistory<'_>, counted: u64) -> Result<(), String> {
    let until = served_until(history).saturating_sub(history.tolerance());
    let deadline = history.scenario.request_timeout_ms.map_or(Duration::MAX, |ms| {
        history.world(Duration::from_millis(ms)).saturating_sub(history.tolerance())
    });
    let uploads = || {
        let slow = |client: &Client| client.traffic.upload_pause().is_some();
        let slow = move |observed: &&ObservedRequest| history.client(observed).is_some_and(slow);
        history.requests.iter().filter(slow)
    };
    let given_up = |observed: &&ObservedRequest| {
        let until = until.min(observed.observed.saturating_add(deadline));
        matches!(history.request_kind(observed), Some(RequestKind::Echo(_)))
            && observed.head.is_some_and(|(at, status, _)| status == 503 && at < until)
    };
    let given_up = uploads().filter(given_up).count() as u64;
    let complete = |observed: &&ObservedRequest| {
        matches!(observed.end, Some((_, RequestResult::Completed(200, _))))
    };
    let most = uploads().filter(|observed| !complete(observed)).count() as u64;
    if counted < given_up || counted > most {
        return Err(format!(
            "{given_up} of {most} uploads without an end were given up, and the host counts \
             {counted}"
        ));
    }
    Ok(())
}

/// P5d: an unusual request is served as any other, one with a wrong `Host` is refused, and a
/// response whose body does not match its length is never complete.
pub(super) fn odd_requests_are_answered(
    history: &RunHistory<'_>,
    observed: &ObservedRequest,
) -> Result<(), String> {
    let Some((at, RequestResult::Completed(status, bytes))) = observed.end else {
        return Ok(());
    };
    match history.request_kind(observed) {
        Some(RequestKind::Odd(odd))
            if odd.announces_close() && matches!(observed.head, Some((_, _, false))) =>
        {
            Err(format!(
                "a request of the kind {} was answered at {at:?} as if the connection went on",
                odd.name()
            ))
        }
        Some(RequestKind::Odd(odd)) => {
            let (due, length) = odd.response();
            // 503: the deadline, or the shutdown.
            let is_it = status == due && length.is_none_or(|length| length == bytes);
            // 431: the limit on fields, which another oracle judges.
            let is_limited = status == 431 && history.scenario.limits.headers_max.is_some();
            if is_it || is_limited || (status == 503 && !odd.is_refused()) {
                return Ok(());
            }
            Err(format!(
                "a request of the kind {} got a {status} with {bytes} bytes at {at:?}",
                odd.name()
            ))
        }
        Some(RequestKind::Rare(RareRequest::Late { closes: true, .. }))
            if matches!(observed.head, Some((_, _, false))) =>
        {
            Err(format!(
                "{} requested the close, and its response at {at:?} did not announce it",
                observed.target
            ))
        }
        // 503: the deadline, or the shutdown.
        Some(RequestKind::Rare(RareRequest::Late { .. })) if status != 200 && status != 503 => {
            Err(format!("{} got a {status} at {at:?}", observed.target))
        }
        Some(RequestKind::Rare(RareRequest::Empty { status: due, head, .. })) => {
            let is_due = status == u64::from(*due);
            if (is_due || status == 503) && (bytes == 0 || !is_due && !head) {
                return Ok(());
            }
            Err(format!("{} got a {status} with {bytes} bytes at {at:?}", observed.target))
        }
        Some(RequestKind::Mismatch(length)) if status == 200 => Err(format!(
            "4 bytes with a content-length of {} looked whole at {at:?}",
            length.said()
        )),
        Some(_) | None => Ok(()),
    }
}

/// P5d: no head of a response without content has the length of one with content. A user's service
/// may say that of a 304 itself, as axum does.
pub(super) fn lengths_are_of_the_status(history: &RunHistory<'_>) -> Result<(), String> {
    let wrong = |record: &&Record| record.number("wrong_length").is_some();
    match history.records.iter().find(wrong).filter(|_| !history.uses_another_app()) {
        Some(head) => Err(format!("a head has a length that its status forbids: {head}")),
        None => Ok(()),
    }
}

/// P5: nothing arrives on a connection that was not requested.
pub(super) fn nothing_arrives_unasked(history: &RunHistory<'_>) -> Result<(), String> {
    let unasked = history.records.iter().find(|record| {
        (record.event == "closed idle" && record.text("how") == Some("unasked-bytes"))
            || record.event == "unasked" && record.actor.starts_with("client-")
    });
    match unasked {
        Some(record) => {
            Err(format!("{} got bytes at {:?} that it had not asked for", record.actor, record.at))
        }
        None => Ok(()),
    }
}
