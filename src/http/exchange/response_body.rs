//! The body of a response on its way to hyper. It holds the request in flight until the body ends,
//! and settles its outcome (P5c).

use super::{
    connection_state::{ConnectionState, Protocol},
    framing::{LengthError, compare_length},
    http_service::BoxError,
    in_flight::{InFlight, UnflushedResponses},
    request_end::CancelCause,
    request_state::RequestState,
    response_body_error::ResponseBodyError,
    response_body_state::{BodyState, PolledFrame, WaitingOn},
    stream_shutdown::{KnownLength, StreamShutdown},
    tracked_chunk::TrackedChunk,
};
use crate::{http::server::abort::AbortCause, unwind::catch};
use bytes::{Buf, Bytes};
use http::StatusCode;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::{
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

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
            if !matches!(this.source, Source::Text { line: None }) {
                if let Some(in_flight) = &this.state.in_flight
                    && !this.state.complete
                {
                    in_flight.cancel_dropped();
                }
                this.drop_body();
            }
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
        /// A body that was aborted. hyper sees neither its error nor its end.
        Aborted,
        /// A body that was polled before hyper took over, and that has not ended. It settles its
        /// request's outcome itself.
        Resumed { body: PinnedResponseBody<B> },
    }
}

/// A response body that was polled, and must not move any more.
pub(crate) type PinnedResponseBody<B> = Pin<Box<ResponseBody<B>>>;

impl<B> ResponseBody<B> {
    /// Wraps the handler's body. `content_length`: the length in the response head.
    pub(super) fn handler(
        body: B,
        ends: bool,
        in_flight: InFlight,
        class: StreamShutdown,
        content_length: Option<u64>,
    ) -> Self {
        let mut state = BodyState::complete(Some(in_flight));
        state.class = class;
        state.remaining = content_length;
        state.complete = state.is_last(ends);
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

    /// Returns the same for a request whose outcome is settled. On HTTP/2 its chunk is tracked
    /// nevertheless, so that its stream has a send timeout.
    pub(super) fn settled_text(line: Option<Bytes>, request: &Arc<RequestState>) -> Self {
        let is_tracked = request.connection.protocol == Protocol::Http2 && line.is_some();
        let mut text = Self::text(line, None);
        if is_tracked {
            text.state.later().settled = Some(request.clone());
        }
        text
    }

    /// Moves a body to the place of an earlier one that has ended, or to a new place.
    pub(crate) fn pinned(
        place: Option<PinnedResponseBody<B>>,
        body: Self,
    ) -> PinnedResponseBody<B> {
        match place {
            Some(mut place) => {
                place.set(body);
                place
            }
            None => Box::pin(body),
        }
    }

    /// Wraps a body that was polled before hyper took over.
    pub(crate) fn resumed(body: PinnedResponseBody<B>) -> Self {
        Self { source: Source::Resumed { body }, state: BodyState::complete(None) }
    }

    /// Sets the queue that takes over the request when the body has ended.
    pub(super) fn set_queue(&mut self, queue: &Weak<UnflushedResponses>) {
        match &mut self.source {
            Source::Resumed { body } => body.as_mut().project().state.set_queue(queue),
            Source::Handler { .. }
            | Source::Suppressed { .. }
            | Source::Text { .. }
            | Source::Aborted => self.state.set_queue(queue),
        }
    }

    /// Returns the request, unless its outcome is settled.
    pub(super) fn in_flight(&self) -> Option<&InFlight> {
        match &self.source {
            Source::Resumed { body } => body.in_flight(),
            Source::Handler { .. }
            | Source::Suppressed { .. }
            | Source::Text { .. }
            | Source::Aborted => self.state.in_flight.as_ref(),
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

    /// Aborts the response, so that it cannot look complete (P5d). Returns `Pending` if hyper must
    /// see no error: it would drop what it has buffered, which may belong to earlier responses. It
    /// sends that instead, and its connection then ends.
    #[cold]
    fn abort_with(mut self: Pin<&mut Self>, why: &ResponseBodyError) -> Poll<()> {
        if matches!(why, ResponseBodyError::CallDeadline)
            && let Some(in_flight) = &self.state.in_flight
        {
            in_flight.request().cancel(CancelCause::Deadline);
        }
        // Drop the body first: a panic in its destructor is then logged with the method and path.
        self.as_mut().drop_body();
        let mut this = self.project();
        let aborted = this.state.abort(why);
        if aborted.is_pending() {
            this.source.set(Source::Aborted);
        }
        aborted
    }

    /// Aborts the response before its head is written.
    #[cold]
    fn abort_before_head(mut self: Pin<&mut Self>, why: &ResponseBodyError) {
        self.as_mut().drop_body();
        self.project().state.abort_before_head(why);
    }
}

impl<B> ResponseBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
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
            SourceProjection::Aborted => return Poll::Pending,
            SourceProjection::Resumed { body } => return body.as_mut().poll_frame(cx),
            SourceProjection::Handler { body } => body,
        };
        if this.state.later.is_some()
            && let Some(polled) = this.state.poll_later(body.as_mut(), cx)
        {
            return polled;
        }
        // A handler may respond to its cancellation at the instant of the abort. Like the response
        // of a ready handler, a ready body of known length is still sent. Only a body that is
        // pending or of unknown length is cut.
        let ends = body.is_end_stream() || body.size_hint().exact().is_some();
        let known_length = if ends { KnownLength::Yes } else { KnownLength::No };
        if let Some(end) = this.state.check_end(known_length) {
            return this.state.end_early(end, cx);
        }
        let polled = catch(|| body.as_mut().poll_frame(cx));
        this.state.on_polled(body, polled, cx)
    }
}

// Used before the head is sent.
impl<B> ResponseBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// Returns an error if the body cannot have the length that the head `says`.
    pub(super) fn check_length(&self, says: u64) -> Result<(), LengthError> {
        match &self.source {
            Source::Handler { body } => compare_length(says, body),
            Source::Suppressed { .. }
            | Source::Text { .. }
            | Source::Aborted
            | Source::Resumed { .. } => Ok(()),
        }
    }

    /// Whether the head promises no bytes and the body may have some. hyper would not poll such a
    /// body.
    pub(super) fn may_exceed_zero_length(&self) -> bool {
        match &self.source {
            Source::Handler { .. } => {
                self.state.is_all_promised() && !HttpBody::is_end_stream(self)
            }
            Source::Resumed { body } => body.may_exceed_zero_length(),
            Source::Suppressed { .. } | Source::Text { .. } | Source::Aborted => false,
        }
    }

    /// Moves the body to a place that it never leaves, so that it can be polled.
    pub(super) fn into_pinned(self) -> Self {
        let is_pinned = matches!(self.source, Source::Resumed { .. });
        if is_pinned { self } else { Self::resumed(Box::pin(self)) }
    }

    /// Polls a pinned body whose head promises no bytes, until its end is known. If it failed or
    /// has bytes, its request is aborted, for the returned cause.
    pub(super) fn poll_before_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), AbortCause>> {
        let Source::Resumed { body } = &mut self.source else { return Poll::Ready(Ok(())) };
        body.as_mut().poll_zero_length(cx)
    }

    fn poll_zero_length(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), AbortCause>> {
        let this = self.as_mut().project();
        let SourceProjection::Handler { body } = this.source.project() else {
            return Poll::Ready(Ok(()));
        };
        let Err(why) = ready!(this.state.poll_end_known(body, cx)) else {
            return Poll::Ready(Ok(()));
        };
        self.abort_before_head(&why);
        Poll::Ready(Err(why.abort_cause()))
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
        in_flight.request().record_replaced(AbortCause::Body);
        in_flight.connection().on_request_ended();
        in_flight.abort(AbortCause::Body);
    }
}

// Used by the fast path, which writes a response without hyper.
impl<B> ResponseBody<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    /// Returns the whole body if one poll yields all of it, and why its request was aborted if it
    /// was. After `Pending` the body continues as if it had not been polled.
    pub(crate) fn poll_complete(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Bytes, AbortCause>> {
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
                        let bytes = frame.into_data().map_err(|_| AbortCause::Body);
                        this.state.record_bytes(bytes.as_ref().map_or(0, Bytes::len));
                        return Poll::Ready(bytes);
                    }
                    polled => this.state.on_polled(body, polled, cx),
                }
            }
            SourceProjection::Handler { .. }
            | SourceProjection::Suppressed { .. }
            | SourceProjection::Text { .. }
            | SourceProjection::Aborted
            | SourceProjection::Resumed { .. } => self.as_mut().poll_source(cx),
        };
        if let Poll::Ready(Some(Err(why))) = &polled {
            let cause = why.abort_cause();
            self.as_mut().abort_before_head(why);
            return Poll::Ready(Err(cause));
        }
        let Some(Ok(frame)) = ready!(polled) else { return Poll::Ready(Err(AbortCause::Body)) };
        let Ok(mut chunk) = frame.into_data() else { return Poll::Ready(Err(AbortCause::Body)) };
        let bytes = chunk.copy_to_bytes(chunk.remaining());
        let state = self.project().state;
        if state.complete {
            return Poll::Ready(Ok(bytes));
        }
        state.put_back(bytes);
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
    B::Error: Into<BoxError>,
{
    type Data = TrackedChunk;
    type Error = ResponseBodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> PolledFrame {
        let polled = self.as_mut().poll_source(cx);
        if let Poll::Ready(Some(Err(why))) = &polled {
            let trailers = self.state.grpc_trailers(why);
            ready!(self.abort_with(why));
            if let Some(trailers) = trailers {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
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
            Source::Aborted => false,
            Source::Text { line } => line.is_none(),
            Source::Resumed { body } => HttpBody::is_end_stream(body),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Suppressed { .. } => SizeHint::with_exact(0),
            Source::Aborted => SizeHint::default(),
            // A `StreamShutdown` may end a body early, but none with an exact size. The fast path
            // may have polled this body, of which nothing was sent.
            Source::Handler { body } => {
                self.state.unsent().map_or_else(|| body.size_hint(), SizeHint::with_exact)
            }
            Source::Text { line } => {
                SizeHint::with_exact(line.as_ref().map_or(0, |line| line.len() as u64))
            }
            Source::Resumed { body } => HttpBody::size_hint(body),
        }
    }
}
