//! Draws what a scenario has in addition to plain requests: background tasks, checks, work that
//! outlives its response, event streams, upgraded connections, deadlines of single routes. It uses
//! its own dice, so that the rest of the scenario does not depend on it.

use super::{Dice, Edges};
use crate::{
    checks::CheckScript,
    draw::STOPS,
    hooks::{Act, ActEnd},
    scenario::{
        Client, Cooperation, Pacing, RequestKind, Scenario, StopRequest, StuckResponse, Traffic,
    },
    tasks::{TaskScript, Until},
};

/// Adds some of these to one scenario in two.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !dice.one_in(2) {
        return;
    }
    if dice.one_in(3) {
        connect_burst(dice, scenario, edges);
    }
    if dice.one_in(4) {
        slow_internal_client(dice, scenario, edges);
    }
    if dice.one_in(4) {
        deadline_at_abort(dice, scenario, edges);
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

/// Adds a burst of clients around the beginning of the drain. Some are then in their handshake,
/// some in the accept queue, some have just sent a request.
fn connect_burst(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let (near, far) = scenario.latency_ms;
    let at_ms = dice.about(edges.drain).saturating_sub(dice.between(0, near * 2 + far * 2));
    if near == far && dice.one_in(2) {
        // The handshakes begin before the seal and are complete in the same instant in which the
        // host polls the accept queue.
        let look = [30, 14, 6, 2].into_iter().find(|look| *look <= near * 2).unwrap_or(2);
        let at_ms = (edges.drain + look).saturating_sub(near * 3);
        let rushing = (0..dice.between(2, 6)).map(|_| Client::once(at_ms, RequestKind::Fast));
        scenario.clients.extend(rushing);
        return;
    }
    for _ in 0..dice.between(2, 6) {
        let at_ms = at_ms + dice.below(near + 1);
        scenario.clients.push(Client::once(at_ms, RequestKind::Fast));
    }
}

/// Adds clients that delay the close of the internal server, and sometimes a further stop request
/// that ends that wait.
fn slow_internal_client(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    // Once for a drain that ends early, once for one in which no request ends.
    for ends in [edges.drain, edges.abort] {
        let at_ms = ends.saturating_sub(dice.below(30));
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, Traffic::InternalHalfHead));
        if dice.one_in(2) {
            scenario
                .stops
                .push(StopRequest { at_ms: ends + dice.between(30, 900), by: dice.pick(&STOPS) });
        }
    }
}

/// Adds a request whose deadline is the time of the abort.
fn deadline_at_abort(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let (near, far) = scenario.latency_ms;
    let at_ms = edges.stop.saturating_sub(near * 3);
    // A handshake and a request after the client's start.
    let begins = at_ms + near * 3;
    if near != far || scenario.clock_skew_ppm != 0 || edges.abort <= begins {
        return;
    }
    scenario.request_timeout_ms = Some(edges.abort - begins);
    let half = dice.pick(&[StuckResponse::Nothing, StuckResponse::Nothing, StuckResponse::Length]);
    scenario.clients.push(Client::once(at_ms, RequestKind::Stuck(60_000, half)));
}

fn task(dice: &mut Dice, n: u64, edges: &Edges) -> TaskScript {
    let until = dice.pick(&[
        Until::Begun,
        Until::Stopping,
        Until::Draining,
        Until::Cancelled,
        Until::Cancelled,
    ]);
    let wait = |dice: &mut Dice, edge: u64| dice.about(edge);
    let after_ms = match until {
        Until::Begun => match dice.below(4) {
            0 => wait(dice, edges.stop),
            1 => wait(dice, edges.drain),
            2 => wait(dice, edges.cancel),
            _ => edges.aim(dice),
        },
        Until::Stopping | Until::Draining | Until::Cancelled => {
            dice.pick(&[0, 0, 1, 20, 200, 1_000])
        }
    };
    let end = dice.pick(&[
        ActEnd::Done,
        ActEnd::Done,
        ActEnd::Done,
        ActEnd::Fails,
        ActEnd::Panics,
        ActEnd::Hangs,
    ]);
    let spawns = dice.one_in(2).then(|| {
        let cooperation =
            dice.pick(&[Cooperation::Heeds, Cooperation::Ignores, Cooperation::Ignores]);
        (dice.pick(&[1, 500, 5_000, 60_000]), cooperation)
    });
    TaskScript { name: format!("task-{n}"), until, then: Act { after_ms, end }, spawns }
}

fn check(dice: &mut Dice, n: u64) -> CheckScript {
    CheckScript {
        name: format!("check-{n}"),
        every_ms: dice.pick(&[50, 120, 300]),
        // Three seconds are more than a check may take.
        takes_ms: dice.pick(&[0, 0, 0, 5, 5, 3_000]),
        fails_from: dice.below(4),
        fails: dice.pick(&[0, 1, 2, 100]),
        hangs_from: dice.one_in(4).then(|| dice.below(6)),
        timeout_ms: None,
    }
}

/// Whether the handler of an upgraded connection may only write: it learns of the abort with its
/// next line, and then there must be time left.
pub(super) fn may_push(scenario: &Scenario, cooperation: Cooperation) -> bool {
    cooperation == Cooperation::Ignores
        && scenario.plan.cancel >= 500
        && scenario.stops.len() == 1
        && scenario.faults.iter().all(|fault| fault.delivers())
}

fn client(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) -> Client {
    let cooperation = dice.pick(&[Cooperation::Heeds, Cooperation::Ignores]);
    // Early enough for the request to be in progress at the edge.
    let lead = scenario.latency_ms.1 * 4 + dice.pick(&[0, 10, 100]);
    let early = edges.aim(dice).saturating_sub(lead);
    match dice.below(13) {
        // The second request, which is cut, must not inherit state from the first.
        9 => {
            let keeps = Traffic::KeepAlive {
                requests: 2,
                every_ms: dice.pick(&[1, 300, 1_500]),
                retries: false,
            };
            let first = dice.pick(&[0, 1, 2, 3]);
            let first = match first {
                0 => RequestKind::Fast,
                1 => RequestKind::Unread(4_000),
                2 => RequestKind::Within(dice.pick(&[1, 200]), 100),
                _ => RequestKind::Unlimited(5),
            };
            Client::new(early, first, keeps)
                .then(RequestKind::Stuck(60_000, StuckResponse::Nothing))
        }
        // These send a request before the stop; each must get its GOAWAY at its own time.
        10 => {
            let at_ms = edges.stop.saturating_sub(scenario.latency_ms.1 * 8 + dice.below(100));
            let every_ms = dice.pick(&[5, 400]);
            if dice.one_in(3) {
                // The responses are in progress when the connection ends.
                let at_ms = dice
                    .pick(&[edges.stop, edges.drain])
                    .saturating_sub(scenario.latency_ms.1 * dice.between(1, 8));
                return Client::new(
                    at_ms,
                    RequestKind::Bytes(70_000),
                    Traffic::Http2 { requests: 2, every_ms: 1 },
                );
            }
            scenario.clients.push(Client::new(
                at_ms,
                RequestKind::Fast,
                Traffic::Http2 { requests: 2, every_ms },
            ));
            Client::new(at_ms, RequestKind::Fast, Traffic::Http2 { requests: 2, every_ms })
        }
        // This one stalls in the drain.
        11 => {
            let at_ms = edges.drain.saturating_sub(dice.between(20, 2_000));
            if dice.one_in(2) {
                return Client::new(
                    at_ms,
                    RequestKind::Bytes(400_000),
                    Traffic::Once(Pacing::SlowReader(1_000_000, 12_000)),
                );
            }
            scenario.request_timeout_ms = None;
            let pause = dice.pick(&[4_800, 12_000, 12_000]);
            Client::new(
                at_ms,
                RequestKind::Echo(60_000),
                Traffic::Once(Pacing::SlowUpload(8_000, pause)),
            )
        }
        8 => {
            // The deadline falls on an edge.
            let begins = early + scenario.latency_ms.0 * 3;
            let edge = dice.pick(&[edges.cancel, edges.abort, edges.abort]);
            Client::once(
                early,
                RequestKind::Within(60_000, dice.about(edge).saturating_sub(begins).max(1)),
            )
        }
        0 => Client::once(early.min(edges.drain), RequestKind::Events),
        1 => {
            let ms = match dice.below(3) {
                0 => dice.about(edges.cancel).saturating_sub(early),
                1 => dice.about(edges.abort).saturating_sub(early),
                _ => dice.pick(&[1, 50, 500, 60_000]),
            };
            let cooperation = if dice.one_in(4) { Cooperation::Panics } else { cooperation };
            Client::once(early, RequestKind::Work(ms, cooperation))
        }
        2 => Client::once(
            early,
            RequestKind::Within(dice.pick(&[20, 200, 60_000]), dice.pick(&[1, 20, 100, 700])),
        ),
        3 => Client::new(early, RequestKind::Fast, Traffic::SilentHttp2),
        4 => {
            let pacing = dice.pick(&[
                Pacing::Prompt,
                Pacing::SlowUpload(4_000, 5),
                Pacing::SlowUpload(10_000, 20),
            ]);
            Client::new(
                early,
                RequestKind::Unread(dice.pick(&[100, 30_000, 200_000, 101, 200_001])),
                Traffic::Once(pacing),
            )
        }
        5 => {
            // The second request arrives on an idle connection as the drain begins.
            let at_ms = dice.below(edges.stop).saturating_sub(scenario.latency_ms.1 * 4);
            let every_ms =
                dice.about(edges.drain).saturating_sub(at_ms + scenario.latency_ms.0 * 5);
            Client::new(
                at_ms,
                RequestKind::Fast,
                Traffic::KeepAlive { requests: 2, every_ms, retries: false },
            )
        }
        _ => {
            let pushes = may_push(scenario, cooperation) && dice.one_in(2);
            let every_ms = dice.pick(&[300, 1_000]);
            let traffic = Traffic::Upgraded { every_ms, cooperation, is_long: false, pushes };
            Client::new(early.min(edges.drain), RequestKind::Fast, traffic)
        }
    }
}
