//! What one worker counts for itself: a cache line of its own, so that counting costs no other worker anything.

use super::{
    outstanding::Listed,
    server_metrics::{Counter, RequestCounters, WorkerThreads},
};
use crate::http::exchange::request_state::{InFlight, RequestState};
use crate::lifecycle::Moment;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A worker's own counts. It adds; whoever scrapes reads, and adds the workers up.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct WorkerMetrics {
    threads: WorkerThreads,
    pub(crate) requests: RequestCounters,
    /// Requests in flight that take time.
    pub(crate) listed: Listed<Arc<RequestState>>,
    /// HTTP/1 connections that are with hyper.
    pub(crate) http1: Gauge,
    /// Those that are not, and keep what it takes to answer plain requests.
    pub(crate) direct: Gauge,
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
            direct: Gauge::default(),
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

    /// An answer was handed to the kernel whole, `now`: asked only if somebody keeps the time.
    pub(crate) fn on_finished(&self, in_flight: &InFlight, now: &impl Fn() -> Moment) {
        #[cfg(feature = "metrics")]
        self.latency.observe(
            now().as_nanos().saturating_sub(in_flight.request().arrived.as_nanos()),
            self.threads,
        );
        #[cfg(not(feature = "metrics"))]
        let _ = (in_flight, now);
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicUsize);

impl Gauge {
    pub(crate) fn add_one(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(crate) fn take_one(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}
