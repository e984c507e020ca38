//! Deadlines of the handlers of one worker (P9).
//!
//! All deadlines of a worker share one timer. Most handlers respond in time: their removal leaves
//! the timer as it is, and when it fires it is set to the next deadline.
//!
//! Nearly all requests have the host's timeout, so they arrive in the order of their deadlines and
//! wait in a FIFO: adding and removing one costs a few links. A request with a timeout of its own
//! costs a place in a tree.

use super::{deadline_queue::DeadlineQueue, state::PhaseTokens};
use crate::{lifecycle::Moment, runtime::Clock};
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

/// Maps deadlines to wakers. Waking is a hint: the woken task checks the clock itself.
#[derive(Debug)]
pub(crate) struct DeadlineTimers {
    timers: Mutex<Timers>,
    /// The moment for which the timer is set: at or before the first deadline.
    armed_for: AtomicU64,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Timers {
    in_order: DeadlineQueue,
    out_of_order: BTreeMap<(Moment, u64), Waker>,
    last_id: u64,
}

/// The origin of a timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeoutSource {
    /// The host's timeout, common to all requests: a later request has a later deadline.
    Host,
    /// The request's own timeout.
    Request,
}

/// The place of a waiting handler. The id is never reused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadlineKey {
    pub(crate) deadline: Moment,
    id: u64,
    /// `None`: in the tree.
    node: Option<u32>,
}

impl DeadlineTimers {
    pub(crate) fn new() -> Self {
        Self {
            timers: Mutex::default(),
            armed_for: AtomicU64::new(Moment::NEVER.as_nanos()),
            changed: Notify::new(),
        }
    }

    /// Adds a waiter. `waker` is woken at `deadline`, and at the abort.
    pub(crate) fn wait(
        &self,
        deadline: Moment,
        timeout: TimeoutSource,
        waker: Waker,
    ) -> DeadlineKey {
        let mut timers = self.lock();
        timers.last_id += 1;
        let id = timers.last_id;
        // The deadline was computed before the lock was taken, so it may be slightly out of order.
        let node = if timeout == TimeoutSource::Host && deadline >= timers.in_order.last_deadline()
        {
            Some(timers.in_order.push(deadline, id, waker))
        } else {
            timers.out_of_order.insert((deadline, id), waker);
            None
        };
        if deadline < self.armed_for() {
            self.armed_for.store(deadline.as_nanos(), Relaxed);
            self.changed.notify_one();
        }
        DeadlineKey { deadline, id, node }
    }

    pub(crate) fn remove(&self, key: DeadlineKey) {
        let mut timers = self.lock();
        let waker = match key.node {
            Some(node) => timers.in_order.remove(node, key.id),
            None => timers.out_of_order.remove(&(key.deadline, key.id)),
        };
        drop(timers);
        drop(waker);
    }

    /// Wakes waiters whose deadlines have expired. Runs until it is dropped.
    pub(crate) async fn watch(&self, clock: &dyn Clock, tokens: &PhaseTokens) {
        let mut sleep = clock.sleep_until(self.armed_for());
        // The steps that drop waiters: first ordinary requests, whose step also comes with the one
        // of all.
        let mut requests = pin!(tokens.abort_requests.cancelled());
        let mut cut = pin!(tokens.cut_requests.cancelled());
        let mut all = pin!(tokens.abort.cancelled());
        let (mut aborted, mut was_cut, mut all_aborted) = (false, false, false);
        loop {
            tokio::select! {
                biased;
                () = &mut requests, if !aborted => {
                    aborted = true;
                    self.wake_each();
                }
                () = &mut all, if aborted && !all_aborted => {
                    all_aborted = true;
                    self.wake_all();
                }
                () = &mut cut, if aborted && !was_cut => {
                    was_cut = true;
                    self.wake_each();
                }
                () = self.changed.notified() => sleep.as_mut().reset(self.armed_for()),
                () = sleep.as_mut() => {
                    self.wake_due(clock.now());
                    sleep.as_mut().reset(self.armed_for());
                }
            }
        }
    }

    fn wake_due(&self, now: Moment) {
        let due = {
            let mut timers = self.lock();
            let in_order = timers.in_order.take_due(now);
            // A deadline equal to `now` has expired.
            let later = timers.out_of_order.split_off(&(now, u64::MAX));
            let out_of_order = std::mem::replace(&mut timers.out_of_order, later);
            let next = timers
                .out_of_order
                .first_key_value()
                .map_or(Moment::NEVER, |((deadline, _), _)| *deadline);
            self.armed_for.store(next.min(timers.in_order.first_deadline()).as_nanos(), Relaxed);
            in_order.into_iter().chain(out_of_order.into_values())
        };
        due.for_each(Waker::wake);
    }

    /// Wakes all waiters. They keep their places.
    fn wake_each(&self) {
        let timers = self.lock();
        let in_order = timers.in_order.wakers().cloned();
        let wakers: Vec<Waker> = in_order.chain(timers.out_of_order.values().cloned()).collect();
        drop(timers);
        wakers.into_iter().for_each(Waker::wake);
    }

    fn wake_all(&self) {
        let (in_order, out_of_order) = {
            let mut timers = self.lock();
            (timers.in_order.take_due(Moment::NEVER), std::mem::take(&mut timers.out_of_order))
        };
        in_order.into_iter().chain(out_of_order.into_values()).for_each(Waker::wake);
    }

    fn armed_for(&self) -> Moment {
        Moment::from_nanos(self.armed_for.load(Relaxed))
    }

    fn lock(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::Sleep;
    use std::{
        future::pending,
        pin::Pin,
        sync::{Arc, atomic::AtomicUsize},
        task::Wake,
        time::{SystemTime, UNIX_EPOCH},
    };
    use tokio_util::sync::CancellationToken;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn waiter() -> (Arc<Woken>, Waker) {
        let woken = Arc::new(Woken::default());
        (woken.clone(), woken.into())
    }

    fn at(nanos: u64) -> Moment {
        Moment::from_nanos(nanos)
    }

    #[test]
    fn only_expired_waiters_are_woken() {
        for timeout in [TimeoutSource::Host, TimeoutSource::Request] {
            let deadlines = DeadlineTimers::new();
            let [(early, first), (equal, second), (late, third)] = [waiter(), waiter(), waiter()];
            deadlines.wait(at(20), timeout, second);
            deadlines.wait(at(21), timeout, third);
            deadlines.wait(at(10), timeout, first);
            deadlines.wake_due(at(20));
            assert_eq!(
                [early, equal, late].map(|woken| woken.0.load(Relaxed)),
                [1, 1, 0],
                "{timeout:?}"
            );
            assert_eq!(deadlines.armed_for(), at(21), "the timer is set for who is next");
        }
    }

    #[test]
    fn the_timer_is_set_for_the_earliest_of_both_kinds() {
        for (common, own) in [(10, 20), (20, 10)] {
            let deadlines = DeadlineTimers::new();
            deadlines.wait(at(common), TimeoutSource::Host, waiter().1);
            deadlines.wait(at(own), TimeoutSource::Request, waiter().1);
            assert_eq!(deadlines.armed_for(), at(10));
            deadlines.wake_due(at(10));
            assert_eq!(deadlines.armed_for(), at(20));
            deadlines.wake_due(at(20));
            assert_eq!(deadlines.armed_for(), Moment::NEVER);
        }
    }

    #[test]
    fn a_removed_waiter_is_not_woken_and_sets_no_timer() {
        for timeout in [TimeoutSource::Host, TimeoutSource::Request] {
            let deadlines = DeadlineTimers::new();
            let (woken, waker) = waiter();
            let key = deadlines.wait(at(10), timeout, waker);
            deadlines.remove(key);
            assert_eq!(deadlines.armed_for(), at(10), "the timer stays set");
            deadlines.wake_due(at(10));
            assert_eq!(woken.0.load(Relaxed), 0);
            assert_eq!(deadlines.armed_for(), Moment::NEVER);
        }
    }

    /// A handler was woken at its deadline, responded, and removed its key late. By then another
    /// handler may wait in the same node, and must keep its place.
    #[test]
    fn a_late_removal_does_not_remove_another_waiter() {
        for timeout in [TimeoutSource::Host, TimeoutSource::Request] {
            let deadlines = DeadlineTimers::new();
            let gone = deadlines.wait(at(10), timeout, waiter().1);
            deadlines.wake_all();
            let (woken, waker) = waiter();
            deadlines.wait(at(10), timeout, waker);
            deadlines.remove(gone);
            deadlines.wake_due(at(10));
            assert_eq!(woken.0.load(Relaxed), 1, "{timeout:?}");
        }
    }

    #[test]
    fn waiters_that_are_woken_at_the_abort_of_others_keep_their_places() {
        let deadlines = DeadlineTimers::new();
        let [(own, first), (common, second)] = [waiter(), waiter()];
        deadlines.wait(at(20), TimeoutSource::Request, first);
        deadlines.wait(at(10), TimeoutSource::Host, second);
        deadlines.wake_each();
        deadlines.wake_due(at(20));
        assert_eq!([own, common].map(|woken| woken.0.load(Relaxed)), [2, 2]);
    }

    /// A clock that stands still.
    #[derive(Debug)]
    struct Still;

    impl Clock for Still {
        fn now(&self) -> Moment {
            Moment::EPOCH
        }

        fn sleep_until(&self, _: Moment) -> Pin<Box<dyn Sleep>> {
            Box::pin(pending())
        }

        fn wall(&self) -> SystemTime {
            UNIX_EPOCH
        }
    }

    // A stream of HTTP/2 that waits for its client, on the connection of a long stream, is reset
    // when ordinary requests are cut. Without a wake-up it would wait for its next check, up to a
    // second later (P10).
    #[test]
    fn each_step_that_drops_waiters_wakes_them() {
        let (deadlines, tokens) = (DeadlineTimers::new(), PhaseTokens::default());
        let mut watch = tokio_test::task::spawn(deadlines.watch(&Still, &tokens));
        let (woken, waker) = waiter();
        deadlines.wait(Moment::NEVER, TimeoutSource::Request, waker);
        let mut woken_after = |step: &CancellationToken| {
            step.cancel();
            assert!(watch.poll().is_pending());
            woken.0.load(Relaxed)
        };
        assert_eq!(woken_after(&tokens.abort_requests), 1);
        assert_eq!(woken_after(&tokens.cut_requests), 2);
        assert_eq!(woken_after(&tokens.abort), 3);
    }

    #[test]
    fn at_the_abort_all_are_woken() {
        let deadlines = DeadlineTimers::new();
        let [(own, first), (common, second)] = [waiter(), waiter()];
        deadlines.wait(Moment::NEVER, TimeoutSource::Request, first);
        deadlines.wait(at(10), TimeoutSource::Host, second);
        deadlines.wake_all();
        assert_eq!([own, common].map(|woken| woken.0.load(Relaxed)), [1, 1]);
    }
}
