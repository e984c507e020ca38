//! Draws clients that are slow with one part of a connection while the rest of it goes on: one
//! stream of several, the first byte of a head, the responses before one that fails, the end of one
//! side. It uses its own dice, so that the rest of the scenario does not depend on it.

use super::{
    Dice, Edges,
    serving::{TIMEOUTS, before_the_drain, is_calm, stop_after, without_slow_clients},
};
use crate::scenario::{
    Client, HeadInPieces, Pacing, RareRequest, RequestKind, Scenario, Traffic, WrongLength,
};

/// Adds one of these to some scenarios.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() {
        small_excess(dice, scenario);
        return;
    }
    match dice.below(24) {
        0 => one_unread_stream(dice, scenario, edges),
        1 => failures_after_others(dice, scenario, edges),
        2 => short_beginnings(dice, scenario, edges),
        3 => half_closes(dice, scenario, edges),
        4 => unread_ends(dice, scenario, edges),
        5..=6 => slow_readers(dice, scenario, edges),
        _ => {}
    }
}

/// Lets only a few connections more than the limit be open, in half of the scenarios with a limit
/// and no other small cap.
fn small_excess(dice: &mut Dice, scenario: &mut Scenario) {
    if scenario.caps.is_empty() && dice.one_in(2) {
        scenario.caps.insert("evicted_at_once".to_owned(), dice.pick(&[1, 1, 2, 3]));
    }
}

/// Clients of HTTP/2 that leave one stream unread, and read all others.
fn one_unread_stream(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    without_slow_clients(scenario);
    let timeout = *scenario.limits.send_timeout.get_or_insert(dice.pick(&TIMEOUTS));
    for _ in 0..dice.between(1, 2) {
        let at_ms = before_the_drain(dice, edges, timeout * 2 + 1_500);
        // More than a window, by more than may leave without one.
        let bytes = dice.pick(&[90_000, 120_000]);
        let for_ms = if dice.one_in(4) { timeout / 2 } else { timeout * 2 + 1_800 };
        let beside_ms = Some(timeout * dice.between(1, 3) / 5);
        let traffic = Traffic::Http2Stalls { for_ms, idle_ms: None, beside_ms };
        let other = if dice.one_in(3) { RequestKind::Fast } else { RequestKind::Bytes(2_000) };
        scenario.clients.push(Client::new(at_ms, RequestKind::Bytes(bytes), traffic).then(other));
    }
}

/// Clients of HTTP/2 that take longer for a response than a timeout, and make progress all the
/// time: while the host serves, or with the last bytes of a response across the drain.
fn slow_readers(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    let may_be_short = scenario.clients.iter().all(|client| client.traffic.is_simple());
    if may_be_short && dice.one_in(2) {
        let timeout = *scenario.limits.send_timeout.get_or_insert(dice.pick(&[200, 350, 700]));
        let traffic = Traffic::Http2Slowly { window: 16_384, every_ms: timeout * 3 / 5 };
        let at_ms = dice.below(edges.stop);
        stop_after(scenario, edges, at_ms + timeout * 9);
        scenario.clients.push(Client::new(at_ms, RequestKind::Bytes(200_000), traffic));
        return;
    }
    if scenario.limits.send_timeout.is_some() {
        return;
    }
    // What waits for the next read waits for longer than the PONG after a GOAWAY may.
    let every_ms = dice.pick(&[1_200, 2_200, 2_200]);
    let traffic = Traffic::Http2Slowly { window: 60_000, every_ms };
    let before = dice.pick(&[20, 20, every_ms]);
    let at_ms = dice.pick(&[edges.stop, edges.drain]).saturating_sub(before);
    // The first frame is read at once. Then a part of the last one has no window, or all of it.
    let bytes = dice.pick(&[78_000, 81_000, 90_000]);
    scenario.clients.push(Client::new(at_ms, RequestKind::Bytes(bytes), traffic));
}

/// Pipelines in which a body fails after long responses, which are still on their way then.
fn failures_after_others(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    scenario.tls |= dice.one_in(2);
    for _ in 0..dice.between(1, 3) {
        let lead = scenario.latency_ms.1 * dice.below(8);
        let at_ms = if dice.one_in(2) {
            dice.below(edges.drain)
        } else {
            edges.aim(dice).saturating_sub(lead)
        };
        let bytes = dice.pick(&[3_000, 30_000, 60_000]) + dice.below(60_000);
        let before = RequestKind::Bytes(usize::try_from(bytes).unwrap_or(0));
        let fails = match dice.below(4) {
            0 => RequestKind::Mismatch(dice.pick(&WrongLength::ALL)),
            1 => RequestKind::Rare(RareRequest::Fails),
            _ => RequestKind::Breaks,
        };
        let traffic = Traffic::Pipelined { requests: dice.pick(&[2, 2, 4]), every_ms: 0 };
        scenario.clients.push(Client::new(at_ms, before, traffic).then(fails));
    }
}

/// Heads of which one byte comes alone, so that it may begin a request of either protocol.
fn short_beginnings(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    let timeout = *scenario.limits.header_timeout.get_or_insert(dice.pick(&[700, 1_200, 2_500]));
    for _ in 0..dice.between(1, 3) {
        let how = HeadInPieces {
            earlier: dice.below(2),
            idle_ms: Some(dice.pick(&[1, 300, 1_500])),
            before_ms: 0,
            pieces: 2,
            first: dice.pick(&[1, 1, 1, 5]),
            // The last piece comes in time, or after the time of the first byte only.
            every_ms: timeout * dice.pick(&[1, 2, 3, 3, 4]) / 5,
            is_whole: dice.one_in(2),
            in_one_record: false,
        };
        let before = timeout * dice.between(0, 4) / 2 + dice.below(1_500);
        let edge = dice.pick(&[edges.stop, edges.drain]);
        let client =
            Client::new(edge.saturating_sub(before), RequestKind::Fast, Traffic::InPieces(how));
        let kind = RequestKind::Echo(dice.pick(&[10, 3_000]));
        scenario.clients.push(client.then(kind));
    }
}

/// Clients that read nothing of the last response of their connection, which fits into the buffers
/// of both kernels. The drain waits for nothing else, and would be long.
fn unread_ends(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let has_timeout = scenario.limits.send_timeout.is_some() || scenario.plan.streams > 0;
    if !is_calm(scenario) || has_timeout || scenario.expects_headers() {
        return;
    }
    scenario.clients.clear();
    scenario.tasks.clear();
    scenario.plan.drain = dice.pick(&[10_000, 25_000]);
    for _ in 0..dice.between(1, 2) {
        let at_ms = edges.drain.saturating_sub(dice.pick(&[30, 60, 900]));
        let (for_ms, idle_ms) = (60_000, None);
        let traffic = if dice.one_in(3) {
            Traffic::Http2Stalls { for_ms, idle_ms, beside_ms: None }
        } else {
            Traffic::Stalls { reads: 0, for_ms, idle_ms, requests: 1, between_ms: None }
        };
        scenario.clients.push(Client::new(at_ms, RequestKind::Bytes(100_000), traffic));
    }
}

/// Clients of TLS that end their side while their handlers run on. Every second one does it by a
/// close_notify alone.
fn half_closes(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    scenario.tls = true;
    for _ in 0..2 {
        let at_ms = dice.below(edges.stop.max(1));
        let ms = 10_000 + dice.below(10_000);
        let kind = if dice.one_in(2) { RequestKind::Unlimited(ms) } else { RequestKind::Slow(ms) };
        scenario.clients.push(Client::new(at_ms, kind, Traffic::Once(Pacing::HalfClosed)));
    }
}
