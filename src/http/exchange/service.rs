//! The hyper service of a connection. It gives each request its context, its deadline and its
//! outcome.

use super::{
    authority,
    body_wait::Waited,
    connection_state::{ConnectionState, Protocol},
    framing::{Content, declared_length},
    in_flight::{InFlight, UnflushedResponses},
    request_body::Body,
    request_state::RequestState,
    response_body::ResponseBody,
    stream_shutdown::StreamShutdown,
};
use crate::http::server::{
    abort::AbortCause, client_timeout::ClientTimeout, date, deadline_timers::DeadlineKey,
    state::millis, tracked::WorkOrigin,
};
use crate::{errors::Chain, lifecycle::Moment, unwind::catch};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version, header};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use std::{
    cell::Cell,
    convert::Infallible,
    error::Error,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

/// A boxed error of a service or a body.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The bounds on a hosted service, in one trait. Every hyper service that meets them implements it.
pub trait HttpService:
    hyper::service::Service<
        http::Request<Body>,
        Response = Response<Self::ResponseBody>,
        Error = Self::ServiceError,
        Future = Self::ServiceFuture,
    > + Send
    + Sync
    + 'static
{
    /// The body of its responses.
    type ResponseBody: HttpBody<Data = Bytes, Error = Self::BodyError> + Send + 'static;
    /// The error of its response bodies.
    type BodyError: Into<BoxError>;
    /// The error of the service. The client receives a 500.
    type ServiceError: Into<BoxError>;
    /// The future that a call returns.
    type ServiceFuture: Future<Output = Result<Response<Self::ResponseBody>, Self::ServiceError>>
        + Send
        + 'static;
}

impl<S, B> HttpService for S
where
    S: hyper::service::Service<http::Request<Body>, Response = Response<B>> + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type ResponseBody = B;
    type BodyError = B::Error;
    type ServiceError = S::Error;
    type ServiceFuture = S::Future;
}

/// The service of one connection, which hyper calls.
pub(crate) struct ConnectionService<S: HttpService> {
    service: Arc<S>,
    connection: Arc<ConnectionState>,
    unflushed: Arc<UnflushedResponses>,
    /// HTTP/2: passes the request of the last call to the executor of the streams.
    called: Option<CalledRequest>,
    /// The last request. The next one reuses its state if possible.
    last: Cell<Option<Arc<RequestState>>>,
    /// The request that hyper's first call continues, if it began before hyper took over.
    resumed: Cell<Option<Resumed<S>>>,
}

/// The request of the last call. hyper passes the stream to its executor right after the call.
#[derive(Clone, Debug, Default)]
pub(crate) struct CalledRequest(Arc<Mutex<Option<Arc<RequestState>>>>);

impl CalledRequest {
    fn set(&self, request: Arc<RequestState>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
    }

    pub(crate) fn take(&self) -> Option<Arc<RequestState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A request that began before hyper took over, and that hyper completes.
pub(crate) enum Resumed<S: HttpService> {
    /// A handler that was polled in the current poll of the connection's task and has its waker. It
    /// need not be polled again before it wakes the task.
    Pending(PinnedHandler<S>),
    Handler(PinnedHandler<S>),
    Response(Box<Response<ResponseBody<S::ResponseBody>>>),
}

impl<S: HttpService> Resumed<S> {
    fn set_queue(&mut self, queue: &Weak<UnflushedResponses>) {
        match self {
            Self::Pending(handler) | Self::Handler(handler) => {
                if let Some(handler) = handler.as_mut().as_pin_mut() {
                    handler.project().state.set_queue(queue);
                }
            }
            Self::Response(response) => response.body_mut().set_queue(queue),
        }
    }

    /// Prepares the request for another task. A handler and its timer still have the waker of the
    /// old one, so the handler must be polled again.
    pub(crate) fn for_another_task(self) -> Self {
        match self {
            Self::Pending(mut handler) | Self::Handler(mut handler) => {
                if let Some(handler) = handler.as_mut().as_pin_mut() {
                    handler.project().state.stop_timer();
                }
                Self::Handler(handler)
            }
            Self::Response(response) => Self::Response(response),
        }
    }
}

/// A handler that was polled, and must not move any more.
pub(crate) type PinnedHandler<S> =
    Pin<Box<Option<HandlerFuture<<S as HttpService>::ServiceFuture>>>>;

impl<S: HttpService> ConnectionService<S> {
    pub(crate) fn new(service: Arc<S>, connection: Arc<ConnectionState>) -> Self {
        Self {
            service,
            unflushed: UnflushedResponses::new(connection.clone()),
            connection,
            called: None,
            last: Cell::new(None),
            resumed: Cell::new(None),
        }
    }

    /// Passes the request of each call to the executor of the connection's streams.
    pub(crate) fn with_called(self, called: CalledRequest) -> Self {
        Self { called: Some(called), ..self }
    }

    pub(crate) const fn connection(&self) -> &Arc<ConnectionState> {
        &self.connection
    }

    pub(crate) const fn unflushed(&self) -> &Arc<UnflushedResponses> {
        &self.unflushed
    }

    /// Makes the next call continue a request that has begun.
    pub(crate) fn resume(&mut self, mut resumed: Resumed<S>) {
        resumed.set_queue(&Arc::downgrade(&self.unflushed));
        self.resumed = Cell::new(Some(resumed));
    }

    /// Begins a request that has no handler yet.
    fn begin(
        &self,
        method: &Method,
        uri: &Uri,
        version: Version,
        upgrade: Upgrade,
        queue: Weak<UnflushedResponses>,
    ) -> (HandlerState, Arc<RequestState>) {
        self.connection.on_call();
        let arrived = self.connection.server().clock.now();
        let request_state =
            RequestState::next(self.last.take(), &self.connection, arrived, method, uri);
        self.last.set(Some(request_state.clone()));
        let in_flight = Some(InFlight::begin(request_state.clone(), queue));
        (
            HandlerState {
                in_flight,
                timer: None,
                version,
                without_handler: ErrorResponse::Failed,
                upgrade,
            },
            request_state,
        )
    }

    /// Calls the handler for a request that hyper read.
    fn handle(&self, mut request: http::Request<Incoming>) -> HandlerFuture<S::ServiceFuture> {
        // hyper adds `OnUpgrade` for CONNECT too, and on HTTP/2, where 101 is not allowed (RFC 9113
        // §8.6).
        let wants_upgrade = request.extensions().get::<hyper::upgrade::OnUpgrade>().is_some()
            && request.version() == Version::HTTP_11
            && request.headers().contains_key(header::UPGRADE);
        let upgrade = if wants_upgrade { Upgrade::Requested } else { Upgrade::No };
        let (state, request_state) = self.begin(
            request.method(),
            request.uri(),
            request.version(),
            upgrade,
            Arc::downgrade(&self.unflushed),
        );
        if let Some(called) = &self.called {
            called.set(request_state.clone());
        }
        // Build the future in place. Returning it through `catch` would copy it.
        let mut handler = HandlerFuture { future: None, state };
        if let Err(why) = authority::check(&mut request) {
            handler.state.without_handler = ErrorResponse::Refused(why);
            // Records in the connection state that the body is unread.
            drop(Body::new(Some(request.into_body()), request_state));
            return handler;
        }
        // A service may panic before it returns its future.
        let called = catch(|| {
            handler.future = Some(
                self.service.call(request.map(|incoming| Body::new(Some(incoming), request_state))),
            );
        });
        if let Err(panic) = called {
            handler.state.record_panic(&panic);
        }
        handler
    }

    /// Returns a 431 if an HTTP/2 request has too many header fields. hyper limits their number on
    /// HTTP/1; h2 limits only their total size.
    fn refusal(
        &self,
        request: &http::Request<Incoming>,
    ) -> Option<Response<ResponseBody<S::ResponseBody>>> {
        let server = &self.connection.server();
        let (count, max) = (request.headers().len(), server.config.limits.headers_max);
        if self.connection.protocol == Protocol::Http1 || count <= max {
            return None;
        }
        self.connection.on_refused();
        let line = (*request.method() != Method::HEAD).then(|| {
            Bytes::from(format!(
                "the request has {count} header fields, above the limit of {max}\n"
            ))
        });
        let mut response = Response::new(ResponseBody::text(line, None));
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().insert(header::DATE, date::header(server.clock.wall()));
        Some(response)
    }

    /// Calls the handler for a fast-path `GET` and builds its future in `place`. Takes the header
    /// fields from `headers`. Returns when the request arrived.
    pub(crate) fn handle_in(
        &self,
        place: &mut PinnedHandler<S>,
        uri: Uri,
        headers: &mut HeaderMap,
    ) -> Moment {
        let (state, request_state) =
            self.begin(&Method::GET, &uri, Version::HTTP_11, Upgrade::No, Weak::new());
        let arrived = request_state.arrived;
        place.set(Some(HandlerFuture { future: None, state }));
        let Some(mut handler) = place.as_mut().as_pin_mut().map(HandlerFuture::project) else {
            return arrived;
        };
        let called = catch(|| {
            let mut request = http::Request::new(Body::new(None, request_state));
            *request.uri_mut() = uri;
            mem::swap(request.headers_mut(), headers);
            handler.future.set(Some(self.service.call(request)));
        });
        if let Err(panic) = called {
            handler.state.record_panic(&panic);
        }
        arrived
    }
}

impl<S: HttpService> hyper::service::Service<http::Request<Incoming>> for ConnectionService<S> {
    type Response = Response<ResponseBody<S::ResponseBody>>;
    type Error = Infallible;
    type Future = CallFuture<S>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        match self.resumed.take() {
            None => match self.refusal(&request) {
                None => CallFuture::New { handler: self.handle(request) },
                Some(refusal) => {
                    CallFuture::Resumed { resumed: Some(Resumed::Response(Box::new(refusal))) }
                }
            },
            Some(resumed) => {
                // hyper has read only the head that the fast path had read before.
                self.connection.io.clear_received();
                CallFuture::Resumed { resumed: Some(resumed) }
            }
        }
    }
}

pin_project! {
    /// The future of a call by hyper.
    #[project = CallFutureProjection]
    pub(crate) enum CallFuture<S: HttpService> {
        /// The call for a request that hyper read.
        New {
            #[pin]
            handler: HandlerFuture<S::ServiceFuture>,
        },
        /// The call that continues a request that began before hyper took over, or that has its
        /// response.
        Resumed { resumed: Option<Resumed<S>> },
    }
}

impl<S: HttpService> Future for CallFuture<S> {
    type Output = Result<Response<ResponseBody<S::ResponseBody>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.as_mut().project() {
            CallFutureProjection::New { handler } => {
                let Ok(response) = ready!(handler.poll(cx));
                let Some(connection) = response.body().switching(response.status()) else {
                    return Poll::Ready(Ok(for_hyper(cx, response)));
                };
                // The connection then polls hyper again at once, with upgrades enabled.
                connection.upgrade.set_switching();
                self.set(Self::Resumed { resumed: Some(Resumed::Response(Box::new(response))) });
                Poll::Pending
            }
            CallFutureProjection::Resumed { resumed } => match resumed.take() {
                Some(Resumed::Pending(handler)) => {
                    *resumed = Some(Resumed::Handler(handler));
                    Poll::Pending
                }
                Some(Resumed::Response(answer)) => Poll::Ready(Ok(for_hyper(cx, *answer))),
                Some(Resumed::Handler(mut handler)) => {
                    let polled = handler
                        .as_mut()
                        .as_pin_mut()
                        .map_or(Poll::Pending, |handler| handler.poll(cx));
                    if polled.is_pending() {
                        *resumed = Some(Resumed::Handler(handler));
                    }
                    polled.map_ok(|response| for_hyper(cx, response))
                }
                None => Poll::Pending,
            },
        }
    }
}

pin_project! {
    /// A running handler. `future` is `None` if the request was refused, or if the handler panicked
    /// or was dropped.
    pub(crate) struct HandlerFuture<F> {
        #[pin]
        future: Option<F>,
        state: HandlerState,
    }

    impl<F> PinnedDrop for HandlerFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            this.drop_handler();
        }
    }
}

struct HandlerState {
    in_flight: Option<InFlight>,
    /// Entry in the worker's deadline timers. A handler that responds at once needs none.
    timer: Option<DeadlineKey>,
    version: Version,
    /// The response if there is no handler.
    without_handler: ErrorResponse,
    upgrade: Upgrade,
}

/// Whether a request has asked for an upgrade, so that a 101 is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    Requested,
    No,
}

/// An error response in place of the handler's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorResponse {
    TimedOut(Duration),
    Aborted,
    /// The handler waited for the request body for this time.
    BodyTimedOut(Duration),
    /// The handler waited for the request body during the drain, which has a shorter timeout.
    Stalled,
    Failed,
    /// The request must not be served, for this reason.
    Refused(&'static str),
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
        let error = match catch(|| polled = future.poll(cx)).map(|()| polled) {
            Ok(Poll::Ready(Ok(response))) => {
                self.as_mut().drop_handler();
                let state = self.project().state;
                if response.status().is_informational() && !state.may_switch(&response) {
                    return Poll::Ready(Ok(state.refuse_status(response)));
                }
                return Poll::Ready(Ok(state.respond(response)));
            }
            Ok(Poll::Ready(Err(error))) => {
                let error: BoxError = error.into();
                let (method, path) =
                    me.state.in_flight.as_ref().map(InFlight::method_and_path).unzip();
                crate::log::error!(error = %Chain(&*error), method, path, "handler failed");
                Some(ErrorResponse::Failed)
            }
            Err(panic) => {
                me.state.record_panic(&panic);
                Some(ErrorResponse::Failed)
            }
            Ok(Poll::Pending) => me.state.wait(cx),
        };
        let Some(error) = error else { return Poll::Pending };
        self.as_mut().drop_handler();
        Poll::Ready(Ok(self.project().state.error_response(error)))
    }
}

impl<F> HandlerFuture<F> {
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
    /// From now on the request is served by hyper.
    fn set_queue(&mut self, queue: &Weak<UnflushedResponses>) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.set_queue(queue.clone());
        }
    }

    /// Returns an error response if a timeout or the abort ends the handler. Otherwise a timer
    /// wakes this task for both.
    fn wait(&mut self, cx: &mut Context<'_>) -> Option<ErrorResponse> {
        self.in_flight.as_mut()?.list();
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
            return Some(ErrorResponse::TimedOut(deadline.since(request.arrived)));
        }
        request.cancel_if_half_closed();
        if let Some((now, Waited::TooLong { since })) = body {
            server.note_client_timeout(
                ClientTimeout::Body,
                &connection.peer,
                Some(request.method_and_path().1),
            );
            return Some(match server.stall_cause(since, ClientTimeout::Body, now) {
                AbortCause::Shutdown => ErrorResponse::Stalled,
                AbortCause::Client | AbortCause::Body => {
                    ErrorResponse::BodyTimedOut(now.since(since))
                }
            });
        }
        if server.is_aborting() {
            return Some(ErrorResponse::Aborted);
        }
        None
    }

    fn respond<B>(&mut self, mut response: Response<B>) -> Response<ResponseBody<B>>
    where
        B: HttpBody<Data = Bytes>,
    {
        if self
            .in_flight
            .as_ref()
            .is_some_and(|in_flight| in_flight.request().switches_too_soon(response.status()))
        {
            return self.error_response(ErrorResponse::Refused(SWITCHED_TOO_SOON));
        }
        let Some(in_flight) = self.take_in_flight() else {
            return response.map(|_| ResponseBody::text(None, None));
        };
        // hyper panics at some versions and changes its framing for others. HTTP/2 sends no
        // version.
        *response.version_mut() = Version::HTTP_11;
        add_standard_headers(&mut response, &in_flight, self.version);
        let content = Content::of(in_flight.request().method(), response.status());
        in_flight.record_head_sent(true);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            || *in_flight.request().method() == Method::CONNECT
        {
            in_flight
                .connection()
                .upgrade
                .set_upgrade_origin(WorkOrigin::of_request(in_flight.method_and_path()));
        }
        if content != Content::Allowed {
            return without_content(response, content, in_flight);
        }
        let class = StreamShutdown::of(&response);
        // If the head and the body disagree, the response is not sent (P5d), so either gives the
        // length.
        let exact = response.body().size_hint().exact();
        let promised = exact.or_else(|| declared_length(response.headers_mut()).ok().flatten());
        // A body with a promised length would not be complete if it ended early.
        let class = if promised.is_some() { StreamShutdown::Finish } else { class };
        response.map(|body| ResponseBody::handler(body, in_flight, class, promised))
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
        if let Err(panic) = catch(|| drop(response)) {
            self.record_panic(&panic);
        }
        self.error_response(ErrorResponse::Failed)
    }

    fn error_response<B>(&mut self, error: ErrorResponse) -> Response<ResponseBody<B>> {
        let Some(in_flight) = self.take_in_flight() else {
            return Response::new(ResponseBody::text(None, None));
        };
        let mut response = Response::new(());
        *response.status_mut() = match error {
            ErrorResponse::TimedOut(_)
            | ErrorResponse::BodyTimedOut(_)
            | ErrorResponse::Aborted
            | ErrorResponse::Stalled => StatusCode::SERVICE_UNAVAILABLE,
            ErrorResponse::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorResponse::Refused(_) => StatusCode::BAD_REQUEST,
        };
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        add_date(response.headers_mut(), &in_flight);
        add_standard_headers(&mut response, &in_flight, self.version);
        if matches!(error, ErrorResponse::Refused(_)) {
            announce_close(&mut response, self.version);
        }
        let connection = in_flight.connection().clone();
        // On HTTP/1 hyper omits the body of a response to HEAD itself, and sends its length.
        let is_unsent =
            connection.protocol == Protocol::Http2 && *in_flight.request().method() == Method::HEAD;
        let line = (!is_unsent).then(|| Bytes::from(format!("{error}\n")));
        let left = match error {
            // This response counts as the handler's: the request is *finished* once it was sent
            // (P5c).
            ErrorResponse::Failed | ErrorResponse::Refused(_) => Some(in_flight),
            ErrorResponse::TimedOut(_) | ErrorResponse::BodyTimedOut(_) => {
                in_flight.time_out();
                connection.on_request_ended();
                None
            }
            ErrorResponse::Aborted | ErrorResponse::Stalled => {
                in_flight.abort(AbortCause::Shutdown);
                connection.on_request_ended();
                None
            }
        };
        response.map(|()| ResponseBody::text(line, left))
    }

    fn record_panic(&self, panic: &str) {
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

/// Sets the length fields of a response whose status or method allows no content.
fn without_content<B>(
    mut response: Response<B>,
    content: Content,
    in_flight: InFlight,
) -> Response<ResponseBody<B>>
where
    B: HttpBody<Data = Bytes>,
{
    let status = response.status();
    if content == Content::Forbidden {
        // RFC 9110 §8.6. hyper itself sends the empty length of a 205.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::TRANSFER_ENCODING);
    } else if status != StatusCode::NOT_MODIFIED
        && !response.headers().contains_key(header::CONTENT_LENGTH)
    {
        // RFC 9110 §9.3.2: the head has the same length as in a response to GET. On HTTP/1 hyper
        // adds it.
        if in_flight.connection().protocol == Protocol::Http1 {
            return response.map(|body| ResponseBody::length_only(body, in_flight));
        }
        if let Some(length) = response.body().size_hint().exact() {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
    }
    response.map(|body| ResponseBody::suppressed(body, in_flight))
}

/// Completes a response that hyper writes. Replaces it by a 500 if its head and its body contradict
/// each other in length (P5d).
fn for_hyper<B>(
    cx: &mut Context<'_>,
    mut response: Response<ResponseBody<B>>,
) -> Response<ResponseBody<B>>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let Some(in_flight) = response.body().in_flight() else { return response };
    let (protocol, method) =
        (in_flight.connection().protocol, in_flight.request().method().clone());
    let wall = in_flight.server().clock.wall();
    response.headers_mut().entry(header::DATE).or_insert_with(|| date::header(wall));
    let checked = match declared_length(response.headers_mut()) {
        Ok(None) => Ok(()),
        Ok(Some(says)) => response.body().check_length(says),
        Err(why) => Err(why),
    };
    let is_broken = match checked {
        Err(why) => {
            let (head, answer) = response.into_parts();
            answer.refuse(&why);
            response = Response::from_parts(head, ResponseBody::text(None, None));
            true
        }
        Ok(()) if response.body().may_exceed_zero_length() => {
            let (head, answer) = response.into_parts();
            let mut answer = Box::pin(Some(answer));
            let polled = answer
                .as_mut()
                .as_pin_mut()
                .map_or(Poll::Pending, |answer| answer.poll_before_head(cx));
            response = Response::from_parts(head, ResponseBody::resumed(answer));
            polled.is_ready()
        }
        Ok(()) => false,
    };
    if !is_broken {
        return response;
    }
    // On HTTP/1 hyper omits the body of a response to HEAD itself, and sends its length.
    let is_unsent = protocol == Protocol::Http2 && method == Method::HEAD;
    replacement_500(
        &response,
        (!is_unsent).then(|| Bytes::from(format!("{}\n", ErrorResponse::Failed))),
    )
}

/// Returns the 500 that replaces a response. Keeps the date and a `Connection: close` of its head.
#[cold]
fn replacement_500<B>(
    response: &Response<ResponseBody<B>>,
    line: Option<Bytes>,
) -> Response<ResponseBody<B>> {
    let mut error = Response::new(ResponseBody::text(line, None));
    *error.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    *error.version_mut() = response.version();
    let headers = error.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(date) = response.headers().get(header::DATE) {
        headers.insert(header::DATE, date.clone());
    }
    if response.headers().get(header::CONNECTION).is_some_and(|value| value == "close") {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    error
}

fn add_date(headers: &mut HeaderMap, in_flight: &InFlight) {
    headers.insert(header::DATE, date::header(in_flight.server().clock.wall()));
}

/// Adds the headers that every response carries for its connection.
fn add_standard_headers<B>(response: &mut Response<B>, in_flight: &InFlight, version: Version) {
    // P4: an HTTP/1 response announces that it is the last on its connection (RFC 9112 §9.6).
    // HTTP/2 has GOAWAY for that and forbids the header (RFC 9113 §8.2.2).
    let announces = in_flight.connection().on_response_head();
    let is_last = announces || in_flight.request().is_body_end_unclear();
    if is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        announce_close(response, version);
    }
}

/// Makes this HTTP/1 response the last on its connection.
fn announce_close<B>(response: &mut Response<B>, version: Version) {
    if version >= Version::HTTP_2 {
        return;
    }
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    if version == Version::HTTP_10 {
        // hyper would otherwise add `keep-alive`, since it has not read the header yet.
        *response.version_mut() = Version::HTTP_10;
    }
}

/// Reason to refuse a 101, or a 2xx to CONNECT, while the request body is unread. The new protocol
/// would begin with bytes of that body.
const SWITCHED_TOO_SOON: &str = "the protocol cannot change before the request body has been read";

/// Drops a request that has no response yet: the client left, or the host cut the connection.
impl Drop for HandlerState {
    fn drop(&mut self) {
        if let Some(in_flight) = self.take_in_flight() {
            in_flight.connection().on_request_ended();
        }
    }
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(after) => {
                write!(
                    f,
                    "request timed out: no response within its deadline of {}",
                    humantime::format_duration(*after)
                )
            }
            Self::Aborted => {
                f.write_str("request aborted: the service is shutting down and the drain has ended")
            }
            Self::BodyTimedOut(after) => {
                let after = humantime::format_duration(Duration::from_millis(millis(*after)));
                write!(f, "request timed out: no byte of its body arrived for {after}")
            }
            Self::Stalled => f.write_str(
                "request aborted: its body stopped arriving while the service was shutting down",
            ),
            Self::Failed => f.write_str("internal server error"),
            Self::Refused(why) => write!(f, "bad request: {why}"),
        }
    }
}
