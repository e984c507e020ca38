//! Everything that a server counts, and the sums that reports and metrics show.

use super::{
    connection_slot::ConnectionSlot,
    counters::{Counter, RequestCounters},
    worker_metrics::WorkerMetrics,
};
use std::sync::{Arc, Mutex, PoisonError};

/// Everything counted on one side of the service.
#[derive(Debug, Default)]
pub(crate) struct ServerMetrics {
    /// What each worker counts for itself.
    workers: Mutex<Vec<Arc<WorkerMetrics>>>,
    pub(crate) accepted: Counter,
    pub(crate) closed: Counter,
    pub(crate) drained: Counter,
    pub(crate) reset: Counter,
    pub(crate) close_races: Counter,
    pub(crate) untold: Counter,
    pub(crate) upgraded: Counter,
    pub(crate) upgraded_closed: Counter,
    pub(crate) accept_errors: Counter,
    pub(crate) evicted: Counter,
    pub(crate) first_byte_timeouts: Counter,
    pub(crate) send_timeouts: Counter,
    pub(crate) body_timeouts: Counter,
}

impl ServerMetrics {
    /// Adds a worker's counts to those that are read. Returns its number among the workers.
    pub(crate) fn register(&self, worker: Arc<WorkerMetrics>) -> u64 {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.push(worker);
        workers.len() as u64 - 1
    }

    pub(crate) fn workers(&self) -> Vec<Arc<WorkerMetrics>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An idle connection is closed by the shutdown.
    pub(crate) fn note_untold(&self, slot: &ConnectionSlot) {
        if !slot.has_announced() {
            self.untold.add_one();
        }
    }

    /// The requests, as P5 counts them.
    pub(crate) fn requests(&self) -> RequestStats {
        let workers = self.workers();
        let sum = |counter: fn(&RequestCounters) -> &Counter| {
            workers.iter().map(|worker| counter(&worker.requests).get()).sum::<u64>()
        };
        // The ends are read before the beginnings, so that what is in flight never comes out negative.
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

    /// The connections.
    pub(crate) fn connections(&self) -> ConnectionStats {
        let closed = self.closed.get();
        let upgraded_closed = self.upgraded_closed.get();
        ConnectionStats {
            accepted: self.accepted.get(),
            closed,
            drained: self.drained.get(),
            reset: self.reset.get(),
            close_races: self.close_races.get(),
            untold: self.untold.get(),
            upgraded: self.upgraded.get(),
            upgraded_closed,
            accept_errors: self.accept_errors.get(),
            evicted: self.evicted.get(),
            first_byte_timeouts: self.first_byte_timeouts.get(),
            send_timeouts: self.send_timeouts.get(),
            body_timeouts: self.body_timeouts.get(),
        }
    }
}

/// Requests by their fate (P5): `started = finished + timed_out + aborted + gone + in in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestStats {
    /// Heads that were complete.
    pub started: u64,
    /// The handler's own answer was handed to the kernel whole; a 500 after a panic included.
    pub finished: u64,
    /// The request's deadline, or the body timeout of its client, came first; the client got a 503.
    pub timed_out: u64,
    /// It was cut, by the shutdown or by a body that failed, panicked or was not as long as its `content-length`: a 503 or 500
    /// before the head, a reset after it.
    pub aborted: u64,
    /// The client left first: it closed or reset its connection or its stream, or took nothing of its
    /// response for the send timeout. One of HTTP/1 that has only shut its side is served, unless
    /// [`HalfClose::Drop`](crate::HalfClose::Drop) is set.
    pub gone: u64,
    /// Handlers and bodies that panicked, counted beside the fates.
    pub panicked: u64,
}

impl RequestStats {
    /// Requests whose fate is open.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        let ended = self.finished + self.timed_out + self.aborted + self.gone;
        self.started.saturating_sub(ended)
    }
}

/// Connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionStats {
    /// Accepted.
    pub accepted: u64,
    /// Closed, however. Upgraded ones leave this count when they are upgraded.
    pub closed: u64,
    /// Closed in the drain or later, and not reset. A stream of HTTP/2 that was cut is reset alone.
    pub drained: u64,
    /// Reset by us.
    pub reset: u64,
    /// Closed by us when the client's next bytes were already on their way, or stood behind the last answer: RFC 9112 §9.5. They got
    /// no byte of an answer.
    pub close_races: u64,
    /// Closed by the shutdown without an announcement before (P4): idle connections on which no response was sent in the lame duck
    /// delay, or none after the moment at which the connection was to announce its close.
    pub untold: u64,
    /// Upgraded to another protocol.
    pub upgraded: u64,
    /// Upgraded ones that ended.
    pub upgraded_closed: u64,
    /// Accepts that failed.
    pub accept_errors: u64,
    /// Idle ones that were closed at the connection limit to make room.
    pub evicted: u64,
    /// Closed because no byte came within the first-byte timeout.
    pub first_byte_timeouts: u64,
    /// Connections and HTTP/2 streams that were cut because their client took nothing of a response for the send timeout.
    pub send_timeouts: u64,
    /// Requests whose client sent nothing of the body for the body timeout.
    pub body_timeouts: u64,
}

impl ConnectionStats {
    /// Connections that are open, upgraded ones included.
    #[must_use]
    pub const fn open(&self) -> u64 {
        (self.accepted + self.upgraded).saturating_sub(self.closed + self.upgraded_closed)
    }
}
