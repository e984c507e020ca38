//! Work that the drain waits for, and what is counted of it (P13).

use super::{
    state::{ServerState, millis},
    tracked::{Kind, TrackedWork, Work, WorkOrigin},
};
use crate::unwind::unwind;
use std::sync::Arc;

/// Work that was spawned. If its runtime ends first, it counts as dropped.
#[derive(Debug)]
struct SpawnedWork {
    server: Arc<ServerState>,
    tracked: TrackedWork,
    /// Whether its end was counted, if that is to be.
    is_counted: bool,
}

impl SpawnedWork {
    const fn set_counted(&mut self) {
        self.is_counted = true;
    }
}

impl Drop for SpawnedWork {
    fn drop(&mut self) {
        if !self.is_counted {
            self.server.record_dropped_work(&self.tracked.work);
        }
    }
}

impl ServerState {
    /// Lists work that the drain waits for.
    pub(crate) fn track(&self, kind: Kind, origin: WorkOrigin) -> TrackedWork {
        TrackedWork::new(&self.work, kind, origin, self.clock.now())
    }

    /// Spawns work that the drain waits for, until it ends or the abort drops it.
    pub(crate) fn spawn<F>(
        self: &Arc<Self>,
        origin: WorkOrigin,
        is_of_stream: impl Fn() -> bool + Send + Sync + 'static,
        work: F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let tracked = self.track(Kind::Work, origin);
        let mut spawned = SpawnedWork { server: self.clone(), tracked, is_counted: false };
        // The result was already counted and logged.
        drop(self.tracked_work.spawn(async move {
            drop(spawned.server.run_tracked(&spawned.tracked, is_of_stream, work).await);
            spawned.set_counted();
        }));
    }

    /// Runs `work` until it ends or the abort drops it: that of ordinary requests, unless
    /// `is_of_stream` then. A request may become a long stream after it has spawned its work. A
    /// panic in the work, or in its destructor, is counted and logged (P13).
    pub(crate) async fn run_tracked<F: Future>(
        &self,
        tracked: &TrackedWork,
        is_of_stream: impl Fn() -> bool,
        work: F,
    ) -> Result<F::Output, String> {
        let mut work = unwind(work);
        let mut ended = self.tokens.abort_requests.run_until_cancelled(&mut work).await;
        if ended.is_none() && is_of_stream() {
            ended = self.tokens.abort.run_until_cancelled(&mut work).await;
        }
        let panic = match ended {
            Some(Ok(output)) => return Ok(output),
            Some(Err(panic)) => panic,
            None => {
                let discarded = work.discard();
                // Work whose destructor blocks until the exit is counted there.
                self.record_dropped_work(&tracked.work);
                match discarded {
                    Ok(()) => {
                        return Err(
                            "dropped: it did not return when its context was cancelled".to_owned()
                        );
                    }
                    Err(panic) => panic,
                }
            }
        };
        self.note_work_panicked(&tracked.work.origin, &panic);
        Err(format!("panicked: {panic}"))
    }

    fn record_dropped_work(&self, work: &Work) {
        self.work_dropped.add_one();
        if self.caps().aborts_listed_max.is_exceeded_by(self.work_dropped.get() as usize) {
            return;
        }
        crate::log::warn!(
            work = %work.origin,
            kind = work.kind.name(),
            age_ms = millis(self.clock.now().since(work.since)),
            "background work dropped: it did not end when its context was cancelled"
        );
    }

    fn note_work_panicked(&self, origin: &WorkOrigin, panic: &str) {
        self.work_panicked.add_one();
        let phase = self.phase().name();
        crate::log::error!(work = %origin, phase, panic, "tracked work panicked");
        let _ = self.first_work_panic.set(format!("{origin}: {panic}"));
    }

    /// Returns a sentence for the report if tracked work panicked.
    pub(crate) fn work_panic_summary(&self) -> Option<String> {
        let first = self.first_work_panic.get()?;
        match self.work_panicked.get() {
            0 | 1 => Some(format!("tracked work panicked: {first}")),
            count => Some(format!("tracked work panicked {count} times, at first {first}")),
        }
    }
}
