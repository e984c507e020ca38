//! State of a response body: the bytes that it owes, its end, and the request that it holds.

use super::{
    connection_state::Protocol,
    grpc::{self, GrpcStatus},
    http_service::BoxError,
    in_flight::{InFlight, UnflushedResponses},
    request_state::RequestState,
    response_body_error::ResponseBodyError,
    stream_shutdown::{EarlyEnd, KnownLength, ShutdownWaits, StreamShutdown},
    tracked_chunk::TrackedChunk,
};
use crate::http::server::{
    caps::Cap, connection_slot::WriteStrategy, deadline_timers::DeadlineKey,
};
use crate::lifecycle::Moment;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use std::{
    mem,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

/// The result of a poll of the handler's body, or the message of its panic.
pub(super) type PolledBody<E> = Result<Poll<Option<Result<Frame<Bytes>, E>>>, String>;

pub(super) type PolledFrame = Poll<Option<Result<Frame<TrackedChunk>, ResponseBodyError>>>;

/// State of the body. A separate type, so that it can implement `Drop`.
#[derive(Debug)]
pub(super) struct BodyState {
    /// `None` once the request's outcome is settled.
    pub(super) in_flight: Option<InFlight>,
    /// Bytes that are still missing of the length in the head, if the head has one.
    pub(super) remaining: Option<u64>,
    /// Whether the body is complete if it is dropped now.
    pub(super) complete: bool,
    pub(super) class: StreamShutdown,
    waiting_on: WaitingOn,
    /// Absent for most bodies, which are short and ready at once.
    pub(super) later: Option<Box<Later>>,
}

/// State of a body that is not passed on at once.
#[derive(Debug, Default)]
pub(super) struct Later {
    /// Rest of a chunk that is passed on in parts.
    pub(super) rest: Option<Bytes>,
    /// The last byte that an HTTP/1 head promised, while the end of the body is unknown.
    pub(super) held_last: Option<Bytes>,
    pub(super) end_wait: Option<EndWait>,
    pub(super) ahead: Ahead,
    waits: Option<ShutdownWaits>,
    /// The end of an HTTP/2 response that is held back while much of the response waits for the
    /// client.
    pub(super) held_end: HeldEnd,
    /// The request, if its outcome was settled before the host's HTTP/2 response to it is written.
    pub(super) settled: Option<Arc<RequestState>>,
}

/// The end of a response, held back until everything before it was written.
#[derive(Debug, Default)]
pub(super) enum HeldEnd {
    #[default]
    None,
    End,
    Trailers(Box<HeaderMap>),
}

/// What the body returned after the bytes that its head promised.
#[derive(Debug, Default)]
pub(super) enum Ahead {
    #[default]
    Nothing,
    End,
    Trailers(Box<HeaderMap>),
}

/// The wait for the end of a body that has yielded all bytes that its head promised.
#[derive(Debug)]
pub(super) struct EndWait {
    pub(super) until: Moment,
    /// Entry in the worker's timers, which wake the body at the end of the wait and at the abort.
    pub(super) timer: Option<DeadlineKey>,
}

/// The side whose next step the body waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitingOn {
    /// The client: there are bytes for it to read, or there were.
    Client,
    /// The handler: the body waits for its next chunk.
    Handler,
}

impl BodyState {
    pub(super) fn set_queue(&mut self, queue: &Weak<UnflushedResponses>) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.set_queue(queue.clone());
        }
    }

    /// Returns the state of a body that is complete without another byte.
    pub(super) const fn complete(in_flight: Option<InFlight>) -> Self {
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

    pub(super) fn later(&mut self) -> &mut Later {
        self.later.get_or_insert_default()
    }

    pub(super) fn rest(&self) -> Option<&Bytes> {
        self.later.as_ref()?.rest.as_ref()
    }

    /// Returns how many of the promised bytes are left, if bytes were taken of the body that were
    /// not passed on.
    pub(super) fn unsent(&self) -> Option<u64> {
        let later = self.later.as_ref()?;
        if later.rest.is_none() && later.held_last.is_none() {
            return None;
        }
        Some(later.rest.as_ref().map_or(0, Bytes::len) as u64 + self.remaining?)
    }

    pub(super) fn has_ended_ahead(&self) -> bool {
        self.later.as_ref().is_some_and(|later| matches!(later.ahead, Ahead::End))
    }

    /// Returns what was taken of the body and not passed on, if there is any.
    pub(super) fn poll_later<B>(
        &mut self,
        body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Option<PolledFrame>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let later = &mut **self.later.as_mut()?;
        if !matches!(later.held_end, HeldEnd::None) {
            return Some(self.poll_held_end(cx));
        }
        if let Some(rest) = later.rest.take() {
            let ends = matches!(later.ahead, Ahead::End) || body.is_end_stream();
            let chunk = self.next_chunk(rest, ends);
            return Some(Poll::Ready(Some(Ok(Frame::data(chunk)))));
        }
        if later.held_last.is_some() {
            return Some(self.poll_held_last(body, cx));
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
    pub(super) fn on_polled<B>(
        &mut self,
        mut body: Pin<&mut B>,
        polled: PolledBody<B::Error>,
        cx: &mut Context<'_>,
    ) -> PolledFrame
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        self.wait_on(if matches!(polled, Ok(Poll::Pending)) {
            WaitingOn::Handler
        } else {
            WaitingOn::Client
        });
        match polled {
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                let frame = match self.count_frame(frame) {
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
                    match self.poll_end_known(body.as_mut(), cx) {
                        Poll::Ready(Ok(ended)) => ends = ended,
                        Poll::Ready(Err(broken)) => return Poll::Ready(Some(Err(broken))),
                        Poll::Pending => return self.hold_last(frame),
                    }
                }
                Poll::Ready(Some(Ok(frame.map_data(|bytes| self.next_chunk(bytes, ends)))))
            }
            Ok(Poll::Ready(None)) => match self.end() {
                Ok(()) => self.poll_end(cx),
                Err(broken) => Poll::Ready(Some(Err(broken))),
            },
            Ok(Poll::Ready(Some(Err(error)))) => Poll::Ready(Some(Err(self.failed(error)))),
            Ok(Poll::Pending) => self.wait(cx),
            Err(panic) => Poll::Ready(Some(Err(self.panicked(&panic)))),
        }
    }

    /// Whether this frame is all that the head promised.
    pub(super) fn is_whole(&self, frame: &Frame<Bytes>) -> bool {
        let len = frame.data_ref().map(|bytes| bytes.len() as u64);
        len.is_some() && len == self.remaining
    }

    /// Counts bytes that are passed on to be sent.
    pub(super) fn record_bytes(&self, bytes: usize) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.request().add_body_bytes(bytes);
        }
    }

    /// Keeps bytes that were counted and not sent, to return them once more.
    pub(super) fn put_back(&mut self, bytes: Bytes) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.request().subtract_body_bytes(bytes.len());
        }
        let rest = &mut self.later().rest;
        // They may be the first part of a larger chunk.
        *rest = Some(match rest.take() {
            Some(after) => [bytes, after].concat().into(),
            None => bytes,
        });
    }

    pub(super) fn chunk(&self, bytes: Bytes, ends: bool) -> TrackedChunk {
        self.record_bytes(bytes.len());
        let request = match &self.in_flight {
            Some(in_flight) => Some(in_flight.request()),
            None => self.later.as_ref().and_then(|later| later.settled.as_ref()),
        };
        TrackedChunk::of(request, bytes, ends)
    }

    /// Subtracts a frame from the bytes that the head promised.
    fn count_frame(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, ResponseBodyError> {
        let Some(remaining) = &mut self.remaining else { return Ok(frame) };
        let Some(bytes) = frame.data_ref() else { return self.end().map(|()| frame) };
        *remaining = remaining.checked_sub(bytes.len() as u64).ok_or(ResponseBodyError::Long)?;
        Ok(frame)
    }

    /// Whether all bytes that an HTTP/1 head promised were returned. hyper then polls the body no
    /// more.
    pub(super) fn is_all_promised(&self) -> bool {
        self.remaining == Some(0)
            && self
                .in_flight
                .as_ref()
                .is_some_and(|in_flight| in_flight.connection().protocol == Protocol::Http1)
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
    pub(super) fn is_last(&self, ends: bool) -> bool {
        match self.remaining {
            None => ends,
            Some(0) => ends || self.is_all_promised(),
            Some(_) => false,
        }
    }

    /// Returns a chunk of the handler's body, or the first part of it. `ends`: no chunk follows.
    pub(super) fn next_chunk(&mut self, mut bytes: Bytes, ends: bool) -> TrackedChunk {
        if let Some(most) = self.chunk_max(bytes.len())
            && most.is_exceeded_by(bytes.len())
        {
            self.later().rest = Some(bytes.split_off(most.get()));
        }
        if self.rest().is_none()
            && self.is_last(ends)
            && let Some(last) = self.split_last(&mut bytes)
        {
            self.later().rest = Some(last);
        }
        self.complete = self.rest().is_none() && self.is_last(ends);
        if let Some(in_flight) = self.in_flight.as_mut().filter(|_| !self.complete) {
            in_flight.set_slow();
        }
        self.chunk(bytes, self.complete)
    }

    /// Returns how many bytes of a chunk may be passed on at once; `None` if all of them.
    fn chunk_max(&self, len: usize) -> Option<Cap> {
        let connection = self.in_flight.as_ref()?.connection();
        let caps = connection.server().caps();
        if connection.writes == WriteStrategy::Flatten {
            let is_large = caps.copied_bytes.is_exceeded_by(len);
            return is_large.then(|| {
                connection.responses.on_large_chunk();
                caps.chunk_bytes
            });
        }
        // h2 may send a chunk as one DATA frame, for which all other streams wait.
        (connection.protocol == Protocol::Http2).then_some(caps.stream_turn_bytes)
    }

    /// Splits the last byte off a large HTTP/2 chunk, so that the stream can still be reset. hyper
    /// passes that byte, and the end with it, to h2 only once the client's window has room for all
    /// before it.
    fn split_last(&self, bytes: &mut Bytes) -> Option<Bytes> {
        let is_large_http2 = self.in_flight.as_ref().is_some_and(|in_flight| {
            in_flight.connection().protocol == Protocol::Http2
                && in_flight.server().caps().copied_bytes.is_exceeded_by(bytes.len())
        });
        is_large_http2.then(|| bytes.split_off(bytes.len() - 1))
    }

    /// Records a change of the side that the body waits for.
    pub(super) fn wait_on(&mut self, waiting_on: WaitingOn) {
        if let Some(in_flight) = self.in_flight.as_ref().filter(|_| self.waiting_on != waiting_on) {
            match waiting_on {
                WaitingOn::Handler => in_flight.connection().handler_started(),
                WaitingOn::Client => in_flight.connection().handler_stopped(),
            }
            self.waiting_on = waiting_on;
        }
    }

    /// Returns how the host ends this body, if it does so now.
    pub(super) fn check_end(&mut self, known_length: KnownLength) -> Option<EarlyEnd> {
        let request = self.in_flight.as_ref()?.request();
        let server = request.server();
        if request.is_call_over() {
            return Some(EarlyEnd::CallDeadline);
        }
        if request.is_aborting() && known_length == KnownLength::No {
            return Some(EarlyEnd::Cut);
        }
        let ended = match self.class {
            StreamShutdown::Finish => false,
            // A body may call `stream_end` when it is polled.
            StreamShutdown::EndAtDraining => {
                server.tokens.draining.is_cancelled() && !request.is_stream()
            }
            StreamShutdown::EndAtCancel => request.root().is_cancelled(),
            StreamShutdown::EndSpread => {
                let is_due = server.tokens.draining.is_cancelled()
                    && server.clock.now() >= request.stream_end();
                let ended = is_due || server.tokens.root.is_cancelled();
                if ended {
                    request.count_stream_end();
                }
                ended
            }
        };
        self.complete |= ended;
        ended.then_some(EarlyEnd::Complete)
    }

    /// Ends this body before its own end. A gRPC call that ends without the trailers of its handler
    /// has failed for its client, which may repeat it elsewhere.
    pub(super) fn end_early(&mut self, end: EarlyEnd, cx: &mut Context<'_>) -> PolledFrame {
        if end != EarlyEnd::Complete {
            return Poll::Ready(end.into_frame());
        }
        if !self.is_call() {
            return self.poll_end(cx);
        }
        let trailers = grpc::trailers(GrpcStatus::Unavailable, "the service is shutting down");
        match self.hold_trailers(Frame::trailers(trailers)) {
            Some(trailers) => {
                Poll::Ready(Some(Ok(trailers.map_data(|bytes| self.chunk(bytes, false)))))
            }
            None => self.poll_held_end(cx),
        }
    }

    fn is_call(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| in_flight.request().is_call())
    }

    /// Arranges a wake-up for when the shutdown ends this body.
    fn wait(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        let Some(in_flight) = &mut self.in_flight else { return Poll::Pending };
        in_flight.set_slow();
        in_flight.request().cancel_if_half_closed();
        let request = in_flight.request();
        let later = self.later.get_or_insert_default();
        let waits = later.waits.get_or_insert_with(|| ShutdownWaits::new(self.class, request));
        if waits.poll(cx).is_ready() {
            // The shutdown came between the check and the wait.
            let end = self.check_end(KnownLength::No);
            return end.map_or(Poll::Pending, |end| self.end_early(end, cx));
        }
        Poll::Pending
    }
}

impl Drop for BodyState {
    fn drop(&mut self) {
        self.wait_on(WaitingOn::Client);
        self.stop_timer();
        let Some(in_flight) = self.in_flight.take() else { return };
        if self.complete {
            in_flight.end_response();
        } else {
            in_flight.connection().on_request_ended();
        }
    }
}
