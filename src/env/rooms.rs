//! Where code runs: in production threads, in simulation tasks.

use crate::lifecycle::Moment;
use std::{fmt, future::Future, io, num::NonZeroUsize, pin::Pin};
use tokio::runtime::Handle;

/// A future that keeps a room busy.
pub type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Ready once a job returned, or was lost (its room panicked).
pub type JobEnd = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Who lives in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Room {
    /// The internal server, apart from everything else (P16).
    Internal,
    /// Worker number n of the main side.
    Worker(usize),
}

/// Hands out rooms.
pub trait Rooms: fmt::Debug + Send + Sync + 'static {
    /// How many workers the main side has.
    fn workers(&self) -> NonZeroUsize;

    /// Runs `job` in `room`.
    ///
    /// # Errors
    /// The system's, if the room cannot be had.
    fn enter(&self, room: Room, job: Job) -> io::Result<JobEnd>;

    /// The runtime where users' start and stop hooks, background tasks and readiness checks run. Best not the one that the host
    /// itself is run on: code that blocks its threads must not hold the host's timers and signals (P7). Default: the current one.
    fn guests(&self) -> Handle {
        Handle::current()
    }

    /// Ends the process at `at`, with exit code 5, whatever happens (P7). Where the process is not ours to end, it does
    /// nothing.
    fn arm_watchdog(&self, at: Moment);
}
