//! The handlers of one worker that wait, and when each must have answered (P9).
//!
//! They wait behind one timer. Most deadlines are met: the timer stays set for one that was, and when it is due it finds out which
//! comes next. Nearly all have the host's timeout, so they come in the order in which they are due, and stand in line: to wait and to
//! leave costs a few links. A deadline of a request's own costs a place in a tree.

use super::{line::Line, side::Side};
use crate::lifecycle::Moment;
use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};
use tokio::sync::Notify;

/// Whom to wake when. The clock decides whether a deadline has passed; here nobody is judged, only woken.
#[derive(Debug)]
pub(crate) struct Deadlines {
    places: Mutex<Places>,
    /// What the timer is set for: no later than the first deadline.
    set_for: AtomicU64,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Places {
    in_line: Line,
    apart: BTreeMap<(Moment, u64), Waker>,
    taken: u64,
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timeout {
    /// Every request's: who comes later is due later.
    Common,
    /// This request's own.
    Own,
}

/// Where a handler waits. Nobody else ever has its number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) deadline: Moment,
    number: u64,
    /// `None`: apart.
    seat: Option<u32>,
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self { places: Mutex::default(), set_for: AtomicU64::new(Moment::NEVER.as_nanos()), changed: Notify::new() }
    }

    /// Whoever `waker` wakes is woken at `deadline`, and at the abort.
    pub(crate) fn wait(&self, deadline: Moment, timeout: Timeout, waker: Waker) -> Place {
        let mut places = self.lock();
        places.taken += 1;
        let number = places.taken;
        // What was read of the clock before the lock may be out of order, by a little.
        let seat = if timeout == Timeout::Common && deadline >= places.in_line.last_deadline() {
            Some(places.in_line.join(deadline, number, waker))
        } else {
            places.apart.insert((deadline, number), waker);
            None
        };
        if deadline < self.set_for() {
            self.set_for.store(deadline.as_nanos(), Relaxed);
            self.changed.notify_one();
        }
        Place { deadline, number, seat }
    }

    pub(crate) fn leave(&self, place: Place) {
        let mut places = self.lock();
        let waker = match place.seat {
            Some(seat) => places.in_line.leave(seat, place.number),
            None => places.apart.remove(&(place.deadline, place.number)),
        };
        drop(places);
        drop(waker);
    }

    /// Wakes who is due, for as long as it is polled.
    pub(crate) async fn watch(&self, side: &Side) {
        let clock = &*side.clock;
        let mut sleep = clock.sleep_until(self.set_for());
        let mut abort = pin!(side.moments.abort.cancelled());
        let mut aborted = false;
        loop {
            tokio::select! {
                biased;
                () = &mut abort, if !aborted => {
                    aborted = true;
                    self.wake_all();
                }
                () = self.changed.notified() => sleep.as_mut().reset(self.set_for()),
                () = sleep.as_mut() => {
                    self.wake_due(clock.now());
                    sleep.as_mut().reset(self.set_for());
                }
            }
        }
    }

    fn wake_due(&self, now: Moment) {
        let due = {
            let mut places = self.lock();
            let in_line = places.in_line.take_due(now);
            // Who is due at this very moment is due.
            let later = places.apart.split_off(&(now, u64::MAX));
            let apart = std::mem::replace(&mut places.apart, later);
            let next = places.apart.first_key_value().map_or(Moment::NEVER, |((deadline, _), _)| *deadline);
            self.set_for.store(next.min(places.in_line.first_deadline()).as_nanos(), Relaxed);
            in_line.into_iter().chain(apart.into_values())
        };
        due.for_each(Waker::wake);
    }

    fn wake_all(&self) {
        let (in_line, apart) = {
            let mut places = self.lock();
            (places.in_line.take_due(Moment::NEVER), std::mem::take(&mut places.apart))
        };
        in_line.into_iter().chain(apart.into_values()).for_each(Waker::wake);
    }

    fn set_for(&self) -> Moment {
        Moment::from_nanos(self.set_for.load(Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        sync::{Arc, atomic::AtomicUsize},
        task::Wake,
    };

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn sleeper() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken::default());
        (woken.clone(), woken.into())
    }

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(nanos)
    }

    #[test]
    fn who_is_due_is_woken_and_nobody_else() {
        for timeout in [Timeout::Common, Timeout::Own] {
            let deadlines = Deadlines::new();
            let [(early, first), (equal, second), (late, third)] = [sleeper(), sleeper(), sleeper()];
            deadlines.wait(at(20), timeout, second);
            deadlines.wait(at(21), timeout, third);
            deadlines.wait(at(10), timeout, first);
            deadlines.wake_due(at(20));
            assert_eq!([early, equal, late].map(|woken| woken.0.load(Relaxed)), [1, 1, 0], "{timeout:?}");
            assert_eq!(deadlines.set_for(), at(21), "the timer is set for who is next");
        }
    }

    #[test]
    fn the_timer_is_set_for_the_first_of_both_kinds() {
        for (common, own) in [(10, 20), (20, 10)] {
            let deadlines = Deadlines::new();
            deadlines.wait(at(common), Timeout::Common, sleeper().1);
            deadlines.wait(at(own), Timeout::Own, sleeper().1);
            assert_eq!(deadlines.set_for(), at(10));
            deadlines.wake_due(at(10));
            assert_eq!(deadlines.set_for(), at(20));
            deadlines.wake_due(at(20));
            assert_eq!(deadlines.set_for(), Moment::NEVER);
        }
    }

    #[test]
    fn who_left_is_not_woken_and_costs_no_timer() {
        for timeout in [Timeout::Common, Timeout::Own] {
            let deadlines = Deadlines::new();
            let (woken, waker) = sleeper();
            let place = deadlines.wait(at(10), timeout, waker);
            deadlines.leave(place);
            assert_eq!(deadlines.set_for(), at(10), "the timer stays set");
            deadlines.wake_due(at(10));
            assert_eq!(woken.0.load(Relaxed), 0);
            assert_eq!(deadlines.set_for(), Moment::NEVER);
        }
    }

    /// Who was woken finds out that it is late, answers, and leaves: by then another may wait where it did.
    #[test]
    fn who_leaves_late_takes_nobody_elses_place() {
        for timeout in [Timeout::Common, Timeout::Own] {
            let deadlines = Deadlines::new();
            let gone = deadlines.wait(at(10), timeout, sleeper().1);
            deadlines.wake_all();
            let (woken, waker) = sleeper();
            deadlines.wait(at(10), timeout, waker);
            deadlines.leave(gone);
            deadlines.wake_due(at(10));
            assert_eq!(woken.0.load(Relaxed), 1, "{timeout:?}");
        }
    }

    #[test]
    fn at_the_abort_all_are_woken() {
        let deadlines = Deadlines::new();
        let [(own, first), (common, second)] = [sleeper(), sleeper()];
        deadlines.wait(Moment::NEVER, Timeout::Own, first);
        deadlines.wait(at(10), Timeout::Common, second);
        deadlines.wake_all();
        assert_eq!([own, common].map(|woken| woken.0.load(Relaxed)), [1, 1]);
    }
}
