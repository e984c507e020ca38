//! When a request must end: its deadline, its cancellation, and what the shutdown does to it.

use super::request_state::{Flag, NOT_LISTED, RequestState};
use crate::http::server::deadline_timers::TimeoutSource;
use crate::lifecycle::Moment;
use std::{sync::atomic::Ordering::Relaxed, time::Duration};
use tokio_util::sync::CancellationToken;

/// The cause for which a request's context was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelCause {
    /// The deadline of the request has passed, or its client's body timeout.
    Deadline,
    /// The service is shutting down, and the drain has ended. Or the client made no progress for
    /// 5 s of the drain.
    Shutdown,
    /// The client has half-closed its HTTP/1 connection. It may be gone, or it may still read the
    /// response, which is sent: see [`HalfClose`](crate::HalfClose).
    ClientHalfClosed,
    /// The client can receive no response. It has closed or reset the connection or the stream, it
    /// has half-closed the connection under [`HalfClose::Drop`](crate::HalfClose::Drop), or it has
    /// received nothing of the response for the send timeout.
    ClientGone,
    /// The response was cut, because its body failed, or because another request of the client, a
    /// CONNECT with a `content-length`, ended the HTTP/2 connection.
    ResponseFailed,
}

impl CancelCause {
    const ALL: [Self; 5] = [
        Self::Deadline,
        Self::Shutdown,
        Self::ClientHalfClosed,
        Self::ClientGone,
        Self::ResponseFailed,
    ];
}

impl RequestState {
    /// When the response head must be ready; `NEVER` without a deadline.
    pub(crate) fn deadline(&self) -> Moment {
        Moment::from_nanos(self.deadline.load(Relaxed))
    }

    /// Returns the source of `deadline`.
    pub(super) fn timeout_source(&self, deadline: Moment) -> TimeoutSource {
        if deadline == self.host_deadline { TimeoutSource::Host } else { TimeoutSource::Request }
    }

    /// Sets when the response head must be ready. The client of a gRPC call waits no longer than
    /// its own timeout.
    pub(super) fn set_deadline(&self, at: Moment) {
        self.deadline.store(at.min(self.call_deadline()).as_nanos(), Relaxed);
    }

    // gRPC.

    /// Records that the request is a gRPC call, with the timeout that its client has set.
    pub(super) fn begin_call(&self, timeout: Option<Duration>) {
        let until = timeout.map_or(Moment::NEVER, |timeout| self.arrived + timeout);
        self.call_deadline.store(until.as_nanos(), Relaxed);
        self.set_flag(Flag::Call);
        self.set_deadline(self.deadline());
    }

    /// Whether the request is a gRPC call.
    pub(crate) fn is_call(&self) -> bool {
        self.has_flag(Flag::Call)
    }

    /// Returns when the whole call must have ended, by the timeout that its client has set; `NEVER`
    /// if it has set none.
    pub(crate) fn call_deadline(&self) -> Moment {
        if self.is_call() {
            Moment::from_nanos(self.call_deadline.load(Relaxed))
        } else {
            Moment::NEVER
        }
    }

    /// Whether the deadline of the call has passed.
    pub(crate) fn is_call_over(&self) -> bool {
        self.is_call() && self.server().clock.now() >= self.call_deadline()
    }

    /// Records that the stream of a call is reset, at the deadline of the call or at the abort. Its
    /// handler and its body are dropped after that.
    pub(crate) fn record_call_reset(&self) {
        if self.is_call_over() {
            self.set_flag(Flag::CallExpired);
            self.cancel(CancelCause::Deadline);
        }
    }

    pub(super) fn is_call_expired(&self) -> bool {
        self.has_flag(Flag::CallExpired)
    }

    // Long streams.

    /// Makes the request a long stream: the drain of ordinary requests does not end it.
    pub(super) fn begin_stream(&self) {
        if !self.is_stream() {
            self.stream_number.store(self.process().number_stream(), Relaxed);
            self.set_flag(Flag::Stream);
            self.unlist_token();
        }
        // Work that an earlier request has left must not change a later upgrade.
        if self.has_switched_protocol() {
            self.connection.upgrade.begin_stream();
        }
    }

    pub(super) fn is_stream(&self) -> bool {
        self.has_flag(Flag::Stream)
    }

    /// Returns when this long stream ends in the drain.
    pub(super) fn stream_end(&self) -> Moment {
        self.process().stream_end(self.stream_number.load(Relaxed))
    }

    /// Counts that the shutdown ends this long stream, unless it has ended before. Requests of the
    /// internal server are not in the report.
    pub(super) fn count_stream_end(&self) {
        if self.server().config.process.is_none()
            && self.is_going_on()
            && self.flags.fetch_or(Flag::StreamEnded as u8, Relaxed) & Flag::StreamEnded as u8 == 0
        {
            self.server().metrics.streams_ended.add_one();
        }
    }

    /// Waits for the end of this long stream: its moment in the drain, or the end of the drain.
    pub(super) async fn stream_ended(&self) {
        let server = self.process();
        let in_drain = async {
            server.tokens.draining.cancelled().await;
            let at = self.stream_end();
            let mut sleep = server.clock.sleep_until(at);
            // The clock decides, not the sleep, which may be ready early.
            while server.clock.now() < at {
                sleep.as_mut().await;
                sleep.as_mut().reset(at);
            }
        };
        tokio::select! {
            biased;
            () = server.tokens.root.cancelled() => {}
            () = in_drain => {}
        }
    }

    /// Whether the shutdown drops this request.
    pub(crate) fn is_aborting(&self) -> bool {
        if self.is_stream() {
            self.server().is_aborting()
        } else {
            self.server().is_aborting_requests()
        }
    }

    /// Whether the shutdown resets the stream of this HTTP/2 request, while its connection carries
    /// a long stream.
    pub(crate) fn is_cut_alone(&self) -> bool {
        !self.is_stream() && self.server().is_cutting_connection(|| false)
    }

    /// Returns the token whose cancellation means that this request is to return: the root
    /// context's, or the one of ordinary requests.
    pub(super) fn root(&self) -> &CancellationToken {
        let tokens = &self.server().tokens;
        if self.is_stream() { &tokens.root } else { &tokens.requests }
    }

    /// Waits until this request is to return. It may become a long stream meanwhile.
    pub(super) async fn root_cancelled(&self) {
        self.process().tokens.requests.cancelled().await;
        self.process_root().cancelled().await;
    }

    /// Returns the token of the process whose cancellation cancels the request's context.
    fn process_root(&self) -> &CancellationToken {
        let tokens = &self.process().tokens;
        if self.is_stream() { &tokens.root } else { &tokens.requests }
    }

    /// Returns the token whose cancellation drops this request.
    pub(super) fn abort(&self) -> &CancellationToken {
        let tokens = &self.server().tokens;
        if self.is_stream() { &tokens.abort } else { &tokens.abort_requests }
    }

    pub(super) fn is_cut_by_drain(&self) -> bool {
        self.has_flag(Flag::CutByDrain)
    }

    pub(crate) fn record_cut_by_drain(&self) {
        self.set_flag(Flag::CutByDrain);
    }

    // Cancellation.

    /// Returns the request's token. It is created at the first call, since most handlers never use
    /// it.
    pub(super) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(|| {
            let tokens = &self.process().tokens;
            if self.server().config.process.is_some() {
                // The internal server lists no token for the main one. So a request that becomes a
                // long stream later is cancelled with ordinary ones.
                return self.process_root().child_token();
            }
            // A request may become a long stream until ordinary ones are cancelled.
            let token = tokens.root.child_token();
            if !self.is_stream() {
                let listed = &self.connection.worker.metrics.ordinary_tokens;
                self.token_key.store(listed.insert(token.clone()), Relaxed);
                // They may have been cancelled before the token was listed.
                if tokens.requests.is_cancelled() {
                    token.cancel();
                }
            }
            token
        })
    }

    /// From now on the cancellation of ordinary requests leaves the token alone.
    pub(super) fn unlist_token(&self) {
        let key = self.token_key.swap(NOT_LISTED, Relaxed);
        if key != NOT_LISTED {
            self.connection.worker.metrics.ordinary_tokens.remove(key);
        }
    }

    /// Cancels the request's context. A later cause replaces an earlier one.
    pub(crate) fn cancel(&self, cause: CancelCause) {
        self.cancel_cause.store(cause as u8, Relaxed);
        self.cancellation().cancel();
    }

    pub(super) fn cancel_cause(&self) -> Option<CancelCause> {
        let own = CancelCause::ALL.get(usize::from(self.cancel_cause.load(Relaxed))).copied();
        own.or_else(|| self.process_root().is_cancelled().then_some(CancelCause::Shutdown))
    }

    /// Cancels the request's context if its client has half-closed the connection.
    pub(super) fn cancel_if_half_closed(&self) {
        if self.connection.io.is_half_closed() && self.cancel_cause().is_none() {
            self.cancel(CancelCause::ClientHalfClosed);
        }
    }
}
