//! The state of one request, and its single outcome (P5c).

use super::{
    body_wait::{BodyWait, CONFIRM_CHECK, Waited},
    connection_state::{ConnectionState, Protocol},
    request_bodies::LateBody,
    response_progress::ResponseProgress,
};
use crate::http::server::{
    abort::AbortCause,
    client_timeout::ClientTimeout,
    outcome::{EndedRequest, OutcomeObserver, RequestOutcome},
    state::ServerState,
    tracked::KnownRequest,
};
use crate::lifecycle::Moment;
use http::{Method, StatusCode, Uri, Version};
use std::{
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::Waker,
};
use tokio_util::sync::CancellationToken;

/// State shared by a request and its response. The handler sees it as a
/// [`RequestContext`](super::context::RequestContext).
#[derive(Debug)]
pub(crate) struct RequestState {
    pub(crate) connection: Arc<ConnectionState>,
    pub(super) arrived: Moment,
    method: Method,
    /// Its path is a copy, since a slice of hyper's read buffer would keep hyper from reusing that
    /// buffer.
    known: Arc<KnownRequest>,
    /// Key of the request in its worker's list of known requests.
    known_key: u32,
    pub(super) deadline: AtomicU64,
    /// The deadline that follows from the host's timeout.
    pub(super) host_deadline: Moment,
    /// The status of the response, 0 without one.
    status: AtomicU16,
    /// Bytes of the handler's response body that were passed on to be sent.
    body_bytes: AtomicU64,
    body: AtomicU8,
    /// How much of the response HTTP/2 has written.
    pub(crate) progress: ResponseProgress,
    /// What is known about the request, as bits of [`Flag`].
    pub(super) flags: AtomicU8,
    in_flight: AtomicBool,
    /// When a gRPC call must have ended. Set with [`Flag::Call`].
    pub(super) call_deadline: AtomicU64,
    /// The number of a long stream. Set before [`Flag::Stream`].
    pub(super) stream_number: AtomicU64,
    pub(super) cancellation: OnceLock<CancellationToken>,
    /// Key of the token in its worker's list of tokens, or [`NOT_LISTED`].
    pub(super) token_key: AtomicU32,
    /// The wait for the body, if the request has one.
    body_wait: Mutex<BodyWait>,
    pub(super) cancel_cause: AtomicU8,
}

/// A fact about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    /// The HTTP/2 stream was reset because the drain no longer waits for the client.
    CutByDrain = 1,
    /// The request is a gRPC call.
    Call = 2,
    /// The HTTP/2 stream was reset at the deadline of its call.
    CallExpired = 4,
    /// The response is a long stream.
    Stream = 8,
    /// The end of the long stream by the shutdown was counted.
    StreamEnded = 16,
    /// The request has a body.
    Body = 32,
}

/// Value of `token_key` while the token is not listed.
pub(super) const NOT_LISTED: u32 = u32::MAX;

/// Value of `cancel_cause` while the context is not cancelled.
pub(super) const NOT_CANCELLED: u8 = u8::MAX;

impl RequestState {
    fn new(connection: Arc<ConnectionState>) -> Self {
        let known = Arc::<KnownRequest>::default();
        Self {
            known_key: connection.worker.metrics.known.insert(known.clone()),
            known,
            connection,
            arrived: Moment::EPOCH,
            method: Method::GET,
            deadline: AtomicU64::new(0),
            host_deadline: Moment::NEVER,
            status: AtomicU16::new(0),
            body_bytes: AtomicU64::new(0),
            body: AtomicU8::new(BodyRead::Absent as u8),
            progress: ResponseProgress::default(),
            flags: AtomicU8::new(0),
            in_flight: AtomicBool::new(false),
            call_deadline: AtomicU64::new(u64::MAX),
            stream_number: AtomicU64::new(0),
            cancellation: OnceLock::new(),
            token_key: AtomicU32::new(NOT_LISTED),
            body_wait: Mutex::new(BodyWait::new()),
            cancel_cause: AtomicU8::new(NOT_CANCELLED),
        }
    }

    /// Returns the state of a connection's next request.
    pub(crate) fn begun(
        connection: &Arc<ConnectionState>,
        arrived: Moment,
        method: &Method,
        uri: &Uri,
    ) -> Arc<Self> {
        let mut request = Self::new(connection.clone());
        request.begin(arrived, method, uri);
        Arc::new(request)
    }

    /// Begins another request in this state, to which nothing else refers.
    pub(super) fn begin(&mut self, arrived: Moment, method: &Method, uri: &Uri) {
        self.arrived = arrived;
        if self.method != *method {
            self.method = method.clone();
        }
        self.known.begin(arrived, method, uri.path(), self.server().caps().path_kept_bytes);
        self.host_deadline =
            self.server().config.request_timeout.map_or(Moment::NEVER, |timeout| arrived + timeout);
        *self.deadline.get_mut() = self.host_deadline.as_nanos();
        *self.status.get_mut() = 0;
        *self.body_bytes.get_mut() = 0;
        self.progress.begin();
        *self.body.get_mut() = BodyRead::Absent as u8;
        *self.flags.get_mut() = 0;
        *self.cancel_cause.get_mut() = NOT_CANCELLED;
        if self.cancellation.take().is_some() {
            self.unlist_token();
        }
    }

    pub(super) const fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the method and the path, by which logs name the request. The query is left out,
    /// since it may hold secrets.
    pub(crate) fn method_and_path(&self) -> (String, String) {
        self.known.method_and_path()
    }

    pub(super) fn has_path(&self, path: &str) -> bool {
        self.known.name().1 == path
    }

    pub(crate) fn server(&self) -> &Arc<ServerState> {
        self.connection.server()
    }

    /// Returns the server whose shutdown is that of the process: the main one.
    pub(super) fn process(&self) -> &Arc<ServerState> {
        let server = self.server();
        server.config.process.as_ref().unwrap_or(server)
    }

    pub(super) fn set_flag(&self, flag: Flag) {
        self.flags.fetch_or(flag as u8, Relaxed);
    }

    pub(super) fn has_flag(&self, flag: Flag) -> bool {
        self.flags.load(Relaxed) & flag as u8 != 0
    }

    // The request body.

    pub(super) fn set_body(&self, read: BodyRead) {
        self.body.store(read as u8, Relaxed);
    }

    fn is_body(&self, among: &[BodyRead]) -> bool {
        let body = self.body.load(Relaxed);
        among.iter().any(|read| *read as u8 == body)
    }

    /// Whether a reader that frames trailers differently from hyper may see a different end of this
    /// request. hyper ends lines at CRLF only, other readers also at LF. If true, the connection
    /// serves no later request.
    pub(super) fn is_body_end_unclear(&self) -> bool {
        self.is_body(&[BodyRead::ChunksUnread, BodyRead::WithTrailers])
    }

    /// Whether a response with this status makes its connection speak another protocol.
    pub(super) fn switches_protocol(&self, status: StatusCode) -> bool {
        let is_switch = status == StatusCode::SWITCHING_PROTOCOLS
            || status.is_success() && self.method == Method::CONNECT;
        is_switch && self.connection.protocol == Protocol::Http1
    }

    /// Whether a response with this status would switch the protocol before the whole body was
    /// read.
    pub(super) fn switches_too_soon(&self, status: StatusCode) -> bool {
        self.is_body(&[BodyRead::Unread, BodyRead::ChunksUnread]) && self.switches_protocol(status)
    }

    // The wait for the body.

    pub(super) fn has_body(&self) -> bool {
        self.has_flag(Flag::Body)
    }

    /// Records that the request has a body, of which this is unread.
    pub(super) fn expect_body(&self, read: BodyRead) {
        self.set_flag(Flag::Body);
        self.set_body(read);
    }

    fn body_wait(&self) -> MutexGuard<'_, BodyWait> {
        self.body_wait.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a poll of the body that returned nothing.
    pub(super) fn begin_body_wait(self: &Arc<Self>, waker: &Waker) {
        let read = self.connection.io.read();
        // Locked to the end, since the connection may end the wait meanwhile.
        let mut wait = self.body_wait();
        let begins = wait.begin(waker, read, || self.server().clock.now());
        if begins {
            let request: Weak<Self> = Arc::downgrade(self);
            self.connection.bodies.on_wait_begun(request);
        }
        self.connection.on_body_awaited(begins);
    }

    /// Ends the wait: the body was polled and returned this number of bytes, or it is no longer
    /// read.
    pub(super) fn end_body_wait(&self, bytes: usize) {
        let mut wait = self.body_wait();
        let ends = wait.end();
        self.on_body_read(bytes, ends);
    }

    fn on_body_read(&self, bytes: usize, had_waited: bool) {
        if had_waited {
            self.connection.bodies.on_wait_ended(ptr::from_ref(self));
        }
        self.connection.on_body_read(bytes, had_waited);
    }

    /// Returns whether the client has delayed its body for too long; `None` without a body.
    pub(super) fn check_body_wait(&self, now: Moment) -> Option<Waited> {
        if !self.has_body() {
            return None;
        }
        let mut wait = self.body_wait();
        if self.connection.may_body_window_be_closed() {
            wait.restart(now);
        }
        if self.connection.io.inflow.is_in_data() {
            wait.on_part(self.connection.io.read(), now);
        }
        let is_waiting = wait.is_waiting();
        let waited = wait.check(now, |since| self.server().gives_up(since, ClientTimeout::Body));
        if is_waiting && !wait.is_waiting() {
            // The handler does not read any more.
            self.on_body_read(0, true);
        }
        if matches!(waited, Waited::TooLong { .. })
            && self.connection.protocol == Protocol::Http1
            && self.connection.io.may_have_unread(now)
        {
            // Bytes that have arrived by now are read first.
            return Some(Waited::NotYet { next_check: now + CONFIRM_CHECK });
        }
        Some(waited)
    }

    // Updated by the chunks of the response.

    pub(super) fn on_buffered(&self, bytes: usize) {
        self.progress.on_buffered(bytes);
        self.connection.responses.on_buffered(bytes);
    }

    pub(super) fn on_written(&self, bytes: usize) {
        self.connection.responses.on_delivered(bytes);
        self.progress.on_written(bytes);
    }

    pub(super) fn on_discarded(&self, bytes: usize) {
        self.progress.on_discarded(bytes);
        self.connection.responses.on_discarded(bytes);
    }

    pub(super) fn is_head_sent(&self) -> bool {
        self.known.is_head_sent()
    }

    /// Records whether the head of the response is sent.
    pub(super) fn set_head_sent(&self, sent: bool) {
        self.known.set_head_sent(sent);
    }

    /// Records the status of the handler's response, whose head is sent now.
    pub(super) fn record_head(&self, status: StatusCode) {
        self.record_status(status);
        self.set_head_sent(true);
    }

    /// Records the status of a response in place of the handler's.
    pub(super) fn record_status(&self, status: StatusCode) {
        self.status.store(status.as_u16(), Relaxed);
    }

    /// Records that the host's response for `cause` replaces the handler's, of which nothing is
    /// sent.
    pub(super) fn record_replaced(&self, cause: AbortCause) {
        // A gRPC call gets its error in trailers (the status is 200).
        self.record_status(if self.is_call() { StatusCode::OK } else { cause.status() });
        self.body_bytes.store(0, Relaxed);
    }

    fn status(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.status.load(Relaxed)).ok()
    }

    /// Only the task that sends the response adds to them.
    pub(super) fn add_body_bytes(&self, bytes: usize) {
        self.body_bytes.store(self.body_bytes.load(Relaxed) + bytes as u64, Relaxed);
    }

    /// Takes back bytes that were added, and are to be passed on once more.
    pub(super) fn subtract_body_bytes(&self, bytes: usize) {
        self.body_bytes.store(self.body_bytes.load(Relaxed) - bytes as u64, Relaxed);
    }

    /// Records whether the request is in flight.
    pub(super) fn set_in_flight(&self, is_in_flight: bool) {
        self.in_flight.store(is_in_flight, Relaxed);
    }

    /// Whether the request is in flight, or its connection speaks the protocol that it asked for.
    pub(super) fn is_going_on(&self) -> bool {
        self.in_flight.load(Relaxed)
            || self.has_switched_protocol() && self.connection.upgrade.is_open()
    }

    /// Whether its response makes the connection speak another protocol.
    pub(super) fn has_switched_protocol(&self) -> bool {
        self.status().is_some_and(|status| self.switches_protocol(status))
    }

    /// Records whether the request is in flight and was not served at once.
    pub(super) fn set_slow(&self, is_slow: bool) {
        self.known.set_slow(is_slow);
    }

    /// Records whether the handler is being called or polled.
    pub(super) fn set_running(&self, is_running: bool) {
        self.known.set_running(is_running);
    }

    /// Calls the app's observer.
    #[cold]
    pub(super) fn observe(&self, observer: &OutcomeObserver, outcome: RequestOutcome) {
        let server = self.server();
        // Without the lock, which the driver and the probes take: the observer may block.
        let path = self.known.name().1.clone();
        observer.observe(&EndedRequest {
            outcome,
            method: &self.method,
            path: &path,
            version: match self.connection.protocol {
                Protocol::Http1 => Version::HTTP_11,
                Protocol::Http2 => Version::HTTP_2,
            },
            peer: &self.connection.peer,
            status: self.status(),
            body_bytes: self.body_bytes.load(Relaxed),
            duration: server.clock.now().since(self.arrived),
            phase: server.phase(),
        });
    }
}

impl LateBody for RequestState {
    fn next_check(&self, since: Moment, now: Moment) -> Option<Moment> {
        self.body_wait().restart(since);
        match self.check_body_wait(now)? {
            Waited::NotYet { next_check } => Some(next_check),
            Waited::TooLong { .. } => None,
        }
    }
}

impl Drop for RequestState {
    fn drop(&mut self) {
        self.unlist_token();
        self.connection.worker.metrics.known.remove(self.known_key);
    }
}

/// How much of a request's body the handler has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyRead {
    /// The request has no body.
    Absent,
    /// Not all of a body whose length is known.
    Unread,
    /// Not all of a chunked HTTP/1 body.
    ChunksUnread,
    Complete,
    /// All of the body, and a trailer section after it.
    WithTrailers,
}
