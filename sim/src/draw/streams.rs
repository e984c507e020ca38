//! Draws a budget of long streams, and clients that have such streams open. It uses its own dice,
//! so that the rest of the scenario does not depend on it.

use super::{Dice, Edges, extras::may_push};
use crate::{
    hooks::{Act, ActEnd},
    scenario::{
        Call, Client, Cooperation, Pacing, RareRequest, RequestKind, Scenario, StuckResponse,
        Traffic,
    },
    tasks::{TaskScript, Until},
};

/// Adds a budget and streams to one scenario in eight. If the budget is longer than the drain, the
/// other clients are replaced by some that must not benefit from it, and nothing disturbs them.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let plan = &mut scenario.plan;
    if scenario.limits.connections_max.is_some() || plan.drain < 100 || !dice.one_in(8) {
        return;
    }
    let is_longer = dice.one_in(2);
    plan.streams = if is_longer {
        plan.drain + dice.pick(&[1, 300, 2_000, plan.cancel, plan.cancel + 3_000])
    } else {
        dice.pick(&[plan.drain, plan.drain / 2, 50])
    };
    if is_longer {
        scenario.stops.truncate(1);
        scenario.tasks.clear();
        scenario.faults.clear();
        scenario.clients =
            (0..dice.between(1, 3)).map(|_| ordinary(dice, scenario, edges)).collect();
        if dice.one_in(2) {
            // It is cancelled with the requests.
            let end = dice.pick(&[ActEnd::Done, ActEnd::Done, ActEnd::Fails, ActEnd::Panics]);
            let then = Act { after_ms: dice.pick(&[0, 20]), end };
            let (name, until) = ("task-0".to_owned(), Until::Cancelled);
            scenario.tasks.push(TaskScript { name, until, then, spawns: None });
        }
        if dice.one_in(3) {
            // Its response is never flushed.
            let at_ms = edges.drain.saturating_sub(dice.pick(&[20, 400]));
            let traffic = Traffic::Stalls {
                reads: 0,
                for_ms: 60_000,
                idle_ms: None,
                requests: 1,
                between_ms: None,
            };
            scenario.clients.push(Client::new(at_ms, RequestKind::Bytes(400_000), traffic));
        }
    }
    let plan_span = scenario.plan.drain + scenario.plan.cancel;
    let is_crowd = dice.one_in(3);
    for _ in 0..if is_crowd { dice.between(8, 12) } else { dice.between(1, 3) } {
        let before = if is_crowd { dice.pick(&[100, 800]) } else { dice.pick(&[0, 5, 100, 800]) };
        let at_ms = edges.drain.saturating_sub(before);
        let traffic = match dice.below(3) {
            0 => Traffic::Http2 { requests: dice.between(1, 2), every_ms: 1 },
            1 => Traffic::Once(Pacing::Prompt),
            _ => {
                let cooperation =
                    dice.pick(&[Cooperation::Heeds, Cooperation::Heeds, Cooperation::Ignores]);
                let pushes = may_push(scenario, cooperation) && dice.one_in(2);
                let every_ms = dice.pick(&[20, 300]);
                let upgraded = Traffic::Upgraded { every_ms, cooperation, is_long: true, pushes };
                scenario.clients.push(Client::new(at_ms, RequestKind::Fast, upgraded));
                continue;
            }
        };
        let rare = if dice.one_in(3) {
            RareRequest::StreamWork(dice.pick(&[1, plan_span, 60_000]))
        } else {
            RareRequest::LongStream
        };
        let kind = RequestKind::Rare(rare);
        scenario.clients.push(Client::new(at_ms, kind, traffic));
    }
}

fn ordinary(dice: &mut Dice, scenario: &Scenario, edges: &Edges) -> Client {
    let at_ms = edges.drain.saturating_sub(dice.pick(&[0, 20, 90, 900]));
    let kind = match dice.below(10) {
        0 => RequestKind::Unlimited(60_000),
        1 => RequestKind::Stuck(60_000, StuckResponse::Chunked),
        2 => RequestKind::Stuck(60_000, StuckResponse::Nothing),
        // Their own deadlines come after the abort.
        3 => RequestKind::Rare(RareRequest::LateTimeout {
            after: dice.pick(&[0, 0, 30]),
            within: Some(50_000),
        }),
        4 => RequestKind::Rare(RareRequest::RouteTimeout(Some(50_000))),
        5 => {
            let (ms, messages) = (60_000, dice.below(2));
            let call =
                Call { ms, messages, timeout_ms: Some(50_000), ends: None, is_unlimited: false };
            let traffic = Traffic::Http2 { requests: 1, every_ms: 1 };
            return Client::new(at_ms, RequestKind::Rare(RareRequest::Call(call)), traffic);
        }
        6 => RequestKind::Rare(RareRequest::EndAtCancel),
        7 => return after_a_stream(dice, edges),
        _ => {
            let cooperation = dice.pick(&[Cooperation::Heeds, Cooperation::Ignores]);
            let pushes = may_push(scenario, cooperation) && dice.one_in(2);
            let upgraded = Traffic::Upgraded { every_ms: 300, cooperation, is_long: false, pushes };
            return Client::new(at_ms, RequestKind::Fast, upgraded);
        }
    };
    // Each stream of HTTP/2 has a task.
    let traffic = if dice.one_in(2) {
        Traffic::Http2 { requests: dice.between(1, 2), every_ms: 1 }
    } else {
        Traffic::Once(Pacing::Prompt)
    };
    Client::new(at_ms, kind, traffic)
}

/// An ordinary request on the connection of a long stream whose handler has ended it.
fn after_a_stream(dice: &mut Dice, edges: &Edges) -> Client {
    let at_ms = edges.drain.saturating_sub(dice.pick(&[300, 600, 1_500]));
    let stream = RequestKind::Rare(RareRequest::ShortStream(dice.between(1, 2)));
    let traffic = Traffic::KeepAlive { requests: 2, every_ms: 1, retries: false };
    let then = match dice.below(3) {
        0 => RequestKind::Unlimited(60_000),
        1 => RequestKind::Stuck(60_000, StuckResponse::Chunked),
        _ => RequestKind::Stuck(60_000, StuckResponse::Nothing),
    };
    Client::new(at_ms, stream, traffic).then(then)
}
