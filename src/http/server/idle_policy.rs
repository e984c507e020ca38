//! The time that an idle connection is kept, and the order in which idle connections are closed at
//! the connection limit.
//!
//! The policy is pure, and the same for a connection with a task and for one in the idle set.
//! Whatever the policy says, the caller reads the kernel once more before it closes (P5b).

use super::caps::Cap;
use super::limits::{FIRST_BYTE_GRACE, HEAD_GRACE, Limits};
use crate::lifecycle::Moment;
use std::{cmp::Reverse, time::Duration};

/// What an idle connection waits for. Those that may make room do so in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Awaited {
    /// The first byte since its accept.
    FirstByte,
    /// The next request.
    NextRequest,
    /// The rest of a TLS handshake, since the accept. It does not make room.
    Handshake,
    /// The rest of a head that has begun, which has its own timer. It does not make room.
    Head,
    /// The client, in the middle of a request: it sends a body or does not receive a response.
    Client,
    /// A handler.
    Handler,
}

/// An idle connection: what it waits for, and since when. Without a byte the wait begins at the
/// accept, for a head at its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Idle {
    pub(crate) awaited: Awaited,
    pub(crate) since: Moment,
}

impl Idle {
    /// Returns the moment at which the wait ends. `draining_since` is `NEVER` before the drain.
    pub(crate) fn deadline(self, limits: &Limits, draining_since: Moment) -> Moment {
        let Self { awaited, since } = self;
        let serving = since
            + match awaited {
                Awaited::FirstByte => limits.first_byte_timeout,
                Awaited::NextRequest => limits.keep_alive,
                Awaited::Handshake => limits.tls_handshake_timeout,
                Awaited::Head => limits.header_timeout,
                Awaited::Client | Awaited::Handler => Duration::MAX,
            };
        if draining_since == Moment::NEVER {
            return serving;
        }
        match awaited {
            Awaited::FirstByte => since + FIRST_BYTE_GRACE,
            Awaited::NextRequest => Moment::EPOCH,
            Awaited::Handshake | Awaited::Head => {
                serving.min(since.max(draining_since) + HEAD_GRACE)
            }
            Awaited::Client | Awaited::Handler => serving,
        }
    }
}

/// The time that a connection must have been idle before it may be closed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EvictionGrace {
    pub(super) first_byte: Duration,
    pub(super) next_request: Duration,
    /// The time in the middle of a request or a response; `None` if the connection may not be
    /// closed then.
    pub(super) client: Option<Duration>,
    pub(super) handler: Option<Duration>,
}

impl EvictionGrace {
    /// For the main server: as long as a new connection has for its first byte in the drain.
    pub(crate) const MAIN: Self = Self {
        first_byte: FIRST_BYTE_GRACE,
        next_request: FIRST_BYTE_GRACE,
        client: None,
        handler: None,
    };
    /// For the internal server: probes get their response within 100 ms (P16). A new connection has
    /// some time for its request. After that one of the waiting connections makes room, whatever
    /// its client does.
    pub(crate) const INTERNAL: Self = Self {
        first_byte: Duration::from_millis(20),
        next_request: Duration::ZERO,
        client: Some(Duration::from_millis(20)),
        handler: Some(Duration::from_millis(50)),
    };

    /// Returns the moment from which this connection may be closed to make room.
    pub(crate) fn ends(&self, idle: Idle) -> Moment {
        match idle.awaited {
            Awaited::FirstByte => idle.since + self.first_byte,
            Awaited::NextRequest => idle.since + self.next_request,
            Awaited::Handshake | Awaited::Head => Moment::NEVER,
            Awaited::Client => self.client.map_or(Moment::NEVER, |grace| idle.since + grace),
            Awaited::Handler => self.handler.map_or(Moment::NEVER, |grace| idle.since + grace),
        }
    }
}

/// The connections that may be closed to make room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Evictable<K> {
    /// In reverse order: the first connection to close is the last element, and is taken by `pop`.
    pub(crate) order: Vec<(Idle, K)>,
    /// The moment at which a further connection may become evictable.
    pub(crate) next_check: Moment,
}

/// Chooses the connections that make room: first those without a byte, then those idle the longest,
/// then those that have waited longest in the middle of a request, where `grace` allows it.
///
/// A new connection is silent at first. So connections that wait for their next request are chosen
/// only while the silent ones are fewer than about a quarter of them. Clients that connect and send
/// nothing therefore replace each other, and do not displace working clients.
pub(crate) fn evictable<K>(
    connections: impl IntoIterator<Item = (Idle, K)>,
    grace: EvictionGrace,
    now: Moment,
    found_max: Cap,
) -> Evictable<K> {
    let mut order = Vec::new();
    let (mut silent, mut waiting) = (0_usize, 0_usize);
    let mut next_check = Moment::NEVER;
    for (idle, key) in connections {
        match idle.awaited {
            Awaited::FirstByte => silent += 1,
            Awaited::NextRequest => waiting += 1,
            Awaited::Handshake | Awaited::Head => continue,
            Awaited::Client | Awaited::Handler => {}
        }
        let ends = grace.ends(idle);
        if ends <= now { order.push((idle, key)) } else { next_check = next_check.min(ends) }
    }
    let silent_found = order.iter().filter(|(idle, _)| idle.awaited == Awaited::FirstByte).count();
    let waiting_found =
        order.iter().filter(|(idle, _)| idle.awaited == Awaited::NextRequest).count();
    let waiting_most = waiting_found.min((waiting / 4 + 1).saturating_sub(silent));
    let most = silent_found + waiting_most;
    if waiting_most < waiting_found {
        // Connections in the middle of a request come after all idle ones.
        let stuck = order
            .extract_if(.., |(idle, _)| idle.awaited > Awaited::NextRequest)
            .collect::<Vec<_>>();
        if most > 0 {
            order.select_nth_unstable_by_key(most - 1, |(idle, _)| *idle);
        }
        order.truncate(most);
        order.extend(stuck);
    }
    if found_max.is_exceeded_by(order.len()) {
        order.select_nth_unstable_by_key(found_max.get() - 1, |(idle, _)| *idle);
        order.truncate(found_max.get());
    }
    order.sort_by_key(|(idle, _)| Reverse(*idle));
    Evictable { order, next_check }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::EPOCH + Duration::from_millis(millis)
    }

    fn idle(awaited: Awaited, since: u64) -> Idle {
        Idle { awaited, since: at(since) }
    }

    const FOUND_MAX: Cap = crate::http::server::caps::Caps::DEFAULT.evictable_max;

    const LIMITS: Limits = Limits {
        connections_max: 10,
        is_connections_max_set: true,
        header_bytes_max: 0,
        headers_max: 0,
        first_byte_timeout: Duration::from_secs(60),
        tls_handshake_timeout: Duration::from_secs(10),
        header_timeout: Duration::from_secs(10),
        send_timeout: Duration::from_secs(30),
        body_timeout: Duration::from_secs(30),
        keep_alive: Duration::from_secs(620),
        connection_age_max: None,
        http2_streams_max: 0,
        half_close: crate::HalfClose::Serve,
        #[cfg(feature = "__caps")]
        caps: crate::http::server::caps::Caps::DEFAULT,
    };

    #[test]
    fn each_wait_has_one_timeout_while_serving_and_another_in_the_drain() {
        // A connection that never sent a byte was kept for the keep-alive time of ten minutes. It
        // must be closed after its first-byte timeout.
        let never = Moment::NEVER;
        for (awaited, since, draining_since, deadline) in [
            (Awaited::FirstByte, 1_000, never, at(61_000)),
            (Awaited::NextRequest, 1_000, never, at(621_000)),
            (Awaited::Head, 1_000, never, at(11_000)),
            (Awaited::FirstByte, 1_000, at(5_000), at(1_250)),
            (Awaited::NextRequest, 1_000, at(5_000), Moment::EPOCH),
            (Awaited::Head, 1_000, at(5_000), at(6_000)),
            (Awaited::Head, 6_000, at(5_000), at(7_000)),
            (Awaited::Head, 1_000, at(10_900), at(11_000)),
        ] {
            assert_eq!(
                idle(awaited, since).deadline(&LIMITS, draining_since),
                deadline,
                "{awaited:?} {since}"
            );
        }
    }

    #[test]
    fn silent_connections_are_evicted_first_then_the_longest_idle() {
        let connections = [
            (idle(Awaited::NextRequest, 10), 'a'),
            (idle(Awaited::FirstByte, 400), 'b'),
            (idle(Awaited::NextRequest, 5), 'c'),
            (idle(Awaited::FirstByte, 300), 'd'),
            (idle(Awaited::Head, 1), 'e'),
            (idle(Awaited::NextRequest, 900), 'f'),
        ];
        let Evictable { mut order, next_check } =
            evictable(connections, EvictionGrace::MAIN, at(1_000), FOUND_MAX);
        let popped: String = std::iter::from_fn(|| order.pop()).map(|(_, key)| key).collect();
        assert_eq!(popped, "db", "the silent ones are more than enough");
        assert_eq!(next_check, at(1_150));
        let waiting =
            connections.into_iter().filter(|(idle, _)| idle.awaited != Awaited::FirstByte);
        let mut order = evictable(waiting, EvictionGrace::MAIN, at(1_150), FOUND_MAX).order;
        let popped: String = std::iter::from_fn(|| order.pop()).map(|(_, key)| key).collect();
        assert_eq!(
            popped, "c",
            "a head is not idle; the longest idle goes, and then there is another look"
        );
    }

    #[test]
    fn new_silent_clients_do_not_displace_working_ones() {
        // A burst of new connections that send nothing: they replace each other, and not those of
        // working clients.
        let working = |n: u64| (0..n).map(|key| (idle(Awaited::NextRequest, 0), key));
        let silent = |n: u64| (100..100 + n).map(|key| (idle(Awaited::FirstByte, 900), key));
        let found = |working_count, silent_count| {
            let found = evictable(
                working(working_count).chain(silent(silent_count)),
                EvictionGrace::MAIN,
                at(1_000),
                FOUND_MAX,
            );
            (found.order.len() as u64, found.next_check)
        };
        assert_eq!(found(8, 0), (3, Moment::NEVER));
        assert_eq!(found(8, 2), (1, at(1_150)), "a few new ones may be about to ask");
        assert_eq!(found(8, 3), (0, at(1_150)));
        assert_eq!(found(0, 3), (0, at(1_150)));
        assert_eq!(found(1, 1), (0, at(1_150)));
        assert_eq!(found(0, 0), (0, Moment::NEVER));
    }

    #[test]
    fn the_internal_server_evicts_the_idle_then_those_waiting_for_a_client_then_for_a_handler() {
        let connections = [
            (idle(Awaited::Handler, 1), 'a'),
            (idle(Awaited::Client, 30), 'b'),
            (idle(Awaited::Client, 20), 'c'),
            (idle(Awaited::NextRequest, 900), 'd'),
            (idle(Awaited::NextRequest, 800), 'e'),
            (idle(Awaited::Client, 990), 'f'),
        ];
        let order = |grace| {
            let mut order = evictable(connections, grace, at(1_000), FOUND_MAX).order;
            std::iter::from_fn(|| order.pop()).map(|(_, key)| key).collect::<String>()
        };
        assert_eq!(order(EvictionGrace::INTERNAL), "ecba", "of two that work, one goes in a look");
        assert_eq!(order(EvictionGrace::MAIN), "", "they work, or were idle for too short");
    }

    #[test]
    fn of_many_connections_the_first_to_evict_are_found() {
        let crowd = (0..10_000_u64).rev().map(|key| (idle(Awaited::FirstByte, key), key));
        let mut found = evictable(crowd, EvictionGrace::MAIN, at(20_000), FOUND_MAX);
        assert_eq!(found.order.len(), FOUND_MAX.get());
        assert_eq!(found.order.pop().map(|(_, key)| key), Some(0));
        assert_eq!(found.order.first().map(|(_, key)| *key), Some(63));
    }
}
