//! Draws clients of the lame duck delay: connections opened in it, requests without a pause, and
//! requests at its very end. It uses its own dice, so that the rest of the scenario does not depend
//! on it.

use super::{Dice, Edges};
use crate::scenario::{Client, RequestKind, Scenario, Traffic};

/// Adds some of these to one scenario in four, if the delay is long enough.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let delay = edges.drain - edges.stop;
    if delay < 50 || !dice.one_in(4) {
        return;
    }
    match dice.below(5) {
        4 => used_near_the_end(dice, scenario, edges, delay),
        0 => opened_at_many_instants(dice, scenario, edges, delay),
        1 => without_a_pause(dice, scenario, edges, delay),
        _ => at_the_very_end(dice, scenario, edges, delay),
    }
}

/// Connections opened at many instants; their announcements must be spread over the rest of the
/// delay.
fn opened_at_many_instants(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges, delay: u64) {
    let from = edges.stop + dice.below(delay * 3 / 4);
    for _ in 0..dice.between(3, 6) {
        let at_ms = dice.between(from, edges.stop + delay * 4 / 5);
        let request_kind = if dice.one_in(3) {
            RequestKind::Slow(dice.between(1, delay / 2))
        } else {
            RequestKind::Fast
        };
        let (requests, every_ms) = (dice.between(2, 6), dice.between(1, delay / 3));
        let traffic = if dice.one_in(4) {
            Traffic::KeepAlive { requests, every_ms, retries: true }
        } else {
            Traffic::Http2 { requests, every_ms }
        };
        let mut client = Client::new(at_ms, request_kind, traffic);
        client.waits_for_settings = dice.one_in(2);
        scenario.clients.push(client);
    }
}

/// Requests without a pause; their connections must not close with each response.
fn without_a_pause(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges, delay: u64) {
    for _ in 0..dice.between(1, 2) {
        let at_ms = dice.between(edges.stop.saturating_sub(50), edges.stop + delay / 2);
        let requests = dice.pick(&[60, 120]);
        let every_ms = (edges.drain - at_ms).div_ceil(requests).min(dice.pick(&[1, 5, 40]));
        let request_kind =
            if dice.one_in(2) { RequestKind::Fast } else { RequestKind::Slow(dice.pick(&[2, 10])) };
        let traffic = if dice.one_in(2) {
            Traffic::KeepAlive { requests, every_ms, retries: true }
        } else {
            Traffic::Http2 { requests, every_ms }
        };
        scenario.clients.push(Client::new(at_ms, request_kind, traffic));
    }
}

/// Clients that pause for long, so that their connections may not have announced their close, and
/// return as the drain begins.
fn at_the_very_end(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges, delay: u64) {
    for _ in 0..dice.between(1, 3) {
        let at_ms = dice.between(edges.stop.saturating_sub(20), edges.stop + delay * 9 / 10);
        // In flight at the edge, in the kernel, or a little early.
        let lead = dice.pick(&[0, 1, scenario.latency_ms.0, scenario.latency_ms.1 * 2]);
        let last = dice.about(edges.drain).saturating_sub(lead);
        let requests = dice.pick(&[2, 2, 3]);
        let every_ms = (last.saturating_sub(at_ms) / (requests - 1)).max(1);
        let retries = dice.one_in(2);
        let traffic = if dice.one_in(3) {
            Traffic::Http2 { requests, every_ms }
        } else {
            Traffic::KeepAlive { requests, every_ms, retries }
        };
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
    }
}

/// Many connections that are opened early in the delay, silent or used at first, and used again
/// when nearly all of them must announce their close. Some have lost their task by then.
fn used_near_the_end(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges, delay: u64) {
    let last_part = delay - (delay / 10).max(250.min(delay / 2));
    if last_part < 2_500 {
        return;
    }
    let silent = dice.pick(&[0, 300, PARK_AFTER_MS + 300, PARK_AFTER_MS + 300]);
    let from = edges.stop + scenario.latency_ms.1 * 3 + 5;
    let last = edges.stop + last_part * dice.pick(&[90, 95]) / 100;
    for _ in 0..dice.between(12, 16) {
        let at_ms = from + dice.below(last_part / 20);
        let every_ms = last.saturating_sub(at_ms + silent + scenario.latency_ms.1 * 4);
        let traffic = Traffic::Late { after_ms: silent, requests: 2, every_ms };
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
    }
}

/// Idle time after which a connection gives up its task.
const PARK_AFTER_MS: u64 = 1_000;
