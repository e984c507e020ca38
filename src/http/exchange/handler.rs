//! A running handler: the future of its call, with its deadline and its outcome.

use super::{
    body_wait::Waited,
    error_response::ErrorResponse,
    framing::{Content, declared_length},
    http_service::{AppError, BoxError, HttpService},
    in_flight::{InFlight, UnflushedResponses},
    request_end::CancelCause,
    response_body::ResponseBody,
    response_head::{add_standard_headers, without_content},
    stream_shutdown::StreamShutdown,
};
use crate::http::server::{
    abort::AbortCause, client_timeout::ClientTimeout, deadline_timers::DeadlineKey,
    tracked::WorkOrigin,
};
use crate::{lifecycle::Moment, unwind::catch};
use bytes::Bytes;
use http::{Response, StatusCode, Version};
use http_body::Body as HttpBody;
use hyper::ext::ReasonPhrase;
use pin_project_lite::pin_project;
use std::{
    convert::Infallible,
    mem,
    pin::Pin,
    sync::Weak,
    task::{Context, Poll},
};

/// A handler that was polled, and must not move any more.
pub(crate) type PinnedHandler<S> = Pin<Box<HandlerFuture<<S as HttpService>::ServiceFuture>>>;

pin_project! {
    /// A running handler. `future` is `None` if the request was refused, or if the handler panicked
    /// or was dropped.
    pub(crate) struct HandlerFuture<F> {
        #[pin]
        pub(super) future: Option<F>,
        pub(super) state: HandlerState,
    }

    impl<F> PinnedDrop for HandlerFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if this.future.is_some() {
                if let Some(in_flight) = &this.state.in_flight {
                    in_flight.cancel_dropped();
                }
                this.drop_handler();
            }
        }
    }
}

pub(super) struct HandlerState {
    in_flight: Option<InFlight>,
    /// Entry in the worker's deadline timers. A handler that responds at once needs none.
    timer: Option<DeadlineKey>,
    version: Version,
    /// The response if there is no handler.
    pub(super) without_handler: ErrorResponse,
    upgrade: Upgrade,
    /// An error response whose request is settled precedes the end of the request body.
    skips_body: bool,
}

/// Whether a request has asked for an upgrade, so that a 101 is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgrade {
    Requested,
    No,
}

/// What a body says of itself before it is polled.
#[derive(Clone, Copy, Debug, Default)]
struct BodyHint {
    length: Option<u64>,
    /// It is empty.
    ends: bool,
}

impl BodyHint {
    fn of(body: &impl HttpBody) -> Self {
        Self { length: body.size_hint().exact(), ends: body.is_end_stream() }
    }
}

impl<F, B, E> Future for HandlerFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: HttpBody<Data = Bytes>,
    E: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut me = self.as_mut().project();
        let Some(future) = me.future.as_mut().as_pin_mut() else {
            let error = me.state.without_handler;
            return Poll::Ready(Ok(me.state.error_response(error)));
        };
        let mut polled = Poll::Pending;
        let mut hint = BodyHint::default();
        me.state.set_running(true);
        let caught = catch(|| {
            polled = future.poll(cx);
            // The body is the app's code, too.
            if let Poll::Ready(Ok(response)) = &polled {
                hint = BodyHint::of(response.body());
            }
        });
        me.state.set_running(false);
        let error = match polled {
            Poll::Ready(Ok(response)) => {
                self.as_mut().drop_handler();
                if let Err(panic) = caught {
                    return Poll::Ready(Ok(self.project().state.replace(response, &panic)));
                }
                let state = self.project().state;
                if response.status().is_informational() && !state.may_switch(&response) {
                    return Poll::Ready(Ok(state.refuse_status(response)));
                }
                return Poll::Ready(Ok(state.respond(response, hint)));
            }
            Poll::Ready(Err(error)) => {
                me.state.log_failure(error);
                Some(ErrorResponse::Failed)
            }
            Poll::Pending => match caught {
                Ok(()) => me.state.wait(cx),
                Err(panic) => {
                    me.state.record_panic(&panic);
                    Some(ErrorResponse::Failed)
                }
            },
        };
        let Some(error) = error else { return Poll::Pending };
        if let Some(cause) = error.cancel_cause() {
            me.state.cancel(cause);
        }
        self.as_mut().drop_handler();
        Poll::Ready(Ok(self.project().state.error_response(error)))
    }
}

impl<F> HandlerFuture<F> {
    /// Begins a request in the place of an earlier one that has ended, or in a new place.
    pub(super) fn pinned(place: Option<Pin<Box<Self>>>, state: HandlerState) -> Pin<Box<Self>> {
        match place {
            Some(mut place) => {
                *place.as_mut().project().state = state;
                place
            }
            None => Box::pin(Self { future: None, state }),
        }
    }

    /// Prepares the handler for another task. It and its timer still have the waker of the old one,
    /// so it must be polled again.
    pub(crate) fn for_another_task(self: Pin<&mut Self>) {
        self.project().state.stop_timer();
    }

    /// Returns whether this response precedes the end of an HTTP/1 request body that the handler
    /// has dropped. It must then wait until hyper has been polled again.
    pub(super) fn has_skipped_body<B>(&self, response: &ResponseBody<B>) -> bool {
        self.state.skips_body || response.in_flight().is_some_and(InFlight::begin_skip)
    }

    /// Drops the handler and catches a panic of its destructor, which would otherwise unwind
    /// through hyper.
    fn drop_handler(self: Pin<&mut Self>) {
        let mut me = self.project();
        if let Err(panic) = catch(|| me.future.set(None)) {
            me.state.record_panic(&panic);
        }
    }
}

impl HandlerState {
    pub(super) const fn new(in_flight: InFlight, version: Version, upgrade: Upgrade) -> Self {
        Self {
            in_flight: Some(in_flight),
            timer: None,
            version,
            without_handler: ErrorResponse::Failed,
            upgrade,
            skips_body: false,
        }
    }

    /// Records whether the handler is being polled.
    pub(super) fn set_running(&self, is_running: bool) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.request().set_running(is_running);
        }
    }

    /// From now on the request is served by hyper.
    pub(super) fn set_queue(&mut self, queue: &Weak<UnflushedResponses>) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.set_queue(queue.clone());
        }
    }

    /// Returns an error response if a timeout or the abort ends the handler. Otherwise a timer
    /// wakes this task for both.
    fn wait(&mut self, cx: &mut Context<'_>) -> Option<ErrorResponse> {
        self.in_flight.as_mut()?.set_slow();
        let request = self.in_flight.as_ref()?.request();
        let (connection, server) = (&request.connection, request.server());
        let deadline = request.deadline();
        let now = request.has_body().then(|| server.clock.now());
        let body = now.and_then(|now| Some((now, request.check_body_wait(now)?)));
        let wake_at = match body {
            Some((_, Waited::NotYet { next_check })) => deadline.min(next_check),
            Some((_, Waited::TooLong { .. })) | None => deadline,
        };
        let is_set = |key: DeadlineKey| match body {
            None => key.deadline == deadline,
            // An earlier timer suffices if it has not expired: when it fires, the handler is
            // checked again.
            Some((now, _)) => key.deadline <= wake_at && key.deadline > now,
        };
        // hyper polls this future with the same waker from first to last, so the timer keeps it.
        if !self.timer.is_some_and(is_set) {
            if let Some(key) = self.timer.take() {
                connection.worker.deadlines.remove(key);
            }
            self.timer = Some(connection.worker.deadlines.wait(
                wake_at,
                request.timeout_source(wake_at),
                cx.waker().clone(),
            ));
        }
        // The clock decides, not the timer, which rounds and may fire early or late. No request
        // times out before its deadline (P9).
        if deadline != Moment::NEVER && server.clock.now() >= deadline {
            return Some(ErrorResponse::DeadlinePassed(deadline.since(request.arrived)));
        }
        request.cancel_if_half_closed();
        if let Some((now, Waited::TooLong { since })) = body {
            server.note_client_timeout(
                ClientTimeout::Body,
                &connection.peer,
                Some(&request.method_and_path().1),
            );
            return Some(match server.stall_cause(since, ClientTimeout::Body, now) {
                AbortCause::Shutdown => ErrorResponse::Stalled,
                AbortCause::Client | AbortCause::Body => {
                    ErrorResponse::RequestBodyLate(now.since(since))
                }
            });
        }
        if request.is_aborting() {
            return Some(ErrorResponse::Aborted);
        }
        None
    }

    /// Returns the response with the host's part.
    fn respond<B>(&mut self, mut response: Response<B>, hint: BodyHint) -> Response<ResponseBody<B>>
    where
        B: HttpBody<Data = Bytes>,
    {
        if !response.extensions().is_empty() {
            self.drop_extensions(&mut response);
        }
        if self
            .in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.request().switches_too_soon(response.status()))
        {
            self.drop_response(response);
            return self.error_response(ErrorResponse::Refused(SWITCHED_TOO_SOON));
        }
        let Some(mut in_flight) = self.take_in_flight() else {
            return response.map(|_| ResponseBody::text(None, None));
        };
        // hyper panics at some versions and changes its framing for others. HTTP/2 sends no
        // version.
        *response.version_mut() = Version::HTTP_11;
        add_standard_headers(&mut response, &in_flight, self.version);
        let content = Content::of(in_flight.request().method(), response.status());
        in_flight.request().record_head(response.status());
        if in_flight.request().switches_protocol(response.status()) {
            in_flight
                .connection()
                .upgrade
                .set_upgrade_origin(WorkOrigin::of_request(in_flight.method_and_path()));
            if StreamShutdown::of(&response, in_flight.request()) == StreamShutdown::EndSpread
                || in_flight.request().is_stream()
            {
                in_flight.request().begin_stream();
            }
        }
        if content != Content::Allowed {
            return without_content(response, content, in_flight);
        }
        if self.version == Version::HTTP_2 && !hint.ends {
            // hyper polls no body before its client has opened the window.
            in_flight.set_slow();
        }
        let class = StreamShutdown::of(&response, in_flight.request());
        // If the head and the body disagree, the response is not sent (P5d), so either gives the
        // length.
        let promised =
            hint.length.or_else(|| declared_length(response.headers_mut()).ok().flatten());
        // A body with a promised length would not be complete if it ended early.
        let class = if promised.is_some() { StreamShutdown::Finish } else { class };
        if class == StreamShutdown::EndSpread {
            in_flight.request().begin_stream();
        }
        response.map(|body| ResponseBody::handler(body, hint.ends, in_flight, class, promised))
    }

    /// Whether a response is a 101 for which its request has asked.
    fn may_switch<B>(&self, response: &Response<B>) -> bool {
        response.status() == StatusCode::SWITCHING_PROTOCOLS && self.upgrade == Upgrade::Requested
    }

    /// Responds with a 500 in place of a status that is not final.
    #[cold]
    fn refuse_status<B>(&mut self, response: Response<B>) -> Response<ResponseBody<B>> {
        let status = response.status();
        if let Some(in_flight) = &self.in_flight {
            if status == StatusCode::SWITCHING_PROTOCOLS {
                in_flight.log_refusal(&"status 101 without a request to upgrade");
            } else {
                in_flight.log_refusal(&format_args!("status {} is not final", status.as_u16()));
            }
        }
        self.drop_response(response);
        self.error_response(ErrorResponse::Failed)
    }

    /// Responds with a 500 in place of a response whose body panicked when it was asked for its
    /// length or its end.
    #[cold]
    fn replace<B>(&mut self, response: Response<B>, panic: &str) -> Response<ResponseBody<B>> {
        self.record_panic(panic);
        self.drop_response(response);
        self.error_response(ErrorResponse::Failed)
    }

    /// Cancels the context, for what the handler does when it is dropped (P9).
    fn cancel(&self, cause: CancelCause) {
        if let Some(in_flight) = &self.in_flight {
            in_flight.request().cancel(cause);
        }
    }

    /// Drops the extensions of a response, except those that the host reads and the reason phrase.
    /// hyper drops them without a catch, so a panic of their destructors would unwind through it.
    #[cold]
    fn drop_extensions<B>(&self, response: &mut Response<B>) {
        let mut dropped = mem::take(response.extensions_mut());
        if let Some(class) = dropped.remove::<StreamShutdown>() {
            response.extensions_mut().insert(class);
        }
        if let Some(reason) = dropped.remove::<ReasonPhrase>() {
            response.extensions_mut().insert(reason);
        }
        if let Err(panic) = catch(|| drop(dropped)) {
            self.record_panic(&panic);
        }
    }

    fn drop_response<B>(&self, response: Response<B>) {
        if let Err(panic) = catch(|| drop(response)) {
            self.record_panic(&panic);
        }
    }

    fn error_response<B>(&mut self, error: ErrorResponse) -> Response<ResponseBody<B>> {
        match self.take_in_flight() {
            Some(in_flight) => {
                self.skips_body = in_flight.begin_skip();
                error.respond(in_flight, self.version)
            }
            None => Response::new(ResponseBody::text(None, None)),
        }
    }

    #[cold]
    fn log_failure(&self, error: impl Into<BoxError>) {
        let error = match AppError::new(error) {
            Ok(error) => error,
            Err(panic) => return self.record_panic(&panic),
        };
        let (method, path) = self.in_flight.as_ref().map(InFlight::method_and_path).unzip();
        crate::log::error!(%error, method, path, "handler failed");
    }

    pub(super) fn record_panic(&self, panic: &str) {
        let Some(in_flight) = &self.in_flight else { return };
        in_flight.count_panic();
        let (method, path) = in_flight.method_and_path();
        crate::log::error!(panic, method, path, "handler panicked");
    }

    /// Takes the request in flight and stops its timer.
    fn take_in_flight(&mut self) -> Option<InFlight> {
        self.stop_timer();
        let in_flight = self.in_flight.take()?;
        in_flight.connection().handler_stopped();
        Some(in_flight)
    }

    /// Removes the handler from the deadline timers, which also wake it at the abort.
    fn stop_timer(&mut self) {
        if let (Some(in_flight), Some(key)) = (&self.in_flight, self.timer.take()) {
            in_flight.connection().worker.deadlines.remove(key);
        }
    }
}

/// Drops a request that has no response yet: the client left, or the host cut the connection.
impl Drop for HandlerState {
    fn drop(&mut self) {
        if let Some(in_flight) = self.take_in_flight() {
            in_flight.connection().on_request_ended();
        }
    }
}

/// Reason to refuse a 101, or a 2xx to CONNECT, while the request body is unread. The new protocol
/// would begin with bytes of that body.
const SWITCHED_TOO_SOON: &str = "the protocol cannot change before the request body has been read";
