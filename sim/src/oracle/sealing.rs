//! Checks of the close of the listeners: all are sealed first, and a sealed one accepts no new
//! connection (P5a).

use super::RunHistory;
use crate::{
    scenario::{Filter, Traffic},
    trace::Record,
};
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// Checks that once the listeners are sealed no connection is accepted whose SYN arrives later.
pub(super) fn nothing_is_accepted_after_the_seal(history: &RunHistory<'_>) -> Result<(), String> {
    let (near, far) = history.scenario.latency_ms;
    let sealed = history.scenario.syn_filter == Filter::Available
        && near == far
        && history.resets()
        && history.delivers();
    let (Some(draining), true) = (history.began(Phase::Draining), sealed) else { return Ok(()) };
    for record in &history.records {
        let client = record.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
        let Some(client) = client.and_then(|n| history.scenario.clients.get(n)) else { continue };
        // With a header or TLS a client is connected only after these.
        let bare = matches!(
            client.traffic,
            Traffic::BadHeader(_) | Traffic::Abandons { .. } | Traffic::SlowHello { .. }
        );
        let event = match (client.header, history.scenario.tls && !bare) {
            (Some(_), _) => "header begins",
            (None, true) => "tcp connected",
            (None, false) => "connected",
        };
        if record.event != event {
            continue;
        }
        let came = record.at.saturating_sub(Duration::from_millis(near));
        if !client.traffic.is_internal() && came > draining + history.tolerance() {
            return Err(format!(
                "{} connected at {came:?}, after the drain began at {draining:?}, and was accepted",
                record.actor
            ));
        }
    }
    Ok(())
}

/// Checks that no listener is closed while another one still takes new connections, before the
/// drain ends (P5a).
pub(super) fn all_are_sealed_before_one_is_closed(history: &RunHistory<'_>) -> Result<(), String> {
    let drain_ends = history.left(Phase::Draining).unwrap_or(Duration::MAX);
    let key =
        |record: &Record| (record.number("worker"), record.text("address").map(ToOwned::to_owned));
    let sealed: Vec<_> = history.server("listener sealed").map(|at| (key(at), at.at)).collect();
    let Some(last) = sealed.iter().map(|(_, at)| *at).max() else { return Ok(()) };
    for closed in history.server("listener closed").filter(|closed| closed.at < drain_ends) {
        let is_sealed = sealed.iter().any(|(of, _)| *of == key(closed));
        if is_sealed && closed.at + history.early() < last {
            return Err(format!(
                "a listener of worker {:?} was closed at {:?}, and others were sealed at {last:?}",
                closed.number("worker"),
                closed.at
            ));
        }
    }
    Ok(())
}
