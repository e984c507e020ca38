//! Draws what a host must bound or refuse while it serves: clients that stop reading or sending,
//! and unusual requests. It uses its own dice, so that the rest of the scenario does not depend on
//! it.

mod odd;

use super::{Dice, Edges, edges::start_takes};
use crate::scenario::{
    Client, Cooperation, Fault, Pacing, RareRequest, RequestKind, Scenario, Stranger,
    StuckResponse, Traffic,
};

/// Timeouts, in milliseconds. All are shorter than the drain waits for progress.
pub(super) const TIMEOUTS: [u64; 6] = [200, 200, 350, 700, 1_500, 3_000];

/// Interval between two sweeps over the connections while serving.
const SWEEP_MS: u64 = 250;

/// Idle time after which a connection gives up its task.
const PARK_AFTER_MS: u64 = 1_000;

/// Longest latency with which timeouts of 200 ms are drawn: a round trip must fit.
const NEAR_MS: u64 = 9;

/// Adds one of these to some scenarios.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    match dice.below(18) {
        0..=1 => stalled_readers(dice, scenario, edges),
        2 => stalled_uploads(dice, scenario, edges),
        3..=5 => odd::odd_requests(dice, scenario, edges),
        6 => odd::wrong_lengths(dice, scenario, edges),
        7..=8 => at_the_connection_limit(dice, scenario, edges),
        9 => short_keep_alive(dice, scenario, edges),
        10 if dice.one_in(2) => internal_strangers(dice, scenario, edges),
        11 => resetting_clients(dice, scenario, edges),
        12 => aging_connections(dice, scenario, edges),
        13 => half_frames(dice, scenario, edges),
        14 => unread_after_others(dice, scenario, edges),
        _ => {}
    }
}

/// Whether short timeouts can be judged: everything arrives, and whole.
pub(super) fn is_calm(scenario: &Scenario) -> bool {
    let tears = |fault: &Fault| matches!(fault, Fault::PartialIo { .. });
    scenario.latency_ms.1 <= NEAR_MS
        && scenario.faults.iter().all(|fault| fault.delivers() && !tears(fault))
}

/// Clients that read nothing of a large response, or stop half-way.
fn stalled_readers(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    without_slow_clients(scenario);
    let timeout = dice.pick(&TIMEOUTS);
    scenario.limits.send_timeout = Some(timeout);
    for _ in 0..dice.between(1, 3) {
        let at_ms = before_the_drain(dice, edges, timeout);
        if dice.one_in(3) {
            let request_kind = if dice.one_in(2) {
                RequestKind::Fast
            } else {
                RequestKind::Bytes(dice.pick(&[5, 70_000]))
            };
            let traffic = Traffic::Http2Windowless { requests: dice.between(1, 4) };
            scenario.clients.push(Client::new(at_ms, request_kind, traffic));
            continue;
        }
        if dice.one_in(4) {
            slow_reader(dice, scenario, edges, timeout);
            continue;
        }
        // The last fits into the buffers of both kernels.
        let bytes = dice.pick(&[400_000, 400_000, 100_000]);
        let reads = if bytes > 100_000 { dice.pick(&[0, 0, 1, 100_000]) } else { 0 };
        let for_ms = if dice.one_in(4) { timeout * 3 / 5 } else { timeout * 2 + 4_000 };
        // Many small responses fill the buffers, too.
        let requests = if bytes == 100_000 && dice.one_in(2) { 10 } else { 1 };
        // What was received of an earlier response says nothing about this one.
        let idle_ms =
            dice.one_in(3).then(|| dice.pick(&[timeout / 2, timeout + 300, timeout * 2 + 1_400]));
        let at_ms = at_ms.saturating_sub(idle_ms.unwrap_or(0));
        let traffic = Traffic::Stalls { reads, for_ms, idle_ms, requests, between_ms: None };
        let kind = RequestKind::Bytes(bytes / usize::try_from(requests).unwrap_or(1));
        scenario.clients.push(Client::new(at_ms, kind, traffic).then(RequestKind::Fast));
    }
    if dice.one_in(3) {
        one_after_the_other(dice, scenario, edges, timeout);
    }
}

/// Clients that stop reading one after the other, for so long that some of the lines about them are
/// left out.
fn one_after_the_other(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges, timeout: u64) {
    let (clients, every_ms) = (dice.between(5, 8), dice.pick(&[350, 450, 550]));
    let at_ms = start_takes(scenario) + dice.below(300);
    stop_after(scenario, edges, at_ms + clients * every_ms + timeout + 1_500);
    for n in 0..clients {
        let for_ms = timeout * 2 + 4_000;
        let (reads, requests) = (0, 1);
        let traffic = Traffic::Stalls { reads, for_ms, idle_ms: None, requests, between_ms: None };
        let kind = RequestKind::Bytes(400_000);
        scenario.clients.push(Client::new(at_ms + n * every_ms, kind, traffic));
    }
}

/// A client that takes longer for a response than the timeout, and makes progress all the time.
/// From the stop request on the response is the last one.
fn slow_reader(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges, timeout: u64) {
    let pause = timeout * dice.pick(&[2, 3]) / 5;
    // Each read takes all that has arrived.
    let pacing = Pacing::SlowReader(1_000_000, pause);
    let kind = RequestKind::Bytes(dice.pick(&[200_000, 400_000, 800_000]));
    let at_ms = if dice.one_in(3) {
        dice.below(edges.stop)
    } else {
        edges.stop + dice.below(edges.drain - edges.stop)
    };
    scenario.clients.push(Client::new(at_ms, kind, Traffic::Once(pacing)));
}

/// Clients that read one response, and nothing of a later one, which fits into the buffers of both
/// kernels: the connection is idle, with a task, without one, or on HTTP/2.
fn unread_after_others(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    without_slow_clients(scenario);
    let timeout = dice.pick(&[150, 200, 200, 350, 700]);
    scenario.limits.send_timeout = Some(timeout);
    let at_ms = start_takes(scenario) + dice.below(edges.stop.saturating_sub(3_000).max(1));
    for _ in 0..dice.between(1, 3) {
        // Until the client was found to have all of the first response.
        let with_a_task = timeout + SWEEP_MS + dice.below(200);
        let without = timeout.max(PARK_AFTER_MS + SWEEP_MS) + SWEEP_MS + dice.below(300);
        let for_ms = if dice.one_in(4) { timeout * 3 / 5 } else { timeout * 2 + 3_000 };
        let (kind, traffic, idle_ms) = match dice.below(3) {
            0 => {
                let idle_ms = Some(with_a_task);
                let traffic = Traffic::Http2Stalls { for_ms, idle_ms, beside_ms: None };
                (RequestKind::Bytes(100_000), traffic, with_a_task)
            }
            n => {
                let idle_ms =
                    if n == 1 && with_a_task < PARK_AFTER_MS { with_a_task } else { without };
                // Small ones that are served without hyper. The first half fits into the client's
                // buffer, and the rest into the host's.
                let traffic = Traffic::Stalls {
                    reads: 0,
                    for_ms,
                    idle_ms: Some(idle_ms),
                    requests: 10,
                    between_ms: Some(scenario.latency_ms.1 * 3),
                };
                (RequestKind::Bytes(10_000), traffic, idle_ms)
            }
        };
        stop_after(scenario, edges, at_ms + idle_ms + timeout * 2 + 1_500);
        scenario.clients.push(Client::new(at_ms, kind, traffic).then(RequestKind::Fast));
    }
}

/// Moves the stop requests so that the first is not before `at_ms`.
pub(super) fn stop_after(scenario: &mut Scenario, edges: &Edges, at_ms: u64) {
    let stop = scenario.first_stop_ms().unwrap_or(edges.stop);
    let late = at_ms.saturating_sub(stop);
    for stop in &mut scenario.stops {
        stop.at_ms += late;
    }
}

/// Clients that stop sending their request body.
fn stalled_uploads(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    without_slow_clients(scenario);
    let timeout = dice.pick(&TIMEOUTS);
    scenario.limits.body_timeout = Some(timeout);
    if dice.one_in(2) {
        scenario.request_timeout_ms = None;
    }
    for _ in 0..dice.between(1, 2) {
        let at_ms = before_the_drain(dice, edges, timeout);
        let pause = dice.pick(&[timeout * 3 / 5, timeout + 100, timeout * 2 + 2_000]);
        let traffic = if dice.one_in(3) {
            Traffic::Http2Upload { bytes: 2_000, every_ms: pause }
        } else {
            Traffic::Once(Pacing::SlowUpload(2_000, pause))
        };
        let bytes = dice.pick(&[2_000, 6_000]);
        scenario.clients.push(Client::new(at_ms, RequestKind::Echo(bytes), traffic));
    }
}

/// Few connections at one time, silent and idle ones among them, and a client that wants one.
fn at_the_connection_limit(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    let most = dice.between(1, 4);
    scenario.limits.connections_max = usize::try_from(most).ok();
    scenario.limits.first_byte_timeout = None;
    scenario.workers = dice.pick(&[1, 1, 2, 3]);
    scenario.clients.clear();
    let begin = dice.between(edges.stop.saturating_sub(4_000), edges.stop);
    if !dice.one_in(4) {
        // From the stop request on, connections are closed for other reasons, too.
        stop_after(scenario, edges, begin + 3_000);
    }
    if dice.one_in(3) {
        // All are busy, so the rest wait in the kernel's queue.
        for _ in 0..most + dice.between(1, 2) {
            let request_kind = RequestKind::Slow(dice.pick(&[100, 400, 1_500]));
            scenario.clients.push(Client::once(begin + dice.below(3), request_kind));
        }
        if dice.one_in(2) {
            some_are_upgraded(dice, scenario, most);
        }
        return;
    }
    let working = u64::from(most > 1 && dice.one_in(2));
    if working > 0 {
        let traffic = Traffic::KeepAlive { requests: 25, every_ms: 100, retries: false };
        scenario.clients.push(Client::new(begin, RequestKind::Fast, traffic));
    }
    for _ in 0..most - working + dice.below(3) {
        let traffic = match dice.below(6) {
            0 => Traffic::Http2 { requests: 2, every_ms: 20_000 },
            1 => Traffic::KeepAlive { requests: 2, every_ms: 20_000, retries: false },
            _ => Traffic::ByteLess,
        };
        scenario.clients.push(Client::new(begin + dice.below(60), RequestKind::Fast, traffic));
    }
    for _ in 0..dice.between(1, 3) {
        let at_ms = begin + dice.between(100, 2_000);
        scenario.clients.push(Client::once(at_ms, RequestKind::Fast));
    }
    if dice.one_in(2) {
        requests_as_room_is_made(dice, scenario, begin);
    }
    if dice.one_in(3) {
        many_at_once(dice, scenario, begin);
    }
}

/// Silent and idle connections, and more clients than these leave places for, in one instant.
fn many_at_once(dice: &mut Dice, scenario: &mut Scenario, begin: u64) {
    let places = dice.between(3, 12);
    scenario.limits.connections_max = usize::try_from(places).ok();
    if dice.one_in(2) {
        scenario.caps.insert("evicted_at_once".to_owned(), dice.pick(&[1, 1, 2, 3]));
    }
    scenario.clients.clear();
    let (requests, every_ms, retries) = (2, 20_000, false);
    let idle = Traffic::KeepAlive { requests, every_ms, retries };
    for n in 0..places {
        // A part of the connections that were used makes room, if none is silent.
        let traffic = if n.is_multiple_of(2) { Traffic::ByteLess } else { idle };
        scenario.clients.push(Client::new(begin, RequestKind::Fast, traffic));
    }
    // Later they are in the idle set.
    let at_ms = begin + dice.pick(&[300, 600, 1_500, 2_500]);
    for _ in 0..dice.between(3, 14) {
        scenario.clients.push(Client::once(at_ms + dice.below(2), RequestKind::Fast));
    }
}

/// Some of the clients upgrade their connections, which keep their places until the drain.
fn some_are_upgraded(dice: &mut Dice, scenario: &mut Scenario, most: u64) {
    let count = usize::try_from(dice.between(1, most)).unwrap_or(1);
    let cooperation = Cooperation::Heeds;
    for client in scenario.clients.iter_mut().take(count) {
        client.request_kind = RequestKind::Fast;
        client.traffic =
            Traffic::Upgraded { every_ms: 100, cooperation, is_long: false, pushes: false };
    }
}

/// The next requests on idle connections, in the instant in which a new client needs their place.
fn requests_as_room_is_made(dice: &mut Dice, scenario: &mut Scenario, begin: u64) {
    let (near, far) = scenario.latency_ms;
    let places = scenario.limits.connections_max.unwrap_or(1) as u64;
    scenario.clients.clear();
    // After it they are in the idle set.
    let every_ms = dice.pick(&[700, 1_500, 2_500]);
    for _ in 0..places {
        let traffic = Traffic::KeepAlive { requests: 3, every_ms, retries: false };
        scenario.clients.push(Client::new(begin, RequestKind::Fast, traffic));
    }
    // The second request arrives two round trips and a pause after the beginning, a new client's
    // handshake after one and a half.
    let arrives = begin + near * 5 + every_ms;
    for _ in 0..dice.between(1, 2) {
        let at_ms = arrives.saturating_sub(near * 3) + dice.below(far + 2);
        scenario.clients.push(Client::once(at_ms.saturating_sub(1), RequestKind::Fast));
    }
}

/// Clients that read nothing, and ask and reset streams without end, across the stop request.
fn resetting_clients(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    without_slow_clients(scenario);
    let streams = dice.between(1, 8);
    // Other clients of HTTP/2 would wait for their turn, or give up.
    scenario.clients.retain(|client| !client.traffic.is_http2());
    scenario.limits.http2_streams_max = u32::try_from(streams).ok();
    let rounds = dice.between(10, 60);
    for _ in 0..dice.between(1, 2) {
        let at_ms = edges.stop.saturating_sub(dice.between(0, rounds * 5 + 50));
        let traffic = Traffic::Http2Resets { rounds, streams };
        let kind = if dice.one_in(2) {
            RequestKind::Rare(RareRequest::Watched(60_000))
        } else {
            RequestKind::Fast
        };
        scenario.clients.push(Client::new(at_ms, kind, traffic));
    }
}

/// Clients of HTTP/2 that stop within a frame, beside responses that are not complete. Half of the
/// scenarios speak TLS, where the end of the connection shows what it cuts.
fn half_frames(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    let timeout = dice.pick(&TIMEOUTS);
    scenario.limits.header_timeout = Some(timeout);
    scenario.tls = dice.one_in(2);
    for _ in 0..dice.between(1, 3) {
        let after_ms = dice.pick(&[20, 100, 400]);
        let at_ms = before_the_drain(dice, edges, timeout).saturating_sub(after_ms);
        let request_kind = match dice.below(5) {
            0 => RequestKind::Stuck(60_000, StuckResponse::Length),
            1 => RequestKind::Stream(dice.pick(&[500, 3_000])),
            2 if dice.one_in(2) => RequestKind::Fast,
            2 => RequestKind::Slow(60_000),
            _ => RequestKind::Stuck(60_000, StuckResponse::Chunked),
        };
        let traffic = Traffic::Http2HalfFrame {
            requests: dice.between(1, 3),
            after_ms,
            bytes: dice.pick(&[1, 5, 10, 12]),
            every_ms: dice.pick(&[0, 0, timeout / 4, timeout * 3 / 5]),
            half_closes: dice.one_in(3),
        };
        scenario.clients.push(Client::new(at_ms, request_kind, traffic));
    }
}

/// More connections to the internal server than it keeps.
fn internal_strangers(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let stranger = dice.pick(&[Stranger::ByteLess, Stranger::HalfHead, Stranger::Windowless]);
    let traffic = Traffic::InternalStrangers { stranger, count: dice.between(126, 140) };
    let at_ms = dice.between(edges.stop / 2, edges.drain);
    scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
}

/// Idle connections that are closed while the host serves, and requests that cross such a close.
fn short_keep_alive(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    let keep_alive = dice.pick(&[300, 300, 700, 1_200, 2_500]);
    scenario.limits.keep_alive = Some(keep_alive);
    for _ in 0..dice.between(1, 3) {
        let at_ms = before_the_drain(dice, edges, keep_alive * 2);
        // A sweep closes it, once a stop was requested in time, and the client sends within a
        // latency of that.
        let far = scenario.latency_ms.1;
        let idle = (at_ms + far * 3 + keep_alive).saturating_sub(start_takes(scenario));
        let idle = if dice.one_in(2) { idle } else { idle.div_ceil(SWEEP_MS) * SWEEP_MS };
        let closed = start_takes(scenario) + idle;
        let at_the_close = closed.saturating_sub(at_ms + far * 4) + dice.below(far * 2 + 1);
        let at_the_close = at_the_close.saturating_sub(far);
        let every_ms = dice.pick(&[keep_alive / 2, at_the_close, at_the_close, keep_alive + 2_500]);
        let traffic = if dice.one_in(4) {
            Traffic::Http2 { requests: dice.between(2, 4), every_ms }
        } else if dice.one_in(4) {
            // Each use begins the idle time again.
            let traffic =
                Traffic::Http2 { requests: dice.between(4, 7), every_ms: keep_alive * 3 / 5 };
            stop_after(scenario, edges, at_ms + keep_alive * 2);
            traffic
        } else {
            Traffic::KeepAlive { requests: 3, every_ms, retries: dice.one_in(2) }
        };
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
    }
}

/// Connections that reach their age limit while the host serves.
fn aging_connections(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !is_calm(scenario) {
        return;
    }
    if scenario.latency_ms.1 <= 3 && dice.one_in(2) {
        connections_of_one_age(dice, scenario, edges);
        return;
    }
    let age = dice.pick(&[200, 600, 1_500, 4_000]);
    scenario.limits.connection_age_max = Some(age);
    for _ in 0..dice.between(1, 3) {
        let at_ms = dice.below(edges.stop.saturating_sub(age).max(1));
        let (requests, every_ms) = (dice.between(3, 12), dice.pick(&[age / 6, age / 3, age]));
        let traffic = if dice.one_in(3) {
            Traffic::Http2 { requests, every_ms }
        } else {
            Traffic::KeepAlive { requests, every_ms, retries: dice.one_in(2) }
        };
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
    }
}

/// Many connections that are opened together, and used again in the middle of the time over which
/// their limits are spread.
fn connections_of_one_age(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let age = dice.pick(&[2_000, 4_000]);
    scenario.limits.connection_age_max = Some(age);
    let at_ms = dice.below(edges.stop);
    stop_after(scenario, edges, at_ms + age + 100);
    let (near, far) = scenario.latency_ms;
    let every_ms = age * 95 / 100 - (near + far) * 2;
    for _ in 0..dice.between(24, 30) {
        let traffic = Traffic::KeepAlive { requests: 3, every_ms, retries: false };
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
    }
}

/// Draws a time before the drain, often early enough for the timeout to expire before it.
pub(super) fn before_the_drain(dice: &mut Dice, edges: &Edges, timeout: u64) -> u64 {
    if dice.one_in(3) { edges.aim(dice) } else { dice.below(edges.drain.saturating_sub(timeout)) }
}

/// Makes the clients that a short timeout would cut prompt.
pub(super) fn without_slow_clients(scenario: &mut Scenario) {
    for client in &mut scenario.clients {
        let is_slow = matches!(
            client.traffic,
            Traffic::Once(Pacing::SlowReader(..) | Pacing::SlowUpload(..))
                | Traffic::Http2Upload { .. }
                | Traffic::Http2Slowly { .. }
                | Traffic::Http2Leaves { .. }
        );
        if is_slow {
            client.traffic = Traffic::Once(Pacing::Prompt);
        }
    }
}

/// Draws how a request is sent on HTTP/1: alone, or between others on one connection.
pub(super) fn http1_client(
    dice: &mut Dice,
    scenario: &Scenario,
    edges: &Edges,
    request_kind: RequestKind,
) -> Client {
    let lead = scenario.latency_ms.1 * dice.below(5);
    let at_ms =
        if dice.one_in(2) { dice.below(edges.drain) } else { edges.aim(dice).saturating_sub(lead) };
    let requests = dice.between(2, 4);
    let traffic = match dice.below(6) {
        0 => Traffic::Once(Pacing::Prompt),
        1 => Traffic::Once(Pacing::HalfClosed),
        2 => Traffic::Pipelined { requests, every_ms: 0 },
        _ => {
            // At once, or after the connection has lost its task.
            let every_ms = dice.pick(&[1, 40, 300, 1_500, 12_000]);
            Traffic::KeepAlive { requests, every_ms, retries: false }
        }
    };
    let client = Client::new(at_ms, request_kind, traffic);
    let is_followed = !matches!(traffic, Traffic::Once(_)) && dice.one_in(2);
    if is_followed { client.then(RequestKind::Fast) } else { client }
}
