//! The default app under test: the demo service of the library, and some routes that only a
//! simulation needs. They practise what a shutdown meets, in the world's time.
//!
//! | route | what it does |
//! |---|---|
//! | `/fast` | responds at once |
//! | `/slow` `/stuck` `/echo` `/stream` `/panic` | the routes of `lameduck::drill` |
//! | `/bytes?n=N` | sends N bytes at once |
//! | `/breaks` | sends a chunk, and panics 100 ms later |
//! | `/late?ms=N` | reads the whole body after N ms, then sends another; `&body=N&n=N` are their lengths; with `&chunked=1` the second is not announced |
//! | `/body` | reads the whole body of any method, then sends it back |
//! | `/mismatch?says=N` | sends 4 bytes with a `Content-Length` of N; `&late=yes` in two pieces |
//! | `/events` | sends an event every 100 ms, until the host ends the stream; with `?end=cancel` at the end of the drain; with `&n=N` until the N-th |
//! | `/ignores` | ignores everything for a minute, under a timeout that it sets itself |
//! | `/padded` | four bytes with their length, then empty frames |
//! | `/work?ms=N` | responds at once, and spawns tracked work for N ms |
//! | `/upgrade` | switches to an echo protocol |
//!
//! The work of `/work` ends with `&heeds=yes` when the root context is cancelled; with
//! `&heeds=panics` it panics after N ms. `/upgrade` with `heeds=yes` sends a farewell when the
//! drain begins, with `class=spread` at the moment of a long stream. With `class=late` it becomes
//! one only after its first line. With `pushes=yes` it writes lines and reads none.
//!
//! Every handler records `handler begins` (with the phase, by the host's clock the time until the
//! deadline, and the client's address if a PROXY header announces it), `handler cancelled` (with
//! the cause, if a handler can know it), and `handler ends` (when the handler and its body are
//! dropped). One that is polled later than it was woken records `handler woken late`. Any other
//! [`HttpService`](lameduck::HttpService) can replace this app: see
//! [`Actor`].

mod closes;
mod empty;
mod grpc;
mod lengths;
mod upgrades;
mod waits;

use crate::{
    client, content,
    scenario::{Cooperation, is_announced},
    tasks,
    trace::Trace,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
pub use lameduck::drill::{SLOW_CANCELLED, SLOW_DONE, STUCK_HALVES};
use lameduck::{
    Body, CancelCause, RequestContext, RouteTimeout, StreamShutdown,
    drill::{self, CHUNK_INTERVAL, DrillBody, DrillResponse, Paced, Routes},
};
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tower_layer::Layer;
use tower_service::Service;

/// Identity of a process, given to the factory of its app.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Name of the process, which is its actor in the trace.
    pub name: String,
    /// Where the app records events.
    pub trace: Trace,
}

/// Pause between two lines of a handler that only writes.
pub(crate) const PUSH_INTERVAL: Duration = Duration::from_millis(50);

/// Whether the body of the response to this target fails.
pub(crate) fn has_failing_body(target: &str) -> bool {
    matches!(target.split('?').next(), Some("/breaks" | "/mismatch" | "/padded" | "/fails"))
}

/// The default app.
#[derive(Clone, Debug)]
pub struct Drill {
    actor: Actor,
    handlers: Arc<AtomicU64>,
    service: Arc<drill::Service>,
}

impl Drill {
    /// Creates the app of one process.
    #[must_use]
    pub fn new(actor: Actor) -> Self {
        let service = Arc::new(drill::Service::new("", Routes::Drill));
        Self { actor, handlers: Arc::default(), service }
    }
}

/// Future of a handler.
type HandlerFuture =
    Pin<Box<dyn Future<Output = Result<Response<ObservedBody>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Body>> for Drill {
    type Response = Response<ObservedBody>;
    type Error = Infallible;
    type Future = HandlerFuture;

    fn call(&self, request: Request<Body>) -> HandlerFuture {
        let handler = self.handlers.fetch_add(1, Ordering::Relaxed);
        let guard = HandlerGuard { actor: self.actor.clone(), handler };
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let context = request.body().context();
        let name = request.headers().get(client::NAME_FIELD).cloned();
        let mut fields = vec![
            ("handler", handler.into()),
            ("method", request.method().as_str().into()),
            ("target", target.into()),
            ("fields", request.headers().len().into()),
            ("phase", context.phase().name().into()),
        ];
        // By the host's clock.
        let left =
            context.remaining().map(|left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX));
        fields.extend(left.map(|left| ("left_us", left.into())));
        fields.extend(context.cancel_cause().map(|cause| ("cause", format!("{cause:?}").into())));
        let of = name.as_ref().and_then(|name| name.to_str().ok());
        fields.extend(of.map(|of| ("of", of.into())));
        fields.extend(announced(context).map(|peer| ("peer", peer.into())));
        self.actor.trace.record(&self.actor.name, "handler begins", &fields);
        let service = self.service.clone();
        Box::pin(async move {
            let mut response = respond(&service, request, guard).await;
            if let Some(name) = name {
                response.headers_mut().insert(client::OF_FIELD, name);
            }
            Ok(response)
        })
    }
}

/// Returns the client's address, if a PROXY header of the scenario announces it.
fn announced(context: &RequestContext) -> Option<String> {
    let peer = context.peer().tcp().filter(|peer| is_announced(*peer));
    peer.map(|peer| peer.to_string())
}

/// Records `handler ends` when the handler and its body are dropped.
#[derive(Debug)]
struct HandlerGuard {
    actor: Actor,
    handler: u64,
}

impl HandlerGuard {
    fn cancelled(&self, by: &'static str) {
        let fields = [("handler", self.handler.into()), ("by", by.into())];
        self.actor.trace.record(&self.actor.name, "handler cancelled", &fields);
    }
}

impl Drop for HandlerGuard {
    fn drop(&mut self) {
        self.actor.trace.record(
            &self.actor.name,
            "handler ends",
            &[("handler", self.handler.into())],
        );
    }
}

async fn respond(
    service: &drill::Service,
    request: Request<Body>,
    guard: HandlerGuard,
) -> Response<ObservedBody> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let is_to_break = request.uri().path() == "/breaks";
    let is_to_fail = request.uri().path() == "/fails";
    let has_no_length = is_to_fail && query == "length";
    let mut trailers = None;
    let response = match request.uri().path() {
        "/slow" => slow(service, request, &query, &guard).await,
        "/fast" => drill::text(StatusCode::OK, "fast\n"),
        "/breaks" => lengths::breaks(),
        "/fails" => {
            drop(request.into_body().collect().await);
            drill::text(StatusCode::OK, "1234")
        }
        "/call" => {
            trailers = Some(grpc::trailers());
            if parameter(&query, "unlimited").is_some() {
                request.body().context().set_timeout(None);
            }
            grpc::respond(&query).await
        }
        "/body" => match request.into_body().collect().await {
            Ok(body) => drill::text(StatusCode::OK, body.to_bytes()),
            Err(_) => drill::text(StatusCode::BAD_REQUEST, "the body did not come\n"),
        },
        "/mismatch" => lengths::mismatch(&query),
        "/bytes" => {
            let bytes = parameter(&query, "n").and_then(|n| n.parse().ok()).unwrap_or(0);
            drill::text(StatusCode::OK, content::body(bytes))
        }
        "/empty" => empty::empty(&query, &guard).await,
        "/late" => late(request, &query, &guard).await,
        "/closes" => closes::closes(&query, &guard).await,
        "/events" => {
            if let Some(ms) = number(&query, "work") {
                leave_work(&request, ms, Cooperation::Ignores, &guard);
                watch(request.body().context(), guard.actor.clone(), guard.handler);
            }
            events(number(&query, "n"), parameter(&query, "end"))
        }
        "/ignores" => {
            let context = request.body().context();
            match number(&query, "watch") {
                Some(after) => watch_later(context, guard.actor.clone(), guard.handler, after),
                None if parameter(&query, "watch").is_some() => {
                    watch(context, guard.actor.clone(), guard.handler);
                }
                None => {}
            }
            ignores(request, &query, &guard).await
        }
        "/padded" => lengths::padded(&query),
        "/work" => work(&request, &query, &guard),
        "/upgrade" if parameter(&query, "taken") == Some("no") => upgrades::switching(),
        "/upgrade" => upgrades::upgrade(request, &query, &guard),
        _ => call(service, request).await,
    };
    response.map(|body| ObservedBody {
        body,
        trailers,
        breaks: is_to_break,
        fails: is_to_fail,
        has_no_length,
        _guard: guard,
    })
}

/// Calls a route of the drill, which serves `GET` only, also for a `HEAD`.
async fn call(service: &drill::Service, mut request: Request<Body>) -> DrillResponse {
    if request.method() == Method::HEAD {
        *request.method_mut() = Method::GET;
    }
    match hyper::service::Service::call(service, request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// Records how the handler of `/slow` is cancelled.
async fn slow(
    service: &drill::Service,
    request: Request<Body>,
    query: &str,
    guard: &HandlerGuard,
) -> DrillResponse {
    let context = request.body().context().clone();
    if parameter(query, "within").is_some() {
        watch(&context, guard.actor.clone(), guard.handler);
    }
    let response = tokio::select! {
        biased;
        response = call(service, request) => response,
        response = half_close(&context, guard) => response,
    };
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        tokio::select! {
            biased;
            () = context.root_cancelled() => guard.cancelled("root"),
            () = std::future::ready(()) => guard.cancelled("request"),
        }
    }
    response
}

/// Records a half-close, and never returns: the client still reads the response, so the handler
/// continues.
async fn half_close(context: &RequestContext, guard: &HandlerGuard) -> DrillResponse {
    context.cancelled().await;
    if context.cancel_cause() == Some(CancelCause::ClientHalfClosed) {
        let fields = [("handler", guard.handler.into())];
        guard.actor.trace.record(&guard.actor.name, "half-close noticed", &fields);
    }
    std::future::pending().await
}

/// Records when the context is cancelled, independently of its handler.
#[expect(clippy::disallowed_methods, reason = "nobody waits for who only looks on")]
fn watch(context: &RequestContext, actor: Actor, handler: u64) {
    // The token is there from now on, also if the request becomes a long stream later.
    let token = context.cancellation_token();
    drop(tokio::spawn(async move {
        token.cancelled().await;
        actor.trace.record(&actor.name, "context cancelled", &[("handler", handler.into())]);
    }));
}

/// Records the same, from `after` milliseconds on. The token is there only from then on.
#[expect(clippy::disallowed_methods, reason = "nobody waits for who only looks on")]
fn watch_later(context: &RequestContext, actor: Actor, handler: u64, after: u64) {
    let context = context.clone();
    drop(tokio::spawn(async move {
        client::pause(Duration::from_millis(after)).await;
        context.cancelled().await;
        actor.trace.record(&actor.name, "context cancelled", &[("handler", handler.into())]);
    }));
}

/// Sets the timeout of its request, and then ignores everything.
async fn ignores(mut request: Request<Body>, query: &str, guard: &HandlerGuard) -> DrillResponse {
    let context = request.body().context().clone();
    let panics = PanicsIfDropped(parameter(query, "drop") == Some("panics"));
    if parameter(query, "route").is_some() {
        request.extensions_mut().insert(context.clone());
        let within = number(query, "route").map(Duration::from_millis);
        let timeout = within.map_or_else(RouteTimeout::none, RouteTimeout::after);
        let _ = timeout.layer(Taken).call(request).await;
    }
    if let Some(after) = number(query, "after") {
        guard.pause(Duration::from_millis(after)).await;
        context.set_timeout(number(query, "timeout").map(Duration::from_millis));
    }
    guard.pause(Duration::from_millis(number(query, "ms").unwrap_or(60_000))).await;
    panics.disarm();
    drill::text(StatusCode::OK, SLOW_DONE)
}

/// Waits, reads the whole request body, and responds with as many bytes as the query says.
async fn late(request: Request<Body>, query: &str, guard: &HandlerGuard) -> DrillResponse {
    guard.pause(Duration::from_millis(number(query, "ms").unwrap_or(0))).await;
    let body = request.into_body().collect().await;
    if body.is_ok_and(|body| Some(body.to_bytes().len() as u64) == number(query, "body")) {
        let bytes = parameter(query, "n").and_then(|n| n.parse().ok()).unwrap_or(0);
        let bytes = content::body(bytes);
        if parameter(query, "chunked").is_some() {
            return Paced::response([(Duration::ZERO, bytes)], None);
        }
        return drill::text(StatusCode::OK, bytes);
    }
    drill::text(StatusCode::BAD_REQUEST, "the body did not come\n")
}

/// A service that does nothing with a request.
struct Taken;

impl Service<Request<Body>> for Taken {
    type Response = ();
    type Error = Infallible;
    type Future = std::future::Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

/// Panics when dropped, if it is armed.
struct PanicsIfDropped(bool);

impl PanicsIfDropped {
    fn disarm(mut self) {
        self.0 = false;
    }
}

impl Drop for PanicsIfDropped {
    fn drop(&mut self) {
        assert!(!self.0 || std::thread::panicking(), "as its request says");
    }
}

fn number(query: &str, name: &str) -> Option<u64> {
    parameter(query, name)?.parse().ok()
}

fn events(count: Option<u64>, end: Option<&str>) -> DrillResponse {
    // Without a count there are more events than any scenario lasts.
    let events = (0..count.unwrap_or(100_000))
        .map(|n| (CHUNK_INTERVAL, Bytes::from(format!("data: {n}\n\n"))));
    let mut response = Paced::response(events, None);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    match end {
        Some("cancel") => drop(response.extensions_mut().insert(StreamShutdown::EndAtCancel)),
        Some("spread") => drop(response.extensions_mut().insert(StreamShutdown::EndSpread)),
        Some(_) | None => {}
    }
    response
}

fn work(request: &Request<Body>, query: &str, guard: &HandlerGuard) -> DrillResponse {
    let ms = number(query, "ms").unwrap_or(0);
    let end = match parameter(query, "heeds") {
        Some("yes") => Cooperation::Heeds,
        Some("panics") => Cooperation::Panics,
        Some(_) | None => Cooperation::Ignores,
    };
    leave_work(request, ms, end, guard);
    drill::text(StatusCode::OK, "begun\n")
}

/// Spawns tracked work that outlives the response.
fn leave_work(request: &Request<Body>, ms: u64, end: Cooperation, guard: &HandlerGuard) {
    let context = request.body().context();
    // Create the guard here: the task may be dropped before its first poll.
    let left = tasks::TaskGuard::new(guard.actor.clone(), format!("left by {}", guard.handler));
    let cancelled = context.clone();
    let cancelled = async move { cancelled.root_cancelled().await };
    context.spawn(tasks::leftover(left, cancelled, Duration::from_millis(ms), end));
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// The body of a response, which keeps the handler's guard until it is dropped.
#[derive(Debug)]
pub struct ObservedBody {
    body: DrillBody,
    /// Sent after the body.
    trailers: Option<http::HeaderMap>,
    /// Panics in place of an empty chunk.
    breaks: bool,
    /// Panics at its first poll.
    fails: bool,
    /// Panics when its length is queried.
    has_no_length: bool,
    _guard: HandlerGuard,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = <DrillBody as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        assert!(!self.fails, "requested by /fails");
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none()
            && let Some(trailers) = self.trailers.take()
        {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let chunk = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        assert!(
            !self.breaks || chunk.is_none_or(|chunk| !chunk.is_empty()),
            "requested by /breaks"
        );
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        assert!(!self.has_no_length, "requested by /fails?length");
        self.body.size_hint()
    }
}
