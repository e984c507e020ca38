//! The body of a response on its way to hyper. It holds the request in flight until the body ends,
//! and settles its outcome (P5c).

use super::{
    connection_state::{ConnectionState, Protocol},
    framing::{LengthError, check_length},
    in_flight::{InFlight, UnflushedResponses},
    stream_shutdown::StreamShutdown,
    tracked_chunk::TrackedChunk,
};
use crate::http::server::{abort::AbortCause, connection_slot::WriteStrategy};
use crate::{errors::Chain, unwind::catch};
use bytes::{Buf, Bytes};
use http::{HeaderMap, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    error::Error,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

pin_project! {
    /// The body of a response.
    #[derive(Debug)]
    pub(crate) struct ResponseBody<B> {
        #[pin]
        source: Source<B>,
        state: BodyState,
    }

    impl<B> PinnedDrop for ResponseBody<B> {
        fn drop(this: Pin<&mut Self>) {
            this.drop_body();
        }
    }
}

pin_project! {
    #[project = SourceProjection]
    #[derive(Debug)]
    enum Source<B> {
        /// The handler's body.
        Handler { #[pin] body: B },
        /// The handler's body, of which nothing is sent.
        Suppressed { #[pin] body: B },
        /// A line of text from the host.
        Text { line: Option<Bytes> },
        /// A body that was polled before hyper took over, and that has not ended. It settles its
        /// request's outcome itself.
        Resumed { body: PinnedResponseBody<B> },
    }
}

/// The result of a poll of the handler's body, or the message of its panic.
type PolledBody<E> = Result<Poll<Option<Result<Frame<Bytes>, E>>>, String>;

type PolledFrame = Poll<Option<Result<Frame<TrackedChunk>, ResponseBodyError>>>;

/// A response body that was polled, and must not move any more.
pub(crate) type PinnedResponseBody<B> = Pin<Box<Option<ResponseBody<B>>>>;

/// State of the body. A separate type, so that it can implement `Drop`.
#[derive(Debug)]
struct BodyState {
    /// `None` once the request's outcome is settled.
    in_flight: Option<InFlight>,
    /// Bytes that are still missing of the length in the head, if the head has one.
    remaining: Option<u64>,
    /// Whether the body is complete if it is dropped now.
    complete: bool,
    class: StreamShutdown,
    waiting_on: WaitingOn,
    /// Absent for most bodies, which are short and ready at once.
    later: Option<Box<Later>>,
}

/// State of a body that is not passed on at once.
#[derive(Debug, Default)]
struct Later {
    /// Rest of a chunk that is passed on in parts.
    rest: Option<Bytes>,
    ahead: Ahead,
    waits: Option<ShutdownWaits>,
    /// The end of an HTTP/2 response that is held back while much of the response waits for the
    /// client.
    held_end: HeldEnd,
}

/// The end of a response, held back until everything before it was written.
#[derive(Debug, Default)]
enum HeldEnd {
    #[default]
    None,
    End,
    Trailers(Box<HeaderMap>),
}

/// What the body returned after the bytes that its head promised.
#[derive(Debug, Default)]
enum Ahead {
    #[default]
    Nothing,
    End,
    Trailers(Box<HeaderMap>),
}

/// The side whose next step the body waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitingOn {
    /// The client: there are bytes for it to read, or there were.
    Client,
    /// The handler: the body waits for its next chunk.
    Handler,
}

/// Futures that wake a pending body at the shutdown. Created at the first wait, since most bodies
/// never wait.
#[derive(Debug)]
struct ShutdownWaits {
    abort: Pin<Box<WaitForCancellationFutureOwned>>,
    end: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

/// How the shutdown ends a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShutdownEnd {
    /// The body ends early as its `StreamShutdown` says. The response is complete.
    Complete,
    Cut,
}

impl ShutdownEnd {
    fn into_frame(self) -> Option<Result<Frame<TrackedChunk>, ResponseBodyError>> {
        match self {
            Self::Complete => None,
            Self::Cut => Some(Err(ResponseBodyError::Cut)),
        }
    }
}

/// Whether the remaining length of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KnownLength {
    Yes,
    No,
}

/// The error of a response body.
#[derive(Debug)]
pub(crate) enum ResponseBodyError {
    Handler(Box<dyn Error + Send + Sync>),
    Panicked,
    /// The body ended this number of bytes before the length that its head promised.
    Short(u64),
    /// The body has more bytes than its head promised.
    Long,
    Cut,
}

impl<B> ResponseBody<B> {
    /// Wraps the handler's body. `content_length`: the length in the response head.
    pub(super) fn handler(
        body: B,
        in_flight: InFlight,
        class: StreamShutdown,
        content_length: Option<u64>,
    ) -> Self
    where
        B: HttpBody,
    {
        let mut state = BodyState::complete(Some(in_flight));
        state.class = class;
        state.remaining = content_length;
        state.complete = state.is_last(body.is_end_stream());
        Self { source: Source::Handler { body }, state }
    }

    /// Wraps a body where HTTP forbids content. None of it is sent.
    pub(super) fn suppressed(body: B, in_flight: InFlight) -> Self {
        Self { source: Source::Suppressed { body }, state: BodyState::complete(Some(in_flight)) }
    }

    /// Wraps the body of an HTTP/1 response to HEAD. hyper uses its length and does not poll it.
    pub(super) fn length_only(body: B, in_flight: InFlight) -> Self {
        Self { source: Source::Handler { body }, state: BodyState::complete(Some(in_flight)) }
    }

    /// Returns a body of at most one line of text. `in_flight`: the request, if its outcome is not
    /// settled yet.
    pub(super) fn text(line: Option<Bytes>, in_flight: Option<InFlight>) -> Self {
        Self { source: Source::Text { line }, state: BodyState::complete(in_flight) }
    }

    /// Wraps a body that was polled before hyper took over.
    pub(crate) fn resumed(body: PinnedResponseBody<B>) -> Self {
        Self { source: Source::Resumed { body }, state: BodyState::complete(None) }
    }

    /// Sets the queue that takes over the request when the body has ended.
    pub(super) fn set_queue(&mut self, queue: &Weak<UnflushedResponses>) {
        match &mut self.source {
            Source::Resumed { body } => {
                if let Some(mut body) = body.as_mut().as_pin_mut() {
                    body.as_mut().project().state.set_queue(queue);
                }
            }
            Source::Handler { .. } | Source::Suppressed { .. } | Source::Text { .. } => {
                self.state.set_queue(queue);
            }
        }
    }

    /// Returns the connection, if this response switches it to another protocol.
    pub(super) fn switching(&self, status: StatusCode) -> Option<&Arc<ConnectionState>> {
        let in_flight = self.state.in_flight.as_ref()?;
        in_flight.request().switches_protocol(status).then(|| in_flight.connection())
    }

    /// Drops the source and catches a panic of its destructor, which would otherwise unwind through
    /// hyper. A response that was sent in full stays complete.
    fn drop_body(self: Pin<&mut Self>) {
        let mut this = self.project();
        if let Err(panic) = catch(|| this.source.set(Source::Text { line: None })) {
            this.state.record_panic(&panic);
        }
    }

    /// Aborts the response, so that it cannot look complete (P5d).
    #[cold]
    fn abort_with(mut self: Pin<&mut Self>, why: &ResponseBodyError) {
        // Drop the body first: a panic in its destructor is then logged with the method and path.
        self.as_mut().drop_body();
        self.project().state.abort(why);
    }
}

impl<B> ResponseBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    fn poll_source(self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let this = self.project();
        let mut body = match this.source.project() {
            SourceProjection::Text { line } => {
                return Poll::Ready(
                    line.take().map(|line| Ok(Frame::data(this.state.chunk(line, true)))),
                );
            }
            SourceProjection::Suppressed { .. } => return Poll::Ready(None),
            SourceProjection::Resumed { body } => {
                return body
                    .as_mut()
                    .as_pin_mut()
                    .map_or(Poll::Ready(None), |body| body.poll_frame(cx));
            }
            SourceProjection::Handler { body } => body,
        };
        if let Some(polled) = this.state.poll_later(cx, || body.is_end_stream()) {
            return polled;
        }
        // A handler may respond to its cancellation at the instant of the abort. Like the response
        // of a ready handler, a ready body of known length is still sent. Only a body that is
        // pending or of unknown length is cut.
        let ends = body.is_end_stream() || body.size_hint().exact().is_some();
        let known_length = if ends { KnownLength::Yes } else { KnownLength::No };
        if let Some(end) = this.state.check_end(known_length) {
            return Poll::Ready(end.into_frame());
        }
        let polled = catch(|| body.as_mut().poll_frame(cx));
        this.state.on_polled(body, polled, cx)
    }
}

// Used before the head is sent.
impl<B> ResponseBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Returns the request, unless its outcome is settled.
    pub(super) fn in_flight(&self) -> Option<&InFlight> {
        match &self.source {
            Source::Resumed { body } => body.as_ref().get_ref().as_ref()?.in_flight(),
            Source::Handler { .. } | Source::Suppressed { .. } | Source::Text { .. } => {
                self.state.in_flight.as_ref()
            }
        }
    }

    /// Returns an error if the body cannot have the length that the head `says`.
    pub(super) fn check_length(&self, says: u64) -> Result<(), LengthError> {
        match &self.source {
            Source::Handler { body } => check_length(says, body),
            Source::Suppressed { .. } | Source::Text { .. } | Source::Resumed { .. } => Ok(()),
        }
    }

    /// Whether the head promises no bytes and the body may have some. hyper would not poll such a
    /// body.
    pub(super) fn may_exceed_zero_length(&self) -> bool {
        matches!(self.source, Source::Handler { .. })
            && self.state.is_all_promised()
            && !HttpBody::is_end_stream(self)
    }

    /// Polls a body whose head promises no bytes. Ready if the body failed or has bytes; its
    /// request is then aborted.
    #[cold]
    pub(super) fn poll_before_head(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let note =
            |body: &Self, sent| body.in_flight().map(|in_flight| in_flight.record_head_sent(sent));
        note(&self, false);
        let polled = self.as_mut().poll_frame(cx);
        note(&self, true);
        if matches!(polled, Poll::Ready(Some(Err(_)))) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Aborts the request and drops the body unsent.
    #[cold]
    pub(super) fn refuse(self, why: &LengthError) {
        let mut body = Box::pin(self);
        body.as_mut().drop_body();
        let state = body.as_mut().project().state;
        state.wait_on(WaitingOn::Client);
        let Some(in_flight) = state.in_flight.take() else { return };
        in_flight.log_refusal(why);
        in_flight.record_head_sent(false);
        in_flight.connection().on_request_ended();
        in_flight.abort(AbortCause::Body);
    }
}

// Used by the fast path, which writes a response without hyper.
impl<B> ResponseBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Returns the whole body if one poll yields all of it, and `None` if it failed. After
    /// `Pending` the body continues as if it had not been polled.
    pub(crate) fn poll_complete(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Bytes>> {
        let this = self.as_mut().project();
        let polled = match this.source.project() {
            SourceProjection::Handler { mut body } if this.state.later.is_none() => {
                match catch(|| body.as_mut().poll_frame(cx)) {
                    // Most bodies are one chunk.
                    Ok(Poll::Ready(Some(Ok(frame))))
                        if this.state.is_whole(&frame) && body.is_end_stream() =>
                    {
                        this.state.remaining = Some(0);
                        this.state.complete = true;
                        return Poll::Ready(frame.into_data().ok());
                    }
                    polled => this.state.on_polled(body, polled, cx),
                }
            }
            SourceProjection::Handler { .. }
            | SourceProjection::Suppressed { .. }
            | SourceProjection::Text { .. }
            | SourceProjection::Resumed { .. } => self.as_mut().poll_source(cx),
        };
        if let Poll::Ready(Some(Err(why))) = &polled {
            self.as_mut().abort_with(why);
        }
        let Some(Ok(frame)) = ready!(polled) else { return Poll::Ready(None) };
        let Ok(mut chunk) = frame.into_data() else { return Poll::Ready(None) };
        let bytes = chunk.copy_to_bytes(chunk.remaining());
        let state = self.project().state;
        if state.complete {
            return Poll::Ready(Some(bytes));
        }
        state.later().rest = Some(bytes);
        Poll::Pending
    }

    /// Ends a body that was taken completely. Returns its request, unless its outcome is settled.
    pub(crate) fn end(mut self: Pin<&mut Self>) -> Option<InFlight> {
        // Drop the body first: a panic in its destructor is then logged with the method and path.
        self.as_mut().drop_body();
        self.project().state.in_flight.take()
    }
}

impl<B> HttpBody for ResponseBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = TrackedChunk;
    type Error = ResponseBodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let polled = self.as_mut().poll_source(cx);
        if let Poll::Ready(Some(Err(why))) = &polled {
            self.abort_with(why);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            // A body that ends too early must be polled once more, to return its error.
            Source::Handler { body } => {
                self.state.rest().is_none()
                    && self.state.remaining.is_none_or(|remaining| remaining == 0)
                    && (self.state.has_ended_ahead() || body.is_end_stream())
            }
            Source::Suppressed { .. } => true,
            Source::Text { line } => line.is_none(),
            Source::Resumed { body } => {
                body.as_ref().get_ref().as_ref().is_none_or(HttpBody::is_end_stream)
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Suppressed { .. } => SizeHint::with_exact(0),
            // A `StreamShutdown` may end a body early, but none with an exact size.
            Source::Handler { body } => match (self.state.rest(), self.state.remaining) {
                // The fast path has polled this body and has sent nothing of it.
                (Some(rest), Some(remaining)) => {
                    SizeHint::with_exact(rest.len() as u64 + remaining)
                }
                (Some(_), None) | (None, _) => body.size_hint(),
            },
            Source::Text { line } => {
                SizeHint::with_exact(line.as_ref().map_or(0, |line| line.len() as u64))
            }
            Source::Resumed { body } => match body.as_ref().get_ref() {
                Some(body) => body.size_hint(),
                None => SizeHint::with_exact(0),
            },
        }
    }
}

/// Bytes of a chunk that hyper copies to join them with the head. After a larger chunk the
/// connection changes to vectored writes. Also the number of unwritten HTTP/2 bytes up to which the
/// end is not held back.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// Empty frames after the promised bytes that are skipped in search of the end.
const EMPTY_FRAMES_MAX: usize = 16;

/// Bytes of a larger chunk that are copied at a time, while the connection does not use vectored
/// writes.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

impl BodyState {
    fn set_queue(&mut self, queue: &Weak<UnflushedResponses>) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.set_queue(queue.clone());
        }
    }

    /// Returns the state of a body that is complete without another byte.
    const fn complete(in_flight: Option<InFlight>) -> Self {
        let class = StreamShutdown::Finish;
        Self {
            in_flight,
            remaining: None,
            complete: true,
            class,
            waiting_on: WaitingOn::Client,
            later: None,
        }
    }

    fn later(&mut self) -> &mut Later {
        self.later.get_or_insert_default()
    }

    fn rest(&self) -> Option<&Bytes> {
        self.later.as_ref()?.rest.as_ref()
    }

    fn has_ended_ahead(&self) -> bool {
        self.later.as_ref().is_some_and(|later| matches!(later.ahead, Ahead::End))
    }

    /// Returns what was taken of the body and not passed on, if there is any. `ends`: whether the
    /// body has ended.
    fn poll_later(
        &mut self,
        cx: &mut Context<'_>,
        ends: impl FnOnce() -> bool,
    ) -> Option<PolledFrame> {
        let later = &mut **self.later.as_mut()?;
        if !matches!(later.held_end, HeldEnd::None) {
            return Some(self.poll_held_end(cx));
        }
        if let Some(rest) = later.rest.take() {
            let ends = matches!(later.ahead, Ahead::End) || ends();
            let chunk = self.next_chunk(rest, ends);
            return Some(Poll::Ready(Some(Ok(Frame::data(chunk)))));
        }
        match mem::replace(&mut later.ahead, Ahead::End) {
            Ahead::Nothing => {
                later.ahead = Ahead::Nothing;
                None
            }
            Ahead::End => Some(self.poll_end(cx)),
            Ahead::Trailers(trailers) => {
                let Some(trailers) = self.hold_trailers(Frame::trailers(*trailers)) else {
                    return Some(self.poll_held_end(cx));
                };
                let trailers = trailers.map_data(|bytes| self.chunk(bytes, false));
                Some(Poll::Ready(Some(Ok(trailers))))
            }
        }
    }

    /// Returns the frame for a result of the handler's body.
    fn on_polled<B>(
        &mut self,
        mut body: Pin<&mut B>,
        polled: PolledBody<B::Error>,
        cx: &mut Context<'_>,
    ) -> PolledFrame
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        self.wait_on(if matches!(polled, Ok(Poll::Pending)) {
            WaitingOn::Handler
        } else {
            WaitingOn::Client
        });
        match polled {
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                let frame = match self.check_length(frame) {
                    Ok(frame) => frame,
                    Err(broken) => return Poll::Ready(Some(Err(broken))),
                };
                // True for trailers. For data, `next_chunk` sets it again below.
                self.complete = true;
                let Some(frame) = self.hold_trailers(frame) else {
                    return self.poll_held_end(cx);
                };
                let mut ends = body.is_end_stream();
                if !ends && self.is_all_promised() {
                    match self.look_ahead(body.as_mut(), cx) {
                        Ok(ended) => ends = ended,
                        Err(broken) => return Poll::Ready(Some(Err(broken))),
                    }
                }
                Poll::Ready(Some(Ok(frame.map_data(|bytes| self.next_chunk(bytes, ends)))))
            }
            Ok(Poll::Ready(None)) => match self.end() {
                Ok(()) => self.poll_end(cx),
                Err(broken) => Poll::Ready(Some(Err(broken))),
            },
            Ok(Poll::Ready(Some(Err(error)))) => {
                Poll::Ready(Some(Err(ResponseBodyError::Handler(error.into()))))
            }
            Ok(Poll::Pending) => self.wait(cx),
            Err(panic) => {
                self.record_panic(&panic);
                Poll::Ready(Some(Err(ResponseBodyError::Panicked)))
            }
        }
    }

    /// Whether this frame is all that the head promised.
    fn is_whole(&self, frame: &Frame<Bytes>) -> bool {
        let len = frame.data_ref().map(|bytes| bytes.len() as u64);
        len.is_some() && len == self.remaining
    }

    fn chunk(&self, bytes: Bytes, ends: bool) -> TrackedChunk {
        TrackedChunk::of(self.in_flight.as_ref().map(InFlight::request), bytes, ends)
    }

    /// Checks a frame against the promised length.
    fn check_length(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, ResponseBodyError> {
        let Some(remaining) = &mut self.remaining else { return Ok(frame) };
        let Some(bytes) = frame.data_ref() else { return self.end().map(|()| frame) };
        *remaining = remaining.checked_sub(bytes.len() as u64).ok_or(ResponseBodyError::Long)?;
        Ok(frame)
    }

    /// Whether all bytes that an HTTP/1 head promised were returned. hyper then polls the body no
    /// more.
    fn is_all_promised(&self) -> bool {
        self.remaining == Some(0)
            && self
                .in_flight
                .as_ref()
                .is_some_and(|in_flight| in_flight.connection().protocol == Protocol::Http1)
    }

    /// Polls the body for what follows the promised bytes, before the last of these are sent. Once
    /// they are sent the response looks complete, and an error could no longer be shown to the
    /// client (P5d).
    ///
    /// Returns whether the body has ended. A pending body counts as complete, since it may stay
    /// pending for ever.
    fn look_ahead<B>(
        &mut self,
        mut body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Result<bool, ResponseBodyError>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        for _ in 0..EMPTY_FRAMES_MAX {
            let polled = catch(|| body.as_mut().poll_frame(cx)).map_err(|panic| {
                self.record_panic(&panic);
                ResponseBodyError::Panicked
            })?;
            match polled {
                Poll::Pending => return Ok(false),
                Poll::Ready(None) => {
                    self.later().ahead = Ahead::End;
                    return Ok(true);
                }
                Poll::Ready(Some(Err(error))) => {
                    return Err(ResponseBodyError::Handler(error.into()));
                }
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if bytes.is_empty() => {}
                    Ok(_) => return Err(ResponseBodyError::Long),
                    Err(frame) => {
                        self.later().ahead = frame
                            .into_trailers()
                            .map_or(Ahead::End, |trailers| Ahead::Trailers(Box::new(trailers)));
                        return Ok(false);
                    }
                },
            }
        }
        Ok(false)
    }

    /// Records the end of the body. Returns an error if promised bytes are missing.
    const fn end(&mut self) -> Result<(), ResponseBodyError> {
        match self.remaining {
            None | Some(0) => {
                self.complete = true;
                Ok(())
            }
            Some(remaining) => Err(ResponseBodyError::Short(remaining)),
        }
    }

    /// Whether hyper polls the body no more. On HTTP/1 it stops once it has the promised bytes,
    /// whether or not the body has ended.
    fn is_last(&self, ends: bool) -> bool {
        match self.remaining {
            None => ends,
            Some(0) => ends || self.is_all_promised(),
            Some(_) => false,
        }
    }

    /// Returns a chunk of the handler's body, or the first part of it. `ends`: no chunk follows.
    fn next_chunk(&mut self, mut bytes: Bytes, ends: bool) -> TrackedChunk {
        if bytes.len() > COPIED_BYTES_MAX
            && let Some(connection) = self.in_flight.as_ref().map(InFlight::connection)
            && connection.writes == WriteStrategy::Flatten
        {
            connection.responses.on_large_chunk();
            if bytes.len() > CHUNK_BYTES_MAX {
                self.later().rest = Some(bytes.split_off(CHUNK_BYTES_MAX));
            }
        }
        if self.rest().is_none()
            && self.is_last(ends)
            && let Some(last) = self.split_last(&mut bytes)
        {
            self.later().rest = Some(last);
        }
        self.complete = self.rest().is_none() && self.is_last(ends);
        if let Some(in_flight) = self.in_flight.as_mut().filter(|_| !self.complete) {
            in_flight.list();
        }
        self.chunk(bytes, self.complete)
    }

    /// Whether the end of an HTTP/2 response must be held back. hyper is done with a stream once it
    /// has passed the end to h2. h2 may then hold megabytes that the client never takes, and the
    /// stream could no longer be reset.
    fn must_hold_end(&self) -> bool {
        self.in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.request().unwritten() > COPIED_BYTES_MAX as u64)
    }

    fn hold_trailers(&mut self, frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        if frame.is_data() || !self.must_hold_end() {
            return Some(frame);
        }
        self.later().held_end = frame
            .into_trailers()
            .map_or(HeldEnd::End, |trailers| HeldEnd::Trailers(Box::new(trailers)));
        None
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if !self.must_hold_end() {
            return Poll::Ready(None);
        }
        self.later().held_end = HeldEnd::End;
        self.poll_held_end(cx)
    }

    /// Returns the end once everything before it was written.
    fn poll_held_end(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if self
            .in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.request().poll_written(cx).is_pending())
        {
            return Poll::Pending;
        }
        Poll::Ready(match mem::take(&mut self.later().held_end) {
            HeldEnd::Trailers(trailers) => Some(Ok(Frame::trailers(*trailers))),
            HeldEnd::None | HeldEnd::End => None,
        })
    }

    /// Splits the last byte off a large HTTP/2 chunk, so that the stream can still be reset. hyper
    /// passes that byte, and the end with it, to h2 only once the client's window has room for all
    /// before it.
    fn split_last(&self, bytes: &mut Bytes) -> Option<Bytes> {
        let is_large = bytes.len() > COPIED_BYTES_MAX;
        let is_http2 = self
            .in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.connection().protocol == Protocol::Http2);
        (is_large && is_http2).then(|| bytes.split_off(bytes.len() - 1))
    }

    /// Records a change of the side that the body waits for.
    fn wait_on(&mut self, waiting_on: WaitingOn) {
        if let Some(in_flight) = self.in_flight.as_ref().filter(|_| self.waiting_on != waiting_on) {
            match waiting_on {
                WaitingOn::Handler => in_flight.connection().handler_started(),
                WaitingOn::Client => in_flight.connection().handler_stopped(),
            }
            self.waiting_on = waiting_on;
        }
    }

    /// Returns how the shutdown ends this body, if it does so now.
    fn check_end(&mut self, known_length: KnownLength) -> Option<ShutdownEnd> {
        let server = self.in_flight.as_ref()?.server();
        if server.is_aborting() && known_length == KnownLength::No {
            return Some(ShutdownEnd::Cut);
        }
        let ended = match self.class {
            StreamShutdown::Finish => false,
            StreamShutdown::EndAtDraining => server.tokens.draining.is_cancelled(),
            StreamShutdown::EndAtCancel => server.tokens.root.is_cancelled(),
        };
        self.complete |= ended;
        ended.then_some(ShutdownEnd::Complete)
    }

    /// Arranges a wake-up for when the shutdown ends this body.
    fn wait(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        let Some(in_flight) = &mut self.in_flight else { return Poll::Pending };
        in_flight.list();
        in_flight.request().cancel_if_half_closed();
        let tokens = &in_flight.server().tokens;
        let class = self.class;
        let later = self.later.get_or_insert_default();
        let waits = later.waits.get_or_insert_with(|| {
            let end = match class {
                StreamShutdown::Finish => None,
                StreamShutdown::EndAtDraining => Some(&tokens.draining),
                StreamShutdown::EndAtCancel => Some(&tokens.root),
            };
            ShutdownWaits {
                abort: Box::pin(tokens.abort.clone().cancelled_owned()),
                end: end.map(|end| Box::pin(end.clone().cancelled_owned())),
            }
        });
        let aborted = waits.abort.as_mut().poll(cx).is_ready();
        let ended = waits.end.as_mut().is_some_and(|end| end.as_mut().poll(cx).is_ready());
        if aborted || ended {
            // The shutdown came between the check and the wait.
            let end = self.check_end(KnownLength::No);
            return end.map_or(Poll::Pending, |end| Poll::Ready(end.into_frame()));
        }
        Poll::Pending
    }

    fn record_panic(&self, panic: &str) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.count_panic();
        }
        let (method, path) = self.in_flight.as_ref().map(InFlight::method_and_path).unzip();
        crate::log::error!(panic, method, path, "response body panicked");
    }

    /// Aborts the request. On HTTP/1 the connection is then reset.
    fn abort(&mut self, why: &ResponseBodyError) {
        self.wait_on(WaitingOn::Client);
        let Some(in_flight) = self.in_flight.take() else { return };
        let abort_cause = match why {
            ResponseBodyError::Cut => AbortCause::Shutdown,
            ResponseBodyError::Handler(_)
            | ResponseBodyError::Panicked
            | ResponseBodyError::Short(_)
            | ResponseBodyError::Long => AbortCause::Body,
        };
        let error: Option<&(dyn Error + 'static)> = match why {
            ResponseBodyError::Handler(error) => Some(&**error),
            ResponseBodyError::Short(_) | ResponseBodyError::Long => Some(why),
            // A panic was logged already, and the shutdown logs what it aborts.
            ResponseBodyError::Panicked | ResponseBodyError::Cut => None,
        };
        if let Some(error) = error {
            let (method, path) = in_flight.method_and_path();
            crate::log::error!(error = %Chain(error), method, path, "response body failed");
        }
        let connection = in_flight.connection().clone();
        if connection.protocol == Protocol::Http1 {
            connection.responses.set_abort_cause(abort_cause);
        }
        connection.on_request_ended();
        in_flight.abort(abort_cause);
    }
}

impl Drop for BodyState {
    fn drop(&mut self) {
        self.wait_on(WaitingOn::Client);
        let Some(in_flight) = self.in_flight.take() else { return };
        if self.complete {
            in_flight.end_response();
        } else {
            in_flight.connection().on_request_ended();
        }
    }
}

impl fmt::Display for ResponseBodyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler(error) => write!(f, "the response body failed: {error}"),
            Self::Panicked => f.write_str("the response body panicked"),
            Self::Short(missing) => {
                write!(f, "the response body ended {missing} bytes before its content-length")
            }
            Self::Long => f.write_str("the response body is longer than its content-length"),
            Self::Cut => f.write_str("the response was cut by the shutdown"),
        }
    }
}

impl Error for ResponseBodyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Handler(error) => Some(&**error),
            Self::Panicked | Self::Short(_) | Self::Long | Self::Cut => None,
        }
    }
}
