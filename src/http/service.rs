//! The guest's service: it gives each request its context, its deadline and its fate.

use super::{
    Body, DrainClass, RequestContext,
    answer::{Answer, panic_message},
    date,
    link::Link,
    request::{Flight, Request, tells_to_go},
    side::Side,
};
use crate::{env::Sleep, lifecycle::Moment};
use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use std::{
    convert::Infallible,
    error::Error,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// A boxed error of a service or a body.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// What we ask of a service, in one name.
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
    /// Its answers' bodies.
    type ResponseBody: HttpBody<Data = Bytes, Error = Self::BodyError> + Send + 'static;
    /// How its answers' bodies fail.
    type BodyError: Into<BoxError>;
    /// How it fails. The client gets a 500.
    type ServiceError: Into<BoxError>;
    /// What it returns at once.
    type ServiceFuture: Future<Output = Result<Response<Self::ResponseBody>, Self::ServiceError>> + Send + 'static;
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

/// The service that hyper calls, one a connection.
pub(crate) struct Guarded<S> {
    pub(crate) service: Arc<S>,
    pub(crate) side: Arc<Side>,
    pub(crate) link: Arc<Link>,
}

impl<S: HttpService> hyper::service::Service<http::Request<Incoming>> for Guarded<S> {
    type Response = Response<Answer<S::ResponseBody>>;
    type Error = Infallible;
    type Future = Handling<S::ServiceFuture>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        self.link.on_call();
        let arrived = self.side.clock.now();
        let about = Arc::new(Request::new(
            self.side.clone(),
            self.link.clone(),
            arrived,
            request.method().clone(),
            request.uri().clone(),
        ));
        let flight = Flight::begin(about.clone());
        let shape = Shape { method: bodyless_method(request.method()), version: request.version() };
        let (mut parts, incoming) = request.into_parts();
        parts.extensions.insert(RequestContext(about));
        let request = http::Request::from_parts(parts, Body::new(incoming, &self.link));
        // A service may panic before it returns its future.
        let handler = catch_unwind(AssertUnwindSafe(|| self.service.call(request)));
        let (handler, failure) = match handler {
            Ok(handler) => (Some(handler), None),
            Err(panic) => {
                note_panic(&flight, panic_message(&*panic));
                (None, Some(()))
            }
        };
        Handling { handler, failure, state: HandlingState { flight: Some(flight), waits: None }, shape }
    }
}

/// What of the request shapes its answer.
#[derive(Clone, Copy, Debug)]
struct Shape {
    method: BodylessMethod,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodylessMethod {
    Yes,
    No,
}

fn bodyless_method(method: &Method) -> BodylessMethod {
    // RFC 9110 §9.3.2: an answer to HEAD has no content.
    if *method == Method::HEAD { BodylessMethod::Yes } else { BodylessMethod::No }
}

pin_project! {
    /// A handler at work.
    pub(crate) struct Handling<F> {
        #[pin]
        handler: Option<F>,
        failure: Option<()>,
        state: HandlingState,
        shape: Shape,
    }
}

struct HandlingState {
    flight: Option<Flight>,
    waits: Option<Box<Waits>>,
}

/// What wakes a handler that waits. Made at its first wait: a handler that answers at once needs no timer.
struct Waits {
    deadline: Moment,
    sleep: Pin<Box<dyn Sleep>>,
    abort: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Why we answer in a handler's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    TimedOut(Duration),
    Aborted,
    Stalled,
    Failed,
}

impl<F, B, E> Future for Handling<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: HttpBody<Data = Bytes>,
    E: Into<BoxError>,
{
    type Output = Result<Response<Answer<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut me = self.project();
        let polled = match me.handler.as_mut().as_pin_mut() {
            Some(handler) => catch_unwind(AssertUnwindSafe(|| handler.poll(cx))),
            None => Ok(Poll::Pending),
        };
        let instead = match polled {
            Ok(Poll::Ready(Ok(response))) => return Poll::Ready(Ok(me.state.answer(response, *me.shape))),
            Ok(Poll::Ready(Err(error))) => {
                let error: BoxError = error.into();
                let (method, path) = me.state.flight.as_ref().map(|flight| flight.request().name()).unzip();
                tracing::error!(%error, method, path, "a handler failed");
                Some(Instead::Failed)
            }
            Err(panic) => {
                if let Some(flight) = &me.state.flight {
                    note_panic(flight, panic_message(&*panic));
                }
                Some(Instead::Failed)
            }
            Ok(Poll::Pending) if me.failure.take().is_some() => Some(Instead::Failed),
            Ok(Poll::Pending) => me.state.wait(cx),
        };
        let Some(instead) = instead else { return Poll::Pending };
        // Dropping a handler runs its code, which may panic like any other.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| me.handler.set(None)))
            && let Some(flight) = &me.state.flight
        {
            note_panic(flight, panic_message(&*panic));
        }
        Poll::Ready(Ok(me.state.answer_instead(instead, *me.shape)))
    }
}

impl HandlingState {
    /// Whether the wait is over for the deadline or the abort; if not, both will wake us.
    fn wait(&mut self, cx: &mut Context<'_>) -> Option<Instead> {
        let request = self.flight.as_ref()?.request();
        let side = &request.side;
        let deadline = request.deadline();
        let waits = self.waits.get_or_insert_with(|| {
            Box::new(Waits {
                deadline,
                sleep: side.clock.sleep_until(deadline),
                abort: Box::pin(side.moments.abort.clone().cancelled_owned()),
            })
        });
        if waits.deadline != deadline {
            waits.deadline = deadline;
            waits.sleep.as_mut().reset(deadline);
        }
        // The clock decides, not the timer (P9: never before): a timer may be early by its rounding, or late.
        while deadline != Moment::NEVER && waits.sleep.as_mut().poll(cx).is_ready() {
            if side.clock.now() >= deadline {
                return Some(Instead::TimedOut(deadline.since(request.arrived)));
            }
            waits.sleep.as_mut().reset(deadline);
        }
        if request.link.is_stalled() {
            return Some(Instead::Stalled);
        }
        if waits.abort.as_mut().poll(cx).is_ready() {
            return Some(Instead::Aborted);
        }
        None
    }

    fn answer<B>(&mut self, response: Response<B>, shape: Shape) -> Response<Answer<B>>
    where
        B: HttpBody<Data = Bytes>,
    {
        let (mut parts, body) = response.into_parts();
        let class = DrainClass::of(&parts.extensions, &parts.headers);
        self.dress(&mut parts, shape);
        let bodyless = shape.method == BodylessMethod::Yes
            || parts.status == StatusCode::NO_CONTENT
            || parts.status == StatusCode::NOT_MODIFIED
            || parts.status.is_informational();
        let body = match self.flight.take() {
            Some(flight) => {
                flight.note_head_sent();
                Answer::own(body, flight, class, bodyless)
            }
            None => Answer::line(Bytes::new(), None),
        };
        Response::from_parts(parts, body)
    }

    fn answer_instead<B>(&mut self, instead: Instead, shape: Shape) -> Response<Answer<B>> {
        let (mut parts, ()) = Response::new(()).into_parts();
        parts.status = match instead {
            Instead::TimedOut(_) | Instead::Aborted | Instead::Stalled => StatusCode::SERVICE_UNAVAILABLE,
            Instead::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        };
        parts.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        self.dress(&mut parts, shape);
        let flight = self.flight.take();
        let link = flight.as_ref().map(|flight| flight.request().link.clone());
        let left = match (instead, flight) {
            // The 500 is the handler's own answer, in its way: it is finished once it has left (P5).
            (Instead::Failed, flight) => flight,
            (Instead::TimedOut(_), Some(flight)) => {
                flight.time_out();
                None
            }
            (Instead::Aborted | Instead::Stalled, Some(flight)) => {
                flight.abort();
                None
            }
            (Instead::TimedOut(_) | Instead::Aborted | Instead::Stalled, None) => None,
        };
        if left.is_none()
            && let Some(link) = link
        {
            link.on_request_over();
        }
        Response::from_parts(parts, Answer::line(Bytes::from(format!("{instead}\n")), left))
    }

    /// What every answer of ours wears.
    fn dress(&self, parts: &mut http::response::Parts, shape: Shape) {
        let Some(flight) = &self.flight else { return };
        let side = &flight.request().side;
        if !parts.headers.contains_key(header::DATE) {
            parts.headers.insert(header::DATE, date::header(side.clock.wall()));
        }
        // P4: from the stop request on every HTTP/1 answer says that it is the last on its connection (RFC 9112 §9.6). HTTP/2
        // has GOAWAY for it and forbids the header (RFC 9113 §8.2.2).
        if shape.version < Version::HTTP_2 && parts.status != StatusCode::SWITCHING_PROTOCOLS && tells_to_go(side.phase()) {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            if shape.version == Version::HTTP_10 {
                // Or hyper, which has not looked at the header yet, would say `keep-alive` beside it.
                parts.version = Version::HTTP_10;
            }
        }
    }
}

/// Dropped by hyper before it answered: the client left, or we cut the connection.
impl Drop for HandlingState {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            flight.request().link.clone().on_request_over();
        }
    }
}

fn note_panic(flight: &Flight, message: &str) {
    flight.request().side.tally.panicked.add_one();
    let (method, path) = flight.request().name();
    tracing::error!(panic = message, method, path, "a handler panicked");
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(after) => {
                write!(f, "request timed out: no answer within its deadline of {}", humantime::format_duration(*after))
            }
            Self::Aborted => f.write_str("request aborted: the service is shutting down and the drain is over"),
            Self::Stalled => f.write_str("request aborted: its body stopped arriving while the service was shutting down"),
            Self::Failed => f.write_str("internal server error"),
        }
    }
}
