//! The time for which a handler waits for the body of its request.

use crate::http::server::limits::CLIENT_CHECK_INTERVAL;
use crate::lifecycle::Moment;
use std::{mem, task::Waker, time::Duration};

/// The wait of a handler for bytes of the body. It begins with a poll that returns nothing and ends
/// with the next poll that returns something.
#[derive(Debug)]
pub(super) struct BodyWait {
    /// `NEVER` while the handler does not wait.
    since: Moment,
    /// Bytes that the connection had read then.
    read: u64,
    waker: Option<Waker>,
    poll: Poll,
}

/// Whether the handler still polls the body. It may have dropped the future that read the body;
/// then it does not wait for the client. So before a timeout takes effect the reader is woken and
/// must poll the body once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Poll {
    NotAsked,
    Asked { at: Moment },
    Confirmed,
}

/// Result of a check of the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    TooLong {
        since: Moment,
    },
    /// The next check is due at this moment, or earlier.
    NotYet {
        next_check: Moment,
    },
}

/// Time until the check for whether the woken reader has polled the body again.
pub(crate) const CONFIRM_CHECK: Duration = Duration::from_millis(10);

impl BodyWait {
    pub(super) const fn new() -> Self {
        Self { since: Moment::NEVER, read: 0, waker: None, poll: Poll::NotAsked }
    }

    /// Records a poll of the body that returned nothing. The connection has read `read` bytes.
    /// Returns whether the wait begins with it.
    pub(super) fn begin(&mut self, waker: &Waker, read: u64, now: impl FnOnce() -> Moment) -> bool {
        let begins = !self.is_waiting();
        if begins {
            (self.since, self.read) = (now(), read);
        }
        if matches!(self.poll, Poll::Asked { .. }) {
            self.poll = Poll::Confirmed;
        }
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
        begins
    }

    /// Restarts the wait if a part of a frame has arrived: h2 passes on whole frames only. The
    /// connection has read `read` bytes.
    pub(super) fn on_part(&mut self, read: u64, now: Moment) {
        if self.since != Moment::NEVER && self.read != read {
            (self.since, self.read, self.poll) = (now, read, Poll::NotAsked);
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.since != Moment::NEVER
    }

    /// Makes the wait, if there is one, begin at `since` if it began earlier: until then the client
    /// could not send, or it has sent something since.
    pub(super) fn restart(&mut self, since: Moment) {
        if self.since < since {
            (self.since, self.poll) = (since, Poll::NotAsked);
        }
    }

    /// Ends the wait: bytes have arrived, or the handler does not wait for the client. Returns
    /// whether there was one.
    pub(super) fn end(&mut self) -> bool {
        mem::replace(self, Self::new()).is_waiting()
    }

    /// Checks the wait at `now`. `gives_up` maps the beginning of the wait to the moment at which
    /// the client has timed out.
    pub(super) fn check(&mut self, now: Moment, gives_up: impl FnOnce(Moment) -> Moment) -> Waited {
        let check = now + CLIENT_CHECK_INTERVAL;
        if self.since == Moment::NEVER {
            return Waited::NotYet { next_check: check };
        }
        let until = gives_up(self.since);
        if now < until {
            return Waited::NotYet { next_check: until.min(check) };
        }
        match self.poll {
            Poll::Confirmed => return Waited::TooLong { since: self.since },
            Poll::NotAsked => {
                self.poll = Poll::Asked { at: now };
                if let Some(waker) = &self.waker {
                    waker.wake_by_ref();
                }
            }
            Poll::Asked { at } if now < at + CLIENT_CHECK_INTERVAL => {}
            Poll::Asked { .. } => {
                self.end();
            }
        }
        Waited::NotYet { next_check: now + CONFIRM_CHECK }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::EPOCH + Duration::from_millis(millis)
    }

    fn check(wait: &mut BodyWait, now: u64) -> Waited {
        wait.check(at(now), |since| since + Duration::from_secs(30))
    }

    #[test]
    fn a_reading_handler_is_woken_once_more_before_its_client_times_out() {
        let mut wait = BodyWait::new();
        assert_eq!(check(&mut wait, 0), Waited::NotYet { next_check: at(1_000) }, "nothing waits");
        wait.begin(Waker::noop(), 0, || at(500));
        wait.begin(Waker::noop(), 0, || at(20_000));
        assert_eq!(check(&mut wait, 30_000), Waited::NotYet { next_check: at(30_500) });
        assert_eq!(check(&mut wait, 30_500), Waited::NotYet { next_check: at(30_510) });
        wait.begin(Waker::noop(), 0, || at(30_500));
        assert_eq!(check(&mut wait, 30_500), Waited::TooLong { since: at(500) });
    }

    #[test]
    fn bytes_restart_the_wait() {
        let mut wait = BodyWait::new();
        wait.begin(Waker::noop(), 0, || at(0));
        assert_eq!(check(&mut wait, 30_000), Waited::NotYet { next_check: at(30_010) });
        wait.end();
        wait.begin(Waker::noop(), 0, || at(30_000));
        assert_eq!(check(&mut wait, 59_990), Waited::NotYet { next_check: at(60_000) });
    }

    #[test]
    fn a_handler_that_does_not_read_any_more_does_not_wait_for_its_client() {
        // The handler read the body with its own time limit, stopped reading, and now does other
        // work.
        let mut wait = BodyWait::new();
        wait.begin(Waker::noop(), 0, || at(0));
        assert_eq!(check(&mut wait, 30_000), Waited::NotYet { next_check: at(30_010) });
        assert_eq!(check(&mut wait, 30_010), Waited::NotYet { next_check: at(30_020) });
        assert_eq!(check(&mut wait, 31_000), Waited::NotYet { next_check: at(31_010) });
        assert_eq!(check(&mut wait, 90_000), Waited::NotYet { next_check: at(91_000) });
    }
}
