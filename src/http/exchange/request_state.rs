//! The state of one request, and its single outcome (P5c).

use super::{
    body_wait::{BodyWait, CONFIRM_CHECK, Waited},
    connection_state::{ConnectionState, Protocol},
};
use crate::http::server::{
    client_timeout::ClientTimeout,
    deadline_timers::TimeoutSource,
    outcome::{EndedRequest, OutcomeObserver, RequestOutcome},
    state::ServerState,
    tracked::KnownRequest,
};
use crate::lifecycle::Moment;
use http::{Method, StatusCode, Uri, Version};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
    time::Duration,
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
    deadline: AtomicU64,
    /// The deadline that follows from the host's timeout.
    host_deadline: Moment,
    /// The status of the response, 0 without one.
    status: AtomicU16,
    /// Bytes of the handler's response body that were passed on to be sent.
    body_bytes: AtomicU64,
    body: AtomicU8,
    /// Bytes of the response that h2 has taken.
    taken: AtomicU64,
    /// Bytes of these that h2 no longer holds, because it has written or discarded them.
    passed: AtomicU64,
    /// h2 has discarded bytes of the response.
    discarded: AtomicBool,
    /// The last chunk of the response carries the end of its HTTP/2 stream.
    ends_with_chunk: AtomicBool,
    /// The response body waits until h2 has written all that it took.
    is_awaited: AtomicBool,
    /// Wakes the response body from that wait.
    on_written: Mutex<Option<Waker>>,
    /// What is known about the request, as bits of [`Flag`].
    flags: AtomicU8,
    /// When a gRPC call must have ended. Set with [`Flag::Call`].
    call_deadline: AtomicU64,
    /// The number of a long stream. Set before [`Flag::Stream`].
    stream_number: AtomicU64,
    cancellation: OnceLock<CancellationToken>,
    /// Key of the token in its worker's list of tokens, or [`NOT_LISTED`].
    token_key: AtomicU32,
    /// The wait for the body, if the request has one.
    body_wait: Mutex<BodyWait>,
    cancel_cause: AtomicU8,
}

/// The cause for which a request's context was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelCause {
    /// The deadline of the request has passed.
    Deadline,
    /// The service is shutting down, and the drain has ended.
    Shutdown,
    /// The client has half-closed its HTTP/1 connection. It may be gone, or it may still read the
    /// response, which is sent: see [`HalfClose`](crate::HalfClose).
    ClientHalfClosed,
    /// The client can receive no response. It has closed or reset the connection or the stream, or
    /// it has half-closed the connection under [`HalfClose::Drop`](crate::HalfClose::Drop).
    ClientGone,
    /// The response was cut, because its body failed.
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

/// A fact about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flag {
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
const NOT_LISTED: u32 = u32::MAX;

/// Value of `cancel_cause` while the context is not cancelled.
const NOT_CANCELLED: u8 = u8::MAX;

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
            taken: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            discarded: AtomicBool::new(false),
            ends_with_chunk: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            on_written: Mutex::new(None),
            flags: AtomicU8::new(0),
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
        *self.taken.get_mut() = 0;
        *self.passed.get_mut() = 0;
        *self.discarded.get_mut() = false;
        *self.ends_with_chunk.get_mut() = false;
        *self.body.get_mut() = BodyRead::Absent as u8;
        *self.is_awaited.get_mut() = false;
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

    /// Records that the stream of a call was reset at the deadline of the call.
    pub(crate) fn record_call_expired(&self) {
        self.set_flag(Flag::CallExpired);
    }

    pub(super) fn is_call_expired(&self) -> bool {
        self.has_flag(Flag::CallExpired)
    }

    // Long streams.

    /// Makes the request a long stream: the drain of ordinary requests does not end it.
    pub(super) fn begin_stream(&self) {
        if !self.is_stream() {
            self.stream_number.store(self.server().number_stream(), Relaxed);
            self.set_flag(Flag::Stream);
            self.unlist_token();
        }
        self.connection.upgrade.begin_stream();
    }

    pub(super) fn is_stream(&self) -> bool {
        self.has_flag(Flag::Stream)
    }

    /// Returns when this long stream ends in the drain.
    pub(super) fn stream_end(&self) -> Moment {
        self.server().stream_end(self.stream_number.load(Relaxed))
    }

    /// Counts that the shutdown ends this long stream.
    pub(super) fn count_stream_end(&self) {
        if self.flags.fetch_or(Flag::StreamEnded as u8, Relaxed) & Flag::StreamEnded as u8 == 0 {
            self.server().metrics.streams_ended.add_one();
        }
    }

    /// Waits for the end of this long stream: its moment in the drain, or the end of the drain.
    pub(super) async fn stream_ended(&self) {
        let server = self.server();
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
        self.server().tokens.requests.cancelled().await;
        self.root().cancelled().await;
    }

    /// Returns the token whose cancellation drops this request.
    pub(super) fn abort(&self) -> &CancellationToken {
        let tokens = &self.server().tokens;
        if self.is_stream() { &tokens.abort } else { &tokens.abort_requests }
    }

    fn set_flag(&self, flag: Flag) {
        self.flags.fetch_or(flag as u8, Relaxed);
    }

    fn has_flag(&self, flag: Flag) -> bool {
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

    // The wait for the body, which ends with the head of the response.

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

    pub(super) fn begin_body_wait(&self, waker: &Waker) {
        self.connection.on_body_awaited();
        self.body_wait().begin(waker, || self.server().clock.now());
    }

    /// Ends the wait: the body was polled and returned this number of bytes, or it is no longer
    /// read.
    pub(super) fn end_body_wait(&self, bytes: usize) {
        self.connection.on_body_read(bytes);
        self.body_wait().end();
    }

    /// Returns whether the client has delayed its body for too long; `None` without a body.
    pub(super) fn check_body_wait(&self, now: Moment) -> Option<Waited> {
        if !self.has_body() {
            return None;
        }
        let mut wait = self.body_wait();
        if self.connection.may_body_window_be_closed() {
            // Flow control may keep the client from sending.
            wait.end();
        }
        let waited = wait.check(now, |since| self.server().gives_up(since, ClientTimeout::Body));
        if matches!(waited, Waited::TooLong { .. })
            && self.connection.protocol == Protocol::Http1
            && self.connection.io.may_have_unread()
        {
            // Bytes that have arrived by now are read first.
            return Some(Waited::NotYet { next_check: now + CONFIRM_CHECK });
        }
        Some(waited)
    }

    // Updated by the chunks of the response.

    pub(super) fn on_buffered(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Relaxed);
        self.connection.responses.on_buffered(bytes);
    }

    pub(super) fn on_written(&self, bytes: usize) {
        self.passed.fetch_add(bytes as u64, SeqCst);
        self.connection.responses.on_delivered(bytes);
        if self.is_awaited.load(SeqCst) {
            self.wake_if_written();
        }
    }

    pub(super) fn on_discarded(&self, bytes: usize) {
        self.discarded.store(true, Relaxed);
        self.passed.fetch_add(bytes as u64, Relaxed);
        self.connection.responses.on_discarded(bytes);
    }

    pub(super) fn record_last_chunk(&self) {
        self.ends_with_chunk.store(true, Relaxed);
    }

    pub(super) fn ends_with_chunk(&self) -> bool {
        self.ends_with_chunk.load(Relaxed)
    }

    /// Bytes of the response that h2 holds and has not written.
    pub(crate) fn unwritten(&self) -> u64 {
        let passed = self.passed();
        self.taken.load(Relaxed).saturating_sub(passed)
    }

    /// Bytes of the response that h2 took and no longer holds.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Relaxed)
    }

    /// Ready once h2 has written all that it took.
    pub(super) fn poll_written(&self, cx: &Context<'_>) -> Poll<()> {
        *self.on_written.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        self.is_awaited.store(true, SeqCst);
        if self.taken.load(SeqCst) > self.passed.load(SeqCst) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    #[cold]
    fn wake_if_written(&self) {
        if self.unwritten() == 0
            && let Some(waker) =
                self.on_written.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            waker.wake();
        }
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
        observer.observe(&EndedRequest {
            outcome,
            method: &self.method,
            path: &self.known.name().1,
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

    pub(super) fn is_cut_by_drain(&self) -> bool {
        self.has_flag(Flag::CutByDrain)
    }

    pub(crate) fn record_cut_by_drain(&self) {
        self.set_flag(Flag::CutByDrain);
    }

    /// Returns how much of a response was written whose body has ended.
    pub(super) fn written_part(&self) -> Written {
        if self.discarded.load(Relaxed) {
            Written::Incomplete
        } else if self.unwritten() > 0 {
            Written::Pending
        } else {
            Written::Complete
        }
    }

    /// Returns the request's token. It is created at the first call, since most handlers never use
    /// it.
    pub(super) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(|| {
            // A request may become a long stream until ordinary ones are cancelled.
            let tokens = &self.server().tokens;
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
    fn unlist_token(&self) {
        let key = self.token_key.swap(NOT_LISTED, Relaxed);
        if key != NOT_LISTED {
            self.connection.worker.metrics.ordinary_tokens.remove(key);
        }
    }
}

impl RequestState {
    /// Cancels the request's context. A later cause replaces an earlier one.
    pub(crate) fn cancel(&self, cause: CancelCause) {
        self.cancel_cause.store(cause as u8, Relaxed);
        self.cancellation().cancel();
    }

    pub(super) fn cancel_cause(&self) -> Option<CancelCause> {
        let own = CancelCause::ALL.get(usize::from(self.cancel_cause.load(Relaxed))).copied();
        own.or_else(|| self.root().is_cancelled().then_some(CancelCause::Shutdown))
    }

    /// Cancels the request's context if its client has half-closed the connection.
    pub(super) fn cancel_if_half_closed(&self) {
        if self.connection.io.is_half_closed() && self.cancel_cause().is_none() {
            self.cancel(CancelCause::ClientHalfClosed);
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

/// How much of a response was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Complete,
    Pending,
    /// The stream was reset.
    Incomplete,
}
