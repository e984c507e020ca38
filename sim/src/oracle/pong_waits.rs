//! P6: the wait for the PONG after a GOAWAY of HTTP/2. A client that withholds it, and goes on
//! opening streams, has a second, and then its connection ends as soon as no stream is open.

use super::{ObservedRequest, RunHistory};
use crate::{
    client::withholds_pongs,
    scenario::{Traffic, client_name},
    trace::Record,
};
use std::time::Duration;

/// The longest time for the PONG after a GOAWAY, and the longest time between two sweeps.
const PONG_WAIT: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_millis(250 + 10);

/// Checks that a connection of HTTP/2 whose client withholds its PONG ends a second after its
/// GOAWAY, or with its last stream, or as soon as no stream is open after that second.
pub(super) fn pongs_are_awaited_for_a_second(history: &RunHistory<'_>) -> Result<(), String> {
    let exit = history.exit().map_or(Duration::MAX, |(at, _)| at);
    if !history.delivers() || history.has_partial_io() {
        return Ok(());
    }
    for goaway in history.events("goaway").filter(|goaway| is_late(history, goaway)) {
        let of_it = |record: &&Record| {
            record.actor == goaway.actor
                && record.number("connection") == goaway.number("connection")
        };
        let own = |observed: &&ObservedRequest| {
            client_name(observed.client) == *goaway.actor
                && Some(observed.connection) == goaway.number("connection")
        };
        let Some(ended) = history.events("ended").find(of_it).map(|record| record.at) else {
            continue;
        };
        let spans =
            history.requests.iter().filter(own).map(|observed| {
                Some((observed.observed, observed.end.as_ref().map(|(at, _)| *at)?))
            });
        let Some(mut spans) = spans.collect::<Option<Vec<_>>>() else { continue };
        spans.sort_unstable();
        // What the client sends in the last moment crosses the end.
        let slack = history.world(SWEEP) + history.under_way() * 2 + history.tolerance();
        let waited = goaway.at + history.world(PONG_WAIT);
        for idle in idle_times(&spans) {
            let due = waited.max(idle.0) + slack;
            if due < exit.min(idle.1) && ended > due {
                return Err(format!(
                    "{} withheld the PONG of its GOAWAY at {:?}, had no stream from {:?} on, and \
                     was closed at {ended:?}, after {due:?}",
                    goaway.actor, goaway.at, idle.0
                ));
            }
        }
    }
    Ok(())
}

/// Whether the client of this GOAWAY responds to its PING never, or later than it may.
fn is_late(history: &RunHistory<'_>, goaway: &Record) -> bool {
    let client = goaway.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
    let traffic = client.and_then(|n| history.scenario.clients.get(n)).map(|client| client.traffic);
    match traffic {
        Some(Traffic::Http2GoesOn { pong_ms, .. }) => {
            pong_ms.is_none_or(|ms| history.world(PONG_WAIT) < Duration::from_millis(ms))
        }
        _ => withholds_pongs(&goaway.actor),
    }
}

/// Returns the times in which no stream is open, each with its end. `spans` are those of the
/// streams, in the order in which they were opened.
fn idle_times(spans: &[(Duration, Duration)]) -> Vec<(Duration, Duration)> {
    let mut times = Vec::new();
    let mut last = None;
    for (begin, end) in spans {
        if let Some(last) = last.filter(|last| last < begin) {
            times.push((last, *begin));
        }
        last = last.max(Some(*end));
    }
    times.extend(last.map(|last| (last, Duration::MAX)));
    times
}
