//! The threads of a process in a [`LinuxWorld`](super::LinuxWorld): production's, with a watchdog
//! that ends the process only.

use crate::{spawner::ProcessSpawner, trace::Trace};
use lameduck::{
    lifecycle::Moment,
    os::ThreadPerWorker,
    runtime::{BoxFuture, Clock, JoinHandle, Spawner, TaskKind},
};
use std::{
    fmt, io, mem,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;

/// Threads for hooks, tasks and checks, as in production.
const CONTROL_THREADS: usize = 2;

/// Spawner of one process: [`ThreadPerWorker`], but its watchdog is a task that records.
#[derive(Clone)]
pub struct LinuxSpawner {
    shared: Arc<Shared>,
}

struct Shared {
    actor: String,
    trace: Trace,
    clock: Arc<dyn Clock>,
    threads: ThreadPerWorker,
    /// `None` only during the drop.
    control: Option<Runtime>,
    recorder: Dispatch,
    over: CancellationToken,
    on_watchdog: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl LinuxSpawner {
    /// Starts the threads that every process has. Log events of all its threads go to the default
    /// subscriber of this one.
    pub(super) fn start(
        actor: &str,
        trace: &Trace,
        clock: Arc<dyn Clock>,
        workers: NonZeroUsize,
    ) -> io::Result<Self> {
        let recorder = tracing::dispatcher::get_default(Clone::clone);
        let control = Builder::new_multi_thread()
            .worker_threads(CONTROL_THREADS)
            .thread_name("lameduck-control")
            .enable_all()
            .on_thread_start({
                let recorder = recorder.clone();
                move || record_on_this_thread(&recorder)
            })
            .build()?;
        let threads = ThreadPerWorker::new(clock.clone(), workers)
            .with_user_runtime(control.handle().clone());
        let shared = Shared {
            actor: actor.to_owned(),
            trace: trace.clone(),
            clock,
            threads,
            control: Some(control),
            recorder,
            over: CancellationToken::new(),
            on_watchdog: Mutex::new(None),
        };
        Ok(Self { shared: Arc::new(shared) })
    }
}

/// Sends the log events of this thread to `recorder`, until the thread ends.
fn record_on_this_thread(recorder: &Dispatch) {
    // There is no subscriber to go back to.
    mem::forget(tracing::dispatcher::set_default(recorder));
}

impl fmt::Debug for LinuxSpawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinuxSpawner").field("actor", &self.shared.actor).finish_non_exhaustive()
    }
}

impl Spawner for LinuxSpawner {
    fn workers(&self) -> NonZeroUsize {
        self.shared.threads.workers()
    }

    fn spawn(&self, kind: TaskKind, future: BoxFuture) -> io::Result<JoinHandle> {
        match kind {
            TaskKind::User => self.shared.threads.spawn(kind, future),
            TaskKind::InternalServer | TaskKind::Worker(_) => {
                let recorder = self.shared.recorder.clone();
                let recorded = async move {
                    record_on_this_thread(&recorder);
                    future.await;
                };
                self.shared.threads.spawn(kind, Box::pin(recorded))
            }
        }
    }

    fn arm_watchdog(&self, at: Moment) {
        let shared = Arc::clone(&self.shared);
        let at_us = at.as_nanos() / 1_000;
        shared.trace.record(&shared.actor, "watchdog armed", &[("at_us", at_us.into())]);
        let Some(control) = &self.shared.control else { return };
        let (over, clock) = (shared.over.clone(), shared.clock.clone());
        let weak = Arc::downgrade(&shared);
        drop(control.spawn(async move {
            tokio::select! {
                biased;
                () = over.cancelled() => return,
                () = clock.sleep_until(at) => {}
            }
            let Some(shared) = weak.upgrade() else { return };
            shared.trace.record(&shared.actor, "watchdog bites", &[("at_us", at_us.into())]);
            let on_watchdog =
                shared.on_watchdog.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(on_watchdog) = on_watchdog {
                on_watchdog();
            }
        }));
    }
}

impl ProcessSpawner for LinuxSpawner {
    fn on_watchdog(&self, on_watchdog: impl FnOnce() + Send + 'static) {
        *self.shared.on_watchdog.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Box::new(on_watchdog));
    }

    fn process_exited(&self) {
        self.shared.over.cancel();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A hook may block its thread for ever.
        if let Some(control) = self.control.take() {
            control.shutdown_background();
        }
    }
}
