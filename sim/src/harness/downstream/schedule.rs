//! When a downstream fails, and how.

use crate::{
    harness::proof::CONNECTS,
    scenario::{DownstreamFault, Fault, SERVER},
    trace::{Record, Trace},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Event for a fault that had an effect on the service.
pub(crate) const EFFECT: &str = "downstream";

/// How the effects of a slow downstream begin.
const IS_SLOW: &str = "is slow to ";

/// Whether a record is the effect of a slow downstream.
pub(crate) fn is_slow(record: &Record) -> bool {
    record.event == EFFECT && record.text("what").is_some_and(|what| what.starts_with(IS_SLOW))
}

/// The number of a downstream, when its fault begins and ends, and how it fails.
type Timed = (u64, Duration, Duration, DownstreamFault);

/// The faults of one downstream, in the world's time.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    name: Arc<str>,
    trace: Trace,
    faults: Arc<[Timed]>,
    /// Its place among the downstreams, and their count.
    place: u64,
    count: Arc<AtomicU64>,
    /// Cancelled when the process that uses the downstream has exited.
    gone: Option<CancellationToken>,
}

impl Schedule {
    /// Takes the faults of the downstream number `place` from a scenario. `count` is the number of
    /// downstreams, which is known once the service is built.
    pub(crate) fn new(
        name: &str,
        trace: Trace,
        faults: &[Fault],
        place: u64,
        count: Arc<AtomicU64>,
    ) -> Self {
        let faults = faults.iter().filter_map(|fault| match *fault {
            Fault::Downstream { downstream, at_ms, for_ms, how } => {
                let from = Duration::from_millis(at_ms);
                Some((downstream, from, from + Duration::from_millis(for_ms), how))
            }
            Fault::Hold { .. }
            | Fault::PartialIo { .. }
            | Fault::NoDescriptors { .. }
            | Fault::AcceptAborted
            | Fault::Stall { .. }
            | Fault::ResetAll { .. } => None,
        });
        Self { name: name.into(), trace, faults: faults.collect(), place, count, gone: None }
    }

    /// Ends all use of the downstream when `gone` is cancelled.
    pub(crate) fn until(self, gone: Option<CancellationToken>) -> Self {
        Self { gone, ..self }
    }

    /// Whether the process that uses the downstream has exited. What it has left may still run in
    /// the simulation, and must have no effect.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    pub(crate) fn without_faults(&self) -> Self {
        Self { faults: Arc::new([]), ..self.clone() }
    }

    fn now(&self) -> Duration {
        self.trace.now().unwrap_or_default()
    }

    /// Returns its own faults.
    fn faults(&self) -> impl Iterator<Item = &Timed> {
        let count = self.count.load(Relaxed).max(1);
        self.faults.iter().filter(move |(number, ..)| number % count == self.place)
    }

    /// Returns the fault at this moment.
    pub(super) fn fault(&self) -> Option<DownstreamFault> {
        let now = self.now();
        let current = self.faults().find(|(_, from, until, _)| *from <= now && now < *until);
        current.map(|(.., how)| *how)
    }

    /// Whether connections that were opened at `opened` have been reset since then.
    pub(super) fn has_reset_since(&self, opened: Duration) -> bool {
        let now = self.now();
        self.faults().any(|(_, from, until, how)| how.resets() && *from <= now && opened < *until)
    }

    /// Returns how long it takes until a fault begins or ends.
    pub(super) fn next_change(&self) -> Option<Duration> {
        let now = self.now();
        let edges = self.faults().flat_map(|(_, from, until, _)| [*from, *until]);
        edges.filter(|at| *at > now).min().map(|at| at.saturating_sub(now))
    }

    pub(super) fn opened(&self) -> Duration {
        self.now()
    }

    /// Records an attempt to connect.
    pub(super) fn note_connect(&self) {
        self.trace.record(SERVER, CONNECTS, &[("what", (*self.name).into())]);
    }

    /// Records that a fault had an effect.
    pub(super) fn note(&self, what: &'static str) {
        self.trace.record(&self.name, EFFECT, &[("what", what.into())]);
    }
}
