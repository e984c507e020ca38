//! Draws clients that make gRPC calls. It uses its own dice, so that the rest of the scenario does
//! not depend on it.

use super::{Dice, Edges};
use crate::scenario::{Call, CallEnd, Client, RareRequest, RequestKind, Scenario, Traffic};

/// Adds some to one scenario in five.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() || !dice.one_in(5) {
        return;
    }
    for _ in 0..dice.between(1, 2) {
        let at_ms = edges.aim(dice).saturating_sub(scenario.latency_ms.1 * dice.below(6));
        let call = call(dice, edges, at_ms + scenario.latency_ms.0 * 3);
        let requests = dice.between(1, 3);
        // A client that takes nothing has no more time than its deadline.
        let is_windowless = call.timeout_ms.is_some() && scenario.limits.send_timeout.is_none();
        let traffic = if is_windowless && dice.one_in(2) {
            Traffic::Http2Windowless { requests }
        } else {
            Traffic::Http2 { requests, every_ms: dice.pick(&[1, 20, 300]) }
        };
        let kind = RequestKind::Rare(RareRequest::Call(call));
        scenario.clients.push(Client::new(at_ms, kind, traffic));
    }
}

fn call(dice: &mut Dice, edges: &Edges, begins: u64) -> Call {
    let until = |dice: &mut Dice, edge: u64| dice.about(edge).saturating_sub(begins);
    let ms = match dice.below(6) {
        0 => until(dice, edges.drain),
        1 => until(dice, edges.cancel),
        2 => until(dice, edges.abort),
        3 => dice.pick(&[1, 30, 400]),
        _ => 60_000,
    };
    let timeout_ms = match dice.below(4) {
        0 => Some(dice.pick(&[1, 30, 250, 900, 3_000])),
        1 => {
            let edge = dice.pick(&[edges.drain, edges.cancel, edges.abort]);
            Some(until(dice, edge).max(1))
        }
        _ => None,
    };
    let messages = dice.pick(&[0, 0, 1, 2, 3]);
    let ms = match timeout_ms {
        // The second message comes as the time of the client ends.
        Some(timeout) if messages > 1 && dice.one_in(2) => timeout * messages,
        Some(_) | None => ms,
    };
    let ends = dice.pick(&[None, None, Some(CallEnd::Draining), Some(CallEnd::Spread)]);
    Call { ms, messages, timeout_ms, ends, is_unlimited: dice.one_in(4) }
}
