//! The guest's service: it gives each request its context, its deadline and its fate.

use super::{
    Body, DrainClass, WorkOrigin,
    answer::Answer,
    authority,
    body_wait::Waited,
    date,
    deadlines::Place,
    framing::{Content, said_length},
    link::{Link, Protocol},
    patience::ClientTimeout,
    request::{Cutter, Flight, Request},
    side::millis,
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
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

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

/// The service of one connection, which hyper calls.
pub(crate) struct Guarded<S: HttpService> {
    service: Arc<S>,
    link: Arc<Link>,
    /// The last request; the next one takes its place.
    last: Cell<Option<Arc<Request>>>,
    /// What hyper's first call gets: its request began before hyper came.
    begun: Cell<Option<Begun<S>>>,
}

/// A request that began before hyper came, and that hyper shall see to its end.
pub(crate) enum Begun<S: HttpService> {
    /// Polled in this very turn of the connection's task, which it wakes: before that there is nothing to poll it for.
    Waits(BegunHandling<S>),
    Handler(BegunHandling<S>),
    Answer(Box<Response<Answer<S::ResponseBody>>>),
}

impl<S: HttpService> Begun<S> {
    /// For another task than the one that it was polled in: it must hear whom to wake.
    pub(crate) fn on_another_task(self) -> Self {
        match self {
            Self::Waits(mut handling) | Self::Handler(mut handling) => {
                if let Some(handling) = handling.as_mut().as_pin_mut() {
                    handling.project().state.leave_place();
                }
                Self::Handler(handling)
            }
            Self::Answer(answer) => Self::Answer(answer),
        }
    }
}

/// A handler that was polled, and must stay where it is.
pub(crate) type BegunHandling<S> = Pin<Box<Option<Handling<<S as HttpService>::ServiceFuture>>>>;

impl<S: HttpService> Guarded<S> {
    pub(crate) const fn new(service: Arc<S>, link: Arc<Link>) -> Self {
        Self { service, link, last: Cell::new(None), begun: Cell::new(None) }
    }

    pub(crate) const fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// The next call is for a request that has begun.
    pub(crate) fn resume(&mut self, begun: Begun<S>) {
        self.begun = Cell::new(Some(begun));
    }

    /// A request begins, with no handler yet.
    fn begin(&self, method: &Method, uri: &Uri, version: Version, upgrade: Upgrade) -> (HandlingState, Arc<Request>) {
        self.link.on_call();
        let arrived = self.link.side.clock.now();
        let about = Request::next(self.last.take(), &self.link, arrived, method, uri);
        self.last.set(Some(about.clone()));
        let flight = Some(Flight::begin(about.clone()));
        (HandlingState { flight, place: None, version, without_handler: Instead::Failed, upgrade }, about)
    }

    /// Calls the handler for a request that hyper read.
    fn handle(&self, mut request: http::Request<Incoming>) -> Handling<S::ServiceFuture> {
        // hyper has an upgrade for CONNECT too, and for HTTP/2, where 101 is no response (RFC 9113 §8.6).
        let asks = request.extensions().get::<hyper::upgrade::OnUpgrade>().is_some()
            && request.version() == Version::HTTP_11
            && request.headers().contains_key(header::UPGRADE);
        let upgrade = if asks { Upgrade::Asked } else { Upgrade::No };
        let (state, about) = self.begin(request.method(), request.uri(), request.version(), upgrade);
        self.link.set_called_request(&about);
        // Nothing large is returned from inside the catch: it is made where it stays.
        let mut handling = Handling { handler: None, state };
        if let Err(why) = authority::check(&mut request) {
            handling.state.without_handler = Instead::Refused(why);
            // Its connection learns what was left unread.
            drop(Body::new(Some(request.into_body()), about));
            return handling;
        }
        // A service may panic before it returns its future.
        let called = catch(|| {
            handling.handler = Some(self.service.call(request.map(|incoming| Body::new(Some(incoming), about))));
        });
        if let Err(panic) = called {
            handling.state.note_panic(&panic);
        }
        handling
    }

    /// The response to a request with too many header fields. hyper counts those of HTTP/1; h2 only adds up their sizes.
    fn refusal(&self, request: &http::Request<Incoming>) -> Option<Response<Answer<S::ResponseBody>>> {
        let side = &self.link.side;
        let (count, max) = (request.headers().len(), side.config.limits.headers_max);
        if self.link.protocol == Protocol::Http1 || count <= max {
            return None;
        }
        self.link.on_refused();
        let line = (*request.method() != Method::HEAD)
            .then(|| Bytes::from(format!("the request has {count} header fields, above the limit of {max}\n")));
        let mut response = Response::new(Answer::line(line, None));
        *response.status_mut() = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers_mut().insert(header::DATE, date::header(side.clock.wall()));
        Some(response)
    }

    /// Calls the handler for a plain `GET`, which begins in `place`. The fields are taken from `headers`. When it arrived.
    pub(crate) fn handle_in(&self, place: &mut BegunHandling<S>, uri: Uri, headers: &mut HeaderMap) -> Moment {
        let (state, about) = self.begin(&Method::GET, &uri, Version::HTTP_11, Upgrade::No);
        let arrived = about.arrived;
        place.set(Some(Handling { handler: None, state }));
        let Some(mut handling) = place.as_mut().as_pin_mut().map(Handling::project) else { return arrived };
        let called = catch(|| {
            let mut request = http::Request::new(Body::new(None, about));
            *request.uri_mut() = uri;
            mem::swap(request.headers_mut(), headers);
            handling.handler.set(Some(self.service.call(request)));
        });
        if let Err(panic) = called {
            handling.state.note_panic(&panic);
        }
        arrived
    }
}

impl<S: HttpService> hyper::service::Service<http::Request<Incoming>> for Guarded<S> {
    type Response = Response<Answer<S::ResponseBody>>;
    type Error = Infallible;
    type Future = Called<S>;

    fn call(&self, request: http::Request<Incoming>) -> Self::Future {
        match self.begun.take() {
            None => match self.refusal(&request) {
                None => Called::Now { handling: self.handle(request) },
                Some(refusal) => Called::Before { begun: Some(Begun::Answer(Box::new(refusal))) },
            },
            Some(begun) => {
                // What was read for it is the head that we have read.
                self.link.clear_received();
                Called::Before { begun: Some(begun) }
            }
        }
    }
}

pin_project! {
    /// A call of hyper's, under way.
    #[project = CalledProjection]
    pub(crate) enum Called<S: HttpService> {
        /// For a request that hyper read.
        Now {
            #[pin]
            handling: Handling<S::ServiceFuture>,
        },
        /// For one that began before hyper came.
        Before { begun: Option<Begun<S>> },
    }
}

impl<S: HttpService> Future for Called<S> {
    type Output = Result<Response<Answer<S::ResponseBody>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.as_mut().project() {
            CalledProjection::Now { handling } => {
                let Ok(response) = ready!(handling.poll(cx));
                let Some(link) = response.body().switching(response.status()) else {
                    return Poll::Ready(Ok(for_hyper(cx, response)));
                };
                // The connection polls hyper again at once, with upgrades.
                link.set_switching();
                self.set(Self::Before { begun: Some(Begun::Answer(Box::new(response))) });
                Poll::Pending
            }
            CalledProjection::Before { begun } => match begun.take() {
                Some(Begun::Waits(handling)) => {
                    *begun = Some(Begun::Handler(handling));
                    Poll::Pending
                }
                Some(Begun::Answer(answer)) => Poll::Ready(Ok(for_hyper(cx, *answer))),
                Some(Begun::Handler(mut handling)) => {
                    let polled = handling.as_mut().as_pin_mut().map_or(Poll::Pending, |handling| handling.poll(cx));
                    if polled.is_pending() {
                        *begun = Some(Begun::Handler(handling));
                    }
                    polled.map_ok(|response| for_hyper(cx, response))
                }
                None => Poll::Pending,
            },
        }
    }
}

pin_project! {
    /// A handler at work; `None` if it panicked, or was dropped.
    pub(crate) struct Handling<F> {
        #[pin]
        handler: Option<F>,
        state: HandlingState,
    }

    impl<F> PinnedDrop for Handling<F> {
        fn drop(this: Pin<&mut Self>) {
            this.drop_handler();
        }
    }
}

struct HandlingState {
    flight: Option<Flight>,
    /// Where it waits. A handler that answers at once needs no place.
    place: Option<Place>,
    version: Version,
    /// Why we answer if there is no handler.
    without_handler: Instead,
    upgrade: Upgrade,
}

/// Whether a request may be answered by 101.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upgrade {
    Asked,
    No,
}

/// Why we answer in a handler's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    TimedOut(Duration),
    Aborted,
    /// The client let the handler wait for the body for so long.
    BodyTimedOut(Duration),
    /// So too, in the drain, which waits for less.
    Stalled,
    Failed,
    /// It must not be served, for this reason.
    Refused(&'static str),
}

impl<F, B, E> Future for Handling<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: HttpBody<Data = Bytes>,
    E: Into<BoxError>,
{
    type Output = Result<Response<Answer<B>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut me = self.as_mut().project();
        let Some(handler) = me.handler.as_mut().as_pin_mut() else {
            let instead = me.state.without_handler;
            return Poll::Ready(Ok(me.state.answer_instead(instead)));
        };
        let mut polled = Poll::Pending;
        let instead = match catch(|| polled = handler.poll(cx)).map(|()| polled) {
            Ok(Poll::Ready(Ok(response))) => {
                self.as_mut().drop_handler();
                let state = self.project().state;
                if response.status().is_informational() && !state.may_switch(&response) {
                    return Poll::Ready(Ok(state.refuse_status(response)));
                }
                return Poll::Ready(Ok(state.answer(response)));
            }
            Ok(Poll::Ready(Err(error))) => {
                let error: BoxError = error.into();
                let (method, path) = me.state.flight.as_ref().map(Flight::name).unzip();
                crate::log::error!(error = %Chain(&*error), method, path, "a handler failed");
                Some(Instead::Failed)
            }
            Err(panic) => {
                me.state.note_panic(&panic);
                Some(Instead::Failed)
            }
            Ok(Poll::Pending) => me.state.wait(cx),
        };
        let Some(instead) = instead else { return Poll::Pending };
        self.as_mut().drop_handler();
        Poll::Ready(Ok(self.project().state.answer_instead(instead)))
    }
}

impl<F> Handling<F> {
    /// Dropping a handler runs its code, which may panic like any other: here, and not where hyper drops what it has no more use
    /// for, and would go down with it.
    fn drop_handler(self: Pin<&mut Self>) {
        let mut me = self.project();
        if let Err(panic) = catch(|| me.handler.set(None)) {
            me.state.note_panic(&panic);
        }
    }
}

impl HandlingState {
    /// Whether the wait is over for the deadline or the abort; if not, both will wake us.
    fn wait(&mut self, cx: &mut Context<'_>) -> Option<Instead> {
        self.flight.as_mut()?.list();
        let request = self.flight.as_ref()?.request();
        let (link, side) = (&request.link, request.side());
        let deadline = request.deadline();
        let now = request.has_body().then(|| side.clock.now());
        let body = now.and_then(|now| Some((now, request.look_at_body_wait(now)?)));
        let wake_at = match body {
            Some((_, Waited::NotYet { look_again })) => deadline.min(look_again),
            Some((_, Waited::TooLong { .. })) | None => deadline,
        };
        let is_set = |place: Place| match body {
            None => place.deadline == deadline,
            // An earlier one will do, unless it has passed: then there is another look.
            Some((now, _)) => place.deadline <= wake_at && place.deadline > now,
        };
        // A future of hyper's has one waker from its first poll to its last.
        if !self.place.is_some_and(is_set) {
            if let Some(place) = self.place.take() {
                link.deadlines.leave(place);
            }
            self.place = Some(link.deadlines.wait(wake_at, request.timeout(wake_at), cx.waker().clone()));
        }
        // The clock decides, not the timer (P9: never before): a timer may be early by its rounding, or late.
        if deadline != Moment::NEVER && side.clock.now() >= deadline {
            return Some(Instead::TimedOut(deadline.since(request.arrived)));
        }
        request.note_half_closed();
        if let Some((now, Waited::TooLong { since })) = body {
            side.note_client_timeout(ClientTimeout::Body, &link.peer, Some(request.name().1));
            return Some(match side.given_up_by(since, ClientTimeout::Body, now) {
                Cutter::Shutdown => Instead::Stalled,
                Cutter::Client | Cutter::Body => Instead::BodyTimedOut(now.since(since)),
            });
        }
        if side.is_aborting() {
            return Some(Instead::Aborted);
        }
        None
    }

    fn answer<B>(&mut self, mut response: Response<B>) -> Response<Answer<B>>
    where
        B: HttpBody<Data = Bytes>,
    {
        if self.flight.as_ref().is_some_and(|flight| flight.request().switches_too_soon(response.status())) {
            return self.answer_instead(Instead::Refused(SWITCHED_TOO_SOON));
        }
        let Some(flight) = self.take_flight() else { return response.map(|_| Answer::line(None, None)) };
        // hyper panics at some versions, and frames by others. HTTP/2 sends none.
        *response.version_mut() = Version::HTTP_11;
        dress(&mut response, &flight, self.version);
        let content = Content::of(flight.request().method(), response.status());
        flight.note_head_sent(true);
        if response.status() == StatusCode::SWITCHING_PROTOCOLS || *flight.request().method() == Method::CONNECT {
            flight.link().name_upgrade(WorkOrigin::of(flight.request()));
        }
        if content != Content::Allowed {
            return without_content(response, content, flight);
        }
        let class = DrainClass::of(&response);
        // The head and the body agree, or the response is not sent.
        let exact = response.body().size_hint().exact();
        let promised = exact.or_else(|| said_length(response.headers_mut()).ok().flatten());
        // An early end would be no end of what has a length.
        let class = if promised.is_some() { DrainClass::Finish } else { class };
        response.map(|body| Answer::own(body, flight, class, promised))
    }

    /// Whether a response is a 101 that its request asks for.
    fn may_switch<B>(&self, response: &Response<B>) -> bool {
        response.status() == StatusCode::SWITCHING_PROTOCOLS && self.upgrade == Upgrade::Asked
    }

    /// Responds with a 500 in place of a status that is not final.
    #[cold]
    fn refuse_status<B>(&mut self, response: Response<B>) -> Response<Answer<B>> {
        let status = response.status();
        if let Some(flight) = &self.flight {
            if status == StatusCode::SWITCHING_PROTOCOLS {
                flight.log_refusal(&"status 101 without a request to upgrade");
            } else {
                flight.log_refusal(&format_args!("status {} is not final", status.as_u16()));
            }
        }
        if let Err(panic) = catch(|| drop(response)) {
            self.note_panic(&panic);
        }
        self.answer_instead(Instead::Failed)
    }

    fn answer_instead<B>(&mut self, instead: Instead) -> Response<Answer<B>> {
        let Some(flight) = self.take_flight() else { return Response::new(Answer::line(None, None)) };
        let mut response = Response::new(());
        *response.status_mut() = match instead {
            Instead::TimedOut(_) | Instead::BodyTimedOut(_) | Instead::Aborted | Instead::Stalled => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Instead::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            Instead::Refused(_) => StatusCode::BAD_REQUEST,
        };
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        add_date(response.headers_mut(), &flight);
        dress(&mut response, &flight, self.version);
        if matches!(instead, Instead::Refused(_)) {
            announce_close(&mut response, self.version);
        }
        let link = flight.link().clone();
        // HTTP/1 leaves it out by itself, and says how long it would be.
        let is_unsent = link.protocol == Protocol::Http2 && *flight.request().method() == Method::HEAD;
        let line = (!is_unsent).then(|| Bytes::from(format!("{instead}\n")));
        let left = match instead {
            // The 500 is the handler's own answer, in its way: it is finished once it has left (P5).
            Instead::Failed | Instead::Refused(_) => Some(flight),
            Instead::TimedOut(_) | Instead::BodyTimedOut(_) => {
                flight.time_out();
                link.on_request_over();
                None
            }
            Instead::Aborted | Instead::Stalled => {
                flight.abort(Cutter::Shutdown);
                link.on_request_over();
                None
            }
        };
        response.map(|()| Answer::line(line, left))
    }

    fn note_panic(&self, panic: &str) {
        let Some(flight) = &self.flight else { return };
        flight.note_panicked();
        let (method, path) = flight.name();
        crate::log::error!(panic, method, path, "a handler panicked");
    }

    /// Takes the flight; whoever waited for it does no more.
    fn take_flight(&mut self) -> Option<Flight> {
        self.leave_place();
        let flight = self.flight.take()?;
        flight.link().on_our_turn_over();
        Some(flight)
    }

    /// Waits no more for the deadline and the abort.
    fn leave_place(&mut self) {
        if let (Some(flight), Some(place)) = (&self.flight, self.place.take()) {
            flight.link().deadlines.leave(place);
        }
    }
}

/// Returns a response whose status or method allows no content.
fn without_content<B>(mut response: Response<B>, content: Content, flight: Flight) -> Response<Answer<B>>
where
    B: HttpBody<Data = Bytes>,
{
    let status = response.status();
    if content == Content::Forbidden {
        // RFC 9110 §8.6. Of 205 hyper says that it is empty.
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::TRANSFER_ENCODING);
    } else if status != StatusCode::NOT_MODIFIED && !response.headers().contains_key(header::CONTENT_LENGTH) {
        // RFC 9110 §9.3.2: the head says what it would to GET. Over HTTP/1 hyper sees to that.
        if flight.link().protocol == Protocol::Http1 {
            return response.map(|body| Answer::asked_for_its_length(body, flight));
        }
        if let Some(length) = response.body().size_hint().exact() {
            response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
    }
    response.map(|body| Answer::unsent(body, flight))
}

/// Adds what a response that hyper writes needs, and replaces it by a 500 if its length is a contradiction (P5d).
fn for_hyper<B>(cx: &mut Context<'_>, mut response: Response<Answer<B>>) -> Response<Answer<B>>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let Some(flight) = response.body().flight() else { return response };
    let (protocol, method) = (flight.link().protocol, flight.request().method().clone());
    let wall = flight.side().clock.wall();
    response.headers_mut().entry(header::DATE).or_insert_with(|| date::header(wall));
    let checked = match said_length(response.headers_mut()) {
        Ok(None) => Ok(()),
        Ok(Some(says)) => response.body().check_length(says),
        Err(why) => Err(why),
    };
    let is_broken = match checked {
        Err(why) => {
            let (head, answer) = response.into_parts();
            answer.refuse(&why);
            response = Response::from_parts(head, Answer::line(None, None));
            true
        }
        Ok(()) if response.body().may_break_an_empty_promise() => {
            let (head, answer) = response.into_parts();
            let mut answer = Box::pin(Some(answer));
            let polled = answer.as_mut().as_pin_mut().map_or(Poll::Pending, |answer| answer.poll_before_the_head(cx));
            response = Response::from_parts(head, Answer::begun(answer));
            polled.is_ready()
        }
        Ok(()) => false,
    };
    if !is_broken {
        return response;
    }
    // hyper writes no content of a response to HEAD over HTTP/1, and says how long it would be.
    let is_unsent = protocol == Protocol::Http2 && method == Method::HEAD;
    failed_instead(&response, (!is_unsent).then(|| Bytes::from(format!("{}\n", Instead::Failed))))
}

/// Returns the 500 that takes the place of a response, with what its head says of the connection.
#[cold]
fn failed_instead<B>(response: &Response<Answer<B>>, line: Option<Bytes>) -> Response<Answer<B>> {
    let mut instead = Response::new(Answer::line(line, None));
    *instead.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    *instead.version_mut() = response.version();
    let headers = instead.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(date) = response.headers().get(header::DATE) {
        headers.insert(header::DATE, date.clone());
    }
    if response.headers().get(header::CONNECTION).is_some_and(|value| value == "close") {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    instead
}

fn add_date(headers: &mut HeaderMap, flight: &Flight) {
    headers.insert(header::DATE, date::header(flight.side().clock.wall()));
}

/// Adds the headers that concern the connection.
fn dress<B>(response: &mut Response<B>, flight: &Flight, version: Version) {
    // P4: an HTTP/1 response announces that it is the last on its connection (RFC 9112 §9.6).
    // HTTP/2 has GOAWAY for that and forbids the header (RFC 9113 §8.2.2).
    let announces = flight.link().on_response_head();
    let is_last = announces || flight.request().is_body_end_unclear();
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
        // Or hyper, which has not looked at the header yet, would say `keep-alive` beside it.
        *response.version_mut() = Version::HTTP_10;
    }
}

/// A handler's 101, or its 2xx to CONNECT, for a request whose body it has not read: the new protocol would begin with that body.
const SWITCHED_TOO_SOON: &str = "the protocol cannot change before the request body has been read";

/// Dropped by hyper before it answered: the client left, or we cut the connection.
impl Drop for HandlingState {
    fn drop(&mut self) {
        if let Some(flight) = self.take_flight() {
            flight.link().on_request_over();
        }
    }
}

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(after) => {
                write!(f, "request timed out: no answer within its deadline of {}", humantime::format_duration(*after))
            }
            Self::Aborted => f.write_str("request aborted: the service is shutting down and the drain is over"),
            Self::BodyTimedOut(after) => {
                let after = humantime::format_duration(Duration::from_millis(millis(*after)));
                write!(f, "request timed out: nothing of its body came for {after}")
            }
            Self::Stalled => f.write_str("request aborted: its body stopped arriving while the service was shutting down"),
            Self::Failed => f.write_str("internal server error"),
            Self::Refused(why) => write!(f, "bad request: {why}"),
        }
    }
}
