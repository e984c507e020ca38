//! Draws requests with the method `HEAD` to handlers of every kind, over both protocols. It uses
//! its own dice, so that the rest of the scenario does not depend on it.

use super::{Dice, Edges, serving::http1_client};
use crate::scenario::{
    Client, ExtraFields, LimitsMs, OddRequest, RareRequest, RequestKind, Scenario, StuckResponse,
    Traffic, WrongLength,
};

/// Adds some to one scenario in sixteen.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() || !dice.one_in(16) {
        return;
    }
    if dice.one_in(8) {
        scenario.clients.push(too_many_fields(dice, &mut scenario.limits, edges));
    }
    for _ in 0..dice.between(1, 2) {
        let client = client(dice, scenario, edges);
        scenario.clients.push(client);
    }
}

fn client(dice: &mut Dice, scenario: &Scenario, edges: &Edges) -> Client {
    if dice.one_in(8) {
        let odd = RequestKind::Odd(dice.pick(&OddRequest::HEADS));
        return http1_client(dice, scenario, edges, odd);
    }
    let of = RequestKind::HeadOf(Box::new(target(dice)));
    if dice.one_in(3) {
        return http1_client(dice, scenario, edges, of);
    }
    let at_ms = edges.aim(dice).saturating_sub(scenario.latency_ms.1 * dice.below(5));
    let requests = dice.between(1, 3);
    let traffic = Traffic::Http2 { requests, every_ms: dice.pick(&[1, 20, 300]) };
    Client::new(at_ms, of, traffic)
}

/// A client whose request the host refuses itself, over HTTP/2.
fn too_many_fields(dice: &mut Dice, limits: &mut LimitsMs, edges: &Edges) -> Client {
    // No request of another client has as many.
    let most = *limits.headers_max.get_or_insert(20);
    let traffic = Traffic::Http2 { requests: dice.between(1, 2), every_ms: 20 };
    let mut client = Client::new(dice.below(edges.drain), RequestKind::Head, traffic);
    client.fields = Some(ExtraFields { count: most as u64, bytes: 1 });
    client
}

/// The route that is asked. Half of the handlers wait, most of them until something ends them.
fn target(dice: &mut Dice) -> RequestKind {
    let ms = dice.pick(&[1, 200, 1_500, 60_000, 60_000]);
    match dice.below(15) {
        0..=1 => RequestKind::Slow(ms),
        2..=4 => RequestKind::Stuck(
            ms,
            dice.pick(&[StuckResponse::Nothing, StuckResponse::Length, StuckResponse::Chunked]),
        ),
        5 => RequestKind::Within(ms, dice.pick(&[1, 100, 700])),
        6 => RequestKind::Unlimited(ms),
        7 => {
            if dice.one_in(2) {
                RequestKind::Events
            } else {
                RequestKind::Stream(ms.min(1_500))
            }
        }
        8 => RequestKind::Panic,
        9 => RequestKind::Breaks,
        10 => RequestKind::Mismatch(dice.pick(&WrongLength::ALL)),
        11 => RequestKind::Rare(dice.pick(&[RareRequest::Fails, RareRequest::HasNoLength])),
        12 => RequestKind::Rare(RareRequest::Late {
            ms: ms.min(1_500),
            body: 0,
            bytes: dice.pick(&[5, 40_000]),
            closes: false,
            chunked: dice.one_in(2),
        }),
        _ => RequestKind::Bytes(dice.pick(&[0, 5, 20_000, 400_000, 400_000])),
    }
}
