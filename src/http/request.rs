//! One request: what is known of it, and its one fate (P5).

use super::{
    body_wait::{BodyWait, CONFIRM_CHECK, Waited},
    deadlines::Timeout,
    link::{Link, Protocol},
    patience::ClientTimeout,
    side::{AbortedRequest, Side},
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

/// What a request shares with its answer. The handler sees it as a [`RequestContext`](super::RequestContext).
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) link: Arc<Link>,
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
    thrown_away: AtomicBool,
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
    const ALL: [Self; 5] = [Self::Deadline, Self::Shutdown, Self::ClientHalfClosed, Self::ClientGone, Self::ResponseFailed];
}

/// There is none.
const NOT_CANCELLED: u8 = u8::MAX;

/// A longer path does not stay for the next request.
const PATH_KEPT_MAX: usize = 256;

impl Request {
    fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            arrived: Moment::EPOCH,
            method: Method::GET,
            path: String::new(),
            deadline: AtomicU64::new(0),
            common_deadline: Moment::NEVER,
            head_sent: AtomicBool::new(false),
            body: AtomicU8::new(BodyRead::Absent as u8),
            taken: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            thrown_away: AtomicBool::new(false),
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
    pub(crate) fn next(last: Option<Arc<Self>>, link: &Arc<Link>, arrived: Moment, method: &Method, uri: &Uri) -> Arc<Self> {
        if let Some(mut place) = last
            && let Some(request) = Arc::get_mut(&mut place)
        {
            request.begin(arrived, method, uri);
            return place;
        }
        let mut request = Self::new(link.clone());
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
        self.common_deadline = self.side().config.request_timeout.map_or(Moment::NEVER, |timeout| arrived + timeout);
        *self.deadline.get_mut() = self.common_deadline.as_nanos();
        *self.head_sent.get_mut() = false;
        *self.taken.get_mut() = 0;
        *self.passed.get_mut() = 0;
        *self.thrown_away.get_mut() = false;
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
    pub(crate) fn name(&self) -> (&str, &str) {
        (self.method.as_str(), &self.path)
    }

    pub(crate) fn side(&self) -> &Arc<Side> {
        &self.link.side
    }

    pub(crate) fn is_head_sent(&self) -> bool {
        self.head_sent.load(Relaxed)
    }

    /// When the head of the answer must be there; `NEVER` if it need not.
    pub(crate) fn deadline(&self) -> Moment {
        Moment::from_nanos(self.deadline.load(Relaxed))
    }

    /// Whose `deadline` is.
    pub(crate) fn timeout(&self, deadline: Moment) -> Timeout {
        if deadline == self.common_deadline { Timeout::Common } else { Timeout::Own }
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
        let is_switch = status == StatusCode::SWITCHING_PROTOCOLS || status.is_success() && self.method == Method::CONNECT;
        is_switch && self.link.protocol == Protocol::Http1
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
        self.link.on_body_awaited();
        if let Some(mut wait) = self.body_wait() {
            wait.begin(waker, || self.side().clock.now());
        }
    }

    /// The body was polled and had so many bytes, or is not read any more.
    pub(crate) fn end_body_wait(&self, bytes: usize) {
        self.link.on_body_read(bytes);
        if let Some(mut wait) = self.body_wait() {
            wait.end();
        }
    }

    /// Whether the client has let the handler wait for its body for too long; `None` without a body.
    pub(crate) fn look_at_body_wait(&self, now: Moment) -> Option<Waited> {
        let mut wait = self.body_wait()?;
        if self.link.may_body_window_be_closed() {
            // The client may not be allowed to send.
            wait.end();
        }
        let waited = wait.look(now, |since| self.side().gives_up(since, ClientTimeout::Body));
        if matches!(waited, Waited::TooLong { .. }) && self.link.protocol == Protocol::Http1 && self.link.may_have_unread() {
            // What has arrived by now is read first.
            return Some(Waited::NotYet { look_again: now + CONFIRM_CHECK });
        }
        Some(waited)
    }

    // Told by the pieces of the answer.

    pub(crate) fn note_taken(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Relaxed);
        self.link.on_held(bytes);
    }

    pub(crate) fn note_written(&self, bytes: usize) {
        self.passed.fetch_add(bytes as u64, SeqCst);
        self.link.on_delivered(bytes);
        if self.is_awaited.load(SeqCst) {
            self.wake_if_written();
        }
    }

    pub(crate) fn note_thrown_away(&self, bytes: usize) {
        self.thrown_away.store(true, Relaxed);
        self.passed.fetch_add(bytes as u64, Relaxed);
        self.link.on_let_go(bytes);
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
        if self.taken.load(SeqCst) > self.passed.load(SeqCst) { Poll::Pending } else { Poll::Ready(()) }
    }

    #[cold]
    fn wake_if_written(&self) {
        if self.unwritten() == 0
            && let Some(waker) = self.on_written.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            waker.wake();
        }
    }

    pub(crate) fn note_cut_by_drain(&self) {
        self.cut_by_drain.store(true, Relaxed);
    }

    /// How much of an answer that has ended was written.
    pub(crate) fn sent(&self) -> Sent {
        if self.thrown_away.load(Relaxed) {
            Sent::NeverWhole
        } else if self.unwritten() > 0 {
            Sent::NotYet
        } else {
            Sent::All
        }
    }

    /// Made when somebody asks: most handlers never do.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        self.cancellation.get_or_init(|| self.side().moments.root.child_token())
    }
}

impl Request {
    /// Cancels its context. A later cause takes the place of an earlier one.
    pub(crate) fn cancel(&self, cause: CancelCause) {
        self.cancel_cause.store(cause as u8, Relaxed);
        self.cancellation().cancel();
    }

    pub(crate) fn cancel_cause(&self) -> Option<CancelCause> {
        let own = CancelCause::ALL.get(usize::from(self.cancel_cause.load(Relaxed))).copied();
        own.or_else(|| self.side().moments.root.is_cancelled().then_some(CancelCause::Shutdown))
    }

    /// Cancels its context if its client has shut its side.
    pub(crate) fn note_half_closed(&self) {
        if self.link.is_half_closed() && self.cancel_cause().is_none() {
            self.cancel(CancelCause::ClientHalfClosed);
        }
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
    All,
    /// All, and a trailer section behind it.
    WithTrailers,
}

/// How much of an answer was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    NotYet,
    /// Its stream was reset.
    NeverWhole,
}

/// A request in flight. Whoever holds it owes it a fate; dropped without one, it was cut or the client left.
#[derive(Debug)]
pub(crate) struct Flight {
    request: Arc<Request>,
    fate: Fate,
    /// Its key in its worker's list of requests that take time.
    listed: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Settled,
}

/// Who cut a request. Only what the shutdown cut makes the exit code 3 (P13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cutter {
    Shutdown,
    /// A body that failed, panicked, or was not as long as its head said: its own, or on HTTP/1 one behind it.
    Body,
    /// Its client, which took nothing of the response for the send timeout: the request is *gone*.
    Client,
}

impl Flight {
    pub(crate) fn begin(request: Arc<Request>) -> Self {
        request.link.counts.count(|requests| &requests.started);
        Self { request, fate: Fate::Open, listed: None }
    }

    pub(crate) const fn request(&self) -> &Arc<Request> {
        &self.request
    }

    pub(crate) fn link(&self) -> &Arc<Link> {
        &self.request.link
    }

    pub(crate) fn side(&self) -> &Arc<Side> {
        &self.request.link.side
    }

    pub(crate) fn name(&self) -> (&str, &str) {
        self.request.name()
    }

    /// It takes time: a shutdown would wait for it, and tell its name.
    pub(crate) fn list(&mut self) {
        if self.listed.is_none() {
            self.listed = Some(self.link().counts.listed.insert(self.request.clone()));
        }
    }

    pub(crate) fn note_head_sent(&self, sent: bool) {
        self.request.head_sent.store(sent, Relaxed);
    }

    /// Logs why the client gets a 500 instead of the handler's response.
    #[cold]
    pub(crate) fn log_refusal(&self, why: &dyn fmt::Display) {
        let (method, path) = self.name();
        crate::log::error!(error = %why, method, path, "a response cannot be sent; the client gets a 500");
    }

    pub(crate) fn note_panicked(&self) {
        self.link().counts.count(|requests| &requests.panicked);
    }

    /// The handler's own answer was handed to the kernel whole.
    pub(crate) fn finish(mut self) {
        self.fate = Fate::Settled;
        self.link().counts.count(|requests| &requests.finished);
    }

    /// Its deadline came first.
    pub(crate) fn time_out(mut self) {
        self.fate = Fate::Settled;
        self.link().counts.count(|requests| &requests.timed_out);
        self.request.cancel(CancelCause::Deadline);
    }

    /// It was cut.
    pub(crate) fn abort(mut self, cutter: Cutter) {
        self.settle_aborted(cutter);
    }

    fn settle_aborted(&mut self, cutter: Cutter) {
        self.fate = Fate::Settled;
        let side = self.side();
        self.link().counts.count(|requests| &requests.aborted);
        if cutter == Cutter::Shutdown {
            side.aborted_by_stop.add_one();
        }
        let (method, path) = self.name();
        side.note_abort(AbortedRequest {
            method: method.to_owned(),
            path: path.to_owned(),
            age: side.clock.now().since(self.request.arrived),
            // The cut ends the cancel wait; that its workers carry it out a moment later is nobody's business.
            phase: side.phase().min(Phase::Cancelling),
            head_sent: self.request.head_sent.load(Relaxed),
            by_shutdown: cutter == Cutter::Shutdown,
        });
        self.request.cancel(match cutter {
            Cutter::Shutdown => CancelCause::Shutdown,
            Cutter::Body => CancelCause::ResponseFailed,
            Cutter::Client => CancelCause::ClientGone,
        });
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(key) = self.listed.take() {
            self.link().counts.listed.remove(key);
        }
        if self.fate == Fate::Settled {
            return;
        }
        let cutter = match self.link().torn_by() {
            None if self.side().is_aborting() || self.request.cut_by_drain.load(Relaxed) => Some(Cutter::Shutdown),
            Some(Cutter::Client) => None,
            cutter => cutter,
        };
        if let Some(cutter) = cutter {
            self.settle_aborted(cutter);
        } else {
            self.link().counts.count(|requests| &requests.gone);
            self.request.cancel(CancelCause::ClientGone);
        }
    }
}
