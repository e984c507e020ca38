//! Draws connections on which requests of several kinds follow each other, so that each kind comes
//! after each other one: what a request leaves behind must not concern the next. It uses its own
//! dice, so that the rest of the scenario does not depend on it.

use super::{Dice, Edges};
use crate::scenario::{
    Client, Cooperation, OddRequest, RareRequest, RequestKind, Scenario, StuckResponse, Traffic,
    WrongLength,
};

/// Adds some to one scenario in four.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() || !dice.one_in(4) {
        return;
    }
    for _ in 0..dice.between(1, 2) {
        let client = client(dice, scenario, edges);
        scenario.clients.push(client);
    }
}

fn client(dice: &mut Dice, scenario: &Scenario, edges: &Edges) -> Client {
    let is_http2 = dice.one_in(4);
    let requests = dice.between(3, 8);
    // At once, in the next turn, while the connection has a task, or after it has lost it.
    let every_ms = dice.pick(&[0, 1, 20, 300, 1_300, 1_300, 2_600]);
    // One of them comes at an edge.
    let before = every_ms * dice.below(requests) + scenario.latency_ms.1 * dice.below(6);
    let at_ms = if dice.one_in(2) {
        edges.aim(dice).saturating_sub(before)
    } else {
        dice.below(edges.drain.saturating_sub(before).max(1))
    };
    let traffic = match dice.below(4) {
        _ if is_http2 => Traffic::Http2 { requests, every_ms },
        0 => Traffic::Pipelined { requests, every_ms: every_ms.min(300) },
        1 if scenario.limits.first_byte_timeout.is_none() => {
            Traffic::Late { after_ms: dice.pick(&[1, 300, 1_300]), requests, every_ms }
        }
        _ => Traffic::KeepAlive { requests, every_ms, retries: dice.one_in(4) },
    };
    let mut client = Client::new(at_ms, kind(dice, is_http2), traffic);
    for _ in 0..dice.between(1, 4) {
        let next = kind(dice, is_http2);
        // The trace identifies a request by its target.
        let target = next.ask().target;
        if client.kinds().all(|kind| kind.ask().target != target) {
            client = client.then(next);
        }
    }
    client.without_more_after_a_close()
}

fn kind(dice: &mut Dice, is_http2: bool) -> RequestKind {
    let ms = dice.pick(&[1, 1, 30, 200, 1_200]);
    match dice.below(20) {
        0..=2 => RequestKind::Fast,
        3 => RequestKind::Head,
        4 => RequestKind::Slow(ms),
        5 => RequestKind::Echo(dice.pick(&[10, 1_000, 20_000])),
        6 => RequestKind::Bytes(dice.pick(&[10, 2_000, 20_000, 70_000])),
        7 => RequestKind::Unread(dice.pick(&[10, 4_000, 11, 4_001])),
        8 => RequestKind::Stream(ms),
        9 => RequestKind::Panic,
        10 => RequestKind::Breaks,
        11 => RequestKind::Unlimited(ms),
        12 => RequestKind::Within(ms, dice.pick(&[1, 100, 700])),
        13 => RequestKind::Work(ms, dice.pick(&[Cooperation::Heeds, Cooperation::Ignores])),
        14 => RequestKind::Mismatch(dice.pick(&WrongLength::ALL)),
        15 => RequestKind::Stuck(
            ms,
            dice.pick(&[StuckResponse::Nothing, StuckResponse::Length, StuckResponse::Chunked]),
        ),
        16 if !is_http2 => RequestKind::Odd(dice.pick(&OddRequest::ALL)),
        _ => RequestKind::Rare(rare(dice, ms, is_http2)),
    }
}

fn rare(dice: &mut Dice, ms: u64, is_http2: bool) -> RareRequest {
    match dice.below(10) {
        0 => {
            RareRequest::LateTimeout { after: ms, within: dice.pick(&[Some(100), Some(900), None]) }
        }
        1 => RareRequest::RouteTimeout(dice.pick(&[Some(50), Some(400), None])),
        2 => RareRequest::Watched(ms),
        3 => RareRequest::ShortStream(dice.between(0, 2)),
        4 => RareRequest::DropPanics(ms),
        5 => RareRequest::Padded(dice.pick(&[0, 1, 16, 17]), dice.one_in(3)),
        6 => RareRequest::Fails,
        7 => RareRequest::HasNoLength,
        8 => {
            let ms = if dice.one_in(2) { 0 } else { ms };
            super::rare::empty(dice, ms)
        }
        _ => RareRequest::Late {
            ms,
            body: dice.pick(&[0, 0, 60, 2_000]),
            bytes: dice.pick(&[5, 5_000, 40_000]),
            closes: !is_http2 && dice.one_in(6),
            chunked: dice.one_in(4),
        },
    }
}
