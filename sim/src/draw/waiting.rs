//! Draws requests whose handlers take their time, on connections that are served without hyper
//! until then: after an idle time, with a body that came with the head, before a long response,
//! and with a next request that is sent meanwhile. It uses its own dice, so that the rest of the
//! scenario does not depend on it.

use super::{
    Dice, Edges,
    serving::{http1_client, is_calm, stop_after},
};
use crate::scenario::{
    Client, HeadInPieces, OddRequest, Pacing, RareRequest, RequestKind, Scenario, StuckResponse,
    Traffic,
};

/// Adds some to one scenario in five, and to some of those with a small limit of connections.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() {
        if scenario.workers == 1 && is_calm(scenario) {
            match dice.below(3) {
                0 => busy_ones_at_the_limit(dice, scenario, edges),
                1 => requests_in_the_instant_of_a_search(dice, scenario, edges),
                _ => {}
            }
        }
        return;
    }
    if !dice.one_in(5) {
        return;
    }
    let begun_at_once = |client: &Client| client.traffic.is_simple() && client.header.is_none();
    let has_silent = |client: &Client| client.traffic == Traffic::ByteLess;
    let clients = &scenario.clients;
    let may_be_short = clients.iter().all(|client| begun_at_once(client) && !has_silent(client));
    if may_be_short && scenario.faults.is_empty() && dice.one_in(2) {
        // It does not concern a connection that has had a request.
        let least = 10 * scenario.latency_ms.1 + 100;
        scenario.limits.first_byte_timeout = Some(least + dice.pick(&[100, 400]));
    }
    for _ in 0..dice.between(1, 3) {
        let client = match dice.below(12) {
            0 => leaves_after_the_next(dice, edges),
            1 => begins_with_one_byte(dice, scenario, edges),
            2 => {
                let odd = RequestKind::Odd(dice.pick(&OddRequest::LENGTHS));
                http1_client(dice, scenario, edges, odd)
            }
            3 => half_closes(dice, edges),
            4..=5 => after_a_long_response(dice, edges),
            6..=7 => after_an_idle_time(dice, scenario, edges),
            _ => waits(dice, scenario, edges),
        };
        scenario.clients.push(client);
    }
}

/// A client whose requests have handlers that take their time.
fn waits(dice: &mut Dice, scenario: &Scenario, edges: &Edges) -> Client {
    let kind = RequestKind::Rare(late(dice));
    let at_ms = if dice.one_in(3) { edges.aim(dice) } else { dice.below(edges.drain) };
    let requests = dice.between(2, 5);
    let traffic = match dice.below(6) {
        0..=1 => {
            let every_ms = dice.pick(&[1, 40, 400, 1_300]);
            Traffic::KeepAlive { requests, every_ms, retries: false }
        }
        2..=3 => Traffic::Pipelined { requests, every_ms: dice.pick(&[0, 1, 20, 300]) },
        4 => Traffic::Once(dice.pick(&[
            Pacing::SlowReader(4_000, 10),
            Pacing::SlowReader(30_000, 100),
            Pacing::HalfClosed,
        ])),
        _ => Traffic::Once(Pacing::Prompt),
    };
    let lead = requests * scenario.latency_ms.1;
    let client =
        Client::new(at_ms.saturating_sub(lead), kind, traffic).without_more_after_a_close();
    match dice.below(3) {
        0 => client,
        1 => client.then(RequestKind::Fast),
        _ => client.then(RequestKind::Bytes(dice.pick(&[9_000, 40_000]))),
    }
}

fn late(dice: &mut Dice) -> RareRequest {
    RareRequest::Late {
        ms: dice.pick(&[1, 5, 30, 200, 1_200]),
        body: dice.pick(&[0, 0, 60, 2_000, 9_000]),
        bytes: dice.pick(&[5, 5, 5_000, 40_000, 90_000]),
        closes: dice.one_in(3),
        chunked: dice.one_in(4),
    }
}

/// Requests whose handlers take their time, each on a connection that has given up its task, while
/// the host serves.
fn after_an_idle_time(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) -> Client {
    let at_ms = dice.below(edges.stop);
    let every_ms = dice.pick(&[1_300, 1_700, 2_600]);
    let ms = dice.pick(&[5, 100, 400]);
    let body = dice.pick(&[0, 60, 2_000]);
    let chunked = dice.one_in(2);
    let late = RareRequest::Late { ms, body, bytes: 5, closes: false, chunked };
    let kind = match dice.below(4) {
        0 => RequestKind::Slow(ms),
        // Its deadline is set in the idle set, and passes after that.
        1 => RequestKind::Within(3_000, ms),
        _ => RequestKind::Rare(late),
    };
    stop_after(scenario, edges, at_ms + (every_ms + ms) * 2 + 1_500);
    if dice.one_in(3) {
        // Several come at once after it, or the last one, whose handler needs no wait.
        let requests = dice.between(1, 4);
        let idle_ms = Some(every_ms);
        let traffic = Traffic::Stalls { reads: 0, for_ms: 1, idle_ms, requests, between_ms: None };
        let last = RareRequest::Late { ms: 0, body: 0, bytes: 5, closes: true, chunked: false };
        let kind = if requests == 1 { RequestKind::Rare(last) } else { kind };
        return Client::new(at_ms, kind, traffic).then(RequestKind::Fast);
    }
    let traffic = Traffic::KeepAlive { requests: 4, every_ms, retries: false };
    Client::new(at_ms, kind, traffic)
}

/// Requests that are sent together with one whose response is long, and needs no wait.
fn after_a_long_response(dice: &mut Dice, edges: &Edges) -> Client {
    let traffic = Traffic::Pipelined { requests: dice.between(2, 6), every_ms: 0 };
    let kind = RequestKind::Bytes(dice.pick(&[15_000, 20_000, 40_000]));
    let then = if dice.one_in(2) { RequestKind::Fast } else { RequestKind::Bytes(2_000) };
    Client::new(dice.below(edges.drain), kind, traffic).then(then)
}

/// A client that shuts its side while its handler works.
fn half_closes(dice: &mut Dice, edges: &Edges) -> Client {
    let ms = dice.pick(&[400, 1_500, 20_000]);
    let kind = if dice.one_in(2) { RequestKind::Slow(ms) } else { RequestKind::Unlimited(ms) };
    Client::new(dice.below(edges.drain), kind, Traffic::Once(Pacing::HalfClosed))
}

/// A client that sends a next request while its handler works, and then resets its connection: it
/// has been readable since the next request.
fn leaves_after_the_next(dice: &mut Dice, edges: &Edges) -> Client {
    let ms = 20_000 + dice.below(10_000);
    let kind = if dice.one_in(2) {
        RequestKind::Unlimited(ms)
    } else {
        RequestKind::Stuck(ms, StuckResponse::Nothing)
    };
    let traffic = Traffic::Leaves {
        after_ms: dice.pick(&[60, 300, 1_100]),
        resets: true,
        half_closed: false,
        next_ms: Some(dice.pick(&[1, 5, 20])),
    };
    Client::new(dice.below(edges.drain), kind, traffic).then(RequestKind::Fast)
}

/// A request on an idle connection whose first byte comes alone: HTTP/2 begins with it, too.
fn begins_with_one_byte(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) -> Client {
    let has_header = scenario.clients.iter().any(Client::expects_header);
    if scenario.limits.header_timeout.is_none() && is_calm(scenario) && !has_header {
        scenario.limits.header_timeout = Some(dice.pick(&[700, 1_200, 2_500]));
    }
    let timeout = scenario.limits.header_timeout.unwrap_or(10_000);
    let idle_ms = dice.pick(&[300, 1_400, 2_500]);
    let how = HeadInPieces {
        earlier: 1,
        idle_ms: Some(idle_ms),
        before_ms: 0,
        first: 0,
        pieces: 1_000,
        every_ms: (timeout * dice.pick(&[1, 3]) / 500).max(1),
        is_whole: true,
        in_one_record: false,
    };
    let before = idle_ms + timeout + 300 + dice.below(1_000);
    let at_ms = edges.drain.saturating_sub(before);
    let kind = RequestKind::Echo(dice.pick(&[10, 3_000]));
    Client::new(at_ms, RequestKind::Fast, Traffic::InPieces(how)).then(kind)
}

/// A connection whose handler works, idle ones, and new clients. The working one was idle for the
/// longest time before, and must not be taken for an idle one.
fn busy_ones_at_the_limit(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let places = dice.between(2, 4);
    scenario.limits.connections_max = usize::try_from(places).ok();
    scenario.clients.clear();
    let begin = dice.between(edges.stop.saturating_sub(4_000), edges.stop);
    let every_ms = dice.pick(&[300, 600, 900]);
    let traffic = Traffic::KeepAlive { requests: 2, every_ms, retries: false };
    // Nothing else ends the handler.
    scenario.request_timeout_ms = None;
    let ms = 12_000;
    let works = if dice.one_in(2) {
        RequestKind::Slow(ms)
    } else {
        RequestKind::Rare(RareRequest::Late {
            ms,
            body: 60,
            bytes: 5,
            closes: false,
            chunked: false,
        })
    };
    scenario.clients.push(Client::new(begin, RequestKind::Fast, traffic).then(works));
    for _ in 1..places {
        let traffic = Traffic::KeepAlive { requests: 2, every_ms: 20_000, retries: false };
        let at_ms = begin + 50 + dice.below(100);
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
    }
    // The others have all had their time to connect by then.
    let at_ms = begin + every_ms + 2_500 + dice.below(500);
    scenario.clients.push(Client::once(at_ms, RequestKind::Fast));
    stop_after(scenario, edges, at_ms.saturating_sub(dice.pick(&[0, 0, 1_500])) + 1_500);
}

/// Connections that are used again in the instant in which they are chosen to make room. Each then
/// has its grace again.
fn requests_in_the_instant_of_a_search(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let (near, far) = scenario.latency_ms;
    let places = dice.between(4, 10);
    scenario.limits.connections_max = usize::try_from(places).ok();
    scenario.clients.clear();
    let begin = dice.between(edges.stop.saturating_sub(4_000), edges.stop);
    // They have a task all the time, and their grace is over.
    let every_ms = dice.pick(&[280, 400, 700, 900]);
    for _ in 0..places {
        let traffic = Traffic::KeepAlive { requests: 4, every_ms, retries: false };
        scenario.clients.push(Client::new(begin + dice.below(3), RequestKind::Fast, traffic));
    }
    for n in 1..4 {
        // A request arrives two round trips and the pauses after the beginning, a new client's
        // handshake after one and a half.
        let arrives = begin + near * (3 + n * 2) + every_ms * n;
        for _ in 0..2 {
            let at_ms = arrives.saturating_sub(near * 3 + 1) + dice.below(far + 3);
            scenario.clients.push(Client::once(at_ms, RequestKind::Fast));
        }
    }
}
