//! TLS handshakes: one that does not go on is given up in its time, delays no other, and is counted
//! (P6, P15).

use super::{Exercise, Judgement, RunHistory, stragglers::HEAD_GRACE};
use crate::{
    scenario::{Client, Traffic},
    trace::Record,
};
use lameduck::{Report, lifecycle::Phase};
use std::time::Duration;

/// Interval between sweeps over the connections while serving.
const SWEEP: Duration = Duration::from_millis(250);
/// Time for the host's part of a handshake, and tolerance of a timer.
const SOON: Duration = Duration::from_millis(50);

/// Checks each handshake.
pub(super) fn handshakes_have_their_time(history: &RunHistory<'_>) -> Judgement {
    let is_exact = history.delivers() && history.resets() && !history.has_partial_io();
    if !history.scenario.tls || !is_exact || history.may_wait_for_room() {
        return Ok(Exercise::No);
    }
    let slow: Vec<Handshake> = slow_handshakes(history).collect();
    for handshake in &slow {
        handshake.has_its_time(history)?;
    }
    no_handshake_waits_for_another(history)?;
    if let Some(report) = &history.outcome.report {
        handshakes_are_counted(history, report, &slow)?;
    }
    Ok(Exercise::of(slow.len()))
}

/// A handshake that its client does not complete.
struct Handshake {
    client: usize,
    connected: Duration,
    ended: Option<Duration>,
}

fn slow_handshakes<'a>(history: &'a RunHistory<'_>) -> impl Iterator<Item = Handshake> + use<'a> {
    let clients = history.scenario.clients.iter().enumerate();
    let slow = clients.filter(|(_, client)| matches!(client.traffic, Traffic::SlowHello { .. }));
    slow.filter_map(|(n, _)| {
        let when = |event| history.of_client(n, event).next().map(|record| record.at);
        Some(Handshake { client: n, connected: when("connected")?, ended: when("ended") })
    })
}

fn timeout(history: &RunHistory<'_>) -> Duration {
    history.world(history.scenario.limits.limits().tls_handshake_timeout)
}

impl Handshake {
    /// Checks that the client has the time of a handshake, counted from its accept, or a second in
    /// the drain, and no more.
    fn has_its_time(&self, history: &RunHistory<'_>) -> Result<(), String> {
        let near = Duration::from_millis(history.scenario.latency_ms.0);
        let far = history.under_way();
        let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
        let cut = history
            .requests_cancelled()
            .or(history.began(Phase::CleaningUp))
            .or(history.exit().map(|(at, _)| at))
            .unwrap_or(Duration::MAX);
        let limit = |accepted: Duration| {
            let in_drain = draining.max(accepted).saturating_add(history.world(HEAD_GRACE));
            (accepted + timeout(history)).min(in_drain)
        };
        let by = limit(self.connected + far)
            + history.world(SWEEP)
            + SOON
            + far
            + history.rounding()
            + history.tolerance();
        if by < cut && self.ended.is_none_or(|ended| ended > by) {
            return Err(format!(
                "client-{} connected at {:?}, did not complete its handshake, and was not given up \
                 by {by:?}",
                self.client, self.connected
            ));
        }
        // Without its first byte it has less time in the drain.
        let least = limit(self.connected + near).saturating_sub(SWEEP_STOPPING) + near;
        let was_there = self.connected + far * 2 < draining;
        let early = self.ended.filter(|ended| *ended < cut && *ended + history.early() < least);
        if let Some(ended) = early.filter(|_| was_there) {
            return Err(format!(
                "client-{} had time for its handshake until {least:?}, and was given up by \
                 {ended:?}",
                self.client
            ));
        }
        Ok(())
    }
}

/// What [`HEAD_GRACE`] has in addition to the second.
const SWEEP_STOPPING: Duration = Duration::from_millis(20);

/// Checks that a client which goes on at once is connected after two round trips, whatever the
/// others do.
fn no_handshake_waits_for_another(history: &RunHistory<'_>) -> Result<(), String> {
    let until = history.left_lame_duck().or(history.exit().map(|(at, _)| at));
    let until = until.unwrap_or(Duration::MAX);
    for (n, record) in history.places("tcp connected") {
        let client = record.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
        let client = client.and_then(|n| history.scenario.clients.get(n));
        let is_prompt = client.is_some_and(|client| client.header.is_none());
        if !is_prompt {
            continue;
        }
        let by = record.at + history.under_way() * 4 + SOON + history.tolerance();
        let is_end = |other: &&Record| {
            other.actor == record.actor
                && matches!(other.event, "connected" | "connect failed" | "tcp connected")
        };
        let ends = history.records[n + 1..].iter().find(is_end).map(|record| record.at);
        if by < until && ends.is_none_or(|ends| ends > by) {
            return Err(format!(
                "{} was to be connected by {by:?}, after its TCP handshake at {:?}, and was at \
                 {ends:?}",
                record.actor, record.at
            ));
        }
    }
    Ok(())
}

/// Checks that completed handshakes are counted, and those that were given up while serving.
fn handshakes_are_counted(
    history: &RunHistory<'_>,
    report: &Report,
    slow: &[Handshake],
) -> Result<(), String> {
    let counted = &report.connections;
    let begun = history.events("tcp connected").count();
    let served = history.events("head").filter(|record| record.actor.starts_with("client-"));
    let mut connections: Vec<_> = served
        .filter_map(|record| {
            let client = record.actor.strip_prefix("client-")?.parse::<usize>().ok()?;
            let number = record.number("request")?;
            Some((client, history.request(client, number)?.connection))
        })
        .collect();
    connections.sort_unstable();
    connections.dedup();
    if counted.handshakes < connections.len() as u64 || counted.handshakes > begun as u64 {
        return Err(format!(
            "{} connections of {begun} were served over TLS, but the host counts {} handshakes",
            connections.len(),
            counted.handshakes
        ));
    }
    // One that leaves at once may do so in its handshake.
    let errs = |client: &Client| {
        let breaks = matches!(client.traffic, Traffic::BadHeader(_) | Traffic::Abandons { .. });
        breaks || matches!(client.traffic, Traffic::Leaves { .. })
    };
    if history.scenario.clients.iter().any(errs) {
        return Ok(());
    }
    if counted.handshakes_failed > 0 {
        return Err(format!(
            "no handshake failed, but the host counts {}",
            counted.handshakes_failed
        ));
    }
    let draining = history.began(Phase::Draining).or(history.exit().map(|(at, _)| at));
    let draining = draining.unwrap_or(Duration::MAX);
    let given_up = slow.iter().filter(|one| one.ended.is_some_and(|ended| ended < draining));
    let given_up = given_up.count() as u64;
    let may_be = slow.iter().filter(|one| one.connected + timeout(history) <= draining);
    let may_be = may_be.count() as u64;
    let all = counted.handshake_timeouts;
    // On a busy machine the handshake of any client may take that long.
    let is_too_many = all > may_be && history.tolerance().is_zero();
    if all < given_up || is_too_many {
        return Err(format!(
            "{given_up} of {may_be} handshakes were given up while serving, but the host counts \
             {all}"
        ));
    }
    Ok(())
}
