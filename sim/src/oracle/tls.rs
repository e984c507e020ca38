//! P5d over TLS: a close_notify is the sign of a clean end. One at a cut makes the response look
//! complete, and an idle connection without one looks cut.

use super::{Exercise, Judgement, RunHistory};
use crate::{scenario::Fault, trace::Record};
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// In a shorter drain an idle connection may be cut before its end was written.
const SHORT_DRAIN: Duration = Duration::from_millis(20);

/// Checks the end of each connection that a client of TLS has read: after a response that was cut
/// there is no close_notify, after an idle connection there is one.
pub(super) fn ends_show_cuts(history: &RunHistory<'_>) -> Judgement {
    let mut ends = 0;
    for (n, end) in history.places("tls end") {
        ends += 1;
        let is_clean = end.text("clean") == Some("yes");
        // The client reacts to the end at once. Over HTTP/2 each request does.
        let reactions = || {
            history.records[n + 1..]
                .iter()
                .take_while(|record| record.at == end.at)
                .filter(|record| record.actor == end.actor)
        };
        if is_clean && reactions().take_while(|record| record.event != "tls end").any(is_cut) {
            return Err(format!("{} saw a close_notify at {:?}, in a response", end.actor, end.at));
        }
        // A close_notify that leaves byte by byte may meet the cut. Without a query for what the
        // client has acknowledged, the host does not wait for it for long.
        let is_short = history.span(Phase::Draining).is_none_or(|drain| drain < SHORT_DRAIN);
        let hurried = history.has_partial_io() && (is_short || !history.resets());
        // The process may have ended when its client had the last part of the handshake, and it had
        // none of the client's.
        let connected = history.records[..n]
            .iter()
            .rfind(|record| record.event == "connected" && record.actor == end.actor);
        let has_just_connected = history.exit().zip(connected).is_some_and(|(exit, connected)| {
            connected.at + history.under_way() + history.tolerance() >= exit.0
        });
        let hurried = hurried || has_just_connected;
        if !is_clean
            && !hurried
            && !may_be_reset(history, end.at)
            && reactions().next().is_some_and(|first| first.event == "closed idle")
        {
            return Err(format!("{} saw an idle end without one at {:?}", end.actor, end.at));
        }
    }
    Ok(Exercise::of(ends))
}

/// Whether an end may be that of a fault that resets all connections, which looks like a FIN in a
/// world without resets.
fn may_be_reset(history: &RunHistory<'_>, at: Duration) -> bool {
    let resets_before = |fault: &Fault| {
        let Fault::ResetAll { at_ms } = fault else { return false };
        Duration::from_millis(*at_ms) <= at
    };
    !history.resets() && history.scenario.faults.iter().any(resets_before)
}

/// Whether a response ended before it was complete, with its connection.
fn is_cut(record: &Record) -> bool {
    record.event == "failed" && record.text("how") == Some("body-cut")
}
