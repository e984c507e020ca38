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
//!  write ─────────────────────────── not all ─────┘
//!    │ all
//!    ▼
//!  next request in the bytes read
//! ```
//!
//! Hyper resumes from exactly the state it would have reached itself: unread bytes, a started
//! handler or response, unwritten bytes. All slow and unusual cases are therefore handled in one
//! place.

use super::codec::{self, FastRequest, KeepAlive};
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
use crate::{lifecycle::Moment, runtime::Transport};
use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Body as HttpBody;
use std::{
    cell::Cell,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// State that a connection keeps to serve fast-path requests.
pub(crate) struct FastPath<S: HttpService> {
    service: ConnectionService<S>,
    handler: PinnedHandler<S>,
    body: PinnedResponseBody<S::ResponseBody>,
    /// The header map of the last response, to be reused.
    headers: HeaderMap,
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
    Fallback(Leftover<S>),
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
    fn new(read: &[u8], begun: Option<Resumed<S>>) -> Self {
        Self { read: codec::copy_head(read), begun, unwritten: Bytes::new(), after: KeepAlive::Yes }
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
}

/// A request whose handler has responded.
struct Handled<'a> {
    /// The bytes from the request's head on.
    read: &'a [u8],
    /// The bytes from the next head on.
    next: &'a [u8],
    keep_alive: KeepAlive,
    arrived: Moment,
}

thread_local! {
    /// Buffer in which responses are assembled, one at a time.
    static OUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl<S: HttpService> FastPath<S> {
    pub(crate) fn new(service: &Arc<S>, worker: &Arc<WorkerShared>, slot: &ConnectionSlot) -> Self {
        let connection = Arc::new(ConnectionState::new(Protocol::Http1, worker.clone(), slot));
        Self {
            service: ConnectionService::new(service.clone(), connection),
            handler: Box::pin(None),
            body: Box::pin(None),
            headers: HeaderMap::new(),
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
        Box::new(HyperHandoff { service, read, unwritten, after })
    }

    pub(crate) const fn connection(&self) -> &Arc<ConnectionState> {
        self.service.connection()
    }

    /// Serves the fast-path requests at the beginning of `read`, as far as that needs no waiting.
    /// Serves at most `requests_left`, which it decrements.
    pub(crate) fn serve<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        mut read: &[u8],
        requests_left: &mut u32,
    ) -> FastPathOutcome<S> {
        loop {
            let limits = &self.connection().server().config.limits;
            let fields_max = limits.fixed().fast_path_fields_max.get().min(limits.headers_max);
            let parsed = if *requests_left == 0 {
                None
            } else {
                codec::parse(read, fields_max, &mut self.headers)
            };
            let Some(parsed) = parsed else {
                // No handler was called for these bytes. They may be a partial head, which has its
                // own timeout.
                self.connection().take_called();
                return FastPathOutcome::Fallback(Leftover::new(read, None));
            };
            *requests_left -= 1;
            let FastRequest { uri, len, keep_alive } = parsed;
            let arrived = self.service.handle_in(&mut self.handler, uri, &mut self.headers);
            let polled = self
                .handler
                .as_mut()
                .as_pin_mut()
                .map_or(Poll::Pending, |handler| handler.poll(cx));
            let Poll::Ready(Ok(response)) = polled else {
                let handler = mem::replace(&mut self.handler, Box::pin(None));
                let leftover = Leftover::new(read, Some(Resumed::Pending(handler)));
                return FastPathOutcome::Fallback(leftover);
            };
            self.handler.set(None);
            let request =
                Handled { read, next: after_empty_lines(&read[len..]), keep_alive, arrived };
            let mut out = OUT.take();
            let sent = self.respond(cx, io, response, &request, &mut out);
            let server = self.service.connection().server();
            // Not noted: what a thread has kept depends on the worlds before this one.
            if out.capacity() <= server.caps().out_kept_bytes.get() {
                out.clear();
                OUT.set(out);
            }
            read = request.next;
            match sent {
                Err(outcome) => return outcome,
                Ok((KeepAlive::No, _)) => return FastPathOutcome::LastSent(codec::copy_head(read)),
                Ok((KeepAlive::Yes, now)) if read.is_empty() => {
                    return FastPathOutcome::AllServed(now);
                }
                Ok((KeepAlive::Yes, _)) => {}
            }
        }
    }

    /// Sends a response, if it is short and complete. Returns whether the connection stays open,
    /// and when everything was sent.
    fn respond<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        mut response: Response<ResponseBody<S::ResponseBody>>,
        request: &Handled<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(KeepAlive, Moment), FastPathOutcome<S>> {
        let for_hyper = |response| {
            let resumed = Resumed::Response(Box::new(response));
            FastPathOutcome::Fallback(Leftover::new(request.read, Some(resumed)))
        };
        let server = self.service.connection().server();
        // The handler responded at once, so the time of arrival serves for the date. The clock is
        // read again once everything was sent.
        let date = self.date_cache.at(request.arrived, || server.clock.wall());
        let source = response.body();
        let length =
            source.size_hint().exact().filter(|length| *length > 0 || source.is_end_stream());
        let after = length
            .and_then(|length| codec::encode(out, &mut response, length, request.keep_alive, date));
        let (Some(length), Some(after)) = (length, after) else { return Err(for_hyper(response)) };
        let sent = length.saturating_add(out.len() as u64);
        if server.caps().sent_at_once.is_exceeded_by(usize::try_from(sent).unwrap_or(usize::MAX)) {
            return Err(for_hyper(response));
        }
        let (mut head, body) = response.into_parts();
        self.body.set(Some(body));
        if length > 0 {
            match self
                .body
                .as_mut()
                .as_pin_mut()
                .map_or(Poll::Pending, |body| body.poll_complete(cx))
            {
                Poll::Ready(Some(bytes)) => out.extend_from_slice(&bytes),
                // Its request was aborted. Nothing of its response was written.
                Poll::Ready(None) => {
                    self.body.set(None);
                    let error = ErrorResponse::Failed.replace_with_text(&head, server);
                    return Err(for_hyper(error));
                }
                Poll::Pending => {
                    let body = mem::replace(&mut self.body, Box::pin(None));
                    return Err(for_hyper(Response::from_parts(head, ResponseBody::resumed(body))));
                }
            }
        }
        let in_flight = self.body.as_mut().as_pin_mut().and_then(ResponseBody::end);
        self.body.set(None);
        mem::swap(&mut self.headers, &mut head.headers);
        let connection = self.service.connection();
        match send(cx, io, out) {
            Poll::Ready(Ok(())) => {
                let now = connection.server().clock.now();
                if let Some(in_flight) = in_flight {
                    connection.on_request_ended();
                    in_flight.finish(&|| now);
                }
                Ok((after, now))
            }
            Poll::Ready(Err(Disconnected)) => {
                if in_flight.is_some() {
                    connection.on_request_ended();
                }
                Err(FastPathOutcome::Disconnected)
            }
            Poll::Pending => {
                if let Some(in_flight) = in_flight {
                    self.service.unflushed().push(in_flight);
                }
                let unwritten = Bytes::from(mem::take(out));
                let leftover = Leftover { unwritten, after, ..Leftover::new(request.next, None) };
                Err(FastPathOutcome::Fallback(leftover))
            }
        }
    }
}

/// The connection is broken.
struct Disconnected;

/// Writes and flushes. Unwritten bytes stay in `out`.
fn send<T: Transport>(
    cx: &mut Context<'_>,
    io: &mut T,
    out: &mut Vec<u8>,
) -> Poll<Result<(), Disconnected>> {
    let mut written = 0;
    while written < out.len() {
        match Pin::new(&mut *io).poll_write(cx, &out[written..]) {
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Disconnected)),
            Poll::Ready(Ok(more)) => written += more,
            Poll::Pending => {
                drop(out.drain(..written));
                return Poll::Pending;
            }
        }
    }
    let flushed = Pin::new(io).poll_flush(cx);
    if flushed.is_pending() {
        out.clear();
    }
    flushed.map_err(|_| Disconnected)
}
