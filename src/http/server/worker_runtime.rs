//! The runtime of a worker's tasks.
//!
//! The handle is stored instead of looked up at each spawn. A handler may make another runtime
//! current on its thread (with `mem::forget(runtime.enter())`). A task spawned there would add to
//! the worker's counters from another thread, and a socket or timer made there may never be ready.

use super::counters::WorkerThreads;
use std::{future::Future, mem, panic::resume_unwind};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

#[cfg(feature = "metrics")]
pub(crate) use tokio::runtime::RuntimeMetrics;

/// The runtime on which a worker's connections and streams are spawned.
#[derive(Clone, Debug)]
pub(crate) struct WorkerRuntime {
    /// `None` if nothing is spawned.
    handle: Option<Handle>,
    pub(crate) threads: WorkerThreads,
}

impl WorkerRuntime {
    /// Returns the current runtime, for a worker that [runs](Self::run) as one of its tasks.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn of_tasks() -> Self {
        let handle = Handle::current();
        let is_alone = handle.runtime_flavor() == RuntimeFlavor::CurrentThread;
        let threads = if is_alone { WorkerThreads::One } else { WorkerThreads::Several };
        Self { handle: Some(handle), threads }
    }

    /// Returns the current runtime, for a worker that is not a task itself.
    pub(crate) fn current() -> Self {
        Self { handle: Some(Handle::current()), threads: WorkerThreads::Several }
    }

    /// Returns a value without a runtime, for [`TestHost`](crate::TestHost), which runs no
    /// connections.
    pub(crate) const fn none() -> Self {
        Self { handle: None, threads: WorkerThreads::Several }
    }

    /// The metrics of the runtime.
    #[cfg(feature = "metrics")]
    pub(super) fn metrics(&self) -> Option<RuntimeMetrics> {
        self.handle.as_ref().map(Handle::metrics)
    }

    /// Runs a worker as a task of the runtime, whatever polls this future. Then only tasks of the
    /// runtime add to the worker's counters.
    pub(crate) async fn run(self, worker: impl Future<Output = ()> + Send + 'static) {
        let Some(handle) = self.handle else { return worker.await };
        if let Err(lost) = AbortOnDropHandle::new(handle.spawn(worker)).await
            && lost.is_panic()
        {
            resume_unwind(lost.into_panic());
        }
    }

    /// Makes the runtime the current one of this thread again, if a handler has changed that.
    /// Timers are made on the current runtime, which may be one that is never driven.
    pub(crate) fn restore(&self) {
        if let (Some(own), Ok(current)) = (&self.handle, Handle::try_current())
            && own.id() != current.id()
        {
            crate::log::warn!("a handler has left its thread in another tokio runtime");
            // The handler's guard was forgotten, too. Guards must be dropped in order.
            mem::forget(own.enter());
        }
    }

    pub(crate) fn spawn<F>(&self, tasks: &TaskTracker, task: F)
    where
        F: Future + Send + 'static,
        F::Output: Send,
    {
        match &self.handle {
            Some(handle) => drop(tasks.spawn_on(task, handle)),
            None => drop(tasks.spawn(task)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads() -> WorkerThreads {
        WorkerRuntime::of_tasks().threads
    }

    // With unsynchronised additions from two threads, counts are lost. Only a runtime of one thread
    // may use them.
    #[tokio::test]
    async fn a_runtime_of_one_thread_counts_like_one() {
        assert_eq!(threads(), WorkerThreads::One);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_runtime_that_may_have_several_threads_does_not() {
        assert_eq!(threads(), WorkerThreads::Several);
    }
}
