//! What is kept for clients of HTTP/2 that read nothing.

use super::{
    CLIENT_CHECK_INTERVAL, MOMENT, RequestResult, RunHistory, of_request, send_timeout,
    served_until,
};
use crate::{scenario::Traffic, trace::Record};
use std::time::Duration;

/// Rounds of requests that are read from a client of HTTP/2 while it reads nothing.
const UNREAD_ROUNDS: u32 = 4;
/// How long a client may make no progress in the drain.
const STALLED_IN_THE_DRAIN: Duration = Duration::from_secs(5);
/// The most requests that a client of HTTP/2 sends at once, unless it resets them.
const REQUESTS_AT_ONCE: u64 = 8;

/// Checks that streams which were reset are not kept while their client reads nothing: at most as
/// many as may be open, and those that one read brings.
pub(super) fn resets_are_bounded(history: &RunHistory<'_>) -> Result<usize, String> {
    let Some(streams_max) = history.scenario.limits.http2_streams_max else { return Ok(0) };
    let most: u64 = history
        .scenario
        .clients
        .iter()
        .map(|client| {
            let resets = matches!(client.traffic, Traffic::Http2Resets { .. });
            let others = client.traffic.requests().max(REQUESTS_AT_ONCE);
            if resets { u64::from(streams_max) * 2 + 1 } else { others }
        })
        .sum();
    let mut judged = 0;
    for (_, place, at) in &history.phases {
        let in_flight = history.records[*place].number("in_flight").unwrap_or(0);
        if in_flight > most {
            return Err(format!(
                "{in_flight} requests were in flight at {at:?}, where clients can have {most}"
            ));
        }
        judged += usize::from(in_flight > 1);
    }
    Ok(judged)
}

/// Checks that not much more is read from a client of HTTP/2 while it reads nothing, whether its
/// streams are open or were reset: `http2_streams_max` requests some times over.
pub(super) fn unread_requests_are_held(history: &RunHistory<'_>) -> Result<usize, String> {
    // The buffers of real kernels take all that is to remain unread.
    let limit = history.scenario.limits.http2_streams_max;
    let Some(streams_max) = limit.filter(|_| history.tolerance().is_zero()) else { return Ok(0) };
    let rounds_max = history.scenario.cap("unread_rounds_max").unwrap_or(UNREAD_ROUNDS);
    let most = u64::from(streams_max) * u64::from(rounds_max + 2);
    let mut judged = 0;
    for reads_nothing in history.events("reads nothing") {
        // Until then its buffers, and those of the host, fill.
        let since = reads_nothing.at + history.under_way() * 4 + MOMENT;
        let again =
            history.events("reads again").find(|record| record.actor == reads_nothing.actor);
        let until = again.map_or(Duration::MAX, |record| record.at);
        let is_its = |record: &&Record| {
            record.at > since
                && record.at < until
                && record.text("of").and_then(|of| of.split('/').next())
                    == Some(&*reads_nothing.actor)
        };
        let begun = history.server("handler begins").filter(is_its).count() as u64;
        if begun > most {
            return Err(format!(
                "{} read nothing from {:?} on, and {begun} of its requests were taken after that",
                reads_nothing.actor, reads_nothing.at
            ));
        }
        judged += 1;
    }
    Ok(judged)
}

/// Checks that a client of HTTP/2 that reads slowly, and makes progress within each timeout, gets
/// its whole response.
pub(super) fn slow_readers_are_served(history: &RunHistory<'_>) -> Result<usize, String> {
    let until = served_until(history);
    let mut judged = 0;
    for observed in history.requests.iter().filter(|observed| observed.head.is_some()) {
        let traffic = history.client(observed).map(|client| client.traffic);
        let Some(Traffic::Http2Slowly { every_ms, .. }) = traffic else { continue };
        let progress = Duration::from_millis(every_ms) + history.under_way() * 4 + MOMENT;
        let timeout = send_timeout(history).unwrap_or(Duration::MAX);
        let timeout = timeout.min(history.world(STALLED_IN_THE_DRAIN));
        let is_judged = progress + history.rounding() + history.tolerance() < timeout;
        let lost = observed.failure().is_some();
        if is_judged && lost && observed.end.as_ref().is_some_and(|(at, _)| *at < until) {
            return Err(format!(
                "client-{} read all the time, and lost its response: {:?}",
                observed.client, observed.end
            ));
        }
        judged += usize::from(is_judged);
    }
    Ok(judged)
}

/// Checks that a stream whose client leaves it unread is reset in its time, whatever the other
/// streams of the connection do, that it is not reset before, and that no other stream is.
pub(super) fn one_unread_stream_is_reset(history: &RunHistory<'_>) -> Result<usize, String> {
    let Some(timeout) = send_timeout(history) else { return Ok(0) };
    let until = served_until(history);
    let slack = MOMENT + history.under_way() * 8 + history.rounding() * 2 + history.tolerance();
    let mut judged = 0;
    for observed in &history.requests {
        let traffic = history.client(observed).map(|client| client.traffic);
        let Some(Traffic::Http2Stalls { beside_ms: Some(_), .. }) = traffic else { continue };
        let n = observed.client;
        if observed.earlier > 0 {
            let is_cut = matches!(
                observed.failure(),
                Some("stream-reset" | "reset-in-body" | "reset-before-head" | "body-cut")
            );
            let early = observed.end.as_ref().is_some_and(|(at, _)| *at < until);
            if is_cut && early {
                return Err(format!(
                    "client-{n} left one stream unread, and lost another: {:?}",
                    observed.end
                ));
            }
            continue;
        }
        let of_it = |event| of_request(history, observed, event);
        let (Some(stalls), Some(ends)) = (of_it("stalls"), of_it("stall ends")) else { continue };
        let by = stalls.at + timeout + history.world(CLIENT_CHECK_INTERVAL) + slack;
        let is_whole = matches!(observed.end, Some((_, RequestResult::Completed(200, _))));
        if is_whole && by < ends.at.min(until) {
            return Err(format!(
                "client-{n} left a stream unread from {:?} on, and it was not reset by {by:?}",
                stalls.at
            ));
        }
        let in_time = ends.at + slack < (stalls.at + timeout).min(until);
        let lost = of_it("response lost").filter(|lost| lost.at < until);
        if let Some(lost) = lost.filter(|_| in_time) {
            return Err(format!(
                "client-{n} went on to read a stream in time, at {:?}, and lost it at {:?}",
                ends.at, lost.at
            ));
        }
        judged += 1;
    }
    Ok(judged)
}
