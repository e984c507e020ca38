//! The oracle for P6: no straggler holds the exit.

use super::{Exercise, Judgement, RequestResult, RunHistory, client_times, pong_waits};
use crate::scenario::{Client, HeaderFault, RequestKind, SendsOn, SentOn, Traffic, client_name};
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// First-byte grace of a silent connection, plus the sweep that detects its end.
pub(super) const GRACE: Duration = Duration::from_millis(250 + 20);
/// Time limit of a partial head or an HTTP/2 handshake in the drain, plus the sweep that detects
/// it.
pub(super) const HEAD_GRACE: Duration = Duration::from_millis(1_000 + 20);
/// Time to seal the listeners and to wait for handshakes if it is unknown whether any is pending,
/// plus a sweep.
pub(super) const QUIESCE: Duration = Duration::from_millis(70);
/// The longest time for a client that reads nothing of what was sent: that for its progress, and
/// the longest time between two checks of it. On HTTP/2 its PONG is awaited before.
const UNREAD: Duration = Duration::from_millis(5_000 + 1_000 + 1_000 + 20);
/// How long such a client reads nothing: longer than that.
const UNREAD_MS: u64 = 30_000;
/// Time for what partial reads and writes delay.
const PARTIAL_IO: Duration = Duration::from_millis(30);
/// Tolerance of a timer.
pub(super) const MOMENT: Duration = Duration::from_millis(2);

/// P6: with no request left, silent connections delay the exit by the first-byte grace at most.
pub(super) fn no_straggler_holds_the_exit(history: &RunHistory<'_>) -> Judgement {
    let (Some(draining), Some(span)) =
        (history.began(Phase::Draining), history.span(Phase::Draining))
    else {
        return Ok(Exercise::No);
    };
    let is_simple = |client: &Client| client.traffic.is_simple() && !client.has_slow_header();
    let simple = history.scenario.clients.iter().all(is_simple);
    // A connection that waits for another to close has its grace from its accept.
    if !history.may_wait_for_room() {
        silent_clients_are_bounded(history, span)?;
        each_silent_client_is_disconnected(history, draining)?;
    }
    client_times::silent_connections_have_their_grace(history)?;
    client_times::silent_connections_are_closed(history)?;
    client_times::half_heads_are_refused(history)?;
    idle_connections_are_closed_at_once(history, draining)?;
    pong_waits::pongs_are_awaited_for_a_second(history)?;
    let since = draining.saturating_sub(history.under_way() * 2);
    let busy = history
        .requests
        .iter()
        .any(|observed| observed.end.as_ref().is_none_or(|(at, _)| *at > since));
    let excused = history.has_long_running_work() || history.may_wait_for_room();
    if !simple || busy || excused || !history.delivers() {
        return Ok(Exercise::No);
    }
    // The host waits for a connection that is being established when the listeners close. The grace
    // of such a connection starts at its accept.
    // Over TLS it starts a round trip later, at the end of the handshake.
    let trips = if history.scenario.tls { 4 } else { 2 };
    let most = GRACE + QUIESCE + history.under_way() * trips + history.tolerance();
    if span > most {
        return Err(format!("with no request left the drain took {span:?}, more than {most:?}"));
    }
    Ok(Exercise::of(usize::from(
        history.scenario.clients.iter().any(|client| client.traffic == Traffic::ByteLess),
    )))
}

/// Checks that the drain closes each connection that is idle when it begins.
fn idle_connections_are_closed_at_once(
    history: &RunHistory<'_>,
    draining: Duration,
) -> Result<(), String> {
    let (far, slack) = (history.under_way(), MOMENT + history.tolerance());
    // Each poll of the host moves a part of the bytes, or none.
    let slack = if history.has_partial_io() { slack + PARTIAL_IO } else { slack };
    let by = draining + far + slack;
    let exit = history.exit().map_or(Duration::MAX, |(at, _)| at);
    if !history.delivers() || by >= exit {
        return Ok(());
    }
    for observed in &history.requests {
        let small = matches!(
            history.request_kind(observed),
            Some(RequestKind::Fast | RequestKind::Slow(_) | RequestKind::Head)
        );
        let keeps = history.client(observed).is_some_and(|client| {
            matches!(client.traffic, Traffic::KeepAlive { .. } | Traffic::Pipelined { .. })
                && !client.has_failing_body()
        });
        let (Some((ended, RequestResult::Completed(..))), Some((_, _, false)), true, true) =
            (&observed.end, observed.head, small, keeps)
        else {
            continue;
        };
        let actor = client_name(observed.client);
        // After its last request it has closed the connection itself.
        let next = history.records.iter().find(|record| {
            matches!(record.event, "closed idle" | "asks")
                && *record.actor == *actor
                && record.at >= *ended
        });
        let is_last = !history.requests.iter().any(|other| {
            (other.client, other.connection) == (observed.client, observed.connection)
                && other.earlier > observed.earlier
        });
        if is_last && *ended + far + slack < draining && next.is_some_and(|next| next.at > by) {
            return Err(format!(
                "{actor} was idle since {ended:?}, and was not closed by {by:?}, at the beginning \
                 of the drain"
            ));
        }
    }
    Ok(())
}

/// Checks that, if no client ever completes a request, the drain lasts no longer than the slowest
/// kind of client may take.
fn silent_clients_are_bounded(history: &RunHistory<'_>, span: Duration) -> Result<(), String> {
    let of_its_own = |client: &Client| match client.traffic {
        // The drain does not wait for it.
        Traffic::InternalHalfHead | Traffic::InternalStrangers { .. } => Some(Duration::ZERO),
        Traffic::ByteLess => Some(GRACE),
        Traffic::HalfHead | Traffic::SilentHttp2 | Traffic::BadHeader(_) => {
            Some(GRACE + HEAD_GRACE)
        }
        // A close with unread bytes goes on to read, for as long as a head may take.
        Traffic::SendsOn(SendsOn { what: SentOn::Body, .. }) => Some(GRACE + HEAD_GRACE),
        Traffic::SendsOn(_) => Some(GRACE),
        Traffic::Stalls { for_ms: UNREAD_MS.., .. }
        | Traffic::Http2Stalls { for_ms: UNREAD_MS.., beside_ms: None, .. } => Some(UNREAD),
        Traffic::Once(_)
        | Traffic::KeepAlive { .. }
        | Traffic::PerRequest { .. }
        | Traffic::Http2 { .. }
        | Traffic::Http2GoesOn { .. }
        | Traffic::Http2Leaves { .. }
        | Traffic::Pipelined { .. }
        | Traffic::Session { .. }
        | Traffic::Late { .. }
        | Traffic::InPieces(_)
        | Traffic::Leaves { .. }
        | Traffic::Http2Windowless { .. }
        | Traffic::Http2Resets { .. }
        | Traffic::Http2HalfFrame { .. }
        | Traffic::Http2Upload { .. }
        | Traffic::Http2Slowly { .. }
        | Traffic::Http2Stalls { .. }
        | Traffic::Stalls { .. }
        | Traffic::SlowHttp2 { .. }
        | Traffic::SlowHello { .. }
        | Traffic::Abandons { .. }
        | Traffic::Upgraded { .. } => None,
    };
    let all: Option<Vec<Duration>> = history.scenario.clients.iter().map(of_its_own).collect();
    let Some(longest) = all.and_then(|all| all.into_iter().max()) else { return Ok(()) };
    // Includes the response, and the client's close after it.
    let trips = if history.scenario.tls { 8 } else { 4 };
    let slack = if history.has_partial_io() { PARTIAL_IO } else { Duration::ZERO };
    let most = longest + QUIESCE + history.under_way() * trips + slack + history.tolerance();
    let outside = history.scenario.clients.iter().all(|client| client.traffic.is_internal());
    if !outside && history.delivers() && history.scenario.tasks.is_empty() && span > most {
        return Err(format!(
            "with only silent clients the drain took {span:?}, more than {most:?}"
        ));
    }
    Ok(())
}

/// Checks that a client which never completes a request is disconnected in its own time, whatever
/// other clients do.
fn each_silent_client_is_disconnected(
    history: &RunHistory<'_>,
    draining: Duration,
) -> Result<(), String> {
    let exit = history.exit().map_or(Duration::MAX, |(at, _)| at);
    for (n, client) in
        history.scenario.clients.iter().enumerate().filter(|(_, client)| is_silent(client))
    {
        let when = |event| history.of_client(n, event).next().map(|record| record.at);
        let Some(connected) = when("connected") else { continue };
        let by = if client.traffic == Traffic::ByteLess {
            (connected + history.world(GRACE)).max(draining + history.world(QUIESCE))
        } else {
            // A client that has just begun an HTTP/2 handshake had the first-byte grace before it.
            (connected + history.world(GRACE)).max(draining) + history.world(HEAD_GRACE)
        };
        let by = by + history.under_way() * 3 + history.tolerance();
        if history.delivers() && by < exit && when("ended").is_none_or(|ended| ended > by) {
            return Err(format!(
                "{}, which sent no complete request, was not closed by {by:?}",
                client_name(n)
            ));
        }
    }
    Ok(())
}

/// Whether a client never completes a request.
pub(super) const fn is_silent(client: &Client) -> bool {
    matches!(
        client.traffic,
        Traffic::ByteLess
            | Traffic::HalfHead
            | Traffic::SilentHttp2
            | Traffic::BadHeader(HeaderFault::Half)
    )
}
