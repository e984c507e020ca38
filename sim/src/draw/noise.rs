//! Draws what clients send beside their requests: empty lines, PINGs, and further streams after a
//! GOAWAY. None of this may restart a timer of the host. It uses its own dice, so that the rest
//! of the scenario does not depend on it.

use super::{
    Dice, Edges,
    serving::{is_calm, stop_after},
};
use crate::scenario::{Client, LimitsMs, RequestKind, Scenario, Traffic};

/// Adds some to one scenario in sixteen, and to most of those with a short time for clients.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_none() && dice.one_in(16) {
        let client = goes_on(dice, scenario, edges);
        scenario.clients.push(client);
    }
    let Some(shortest) = shortest(&scenario.limits) else {
        let has_places = scenario.limits.connections_max.is_none();
        if has_places && is_calm(scenario) && dice.one_in(16) {
            alone(dice, scenario, edges);
        }
        return;
    };
    if dice.one_in(3) {
        return;
    }
    for client in scenario.clients.iter_mut().filter(|client| may_be_noisy(client)) {
        client.noise_ms = dice.one_in(2).then_some(shortest * 2 / 5);
    }
}

/// Returns the shortest time that the scenario sets for clients.
fn shortest(limits: &LimitsMs) -> Option<u64> {
    let all = [
        limits.first_byte_timeout,
        limits.header_timeout,
        limits.send_timeout,
        limits.body_timeout,
        limits.keep_alive,
    ];
    all.into_iter().flatten().min()
}

/// Whether a client pauses, or speaks HTTP/2.
const fn may_be_noisy(client: &Client) -> bool {
    client.traffic.is_http2()
        || matches!(
            client.traffic,
            Traffic::KeepAlive { .. }
                | Traffic::Late { .. }
                | Traffic::ByteLess
                | Traffic::SilentHttp2
        )
}

/// Clients that send nothing else, from their beginning or from their first response on.
fn alone(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    scenario.clients.clear();
    let timeout = dice.pick(&[500, 700, 1_200]);
    let at_ms = dice.below(edges.stop);
    let limits = &mut scenario.limits;
    let both = if dice.one_in(2) {
        limits.first_byte_timeout = Some(timeout);
        limits.header_timeout = Some(timeout);
        [Traffic::ByteLess, Traffic::SilentHttp2]
    } else {
        limits.keep_alive = Some(timeout);
        let (requests, every_ms) = (2, timeout + 4_000);
        let http1 = Traffic::KeepAlive { requests, every_ms, retries: false };
        [http1, Traffic::Http2 { requests, every_ms }]
    };
    for traffic in both {
        let mut client = Client::new(at_ms, RequestKind::Fast, traffic);
        client.noise_ms = Some(dice.pick(&[60, timeout / 5, timeout * 2 / 5]));
        scenario.clients.push(client);
    }
    // They are given up while serving, or across the drain.
    if !dice.one_in(4) {
        stop_after(scenario, edges, at_ms + timeout + 2_500);
    }
}

/// A client that goes on opening streams after its GOAWAY, across an edge.
fn goes_on(dice: &mut Dice, scenario: &Scenario, edges: &Edges) -> Client {
    let requests = dice.between(4, 10);
    let every_ms = dice.pick(&[60, 200, 450, 700, 900, 1_300]);
    let pong_ms = dice.pick(&[None, None, Some(100), Some(700), Some(1_800)]);
    let edge = dice.pick(&[edges.stop, edges.drain, edges.drain]);
    let before = scenario.latency_ms.1 * 6 + dice.below(every_ms * 2 + 1);
    let kind = match dice.below(3) {
        0 => RequestKind::Slow(dice.pick(&[30, every_ms / 2, every_ms * 2])),
        1 => RequestKind::Bytes(dice.pick(&[5, 5_000])),
        _ => RequestKind::Fast,
    };
    let traffic = Traffic::Http2GoesOn { requests, every_ms, pong_ms };
    Client::new(edge.saturating_sub(before), kind, traffic).then(RequestKind::Fast)
}
