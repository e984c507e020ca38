//! Where code runs in production: threads with a runtime of their own, or tasks of a runtime that is already there.
//!
//! ```text
//!  Threads   lameduck-internal      one runtime, the internal server       (P16: answers when every worker is blocked)
//!            lameduck-worker-0..n   one single-threaded runtime a core     (no work stealing, no lock between cores)
//!            lameduck-watchd        no runtime at all                      (P7)
//!            the guests' runtime    hooks, tasks and checks of the user, if it is another than the host's
//!
//!  Tasks     lameduck-internal      as above
//!            the caller's runtime   one worker, a task
//! ```
//!
//! A room is left without waiting for what its job started: a `spawn_blocking` that is stuck would hold the drop of its
//! runtime for ever.

use super::{watchdog::Watchdog, with_limit};
use crate::{
    lifecycle::Moment,
    runtime::{BoxFuture, Clock, JoinHandle, Spawner, TaskKind},
};
use std::{io, num::NonZeroUsize, sync::Arc, thread};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};

/// Rooms for a process of our own: a thread for each, and a watchdog.
#[derive(Debug)]
pub struct ThreadPerWorker {
    clock: Arc<dyn Clock>,
    workers: NonZeroUsize,
    watchdog: Watchdog,
    user_runtime: Option<Handle>,
}

impl ThreadPerWorker {
    /// Rooms for `workers` workers (see [`cores`](super::cores)). The watchdog's thread starts here and waits to be armed;
    /// `clock` tells what its moment means.
    ///
    /// # Errors
    /// The system's, if the watchdog's thread cannot be had.
    pub fn new(clock: Arc<dyn Clock>, workers: NonZeroUsize) -> io::Result<Self> {
        Ok(Self { clock, workers, watchdog: Watchdog::start()?, user_runtime: None })
    }

    /// Lets users' hooks, tasks and checks run on `user_runtime`, and not on the runtime that the host is run on.
    #[must_use]
    pub fn with_user_runtime(self, user_runtime: Handle) -> Self {
        Self { user_runtime: Some(user_runtime), ..self }
    }
}

impl Spawner for ThreadPerWorker {
    fn workers(&self) -> NonZeroUsize {
        self.workers
    }

    fn spawn(&self, kind: TaskKind, future: BoxFuture) -> io::Result<JoinHandle> {
        match kind {
            TaskKind::InternalServer => spawn_thread("lameduck-internal".to_owned(), future),
            TaskKind::Worker(n) => spawn_thread(format!("lameduck-worker-{n}"), future),
            TaskKind::User => {
                Ok(spawn_task(&self.user_runtime.clone().unwrap_or_else(Handle::current), future))
            }
        }
    }

    fn arm_watchdog(&self, at: Moment) {
        if at != Moment::NEVER {
            self.watchdog.arm(at.since(self.clock.now()));
        }
    }
}

/// Rooms inside somebody else's tokio runtime: its one worker is a task there. Only the internal side
/// has a thread. The process is not ours to end, so there is no watchdog.
#[derive(Clone, Debug)]
pub struct CurrentRuntime {
    runtime: Handle,
}

impl CurrentRuntime {
    /// Rooms on `runtime`, such as [`Handle::current`].
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime }
    }
}

impl Spawner for CurrentRuntime {
    fn workers(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn spawn(&self, kind: TaskKind, future: BoxFuture) -> io::Result<JoinHandle> {
        match kind {
            TaskKind::InternalServer => spawn_thread("lameduck-internal".to_owned(), future),
            TaskKind::Worker(_) | TaskKind::User => Ok(spawn_task(&self.runtime, future)),
        }
    }

    fn arm_watchdog(&self, _: Moment) {}
}

fn spawn_task(runtime: &Handle, future: BoxFuture) -> JoinHandle {
    let task = runtime.spawn(future);
    Box::pin(async move {
        // Returned, panicked or lost with its runtime: the room is empty.
        let _ = task.await;
    })
}

fn spawn_thread(name: String, future: BoxFuture) -> io::Result<JoinHandle> {
    try_on_its_own_thread(name, future).map_err(with_limit)
}

fn try_on_its_own_thread(name: String, future: BoxFuture) -> io::Result<JoinHandle> {
    let runtime = BackgroundShutdown(Some(Builder::new_current_thread().enable_all().build()?));
    let (ended, end) = oneshot::channel::<()>();
    thread::Builder::new().name(name).spawn(move || {
        // Dropped last, by a panic too: the end is known only when the runtime and all its tasks are gone.
        let _ended = ended;
        let runtime = runtime;
        runtime.run(future);
    })?;
    Ok(Box::pin(async move {
        let _ = end.await;
    }))
}

/// A runtime whose drop waits for nothing.
struct BackgroundShutdown(Option<Runtime>);

impl BackgroundShutdown {
    fn run(&self, future: BoxFuture) {
        if let Some(runtime) = &self.0 {
            // In a task, as on a runtime that all share: what it polls may ask for its id.
            let _ = runtime.block_on(runtime.spawn(future));
        }
    }
}

impl Drop for BackgroundShutdown {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
