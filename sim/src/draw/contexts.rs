//! Draws requests whose context is watched only later, for the most part from a moment near the
//! cancellation on, and requests whose handlers move their deadline. It uses its own dice, so that
//! the rest of the scenario does not depend on it.

use super::{Dice, Edges};
use crate::scenario::{Client, Pacing, RareRequest, RequestKind, Scenario, Traffic};

/// Adds these to some scenarios without a small limit of connections.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() {
        return;
    }
    watched_later(dice, scenario, edges);
    moved_deadlines(dice, scenario, edges);
}

/// Adds requests whose context is watched later to one scenario in eight, and to every second one
/// with a budget of streams.
fn watched_later(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let one_in = if scenario.plan.streams > 0 { 2 } else { 8 };
    if !dice.one_in(one_in) {
        return;
    }
    for _ in 0..dice.between(1, 2) {
        let at_ms = edges.drain.saturating_sub(dice.pick(&[20, 90, 900]));
        let begins = at_ms + scenario.latency_ms.0 * 3;
        let after = match dice.below(4) {
            0 => dice.pick(&[1, 200, 1_000]),
            1 => dice.about(edges.cancel).saturating_sub(begins),
            _ => (edges.cancel + dice.below(edges.abort - edges.cancel + 1)).saturating_sub(begins),
        };
        let ms = dice.pick(&[200, 60_000, 60_000]);
        let kind = RequestKind::Rare(RareRequest::WatchedLate { after, ms });
        let traffic = if dice.one_in(2) {
            Traffic::Http2 { requests: dice.between(1, 2), every_ms: 1 }
        } else {
            Traffic::Once(Pacing::Prompt)
        };
        scenario.clients.push(Client::new(at_ms, kind, traffic));
    }
}

/// Adds requests to one scenario in six whose handlers set their deadline after they have waited:
/// before the host's, or after it. It passes before the drain, if the scenario is long enough.
fn moved_deadlines(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !dice.one_in(6) {
        return;
    }
    let host = scenario.request_timeout_ms.unwrap_or(1_000);
    for _ in 0..dice.between(1, 2) {
        let after = dice.pick(&[1, 30, 200]);
        let within = dice.pick(&[after + 50, after + 400, host + 60, host + 700]);
        let at_ms = edges.drain.saturating_sub(within + dice.pick(&[100, 900]));
        let kind = RequestKind::Rare(RareRequest::LateTimeout { after, within: Some(within) });
        let traffic = if dice.one_in(3) {
            Traffic::Http2 { requests: dice.between(1, 2), every_ms: 1 }
        } else {
            Traffic::Once(Pacing::Prompt)
        };
        scenario.clients.push(Client::new(at_ms, kind, traffic));
    }
}
