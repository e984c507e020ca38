//! What else a drawn host has beside plain requests: background tasks, checks, work that outlives its answer, event streams,
//! upgraded connections, deadlines of single routes. Drawn from dice of its own, so that the rest falls as it does without it.

use super::{Dice, Edges};
use crate::{
    checks::CheckScript,
    hooks::{Act, ActEnd},
    scenario::{Client, Deed, Heed, Pacing, Scenario, Traffic},
    tasks::{TaskScript, Until},
};

/// Adds some of it to one scenario in two.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !dice.one_in(2) {
        return;
    }
    if dice.one_in(3) {
        scenario.tasks = (0..dice.between(1, 2)).map(|n| task(dice, n, edges)).collect();
    }
    if dice.one_in(3) {
        scenario.checks = (0..dice.between(1, 2)).map(|n| check(dice, n)).collect();
        scenario.probe_every_ms = dice.pick(&[29, 53, 97]);
    }
    for _ in 0..dice.below(5) {
        let client = client(dice, scenario, edges);
        scenario.clients.push(client);
    }
}

fn task(dice: &mut Dice, n: u64, edges: &Edges) -> TaskScript {
    let until = dice.pick(&[Until::Begun, Until::Stopping, Until::Draining, Until::Cancelled, Until::Cancelled]);
    let wait = |dice: &mut Dice, edge: u64| dice.about(edge);
    let after_ms = match until {
        Until::Begun => match dice.below(4) {
            0 => wait(dice, edges.stop),
            1 => wait(dice, edges.drain),
            2 => wait(dice, edges.cancel),
            _ => edges.aim(dice),
        },
        Until::Stopping | Until::Draining | Until::Cancelled => dice.pick(&[0, 0, 1, 20, 200, 1_000]),
    };
    let end = dice.pick(&[ActEnd::Done, ActEnd::Done, ActEnd::Done, ActEnd::Fails, ActEnd::Panics, ActEnd::Hangs]);
    TaskScript { name: format!("task-{n}"), until, then: Act { after_ms, end } }
}

fn check(dice: &mut Dice, n: u64) -> CheckScript {
    CheckScript {
        name: format!("check-{n}"),
        every_ms: dice.pick(&[50, 120, 300]),
        // Three seconds are more than a check may take.
        takes_ms: dice.pick(&[0, 0, 0, 5, 5, 3_000]),
        fails_from: dice.below(4),
        fails: dice.pick(&[0, 1, 2, 100]),
    }
}

fn client(dice: &mut Dice, scenario: &Scenario, edges: &Edges) -> Client {
    let heed = dice.pick(&[Heed::Heeds, Heed::Ignores]);
    // Long enough before the edge to be at work at it.
    let lead = scenario.latency_ms.1 * 4 + dice.pick(&[0, 10, 100]);
    let early = edges.aim(dice).saturating_sub(lead);
    match dice.below(9) {
        8 => {
            // Its deadline falls on an edge.
            let begins = early + scenario.latency_ms.0 * 3;
            let edge = dice.pick(&[edges.cancel, edges.abort, edges.abort]);
            Client::once(early, Deed::Within(60_000, dice.about(edge).saturating_sub(begins).max(1)))
        }
        0 => Client::once(early.min(edges.drain), Deed::Events),
        1 => {
            let ms = match dice.below(3) {
                0 => dice.about(edges.cancel).saturating_sub(early),
                1 => dice.about(edges.abort).saturating_sub(early),
                _ => dice.pick(&[1, 50, 500, 60_000]),
            };
            Client::once(early, Deed::Work(ms, heed))
        }
        2 => Client::once(early, Deed::Within(dice.pick(&[20, 200, 60_000]), dice.pick(&[1, 20, 100, 700]))),
        3 => Client::new(early, Deed::Fast, Traffic::SilentHttp2),
        4 => {
            let pacing = dice.pick(&[Pacing::Prompt, Pacing::SlowUpload(4_000, 5), Pacing::SlowUpload(10_000, 20)]);
            Client::new(early, Deed::Unread(dice.pick(&[100, 30_000, 200_000])), Traffic::Once(pacing))
        }
        5 => {
            // Its second request meets the drain's beginning on an idle connection.
            let at_ms = dice.below(edges.stop).saturating_sub(scenario.latency_ms.1 * 4);
            let every_ms = dice.about(edges.drain).saturating_sub(at_ms + scenario.latency_ms.0 * 5);
            Client::new(at_ms, Deed::Fast, Traffic::KeepAlive { requests: 2, every_ms, retries: false })
        }
        _ => Client::new(early.min(edges.drain), Deed::Fast, Traffic::Upgraded { every_ms: dice.pick(&[100, 700]), heed }),
    }
}
