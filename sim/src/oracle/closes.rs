//! Compares the counts of connections and of their closes in the report with the trace (P5, P13).

use super::{ObservedRequest, RequestResult, RunHistory};
use crate::{
    scenario::{Client, RareRequest, RequestKind, SendsOn, SentOn, Traffic},
    trace::Record,
};
use lameduck::{ConnectionStats, Report, lifecycle::Phase};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Longest time from the end that a client of an idle connection sees to the one that is counted.
const LINGERS: Duration = Duration::from_secs(2);

pub(super) fn connections_are_counted(
    history: &RunHistory<'_>,
    report: &Report,
) -> Result<(), String> {
    let connections = &report.connections;
    if connections.open() > 0 {
        return Err(format!("{} connections were open at the exit", connections.open()));
    }
    let ends = [connections.closed, connections.upgraded_closed];
    if ends != [connections.accepted, connections.upgraded] {
        return Err(format!(
            "{} connections and {} upgraded ones began, but the host counts {ends:?} that ended",
            connections.accepted, connections.upgraded
        ));
    }
    let is_conversation = history.server("conversation begins").count() as u64;
    let announces = |record: &&Record| record.number("announces_close").is_some();
    if let Some(record) = history.events("upgraded").find(announces) {
        return Err(format!("{} got a 101 that announces the close", record.actor));
    }
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
    let most = unanswered(history).len() as u64;
    if connections.reset > most {
        return Err(format!(
            "the host counts {} connections that it reset, but {most} had a response to cut",
            connections.reset
        ));
    }
    send_timeouts_are_counted(history, connections)?;
    drained_ones_are_counted(history, connections)
}

/// Checks that no more send timeouts are counted than responses can have been cut.
fn send_timeouts_are_counted(
    history: &RunHistory<'_>,
    connections: &ConnectionStats,
) -> Result<(), String> {
    let unfinished = history
        .requests
        .iter()
        .filter(|observed| !matches!(observed.end, Some((_, RequestResult::Completed(..)))))
        .count() as u64;
    let most = unfinished + unanswered(history).len() as u64;
    if connections.send_timeouts > most {
        return Err(format!(
            "the host counts {} send timeouts, but {most} responses can have been cut",
            connections.send_timeouts
        ));
    }
    Ok(())
}

/// Returns the connections with the main server on which not every request got its whole response,
/// or which had no request.
fn unanswered(history: &RunHistory<'_>) -> BTreeSet<(usize, u64)> {
    let mut all: BTreeMap<(usize, u64), bool> = BTreeMap::new();
    let opened = history.events("connected");
    for (client, connection) in opened.filter_map(connection_of) {
        let of_client = history.scenario.clients.get(client);
        let sends =
            |client: &Client| client.traffic != Traffic::ByteLess && !client.traffic.is_internal();
        if of_client.is_some_and(sends) {
            all.insert((client, connection), true);
        }
    }
    for observed in &history.requests {
        let is_lost = !matches!(observed.end, Some((_, RequestResult::Completed(..))));
        let key = (observed.client, observed.connection);
        let is_first = observed.earlier == 0;
        // What it sends after the close crosses it, too.
        let goes_on = history.client(observed).is_some_and(sends_letters_on);
        let is_lost = is_lost || goes_on;
        all.entry(key).and_modify(|lost| *lost = is_lost || *lost && !is_first).or_insert(is_lost);
    }
    all.into_iter().filter(|(_, lost)| *lost).map(|(key, _)| key).collect()
}

/// Whether a client goes on sending after the host has closed its idle connection.
const fn sends_letters_on(client: &Client) -> bool {
    matches!(client.traffic, Traffic::SendsOn(SendsOn { what: SentOn::Letters, .. }))
}

/// Returns the client and the connection that an event of a client is about.
fn connection_of(record: &Record) -> Option<(usize, u64)> {
    let client = record.actor.strip_prefix("client-").and_then(|n| n.parse().ok());
    client.zip(record.number("connection"))
}

/// Checks that the connections which the host counts as closed by the drain are no more than those
/// that lasted until then, and no fewer than those that their clients saw close in it.
fn drained_ones_are_counted(
    history: &RunHistory<'_>,
    connections: &ConnectionStats,
) -> Result<(), String> {
    let (draining, exit) = (history.began(Phase::Draining), history.exit());
    let (Some(draining), Some((exit, _))) = (draining, exit) else { return Ok(()) };
    let ends = history.records.iter().filter(|record| {
        record.event == "closed idle"
            || record.event == "ended" && record.text("how") == Some("fin")
    });
    let ends: BTreeMap<(usize, u64), &Record> =
        ends.filter_map(|record| Some((connection_of(record)?, record))).collect();
    let is_main = |key: &(usize, u64)| {
        let client = history.scenario.clients.get(key.0);
        client.is_some_and(|client| !client.traffic.is_internal())
    };
    let ends: Vec<&Record> =
        ends.into_iter().filter(|(key, _)| is_main(key)).map(|(_, record)| record).collect();
    let earlier = ends.iter().filter(|record| record.at + LINGERS < draining).count() as u64;
    if connections.drained + earlier > connections.accepted {
        return Err(format!(
            "{earlier} of {} connections had ended before the drain, but it closed {}",
            connections.accepted, connections.drained
        ));
    }
    let since = draining + history.under_way() + history.tolerance();
    let closed = ends.iter().filter(|record| {
        record.event == "closed idle"
            && record.text("how") == Some("fin")
            && record.at > since
            && record.at + history.tolerance() < exit
    });
    let closed = closed.count() as u64;
    if history.delivers() && closed > connections.drained {
        return Err(format!(
            "{closed} clients saw their idle connection close in the drain, which counts {}",
            connections.drained
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
    let most = unanswered(history).len() as u64;
    if report.connections.close_races > most {
        return Err(format!(
            "the host counts {} requests that crossed a close, but {most} can have done so",
            report.connections.close_races
        ));
    }
    let discarded = requests_after_the_last(history);
    if discarded > report.connections.close_races {
        return Err(format!(
            "{discarded} connections ended with requests after the last one that got a response, \
             but the host counts {} requests that crossed a close",
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
            "{crossed} requests crossed a close, but the host counts {}",
            report.connections.close_races
        ));
    }
    Ok(())
}

/// Returns the number of connections whose client sent requests without waiting, got a response
/// that announced the close, and none to the requests that it had sent by then.
fn requests_after_the_last(history: &RunHistory<'_>) -> u64 {
    if !history.delivers() || history.has_partial_io() {
        return 0;
    }
    let until = history.began(Phase::Cancelling).or(history.began(Phase::CleaningUp));
    let closes = history.requests.iter().filter(|observed| {
        let pipelines = |client: &Client| {
            matches!(client.traffic, Traffic::Pipelined { .. })
                && client.fields.is_none()
                && !client.has_failing_body()
        };
        // The next requests are unread, and not its own body. Two kinds may have one target.
        let is_plain = |client: &Client| {
            let n = usize::try_from(observed.earlier).unwrap_or(usize::MAX);
            let kind = client.kinds().cycle().nth(n);
            matches!(
                kind,
                Some(
                    RequestKind::Fast
                        | RequestKind::Slow(_)
                        | RequestKind::Head
                        | RequestKind::Rare(RareRequest::Closes { .. })
                )
            )
        };
        let is_in_time = |at: Duration| until.is_none_or(|until| at < until);
        history.client(observed).is_some_and(|client| pipelines(client) && is_plain(client))
            && matches!(observed.head, Some((_, 200, true)))
            && matches!(observed.end, Some((at, RequestResult::Completed(..))) if is_in_time(at))
    });
    let is_followed = |closes: &&ObservedRequest| {
        let received = closes.head.map_or(Duration::ZERO, |(at, ..)| at);
        let is_in_one_write = history
            .client(closes)
            .is_some_and(|client| matches!(client.traffic, Traffic::Pipelined { every_ms: 0, .. }));
        // One that was sent later may arrive after the acknowledgement, and does so where the host
        // sees none.
        let crosses =
            |sent| is_in_one_write || history.resets() && sent + history.tolerance() < received;
        history.requests.iter().any(|observed| {
            (observed.client, observed.connection) == (closes.client, closes.connection)
                && observed.earlier > closes.earlier
                && observed.sent.is_some_and(crosses)
                && observed.head.is_none()
        })
    };
    closes.filter(is_followed).count() as u64
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
    told.extend(history.events("goaway").filter_map(connection_of));
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
    // One whose keep-alive time was over, or that made room for another, may have been closed a
    // moment before the drain.
    let limits = &history.scenario.limits;
    let closes_before = limits.keep_alive.is_some() || limits.connections_max.is_some();
    let since = draining + history.tolerance();
    let since = if closes_before { since + history.under_way() } else { since };
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
        matches!(client.traffic, Traffic::KeepAlive { .. }) && !client.kinds().any(tears)
    };
    let closed = history.records.iter().filter(|record| {
        let client = connection_of(record).and_then(|(n, _)| history.scenario.clients.get(n));
        record.event == "closed idle"
            && record.text("how") == Some("fin")
            && record.at >= since
            && record.at < exit.0
            && client.is_some_and(keeps)
    });
    let closed = closed.filter_map(connection_of).filter(|key| !told.contains(key)).count() as u64;
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
