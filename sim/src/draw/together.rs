//! Draws things that matter only together, which single draws seldom bring together: a worker that
//! seals late, many idle connections and a small batch, a burst and a small table. It uses its own
//! dice, so that the rest of the scenario does not depend on it.

use super::{Dice, Edges};
use crate::scenario::{
    Call, Client, Cooperation, Fault, OddRequest, Pacing, RareRequest, RequestKind, Scenario,
    StuckResponse, Traffic,
};

/// Idle time after which a connection gives up its task.
const PARK_AFTER_MS: u64 = 1_000;

/// Adds one of these to one scenario in three.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() || !dice.one_in(3) {
        return;
    }
    match dice.below(9) {
        0 => a_late_seal(dice, scenario, edges),
        1 => sleepers_and_a_small_batch(dice, scenario, edges),
        2 => a_burst_and_a_small_table(dice, scenario, edges),
        3 => long_polls(dice, scenario, edges),
        4 => abandoned_bodies(dice, scenario, edges),
        5 => refused_bodies(dice, scenario, edges),
        6 => abandoned_handshakes(dice, scenario, edges),
        7 => no_descriptors_at_the_seal(dice, scenario, edges),
        _ => calls_and_others(dice, scenario, edges),
    }
}

/// One of several workers runs late when the listeners are to be sealed.
fn a_late_seal(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    scenario.workers = scenario.workers.max(dice.pick(&[2, 2, 3, 5]));
    let worker = usize::try_from(dice.below(scenario.workers as u64)).unwrap_or(0);
    let at_ms = edges.drain.saturating_sub(dice.between(1, 20));
    scenario.faults.push(Fault::Stall { worker, at_ms, for_ms: dice.pick(&[30, 100, 190, 400]) });
}

/// Many connections are in the idle set when the drain closes them, a few at a time.
fn sleepers_and_a_small_batch(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    scenario.caps.insert("close_batch".to_owned(), small(dice));
    let at_ms = edges.drain.saturating_sub(PARK_AFTER_MS + dice.between(300, 3_000));
    for _ in 0..dice.between(3, 12) {
        scenario.clients.push(idle(at_ms + dice.below(200)));
    }
}

/// Short connections leave entries behind in a worker's table, beside those of idle ones.
fn a_burst_and_a_small_table(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    scenario.caps.insert("stale_slots_max".to_owned(), small(dice));
    scenario.workers = 1;
    let at_ms = dice.pick(&[edges.stop, edges.drain]).saturating_sub(dice.between(50, 900));
    for _ in 0..dice.between(1, 3) {
        scenario.clients.push(idle(at_ms));
    }
    for _ in 0..dice.between(6, 20) {
        let at_ms = at_ms + dice.between(5, 150);
        scenario.clients.push(Client::once(at_ms, RequestKind::Fast));
    }
}

/// Long polls, and requests that keep the drain going.
fn long_polls(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let at_ms = edges.drain.saturating_sub(scenario.latency_ms.1 * 6 + dice.below(600));
    for _ in 0..dice.between(1, 2) {
        let traffic = if dice.one_in(2) {
            Traffic::Http2 { requests: dice.between(1, 2), every_ms: 1 }
        } else {
            Traffic::Once(Pacing::Prompt)
        };
        let kind = RequestKind::Rare(RareRequest::EndAtCancel);
        scenario.clients.push(Client::new(at_ms, kind, traffic));
    }
    let work = RequestKind::Work(dice.pick(&[100, 60_000]), Cooperation::Heeds);
    scenario.clients.push(Client::once(at_ms, work));
}

/// Bodies that their handlers do not read, on connections that hyper gives back at once.
fn abandoned_bodies(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    scenario.caps.insert("live_max".to_owned(), small(dice));
    let at_ms = if dice.one_in(2) {
        dice.below(edges.drain)
    } else {
        edges.drain.saturating_sub(dice.below(60))
    };
    for _ in 0..dice.between(2, 4) {
        let bytes = dice.pick(&[100, 4_000, 30_000, 200_000, 101, 30_001, 200_001]);
        let kind = match dice.below(4) {
            0 => RequestKind::Odd(OddRequest::UpgradeBody(bytes)),
            _ => RequestKind::Unread(bytes),
        };
        let traffic = if dice.one_in(3) {
            Traffic::Pipelined { requests: dice.between(2, 5), every_ms: 0 }
        } else {
            Traffic::KeepAlive { requests: 3, every_ms: dice.pick(&[1, 20, 300]), retries: false }
        };
        // The drain may begin during a request between two of them.
        let slow = matches!(traffic, Traffic::Pipelined { .. }) && dice.one_in(2);
        let then =
            if slow { RequestKind::Slow(dice.pick(&[20, 60, 200])) } else { RequestKind::Fast };
        let client = Client::new(at_ms + dice.below(20), kind, traffic);
        scenario.clients.push(client.then(then));
    }
}

/// Clients that give up connecting while the sealed listeners wait for their handshakes, which
/// nothing else delays.
fn abandoned_handshakes(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let near = dice.pick(&[10, 20, 40, 60]);
    scenario.latency_ms = (near, near);
    scenario.clients.retain(|client| client.at_ms + 400 < edges.stop);
    scenario.tasks.clear();
    scenario.faults.clear();
    for _ in 0..dice.between(1, 2) {
        // The SYN is there when the drain begins, and the answer is under way.
        let at_ms = edges.drain.saturating_sub(near + dice.below(near));
        let traffic = Traffic::Abandons { after_ms: near + dice.below(near) };
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
    }
}

/// Connections that cannot be accepted when the listeners are to be closed, nor for a while after.
fn no_descriptors_at_the_seal(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let far = scenario.latency_ms.1;
    scenario.faults.retain(|fault| matches!(fault, Fault::PartialIo { .. }));
    let at_ms = edges.drain.saturating_sub(dice.below(30));
    let for_ms = dice.pick(&[40, 60, 100, 200, 400]);
    scenario.faults.push(Fault::NoDescriptors { at_ms, for_ms });
    if dice.one_in(2) {
        // The drain waits for nothing else.
        scenario.clients.clear();
        scenario.tasks.clear();
    }
    for _ in 0..dice.between(1, 3) {
        // In the queue, or in its handshake.
        let at_ms = edges.drain.saturating_sub(far + dice.below(far * 2 + 10));
        let kind = if dice.one_in(3) { RequestKind::Slow(30) } else { RequestKind::Fast };
        scenario.clients.push(Client::once(at_ms, kind));
    }
}

/// Requests with a body that the host refuses, on connections that close with the response. Half of
/// the time no other client's request can race with a close.
fn refused_bodies(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if dice.one_in(2) {
        scenario.clients.clear();
    }
    for _ in 0..dice.between(1, 3) {
        let bytes = dice.pick(&[10, 1_000, 4_000, 30_000, 90_000]);
        let kind = RequestKind::Odd(OddRequest::InvalidHostBody(bytes));
        let at_ms = if dice.one_in(3) {
            edges.aim(dice)
        } else {
            edges.stop + dice.below(edges.drain - edges.stop + 1)
        };
        let traffic = if dice.one_in(2) {
            Traffic::KeepAlive { requests: 2, every_ms: dice.pick(&[1, 20, 300]), retries: false }
        } else {
            Traffic::Once(Pacing::Prompt)
        };
        scenario.clients.push(Client::new(at_ms, kind, traffic));
    }
}

/// gRPC calls, and other requests on the same connections after them.
fn calls_and_others(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let other = match dice.below(4) {
        0 => RequestKind::Stuck(60_000, StuckResponse::Nothing),
        1 => RequestKind::Stuck(60_000, StuckResponse::Chunked),
        2 => RequestKind::Slow(dice.pick(&[300, 60_000])),
        _ => RequestKind::Unlimited(60_000),
    };
    let timeout_ms = dice.pick(&[None, Some(40), Some(400)]);
    let call = Call {
        ms: dice.pick(&[0, 5, 60_000]),
        messages: dice.below(3),
        timeout_ms,
        ends: None,
        is_unlimited: false,
    };
    let kind = RequestKind::Rare(RareRequest::Call(call));
    let every_ms = dice.pick(&[1, 60, 500]);
    let at_ms = dice.pick(&[edges.stop, edges.drain, edges.cancel]);
    let traffic = Traffic::Http2 { requests: dice.between(2, 6), every_ms };
    let at_ms = at_ms.saturating_sub(dice.between(20, every_ms * 3 + 20));
    scenario.clients.push(Client::new(at_ms, kind, traffic).then(other));
}

/// A client whose connection is idle into the drain.
fn idle(at_ms: u64) -> Client {
    let traffic = Traffic::KeepAlive { requests: 2, every_ms: 60_000, retries: false };
    Client::new(at_ms, RequestKind::Fast, traffic)
}

fn small(dice: &mut Dice) -> u32 {
    dice.pick(&[1, 1, 2, 3])
}
