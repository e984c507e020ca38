//! One request: what is known of it, and its one fate (P5).

use super::{
    body_wait::{BodyWait, CONFIRM_CHECK, Waited},
    connection_state::{ConnectionState, Protocol},
};
use crate::http::server::{
    abort::{AbortCause, AbortedRequest},
    client_timeout::ClientTimeout,
    deadline_timers::TimeoutSource,
    state::ServerState,
    tracked::SlowRequest,
};
use crate::lifecycle::{Moment, Phase};
use http::{Method, StatusCode, Uri};
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll, Waker},
};
use tokio_util::sync::CancellationToken;

/// What a request shares with its answer. The handler sees it as a [`RequestContext`](super::context::RequestContext).
#[derive(Debug)]
pub(crate) struct RequestState {
    pub(crate) connection: Arc<ConnectionState>,
    pub(crate) arrived: Moment,
    method: Method,
    /// A copy: a part of hyper's buffer would keep hyper from using it again.
    path: String,
    deadline: AtomicU64,
    /// What the host's timeout makes of it.
    common_deadline: Moment,
    head_sent: AtomicBool,
    body: AtomicU8,
    /// Bytes of the answer that HTTP/2 took, and those of them that it holds no more: written, or thrown away.
    taken: AtomicU64,
    passed: AtomicU64,
    /// HTTP/2 threw some of them away.
    discarded: AtomicBool,
    /// The last piece of the answer carries the end of its HTTP/2 stream.
    ends_with_piece: AtomicBool,
    /// Who waits until all that HTTP/2 took was written, if somebody does.
    is_awaited: AtomicBool,
    on_written: Mutex<Option<Waker>>,
    /// Its stream was reset because the drain waits no longer for the client.
    cut_by_drain: AtomicBool,
    cancellation: OnceLock<CancellationToken>,
    /// Of a request with a body.
    body_wait: OnceLock<Box<Mutex<BodyWait>>>,
    cancel_cause: AtomicU8,
}

/// Why a request's context was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CancelCause {
    /// Its deadline has passed.
    Deadline,
    /// The service shuts down, and the drain is over.
    Shutdown,
    /// Its client has shut its side of an HTTP/1 connection. It may be gone, or may read the response,
    /// which is still sent: see [`HalfClose`](crate::HalfClose).
    ClientHalfClosed,
    /// No response reaches its client: it has closed or reset the connection or the stream, or
    /// [`HalfClose::Drop`](crate::HalfClose::Drop) takes a half-close for that.
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

/// There is none.
const NOT_CANCELLED: u8 = u8::MAX;

/// A longer path does not stay for the next request.
const PATH_KEPT_MAX: usize = 256;

impl RequestState {
    fn new(connection: Arc<ConnectionState>) -> Self {
        Self {
            connection,
            arrived: Moment::EPOCH,
            method: Method::GET,
            path: String::new(),
            deadline: AtomicU64::new(0),
            common_deadline: Moment::NEVER,
            head_sent: AtomicBool::new(false),
            body: AtomicU8::new(BodyRead::Absent as u8),
            taken: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            discarded: AtomicBool::new(false),
            ends_with_piece: AtomicBool::new(false),
            is_awaited: AtomicBool::new(false),
            on_written: Mutex::new(None),
            cut_by_drain: AtomicBool::new(false),
            cancellation: OnceLock::new(),
            body_wait: OnceLock::new(),
            cancel_cause: AtomicU8::new(NOT_CANCELLED),
        }
    }

    /// The next request of a connection. It takes the place of the `last` one, if nobody speaks of that any more: most requests
    /// are over by then, and so cost no allocation.
    pub(crate) fn next(
        last: Option<Arc<Self>>,
        connection: &Arc<ConnectionState>,
        arrived: Moment,
        method: &Method,
        uri: &Uri,
    ) -> Arc<Self> {
        if let Some(mut place) = last
            && let Some(request) = Arc::get_mut(&mut place)
        {
            request.begin(arrived, method, uri);
            return place;
        }
        let mut request = Self::new(connection.clone());
        request.begin(arrived, method, uri);
        Arc::new(request)
    }

    fn begin(&mut self, arrived: Moment, method: &Method, uri: &Uri) {
        self.arrived = arrived;
        self.method.clone_from(method);
        if self.path.capacity() > PATH_KEPT_MAX {
            self.path = String::new();
        }
        self.path.clear();
        self.path.push_str(uri.path());
        self.common_deadline =
            self.server().config.request_timeout.map_or(Moment::NEVER, |timeout| arrived + timeout);
        *self.deadline.get_mut() = self.common_deadline.as_nanos();
        *self.head_sent.get_mut() = false;
        *self.taken.get_mut() = 0;
        *self.passed.get_mut() = 0;
        *self.discarded.get_mut() = false;
        *self.ends_with_piece.get_mut() = false;
        *self.body.get_mut() = BodyRead::Absent as u8;
        *self.is_awaited.get_mut() = false;
        *self.cut_by_drain.get_mut() = false;
        *self.cancel_cause.get_mut() = NOT_CANCELLED;
        drop(self.cancellation.take());
        drop(self.body_wait.take());
    }

    pub(crate) const fn method(&self) -> &Method {
        &self.method
    }

    /// Its method, and its path without the query, which may be nobody's business: what logs call it.
    pub(crate) fn method_and_path(&self) -> (&str, &str) {
        (self.method.as_str(), &self.path)
    }

    pub(crate) fn server(&self) -> &Arc<ServerState> {
        self.connection.server()
    }

    /// When the head of the answer must be there; `NEVER` if it need not.
    pub(crate) fn deadline(&self) -> Moment {
        Moment::from_nanos(self.deadline.load(Relaxed))
    }

    /// Whose `deadline` is.
    pub(crate) fn timeout(&self, deadline: Moment) -> TimeoutSource {
        if deadline == self.common_deadline { TimeoutSource::Host } else { TimeoutSource::Request }
    }

    pub(crate) fn set_deadline(&self, at: Moment) {
        self.deadline.store(at.as_nanos(), Relaxed);
    }

    // Its body.

    pub(crate) fn set_body(&self, read: BodyRead) {
        self.body.store(read as u8, Relaxed);
    }

    fn is_body(&self, among: &[BodyRead]) -> bool {
        let body = self.body.load(Relaxed);
        among.iter().any(|read| *read as u8 == body)
    }

    /// Whether a reader that frames trailers in another way than hyper may see another end of this request. hyper looks for CRLF,
    /// and other readers for LF as well. Then nothing behind it is served.
    pub(crate) fn is_body_end_unclear(&self) -> bool {
        self.is_body(&[BodyRead::ChunksUnread, BodyRead::WithTrailers])
    }

    /// Whether a response with this status makes its connection speak another protocol.
    pub(crate) fn switches_protocol(&self, status: StatusCode) -> bool {
        let is_switch = status == StatusCode::SWITCHING_PROTOCOLS
            || status.is_success() && self.method == Method::CONNECT;
        is_switch && self.connection.protocol == Protocol::Http1
    }

    /// Whether it would do so before all of the body was read.
    pub(crate) fn switches_too_soon(&self, status: StatusCode) -> bool {
        self.is_body(&[BodyRead::Unread, BodyRead::ChunksUnread]) && self.switches_protocol(status)
    }

    // The wait for the body, which ends with the head of the response.

    pub(crate) fn has_body(&self) -> bool {
        self.body_wait.get().is_some()
    }

    pub(crate) fn expect_body(&self) {
        self.body_wait.get_or_init(|| Box::new(Mutex::new(BodyWait::new())));
    }

    fn body_wait(&self) -> Option<MutexGuard<'_, BodyWait>> {
        Some(self.body_wait.get()?.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn begin_body_wait(&self, waker: &Waker) {
        self.connection.on_body_awaited();
        if let Some(mut wait) = self.body_wait() {
            wait.begin(waker, || self.server().clock.now());
        }
    }

    /// The body was polled and had so many bytes, or is not read any more.
    pub(crate) fn end_body_wait(&self, bytes: usize) {
        self.connection.on_body_read(bytes);
        if let Some(mut wait) = self.body_wait() {
            wait.end();
        }
    }

    /// Whether the client has let the handler wait for its body for too long; `None` without a body.
    pub(crate) fn look_at_body_wait(&self, now: Moment) -> Option<Waited> {
        let mut wait = self.body_wait()?;
        if self.connection.may_body_window_be_closed() {
            // The client may not be allowed to send.
            wait.end();
        }
        let waited = wait.check(now, |since| self.server().gives_up(since, ClientTimeout::Body));
        if matches!(waited, Waited::TooLong { .. })
            && self.connection.protocol == Protocol::Http1
            && self.connection.may_have_unread()
        {
            // What has arrived by now is read first.
            return Some(Waited::NotYet { look_again: now + CONFIRM_CHECK });
        }
        Some(waited)
    }

    // Told by the pieces of the answer.

    pub(crate) fn on_buffered(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Relaxed);
        self.connection.on_buffered(bytes);
    }

    pub(crate) fn on_written(&self, bytes: usize) {
        self.passed.fetch_add(bytes as u64, SeqCst);
        self.connection.on_delivered(bytes);
        if self.is_awaited.load(SeqCst) {
            self.wake_if_written();
        }
    }

    pub(crate) fn on_discarded(&self, bytes: usize) {
        self.discarded.store(true, Relaxed);
        self.passed.fetch_add(bytes as u64, Relaxed);
        self.connection.on_released(bytes);
    }

    pub(crate) fn note_last_piece(&self) {
        self.ends_with_piece.store(true, Relaxed);
    }

    pub(crate) fn ends_with_piece(&self) -> bool {
        self.ends_with_piece.load(Relaxed)
    }

    /// Bytes of the answer that HTTP/2 holds and has not written.
    pub(crate) fn unwritten(&self) -> u64 {
        let passed = self.passed();
        self.taken.load(Relaxed).saturating_sub(passed)
    }

    /// Bytes of the answer that HTTP/2 took and holds no more.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Relaxed)
    }

    /// Ready once all that HTTP/2 took was written.
    pub(crate) fn poll_written(&self, cx: &Context<'_>) -> Poll<()> {
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

    pub(crate) fn note_cut_by_drain(&self) {
        self.cut_by_drain.store(true, Relaxed);
    }

    /// How much of an answer that has ended was written.
    pub(crate) fn delivery(&self) -> Delivery {
        if self.discarded.load(Relaxed) {
            Delivery::Incomplete
        } else if self.unwritten() > 0 {
            Delivery::Pending
        } else {
            Delivery::Complete
        }
    }

    /// Made when somebody asks: most handlers never do.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(|| self.server().tokens.root.child_token())
    }
}

impl RequestState {
    /// Cancels its context. A later cause takes the place of an earlier one.
    pub(crate) fn cancel(&self, cause: CancelCause) {
        self.cancel_cause.store(cause as u8, Relaxed);
        self.cancellation().cancel();
    }

    pub(crate) fn cancel_cause(&self) -> Option<CancelCause> {
        let own = CancelCause::ALL.get(usize::from(self.cancel_cause.load(Relaxed))).copied();
        own.or_else(|| self.server().tokens.root.is_cancelled().then_some(CancelCause::Shutdown))
    }

    /// Cancels its context if its client has shut its side.
    pub(crate) fn note_half_closed(&self) {
        if self.connection.is_half_closed() && self.cancel_cause().is_none() {
            self.cancel(CancelCause::ClientHalfClosed);
        }
    }
}

impl SlowRequest for RequestState {
    fn arrived(&self) -> Moment {
        self.arrived
    }

    fn is_head_sent(&self) -> bool {
        self.head_sent.load(Relaxed)
    }

    fn method_and_path(&self) -> (&str, &str) {
        Self::method_and_path(self)
    }
}

/// How much of a request's body was read by its handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyRead {
    /// There is none.
    Absent,
    /// Not all. Its length is known.
    Unread,
    /// Not all. HTTP/1 sends it in chunks.
    ChunksUnread,
    Complete,
    /// All, and a trailer section behind it.
    WithTrailers,
}

/// How much of an answer was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Complete,
    Pending,
    /// Its stream was reset.
    Incomplete,
}

/// A request in flight. Whoever holds it owes it a fate; dropped without one, it was cut or the client left.
#[derive(Debug)]
pub(crate) struct InFlight {
    request: Arc<RequestState>,
    outcome: Outcome,
    /// Its key in its worker's list of requests that take time.
    listed: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Open,
    Settled,
}

impl InFlight {
    pub(crate) fn begin(request: Arc<RequestState>) -> Self {
        request.connection.worker.metrics.count(|requests| &requests.started);
        Self { request, outcome: Outcome::Open, listed: None }
    }

    pub(crate) const fn request(&self) -> &Arc<RequestState> {
        &self.request
    }

    pub(crate) fn connection(&self) -> &Arc<ConnectionState> {
        &self.request.connection
    }

    pub(crate) fn server(&self) -> &Arc<ServerState> {
        self.request.connection.server()
    }

    pub(crate) fn method_and_path(&self) -> (&str, &str) {
        self.request.method_and_path()
    }

    /// It takes time: a shutdown would wait for it, and tell its name.
    pub(crate) fn list(&mut self) {
        if self.listed.is_none() {
            self.listed =
                Some(self.connection().worker.metrics.listed.insert(self.request.clone()));
        }
    }

    pub(crate) fn record_head_sent(&self, sent: bool) {
        self.request.head_sent.store(sent, Relaxed);
    }

    /// Logs why the client gets a 500 instead of the handler's response.
    #[cold]
    pub(crate) fn log_refusal(&self, why: &dyn fmt::Display) {
        let (method, path) = self.method_and_path();
        crate::log::error!(error = %why, method, path, "a response cannot be sent; the client gets a 500");
    }

    pub(crate) fn count_panic(&self) {
        self.connection().worker.metrics.count(|requests| &requests.panicked);
    }

    /// The handler's own response was handed to the kernel whole, `now`.
    pub(crate) fn finish(mut self, now: &impl Fn() -> Moment) {
        self.outcome = Outcome::Settled;
        self.connection().worker.metrics.on_finished(self.request.arrived, now);
        self.connection().worker.metrics.count(|requests| &requests.finished);
    }

    /// Its deadline came first.
    pub(crate) fn time_out(mut self) {
        self.outcome = Outcome::Settled;
        self.connection().worker.metrics.count(|requests| &requests.timed_out);
        self.request.cancel(CancelCause::Deadline);
    }

    /// It was cut.
    pub(crate) fn abort(mut self, abort_cause: AbortCause) {
        self.record_aborted(abort_cause);
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
            method: method.to_owned(),
            path: path.to_owned(),
            age: server.clock.now().since(self.request.arrived),
            // The cut ends the cancel wait; that its workers carry it out a moment later is nobody's business.
            phase: server.phase().min(Phase::Cancelling),
            head_sent: self.request.head_sent.load(Relaxed),
            by_shutdown: abort_cause == AbortCause::Shutdown,
        });
        self.request.cancel(match abort_cause {
            AbortCause::Shutdown => CancelCause::Shutdown,
            AbortCause::Body => CancelCause::ResponseFailed,
            AbortCause::Client => CancelCause::ClientGone,
        });
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(key) = self.listed.take() {
            self.connection().worker.metrics.listed.remove(key);
        }
        if self.outcome == Outcome::Settled {
            return;
        }
        let abort_cause = match self.connection().abort_cause() {
            None if self.server().is_aborting() || self.request.cut_by_drain.load(Relaxed) => {
                Some(AbortCause::Shutdown)
            }
            Some(AbortCause::Client) => None,
            abort_cause => abort_cause,
        };
        if let Some(abort_cause) = abort_cause {
            self.record_aborted(abort_cause);
        } else {
            self.connection().worker.metrics.count(|requests| &requests.gone);
            self.request.cancel(CancelCause::ClientGone);
        }
    }
}
