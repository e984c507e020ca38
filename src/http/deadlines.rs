//! The handlers of one worker that wait, and when each must have answered (P9).
//!
//! They wait behind one timer. Most deadlines are met: the timer stays set for one that was, and when it is due it finds out which
//! comes next. So a request that waits costs a place in a tree, and a timer only if its deadline comes before all others.

use super::side::Side;
use crate::{env::Clock, lifecycle::Moment};
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
                    self.wake_due(clock);
                    sleep.as_mut().reset(self.set_for());
                }
            }
        }
    }

    fn wake_due(&self, clock: &dyn Clock) {
        let now = clock.now();
        let due = {
            let mut places = self.lock();
            // Of a moment that is not over yet nobody is left out: `number` starts at one.
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
