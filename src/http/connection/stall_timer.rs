//! Detection of clients that make no progress while the server waits for them (P6, P15). Time that
//! a handler takes does not count.

use crate::lifecycle::Moment;
use std::time::Duration;

/// The client's state at its last progress; `None` while the server does not wait for the client.
#[derive(Debug, Default)]
pub(super) struct StallTimer(Option<(ProgressSample, Moment)>);

/// Values that show a client's progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ProgressSample {
    /// Each grows as the client makes progress.
    pub(super) moved: [u64; 2],
    /// Bytes that the client has not acknowledged, if the kernel was queried since the last write.
    /// A decrease is progress.
    pub(super) unacknowledged: Option<u64>,
}

impl StallTimer {
    /// Stops the timer: the server does not wait for the client.
    pub(crate) fn reset(&mut self) {
        self.0 = None;
    }

    /// Records a sample while the server waits for the client. Returns when a sample last showed
    /// progress.
    pub(super) fn last_progress(&mut self, sample: ProgressSample, now: Moment) -> Moment {
        let (last, at) = self.0.get_or_insert((sample, now));
        let has_acknowledged = match (last.unacknowledged, sample.unacknowledged) {
            (Some(before), Some(unacknowledged)) => unacknowledged < before,
            // What it acknowledged before the first query is unknown. So its time begins here.
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if sample.moved != last.moved || has_acknowledged {
            *at = now;
        }
        *last = sample;
        *at
    }
}

/// Whether the client of an idle connection has received what was sent; megabytes of it may still
/// be in the kernel. The kernel is queried once, a send timeout after the last response. It is
/// queried again after each further send timeout in which the client acknowledged a part of the
/// rest.
#[derive(Debug, Default)]
pub(super) enum Delivery {
    #[default]
    Unknown,
    Done,
    /// The bytes that were not acknowledged at this moment.
    Waiting(Box<(u64, Moment)>),
}

impl Delivery {
    /// Returns when to query the kernel about a connection that is idle since `since`; `NEVER` if
    /// everything was acknowledged.
    pub(crate) fn next_check(&self, since: Moment, timeout: Duration) -> Moment {
        match self {
            Self::Unknown => since + timeout,
            Self::Done => Moment::NEVER,
            Self::Waiting(waiting) => waiting.1 + timeout,
        }
    }

    /// Records the result of a query. Returns whether the client is given up.
    pub(super) fn expired(&mut self, unacknowledged: u64, now: Moment) -> bool {
        match self {
            _ if unacknowledged == 0 => *self = Self::Done,
            Self::Waiting(waiting) if unacknowledged >= waiting.0 => return true,
            Self::Unknown | Self::Done | Self::Waiting(_) => {
                *self = Self::Waiting(Box::new((unacknowledged, now)));
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn every_sign_is_progress_and_more_that_is_unacknowledged_is_none() {
        let mut stall_timer = StallTimer::default();
        let mut sample = ProgressSample { moved: [0, 0], unacknowledged: Some(10) };
        assert_eq!(stall_timer.last_progress(sample, at(0)), at(0));
        sample.moved[0] = 1;
        assert_eq!(stall_timer.last_progress(sample, at(5)), at(5));
        sample.moved[1] = 1;
        assert_eq!(stall_timer.last_progress(sample, at(10)), at(10));
        sample.unacknowledged = Some(9);
        assert_eq!(stall_timer.last_progress(sample, at(15)), at(15));
        sample.unacknowledged = Some(11);
        assert_eq!(stall_timer.last_progress(sample, at(19)), at(15));
        stall_timer.reset();
        assert_eq!(stall_timer.last_progress(sample, at(20)), at(20));
    }

    // A first query was compared with a number from before the bytes that waited, or with none. A
    // client that received a part of them, and had a short timeout, was cut (P15).
    #[test]
    fn what_was_acknowledged_before_the_first_query_is_unknown() {
        let mut stall_timer = StallTimer::default();
        let mut sample = ProgressSample { moved: [0, 5], unacknowledged: None };
        assert_eq!(stall_timer.last_progress(sample, at(0)), at(0));
        assert_eq!(stall_timer.last_progress(sample, at(1)), at(0));
        sample.unacknowledged = Some(90);
        assert_eq!(stall_timer.last_progress(sample, at(2)), at(2));
        assert_eq!(stall_timer.last_progress(sample, at(3)), at(2));
        sample = ProgressSample { moved: [0, 6], unacknowledged: None };
        assert_eq!(stall_timer.last_progress(sample, at(4)), at(4));
        sample.unacknowledged = Some(95);
        assert_eq!(stall_timer.last_progress(sample, at(5)), at(5));
        assert_eq!(stall_timer.last_progress(sample, at(9)), at(5));
    }

    #[test]
    fn a_client_that_acknowledges_nothing_between_two_checks_is_given_up() {
        let timeout = Duration::from_secs(30);
        let mut delivery = Delivery::default();
        assert_eq!(delivery.next_check(at(10), timeout), at(40));
        assert!(!delivery.expired(900, at(40)));
        assert_eq!(delivery.next_check(at(10), timeout), at(70));
        assert!(!delivery.expired(800, at(70)), "it reads slowly");
        assert!(delivery.expired(800, at(100)));
        assert!(!delivery.expired(0, at(100)));
        assert_eq!(delivery.next_check(at(10), timeout), Moment::NEVER);
    }
}
