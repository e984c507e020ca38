//! Counters of one worker. They have their own cache lines, so that counting does not slow down
//! other workers.

use super::{
    counters::{Counter, Gauge, RequestCounters, WorkerThreads},
    tracked::{KnownRequest, Listed, RunningRequest},
    worker_runtime::WorkerRuntime,
};
use crate::lifecycle::Moment;
use std::sync::{Arc, atomic::AtomicU64};
use tokio_util::sync::CancellationToken;

/// The counters of one worker. Only the worker adds to them; a scrape reads them and adds up all
/// workers.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct WorkerMetrics {
    threads: WorkerThreads,
    pub(super) requests: RequestCounters,
    /// Grows while the worker runs (P3).
    pub(crate) heartbeat: Arc<AtomicU64>,
    /// All requests whose state exists. A state serves one request after another.
    pub(crate) known: Listed<Arc<KnownRequest>>,
    /// The tokens of contexts that are cancelled with the ordinary requests.
    pub(crate) ordinary_tokens: Listed<CancellationToken>,
    /// Connections whose TLS handshake is under way.
    pub(crate) opening: Gauge,
    /// HTTP/1 connections that hyper serves.
    pub(crate) http1: Gauge,
    /// HTTP/1 connections without hyper that keep the state of the fast path.
    pub(crate) fast_path: Gauge,
    pub(crate) http2: Gauge,
    pub(crate) lingering: Gauge,
    #[cfg(feature = "metrics")]
    pub(crate) latency: super::latency::Latency,
    /// The metrics of the runtime that runs the worker's connections.
    #[cfg(feature = "metrics")]
    pub(crate) runtime: Option<super::worker_runtime::RuntimeMetrics>,
}

impl WorkerMetrics {
    /// Returns the metrics of a worker whose tasks run on `threads`.
    pub(crate) fn new(runtime: &WorkerRuntime, heartbeat: Arc<AtomicU64>) -> Self {
        Self {
            threads: runtime.threads,
            requests: RequestCounters::default(),
            heartbeat,
            known: Listed::default(),
            ordinary_tokens: Listed::default(),
            opening: Gauge::default(),
            http1: Gauge::default(),
            fast_path: Gauge::default(),
            http2: Gauge::default(),
            lingering: Gauge::default(),
            #[cfg(feature = "metrics")]
            latency: super::latency::Latency::default(),
            #[cfg(feature = "metrics")]
            runtime: runtime.metrics(),
        }
    }

    /// Returns the oldest request whose handler is being called or polled.
    pub(crate) fn running(&self) -> Option<RunningRequest> {
        let known = self.known.entries();
        let running = known.iter().filter_map(|request| request.running());
        running.min_by_key(|request| request.arrived)
    }

    /// Returns the requests in flight that were not served at once.
    pub(super) fn slow(&self) -> Vec<Arc<KnownRequest>> {
        self.known.entries_with(|request| request.is_slow())
    }

    /// Adds one request to the counter that `which` selects.
    pub(crate) fn count(&self, which: fn(&RequestCounters) -> &Counter) {
        which(&self.requests).add(1, self.threads);
    }

    /// Records the latency of a response: from `arrived`, when its request head was complete, to
    /// `now`, when the kernel has taken it whole. The clock is read only if latencies are recorded.
    pub(crate) fn on_finished(&self, arrived: Moment, now: &impl Fn() -> Moment) {
        #[cfg(feature = "metrics")]
        self.latency.observe(now().as_nanos().saturating_sub(arrived.as_nanos()), self.threads);
        #[cfg(not(feature = "metrics"))]
        let _ = (arrived, now);
    }
}

/// Counts one connection in a gauge of its worker until it is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    metrics: Arc<WorkerMetrics>,
    gauge: fn(&WorkerMetrics) -> &Gauge,
}

impl Counted {
    pub(crate) fn new(metrics: &Arc<WorkerMetrics>, gauge: fn(&WorkerMetrics) -> &Gauge) -> Self {
        gauge(metrics).add_one();
        Self { metrics: metrics.clone(), gauge }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.gauge)(&self.metrics).subtract_one();
    }
}
