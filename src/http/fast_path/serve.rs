//! Fast-path requests, served without hyper and without waiting.
//!
//! ```text
//!  bytes read
//!    │
//!    ▼
//!  fast-path request? ────────────── no ──────────┐
//!    │ yes                                        │
//!    ▼                                            │
//!  poll the handler once ─────────── pending ─────┤
//!    │ response                                   │
//!    ▼                                            │
//!  short, and of a known length? ─── no ──────────┼───▶ hyper takes over
//!    │ yes                                        │
//!    ▼                                            │
//!  poll the body once ────────────── incomplete ──┤
//!    │ complete, or failed: a 500                 │
//!    ▼                                            │
//!  next request in the bytes read ── yes ──▶ from above
//!    │ no
//!    ▼
//!  write all responses ───────────── not all ─────┘
//! ```
//!
//! What is left to hyper follows the responses that are gathered by then, so these are written
//! first.
//!
//! Hyper resumes from exactly the state it would have reached itself: unread bytes, a started
//! handler or response, unwritten bytes. All slow and unusual cases are therefore handled in one
//! place.

use super::{
    codec::{self, FastRequest, KeepAlive},
    gathered::{Gathered, Sent},
};
use crate::http::{
    exchange::{
        connection_state::{ConnectionState, Protocol},
        error_response::ErrorResponse,
        handler::PinnedHandler,
        http_service::HttpService,
        response_body::{PinnedResponseBody, ResponseBody},
        service::{ConnectionService, Resumed},
        sniff::after_empty_lines,
    },
    server::{
        connection_slot::ConnectionSlot, date::CachedDate, worker_metrics::Counted,
        worker_shared::WorkerShared,
    },
};
use crate::{lifecycle::Moment, runtime::Transport, unwind::catch};
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Body as HttpBody;
use std::{
    sync::Arc,
    task::{Context, Poll},
};

/// State that a connection keeps to serve fast-path requests.
pub(crate) struct FastPath<S: HttpService> {
    service: ConnectionService<S>,
    /// The places of the last handler and of the last response body, to be used again.
    handler: Option<PinnedHandler<S>>,
    body: Option<PinnedResponseBody<S::ResponseBody>>,
    /// The header map of the last response, which the next request uses again.
    headers: Option<HeaderMap>,
    date_cache: CachedDate,
    _counted: Counted,
}

/// Outcome for the bytes that were read.
pub(crate) enum FastPathOutcome<S: HttpService> {
    /// All requests were served; the last response was sent at this moment.
    AllServed(Moment),
    /// The last response of the connection was written. These bytes were read after its request.
    LastSent(Bytes),
    /// Hyper must take over.
    Fallback(Box<Leftover<S>>),
    /// The connection is broken.
    Disconnected,
}

/// Work left for hyper.
pub(crate) struct Leftover<S: HttpService> {
    /// Bytes to be read.
    read: Bytes,
    /// The request at the beginning of `read`, if it was begun.
    begun: Option<Resumed<S>>,
    /// Bytes to be written first.
    unwritten: Bytes,
    after: KeepAlive,
}

impl<S: HttpService> Leftover<S> {
    fn new(read: &[u8], begun: Option<Resumed<S>>) -> Box<Self> {
        let (read, unwritten) = (codec::copy_head(read), Bytes::new());
        Box::new(Self { read, begun, unwritten, after: KeepAlive::Yes })
    }

    /// Prepares a begun request for a task other than the one that polled its handler.
    pub(crate) fn for_another_task(self) -> Self {
        Self { begun: self.begun.map(Resumed::for_another_task), ..self }
    }
}

/// The state from which hyper resumes.
pub(crate) struct HyperHandoff<S: HttpService> {
    pub(crate) service: ConnectionService<S>,
    /// Bytes to be read. If their first request was begun, hyper parses its head again.
    pub(crate) read: Bytes,
    /// Bytes to be written first.
    pub(crate) unwritten: Bytes,
    pub(crate) after: KeepAlive,
    /// When the first byte of a head arrived that is still incomplete, if it was before this.
    pub(crate) head_since: Option<Moment>,
}

impl<S: HttpService> FastPath<S> {
    pub(crate) fn new(service: &Arc<S>, worker: &Arc<WorkerShared>, slot: &ConnectionSlot) -> Self {
        let connection = Arc::new(ConnectionState::new(Protocol::Http1, worker.clone(), slot));
        Self {
            service: ConnectionService::new(service.clone(), connection),
            handler: None,
            body: None,
            headers: None,
            date_cache: CachedDate::unknown(),
            _counted: Counted::new(&worker.metrics, |metrics| &metrics.fast_path),
        }
    }

    /// Returns the state from which hyper resumes.
    pub(crate) fn into_handoff(self, leftover: Leftover<S>) -> Box<HyperHandoff<S>> {
        let Leftover { read, begun, unwritten, after } = leftover;
        let mut service = self.service;
        if let Some(begun) = begun {
            service.resume(begun);
        }
        Box::new(HyperHandoff { service, read, unwritten, after, head_since: None })
    }

    pub(crate) const fn connection(&self) -> &Arc<ConnectionState> {
        self.service.connection()
    }

    /// Serves the fast-path requests at the beginning of `read`, while no wait is needed.
    /// Serves at most `requests_left`, which it decrements.
    pub(crate) fn serve<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        read: &[u8],
        requests_left: &mut u32,
    ) -> FastPathOutcome<S> {
        let mut gathered = Gathered::take();
        let mut outcome = FastPathOutcome::Disconnected;
        let served = catch(|| outcome = self.serve_all(cx, io, read, requests_left, &mut gathered));
        if let Err(panic) = served {
            // The body panicked when its length was queried. Earlier responses are not lost by
            // that.
            crate::log::error!(panic, "a response body panicked; its connection ends");
            self.connection().worker.metrics.count(|requests| &requests.panicked);
            gathered.discard_incomplete();
            let _ = gathered.send(cx, io, self.service.unflushed());
            io.mark_cut();
        }
        gathered.keep(self.connection().server().caps());
        outcome
    }

    fn serve_all<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        mut read: &[u8],
        requests_left: &mut u32,
        gathered: &mut Gathered,
    ) -> FastPathOutcome<S> {
        loop {
            let limits = &self.connection().server().config.limits;
            let fields_max = limits.fixed().fast_path_fields_max.get().min(limits.headers_max);
            let parsed = if *requests_left == 0 {
                None
            } else {
                codec::parse(read, fields_max, self.headers.get_or_insert_default())
            };
            let Some(parsed) = parsed else {
                // No handler was called for these bytes. They may be a partial head, which has its
                // own timeout.
                self.connection().take_called();
                return self.hand_over(cx, io, gathered, Leftover::new(read, None));
            };
            *requests_left -= 1;
            let FastRequest { uri, len, keep_alive } = parsed;
            let (mut handler, arrived) =
                self.service.handle_in(self.handler.take(), uri, &mut self.headers);
            let Poll::Ready(Ok(mut response)) = handler.as_mut().poll(cx) else {
                let leftover = Leftover::new(read, Some(Resumed::Pending(handler)));
                return self.hand_over(cx, io, gathered, leftover);
            };
            self.handler = Some(handler);
            let head = self.gather_head(&mut response, keep_alive, arrived, gathered);
            let gathered_all = match head {
                Some((length, after)) => {
                    self.gather_body(cx, response, length, gathered).map(|()| after)
                }
                None => Err(Box::new(response)),
            };
            let after = match gathered_all {
                Ok(after) => after,
                Err(response) => {
                    gathered.discard_incomplete();
                    let leftover = Leftover::new(read, Some(Resumed::Response(response)));
                    return self.hand_over(cx, io, gathered, leftover);
                }
            };
            read = after_empty_lines(&read[len..]);
            let at_once = self.connection().server().caps().sent_at_once;
            if after == KeepAlive::Yes
                && !read.is_empty()
                && !at_once.is_reached_by(gathered.bytes.len())
            {
                continue;
            }
            match gathered.send(cx, io, self.service.unflushed()) {
                Sent::All(_) if after == KeepAlive::No => {
                    return FastPathOutcome::LastSent(codec::copy_head(read));
                }
                Sent::All(now) if read.is_empty() => return FastPathOutcome::AllServed(now),
                Sent::All(_) => {}
                Sent::Blocked => {
                    let mut leftover = Leftover::new(read, None);
                    (leftover.unwritten, leftover.after) = (gathered.take_rest(), after);
                    return FastPathOutcome::Fallback(leftover);
                }
                Sent::Disconnected => return FastPathOutcome::Disconnected,
            }
        }
    }

    /// Sends the gathered responses, and leaves the rest to hyper.
    fn hand_over<T: Transport>(
        &self,
        cx: &mut Context<'_>,
        io: &mut T,
        gathered: &mut Gathered,
        mut leftover: Box<Leftover<S>>,
    ) -> FastPathOutcome<S> {
        if gathered.bytes.is_empty() {
            return FastPathOutcome::Fallback(leftover);
        }
        match gathered.send(cx, io, self.service.unflushed()) {
            Sent::All(_) => FastPathOutcome::Fallback(leftover),
            Sent::Blocked => {
                leftover.unwritten = gathered.take_rest();
                FastPathOutcome::Fallback(leftover)
            }
            Sent::Disconnected => FastPathOutcome::Disconnected,
        }
    }

    /// Adds the head of a response to those that are sent next, if the response is short and of a
    /// known length. Returns that length, and whether the connection stays open.
    fn gather_head(
        &mut self,
        response: &mut Response<ResponseBody<S::ResponseBody>>,
        keep_alive: KeepAlive,
        arrived: Moment,
        gathered: &mut Gathered,
    ) -> Option<(u64, KeepAlive)> {
        let out = &mut gathered.bytes;
        let start = out.len();
        let server = self.service.connection().server();
        // The handler responded at once, so the time of arrival serves for the date. The clock is
        // read again once everything was sent.
        let date = self.date_cache.at(arrived, || server.clock.wall());
        let source = response.body();
        let length =
            source.size_hint().exact().filter(|length| *length > 0 || source.is_end_stream())?;
        let after = codec::encode(out, response, length, keep_alive, date)?;
        let sent = length.saturating_add((out.len() - start) as u64);
        let is_long =
            server.caps().sent_at_once.is_exceeded_by(usize::try_from(sent).unwrap_or(usize::MAX));
        (!is_long).then_some((length, after))
    }

    /// Adds the body of a response after its head, if one poll yields all of it. Otherwise returns
    /// the response, or the one that replaces it.
    fn gather_body(
        &mut self,
        cx: &mut Context<'_>,
        response: Response<ResponseBody<S::ResponseBody>>,
        length: u64,
        gathered: &mut Gathered,
    ) -> Result<(), Box<Response<ResponseBody<S::ResponseBody>>>> {
        let (head, body) = response.into_parts();
        let mut body = ResponseBody::pinned(self.body.take(), body);
        if length > 0 {
            match body.as_mut().poll_complete(cx) {
                Poll::Ready(Ok(bytes)) => gathered.bytes.extend_from_slice(&bytes),
                // Its request was aborted. Nothing of its response was written.
                Poll::Ready(Err(cause)) => {
                    let server = self.service.connection().server();
                    let error = ErrorResponse::from(cause);
                    return Err(Box::new(error.replace_with_text(&head, server)));
                }
                Poll::Pending => {
                    let body = ResponseBody::resumed(body);
                    return Err(Box::new(Response::from_parts(head, body)));
                }
            }
        }
        let in_flight = body.as_mut().end();
        self.body = Some(body);
        self.headers = Some(head.headers);
        gathered.end_response(in_flight);
        Ok(())
    }
}
