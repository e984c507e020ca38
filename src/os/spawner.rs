//! Where futures run in production: on threads with a runtime each, or as tasks of an existing
//! runtime.
//!
//! ```text
//!  ThreadPerWorker
//!    lameduck-internal      one runtime, the internal server   (P16: responds while workers block)
//!    lameduck-worker-0..n   one single-threaded runtime a core (no work stealing or shared lock)
//!    lameduck-watchd        no runtime at all                  (P7)
//!    lameduck-hook          a start or stop hook, in the context of the user's runtime  (P11)
//!    the user's runtime     tasks and checks of the user, if it is not the host's
//!
//!  CurrentRuntime
//!    lameduck-internal      as above
//!    lameduck-hook          as above, if the caller's runtime is multi-threaded
//!    the caller's runtime   one worker, and the tasks and checks of the user, as tasks
//! ```
//!
//! A thread ends without waiting for blocking tasks that its future started. Dropping its runtime
//! normally would wait for ever for a stuck `spawn_blocking`.

use super::{watchdog::Watchdog, with_limit};
use crate::{
    lifecycle::Moment,
    runtime::{BoxFuture, Clock, JoinHandle, Spawner, TaskKind},
};
use std::{
    io,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    thread,
};
use tokio::{
    runtime::{Builder, Handle, Runtime, RuntimeFlavor},
    sync::oneshot,
};

/// Spawner for lameduck's own process: a thread for each worker and the internal server, and a
/// watchdog.
#[derive(Debug)]
pub struct ThreadPerWorker {
    clock: Arc<dyn Clock>,
    workers: NonZeroUsize,
    watchdog: Watchdog,
    user_runtime: Option<Handle>,
}

impl ThreadPerWorker {
    /// Returns a spawner for `workers` workers (see [`cores`](super::cores)). The watchdog's thread
    /// starts with the internal server, and waits to be armed. Its deadline is a time of `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, workers: NonZeroUsize) -> Self {
        Self { clock, workers, watchdog: Watchdog::default(), user_runtime: None }
    }

    /// Runs the user's tasks and checks on `user_runtime` instead of the runtime that the host runs
    /// on. Hooks, which have a thread each, run in its context.
    #[must_use]
    pub fn with_user_runtime(self, user_runtime: Handle) -> Self {
        Self { user_runtime: Some(user_runtime), ..self }
    }

    fn runtime_of_users(&self) -> Handle {
        self.user_runtime.clone().unwrap_or_else(Handle::current)
    }
}

impl Spawner for ThreadPerWorker {
    fn workers(&self) -> NonZeroUsize {
        self.workers
    }

    fn spawn(&self, kind: TaskKind, future: BoxFuture) -> io::Result<JoinHandle> {
        match kind {
            TaskKind::InternalServer => {
                self.watchdog.start().map_err(|error| {
                    let error = with_limit(error);
                    io::Error::new(error.kind(), format!("no thread for its watchdog: {error}"))
                })?;
                spawn_thread("lameduck-internal".to_owned(), future)
            }
            TaskKind::Worker(n) => {
                let end = spawn_thread(format!("lameduck-worker-{n}"), future)?;
                // With one core, clients get their first response before the start goes on.
                thread::yield_now();
                Ok(end)
            }
            TaskKind::User => Ok(spawn_task(&self.runtime_of_users(), future)),
        }
    }

    fn spawn_hook(&self, hook: BoxFuture) -> io::Result<JoinHandle> {
        Ok(spawn_hook(&self.runtime_of_users(), hook))
    }

    fn arm_watchdog(&self, at: Moment) {
        if at != Moment::NEVER {
            self.watchdog.arm(at.since(self.clock.now()));
        }
    }
}

/// Spawner inside a caller's tokio runtime. Its one worker, and the user's tasks and checks, are
/// tasks there. The internal server has a thread, and so has each running hook if that runtime is
/// multi-threaded. There is no watchdog, because the process belongs to the caller.
#[derive(Clone, Debug)]
pub struct CurrentRuntime {
    runtime: Handle,
}

impl CurrentRuntime {
    /// Returns a spawner on `runtime`, such as [`Handle::current`].
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

    fn spawn_hook(&self, hook: BoxFuture) -> io::Result<JoinHandle> {
        Ok(spawn_hook(&self.runtime, hook))
    }

    fn arm_watchdog(&self, _: Moment) {}
}

fn spawn_task(runtime: &Handle, future: BoxFuture) -> JoinHandle {
    let task = runtime.spawn(future);
    Box::pin(async move {
        // Finished, panicked, or dropped with its runtime: in each case the task has ended.
        let _ = task.await;
    })
}

/// A hook may block its thread, so it has its own, unless the runtime has one thread only or the
/// system refuses another.
fn spawn_hook(runtime: &Handle, hook: BoxFuture) -> JoinHandle {
    if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
        return spawn_task(runtime, hook);
    }
    let hook = Arc::new(Mutex::new(Some(hook)));
    let take = |hook: &Mutex<Option<BoxFuture>>| {
        hook.lock().unwrap_or_else(PoisonError::into_inner).take()
    };
    let (of_thread, handle) = (hook.clone(), runtime.clone());
    let (ended, end) = oneshot::channel::<()>();
    let spawned = thread::Builder::new().name("lameduck-hook".to_owned()).spawn(move || {
        let _ended = ended;
        if let Some(hook) = take(&of_thread) {
            handle.block_on(hook);
        }
    });
    if spawned.is_err()
        && let Some(hook) = take(&hook)
    {
        return spawn_task(runtime, hook);
    }
    Box::pin(async move {
        let _ = end.await;
    })
}

fn spawn_thread(name: String, future: BoxFuture) -> io::Result<JoinHandle> {
    try_spawn_thread(name, future).map_err(with_limit)
}

fn try_spawn_thread(name: String, future: BoxFuture) -> io::Result<JoinHandle> {
    let runtime = BackgroundShutdown(Some(Builder::new_current_thread().enable_all().build()?));
    let (ended, end) = oneshot::channel::<()>();
    thread::Builder::new().name(name).spawn(move || {
        // Dropped last, also after a panic: the end is signalled only when the runtime and all its
        // tasks are gone.
        let _ended = ended;
        let runtime = runtime;
        runtime.run(future);
    })?;
    Ok(Box::pin(async move {
        let _ = end.await;
    }))
}

/// A runtime whose drop does not wait for blocking tasks.
struct BackgroundShutdown(Option<Runtime>);

impl BackgroundShutdown {
    fn run(&self, future: BoxFuture) {
        if let Some(runtime) = &self.0 {
            // Run it as a task, as on a shared runtime: code in it may read its task id.
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
