//! States of the host's caps: each is reached, and each that can be exceeded is exceeded.
//!
//! hyper does not show which of its own buffers are full, so the caps that it enforces have no
//! state here.

use super::Sometimes;
use lameduck::Caps;

/// Caps that hyper or h2 enforces.
const HYPERS: [&str; 9] = [
    "http1_buffer",
    "http2_send_buffer",
    "http2_receive_window",
    "stream_turn_bytes",
    "hpack_table",
    "http2_resets_pending_max",
    "http2_error_resets_max",
    "internal_connections_max",
    "internal_streams_max",
];

/// Caps at which the host stops, so that they are never exceeded.
const EXACT: [&str; 0] = [];

pub(super) fn caps(all: &mut Vec<Sometimes>) {
    for cap in Caps::NAMES.iter().filter(|cap| !HYPERS.contains(cap)) {
        for exceeded in [false, true] {
            if exceeded && EXACT.contains(cap) {
                continue;
            }
            let what = if exceeded { "exceeded" } else { "reached" };
            all.push(Sometimes::new(format!("cap: {cap} was {what}"), move |coverage| {
                coverage.history.server("cap").any(|record| {
                    record.text("name") == Some(cap)
                        && (!exceeded || record.text("exceeded") == Some("yes"))
                })
            }));
        }
    }
}
