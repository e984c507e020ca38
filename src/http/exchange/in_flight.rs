//! Requests in flight, and the queue of those whose responses have ended.
//!
//! A response is *finished* only once all of its bytes were handed to the kernel (P5c). Until then
//! its request waits in the queue of its connection. Requests refer to that queue weakly, so there
//! is no reference cycle.

use super::{
    connection_state::{ConnectionState, Protocol},
    request_end::CancelCause,
    request_state::RequestState,
    response_progress::Written,
};
use crate::{
    http::server::{
        abort::{AbortCause, AbortedRequest},
        outcome::RequestOutcome,
        state::ServerState,
    },
    lifecycle::{Moment, Phase},
};
use std::{
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

/// A request in flight. Its holder must settle its outcome. If it is dropped unsettled, it counts
/// as *aborted* if the host cut it, and else as *gone*.
#[derive(Debug)]
pub(crate) struct InFlight {
    request: Arc<RequestState>,
    outcome: Outcome,
    /// Whether it counts as a long stream of its connection.
    is_stream_counted: bool,
    /// The queue of the connection, for the end of the response. Dangling while the request is
    /// served without hyper.
    queue: Weak<UnflushedResponses>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Settled,
}

impl InFlight {
    pub(super) fn begin(request: Arc<RequestState>, queue: Weak<UnflushedResponses>) -> Self {
        request.connection.worker.metrics.count(|requests| &requests.started);
        request.set_in_flight(true);
        Self { request, outcome: Outcome::Open, is_stream_counted: false, queue }
    }

    /// From now on the request is served by hyper.
    pub(super) fn set_queue(&mut self, queue: Weak<UnflushedResponses>) {
        self.queue = queue;
    }

    /// The body of the response has ended. An HTTP/2 stream may outlive its connection by a moment:
    /// a response that ends then was not sent.
    pub(super) fn end_response(mut self) {
        match mem::take(&mut self.queue).upgrade() {
            Some(queue) => queue.push(self),
            None => self.connection().on_request_ended(),
        }
    }

    pub(super) const fn request(&self) -> &Arc<RequestState> {
        &self.request
    }

    pub(crate) fn connection(&self) -> &Arc<ConnectionState> {
        &self.request.connection
    }

    pub(crate) fn server(&self) -> &Arc<ServerState> {
        self.request.connection.server()
    }

    /// Returns whether an HTTP/1 handler has dropped its request body unread. The connection then
    /// polls hyper again, which skips what has arrived, before it looks at what hyper has done.
    pub(super) fn begin_skip(&self) -> bool {
        let connection = self.connection();
        let skips = connection.protocol == Protocol::Http1 && connection.bodies.is_last_dropped();
        if skips {
            connection.bodies.on_skip();
        }
        skips
    }

    pub(super) fn method_and_path(&self) -> (String, String) {
        self.request.method_and_path()
    }

    /// Marks the request as slow. A shutdown names the slow requests for which it waits (P13).
    pub(super) fn set_slow(&mut self) {
        self.request.set_slow(true);
        if self.request.is_stream() && !self.is_stream_counted {
            self.is_stream_counted = true;
            self.connection().on_stream();
        }
    }

    pub(super) fn record_head_sent(&self, sent: bool) {
        self.request.set_head_sent(sent);
    }

    /// Logs why the client gets a 500 instead of the handler's response.
    #[cold]
    pub(super) fn log_refusal(&self, why: &dyn fmt::Display) {
        let (method, path) = self.method_and_path();
        crate::log::error!(error = %why, method, path, "invalid response; the client gets a 500");
    }

    pub(super) fn count_panic(&self) {
        self.connection().worker.metrics.count(|requests| &requests.panicked);
    }

    /// Settles the request as *finished*: its complete response was handed to the kernel at `now`.
    pub(crate) fn finish(&mut self, now: &impl Fn() -> Moment) {
        self.outcome = Outcome::Settled;
        self.connection().worker.metrics.on_finished(self.request.arrived, now);
        self.connection().worker.metrics.count(|requests| &requests.finished);
        self.observe(RequestOutcome::Finished);
    }

    /// Settles the request as *timed out*.
    pub(super) fn time_out(mut self) {
        self.record_timed_out();
    }

    fn record_timed_out(&mut self) {
        self.outcome = Outcome::Settled;
        self.connection().worker.metrics.count(|requests| &requests.timed_out);
        self.observe(RequestOutcome::TimedOut);
        self.request.cancel(CancelCause::Deadline);
    }

    /// Settles the request as *aborted*.
    pub(crate) fn abort(mut self, abort_cause: AbortCause) {
        self.record_aborted(abort_cause);
    }

    fn observe(&self, outcome: RequestOutcome) {
        if let Some(observer) = &self.server().config.outcome_observer {
            self.request.observe(observer, outcome);
        }
    }

    fn record_aborted(&mut self, abort_cause: AbortCause) {
        self.outcome = Outcome::Settled;
        let server = self.server();
        self.connection().worker.metrics.count(|requests| &requests.aborted);
        if abort_cause == AbortCause::Shutdown {
            server.aborted_by_stop.add_one();
        }
        let (method, path) = self.method_and_path();
        server.record_abort(AbortedRequest {
            method,
            path,
            age: server.clock.now().since(self.request.arrived),
            // The cut belongs to Cancelling, even if a worker carries it out after that phase.
            phase: server.phase().min(Phase::Cancelling),
            head_sent: self.request.is_head_sent(),
            by_shutdown: abort_cause == AbortCause::Shutdown,
        });
        self.observe(RequestOutcome::Aborted);
        self.request.cancel(cancel_cause(abort_cause));
    }

    /// Returns why the host cuts a request that is dropped unsettled; `None` if its client has
    /// left.
    fn cut_cause(&self) -> Option<AbortCause> {
        match self.connection().responses.abort_cause() {
            None if self.request.is_aborting() || self.request.is_cut_by_drain() => {
                Some(AbortCause::Shutdown)
            }
            Some(AbortCause::Client) => None,
            abort_cause => abort_cause,
        }
    }

    /// Cancels the context of a request that is dropped unsettled, for what its handler and its
    /// body do when they are dropped (P9).
    #[cold]
    pub(super) fn cancel_dropped(&self) {
        self.request.cancel(if self.request.is_call_expired() {
            CancelCause::Deadline
        } else {
            self.cut_cause().map_or(CancelCause::ClientGone, cancel_cause)
        });
    }
}

const fn cancel_cause(abort_cause: AbortCause) -> CancelCause {
    match abort_cause {
        AbortCause::Shutdown => CancelCause::Shutdown,
        AbortCause::Body => CancelCause::ResponseFailed,
        AbortCause::Client => CancelCause::ClientGone,
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.request.set_running(false);
        self.request.set_slow(false);
        if self.is_stream_counted {
            self.connection().on_stream_ended();
        }
        self.request.set_in_flight(false);
        if self.outcome == Outcome::Settled {
            return;
        }
        if self.request.is_call_expired() {
            self.record_timed_out();
            return;
        }
        if let Some(abort_cause) = self.cut_cause() {
            self.record_aborted(abort_cause);
        } else {
            self.connection().worker.metrics.count(|requests| &requests.gone);
            self.observe(RequestOutcome::Gone);
            self.request.cancel(CancelCause::ClientGone);
        }
    }
}

/// The queue of one connection. Requests that are left in it when it is dropped were not sent: they
/// are *aborted* or *gone*.
#[derive(Debug)]
pub(crate) struct UnflushedResponses {
    connection: Arc<ConnectionState>,
    queue: Mutex<Vec<InFlight>>,
}

impl UnflushedResponses {
    pub(super) fn new(connection: Arc<ConnectionState>) -> Arc<Self> {
        Arc::new(Self { connection, queue: Mutex::default() })
    }

    pub(crate) const fn connection(&self) -> &Arc<ConnectionState> {
        &self.connection
    }

    /// The body of a response has ended.
    pub(crate) fn push(&self, in_flight: InFlight) {
        // The stream of a response of which bytes were thrown away was reset: nothing of it waits
        // for a flush.
        let is_lost = self.connection.protocol == Protocol::Http2
            && in_flight.request().progress.written_part() == Written::Incomplete;
        let lost = if is_lost {
            Some(in_flight)
        } else {
            let mut queue = self.lock();
            queue.push(in_flight);
            self.connection.responses.set_unflushed(queue.len());
            None
        };
        self.connection.on_request_ended();
        drop(lost);
    }

    /// Everything that hyper wrote was flushed. HTTP/2 may still hold bytes of a response.
    pub(crate) fn settle_flushed(&self, now: impl Fn() -> Moment) {
        if !self.connection.responses.has_unflushed() {
            return;
        }
        let mut queue = self.lock();
        match self.connection.protocol {
            // What was flushed has left.
            Protocol::Http1 => {
                for mut in_flight in queue.drain(..) {
                    in_flight.finish(&now);
                }
            }
            Protocol::Http2 => {
                let ended = queue.extract_if(.., |in_flight| {
                    in_flight.request().progress.written_part() != Written::Pending
                });
                for mut in_flight in ended {
                    if in_flight.request().progress.written_part() == Written::Complete {
                        in_flight.finish(&now);
                    }
                }
                queue.iter_mut().for_each(InFlight::set_slow);
            }
        }
        self.connection.responses.set_unflushed(queue.len());
    }

    /// hyper's write buffer is empty, and HTTP/2 may hold more that the client does not take. If
    /// the queue is long, or the last poll left bytes behind, responses that were written whole are
    /// settled without a wait for the rest.
    pub(super) fn settle_written(&self) {
        let settled_from = self.connection.server().caps().unflushed_settled_from;
        let (unflushed, io) = (self.connection.responses.unflushed() as usize, &self.connection.io);
        let is_due = settled_from.is_reached_by(unflushed) || unflushed > 0 && io.is_blocked();
        if self.connection.protocol == Protocol::Http1 || !is_due {
            return;
        }
        let now = self.connection.server().clock.now();
        // The end of the stream may still wait, unless the last chunk carried it.
        self.settle(
            |request| {
                let progress = &request.progress;
                progress.written_part() == Written::Complete && progress.ends_with_chunk()
            },
            |mut in_flight| in_flight.finish(&|| now),
        );
    }

    /// Responses of which HTTP/2 threw bytes away wait for no flush, which might never come.
    pub(crate) fn settle_discarded(&self) {
        if self.connection.responses.take_discarded() {
            self.settle(|request| request.progress.written_part() == Written::Incomplete, drop);
        }
    }

    /// Whether HTTP/2 has thrown bytes of a response away that is in the queue.
    pub(crate) fn has_discarded(&self) -> bool {
        self.connection.responses.has_unflushed()
            && self
                .lock()
                .iter()
                .any(|in_flight| in_flight.request().progress.written_part() == Written::Incomplete)
    }

    /// Marks the requests as slow whose responses cannot be sent, because their client does not
    /// read.
    pub(crate) fn set_slow(&self) {
        if self.connection.responses.has_unflushed() {
            self.lock().iter_mut().for_each(InFlight::set_slow);
        }
    }

    /// The progress of the first response in the queue: when its request arrived, and how many of
    /// its bytes have left.
    pub(crate) fn first(&self) -> Option<[u64; 2]> {
        if !self.connection.responses.has_unflushed() {
            return None;
        }
        let queue = self.lock();
        let request = queue.first()?.request();
        Some([request.arrived.as_nanos(), request.progress.passed()])
    }

    fn settle(&self, which: impl Fn(&RequestState) -> bool, settle: impl Fn(InFlight)) {
        let mut queue = self.lock();
        for in_flight in queue.extract_if(.., |in_flight| which(in_flight.request())) {
            settle(in_flight);
        }
        self.connection.responses.set_unflushed(queue.len());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<InFlight>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UnflushedResponses {
    fn drop(&mut self) {
        self.connection.responses.set_unflushed(0);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Arc, ConnectionState, InFlight, Moment, Protocol, RequestState, UnflushedResponses,
    };
    use crate::{
        http::{
            TestHost,
            server::{announcement::Announcement, connection_slot::ConnectionSlot},
        },
        runtime::Address,
    };
    use http::{Method, Uri};

    // A response whose last bytes had left, and the end of its stream not, was finished. Its client
    // may never see the end (P5c).
    #[test]
    fn a_response_whose_end_may_still_wait_is_not_finished() {
        let worker = TestHost::new().context().0.connection.worker.clone();
        let address = Address::Unix(None);
        let local = Arc::new(address.clone());
        let slot = ConnectionSlot::new(Moment::EPOCH, address, local, Announcement::OPENED_BEFORE);
        let connection = Arc::new(ConnectionState::new(Protocol::Http2, worker, &slot));
        let unflushed = UnflushedResponses::new(connection.clone());
        let finished = || connection.server().metrics.requests().finished;
        let settled_from = connection.server().caps().unflushed_settled_from.get();
        let requests: Vec<_> = (0..settled_from)
            .map(|_| {
                let uri = Uri::from_static("/");
                RequestState::begun(&connection, Moment::EPOCH, &Method::GET, &uri)
            })
            .collect();
        for request in &requests {
            connection.on_call();
            let in_flight = InFlight::begin(request.clone(), Arc::downgrade(&unflushed));
            in_flight.end_response();
        }
        unflushed.settle_written();
        assert_eq!(finished(), 0);
        requests[1].progress.record_last_chunk();
        unflushed.settle_written();
        assert_eq!(finished(), 1);
        unflushed.settle_flushed(|| Moment::EPOCH);
        assert_eq!(finished(), settled_from as u64);
    }
}
