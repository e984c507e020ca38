//! The time that a client may make no progress with a response or a request body (P6, P15).

use super::limits::{Limits, PROGRESS_WAIT};
use crate::lifecycle::{Moment, Phase};
use std::time::Duration;

/// The wait that a client exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientTimeout {
    Send,
    Body,
}

impl ClientTimeout {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Body => "body",
        }
    }

    pub(super) const fn limit(self, limits: &Limits) -> Duration {
        match self {
            Self::Send => limits.send_timeout,
            Self::Body => limits.body_timeout,
        }
    }

    /// The limit that applies in this phase.
    pub(super) fn limit_in(self, phase: Phase, limits: &Limits) -> Duration {
        let limit = self.limit(limits);
        if phase >= Phase::Draining { limit.min(PROGRESS_WAIT) } else { limit }
    }
}

/// Returns the moment at which a client without progress since `since` is given up: after
/// `timeout`, or in the drain after 5 s of it, whichever is earlier.
pub(super) fn gives_up(since: Moment, timeout: Duration, draining_since: Moment) -> Moment {
    let timed_out = since + timeout;
    if draining_since == Moment::NEVER {
        return timed_out;
    }
    timed_out.min(since.max(draining_since) + PROGRESS_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn the_timeout_applies_while_serving_and_at_most_five_seconds_of_it_in_the_drain() {
        // The 5 s limit applied only in the drain. While serving, 300 clients that read nothing
        // held a gigabyte indefinitely.
        let half_a_minute = Duration::from_secs(30);
        for (since, timeout, draining_since, until) in [
            (at(10), half_a_minute, Moment::NEVER, at(40)),
            (at(10), half_a_minute, at(20), at(25)),
            (at(10), half_a_minute, at(38), at(40)),
            (at(22), half_a_minute, at(20), at(27)),
            (at(22), Duration::from_secs(1), at(20), at(23)),
        ] {
            assert_eq!(
                gives_up(since, timeout, draining_since),
                until,
                "{since:?} {draining_since:?}"
            );
        }
    }

    // Of a client that was given up after 5 s of the drain, the log said that it had had 30 s
    // (P13).
    #[test]
    fn the_limit_that_is_logged_is_that_of_the_phase() {
        let limits = Limits::default();
        let seconds = |phase| ClientTimeout::Send.limit_in(phase, &limits).as_secs();
        assert_eq!([Phase::Serving, Phase::LameDuck, Phase::Draining].map(seconds), [30, 30, 5]);
    }
}
