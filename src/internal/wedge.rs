//! The wedge detector (P3). A worker that no longer runs is the only reason for liveness to fail.

use crate::{
    http::{ServerState, millis},
    lifecycle::Phase,
    runtime::Clock,
};
use serde_json::{Value, json};
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// The tick of the internal thread. A worker increments its heartbeat ten times per tick.
const TICK: Duration = Duration::from_millis(2_500);

/// The number of ticks without a heartbeat after which a worker is wedged. A single one may come
/// from a pause of the whole process: the tick after a pause can run before the workers do.
const WEDGED_AFTER_TICKS: u64 = 2;

/// The heartbeat counter of each worker, and the number of ticks since it last changed.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    counters: Vec<Arc<AtomicU64>>,
    silent_ticks: Vec<AtomicU64>,
}

impl Heartbeats {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            counters: (0..workers).map(|_| Arc::default()).collect(),
            silent_ticks: (0..workers).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The counter that worker `n` increments.
    pub(crate) fn of_worker(&self, n: usize) -> Option<Arc<AtomicU64>> {
        self.counters.get(n).cloned()
    }

    /// The number of the worker that increments this counter.
    #[cfg(feature = "metrics")]
    pub(crate) fn number_of(&self, counter: &Arc<AtomicU64>) -> Option<usize> {
        self.counters.iter().position(|other| Arc::ptr_eq(other, counter))
    }

    /// The first wedged worker, and the minimum time for which it has not run.
    fn wedged(&self) -> Option<(usize, Duration)> {
        self.silent_ticks.iter().enumerate().find_map(|(worker, silent)| {
            let silent = silent.load(Relaxed);
            let span = TICK.saturating_mul(u32::try_from(silent).unwrap_or(u32::MAX));
            (silent >= WEDGED_AFTER_TICKS).then_some((worker, span))
        })
    }

    /// The first wedged worker, with the request that it is busy with.
    pub(crate) fn blocked(&self, main: &ServerState) -> Option<BlockedWorker> {
        let (worker, silent) = self.wedged()?;
        let counter = self.counters.get(worker)?;
        let metrics = main.metrics.workers();
        let metrics = metrics.iter().find(|metrics| Arc::ptr_eq(&metrics.heartbeat, counter));
        let now = main.clock.now();
        let request =
            metrics.and_then(|metrics| metrics.running()).map(|request| BlockingRequest {
                method: request.method,
                path: request.path,
                age: now.since(request.arrived),
            });
        Some(BlockedWorker { worker, silent, request })
    }

    fn tick(&self, last: &mut [u64]) {
        for ((heartbeat, silent), last) in self.counters.iter().zip(&self.silent_ticks).zip(last) {
            let now = heartbeat.load(Relaxed);
            if now == *last {
                silent.fetch_add(1, Relaxed);
            } else {
                silent.store(0, Relaxed);
            }
            *last = now;
        }
    }

    fn reset(&self) {
        for silent in &self.silent_ticks {
            silent.store(0, Relaxed);
        }
    }
}

/// A worker that no longer runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockedWorker {
    pub(crate) worker: usize,
    /// The minimum time for which it has not run.
    pub(crate) silent: Duration,
    /// The request whose handler blocks it, unless something else does.
    pub(crate) request: Option<BlockingRequest>,
}

/// A request whose handler does not return to its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlockingRequest {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) age: Duration,
}

impl fmt::Display for BlockedWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, silent, request } = self;
        write!(f, "worker {worker} of the main runtime has not run for at least {silent:?}")?;
        if let Some(BlockingRequest { method, path, age }) = request {
            write!(f, "; it is busy with {method} {path}, which arrived {age:.1?} ago")?;
        }
        Ok(())
    }
}

impl BlockedWorker {
    /// The form in the status.
    pub(crate) fn to_json(&self) -> Value {
        let request = self.request.as_ref().map(|request| {
            let age_ms = millis(request.age);
            json!({"method": request.method, "path": request.path, "age_ms": age_ms})
        });
        json!({"worker": self.worker, "silent_ms": millis(self.silent), "request": request})
    }

    fn log(&self) {
        let request = self.request.as_ref();
        crate::log::error!(
            worker = self.worker,
            silent_ms = millis(self.silent),
            method = request.map(|request| request.method.as_str()),
            path = request.map(|request| request.path.as_str()),
            age_ms = request.map(|request| millis(request.age)),
            "a worker is blocked"
        );
    }
}

/// Ticks on the internal thread. Workers are checked until the drain begins, which has its own
/// limits.
pub(crate) async fn watch(
    clock: Arc<dyn Clock>,
    main: Arc<ServerState>,
    heartbeats: Arc<Heartbeats>,
) {
    let mut last = vec![u64::MAX; heartbeats.counters.len()];
    // The worker that the log has named as blocked.
    let mut logged = None;
    loop {
        clock.sleep_until(clock.now() + TICK).await;
        if matches!(main.phase(), Phase::Serving | Phase::LameDuck) {
            heartbeats.tick(&mut last);
            let blocked = heartbeats.blocked(&main);
            let worker = blocked.as_ref().map(|blocked| blocked.worker);
            if let Some(blocked) = blocked.filter(|_| worker != logged) {
                blocked.log();
            }
            logged = worker;
        } else {
            heartbeats.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silent_tick_is_a_pause_and_two_are_a_wedge() {
        let heartbeats = Heartbeats::new(2);
        let mut last = [u64::MAX; 2];
        let beat = |n: usize| heartbeats.of_worker(n).unwrap().fetch_add(1, Relaxed);
        heartbeats.tick(&mut last);
        beat(1);
        heartbeats.tick(&mut last);
        assert_eq!(heartbeats.wedged(), None, "one silent tick");
        beat(1);
        heartbeats.tick(&mut last);
        assert_eq!(heartbeats.wedged(), Some((0, TICK * 2)));
        beat(0);
        beat(1);
        heartbeats.tick(&mut last);
        assert_eq!(heartbeats.wedged(), None, "it runs again");
    }
}
