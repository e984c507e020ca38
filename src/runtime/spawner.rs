//! Spawns tasks: in production on threads, in a simulation as tasks of its executor.

use crate::lifecycle::Moment;
use std::{fmt, future::Future, io, num::NonZeroUsize, pin::Pin};

/// A boxed future to spawn.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ready once a spawned future returned, or was lost because its thread or task panicked.
pub type JoinHandle = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Wraps a task before it is spawned.
pub type WrapTask = Box<dyn FnOnce(BoxFuture) -> BoxFuture + Send>;

/// The kind of a spawned task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// The internal server, separate from everything else (P16).
    InternalServer,
    /// The worker of the main server with this index.
    Worker(usize),
    /// A start or stop hook, a background task or a readiness check. These are users' code, which
    /// may block its thread. Should not run where the host itself runs.
    User,
}

/// Spawns futures.
pub trait Spawner: fmt::Debug + Send + Sync + 'static {
    /// The number of workers of the main server.
    fn workers(&self) -> NonZeroUsize;

    /// Spawns `future` inside a tokio runtime. A worker spawns all its tasks on the runtime in
    /// which its future is first polled, even if an app's code enters another runtime later.
    ///
    /// # Errors
    /// The system's error, if it refuses the resources for the task.
    fn spawn(&self, kind: TaskKind, future: BoxFuture) -> io::Result<JoinHandle>;

    /// Spawns a start or stop hook. One that blocks its thread must not keep others from running
    /// (P11). Default: the same as `spawn` with [`TaskKind::User`].
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn).
    fn spawn_hook(&self, hook: BoxFuture) -> io::Result<JoinHandle> {
        self.spawn(TaskKind::User, hook)
    }

    /// Returns what wraps the task of the worker with this index. The host spawns that task itself,
    /// inside the future of the worker. A simulation delays it. Default: it stays as it is.
    fn wrap_worker(&self, index: usize) -> WrapTask {
        let _ = index;
        Box::new(|task| task)
    }

    /// Ends the process at `at`, with exit code 5, whatever happens (P7). Does nothing where the
    /// host does not own the process.
    fn arm_watchdog(&self, at: Moment);
}
