//! The connection limit across workers. It is one for all, but only a connection's own worker can
//! close it to make room.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};
use tokio::sync::Notify;

/// Shared by the workers of a server, for the time at which its connection limit is reached.
#[derive(Debug, Default)]
pub(crate) struct Capacity {
    workers: Mutex<Vec<Arc<WorkerCapacity>>>,
    /// Connections above the limit for which none was evicted yet: their workers had none to evict,
    /// or the evicted one stayed.
    owed: Mutex<usize>,
}

impl Capacity {
    /// Adds a worker.
    pub(crate) fn register(&self) -> Arc<WorkerCapacity> {
        let worker = Arc::<WorkerCapacity>::default();
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).push(worker.clone());
        worker
    }

    /// Whether any worker has connections that may make room.
    pub(crate) fn has_evictable(&self) -> bool {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.iter().any(|worker| worker.has_evictable())
    }

    /// Lets a worker that has evictable connections evict one.
    pub(crate) fn request_eviction(&self) {
        *self.owed() += 1;
        self.notify_evictable();
    }

    /// Lets workers evict all connections in `excess` of the limit. Several workers had accepted
    /// connections at one time, and none saw the limit. Some of the excess may be closing already,
    /// so this may evict a few more.
    pub(crate) fn request_evictions(&self, excess: usize) {
        {
            let mut owed = self.owed();
            *owed = excess.max(*owed);
        }
        self.notify_evictable();
    }

    fn owed(&self) -> MutexGuard<'_, usize> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify_evictable(&self) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        for worker in workers.iter().filter(|worker| worker.has_evictable()) {
            worker.changed.notify_one();
        }
    }

    /// Takes one requested eviction, which the caller is to perform. Returns whether there was one.
    /// `excess` returns the connections above the limit. Further requests are void, since
    /// connections have closed by themselves. It is called while no request can be made, so that it
    /// counts the connections of all requests.
    pub(crate) fn take_request(&self, excess: impl FnOnce() -> usize) -> bool {
        let mut owed = self.owed();
        let due = excess().min(*owed);
        *owed = due.saturating_sub(1);
        due > 0
    }
}

/// One worker at the connection limit.
#[derive(Debug, Default)]
pub(crate) struct WorkerCapacity {
    /// Whether the worker waits for one of its connections to close.
    is_awaited: AtomicBool,
    /// The connections that its last search has found and that it has not evicted yet.
    evictable: AtomicUsize,
    changed: Notify,
}

impl WorkerCapacity {
    /// Records that the worker waits until one of its connections closes.
    pub(crate) fn wait(&self) {
        self.is_awaited.store(true, Relaxed);
    }

    pub(crate) fn on_connection_closed(&self) {
        if self.is_awaited.swap(false, Relaxed) {
            self.changed.notify_one();
        }
    }

    pub(crate) fn set_evictable(&self, connections: usize) {
        self.evictable.store(connections, Relaxed);
    }

    fn has_evictable(&self) -> bool {
        self.evictable.load(Relaxed) > 0
    }

    /// Ready when a connection of the worker has closed, or when another worker requests that it
    /// evicts one. Cancel safe.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::Capacity;
    use tokio_test::{assert_pending, assert_ready, task::spawn};

    // Each worker evicted its own connections only. A worker that had none accepted nothing at the
    // limit, however many idle connections the others had (P15).
    #[test]
    fn a_worker_without_evictable_connections_requests_one_of_another_worker() {
        let capacity = Capacity::default();
        let [idle, other] = [(); 2].map(|()| capacity.register());
        assert!(!capacity.has_evictable());
        idle.set_evictable(3);
        assert!(capacity.has_evictable());
        let (mut asked, mut spared) = (spawn(idle.changed()), spawn(other.changed()));
        assert_pending!(asked.poll());
        assert_pending!(spared.poll());
        capacity.request_eviction();
        assert!(asked.is_woken());
        assert_ready!(asked.poll());
        assert_pending!(spared.poll());
        assert!(capacity.take_request(|| 1));
        assert!(!capacity.take_request(|| 1), "one was requested");
    }

    // Workers that accepted several connections at one time exceeded the limit by more than one
    // each, and each requested one eviction. The others stayed, and nothing more was accepted.
    #[test]
    fn all_connections_above_the_limit_are_evicted() {
        let capacity = Capacity::default();
        capacity.request_evictions(3);
        capacity.request_evictions(5);
        assert_eq!((0..9).filter(|_| capacity.take_request(|| 5)).count(), 5);
    }

    #[test]
    fn no_more_are_evicted_than_are_above_the_limit() {
        let capacity = Capacity::default();
        let request_some = || (0..5).for_each(|_| capacity.request_eviction());
        request_some();
        assert!(!capacity.take_request(|| 0), "connections have closed by themselves");
        assert!(!capacity.take_request(|| 2), "what was requested before is void");
        request_some();
        assert!(capacity.take_request(|| 2) && capacity.take_request(|| 2));
        assert!(!capacity.take_request(|| 2));
    }
}
