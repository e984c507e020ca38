//! Oracles for the announcements of P4: `Connection: close` and GOAWAY, and their timing.
//!
//! An oracle does not know the seed. Where the host draws a moment at random, it checks what must
//! hold for every connection, and what would be very unlikely for several connections at once.

mod spread;

use super::{ObservedRequest, RequestResult, RunHistory};
use crate::scenario::{
    Client, Fault, OddRequest, Pacing, ProxyHeader, RareRequest, RequestKind, Traffic, client_name,
    has_failing_body,
};
use crate::trace::Record;
use lameduck::lifecycle::Phase;
use std::{collections::BTreeMap, time::Duration};

/// Time that a new client has for its first request before it gets a GOAWAY.
const FIRST_BYTE_GRACE: Duration = Duration::from_millis(250);

/// Tolerance of a timer, including a sweep and a write.
const MOMENT: Duration = Duration::from_millis(20);

/// Interval between sweeps over the connections while serving.
const SWEEP: Duration = Duration::from_millis(250);

/// Least length of the last part of the delay, in which every response announces the close. That
/// part is the last tenth of the delay, at least this long, but at most half of the delay.
const LAST_PART_LEAST: Duration = Duration::from_millis(250);

/// Largest body that is certain to leave in one write.
const SENT_AT_ONCE: usize = 10_000;

/// Limit on the connections that one client opens before the last part. A client that sends
/// requests without a pause opens about ln(delay / round trip) connections, which is at most 10.
const CONNECTIONS_MAX: usize = 40;

/// From so many connections on it is no chance if a limit near the middle of a span is before, or
/// after, all of their moments in it: one in 200,000.
const MANY: usize = 24;

/// Error code of a GOAWAY for a client that resets too many streams (RFC 9113 §7).
const ENHANCE_YOUR_CALM: u64 = 11;

/// One connection as its client saw it.
#[derive(Debug, Default)]
struct Connection<'a> {
    opened: Duration,
    /// The requests on this connection, in order.
    requests: Vec<&'a ObservedRequest>,
    goaway: Option<Duration>,
}

impl Connection<'_> {
    /// Returns the time at which the first response head arrived.
    fn first_head(&self) -> Option<Duration> {
        self.requests.iter().filter_map(|observed| observed.head).map(|(at, ..)| at).min()
    }
}

/// The lame duck delay and the connections, as the clients saw them.
struct Delay<'a> {
    history: &'a RunHistory<'a>,
    stop: Duration,
    last_part: Duration,
    drain: Duration,
    connections: BTreeMap<(usize, u64), Connection<'a>>,
}

/// Checks everything that P4 promises about announcements.
pub(super) fn closes_are_announced(history: &RunHistory<'_>) -> Result<(), String> {
    let Some(stop) = history.left_serving() else { return Ok(()) };
    let delay = Delay::read(history, stop);
    delay.nothing_is_announced_early()?;
    delay.old_connections_announce()?;
    delay.ages_are_spread()?;
    clients_can_ask_first(history)?;
    if !history.delivers() {
        return Ok(());
    }
    delay.responses_announce()?;
    delay.goaways_are_sent_in_time()?;
    delay.goaways_are_sent_by_the_drain()?;
    delay.moments_of_the_stop_are_spread()?;
    delay.moments_of_late_connections_are_spread()?;
    delay.late_connections_announce_at_their_moments()?;
    delay.connections_are_bounded()
}

/// Checks that a client which waits for the SETTINGS gets no GOAWAY in its first-byte grace, before
/// its first request.
fn clients_can_ask_first(history: &RunHistory<'_>) -> Result<(), String> {
    let cancelling = history.began(Phase::Cancelling).unwrap_or(Duration::MAX);
    let find = |event: &str, of: &Record| {
        let is_it = |record: &&Record| {
            record.actor == of.actor && record.number("connection") == of.number("connection")
        };
        history.events(event).find(is_it).map(|record| record.at)
    };
    for goaway in history.events("goaway") {
        let client = goaway.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
        let client = client.and_then(|n| history.scenario.clients.get(n));
        let Some(connected) = find("connected", goaway) else { continue };
        let until = connected + history.world(FIRST_BYTE_GRACE);
        let is_first = find("asks", goaway).is_none_or(|asks| asks > goaway.at);
        if client.is_some_and(|client| client.waits_for_settings)
            && is_first
            && goaway.number("code") == Some(0)
            && goaway.at + history.rounding() < until.min(cancelling)
        {
            return Err(format!(
                "{} connected at {connected:?} and got a GOAWAY at {:?}, before it could ask",
                goaway.actor, goaway.at
            ));
        }
    }
    Ok(())
}

impl<'a> Delay<'a> {
    fn read(history: &'a RunHistory<'a>, stop: Duration) -> Self {
        let delay = history.scenario.plan().lame_duck;
        let drain = history.began(Phase::Draining).unwrap_or(Duration::MAX);
        let last_part = (delay / 10).max(LAST_PART_LEAST.min(delay / 2));
        let last_part = stop + history.world(delay - last_part);
        let mut connections: BTreeMap<(usize, u64), Connection<'a>> = BTreeMap::new();
        for record in &history.records {
            let client = record.actor.strip_prefix("client-").and_then(|n| n.parse().ok());
            let key = client.zip(record.number("connection"));
            let Some(key) = key.filter(|_| matches!(record.event, "connected" | "goaway")) else {
                continue;
            };
            let connection = connections.entry(key).or_default();
            match record.event {
                // h2 ends a connection on which too many streams are reset.
                "goaway" if record.number("code") == Some(ENHANCE_YOUR_CALM) => {}
                "connected" => connection.opened = record.at,
                _ => connection.goaway = connection.goaway.or(Some(record.at)),
            }
        }
        for observed in &history.requests {
            if let Some(connection) = connections.get_mut(&(observed.client, observed.connection)) {
                connection.requests.push(observed);
            }
        }
        Self { history, stop, last_part: last_part.min(drain), drain, connections }
    }

    fn moment(&self) -> Duration {
        MOMENT + self.history.tolerance()
    }

    /// Whether the host accepted the connection before the stop request.
    fn is_early(&self, connection: &Connection<'_>) -> bool {
        let starved = |fault: &Fault| matches!(fault, Fault::NoDescriptors { .. });
        let waits =
            self.history.scenario.faults.iter().any(starved) || self.history.may_wait_for_room();
        !waits
            && connection.opened + self.history.under_way() + MOMENT + self.history.tolerance()
                < self.stop
    }

    /// Whether the host accepted the connection after the stop request.
    fn is_late(&self, connection: &Connection<'_>) -> bool {
        let client = connection.requests.first().and_then(|first| self.history.client(first));
        let header = client.and_then(|client| client.header).map(ProxyHeader::lasts);
        let stall = |fault: &Fault| {
            if let Fault::Stall { for_ms, .. } = fault { *for_ms } else { 0 }
        };
        let stalled = self.history.scenario.faults.iter().map(stall).sum();
        let stalled = Duration::from_millis(stalled);
        let slack = self.history.under_way() * 2 + self.history.tolerance() + stalled;
        connection.opened > self.stop + header.unwrap_or_default() + slack
    }

    fn late(&self) -> impl Iterator<Item = &Connection<'a>> {
        self.connections.values().filter(|connection| self.is_late(connection))
    }

    fn is_http2(&self, connection: &Connection<'_>) -> bool {
        connection.requests.first().is_some_and(|observed| self.history.is_http2(observed))
    }

    /// Returns the times between which a connection reaches its age limit, if there is one.
    fn ages(&self, connection: &Connection<'_>) -> Option<(Duration, Duration)> {
        let age = Duration::from_millis(self.history.scenario.limits.connection_age_max?);
        let far = self.history.under_way();
        // The age counts from the accept, which a PROXY header and a handshake follow; on HTTP/2
        // from the first byte.
        let first = connection.requests.first().map_or(connection.opened, |first| first.observed);
        let client = connection.requests.first().map(|first| client_name(first.client));
        let header = self.history.events("header begins").rfind(|header| {
            header.at <= connection.opened && client.as_deref() == Some(&*header.actor)
        });
        let begun = header.map_or(connection.opened, |header| header.at);
        let from = begun.saturating_sub(far * 4);
        let earliest = from + self.history.world(age - age / 10);
        Some((
            earliest.saturating_sub(self.history.early()),
            first + far * 2 + self.history.world(age) + self.history.rounding(),
        ))
    }

    /// Checks that while serving a connection that has reached its age limit announces its close:
    /// HTTP/1 with its next response, HTTP/2 after a sweep.
    fn old_connections_announce(&self) -> Result<(), String> {
        let far = self.history.under_way();
        for connection in self.connections.values() {
            let Some((_, latest)) = self.ages(connection) else { continue };
            let is_http2 = self.is_http2(connection);
            let late = latest + if is_http2 { SWEEP + far * 2 + self.moment() } else { far };
            for observed in connection.requests.iter().filter(|observed| observed.observed > late) {
                let announced = match observed.head {
                    _ if is_http2 => connection.goaway.is_some_and(|told| told <= late),
                    Some((at, _, closes)) => closes || at >= self.stop,
                    None => true,
                };
                if !announced && observed.observed < self.stop && self.history.delivers() {
                    return Err(format!(
                        "client-{} used a connection after {late:?}, when it was too old",
                        observed.client
                    ));
                }
            }
        }
        Ok(())
    }

    /// Checks that connections have different age limits: of many that are used in the middle of
    /// the last tenth of their age, some announce their close and others do not.
    fn ages_are_spread(&self) -> Result<(), String> {
        let Some(age) = self.history.scenario.limits.connection_age_max else { return Ok(()) };
        let part = |percent: u64| self.history.world(Duration::from_micros(age * 10 * percent));
        let far = self.history.under_way();
        let (mut all, mut announced) = (0, 0);
        for connection in self.connections.values().filter(|other| !self.is_http2(other)) {
            for observed in &connection.requests {
                let Some((at, 200, closes)) = observed.head else { continue };
                let used = at.saturating_sub(connection.opened);
                if used.saturating_sub(far * 2) >= part(94) && used <= part(96) && at < self.stop {
                    all += 1;
                    announced += usize::from(closes);
                }
            }
        }
        let is_judged = !self.history.scenario.tls && all >= MANY && self.history.delivers();
        if is_judged && (announced == 0 || announced == all) {
            return Err(format!(
                "of {all} connections that were used in the middle of the last tenth of their age, \
                 {announced} announced their close"
            ));
        }
        Ok(())
    }

    /// Checks that nothing is announced before the stop request. After it, a connection opened in
    /// the delay must not announce with its first response before the last part.
    fn nothing_is_announced_early(&self) -> Result<(), String> {
        for connection in self.connections.values() {
            let until = if self.is_late(connection) {
                self.last_part.saturating_sub(self.history.early())
            } else {
                let earliest =
                    self.ages(connection).map_or(Duration::MAX, |(earliest, _)| earliest);
                self.stop.min(earliest)
            };
            for observed in connection
                .requests
                .iter()
                .filter(|observed| observed.earlier == 0 || until <= self.stop)
            {
                if let Some((at, 200 | 500 | 503, true)) = observed.head
                    && at < until
                    && !self.closes_for_itself(observed)
                {
                    return Err(format!(
                        "client-{} got a response to {} at {at:?} with `Connection: close`, too \
                         early",
                        observed.client, observed.target
                    ));
                }
            }
            let told = connection.goaway.filter(|told| *told < until);
            if let Some(told) = told
                && connection.first_head().is_none_or(|head| told + self.history.tolerance() < head)
                && !self.has_cut_response(connection)
            {
                return Err(format!(
                    "a connection opened at {:?} got a GOAWAY at {told:?}, before any response",
                    connection.opened
                ));
            }
        }
        Ok(())
    }

    /// Whether a response on this connection failed before its client saw the head.
    fn has_cut_response(&self, connection: &Connection<'_>) -> bool {
        let failed = |observed: &&ObservedRequest| observed.failure() == Some("stream-reset");
        let fails = |observed| {
            self.history.request_kind(observed).is_some_and(has_failing_body)
                || self.history.failed_in_its_body(observed)
        };
        connection.requests.iter().copied().filter(failed).any(fails)
    }

    /// Whether the response to this request ends the connection in any phase.
    fn closes_for_itself(&self, observed: &ObservedRequest) -> bool {
        // A body is not read further once its request was cut.
        let cut = matches!(observed.head, Some((_, 503, _)));
        let kind = self.history.request_kind(observed);
        let is_upload = |kind: &RequestKind| {
            matches!(
                kind,
                RequestKind::Echo(_)
                    | RequestKind::Odd(OddRequest::GetChunked(_) | OddRequest::GetLength(_))
            )
        };
        let closes = |kind: &RequestKind| {
            matches!(
                kind,
                RequestKind::Unread(_)
                    | RequestKind::Mismatch(_)
                    | RequestKind::Rare(_)
                    | RequestKind::User(_)
            ) || matches!(kind, RequestKind::Odd(odd) if odd.closes())
        };
        let kind = kind.map(RequestKind::as_get);
        let is_its_kind = kind.is_none_or(|kind| closes(kind) || cut && is_upload(kind));
        let half_closed = |client: &Client| client.traffic == Traffic::Once(Pacing::HalfClosed);
        is_its_kind || self.history.client(observed).is_some_and(half_closed)
    }

    /// HTTP/1: checks that an early connection announces with its first response in the delay, and
    /// that every response announces from the last part on.
    fn responses_announce(&self) -> Result<(), String> {
        let under_way = self.history.under_way();
        for connection in self.connections.values() {
            let from = if self.is_early(connection) { self.stop } else { self.last_part };
            for observed in &connection.requests {
                // A slow reader receives the head long after it was sent.
                let reads_late = self.history.client(observed).is_some_and(|client| {
                    matches!(
                        client.traffic,
                        Traffic::Once(Pacing::SlowReader(..)) | Traffic::Stalls { .. }
                    )
                });
                let is_exempt = reads_late
                    || self.history.is_http2(observed)
                    || follows_a_long_response(self.history, observed);
                if let Some((at, status, false)) = observed.head
                    && !is_exempt
                    && status != 101
                    && at > from + under_way + self.history.rounding()
                {
                    let (client, target) = (observed.client, &observed.target);
                    return Err(format!(
                        "client-{client} got a {status} for {target} at {at:?} without \
                         `Connection: close`"
                    ));
                }
            }
        }
        Ok(())
    }

    /// HTTP/2: checks that a connection which had a response gets its GOAWAY before the end of the
    /// last part, or right after that response.
    fn goaways_are_sent_in_time(&self) -> Result<(), String> {
        if self.history.is_impatient() {
            return Ok(());
        }
        for connection in self.connections.values().filter(|connection| self.is_http2(connection)) {
            // h2 refuses a head that is too large, and the host learns of no request.
            let is_refused = |observed: &&ObservedRequest| {
                observed.head.is_none_or(|(_, status, _)| status == 431)
            };
            let Some(head) = connection.first_head() else { continue };
            if connection.requests.iter().copied().all(|observed| is_refused(&observed)) {
                continue;
            }
            // The packet of the GOAWAY may take longer than that of the head.
            let near = Duration::from_millis(self.history.scenario.latency_ms.0);
            let far = self.history.under_way();
            let by = (self.last_part + far).max(head + far - near) + self.moment();
            // Not judged if the first response came in the drain: the GOAWAY may then be the last
            // frame of a connection that its client ends.
            if let Some(told) = connection.goaway
                && self.are_small(connection)
                && head < self.drain
                && told > by
            {
                return Err(format!(
                    "a connection with a response at {head:?} got its GOAWAY at {told:?}, later \
                     than {by:?}"
                ));
            }
        }
        Ok(())
    }

    /// HTTP/2: checks that every connection gets its GOAWAY by the start of the drain, or right
    /// after its first request.
    fn goaways_are_sent_by_the_drain(&self) -> Result<(), String> {
        if self.drain == Duration::MAX {
            return Ok(());
        }
        for connection in self.connections.values().filter(|connection| self.are_small(connection))
        {
            for observed in &connection.requests {
                let under_way = self.history.under_way();
                let by =
                    self.drain.max(observed.observed + under_way * 2) + under_way + self.moment();
                let is_http2 = self
                    .history
                    .client(observed)
                    .is_some_and(|client| matches!(client.traffic, Traffic::Http2 { .. }));
                let is_over = observed.end.as_ref().is_some_and(|(at, _)| *at <= by);
                if is_http2
                    && observed.observed <= self.drain
                    && !is_over
                    && connection.goaway.is_none_or(|told| told > by)
                {
                    return Err(format!("client-{} got no GOAWAY by {by:?}", observed.client));
                }
            }
        }
        Ok(())
    }

    /// Whether all responses on the connection are small. A GOAWAY is sent after the bytes that
    /// were written before it, so a large response delays it.
    fn are_small(&self, connection: &Connection<'_>) -> bool {
        let is_large = |request_kind: &RequestKind| {
            let (RequestKind::Bytes(bytes)
            | RequestKind::Echo(bytes)
            | RequestKind::Rare(
                RareRequest::Late { bytes, .. } | RareRequest::Closes { bytes, .. },
            )) = request_kind
            else {
                return false;
            };
            *bytes > SENT_AT_ONCE
        };
        let has_large = |client: &Client| client.kinds().any(is_large);
        // How much a user's service sends is known only afterwards.
        let was_large = |observed: &&ObservedRequest| {
            let bytes = match observed.end {
                Some((_, RequestResult::Completed(_, bytes))) => bytes,
                Some((_, RequestResult::Failed(_))) | None => u64::MAX,
            };
            matches!(self.history.request_kind(observed), Some(RequestKind::User(_)))
                && bytes > SENT_AT_ONCE as u64
        };
        let client = connection.requests.first().and_then(|observed| self.history.client(observed));
        client.is_some_and(|client| {
            matches!(client.traffic, Traffic::Http2 { .. })
                && !has_large(client)
                && !connection.requests.iter().any(was_large)
        })
    }

    /// Checks that the number of new connections caused by announcements depends on the number of
    /// clients, not on the number of requests.
    fn connections_are_bounded(&self) -> Result<(), String> {
        let keeps = |n: &usize| {
            let client = self.history.scenario.clients.get(*n);
            client.is_some_and(|client| {
                matches!(client.traffic, Traffic::KeepAlive { .. } | Traffic::Http2 { .. })
            })
        };
        let mut opened: BTreeMap<usize, usize> = BTreeMap::new();
        for ((n, _), connection) in self.connections.iter().filter(|((n, _), _)| keeps(n)) {
            if self.is_late(connection) && connection.opened < self.last_part {
                *opened.entry(*n).or_default() += 1;
            }
        }
        match opened.into_iter().find(|(_, count)| *count > CONNECTIONS_MAX) {
            Some((n, count)) => Err(format!("client-{n} opened {count} connections in the delay")),
            None => Ok(()),
        }
    }
}

/// Whether the head of a pipelined response may have waited after the body of a long one.
fn follows_a_long_response(history: &RunHistory<'_>, observed: &ObservedRequest) -> bool {
    let is_long = |kind: &RequestKind| {
        matches!(
            kind,
            RequestKind::Bytes(SENT_AT_ONCE..)
                | RequestKind::Rare(
                    RareRequest::Late { bytes: SENT_AT_ONCE.., .. }
                        | RareRequest::Closes { bytes: SENT_AT_ONCE.., .. }
                )
        )
    };
    history.client(observed).is_some_and(|client| {
        matches!(client.traffic, Traffic::Pipelined { .. }) && client.kinds().any(is_long)
    })
}
