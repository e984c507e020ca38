//! The wedge detector (P3). A worker that no longer runs is the only reason for liveness to fail.

use crate::{http::ServerState, lifecycle::Phase, runtime::Clock};
use std::{
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

    /// The first wedged worker, and the minimum time for which it has not run.
    pub(crate) fn wedged(&self) -> Option<(usize, Duration)> {
        self.silent_ticks.iter().enumerate().find_map(|(worker, silent)| {
            let silent = silent.load(Relaxed);
            let span = TICK.saturating_mul(u32::try_from(silent).unwrap_or(u32::MAX));
            (silent >= WEDGED_AFTER_TICKS).then_some((worker, span))
        })
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

/// Ticks on the internal thread. Workers are checked until the drain begins, which has its own
/// limits.
pub(crate) async fn watch(
    clock: Arc<dyn Clock>,
    main: Arc<ServerState>,
    heartbeats: Arc<Heartbeats>,
) {
    let mut last = vec![u64::MAX; heartbeats.counters.len()];
    loop {
        clock.sleep_until(clock.now() + TICK).await;
        if matches!(main.phase(), Phase::Serving | Phase::LameDuck) {
            heartbeats.tick(&mut last);
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
