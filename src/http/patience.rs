//! How long a client that we wait for in the drain may stand still (P6). What a handler takes is not the client's fault.

use super::limits::PROGRESS_WAIT;
use crate::lifecycle::Moment;

/// How far a client was when it last got further; `None` while nobody waits for it.
#[derive(Debug, Default)]
pub(crate) struct Patience(Option<(Signs, Moment)>);

/// What shows that a client gets further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Signs {
    /// Each grows as the client moves.
    pub(crate) moved: [u64; 2],
    /// Bytes that it has not acknowledged: fewer than before are a sign, more are none.
    pub(crate) unacknowledged: u64,
}

impl Patience {
    /// The client is not waited for.
    pub(crate) fn rest(&mut self) {
        self.0 = None;
    }

    /// Whether the client, which is waited for, has not moved for too long.
    pub(crate) fn is_over(&mut self, signs: Signs, now: Moment) -> bool {
        let (last, at) = self.0.get_or_insert((signs, now));
        if signs.moved != last.moved || signs.unacknowledged < last.unacknowledged {
            *at = now;
        }
        *last = signs;
        now.since(*at) >= PROGRESS_WAIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn every_sign_renews_it_and_more_that_is_unacknowledged_is_none() {
        let mut patience = Patience::default();
        let mut signs = Signs { moved: [0, 0], unacknowledged: 10 };
        assert!(!patience.is_over(signs, at(0)));
        signs.moved[0] = 1;
        assert!(!patience.is_over(signs, at(5)));
        signs.moved[1] = 1;
        assert!(!patience.is_over(signs, at(10)));
        signs.unacknowledged = 9;
        assert!(!patience.is_over(signs, at(15)));
        signs.unacknowledged = 11;
        assert!(!patience.is_over(signs, at(19)));
        assert!(patience.is_over(signs, at(20)));
    }

    #[test]
    fn a_rest_begins_it_anew() {
        let mut patience = Patience::default();
        let signs = Signs { moved: [0, 0], unacknowledged: 0 };
        assert!(!patience.is_over(signs, at(0)));
        patience.rest();
        assert!(!patience.is_over(signs, at(6)));
        assert!(patience.is_over(signs, at(11)));
    }
}
