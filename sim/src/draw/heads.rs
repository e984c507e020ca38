//! Draws heads that come in pieces, heads with many fields, and small limits on both. It uses its
//! own dice, so that the rest of the scenario does not depend on it.

use super::{Dice, Edges, serving::is_calm};
use crate::scenario::{Client, ExtraFields, HeadInPieces, Pacing, RequestKind, Scenario, Traffic};

/// Timeouts of a head, in milliseconds.
const TIMEOUTS: [u64; 5] = [300, 700, 1_200, 2_500, 5_000];

/// Fields of each request: `Host`, and the name of the request.
const OWN_FIELDS: u64 = 2;

/// Adds some to one scenario in four.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if scenario.limits.connections_max.is_some() || !dice.one_in(4) {
        return;
    }
    if scenario.limits.header_timeout.is_none() && is_calm(scenario) && dice.one_in(2) {
        scenario.limits.header_timeout = Some(dice.pick(&TIMEOUTS));
    }
    match dice.below(4) {
        0 => many_fields(dice, scenario, edges),
        _ => in_pieces(dice, scenario, edges),
    }
    if dice.one_in(4) {
        prefaces_in_pieces(dice, scenario, edges);
    }
}

/// Clients that begin HTTP/2 in pieces: in time, too slowly, or not to the end.
fn prefaces_in_pieces(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let timeout = scenario.limits.header_timeout.unwrap_or(10_000);
    for _ in 0..dice.between(1, 3) {
        let bytes = dice.pick(&[1, 1, 3, 8, 23]);
        let every_ms = match dice.below(4) {
            0 => dice.pick(&[1, 40, 400]),
            1 => timeout / 30,
            2 => timeout / 8,
            _ => timeout * 3 / 5,
        };
        let traffic = Traffic::SlowHttp2 { bytes, every_ms, is_whole: dice.one_in(2) };
        let before = dice.pick(&[20, timeout / 2, timeout + 400, timeout * 3]);
        // While serving, or across an edge.
        let is_early = timeout * 2 < edges.stop && dice.one_in(2);
        let at_ms = dice.pick(&[edges.stop, edges.drain, edges.drain]);
        let at_ms = at_ms.saturating_sub(dice.below(before + 1));
        let at_ms = if is_early { dice.below(edges.stop - timeout * 2) } else { at_ms };
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
    }
}

fn in_pieces(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let timeout = scenario.limits.header_timeout.unwrap_or(10_000);
    scenario.tls |= dice.one_in(3);
    let handshake = if scenario.tls { 4 * scenario.latency_ms.0 } else { 0 };
    for _ in 0..dice.between(1, 3) {
        if dice.one_in(4) {
            for _ in 0..dice.between(2, 4) {
                as_it_closes(dice, scenario, edges, handshake);
            }
            continue;
        }
        let kind = dice.pick(&[0, 0, 1, 2, 3]);
        let next = match kind {
            0 => RequestKind::Fast,
            1 => RequestKind::Echo(dice.pick(&[10, 3_000])),
            2 => RequestKind::Head,
            _ => RequestKind::Slow(dice.pick(&[1, 30])),
        };
        let pieces = dice.pick(&[2, 2, 3, 5, 1_000]);
        // All pieces together about in time, much faster, or too slow.
        let gaps = pieces.min(100) - 1;
        let every_ms = match dice.below(5) {
            0 => 1,
            1 => timeout / 2 / gaps,
            2 => timeout.saturating_sub(30) / gaps,
            3 => (timeout + 60) / gaps + 1,
            _ => timeout * 3 / 5,
        };
        let idle_ms = match dice.below(4) {
            0 => None,
            1 => Some(dice.pick(&[0, 1, 40, 300])),
            // It has lost its task by then.
            _ => Some(dice.pick(&[1_100, 1_500, 3_000])),
        };
        let earlier = dice.pick(&[0, 1, 1, 1, 2]);
        let has_slow_one_before = earlier > 0 && idle_ms.is_none() && dice.one_in(2);
        let before_ms =
            if has_slow_one_before { dice.pick(&[timeout / 2, timeout * 4 / 5]) } else { 0 };
        let how = HeadInPieces {
            earlier,
            idle_ms,
            before_ms,
            pieces,
            first: 0,
            every_ms: every_ms.max(1),
            is_whole: !dice.one_in(3),
            in_one_record: dice.one_in(2),
        };
        // The first piece arrives across an edge, or early enough to be timed out before.
        let waits = before_ms + idle_ms.unwrap_or(0) * u64::from(how.earlier > 0);
        let before = match dice.below(3) {
            0 => scenario.latency_ms.0 * 5 + handshake + waits + dice.below(6),
            1 => waits + dice.below(timeout.min(2_000)),
            _ => waits + timeout + 400 + dice.below(1_000),
        };
        let edge = dice.pick(&[edges.stop, edges.drain, edges.drain]);
        let mut client =
            Client::new(edge.saturating_sub(before), RequestKind::Fast, Traffic::InPieces(how));
        client.then.extend((next != RequestKind::Fast).then_some(next));
        scenario.clients.push(client);
    }
    if dice.one_in(3) {
        let at_ms = dice.below(edges.drain.saturating_sub(timeout).max(1));
        let pause = dice.pick(&[timeout / 2, timeout.saturating_sub(30), timeout + 400]);
        let client = Client::new(at_ms, RequestKind::Fast, Traffic::Once(Pacing::HeadPause(pause)));
        scenario.clients.push(client);
        scenario.clients.push(Client::new(at_ms, RequestKind::Fast, Traffic::HalfHead));
    }
}

/// A head that comes byte by byte while the drain closes its idle connection: each byte crosses the
/// close, and all of them together count once.
fn as_it_closes(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges, handshake: u64) {
    let near = scenario.latency_ms.0;
    let idle_ms = dice.pick(&[40, 300, 1_500]);
    let how = HeadInPieces {
        earlier: 1,
        idle_ms: Some(idle_ms),
        before_ms: 0,
        pieces: 1_000,
        first: 0,
        every_ms: 1,
        is_whole: true,
        in_one_record: false,
    };
    // The first byte arrives after the close, and is sent before the client learns of it.
    let sent = (edges.drain + 1 + dice.below(near * 2)).saturating_sub(near);
    let at_ms = sent.saturating_sub(near * 4 + handshake + idle_ms);
    scenario.clients.push(Client::new(at_ms, RequestKind::Fast, Traffic::InPieces(how)));
}

/// Requests with as many fields as the limit, or one more, or one fewer; or with many bytes.
fn many_fields(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let by_count = dice.one_in(2);
    // No request of another client has as many.
    let most = dice.between(8, 20);
    if by_count {
        scenario.limits.headers_max = usize::try_from(most).ok();
    } else {
        scenario.limits.header_bytes_max = Some(dice.pick(&[8_192, 16_384]));
    }
    for _ in 0..dice.between(1, 3) {
        let is_http2 = dice.one_in(3);
        let fields = if by_count {
            let count = (most + dice.below(4)).saturating_sub(OWN_FIELDS + 1);
            ExtraFields { count, bytes: 1 }
        } else if is_http2 {
            // One frame: the HTTP/2 library ends connections for much longer ones.
            ExtraFields { count: dice.between(2, 5), bytes: dice.pick(&[100, 1_000, 2_900]) }
        } else {
            ExtraFields { count: dice.between(3, 20), bytes: dice.pick(&[100, 1_000, 3_000]) }
        };
        let at_ms = edges.aim(dice).saturating_sub(scenario.latency_ms.1 * dice.below(5));
        let (requests, every_ms) = (dice.between(1, 3), dice.pick(&[1, 40, 1_500]));
        let traffic = if is_http2 {
            Traffic::Http2 { requests, every_ms }
        } else if dice.one_in(3) {
            Traffic::Pipelined { requests, every_ms: 0 }
        } else {
            Traffic::KeepAlive { requests, every_ms, retries: false }
        };
        let kind = if dice.one_in(4) { RequestKind::Head } else { RequestKind::Fast };
        let mut client = Client::new(at_ms, kind, traffic);
        client.fields = Some(fields);
        scenario.clients.push(client);
    }
}
