//! Draws requests whose handlers use a rare part of the public interface. It uses its own dice, so
//! that the rest of the scenario does not depend on it.

use super::{Dice, Edges, serving::http1_client};
use crate::scenario::{Client, Pacing, RareRequest, RequestKind, Scenario, Traffic};

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
            // Its body comes after the interim response.
            RareRequest::FailsAfter(bytes) => {
                let pacing = Pacing::SlowUpload(bytes.div_ceil(2), dice.pick(&[1, 40]));
                Client::new(at_ms, kind, Traffic::Once(pacing))
            }
            // Its handler is dropped, for its client or for the shutdown.
            RareRequest::Watched(_) if dice.one_in(2) => {
                let after_ms = dice.pick(&[1, 20, 300]);
                let traffic =
                    Traffic::Leaves { after_ms, resets: true, half_closed: false, next_ms: None };
                Client::new(at_ms, kind, traffic)
            }
            RareRequest::EndAtCancel
            | RareRequest::LateTimeout { .. }
            | RareRequest::Watched(_)
            | RareRequest::Empty { .. }
                if dice.one_in(2) =>
            {
                Client::new(
                    at_ms,
                    kind,
                    Traffic::Http2 { requests: dice.between(1, 3), every_ms: 1 },
                )
            }
            RareRequest::EndAtCancel
            | RareRequest::LateTimeout { .. }
            | RareRequest::RouteTimeout(_)
            | RareRequest::Watched(_)
            | RareRequest::WatchedLate { .. }
            | RareRequest::ShortStream(_)
            | RareRequest::DropPanics(_)
            | RareRequest::Call(_)
            | RareRequest::LongStream
            | RareRequest::StreamWork(_)
            | RareRequest::Late { .. }
            | RareRequest::Empty { .. }
            | RareRequest::Fails
            | RareRequest::Closes { .. }
            | RareRequest::HasNoLength
            | RareRequest::Padded(..) => http1_client(dice, scenario, edges, kind),
        };
        scenario.clients.push(client);
    }
}

fn rare(dice: &mut Dice) -> RareRequest {
    match dice.below(12) {
        0 => RareRequest::EndAtCancel,
        1 => RareRequest::LateTimeout {
            after: dice.pick(&[0, 1, 30, 200]),
            within: dice.pick(&[Some(1), Some(100), Some(300), Some(1_500), None]),
        },
        2 => {
            RareRequest::RouteTimeout(dice.pick(&[Some(1), Some(50), Some(400), Some(2_000), None]))
        }
        3 => RareRequest::DropPanics(dice.pick(&[1, 200, 60_000])),
        4 => RareRequest::Padded(dice.pick(&[0, 1, 2, 3, 15, 16, 17]), dice.one_in(2)),
        5 => RareRequest::NotTaken,
        6 => RareRequest::Watched(dice.pick(&[1, 200, 60_000])),
        7 => RareRequest::HasNoLength,
        8 => RareRequest::FailsAfter(dice.pick(&[10, 3_000])),
        9..=10 => {
            let ms = dice.pick(&[0, 200, 60_000, 60_000]);
            empty(dice, ms)
        }
        _ => RareRequest::Fails,
    }
}

/// A response without content, whose handler takes `ms`.
pub(super) fn empty(dice: &mut Dice, ms: u64) -> RareRequest {
    let head = dice.one_in(2);
    let status = if head { dice.pick(&[200, 204, 304, 404]) } else { dice.pick(&[204, 205, 304]) };
    RareRequest::Empty { status, ms, content: dice.one_in(2), head }
}
