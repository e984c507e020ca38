//! The hyper service of a connection. It gives each request its context, its deadline and its
//! outcome.

use super::{
    authority,
    connection_state::{ConnectionState, Protocol},
    error_response::ErrorResponse,
    framing::LengthError,
    grpc::{self, GrpcStatus},
    handler::{HandlerFuture, HandlerState, PinnedHandler, Upgrade},
    http_service::HttpService,
    in_flight::{InFlight, UnflushedResponses},
    request_body::Body,
    request_state::RequestState,
    request_states::RequestStates,
    response_body::ResponseBody,
    response_head_check::{self, CheckedHead, Head},
};
use crate::{http::server::date, lifecycle::Moment, unwind::catch};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version, header};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use std::{
    cell::Cell,
    convert::Infallible,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
};

/// The service of one connection, which hyper calls.
pub(crate) struct ConnectionService<S: HttpService> {
    service: Arc<S>,
    connection: Arc<ConnectionState>,
    unflushed: Arc<UnflushedResponses>,
    /// HTTP/2: passes the request of the last call to the executor of the streams.
    called: Option<CalledRequest>,
    states: RequestStates,
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
                handler.as_mut().project().state.set_queue(queue);
            }
            Self::Response(response) => response.body_mut().set_queue(queue),
        }
    }

    /// Prepares the request for another task.
    pub(crate) fn for_another_task(self) -> Self {
        match self {
            Self::Pending(mut handler) | Self::Handler(mut handler) => {
                handler.as_mut().for_another_task();
                Self::Handler(handler)
            }
            Self::Response(response) => Self::Response(response),
        }
    }
}

impl<S: HttpService> ConnectionService<S> {
    pub(crate) fn new(service: Arc<S>, connection: Arc<ConnectionState>) -> Self {
        Self {
            service,
            unflushed: UnflushedResponses::new(connection.clone()),
            connection,
            called: None,
            states: RequestStates::default(),
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
        let request_state = self.states.next(&self.connection, arrived, method, uri);
        let in_flight = InFlight::begin(request_state.clone(), queue);
        (HandlerState::new(in_flight, version, upgrade), request_state)
    }

    /// Calls the handler for a request that hyper read.
    fn handle(&self, mut request: http::Request<Incoming>) -> CallFuture<S> {
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
        if self.is_call(&request) {
            request_state.begin_call(grpc::timeout(request.headers()));
        }
        // Build the future in place. Returning it through `catch` would copy it.
        let mut call = CallFuture::New { handler: HandlerFuture { future: None, state } };
        let CallFuture::New { handler } = &mut call else { return call };
        if let Err(why) = authority::check(&mut request) {
            handler.state.without_handler = ErrorResponse::Refused(why);
            handler.state.set_running(false);
            // Records in the connection state that the body is unread.
            drop(Body::new(request.into_body(), request_state));
            return call;
        }
        // A service may panic before it returns its future.
        let called = catch(|| {
            handler.future =
                Some(self.service.call(request.map(|incoming| Body::new(incoming, request_state))));
        });
        if let Err(panic) = called {
            handler.state.record_panic(&panic);
        }
        // Over HTTP/2 other tasks run before its first poll.
        handler.state.set_running(false);
        call
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
        let why = format!("the request has {count} header fields, above the limit of {max}");
        let (mut head, ()) = Response::new(()).into_parts();
        head.headers.insert(header::DATE, date::header(server.clock.wall()));
        if self.is_call(request) {
            grpc::set_trailers_only(&mut head, GrpcStatus::ResourceExhausted, &why);
            return Some(Response::from_parts(head, ResponseBody::text(None, None)));
        }
        head.status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        head.headers.insert(header::CONTENT_TYPE, text);
        let line = (*request.method() != Method::HEAD).then(|| Bytes::from(why + "\n"));
        // It counts as no request, and its stream has a send timeout.
        let (now, connection) = (server.clock.now(), &self.connection);
        let refused = RequestState::begun(connection, now, request.method(), request.uri());
        refused.set_running(false);
        let body = ResponseBody::settled_text(line, &refused);
        if let Some(called) = &self.called {
            called.set(refused);
        }
        Some(Response::from_parts(head, body))
    }

    /// Whether a request is a gRPC call. gRPC needs HTTP/2.
    fn is_call<B>(&self, request: &http::Request<B>) -> bool {
        self.connection.protocol == Protocol::Http2
            && grpc::is_call(request.method(), request.headers())
    }

    /// Calls the handler for a fast-path request, in `place` if that is given. Takes the header
    /// fields. Returns the handler, and when the request arrived.
    pub(crate) fn handle_in(
        &self,
        place: Option<PinnedHandler<S>>,
        method: Method,
        uri: Uri,
        headers: &mut Option<HeaderMap>,
        body: Option<Bytes>,
    ) -> (PinnedHandler<S>, Moment) {
        let (state, request_state) =
            self.begin(&method, &uri, Version::HTTP_11, Upgrade::No, Weak::new());
        let arrived = request_state.arrived;
        let mut pinned = HandlerFuture::pinned(place, state);
        let mut handler = pinned.as_mut().project();
        let called = catch(|| {
            let mut request = http::Request::new(Body::arrived(body, request_state));
            *request.method_mut() = method;
            *request.uri_mut() = uri;
            if let Some(headers) = headers.take() {
                // The replaced map is empty and owns no memory, so its destructor is skipped.
                mem::forget(mem::replace(request.headers_mut(), headers));
            }
            handler.future.set(Some(self.service.call(request)));
        });
        // Otherwise the handler is polled at once.
        if let Err(panic) = called {
            handler.state.record_panic(&panic);
            handler.state.set_running(false);
        }
        (pinned, arrived)
    }
}

impl<S: HttpService> hyper::service::Service<http::Request<Incoming>> for ConnectionService<S> {
    type Response = Response<ResponseBody<S::ResponseBody>>;
    type Error = Infallible;
    type Future = CallFuture<S>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        match self.resumed.take() {
            None => {
                if self.connection.protocol == Protocol::Http2 {
                    join_cookies(request.headers_mut());
                }
                match self.refusal(&request) {
                    None => self.handle(request),
                    Some(refusal) => {
                        CallFuture::Resumed { resumed: Some(Resumed::Response(Box::new(refusal))) }
                    }
                }
            }
            Some(resumed) => {
                // hyper has read only the head that the fast path had read before.
                self.connection.io.clear_received();
                CallFuture::Resumed { resumed: Some(resumed) }
            }
        }
    }
}

/// Joins the cookies that an HTTP/2 client has sent in several fields (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.len() == headers.keys_len() {
        // No field has several values.
        return;
    }
    let crumbs = headers.get_all(header::COOKIE);
    let is_sensitive = crumbs.iter().any(HeaderValue::is_sensitive);
    let crumbs = crumbs.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();
    if crumbs.len() > 1
        && let Ok(mut joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        joined.set_sensitive(is_sensitive);
        headers.insert(header::COOKIE, joined);
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

impl<S: HttpService> CallFuture<S> {
    /// Passes a response to hyper, now or once the end of its body is known.
    #[inline]
    fn finish(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut response: Response<ResponseBody<S::ResponseBody>>,
    ) -> Poll<<Self as Future>::Output> {
        match response_head_check::complete(&mut response) {
            Ok(Head::Complete) => Poll::Ready(Ok(response)),
            Ok(Head::NeedsEnd) => self.finish_later(cx, response, None),
            Err(error) => self.finish_later(cx, response, Some(&error)),
        }
    }

    #[cold]
    fn finish_later(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        response: Response<ResponseBody<S::ResponseBody>>,
        error: Option<&LengthError>,
    ) -> Poll<<Self as Future>::Output> {
        match response_head_check::replace_or_wait(cx, response, error) {
            CheckedHead::Ready(response) => Poll::Ready(Ok(response)),
            CheckedHead::Wait(response) => {
                self.set(Self::Resumed { resumed: Some(Resumed::Response(response)) });
                Poll::Pending
            }
        }
    }
}

impl<S: HttpService> Future for CallFuture<S> {
    type Output = Result<Response<ResponseBody<S::ResponseBody>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.as_mut().project() {
            CallFutureProjection::New { mut handler } => {
                let Ok(response) = ready!(handler.as_mut().poll(cx));
                if let Some(connection) = response.body().switching(response.status()) {
                    // The connection then polls hyper again at once, with upgrades enabled.
                    connection.upgrade.set_switching();
                } else if handler.has_skipped_body(response.body()) {
                    // hyper then skips what has arrived of the request body. If that is not all, it
                    // announces in the head that it closes the connection (RFC 9112 §9.3).
                    cx.waker().wake_by_ref();
                } else {
                    return self.finish(cx, response);
                }
                self.set(Self::Resumed { resumed: Some(Resumed::Response(Box::new(response))) });
                Poll::Pending
            }
            CallFutureProjection::Resumed { resumed } => match resumed.take() {
                Some(Resumed::Pending(handler)) => {
                    *resumed = Some(Resumed::Handler(handler));
                    Poll::Pending
                }
                Some(Resumed::Response(response)) => self.finish(cx, *response),
                Some(Resumed::Handler(mut handler)) => {
                    let Poll::Ready(Ok(response)) = handler.as_mut().poll(cx) else {
                        *resumed = Some(Resumed::Handler(handler));
                        return Poll::Pending;
                    };
                    self.finish(cx, response)
                }
                None => Poll::Pending,
            },
        }
    }
}
