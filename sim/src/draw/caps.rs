//! Draws small caps, so that batches, tables and buffers overflow, and clients that overflow them.
//! It uses its own dice, so that the rest of the scenario does not depend on it.

use super::{Dice, Edges};
use crate::scenario::{Client, RequestKind, Scenario, Traffic};
use lameduck::Caps;

/// The smallest value of a cap that is not drawn from 1 up, and its largest. Below it the host
/// cannot work, or its protocol has no such value.
const RANGES: [(&str, u32, u32); 12] = [
    ("read_buf_bytes", 24, 300),
    ("http1_buffer", 1, 65_536),
    ("copied_bytes", 1, 2_000),
    ("chunk_bytes", 1, 2_000),
    ("out_kept_bytes", 1, 2_000),
    ("sent_at_once", 1, 2_000),
    ("read_per_poll", 1, 2_000),
    ("http2_send_buffer", 1, 2_000),
    ("http2_receive_window", 1_000, 65_535),
    // Clients end a connection with too many smaller DATA frames.
    ("stream_turn_bytes", 300, 2_000),
    // A connection for each of the prober's paths.
    ("internal_connections_max", 6, 20),
    ("hpack_table", 1, 200),
];

/// Makes some caps small in one scenario of three.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    if !dice.one_in(3) {
        return;
    }
    // A few, or nearly all.
    let among = dice.pick(&[2, 2, 4, 12]);
    for name in Caps::NAMES {
        if !dice.one_in(among) {
            continue;
        }
        let range = RANGES.iter().find(|(ranged, ..)| ranged == name);
        let (least, most) = range.map_or((1, 12), |(_, least, most)| (*least, *most));
        let value = match dice.below(4) {
            0 => u64::from(least),
            1 => u64::from(least) + dice.below(3),
            _ => dice.between(least.into(), most.into()),
        };
        scenario.caps.insert((*name).to_owned(), u32::try_from(value).unwrap_or(most));
    }
    // Connections make room one by one, which takes time.
    let most = scenario.cap("internal_connections_max").unwrap_or(128);
    for client in &mut scenario.clients {
        if let Traffic::InternalStrangers { count, .. } = &mut client.traffic {
            *count = (u64::from(most) + dice.below(12)).min(*count);
            scenario.caps.remove("evictable_max");
            scenario.caps.remove("evicted_at_once");
        }
    }
    if scenario.limits.connections_max.is_none() && dice.one_in(2) {
        many(dice, scenario, edges);
    }
}

/// Clients in numbers: long pipelines, many connections in one instant, many idle ones.
fn many(dice: &mut Dice, scenario: &mut Scenario, edges: &Edges) {
    let near = scenario.latency_ms.1;
    let at_ms = match dice.below(3) {
        0 => dice.below(edges.drain),
        _ => edges.aim(dice).saturating_sub(near * dice.below(5)),
    };
    match dice.below(4) {
        0 | 1 => {
            let requests = dice.pick(&[2, 7, 15, 16, 17, 18, 33, 40]);
            let traffic = Traffic::Pipelined { requests, every_ms: 0 };
            let mut client = Client::new(at_ms, kind(dice), traffic);
            client.then.extend(dice.one_in(2).then_some(RequestKind::Slow(dice.pick(&[1, 30]))));
            scenario.clients.push(client);
        }
        2 => {
            for _ in 0..dice.between(3, 24) {
                scenario.clients.push(Client::once(at_ms + dice.below(2), RequestKind::Fast));
            }
        }
        _ => {
            let every_ms = dice.pick(&[300, 1_500, 20_000]);
            for _ in 0..dice.between(3, 16) {
                let traffic = Traffic::KeepAlive { requests: 2, every_ms, retries: false };
                scenario.clients.push(Client::new(at_ms, RequestKind::Fast, traffic));
            }
        }
    }
}

fn kind(dice: &mut Dice) -> RequestKind {
    match dice.below(4) {
        0 => RequestKind::Bytes(dice.pick(&[1, 2_000, 20_000])),
        1 => RequestKind::Head,
        _ => RequestKind::Fast,
    }
}
