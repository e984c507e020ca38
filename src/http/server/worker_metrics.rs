//! What one worker counts for itself: a cache line of its own, so that counting costs no other worker anything.

use super::{
    counters::{Counter, Gauge, RequestCounters, WorkerThreads},
    tracked::{Listed, SlowRequest},
};
use crate::lifecycle::Moment;
use std::sync::Arc;

/// A worker's own counts. It adds; whoever scrapes reads, and adds the workers up.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct WorkerMetrics {
    threads: WorkerThreads,
    pub(crate) requests: RequestCounters,
    /// Requests in flight that take time.
    pub(crate) listed: Listed<Arc<dyn SlowRequest>>,
    /// HTTP/1 connections that are with hyper.
    pub(crate) http1: Gauge,
    /// Those that are not, and keep what it takes to answer plain requests.
    pub(crate) fast_path: Gauge,
    pub(crate) http2: Gauge,
    pub(crate) lingering: Gauge,
    #[cfg(feature = "metrics")]
    pub(crate) latency: super::latency::Latency,
}

impl WorkerMetrics {
    /// Of a worker whose tasks run on so many threads.
    pub(crate) fn new(threads: WorkerThreads) -> Self {
        Self {
            threads,
            requests: RequestCounters::default(),
            listed: Listed::default(),
            http1: Gauge::default(),
            fast_path: Gauge::default(),
            http2: Gauge::default(),
            lingering: Gauge::default(),
            #[cfg(feature = "metrics")]
            latency: super::latency::Latency::default(),
        }
    }

    /// One request more of which `which` is true.
    pub(crate) fn count(&self, which: fn(&RequestCounters) -> &Counter) {
        which(&self.requests).add(1, self.threads);
    }

    /// A response whose request `arrived` then was handed to the kernel whole, `now`. The clock is read only if latencies are kept.
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
        (self.gauge)(&self.metrics).take_one();
    }
}
