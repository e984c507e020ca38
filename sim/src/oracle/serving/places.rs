//! The limit of connections, and the time for which idle ones are kept (P5b, P15).

use super::{ObservedRequest, RequestResult, RunHistory, SWEEP};
use crate::{
    scenario::{Client, Pacing, RareRequest, RequestKind, Traffic, client_name},
    trace::Record,
};
use lameduck::lifecycle::Phase;
use std::{collections::BTreeSet, time::Duration};

/// Longest time in which a connection that may make room for one that waits has done so: its own
/// grace, and the longest time between two searches.
const ROOM: Duration = Duration::from_millis(250 + 250 + 100);
/// Idle time after which a connection gives up its task, which may begin its wait again.
const PARK_AFTER: Duration = Duration::from_secs(1);
/// Time in which a free place is taken.
const ACCEPTS: Duration = Duration::from_millis(20);
/// Connections above the limit that may be open while others make room for them.
const EVICTED_AT_ONCE: u32 = 8;
/// Idle time before which no connection makes room.
const GRACE: Duration = Duration::from_millis(250);

/// Judges the connection limit and the keep-alive time, if the scenario sets them.
pub(super) fn limits_of_connections(history: &RunHistory<'_>) -> Result<usize, String> {
    let limits = &history.scenario.limits;
    if limits.connections_max.is_some() {
        each_eviction_makes_room(history)?;
    }
    if !history.delivers() || !history.resets() || history.has_partial_io() {
        return Ok(0);
    }
    let mut judged = 0;
    if let Some(most) = limits.connections_max {
        the_limit_is_kept(history, most)?;
        new_clients_get_in(history)?;
        working_clients_stay(history)?;
        idle_ones_have_their_grace(history)?;
        evictions_are_counted(history)?;
        judged += 1;
    }
    // Each of several workers knows only its own connections.
    if let Some(most) = limits.connections_max.filter(|_| history.scenario.workers == 1) {
        silent_ones_make_room_first(history)?;
        no_more_than_the_limit_work(history, most)?;
        free_places_are_taken(history, most)?;
    }
    if let Some(keep_alive) = limits.keep_alive {
        let keep_alive = history.world(Duration::from_millis(keep_alive));
        idle_connections_are_closed_in_time(history, keep_alive)?;
        if limits.connection_age_max.is_none() {
            http2_connections_are_kept(history, keep_alive)?;
        }
        idle_http2_connections_are_told_in_time(history, keep_alive)?;
        judged += 1;
    }
    if limits.connections_max.is_none() && limits.connection_age_max.is_none() {
        used_connections_are_kept(history)?;
    }
    Ok(judged)
}

/// Checks that nothing but its keep-alive time ends a connection whose requests were all served
/// while serving.
fn used_connections_are_kept(history: &RunHistory<'_>) -> Result<(), String> {
    let keep_alive = history.world(history.scenario.limits.limits().keep_alive);
    let left = history.left_serving().unwrap_or(Duration::MAX);
    let slack = history.under_way() + history.rounding() + history.early();
    // One whose body is not read ends its connection, and may have the target of another.
    let is_plain = |kind: &RequestKind| {
        matches!(
            kind,
            RequestKind::Fast
                | RequestKind::Head
                | RequestKind::Slow(_)
                | RequestKind::Echo(_)
                | RequestKind::Bytes(_)
                | RequestKind::Rare(RareRequest::Late { .. })
        )
    };
    let keeps = |client: &Client| {
        matches!(client.traffic, Traffic::KeepAlive { .. }) && client.kinds().all(is_plain)
    };
    let goes_on = |observed: &ObservedRequest| {
        matches!(observed.end, Some((_, RequestResult::Completed(200, _))))
            && matches!(observed.head, Some((_, _, false)))
    };
    for closed in history.events("closed idle").filter(|record| record.at < left) {
        let of_it = |observed: &&ObservedRequest| {
            *closed.actor == *client_name(observed.client)
                && closed.number("connection") == Some(observed.connection)
        };
        let requests: Vec<_> = history.requests.iter().filter(of_it).collect();
        let is_judged = requests
            .iter()
            .all(|observed| goes_on(observed) && history.client(observed).is_some_and(keeps));
        let last = requests.last().and_then(|observed| observed.end.as_ref());
        if let Some((last, _)) = last.filter(|_| is_judged)
            && closed.at + slack < *last + keep_alive
        {
            return Err(format!(
                "{} had its last response at {last:?}, and its connection was closed at {:?}",
                closed.actor, closed.at
            ));
        }
    }
    Ok(())
}

fn clients<'a>(history: &'a RunHistory<'_>) -> impl Iterator<Item = (usize, &'a Client)> + use<'a> {
    history.scenario.clients.iter().enumerate()
}

fn event_of<'a>(history: &'a RunHistory<'_>, client: usize, event: &str) -> Option<&'a Record> {
    history.of_client(client, event).next()
}

/// Checks that only a few connections more than the limit are open at once, while others make room
/// for them.
fn the_limit_is_kept(history: &RunHistory<'_>, most: usize) -> Result<(), String> {
    // The drain empties the kernel's queue, whatever the limit is (P5a).
    let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    let at_once = history.scenario.cap("evicted_at_once").unwrap_or(EVICTED_AT_ONCE);
    // Each worker may accept one before it knows of those of the others.
    let above = at_once as usize + history.scenario.workers - 1;
    for accepted in history.server("accepted above the limit") {
        let open = accepted.number("open").unwrap_or(0);
        if accepted.at < draining && open > (most + above) as u64 {
            return Err(format!(
                "{open} connections were open at {:?}, with a limit of {most}, of which {above} \
                 may be exceeded",
                accepted.at
            ));
        }
    }
    Ok(())
}

/// Checks that no connection makes room unless one is accepted in its place. Only the simulated
/// networks record what is accepted.
fn each_eviction_makes_room(history: &RunHistory<'_>) -> Result<(), String> {
    let report = history.outcome.report.as_ref().filter(|_| history.tolerance().is_zero());
    let Some(report) = report else { return Ok(()) };
    let (evicted, accepted) =
        (report.connections.evicted, history.server("accepted above the limit").count() as u64);
    if evicted > accepted {
        return Err(format!(
            "{evicted} connections made room, and {accepted} were accepted above the limit"
        ));
    }
    Ok(())
}

/// Checks that a new client gets its response soon, since silent and idle connections make room.
fn new_clients_get_in(history: &RunHistory<'_>) -> Result<(), String> {
    let open_until = history.began(Phase::Draining).or(history.exit().map(|(at, _)| at));
    for observed in history.requests.iter().filter(|observed| observed.earlier == 0) {
        let is_new = history.client(observed).is_some_and(|client| {
            client.traffic == Traffic::Once(Pacing::Prompt)
                && client.request_kind == RequestKind::Fast
        });
        let since = observed.observed;
        let before = history
            .events("connected")
            .filter(|record| record.at <= since && record.at + ROOM * 4 > since);
        let ahead = u32::try_from(before.count()).unwrap_or(u32::MAX);
        let by =
            since + history.world(ROOM * ahead) + history.under_way() * 6 + history.tolerance();
        let late = observed.head.is_none_or(|(at, ..)| at > by);
        if is_new && late && open_until.is_some_and(|until| by < until) {
            return Err(format!(
                "client-{} connected at {since:?}, and got no response by {by:?} although silent \
                 connections could make room",
                observed.client
            ));
        }
    }
    Ok(())
}

/// Whether a client sends its requests so often that its connection is never idle for long.
fn is_working(client: &Client) -> bool {
    let often = matches!(client.traffic, Traffic::KeepAlive { every_ms: ..=100, .. });
    often && client.request_kind == RequestKind::Fast && client.then.is_empty()
}

/// Checks that silent connections do not displace one that is used.
fn working_clients_stay(history: &RunHistory<'_>) -> Result<(), String> {
    let left = history.left_serving().unwrap_or(Duration::MAX);
    for (n, _) in clients(history).filter(|(_, client)| is_working(client)) {
        let closed = event_of(history, n, "closed idle").filter(|record| record.at < left);
        if let Some(record) = closed {
            return Err(format!("client-{n} used its connection, and lost it at {:?}", record.at));
        }
    }
    Ok(())
}

/// Checks the order in which connections make room: silent ones before idle ones, and the longest
/// silent one first.
fn silent_ones_make_room_first(history: &RunHistory<'_>) -> Result<(), String> {
    let left = history.left_serving().unwrap_or(Duration::MAX);
    let draining = history.left_lame_duck().unwrap_or(Duration::MAX);
    let slack = history.under_way() * 2 + Duration::from_millis(20) + history.tolerance();
    let silent: Vec<(Duration, Duration)> = clients(history)
        .filter(|(_, client)| client.traffic == Traffic::ByteLess)
        .filter_map(|(n, _)| {
            let ended = event_of(history, n, "ended").map_or(Duration::MAX, |record| record.at);
            Some((event_of(history, n, "connected")?.at, ended))
        })
        .collect();
    for (n, client) in clients(history) {
        let is_silent = client.traffic == Traffic::ByteLess;
        let event = if is_silent { "ended" } else { "closed idle" };
        let (Some(connected), Some(closed)) =
            (event_of(history, n, "connected"), event_of(history, n, event))
        else {
            continue;
        };
        // In the lame duck delay only silent connections are closed for nothing else.
        if closed.at >= if is_silent { draining } else { left } {
            continue;
        }
        let since = if is_silent {
            connected.at.saturating_sub(slack)
        } else {
            closed.at.saturating_sub(history.world(ROOM) + slack)
        };
        let passed_over = silent
            .iter()
            .find(|(connected, ended)| *connected < since && *ended > closed.at + slack);
        if let Some((connected, _)) = passed_over {
            return Err(format!(
                "client-{n} had to make room at {:?}, and one that was silent since {connected:?} \
                 had not",
                closed.at
            ));
        }
    }
    Ok(())
}

/// Checks that no connection makes room before it was idle for its grace.
fn idle_ones_have_their_grace(history: &RunHistory<'_>) -> Result<(), String> {
    let left = history.left_serving().unwrap_or(Duration::MAX);
    let near = Duration::from_millis(history.scenario.latency_ms.0);
    let grace = history.world(GRACE) + near;
    let is_shorter = history.scenario.limits.keep_alive.is_some();
    for closed in history.events("closed idle") {
        let last = history.requests.iter().filter(|observed| {
            *closed.actor == *client_name(observed.client)
                && closed.number("connection") == Some(observed.connection)
        });
        let last = last.filter_map(|observed| observed.end.as_ref()).map(|(at, _)| *at).max();
        if let Some(last) = last.filter(|_| closed.at < left && !is_shorter)
            && closed.at + history.under_way() + history.early() < last + grace
        {
            return Err(format!(
                "{} had its last response at {last:?}, and its connection made room at {:?}",
                closed.actor, closed.at
            ));
        }
    }
    Ok(())
}

/// Checks that each connection that made room while serving is counted, and that no other is.
fn evictions_are_counted(history: &RunHistory<'_>) -> Result<(), String> {
    let limits = &history.scenario.limits;
    let Some(report) = &history.outcome.report else { return Ok(()) };
    // Others close idle connections, too.
    if limits.keep_alive.is_some() || limits.connection_age_max.is_some() {
        return Ok(());
    }
    let left = history.left_serving().unwrap_or(Duration::MAX);
    let closes = |record: &&Record| match record.event {
        "closed idle" | "goaway" => true,
        "ended" => clients(history).any(|(n, client)| {
            client.traffic == Traffic::ByteLess && *record.actor == *client_name(n)
        }),
        _ => false,
    };
    let key = |record: &Record| (record.actor.to_string(), record.number("connection"));
    let closed = history.records.iter().filter(closes);
    let seen: BTreeSet<_> = closed.clone().filter(|record| record.at < left).map(key).collect();
    // A client that closes, or sends, at the same time does not see what made room.
    let all = closed.map(key).collect::<BTreeSet<_>>().len() + history.requests.len();
    let evicted = report.connections.evicted;
    if !(seen.len() as u64..=all as u64).contains(&evicted) {
        return Err(format!(
            "{} connections made room while serving, and {all} can have, but the host counts \
             {evicted}",
            seen.len()
        ));
    }
    Ok(())
}

/// Checks that no more handlers and upgraded connections are at work than connections may be open,
/// if every connection has one request.
fn no_more_than_the_limit_work(history: &RunHistory<'_>, most: usize) -> Result<(), String> {
    let has_one = |client: &Client| {
        matches!(client.traffic, Traffic::Once(Pacing::Prompt) | Traffic::Upgraded { .. })
    };
    if !clients(history).all(|(_, client)| has_one(client)) {
        return Ok(());
    }
    // The drain empties the kernel's queue, whatever the limit is (P5a).
    let draining = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    let (mut handlers, mut conversations) = (BTreeSet::new(), BTreeSet::new());
    for record in history.records.iter().take_while(|record| record.at < draining) {
        let Some(handler) = record.number("handler") else { continue };
        match record.event {
            "handler begins" => drop(handlers.insert(handler)),
            "handler ends" => drop(handlers.remove(&handler)),
            "conversation begins" => drop(conversations.insert(handler)),
            "conversation ends" => drop(conversations.remove(&handler)),
            _ => continue,
        }
        let working = handlers.union(&conversations).count();
        if working > most {
            return Err(format!(
                "{working} handlers were at work at {:?}, with a limit of {most} connections",
                record.at
            ));
        }
    }
    Ok(())
}

/// Checks that a connection which waits in the kernel's queue is accepted as soon as another one
/// has closed, if every connection has one request.
fn free_places_are_taken(history: &RunHistory<'_>, most: usize) -> Result<(), String> {
    let is_single = |client: &Client| client.traffic == Traffic::Once(Pacing::Prompt);
    if history.scenario.tls || !history.scenario.clients.iter().all(is_single) {
        return Ok(());
    }
    let draining = history.began(Phase::Draining).or(history.exit().map(|(at, _)| at));
    let until = draining.unwrap_or(Duration::MAX);
    let slack = history.under_way() * 2 + ACCEPTS + history.tolerance();
    let begun = history.requests.iter().filter_map(|observed| {
        let of = format!("{}/{}", client_name(observed.client), observed.number);
        let begins = history.server("handler begins").find(|record| record.text("of") == Some(&of));
        begins.map(|begins| (observed, begins.at))
    });
    let begun: Vec<(&ObservedRequest, Duration)> = begun.collect();
    for (observed, begins) in &begun {
        let before = begins.saturating_sub(slack);
        if before <= observed.observed + slack || *begins >= until {
            continue;
        }
        // A client closes its connection when it has its response.
        let is_open = |(other, begins): &&(&ObservedRequest, Duration)| {
            let is_over = other.end.as_ref().is_some_and(|(at, _)| *at + slack < before);
            *begins <= before && !is_over
        };
        let open = begun.iter().filter(is_open).count();
        if open < most {
            return Err(format!(
                "client-{} waited since {:?} for one of {most} places, of which {open} were taken \
                 at {before:?}, and was served at {begins:?}",
                observed.client, observed.observed
            ));
        }
    }
    Ok(())
}

/// Checks that an idle connection is closed after its time, and not before.
fn idle_connections_are_closed_in_time(
    history: &RunHistory<'_>,
    keep_alive: Duration,
) -> Result<(), String> {
    let left = history.left_serving().unwrap_or(Duration::MAX);
    let (far, rounding) = (history.under_way(), history.rounding());
    for observed in &history.requests {
        let Some((idle, RequestResult::Completed(..))) = observed.end else { continue };
        let keeps = history.client(observed).is_some_and(|client| {
            matches!(client.traffic, Traffic::KeepAlive { .. })
                && client.request_kind == RequestKind::Fast
                && client.then.is_empty()
        });
        if !keeps || observed.head.is_none_or(|(_, _, closes)| closes) {
            continue;
        }
        let actor = client_name(observed.client);
        // What ended the idle time, if the client did not close the connection itself.
        let next = history.records.iter().find(|record| {
            matches!(record.event, "closed idle" | "asks")
                && *record.actor == *actor
                && record.at >= idle
        });
        let Some(next) = next else { continue };
        let closed = next.event == "closed idle" && next.text("how") == Some("fin");
        if closed && next.at < left && next.at + far + rounding < idle + keep_alive {
            return Err(format!(
                "{actor} had its last response at {idle:?}, and its idle connection was closed \
                 before {:?}",
                next.at
            ));
        }
        let by = idle + keep_alive + history.world(PARK_AFTER + SWEEP * 3) + far * 2 + rounding;
        if by < left.min(next.at) {
            return Err(format!("{actor} was idle since {idle:?}, and was kept after {by:?}"));
        }
    }
    Ok(())
}

/// Checks that an idle connection of HTTP/2 gets its GOAWAY after its time.
fn idle_http2_connections_are_told_in_time(
    history: &RunHistory<'_>,
    keep_alive: Duration,
) -> Result<(), String> {
    let left = history.left_serving().unwrap_or(Duration::MAX);
    let slack =
        history.world(PARK_AFTER + SWEEP * 3) + history.under_way() * 2 + history.rounding();
    for observed in &history.requests {
        let Some((idle, RequestResult::Completed(..))) = observed.end else { continue };
        let sends = |client: &Client| {
            matches!(client.traffic, Traffic::Http2 { .. })
                && client.request_kind == RequestKind::Fast
                && client.then.is_empty()
        };
        if !history.client(observed).is_some_and(sends) {
            continue;
        }
        let actor = client_name(observed.client);
        // What ended the idle time, if the client did not close the connection itself.
        let next = history.records.iter().find(|record| {
            matches!(record.event, "goaway" | "closed idle" | "asks" | "is done")
                && *record.actor == *actor
                && record.at >= idle
        });
        let by = idle + keep_alive + slack;
        if next.is_some_and(|next| by < left.min(next.at)) {
            return Err(format!("{actor} was idle since {idle:?}, and had no GOAWAY by {by:?}"));
        }
    }
    Ok(())
}

/// Checks that an idle connection of HTTP/2 gets no GOAWAY before its time is over, which counts
/// from its last response.
fn http2_connections_are_kept(
    history: &RunHistory<'_>,
    keep_alive: Duration,
) -> Result<(), String> {
    let left = history.left_serving().unwrap_or(Duration::MAX);
    for goaway in history.events("goaway") {
        let of_it = |observed: &&ObservedRequest| {
            *goaway.actor == *client_name(observed.client)
                && goaway.number("connection") == Some(observed.connection)
                && observed.observed < goaway.at
        };
        let sends = |client: &Client| matches!(client.traffic, Traffic::Http2 { .. });
        let ends = history.requests.iter().filter(of_it);
        let ends = ends.filter(|observed| history.client(observed).is_some_and(sends));
        let last = ends.filter_map(|observed| observed.end.as_ref()).map(|(at, _)| *at).max();
        let Some(last) = last.filter(|last| *last < goaway.at && goaway.at < left) else {
            continue;
        };
        if goaway.number("code") == Some(0)
            && goaway.at + history.under_way() + history.rounding() < last + keep_alive
        {
            return Err(format!(
                "{} had its last response at {last:?}, and got a GOAWAY at {:?}",
                goaway.actor, goaway.at
            ));
        }
    }
    Ok(())
}
