//! When a downstream fails, and how.

use crate::{
    client::pause,
    harness::proof::CONNECTS,
    scenario::{DownstreamFault, Fault, SERVER},
    trace::{Record, Trace},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
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

/// The moment from which the service gets requests. The times of faults are counted from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving {
    since: Arc<OnceLock<Duration>>,
    has_begun: CancellationToken,
}

impl Serving {
    /// Returns the begin of the world.
    pub(crate) fn at_once() -> Self {
        let serving = Self::default();
        serving.begin(Duration::ZERO);
        serving
    }

    /// Sets it to `now`, unless it was set before.
    pub(crate) fn begin(&self, now: Duration) {
        self.since.get_or_init(|| now);
        self.has_begun.cancel();
    }

    pub(crate) async fn begun(self) {
        self.has_begun.cancelled().await;
    }
}

/// A future that a connection keeps.
pub(super) type Wait = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// The faults of one downstream.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    name: Arc<str>,
    trace: Trace,
    serving: Serving,
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
        serving: Serving,
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
        let (name, faults) = (name.into(), faults.collect());
        Self { name, trace, serving, faults, place, count, gone: None }
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

    /// Returns the time of the faults, or `None` before the first request.
    fn now(&self) -> Option<Duration> {
        let since = self.serving.since.get()?;
        Some(self.trace.now().unwrap_or_default().saturating_sub(*since))
    }

    /// Returns its own faults.
    fn faults(&self) -> impl Iterator<Item = &Timed> {
        let count = self.count.load(Relaxed).max(1);
        self.faults.iter().filter(move |(number, ..)| number % count == self.place)
    }

    /// Returns the fault at this moment.
    pub(super) fn fault(&self) -> Option<DownstreamFault> {
        let now = self.now()?;
        let current = self.faults().find(|(_, from, until, _)| *from <= now && now < *until);
        current.map(|(.., how)| *how)
    }

    /// Whether connections that were opened at `opened` have been reset since then.
    pub(super) fn has_reset_since(&self, opened: Duration) -> bool {
        let Some(now) = self.now() else { return false };
        self.faults().any(|(_, from, until, how)| how.resets() && *from <= now && opened < *until)
    }

    /// Returns a future that ends when a fault begins or ends, or when the first request is sent.
    /// Returns `None` if there will be no more fault.
    pub(super) fn next_change(&self) -> Option<Wait> {
        let Some(now) = self.now() else { return Some(Box::pin(self.serving.clone().begun())) };
        let edges = self.faults().flat_map(|(_, from, until, _)| [*from, *until]);
        let next = edges.filter(|at| *at > now).min()?;
        Some(Box::pin(pause(next.saturating_sub(now))))
    }

    /// Returns the time of the faults at which a connection is opened.
    pub(super) fn opened(&self) -> Duration {
        self.now().unwrap_or_default()
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
