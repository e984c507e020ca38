//! Where code runs: in production threads, in simulation tasks.

use crate::lifecycle::Moment;
use std::{fmt, future::Future, io, num::NonZeroUsize, pin::Pin};

/// A future that keeps a room busy.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ready once a job returned, or was lost (its room panicked).
pub type JoinHandle = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who lives in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// The internal server, apart from everything else (P16).
    InternalServer,
    /// Worker number n of the main side.
    Worker(usize),
    /// A start or stop hook, a background task or a readiness check: users' code, which may block its thread. Best not where the host
    /// itself runs.
    User,
}

/// Hands out rooms.
pub trait Spawner: fmt::Debug + Send + Sync + 'static {
    /// How many workers the main side has.
    fn workers(&self) -> NonZeroUsize;

    /// Runs `future` in `room`, inside a tokio runtime. A worker spawns all of its tasks on the runtime in which its job is first
    /// polled, whatever an app's code makes the current one later.
    ///
    /// # Errors
    /// The system's, if the room cannot be had.
    fn spawn(&self, kind: TaskKind, future: BoxFuture) -> io::Result<JoinHandle>;

    /// Ends the process at `at`, with exit code 5, whatever happens (P7). Where the process is not ours to end, it does
    /// nothing.
    fn arm_watchdog(&self, at: Moment);
}
