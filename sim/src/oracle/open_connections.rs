//! Compares the number of open connections, which the host logs at each phase, with those that its
//! clients hold (P13, P15).

use super::{ObservedRequest, RequestResult, RunHistory};
use crate::{
    scenario::{Client, RequestKind, Traffic},
    trace::Record,
};
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// Longest time from the end of a client to the moment at which the host has closed all of its
/// connections: the time in which a close with unread bytes goes on to read, and its checks.
const CLOSES_BY: Duration = Duration::from_secs(3);

/// Precision of the world's time.
const ROUNDING: Duration = Duration::from_millis(1);

/// Time for the accept of a connection.
const ACCEPTS: Duration = Duration::from_millis(50);

/// Checks that at each phase the host counts a connection as open if a request on it is served
/// later, and counts none whose client has ended.
pub(super) fn open_ones_are_counted(history: &RunHistory<'_>) -> Result<(), String> {
    if !history.delivers() || !history.resets() || history.may_wait_for_room() {
        return Ok(());
    }
    for (phase, place, at) in &history.phases {
        let Some(counted) = history.records[*place].number("connections") else { continue };
        // After the cancel wait all are closed, and what was written may still be under way.
        let least = if *phase > Phase::Cancelling { 0 } else { served_later(history, *at) };
        if counted < least {
            return Err(format!(
                "{least} connections were open at {at:?}, as {phase} began, and the host counts \
                 {counted}"
            ));
        }
        let most = opened(history, *at, latest_connect(history, *place, *at));
        if counted > most {
            return Err(format!(
                "at most {most} connections can have been open at {at:?}, as {phase} began, and \
                 the host counts {counted}"
            ));
        }
    }
    Ok(())
}

/// Returns the least and the largest number of connections that may be open at a time of the world,
/// if the network lets a client know.
pub(super) fn bounds(history: &RunHistory<'_>, at: Duration) -> Option<(u64, u64)> {
    if !history.delivers() || !history.resets() || history.may_wait_for_room() {
        return None;
    }
    let is_over = history.began(Phase::Cancelling).is_some_and(|cancelling| at >= cancelling);
    let near = history.rounding() + ROUNDING;
    let least = if is_over { 0 } else { served_later(history, at + near) };
    Some((least, opened(history, at.saturating_sub(near), at + near)))
}

/// Returns the number of connections that were accepted before `at`, and on which a response began
/// after it.
fn served_later(history: &RunHistory<'_>, at: Duration) -> u64 {
    let slack = history.under_way() * 2 + history.tolerance();
    let is_open = |record: &&Record| {
        let client = client_of(record).and_then(|n| Some((n, history.scenario.clients.get(n)?)));
        let Some((n, client)) = client.filter(|(_, client)| is_counted(client)) else {
            return false;
        };
        let is_served = |observed: &ObservedRequest| {
            observed.client == n
                && Some(observed.connection) == record.number("connection")
                && observed.head.is_some_and(|(head, ..)| head > at + slack)
        };
        // A slow reader gets its head long after it was sent.
        let upgrades = matches!(client.traffic, Traffic::Upgraded { .. });
        !upgrades && client.traffic.is_patient() && history.requests.iter().any(is_served)
    };
    let before = |record: &&Record| record.at + slack + ACCEPTS < at;
    let connected = history.events("connected");
    connected.filter(before).filter(is_open).count() as u64
}

/// Returns until when a client may have recorded a connection that the host counted at the begin of
/// a phase. In a simulated network a connection is open for its client first. A real kernel
/// completes the handshake itself, and the client learns of it a latency after the accept.
fn latest_connect(history: &RunHistory<'_>, place: usize, at: Duration) -> Duration {
    if history.tolerance().is_zero() {
        return at;
    }
    // The count is of the moment in which the line was written.
    at.max(history.records[place].at) + history.under_way() + history.tolerance()
}

/// Returns the number of connections that their clients had opened by `until`, without those of
/// clients that had ended at `at`.
fn opened(history: &RunHistory<'_>, at: Duration, until: Duration) -> u64 {
    let of_client = |(n, client): (usize, &Client)| {
        let is_over = history.of_client(n, "is done").any(|record| {
            let by = record.at + history.world(CLOSES_BY) + history.under_way() * 4;
            by + history.tolerance() < at
        });
        if !is_counted(client) || is_over && ends_with_its_connections(history, n, client) {
            return 0;
        }
        let count = |event: &str| {
            history.of_client(n, event).filter(|record| record.at <= until).count() as u64
        };
        // The host may have accepted one that is not connected from its client's point of view.
        let begins = u64::from(matches!(client.traffic, Traffic::Abandons { .. }));
        count("connected").max(count("tcp connected")).max(count("header begins")).max(begins)
    };
    history.scenario.clients.iter().enumerate().map(of_client).sum()
}

/// Whether the host can tell that the client has ended, and not only shut its side: no request of
/// it is left.
fn ends_with_its_connections(history: &RunHistory<'_>, n: usize, client: &Client) -> bool {
    let is_plain = |kind: &RequestKind| {
        !matches!(kind, RequestKind::Rare(_) | RequestKind::User(_) | RequestKind::Mismatch(_))
    };
    let is_complete = |observed: &ObservedRequest| {
        matches!(observed.end, Some((_, RequestResult::Completed(..))))
    };
    let mut requests = history.requests.iter().filter(|observed| observed.client == n);
    !client.traffic.leaves() && client.kinds().all(is_plain) && requests.all(is_complete)
}

/// Whether the connections of a client are those of the main server.
const fn is_counted(client: &Client) -> bool {
    !client.traffic.is_internal()
}

fn client_of(record: &Record) -> Option<usize> {
    record.actor.strip_prefix("client-").and_then(|n| n.parse().ok())
}
