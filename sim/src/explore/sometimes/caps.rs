//! States of the host's caps: each is reached, and each that can be exceeded is exceeded.
//!
//! hyper does not show which of its own buffers are full, so the caps that it enforces have no
//! state here. Neither has a buffer of a thread, which outlives a world.

use super::Sometimes;
use lameduck::Caps;

/// Caps without a state.
const UNSEEN: [&str; 11] = [
    "unread_rounds_max",
    "out_kept_bytes",
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
const EXACT: [&str; 8] = [
    "evicted_at_once",
    "accept_batch",
    "discards_per_poll",
    "requests_per_poll",
    "read_buf_bytes",
    "empty_frames_max",
    "unflushed_settled_from",
    "writes_per_poll",
];

pub(super) fn caps(all: &mut Vec<Sometimes>) {
    for cap in Caps::NAMES.iter().filter(|cap| !UNSEEN.contains(cap)) {
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
