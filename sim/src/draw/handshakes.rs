//! Draws clients that do not complete their TLS handshake, beside others that do. It uses its own
//! dice, so that the rest of the scenario does not depend on it.

use super::{Dice, Edges, serving::is_calm};
use crate::scenario::{Client, RequestKind, Scenario, Traffic};

/// Longer than a ClientHello.
const ALL_AT_ONCE: usize = 1_000;

/// Adds some to one of three scenarios with TLS. Half of them have a short timeout.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let is_limited = scenario.limits.connections_max.is_some();
    if !scenario.tls || is_limited || scenario.expects_headers() || !dice.one_in(3) {
        return;
    }
    let is_short = is_calm(scenario) && dice.one_in(2);
    let timeout = if is_short { dice.pick(&[200, 400, 1_000, 3_000]) } else { 10_000 };
    scenario.limits.tls_handshake_timeout = Some(timeout).filter(|_| is_short);
    for _ in 0..dice.between(1, 3) {
        let lead = scenario.latency_ms.1 * dice.below(5);
        let at_ms = match dice.below(3) {
            0 => dice.below(edges.drain),
            1 => edges.drain.saturating_sub(timeout + lead),
            _ => edges.aim(dice).saturating_sub(lead),
        };
        let traffic = Traffic::SlowHello {
            bytes: dice.pick(&[ALL_AT_ONCE, ALL_AT_ONCE, 100, 30]),
            every_ms: dice.pick(&[5, timeout / 8, timeout * 3 / 5]),
            is_whole: dice.one_in(2),
        };
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
        // Their handshakes must not wait for it.
        if dice.one_in(2) {
            let at_ms = at_ms + dice.pick(&[5, 30, 150]);
            scenario.clients.push(Client::once(at_ms, RequestKind::Fast));
        }
    }
}
