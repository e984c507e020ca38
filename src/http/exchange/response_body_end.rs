//! The end of a response body: awaited on HTTP/1, so that a body that is too long is noticed, and
//! held back on HTTP/2, so that its stream can still be reset.

use super::{
    connection_state::Protocol,
    http_service::BoxError,
    response_body_error::ResponseBodyError,
    response_body_state::{Ahead, BodyState, EndWait, HeldEnd, PolledFrame},
};
use crate::{http::server::deadline_timers::TimeoutSource, lifecycle::Moment, unwind::catch};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};
use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

/// Time for which the last byte of an HTTP/1 body is held back while the body has not ended. Then
/// the body counts as ended, since it may stay pending for ever.
const END_WAIT: Duration = Duration::from_secs(1);

impl BodyState {
    /// Polls the body for what follows the promised bytes, before the last of these is sent. Once
    /// it is sent the response looks complete, and an error could no longer be shown to the client
    /// (P5d). Returns whether the body has ended.
    pub(super) fn poll_end_known<B>(
        &mut self,
        body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, ResponseBodyError>>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let looked = self.look_ahead(body, cx);
        self.stop_timer();
        match looked {
            Poll::Pending if self.is_end_awaited(cx) => Poll::Pending,
            Poll::Pending => Poll::Ready(Ok(false)),
            Poll::Ready(known) => Poll::Ready(known),
        }
    }

    fn look_ahead<B>(
        &mut self,
        mut body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, ResponseBodyError>>
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let Some(in_flight) = &self.in_flight else { return Poll::Ready(Ok(false)) };
        let most = in_flight.server().caps().empty_frames_max;
        for _ in 0..most.get() {
            let frame = match catch(|| body.as_mut().poll_frame(cx)) {
                Ok(polled) => ready!(polled),
                Err(panic) => return Poll::Ready(Err(self.panicked(&panic))),
            };
            let Some(frame) = frame else {
                self.later().ahead = Ahead::End;
                return Poll::Ready(Ok(true));
            };
            match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) if bytes.is_empty() => {}
                Ok(Ok(_)) => return Poll::Ready(Err(ResponseBodyError::Long)),
                Ok(Err(frame)) => {
                    self.later().ahead = frame
                        .into_trailers()
                        .map_or(Ahead::End, |trailers| Ahead::Trailers(Box::new(trailers)));
                    return Poll::Ready(Ok(false));
                }
                Err(error) => return Poll::Ready(Err(self.failed(error))),
            }
        }
        most.note(most.get());
        Poll::Ready(Ok(false))
    }

    /// Whether the end of the body is still awaited. Then a timer wakes the body.
    fn is_end_awaited(&mut self, cx: &Context<'_>) -> bool {
        self.stop_timer();
        let Some(in_flight) = &mut self.in_flight else { return false };
        in_flight.set_slow();
        let request = in_flight.request();
        request.cancel_if_half_closed();
        let now = request.server().clock.now();
        let later = self.later.get_or_insert_default();
        // With no byte promised, the head itself waits, and has its deadline (P9).
        let latest = if self.remaining == Some(0) { request.deadline() } else { Moment::NEVER };
        let until = latest.min(now + END_WAIT);
        let wait = later.end_wait.get_or_insert(EndWait { until, timer: None });
        if now >= wait.until {
            return false;
        }
        let deadlines = &request.connection.worker.deadlines;
        let waker = cx.waker().clone();
        wait.timer = Some(deadlines.wait(wait.until, TimeoutSource::Request, waker));
        // After the timer is set: the abort wakes only those who wait.
        !request.is_aborting()
    }

    pub(super) fn stop_timer(&mut self) {
        if let Some(in_flight) = &self.in_flight
            && let Some(wait) = self.later.as_mut().and_then(|later| later.end_wait.as_mut())
            && let Some(key) = wait.timer.take()
        {
            in_flight.connection().worker.deadlines.remove(key);
        }
    }

    /// Passes on a frame except its last byte, which is the last that the head promised.
    pub(super) fn hold_last(&mut self, frame: Frame<Bytes>) -> PolledFrame {
        let mut bytes = frame.into_data().unwrap_or_default();
        let last = bytes.split_off(bytes.len().saturating_sub(1));
        self.remaining = Some(last.len() as u64);
        self.complete = false;
        self.later().held_last = Some(last);
        if bytes.is_empty() {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(self.next_chunk(bytes, false)))))
    }

    /// Returns the last byte once the end of the body is known.
    pub(super) fn poll_held_last<B>(
        &mut self,
        body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> PolledFrame
    where
        B: HttpBody<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let ends = match ready!(self.poll_end_known(body, cx)) {
            Ok(ends) => ends,
            Err(broken) => return Poll::Ready(Some(Err(broken))),
        };
        self.remaining = Some(0);
        let last = self.later().held_last.take().unwrap_or_default();
        Poll::Ready(Some(Ok(Frame::data(self.next_chunk(last, ends)))))
    }

    /// Whether the end of an HTTP/2 response must be held back. hyper is done with a stream once it
    /// has passed the end to h2. h2 may then hold megabytes that the client never takes, and the
    /// stream could no longer be reset.
    fn must_hold_end(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|in_flight| {
            in_flight.request().progress.unwritten()
                > in_flight.server().caps().copied_bytes.get_u64()
        })
    }

    pub(super) fn hold_trailers(&mut self, mut frame: Frame<Bytes>) -> Option<Frame<Bytes>> {
        if let Some(trailers) = frame.trailers_mut()
            && self.is_http2()
        {
            remove_connection_fields(trailers);
        }
        if frame.is_data() || !self.must_hold_end() {
            return Some(frame);
        }
        self.later().held_end = frame
            .into_trailers()
            .map_or(HeldEnd::End, |trailers| HeldEnd::Trailers(Box::new(trailers)));
        None
    }

    fn is_http2(&self) -> bool {
        let protocol = self.in_flight.as_ref().map(|in_flight| in_flight.connection().protocol);
        protocol == Some(Protocol::Http2)
    }

    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if !self.must_hold_end() {
            return Poll::Ready(None);
        }
        self.later().held_end = HeldEnd::End;
        self.poll_held_end(cx)
    }

    /// Returns the end once everything before it was written.
    pub(super) fn poll_held_end(&mut self, cx: &mut Context<'_>) -> PolledFrame {
        if self
            .in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.request().progress.poll_written(cx).is_pending())
        {
            return Poll::Pending;
        }
        Poll::Ready(match mem::take(&mut self.later().held_end) {
            HeldEnd::Trailers(trailers) => Some(Ok(Frame::trailers(*trailers))),
            HeldEnd::None | HeldEnd::End => None,
        })
    }
}

/// Removes the fields that only HTTP/1 has (RFC 9113 §8.2.2). hyper removes them from heads, and
/// for trailers with one of them h2 would reset the stream.
fn remove_connection_fields(trailers: &mut HeaderMap) {
    for name in
        ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"]
    {
        trailers.remove(name);
    }
}
