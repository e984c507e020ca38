//! Draws requests whose handlers use a rare part of the public interface. It uses its own dice, so
//! that the rest of the scenario does not depend on it.

use super::{Dice, Edges, serving::http1_client};
use crate::scenario::{Client, RareRequest, RequestKind, Scenario, Traffic};

/// Adds some to one scenario in five.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() || !dice.one_in(5) {
        return;
    }
    for _ in 0..dice.between(1, 2) {
        let rare = rare(dice);
        let kind = RequestKind::Rare(rare);
        let at_ms = edges.aim(dice).saturating_sub(scenario.latency_ms.1 * dice.below(5));
        let client = match rare {
            // The client cannot send anything after it.
            RareRequest::NotTaken => Client::once(at_ms, kind),
            RareRequest::EndAtCancel | RareRequest::LateTimeout { .. } if dice.one_in(3) => {
                Client::new(
                    at_ms,
                    kind,
                    Traffic::Http2 { requests: dice.between(1, 3), every_ms: 1 },
                )
            }
            RareRequest::EndAtCancel
            | RareRequest::LateTimeout { .. }
            | RareRequest::RouteTimeout(_)
            | RareRequest::DropPanics(_)
            | RareRequest::Call(_)
            | RareRequest::LongStream
            | RareRequest::StreamWork(_)
            | RareRequest::Fails
            | RareRequest::Padded(..) => http1_client(dice, scenario, edges, kind),
        };
        scenario.clients.push(client);
    }
}

fn rare(dice: &mut Dice) -> RareRequest {
    match dice.below(8) {
        0 => RareRequest::EndAtCancel,
        1 => RareRequest::LateTimeout {
            after: dice.pick(&[0, 1, 30, 200]),
            within: dice.pick(&[1, 100, 300, 1_500]),
        },
        2 => RareRequest::RouteTimeout(dice.pick(&[1, 50, 400, 2_000])),
        3 => RareRequest::DropPanics(dice.pick(&[1, 200, 60_000])),
        4 => RareRequest::Padded(dice.pick(&[0, 1, 2, 3, 15, 16, 17]), dice.one_in(2)),
        5 => RareRequest::NotTaken,
        _ => RareRequest::Fails,
    }
}
