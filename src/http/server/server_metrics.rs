//! All counters of a server, and the sums that reports and metrics show.

use super::{
    counters::{Counter, RequestCounters},
    worker_metrics::WorkerMetrics,
};
use std::sync::{Arc, Mutex, PoisonError};

/// All counters of one server.
#[derive(Debug, Default)]
pub(crate) struct ServerMetrics {
    /// The counters of each worker.
    workers: Mutex<Vec<Arc<WorkerMetrics>>>,
    pub(crate) accepted: Counter,
    pub(crate) closed: Counter,
    pub(crate) drained: Counter,
    pub(crate) reset: Counter,
    pub(crate) close_races: Counter,
    pub(crate) unannounced: Counter,
    pub(crate) upgraded: Counter,
    pub(crate) upgraded_closed: Counter,
    pub(crate) accept_errors: Counter,
    pub(crate) evicted: Counter,
    pub(crate) first_byte_timeouts: Counter,
    pub(crate) proxy_headers_refused: Counter,
    pub(crate) handshakes: Counter,
    pub(crate) handshakes_failed: Counter,
    pub(crate) handshake_timeouts: Counter,
    pub(crate) streams_ended: Counter,
    pub(super) send_timeouts: Counter,
    pub(super) body_timeouts: Counter,
}

impl ServerMetrics {
    /// Adds the metrics of a worker. Returns its number among the workers.
    pub(crate) fn register(&self, worker: Arc<WorkerMetrics>) -> u64 {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.push(worker);
        workers.len() as u64 - 1
    }

    pub(crate) fn workers(&self) -> Vec<Arc<WorkerMetrics>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the sums over all workers' requests, by outcome (P5c).
    pub(crate) fn requests(&self) -> RequestStats {
        let workers = self.workers();
        let sum = |counter: fn(&RequestCounters) -> &Counter| {
            workers.iter().map(|worker| counter(&worker.requests).get()).sum::<u64>()
        };
        // The ends are read before the starts, so that the number in flight is never negative.
        let finished = sum(|requests| &requests.finished);
        let timed_out = sum(|requests| &requests.timed_out);
        let aborted = sum(|requests| &requests.aborted);
        let gone = sum(|requests| &requests.gone);
        let panicked = sum(|requests| &requests.panicked);
        RequestStats {
            started: sum(|requests| &requests.started),
            finished,
            timed_out,
            aborted,
            gone,
            panicked,
        }
    }

    /// Returns the numbers of connections.
    pub(crate) fn connections(&self) -> ConnectionStats {
        let closed = self.closed.get();
        let upgraded_closed = self.upgraded_closed.get();
        ConnectionStats {
            accepted: self.accepted.get(),
            closed,
            drained: self.drained.get(),
            reset: self.reset.get(),
            close_races: self.close_races.get(),
            unannounced: self.unannounced.get(),
            upgraded: self.upgraded.get(),
            upgraded_closed,
            accept_errors: self.accept_errors.get(),
            evicted: self.evicted.get(),
            first_byte_timeouts: self.first_byte_timeouts.get(),
            proxy_headers_refused: self.proxy_headers_refused.get(),
            handshakes: self.handshakes.get(),
            handshakes_failed: self.handshakes_failed.get(),
            handshake_timeouts: self.handshake_timeouts.get(),
            send_timeouts: self.send_timeouts.get(),
            body_timeouts: self.body_timeouts.get(),
        }
    }
}

/// Requests by outcome (P5c): `started = finished + timed_out + aborted + gone`, plus those in
/// flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RequestStats {
    /// Requests with a complete head.
    pub started: u64,
    /// Requests whose handler's response was passed to the kernel completely. Includes a 500 after
    /// a panic.
    pub finished: u64,
    /// Requests whose deadline, or whose client's body timeout, expired. The client got a 503.
    pub timed_out: u64,
    /// Requests that the shutdown cut, or whose body failed, panicked or did not match its
    /// `content-length`. The client got a 503 or 500 before the head, a reset after it. Also the
    /// requests of an HTTP/2 connection that a CONNECT with a `content-length` ended.
    pub aborted: u64,
    /// Requests whose client left first: it closed or reset its connection or its stream, or
    /// received nothing of its response for the send timeout. An HTTP/1 request whose client has
    /// only shut its side is served, unless [`HalfClose::Drop`](crate::HalfClose::Drop) is set.
    pub gone: u64,
    /// Handlers and bodies that panicked, counted in addition to the outcomes.
    pub panicked: u64,
}

impl RequestStats {
    /// Returns the number of requests without an outcome.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        let ended = self.finished + self.timed_out + self.aborted + self.gone;
        self.started.saturating_sub(ended)
    }
}

/// Connections by event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that were closed, for whatever reason. An upgraded connection counts here when
    /// it is upgraded.
    pub closed: u64,
    /// Connections that were closed in the drain or later, and not reset. A cut HTTP/2 stream is
    /// reset alone, without its connection.
    pub drained: u64,
    /// Connections that the server reset.
    pub reset: u64,
    /// Connections that the server closed while the client's next bytes were already on their way,
    /// or followed the request of the last response (RFC 9112 §9.5). These bytes got no byte of a
    /// response.
    pub close_races: u64,
    /// Connections that the shutdown closed without an announcement before (P4). They were idle,
    /// and no response was sent on them in the lame duck delay, or none after the moment at which
    /// the connection was to announce its close.
    pub unannounced: u64,
    /// Connections that were upgraded to another protocol.
    pub upgraded: u64,
    /// Upgraded connections that ended.
    pub upgraded_closed: u64,
    /// Accepts that failed.
    pub accept_errors: u64,
    /// Idle connections that were closed at the connection limit to make room.
    pub evicted: u64,
    /// Connections that were closed because no byte arrived within the first-byte timeout.
    pub first_byte_timeouts: u64,
    /// Connections that were closed because their PROXY header was missing, invalid, or incomplete
    /// after the header timeout.
    pub proxy_headers_refused: u64,
    /// TLS handshakes that were completed.
    pub handshakes: u64,
    /// TLS handshakes that failed, or whose client left in the middle.
    pub handshakes_failed: u64,
    /// Connections that were closed because their TLS handshake took longer than the handshake
    /// timeout.
    pub handshake_timeouts: u64,
    /// Connections and HTTP/2 streams that were cut because their client received nothing of a
    /// response for the send timeout.
    pub send_timeouts: u64,
    /// Requests whose client sent nothing of the body for the body timeout, before or after the
    /// response.
    pub body_timeouts: u64,
}

impl ConnectionStats {
    /// Returns the number of open connections, including upgraded ones.
    #[must_use]
    pub const fn open(&self) -> u64 {
        (self.accepted + self.upgraded).saturating_sub(self.closed + self.upgraded_closed)
    }
}
