//! Compares the counts of connections and of their closes in the report with the trace (P5, P13).

use super::{ObservedRequest, RequestResult, RunHistory};
use crate::{
    scenario::{Client, Pacing, RequestKind, Traffic},
    trace::Record,
};
use lameduck::{Report, lifecycle::Phase};
use std::collections::BTreeSet;

pub(super) fn connections_are_counted(
    history: &RunHistory<'_>,
    report: &Report,
) -> Result<(), String> {
    let connections = &report.connections;
    if connections.open() > 0 {
        return Err(format!("{} connections were open at the exit", connections.open()));
    }
    let is_conversation = history.server("conversation begins").count() as u64;
    if is_conversation > connections.upgraded {
        return Err(format!(
            "{is_conversation} connections were upgraded, but the host counts {}",
            connections.upgraded
        ));
    }
    let failed = history
        .server("accept failed")
        .filter(|record| record.text("how") == Some("descriptors"))
        .count() as u64;
    if connections.accept_errors != failed {
        return Err(format!(
            "{failed} accepts failed, but the host counts {}",
            connections.accept_errors
        ));
    }
    let answered: BTreeSet<(usize, u64)> = history
        .requests
        .iter()
        .filter(|observed| observed.head.is_some())
        .map(|observed| (observed.client, observed.connection))
        .collect();
    if connections.accepted < answered.len() as u64 {
        return Err(format!(
            "{} connections were served, but the host accepted {}",
            answered.len(),
            connections.accepted
        ));
    }
    // Without network faults only the host resets a connection, so it must have counted a response
    // that was cut in its body.
    let torn: BTreeSet<(usize, u64)> = history
        .requests
        .iter()
        .filter(|observed| observed.failure() == Some("reset-in-body"))
        .filter(|observed| !history.is_http2(observed))
        .map(|observed| (observed.client, observed.connection))
        .collect();
    if history.delivers() && connections.reset < torn.len() as u64 {
        return Err(format!(
            "{} clients received a reset, but the host counts {}",
            torn.len(),
            connections.reset
        ));
    }
    Ok(())
}

/// Checks that requests that crossed the close of an idle connection are counted. Applies only
/// where the latency is so short that the host must have seen them.
pub(super) fn races_are_counted(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let cut = history.began(Phase::CleaningUp).unwrap_or_default();
    let crossed = history.requests.iter().filter(|observed| {
        let keeps = |client: &Client| {
            matches!(client.traffic, Traffic::KeepAlive { .. }) && !client.has_failing_body()
        };
        let arrives = |sent| sent + history.under_way() + history.tolerance();
        history.client(observed).is_some_and(keeps)
            && matches!(observed.failure(), Some("end-before-head" | "reset-before-head"))
            && observed.earlier > 0
            && observed.head.is_none()
            && observed.sent.is_some_and(|sent| arrives(sent) < cut)
    });
    let crossed = crossed.count() as u64;
    // At most one a connection, and only where a request was not answered.
    let unanswered: BTreeSet<(usize, u64)> = history
        .requests
        .iter()
        .filter(|observed| !matches!(observed.end, Some((_, RequestResult::Completed(..)))))
        .map(|observed| (observed.client, observed.connection))
        .collect();
    let raw =
        history.scenario.clients.iter().filter(|client| may_race_unseen(client)).count() as u64;
    let most = unanswered.len() as u64 + raw;
    if report.connections.close_races > most {
        return Err(format!(
            "the host counts {} requests that raced with a close, but {most} can have done so",
            report.connections.close_races
        ));
    }
    let near = history.scenario.latency_ms.1 <= 4
        && history.outcome.grain.is_zero()
        && history.scenario.clock_skew_ppm <= 0;
    if near
        && history.delivers()
        && !history.is_impatient()
        && crossed > report.connections.close_races
    {
        return Err(format!(
            "{crossed} requests raced with a close, but the host counts {}",
            report.connections.close_races
        ));
    }
    Ok(())
}

/// Whether bytes of a client may race with a close although each of its requests has a response.
fn may_race_unseen(client: &Client) -> bool {
    client.has_failing_body()
        || matches!(
            client.traffic,
            Traffic::HalfHead
                | Traffic::InPieces(_)
                | Traffic::Once(Pacing::HeadPause(_) | Pacing::SlowUpload(..))
                | Traffic::SilentHttp2
                | Traffic::SlowHttp2 { .. }
                | Traffic::BadHeader(_)
                | Traffic::Stalls { .. }
                | Traffic::Session { .. }
                | Traffic::Upgraded { .. }
        )
}

/// Checks that connections which the drain closed without an announcement are counted, and no
/// others.
pub(super) fn unannounced_closes_are_counted(
    history: &RunHistory<'_>,
    report: &Report,
) -> Result<(), String> {
    let connections = &report.connections;
    let announced = |observed: &&ObservedRequest| matches!(observed.head, Some((_, _, true)));
    let key = |observed: &ObservedRequest| (observed.client, observed.connection);
    let mut told: BTreeSet<(usize, u64)> =
        history.requests.iter().filter(announced).map(key).collect();
    let number = |record: &Record| {
        let client = record.actor.strip_prefix("client-").and_then(|n| n.parse().ok());
        client.zip(record.number("connection"))
    };
    told.extend(
        history.records.iter().filter(|record| record.event == "goaway").filter_map(number),
    );
    if connections.unannounced + told.len() as u64 > connections.accepted {
        return Err(format!(
            "{} of {} connections received an announcement, but the host counts {} unannounced",
            told.len(),
            connections.accepted,
            connections.unannounced
        ));
    }
    let (Some(draining), Some(exit)) = (history.began(Phase::Draining), history.exit()) else {
        return if connections.unannounced == 0 {
            Ok(())
        } else {
            Err(unannounced_without_drain(connections.unannounced))
        };
    };
    // One whose keep-alive time was over may have been closed a moment before the drain.
    let expires = history.scenario.limits.keep_alive.is_some();
    let since = draining + history.tolerance();
    let since = if expires { since + history.under_way() } else { since };
    // A connection that is closed because of an unread body was never idle.
    let keeps = |client: &Client| {
        let tears = |request_kind: &RequestKind| {
            matches!(
                request_kind,
                RequestKind::Unread(_)
                    | RequestKind::Breaks
                    | RequestKind::Odd(_)
                    | RequestKind::Mismatch(_)
                    | RequestKind::Rare(_)
                    | RequestKind::User(_)
            )
        };
        matches!(client.traffic, Traffic::KeepAlive { .. })
            && !tears(&client.request_kind)
            && !client.then.as_ref().is_some_and(tears)
    };
    let closed = history.records.iter().filter(|record| {
        let client = number(record).and_then(|(n, _)| history.scenario.clients.get(n));
        record.event == "closed idle"
            && record.text("how") == Some("fin")
            && record.at >= since
            && record.at < exit.0
            && client.is_some_and(keeps)
    });
    let closed = closed.filter_map(number).filter(|key| !told.contains(key)).count() as u64;
    if history.delivers() && closed > connections.unannounced {
        return Err(format!(
            "{closed} idle connections were closed without an announcement, but the host counts {}",
            connections.unannounced
        ));
    }
    Ok(())
}

fn unannounced_without_drain(unannounced: u64) -> String {
    format!("there was no drain, but the host counts {unannounced} unannounced closes")
}
