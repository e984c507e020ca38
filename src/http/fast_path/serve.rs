//! Fast-path requests, served without hyper.
//!
//! ```text
//!  bytes read
//!    │
//!    ▼
//!  fast-path request? ────────────── no ──────────┐
//!    │ yes                                        │
//!    ▼                                            │
//!  poll the handler ──────────────── pending ─────┤
//!    │ response                                   │
//!    ▼                                            │
//!  of a known length? ────────────── no ──────────┼───▶ hyper takes over
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
//! If the handler of the last request that was read waits, the connection waits for it without
//! hyper.
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
use bytes::{Buf, Bytes, buf::Chain};
use http::{HeaderMap, Response};
use http_body::Body as HttpBody;
use std::{
    ops::ControlFlow,
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
    waiting: Option<WaitingRequest<S>>,
    _counted: Counted,
}

/// Outcome for the bytes that were read.
pub(crate) enum FastPathOutcome<S: HttpService> {
    /// All requests were served; the last response was sent at this moment.
    AllServed(Moment),
    /// The last response of the connection was written. These bytes were read after its request.
    LastSent(Bytes),
    /// The handler of the last request that was read waits. All earlier responses were sent.
    Waits,
    /// Hyper must take over.
    Fallback(Box<Leftover<S>>),
    /// The connection is broken.
    Disconnected,
}

/// A request whose handler waits.
struct WaitingRequest<S: HttpService> {
    handler: PinnedHandler<S>,
    /// The request as it was read, in case that hyper completes it.
    read: Bytes,
    keep_alive: KeepAlive,
}

/// A request whose handler was called.
#[derive(Clone, Copy)]
struct BegunRequest {
    /// Length of the request in bytes.
    len: usize,
    keep_alive: KeepAlive,
    /// The time for the date of its response.
    now: Moment,
}

/// Work left for hyper.
pub(crate) struct Leftover<S: HttpService> {
    /// Bytes to be read.
    read: Bytes,
    /// The request at the beginning of `read`, if it was begun.
    begun: Option<Resumed<S>>,
    /// Bytes to be written first.
    unwritten: Chain<Bytes, Bytes>,
    after: KeepAlive,
}

impl<S: HttpService> Leftover<S> {
    fn new(read: &[u8], begun: Option<Resumed<S>>) -> Box<Self> {
        Box::new(Self { begun, ..Self::of(codec::copy_head(read)) })
    }

    fn of(read: Bytes) -> Self {
        let unwritten = Bytes::new().chain(Bytes::new());
        Self { read, begun: None, unwritten, after: KeepAlive::Yes }
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
    pub(crate) unwritten: Chain<Bytes, Bytes>,
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
            waiting: None,
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

    /// Prepares the handler that waits for a task other than the one that polled it.
    pub(crate) fn for_another_task(&mut self) {
        if let Some(request) = &mut self.waiting {
            request.handler.as_mut().for_another_task();
        }
    }

    /// Leaves the request that waits to hyper.
    pub(crate) fn take_waiting(&mut self) -> Option<Leftover<S>> {
        let WaitingRequest { handler, read, .. } = self.waiting.take()?;
        Some(Leftover { begun: Some(Resumed::Pending(handler)), ..Leftover::of(read) })
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
        self.gathering(cx, io, |this, cx, io, gathered| {
            this.serve_all(cx, io, read, requests_left, gathered)
        })
    }

    /// Polls the handler that waits. If it has responded, sends the response.
    pub(crate) fn resume<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
    ) -> FastPathOutcome<S> {
        let Some(request) = &mut self.waiting else { return FastPathOutcome::Disconnected };
        let Poll::Ready(Ok(response)) = request.handler.as_mut().poll(cx) else {
            return FastPathOutcome::Waits;
        };
        let Some(WaitingRequest { handler, read, keep_alive }) = self.waiting.take() else {
            return FastPathOutcome::Disconnected;
        };
        self.handler = Some(handler);
        let now = self.connection().server().clock.now();
        let request = BegunRequest { len: read.len(), keep_alive, now };
        self.gathering(cx, io, |this, cx, io, gathered| {
            match this.respond(cx, io, &read, request, response, gathered) {
                ControlFlow::Break(outcome) => outcome,
                // Nothing was read after the request, so its response was sent.
                ControlFlow::Continue(_) => FastPathOutcome::AllServed(now),
            }
        })
    }

    /// Calls `serve` with a place for the responses. A panic in it ends the connection.
    fn gathering<T, Serve>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        serve: Serve,
    ) -> FastPathOutcome<S>
    where
        T: Transport,
        Serve: FnOnce(&mut Self, &mut Context<'_>, &mut T, &mut Gathered) -> FastPathOutcome<S>,
    {
        if io.is_spent() {
            self.connection().announcement.set_aged();
        }
        let mut gathered = Gathered::take();
        let mut outcome = FastPathOutcome::Disconnected;
        let served = catch(|| outcome = serve(self, cx, io, &mut gathered));
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
            let Some((mut handler, request)) = self.begin(read, requests_left) else {
                // No handler was called for these bytes. They may be a partial head, which has its
                // own timeout.
                self.connection().take_called();
                return self.hand_over(cx, io, gathered, Leftover::new(read, None));
            };
            let Poll::Ready(Ok(response)) = handler.as_mut().poll(cx) else {
                if gathered.bytes.is_empty() && after_empty_lines(&read[request.len..]).is_empty() {
                    let (read, keep_alive) = (codec::copy_head(read), request.keep_alive);
                    self.waiting = Some(WaitingRequest { handler, read, keep_alive });
                    return FastPathOutcome::Waits;
                }
                let leftover = Leftover::new(read, Some(Resumed::Pending(handler)));
                return self.hand_over(cx, io, gathered, leftover);
            };
            self.handler = Some(handler);
            read = match self.respond(cx, io, read, request, response, gathered) {
                ControlFlow::Continue(rest) => rest,
                ControlFlow::Break(outcome) => return outcome,
            };
        }
    }

    /// Begins the request at the beginning of `read`, if it is one for the fast path. The handler
    /// has not been polled yet.
    #[inline]
    fn begin(
        &mut self,
        read: &[u8],
        requests_left: &mut u32,
    ) -> Option<(PinnedHandler<S>, BegunRequest)> {
        if *requests_left == 0 {
            return None;
        }
        let limits = &self.connection().server().config.limits;
        let fields_max = limits.fixed().fast_path_fields_max.get().min(limits.headers_max);
        let FastRequest { method, uri, body, len, keep_alive } =
            codec::parse(read, fields_max, self.headers.get_or_insert_default())?;
        *requests_left -= 1;
        let place = self.handler.take();
        let (handler, arrived) =
            self.service.handle_in(place, method, uri, &mut self.headers, body);
        // If the handler responds at once, the time of arrival serves for the date.
        Some((handler, BegunRequest { len, keep_alive, now: arrived }))
    }

    /// Gathers the response to the request at the beginning of `read`, and sends the gathered
    /// responses unless another request follows. Returns what follows and is to be served.
    #[inline]
    fn respond<'read, T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        read: &'read [u8],
        request: BegunRequest,
        response: Response<ResponseBody<S::ResponseBody>>,
        gathered: &mut Gathered,
    ) -> ControlFlow<FastPathOutcome<S>, &'read [u8]> {
        let after = match self.gather(cx, response, request, gathered) {
            Ok(after) => after,
            Err(response) => {
                let leftover = Leftover::new(read, Some(Resumed::Response(response)));
                return ControlFlow::Break(self.hand_over(cx, io, gathered, leftover));
            }
        };
        let rest = after_empty_lines(&read[request.len..]);
        let caps = self.connection().server().caps();
        if after == KeepAlive::Yes && !rest.is_empty() && !gathered.is_full(caps) {
            return ControlFlow::Continue(rest);
        }
        ControlFlow::Break(match gathered.send(cx, io, self.service.unflushed()) {
            Sent::All(_) if after == KeepAlive::No => {
                FastPathOutcome::LastSent(codec::copy_head(rest))
            }
            Sent::All(now) if rest.is_empty() => FastPathOutcome::AllServed(now),
            Sent::All(_) => return ControlFlow::Continue(rest),
            Sent::Incomplete => {
                let mut leftover = Leftover::new(rest, None);
                (leftover.unwritten, leftover.after) = (gathered.take_rest(), after);
                FastPathOutcome::Fallback(leftover)
            }
            Sent::Disconnected => FastPathOutcome::Disconnected,
        })
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
            Sent::Incomplete => {
                leftover.unwritten = gathered.take_rest();
                FastPathOutcome::Fallback(leftover)
            }
            Sent::Disconnected => FastPathOutcome::Disconnected,
        }
    }

    /// Adds a response to those that are sent next. Returns whether the connection stays open, or
    /// the response that is left to hyper.
    #[inline]
    fn gather(
        &mut self,
        cx: &mut Context<'_>,
        mut response: Response<ResponseBody<S::ResponseBody>>,
        request: BegunRequest,
        gathered: &mut Gathered,
    ) -> Result<KeepAlive, Box<Response<ResponseBody<S::ResponseBody>>>> {
        let all = match self.gather_head(&mut response, request, gathered) {
            Some((length, after)) => {
                // Also if an error response replaces this one.
                if after == KeepAlive::No && request.keep_alive == KeepAlive::Yes {
                    self.connection().responses.set_closes();
                }
                self.gather_body(cx, response, length, gathered).map(|()| after)
            }
            None => Err(Box::new(response)),
        };
        if all.is_err() {
            gathered.discard_incomplete();
        }
        all
    }

    /// Adds the head of a response to those that are sent next, if the response is of a known
    /// length. Returns that length, and whether the connection stays open.
    fn gather_head(
        &mut self,
        response: &mut Response<ResponseBody<S::ResponseBody>>,
        request: BegunRequest,
        gathered: &mut Gathered,
    ) -> Option<(u64, KeepAlive)> {
        let server = self.service.connection().server();
        let date = self.date_cache.at(request.now, || server.clock.wall());
        let source = response.body();
        let length =
            source.size_hint().exact().filter(|length| *length > 0 || source.is_end_stream())?;
        let after = codec::encode(&mut gathered.bytes, response, length, request.keep_alive, date)?;
        Some((length, after))
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
                Poll::Ready(Ok(bytes)) => {
                    gathered.add_body(bytes, self.service.connection().server().caps());
                }
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
