//! Draws PROXY headers, and clients that err in them. It uses its own dice, so that the rest of the
//! scenario does not depend on it.

use super::{Dice, Edges};
use crate::scenario::{
    Client, HeaderFault, HeaderKind, ProxyHeader, RequestKind, Scenario, Traffic,
};

/// In one scenario of six, half of the clients come through a proxy, and others err.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let limits = &scenario.limits;
    if limits.connections_max.is_some() || limits.header_timeout.is_some() || !dice.one_in(6) {
        return;
    }
    for client in scenario.clients.iter_mut().filter(|client| !client.traffic.is_internal()) {
        client.header = dice.one_in(2).then(|| header(dice, 0));
    }
    for _ in 0..dice.between(1, 3) {
        let lead = scenario.latency_ms.1 * dice.below(5);
        let at_ms = edges.aim(dice).saturating_sub(lead);
        scenario.clients.push(if dice.one_in(2) {
            let fault = dice.pick(&HeaderFault::ALL);
            // Half a header is given up before a late stop.
            let is_early = fault == HeaderFault::Half && dice.one_in(2);
            let at_ms = if is_early { dice.below(at_ms.min(500)) } else { at_ms };
            Client::new(at_ms, RequestKind::Fast, Traffic::BadHeader(fault))
        } else {
            slow(dice, scenario, edges, at_ms)
        });
    }
}

/// Draws a client whose header comes in pieces, for the most part across the begin of the drain.
fn slow(dice: &mut Dice, scenario: &Scenario, edges: &Edges, at_ms: u64) -> Client {
    let pause_ms = dice.pick(&[1, 40, 400, 900, 970, 1_050, 4_900, 9_900, 10_300]);
    let header = ProxyHeader { pieces: dice.pick(&[2, 2, 3]), ..header(dice, pause_ms) };
    let before = (scenario.latency_ms.1 * 4).max(dice.below(pause_ms * (header.pieces - 1)));
    let at_ms = if dice.one_in(4) { at_ms } else { edges.drain.saturating_sub(before) };
    Client { header: Some(header), ..Client::once(at_ms, RequestKind::Fast) }
}

fn header(dice: &mut Dice, pause_ms: u64) -> ProxyHeader {
    let kind = dice.pick(&HeaderKind::ALL);
    ProxyHeader { kind, pieces: dice.pick(&[1, 1, 2, 3, 60]), pause_ms }
}
