//! Draws responses whose handlers announce the close of their connection, with next requests that
//! cross the close, and clients that read slowly. It uses its own dice, so that the rest of the
//! scenario does not depend on it.

use super::{Dice, Edges};
use crate::scenario::{Client, CloseOption, Pacing, RareRequest, RequestKind, Scenario, Traffic};

/// Adds some to one scenario in sixteen.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() || !dice.one_in(16) {
        return;
    }
    for _ in 0..dice.between(1, 2) {
        let client = client(dice, scenario, edges);
        scenario.clients.push(client);
    }
}

fn client(dice: &mut Dice, scenario: &Scenario, edges: &Edges) -> Client {
    let (near, far) = scenario.latency_ms;
    let ms = dice.pick(&[0, 0, 0, 0, 5, 30, 400]);
    let kind = RequestKind::Rare(closes(dice, ms));
    // The host itself announces the close only after the stop.
    let at_ms = if !dice.one_in(3) {
        dice.below(edges.stop)
    } else {
        edges.aim(dice).saturating_sub(far * dice.below(6) + ms)
    };
    // It arrives while the handler works, or crosses the response.
    let next_ms = ms + dice.below(near * 2 + far + 2);
    match dice.below(10) {
        0 => {
            let traffic = Traffic::Http2 { requests: dice.between(1, 4), every_ms: 1 };
            Client::new(at_ms, kind, traffic).then(RequestKind::Fast)
        }
        1 => {
            let every_ms = dice.pick(&[1, 300, 1_300]);
            let traffic = Traffic::KeepAlive { requests: 3, every_ms, retries: false };
            // It is the first of its connection, or comes after the connection has lost its task.
            if dice.one_in(2) {
                Client::new(at_ms, kind, traffic)
            } else {
                Client::new(at_ms, RequestKind::Fast, traffic).then(kind)
            }
        }
        2 => {
            let pacing =
                dice.pick(&[Pacing::SlowReader(4_000, 10), Pacing::SlowReader(30_000, 100)]);
            Client::new(at_ms, kind, Traffic::Once(pacing))
        }
        // It reads late, and has sent a next request by then.
        3..=4 => {
            let traffic = Traffic::Stalls {
                reads: dice.pick(&[0, 1]),
                for_ms: dice.pick(&[20, 60, 300]),
                idle_ms: dice.pick(&[None, Some(300), Some(1_300)]),
                requests: 2,
                // What it sends later is not the host's: it resets the connection that has ended.
                between_ms: Some((ms + dice.below(near * 2)).max(1)),
            };
            Client::new(at_ms, kind, traffic).then(RequestKind::Fast)
        }
        _ => {
            let every_ms = dice.pick(&[0, next_ms]);
            let traffic = Traffic::Pipelined { requests: dice.between(2, 4), every_ms };
            Client::new(at_ms, kind, traffic).then(RequestKind::Fast)
        }
    }
}

fn closes(dice: &mut Dice, ms: u64) -> RareRequest {
    RareRequest::Closes {
        // The fast path sends only the first of them.
        says: if dice.one_in(2) { CloseOption::Close } else { dice.pick(&CloseOption::ALL) },
        ms,
        // They leave in one write, or take several round trips.
        bytes: dice.pick(&[5, 5, 5, 5, 9_000, 14_000, 40_000, 90_000]),
        chunked: dice.one_in(6),
    }
}
