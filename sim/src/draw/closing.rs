//! Draws clients that go on sending when their connection is at its end, and pipelines in which a
//! request asks for the close. It uses its own dice, so that the rest of the scenario does not
//! depend on it.

use super::{Dice, Edges};
use crate::scenario::{Client, Fault, OddRequest, RequestKind, Scenario, SendsOn, SentOn, Traffic};

/// Idle time after which a connection gives up its task.
const PARK_AFTER_MS: u64 = 1_000;

/// Adds some to one scenario in ten.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() || !dice.one_in(10) {
        return;
    }
    if dice.one_in(4) {
        return close_in_a_pipeline(dice, scenario, edges);
    }
    if dice.one_in(2) {
        // The drain waits for nothing else.
        scenario.clients.clear();
        scenario.tasks.clear();
    }
    for _ in 0..dice.between(1, 3) {
        let client = client(dice, scenario, edges);
        scenario.clients.push(client);
    }
}

/// Requests that ask for the close, between others of a pipeline whose responses leave in parts.
fn close_in_a_pipeline(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    scenario.faults.retain(|fault| !matches!(fault, Fault::PartialIo { .. }));
    scenario.faults.push(Fault::PartialIo { bytes: dice.pick(&[1, 20, 150, 500]) });
    for _ in 0..dice.between(1, 3) {
        let close = RequestKind::Odd(dice.pick(&[OddRequest::Close, OddRequest::CloseInCapitals]));
        let other = dice.pick(&[0, 0, 1_000, 9_000]);
        let other = if other == 0 { RequestKind::Fast } else { RequestKind::Bytes(other) };
        let traffic = Traffic::Pipelined { requests: dice.between(2, 6), every_ms: 0 };
        let (first, then) = if dice.one_in(2) { (close, other) } else { (other, close) };
        let client = Client::new(dice.below(edges.drain), first, traffic);
        scenario.clients.push(client.then(then));
    }
}

fn client(dice: &mut Dice, scenario: &Scenario, edges: &Edges) -> Client {
    let far = scenario.latency_ms.1;
    let what = dice.pick(&[SentOn::Body, SentOn::Letters, SentOn::EmptyLines]);
    // The connection has a task when the drain begins, or none.
    let idle_ms = dice.pick(&[100, 400, PARK_AFTER_MS + 300, PARK_AFTER_MS + 1_500]);
    match what {
        SentOn::Body => {
            let bytes = dice.pick(&[200, 4_000, 30_000]);
            let kind = RequestKind::Odd(OddRequest::InvalidHostBody(bytes));
            let at_ms = edges.drain.saturating_sub(far * dice.below(6) + dice.below(60));
            let every_ms = dice.pick(&[1, 20, 300, 700]);
            let how = SendsOn { what, after_ms: 0, every_ms };
            Client::new(at_ms, kind, Traffic::SendsOn(how))
        }
        SentOn::Letters => {
            let how = SendsOn { what, after_ms: 0, every_ms: dice.pick(&[1, 2, 5]) };
            let at_ms = edges.drain.saturating_sub(idle_ms);
            Client::new(at_ms, RequestKind::Fast, Traffic::SendsOn(how))
        }
        SentOn::EmptyLines => {
            // They begin a moment before the close, cross it, or have come for long by then.
            let before = dice.pick(&[0, far, far * 2, idle_ms / 2]);
            let after_ms = (idle_ms + far).saturating_sub(before);
            let how = SendsOn { what, after_ms, every_ms: dice.pick(&[1, 3, 40, 400]) };
            let at_ms = edges.drain.saturating_sub(idle_ms + far * 4);
            Client::new(at_ms, RequestKind::Fast, Traffic::SendsOn(how))
        }
    }
}
