//! What is kept for clients of HTTP/2 that read nothing.

use super::{MOMENT, RunHistory};
use crate::{scenario::Traffic, trace::Record};
use std::time::Duration;

/// Rounds of requests that are read from a client of HTTP/2 while it reads nothing.
const UNREAD_ROUNDS: u32 = 4;
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
