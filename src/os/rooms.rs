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
    env::{Clock, Job, JobEnd, Room, Rooms},
    lifecycle::Moment,
};
use std::{io, num::NonZeroUsize, sync::Arc, thread};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
};

/// Rooms for a process of our own: a thread for each, and a watchdog.
#[derive(Debug)]
pub struct Threads {
    clock: Arc<dyn Clock>,
    workers: NonZeroUsize,
    watchdog: Watchdog,
    guests: Option<Handle>,
}

impl Threads {
    /// Rooms for `workers` workers (see [`cores`](super::cores)). The watchdog's thread starts here and waits to be armed;
    /// `clock` tells what its moment means.
    ///
    /// # Errors
    /// The system's, if the watchdog's thread cannot be had.
    pub fn new(clock: Arc<dyn Clock>, workers: NonZeroUsize) -> io::Result<Self> {
        Ok(Self { clock, workers, watchdog: Watchdog::start()?, guests: None })
    }

    /// Lets users' hooks, tasks and checks run on `guests`, and not on the runtime that the host is run on.
    #[must_use]
    pub fn with_guests(self, guests: Handle) -> Self {
        Self { guests: Some(guests), ..self }
    }
}

impl Rooms for Threads {
    fn workers(&self) -> NonZeroUsize {
        self.workers
    }

    fn enter(&self, room: Room, job: Job) -> io::Result<JobEnd> {
        match room {
            Room::Internal => on_its_own_thread("lameduck-internal".to_owned(), job),
            Room::Worker(n) => on_its_own_thread(format!("lameduck-worker-{n}"), job),
            Room::Guest => Ok(as_a_task(&self.guests.clone().unwrap_or_else(Handle::current), job)),
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
pub struct Tasks {
    runtime: Handle,
}

impl Tasks {
    /// Rooms on `runtime`, such as [`Handle::current`].
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime }
    }
}

impl Rooms for Tasks {
    fn workers(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn enter(&self, room: Room, job: Job) -> io::Result<JobEnd> {
        match room {
            Room::Internal => on_its_own_thread("lameduck-internal".to_owned(), job),
            Room::Worker(_) | Room::Guest => Ok(as_a_task(&self.runtime, job)),
        }
    }

    fn arm_watchdog(&self, _: Moment) {}
}

fn as_a_task(runtime: &Handle, job: Job) -> JobEnd {
    let task = runtime.spawn(job);
    Box::pin(async move {
        // Returned, panicked or lost with its runtime: the room is empty.
        let _ = task.await;
    })
}

fn on_its_own_thread(name: String, job: Job) -> io::Result<JobEnd> {
    try_on_its_own_thread(name, job).map_err(with_limit)
}

fn try_on_its_own_thread(name: String, job: Job) -> io::Result<JobEnd> {
    let runtime = Left(Some(Builder::new_current_thread().enable_all().build()?));
    let (ended, end) = oneshot::channel::<()>();
    thread::Builder::new().name(name).spawn(move || {
        // Dropped last, by a panic too: the end is known only when the runtime and all its tasks are gone.
        let _ended = ended;
        let runtime = runtime;
        runtime.run(job);
    })?;
    Ok(Box::pin(async move {
        let _ = end.await;
    }))
}

/// A runtime whose drop waits for nothing.
struct Left(Option<Runtime>);

impl Left {
    fn run(&self, job: Job) {
        if let Some(runtime) = &self.0 {
            // In a task, as on a runtime that all share: what it polls may ask for its id.
            let _ = runtime.block_on(runtime.spawn(job));
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
