//! When a connection announces its close in the lame duck delay (P4). One policy for both
//! protocols, without I/O and without a clock.
//!
//! ```text
//!  stop request                                          last tenth    drain
//!  ├────────────────────────────────────────────────────────┼───────────┤
//!  opened before, HTTP/1: with its first response           │ with every
//!  opened before, HTTP/2: at a seeded moment in here        │ response
//!        opened here: at a seeded moment of what is left,   │
//!                     after its first response              │
//! ```
//!
//! HTTP/1 announces with `Connection: close` on the first response from that moment on, HTTP/2 with
//! one graceful GOAWAY at that moment. A connection that is not used meanwhile gets no
//! announcement. It is closed as idle, and counted as `unannounced`.
//!
//! In a short delay the last 250 ms replace the last tenth, and below 500 ms the second half does:
//! the announcement must reach far clients before the drain.
//!
//! Before the delay only a connection that has reached the age limit announces: HTTP/1 with its
//! next response, HTTP/2 at that moment. So does one whose transport cannot send much more. The
//! limit of each connection is drawn from the last tenth of the setting, so that connections that
//! were opened together do not end together. After the delay everything announces, which the caller
//! implements.

use crate::lifecycle::Moment;
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The lame duck delay of a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LameDuck {
    since: Moment,
    /// From this moment on every response announces. A request that follows a response without an
    /// announcement arrives a round trip later, and must not arrive in the drain.
    last_part: Moment,
}

/// The least time for the announcement to reach a client, and for a request that crosses it to
/// arrive: the round trip of a far client.
const LAST_PART_LEAST: Duration = Duration::from_millis(250);

impl LameDuck {
    /// Returns the delay that begins with the stop request, at `since`.
    pub(super) fn new(since: Moment, delay: Duration) -> Self {
        let last_part = (delay / 10).max(LAST_PART_LEAST.min(delay / 2));
        Self { since, last_part: since + (delay - last_part) }
    }

    /// Returns a moment between `from` and the last part, chosen by `jitter`. In the last part it
    /// is `from`.
    fn spread(self, from: Moment, jitter: u64) -> Moment {
        let from = from.max(self.since);
        let left = u128::from(nanos(self.last_part.since(from)));
        let part = u64::try_from((left * u128::from(jitter)) >> 64).unwrap_or(0);
        from + Duration::from_nanos(part)
    }
}

/// The announcement of one connection. Eight bytes, since each idle connection keeps one.
///
/// An even number is the moment of the age limit of a connection that was opened before the stop
/// request, 0 if there is no limit. An odd one is the moment of a connection that was opened in the
/// delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Announcement(u64);

impl Announcement {
    /// The announcement of a connection that was opened before the stop request and has no age
    /// limit.
    pub(crate) const OPENED_BEFORE: Self = Self(0);

    /// The announcement of a connection that has reached its age limit.
    const AGED: Self = Self(2);

    /// The announcement of a connection that is opened before a stop request, at `opened`, and
    /// lives for at most about `age_max`.
    pub(super) fn aging(opened: Moment, age_max: Duration, jitter: u64) -> Self {
        let tenth = u128::from(nanos(age_max / 10));
        let earlier = u64::try_from((tenth * u128::from(jitter)) >> 64).unwrap_or(0);
        let limit = (opened + age_max).as_nanos().saturating_sub(earlier);
        Self((limit & !1).max(2))
    }

    /// The announcement of a connection that is opened in the delay, at `opened`.
    pub(super) fn opened_in(delay: LameDuck, opened: Moment, jitter: u64) -> Self {
        Self(delay.spread(opened, jitter).as_nanos() | 1)
    }

    const fn opened_in_moment(self) -> Moment {
        Moment::from_nanos(self.0 & !1)
    }

    const fn is_opened_before(self) -> bool {
        self.0 & 1 == 0
    }

    /// Returns when the connection reaches its age limit; `NEVER` if it has none.
    pub(crate) const fn aged_at(self) -> Moment {
        if self.0 != 0 && self.is_opened_before() {
            Moment::from_nanos(self.0)
        } else {
            Moment::NEVER
        }
    }

    /// Whether an HTTP/1 response whose head is ready at `now` announces the close. `responded`:
    /// the connection has sent a response since the stop request.
    pub(crate) fn is_due(self, delay: LameDuck, now: Moment, responded: bool) -> bool {
        self.is_opened_before()
            || now >= delay.last_part
            || (responded && now >= self.opened_in_moment())
    }

    /// Returns the moment at which an HTTP/2 connection sends its GOAWAY. A connection that was
    /// opened in the delay and has not `responded` waits for its first response, or for the end of
    /// the delay.
    pub(crate) fn goaway_at(self, delay: LameDuck, jitter: u64, responded: bool) -> Moment {
        match (self.is_opened_before(), responded) {
            (true, _) => delay.spread(delay.since, jitter),
            (false, true) => self.opened_in_moment(),
            (false, false) => Moment::NEVER,
        }
    }
}

/// The announcement of a connection that a protocol state shares.
#[derive(Debug)]
pub(crate) struct SharedAnnouncement(AtomicU64);

impl SharedAnnouncement {
    pub(crate) const fn new(announcement: Announcement) -> Self {
        Self(AtomicU64::new(announcement.0))
    }

    pub(crate) fn get(&self) -> Announcement {
        Announcement(self.0.load(Relaxed))
    }

    pub(crate) fn set(&self, announcement: Announcement) {
        self.0.store(announcement.0, Relaxed);
    }

    /// From now on the connection counts as one that has reached its age limit.
    pub(crate) fn set_aged(&self) {
        self.set(Announcement::AGED);
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Announcement, LameDuck};
    use crate::{lifecycle::Moment, runtime::Seed};
    use proptest::prelude::*;
    use std::time::Duration;

    const fn at(ms: u64) -> Moment {
        Moment::from_nanos(ms * 1_000_000)
    }

    /// A stop at 1 s with a delay of 10 s: the last tenth begins at 10 s.
    fn delay() -> LameDuck {
        LameDuck::new(at(1_000), Duration::from_secs(10))
    }

    const HALF: u64 = 1 << 63;

    // Connections that were opened in the delay got their GOAWAY at once, because their moment was
    // computed from the stop request: 41 of 58 within 10 ms. On HTTP/1 every response closed its
    // connection, so each request of the delay opened a new one.
    #[test]
    fn each_kind_of_connection_announces_at_its_moment() {
        let (before, early, late, last) = (
            Announcement::OPENED_BEFORE,
            // Half way between 2 and 10 s.
            Announcement::opened_in(delay(), at(2_000), HALF),
            // Half way between 9 and 10 s.
            Announcement::opened_in(delay(), at(9_000), HALF),
            Announcement::opened_in(delay(), at(10_500), HALF),
        );
        let http1 = [
            // connection, now, whether it has responded, whether it announces
            (before, 1_000, false, true),
            (before, 1_000, true, true),
            (before, 10_500, false, true),
            (early, 2_000, false, false),
            (early, 2_000, true, false),
            (early, 5_999, true, false),
            (early, 6_000, false, false),
            (early, 6_000, true, true),
            (early, 9_999, false, false),
            (early, 9_999, true, true),
            (early, 10_000, false, true),
            (early, 10_000, true, true),
            (late, 9_000, false, false),
            (late, 9_000, true, false),
            (late, 9_500, false, false),
            (late, 9_500, true, true),
            (late, 10_000, false, true),
            (last, 10_500, false, true),
            (last, 10_999, true, true),
            // Past the end of the delay, while the drain is not published yet.
            (early, 12_000, false, true),
        ];
        for (connection, now, responded, due) in http1 {
            let is_due = connection.is_due(delay(), at(now), responded);
            assert_eq!(is_due, due, "{connection:?} {now} {responded}");
        }
        let http2 = [
            (before, 0, false, at(1_000)),
            (before, 0, true, at(1_000)),
            (before, HALF, false, at(5_500)),
            (before, HALF, true, at(5_500)),
            (early, 0, false, Moment::NEVER),
            (early, 0, true, at(6_000)),
            (late, HALF, false, Moment::NEVER),
            (late, HALF, true, at(9_500)),
            (last, HALF, false, Moment::NEVER),
            (last, HALF, true, at(10_500)),
        ];
        for (connection, jitter, responded, moment) in http2 {
            let goaway_at = connection.goaway_at(delay(), jitter, responded);
            assert_eq!(goaway_at, moment, "{connection:?} {jitter} {responded}");
        }
    }

    // With a delay of 1 s the last tenth is shorter than a round trip of 100 ms. The next request
    // of such a client arrived after the drain had begun.
    #[test]
    fn the_last_part_of_a_short_delay_leaves_time_for_a_round_trip() {
        for (delay_ms, from_ms) in [
            (5_000, 4_500),
            (2_500, 2_250),
            (2_000, 1_750),
            (1_000, 750),
            (300, 150),
            (10, 5),
            (0, 0),
        ] {
            let delay = LameDuck::new(at(1_000), Duration::from_millis(delay_ms));
            assert_eq!(delay.last_part, at(1_000 + from_ms), "{delay_ms} ms");
        }
    }

    #[test]
    fn without_a_delay_every_response_announces() {
        let none = LameDuck::new(at(1_000), Duration::ZERO);
        for connection in
            [Announcement::OPENED_BEFORE, Announcement::opened_in(none, at(1_000), u64::MAX)]
        {
            for responded in [false, true] {
                assert!(connection.is_due(none, at(1_000), responded));
            }
            assert_eq!(connection.goaway_at(none, u64::MAX, true), at(1_000));
        }
    }

    #[test]
    fn a_stop_at_the_epoch_distinguishes_connections_opened_before_and_after_it() {
        let delay = LameDuck::new(Moment::EPOCH, Duration::from_secs(1));
        let late = Announcement::opened_in(delay, Moment::EPOCH, 0);
        assert!(!late.is_due(delay, Moment::EPOCH, false));
        assert_eq!(late.goaway_at(delay, 0, false), Moment::NEVER);
    }

    #[test]
    fn an_age_limit_is_in_the_last_tenth_of_the_setting_and_a_stop_comes_first() {
        let age_max = Duration::from_secs(100);
        let mut limits: Vec<_> = (0..100)
            .map(|n| Announcement::aging(at(1_000), age_max, Seed(7).nth(n)).aged_at())
            .collect();
        limits.sort_unstable();
        assert!(limits[0] >= at(91_000) && limits[99] <= at(101_000), "{limits:?}");
        assert!(limits[0] < at(92_000) && limits[99] > at(100_000), "spread: {limits:?}");
        let aging = Announcement::aging(at(0), age_max, 0);
        assert!(aging.is_due(delay(), at(1_000), false), "a stop: with the first response");
        assert_eq!(aging.goaway_at(delay(), HALF, false), at(5_500));
        assert_eq!(Announcement::OPENED_BEFORE.aged_at(), Moment::NEVER);
        assert_eq!(Announcement::opened_in(delay(), at(2_000), 0).aged_at(), Moment::NEVER);
        let soon = Announcement::aging(Moment::EPOCH, Duration::from_nanos(1), 0);
        assert!(soon.aged_at() < at(1), "a limit is a limit: {soon:?}");
    }

    #[test]
    fn connections_that_are_opened_together_announce_apart() {
        for opened in [1_000, 3_000, 9_000] {
            let left = 10_000 - opened;
            let mut tokens: Vec<u64> = (0..100)
                .map(|n| Announcement::opened_in(delay(), at(opened), Seed(7).nth(n)))
                .map(|connection| connection.goaway_at(delay(), 0, true).as_nanos() / 1_000_000)
                .collect();
            tokens.sort_unstable();
            // Each fifth of the remaining time has its share, which is twenty on average.
            for fifth in 0..5 {
                let (from, to) = (opened + left * fifth / 5, opened + left * (fifth + 1) / 5);
                let count = tokens.iter().filter(|moment| (from..to).contains(moment)).count();
                assert!((8..=34).contains(&count), "{count} of 100 in {from}..{to}: {tokens:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn moments_are_within_what_is_left_and_never_move_back(
            stop in 0_u64..10_000,
            delay_ms in 0_u64..100_000,
            opened_after in 0_u64..120_000,
            jitter: u64,
            now_after in 0_u64..120_000,
            more in 0_u64..1_000,
        ) {
            let delay = LameDuck::new(at(stop), Duration::from_millis(delay_ms));
            let least = (delay_ms / 10).max(250.min(delay_ms / 2));
            let last_part = at(stop + delay_ms - least);
            let opened = at(stop + opened_after);
            let late = Announcement::opened_in(delay, opened, jitter);
            let moment = late.goaway_at(delay, jitter, true);
            prop_assert!(moment >= opened && moment <= opened.max(last_part) + MILLI);
            let before = Announcement::OPENED_BEFORE.goaway_at(delay, jitter, false);
            prop_assert!(before >= at(stop) && before <= last_part + MILLI);
            // A connection that announces continues to announce. A first response announces only in
            // the last part.
            let (now, then) = (at(stop + now_after), at(stop + now_after + more));
            for responded in [false, true] {
                for connection in [Announcement::OPENED_BEFORE, late] {
                    let (is, will) = (
                        connection.is_due(delay, now, responded),
                        connection.is_due(delay, then, true),
                    );
                    prop_assert!(!is || will);
                    prop_assert!(is || now < last_part + MILLI);
                }
            }
            prop_assert!(!late.is_due(delay, now, false) || now + MILLI >= last_part);
            prop_assert_eq!(late.is_due(delay, now, true), now >= moment || now >= delay.last_part);
        }
    }

    /// Tolerance for the rounding of the expected values.
    const MILLI: Duration = Duration::from_millis(1);
}
