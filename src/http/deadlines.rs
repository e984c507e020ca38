//! The handlers of one worker that wait, and when each must have answered (P9).
//!
//! They wait behind one timer. Most deadlines are met: the timer stays set for one that was, and when it is due it finds out which
//! comes next. So a request that waits costs a place in a tree, and a timer only if its deadline comes before all others.

use super::side::Side;
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
    wakers: BTreeMap<Place, Waker>,
    taken: u64,
}

/// Where a handler waits: by its deadline, and among equals by the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) deadline: Moment,
    number: u64,
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self { places: Mutex::default(), set_for: AtomicU64::new(Moment::NEVER.as_nanos()), changed: Notify::new() }
    }

    /// Whoever `waker` wakes is woken at `deadline`, and at the abort.
    pub(crate) fn wait(&self, deadline: Moment, waker: Waker) -> Place {
        let mut places = self.lock();
        places.taken += 1;
        let place = Place { deadline, number: places.taken };
        places.wakers.insert(place, waker);
        if deadline < self.set_for() {
            self.set_for.store(deadline.as_nanos(), Relaxed);
            self.changed.notify_one();
        }
        place
    }

    pub(crate) fn leave(&self, place: Place) {
        let waker = self.lock().wakers.remove(&place);
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
            // Who is due at this very moment is due.
            let later = places.wakers.split_off(&Place { deadline: now, number: u64::MAX });
            let due = std::mem::replace(&mut places.wakers, later);
            let next = places.wakers.first_key_value().map_or(Moment::NEVER, |(place, _)| place.deadline);
            self.set_for.store(next.as_nanos(), Relaxed);
            due
        };
        due.into_values().for_each(Waker::wake);
    }

    fn wake_all(&self) {
        let all = std::mem::take(&mut self.lock().wakers);
        all.into_values().for_each(Waker::wake);
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
        let deadlines = Deadlines::new();
        let [(early, first), (equal, second), (late, third)] = [sleeper(), sleeper(), sleeper()];
        deadlines.wait(at(20), second);
        deadlines.wait(at(21), third);
        deadlines.wait(at(10), first);
        deadlines.wake_due(at(20));
        assert_eq!([early, equal, late].map(|woken| woken.0.load(Relaxed)), [1, 1, 0]);
        assert_eq!(deadlines.set_for(), at(21), "the timer is set for who is next");
    }

    #[test]
    fn who_left_is_not_woken_and_costs_no_timer() {
        let deadlines = Deadlines::new();
        let (woken, waker) = sleeper();
        let place = deadlines.wait(at(10), waker);
        deadlines.leave(place);
        assert_eq!(deadlines.set_for(), at(10), "the timer stays set");
        deadlines.wake_due(at(10));
        assert_eq!(woken.0.load(Relaxed), 0);
        assert_eq!(deadlines.set_for(), Moment::NEVER);
    }

    #[test]
    fn at_the_abort_all_are_woken() {
        let deadlines = Deadlines::new();
        let (woken, waker) = sleeper();
        deadlines.wait(Moment::NEVER, waker);
        deadlines.wake_all();
        assert_eq!(woken.0.load(Relaxed), 1);
    }
}
