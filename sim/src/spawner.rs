//! Rooms that are tasks of the ambient runtime.

use crate::trace::Trace;
use lameduck::{
    lifecycle::Moment,
    runtime::{BoxFuture, Clock, JoinHandle, Spawner, TaskKind},
};
use std::{
    fmt, io,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the watchdog does when it bites.
type Bite = Box<dyn FnOnce() + Send>;

/// The rooms of one simulated process: every room is a task beside the others, so that nothing runs in parallel and a run can
/// be replayed.
///
/// The watchdog cannot end a process that is a task. It tells the trace when it was armed and when it bites, and calls back
/// whoever asked for it. [`process_over`](Self::process_over) takes it away, as the end of a process does.
#[derive(Clone)]
pub struct SimSpawner {
    shared: Arc<Shared>,
}

struct Shared {
    actor: String,
    trace: Trace,
    clock: Arc<dyn Clock>,
    workers: NonZeroUsize,
    tasks: TaskTracker,
    over: CancellationToken,
    bite: Mutex<Option<Bite>>,
}

impl SimSpawner {
    /// Rooms of a process with one worker. `actor` is its name in the trace.
    #[must_use]
    pub fn new(actor: impl Into<String>, trace: Trace, clock: Arc<dyn Clock>) -> Self {
        Self::with_workers(actor, trace, clock, NonZeroUsize::MIN)
    }

    /// Rooms of a process with `workers` workers.
    #[must_use]
    pub fn with_workers(
        actor: impl Into<String>,
        trace: Trace,
        clock: Arc<dyn Clock>,
        workers: NonZeroUsize,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                actor: actor.into(),
                trace,
                clock,
                workers,
                tasks: TaskTracker::new(),
                over: CancellationToken::new(),
                bite: Mutex::new(None),
            }),
        }
    }

    /// Calls `bite` once, when the watchdog bites.
    pub fn on_watchdog(&self, bite: impl FnOnce() + Send + 'static) {
        *self.shared.bite.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(bite));
    }

    /// The process is over: its watchdog is gone with it.
    pub fn process_over(&self) {
        self.shared.over.cancel();
    }

    /// How many jobs have not returned. Armed watchdogs count until [`process_over`](Self::process_over).
    #[must_use]
    pub fn occupied(&self) -> usize {
        self.shared.tasks.len()
    }
}

impl fmt::Debug for SimSpawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimSpawner")
            .field("actor", &self.shared.actor)
            .field("workers", &self.shared.workers)
            .finish()
    }
}

impl Spawner for SimSpawner {
    fn workers(&self) -> NonZeroUsize {
        self.shared.workers
    }

    fn spawn(&self, kind: TaskKind, job: BoxFuture) -> io::Result<JoinHandle> {
        let handle = self.shared.tasks.spawn(job);
        let shared = Arc::clone(&self.shared);
        Ok(Box::pin(async move {
            if let Err(lost) = handle.await
                && lost.is_panic()
            {
                shared.trace.record(
                    &shared.actor,
                    "room lost",
                    &[("room", format!("{kind:?}").into())],
                );
            }
        }))
    }

    fn arm_watchdog(&self, at: Moment) {
        let shared = Arc::clone(&self.shared);
        shared.trace.record(&shared.actor, "watchdog armed", &[("at_us", micros(at).into())]);
        self.shared.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = shared.over.cancelled() => {}
                () = shared.clock.sleep_until(at) => {
                    shared.trace.record(&shared.actor, "watchdog bites", &[("at_us", micros(at).into())]);
                    let bite = shared.bite.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(bite) = bite {
                        bite();
                    }
                }
            }
        });
    }
}

const fn micros(at: Moment) -> u64 {
    at.as_nanos() / 1_000
}
