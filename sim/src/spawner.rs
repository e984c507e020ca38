//! A spawner whose tasks run on the ambient runtime.

use crate::{blocking::Blockable, network::Stalls, trace::Trace, turns::Turns};
use lameduck::{
    lifecycle::Moment,
    runtime::{BoxFuture, Clock, JoinHandle, Seed, Spawner, TaskKind, WrapTask},
};
use std::{
    fmt, io,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Called when the watchdog fires.
type WatchdogCallback = Box<dyn FnOnce() + Send>;

/// The spawner of a process whose watchdog ends the process only, and not the world.
pub trait ProcessSpawner: Spawner + Clone {
    /// Sets a callback that runs once, when the watchdog fires.
    fn on_watchdog(&self, on_watchdog: impl FnOnce() + Send + 'static);

    /// Marks the process as exited, which disarms its watchdog.
    fn process_exited(&self);

    /// Draws the order of tasks by seed, and stalls workers, where that can be simulated. Must be
    /// called before the spawner is cloned.
    #[must_use]
    fn disturbed(self, order: Option<Seed>, stalls: Option<Arc<Stalls>>) -> Self {
        let _ = (order, stalls);
        self
    }
}

/// Spawner of one simulated process. Every worker and server is a task of the same runtime, so
/// nothing runs in parallel and a run can be replayed.
///
/// The watchdog cannot end a process that is a task. It records when it was armed and when it
/// fires, and then calls the [`on_watchdog`](Self::on_watchdog) callback.
/// [`process_exited`](Self::process_exited) disarms it, as the exit of a real process does.
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
    on_watchdog: Mutex<Option<WatchdogCallback>>,
    /// Order of the tasks of one instant.
    order: Option<Seed>,
    stalls: Option<Arc<Stalls>>,
}

impl SimSpawner {
    /// Creates the spawner of a process with one worker. `actor` is the name of the process in the
    /// trace.
    #[must_use]
    pub fn new(actor: impl Into<String>, trace: Trace, clock: Arc<dyn Clock>) -> Self {
        Self::with_workers(actor, trace, clock, NonZeroUsize::MIN)
    }

    /// Creates the spawner of a process with `workers` workers.
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
                on_watchdog: Mutex::new(None),
                order: None,
                stalls: None,
            }),
        }
    }

    /// Lets each task that is spawned wait for others by seed before it runs, and stalls workers.
    /// Must be called before the spawner is cloned.
    #[must_use]
    pub fn disturbed(mut self, order: Option<Seed>, stalls: Option<Arc<Stalls>>) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            (shared.order, shared.stalls) = (order, stalls);
        }
        self
    }

    /// Sets a callback that runs once, when the watchdog fires.
    pub fn on_watchdog(&self, on_watchdog: impl FnOnce() + Send + 'static) {
        *self.shared.on_watchdog.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Box::new(on_watchdog));
    }

    /// Marks the process as exited, which disarms its watchdog.
    pub fn process_exited(&self) {
        self.shared.over.cancel();
    }

    /// Returns the number of jobs that have not returned. An armed watchdog counts until
    /// [`process_exited`](Self::process_exited).
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.shared.tasks.len()
    }
}

impl ProcessSpawner for SimSpawner {
    fn on_watchdog(&self, on_watchdog: impl FnOnce() + Send + 'static) {
        Self::on_watchdog(self, on_watchdog);
    }

    fn process_exited(&self) {
        Self::process_exited(self);
    }

    fn disturbed(self, order: Option<Seed>, stalls: Option<Arc<Stalls>>) -> Self {
        Self::disturbed(self, order, stalls)
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
        let number = self.shared.tasks.len() as u64;
        let order = self.shared.order.map(|order| Seed(order.nth(number)));
        let job = if kind == TaskKind::User { Blockable::boxed(job) } else { job };
        let handle = self.shared.tasks.spawn(Turns::new(job, order, None));
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

    /// Delays the worker's own task: the future that was given to [`spawn`](Spawner::spawn) only
    /// waits for it.
    fn wrap_worker(&self, index: usize) -> WrapTask {
        let order = self.shared.order.map(|order| Seed(order.nth(!(index as u64))));
        let stalls = self.shared.stalls.clone().map(|stalls| (stalls, index));
        Box::new(move |task| Box::pin(Turns::new(task, order, stalls)))
    }

    fn arm_watchdog(&self, at: Moment) {
        let shared = Arc::clone(&self.shared);
        shared.trace.record(&shared.actor, "watchdog armed", &[("at_us", micros(at).into())]);
        self.shared.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = shared.over.cancelled() => {}
                () = shared.clock.sleep_until(at) => {
                    let fields = &[("at_us", micros(at).into())];
                    shared.trace.record(&shared.actor, "watchdog bites", fields);
                    let on_watchdog = &shared.on_watchdog;
                    let on_watchdog =
                        on_watchdog.lock().unwrap_or_else(PoisonError::into_inner).take();
                    if let Some(on_watchdog) = on_watchdog {
                        on_watchdog();
                    }
                }
            }
        });
    }
}

const fn micros(at: Moment) -> u64 {
    at.as_nanos() / 1_000
}
