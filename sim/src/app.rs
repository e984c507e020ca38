//! The default app under test. Its routes practise what a shutdown meets, in the world's time.
//!
//! | route | what it does |
//! |---|---|
//! | `/fast` | responds at once |
//! | `/slow?ms=N` | responds after N ms; `&within=M` sets the deadline |
//! | `/stuck?ms=N` | responds after N ms, whatever happens |
//! | `/echo` | reads the whole body, then sends it back |
//! | `/stream?ms=N` | sends a chunk every 100 ms for N ms, then `end` |
//! | `/bytes?n=N` | sends N bytes at once |
//! | `/panic` | panics |
//! | `/breaks` | sends a chunk, and panics 100 ms later |
//! | `/events` | sends an event every 100 ms, until the host ends the stream |
//! | `/work?ms=N` | responds at once, and spawns tracked work for N ms |
//! | `/upgrade` | switches to an echo protocol |
//!
//! `/slow` responds with a 503 that says so as soon as its context is cancelled. `&within=M` sets a
//! deadline of M ms; `&within=none` removes it. `/stuck` with `&half=length` or `&half=chunked`
//! sends the head and half of the body at once. The work of `/work` ends with `&heeds=yes` when the
//! root context is cancelled; with `&heeds=panics` it panics after N ms. `/upgrade` with
//! `?heeds=yes` sends a farewell when the drain begins.
//!
//! Every handler records `handler begins` (with the phase and, by the host's clock, the time until
//! the deadline), `handler cancelled` (with the cause, if a handler can know it), and
//! `handler ends` (when the handler and its body are dropped). Any other
//! [`HttpService`](lameduck::HttpService) can replace this app: see [`Actor`].

use crate::{client, scenario::Cooperation, tasks, trace::Trace};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use lameduck::{Body, CancelCause, RequestContext};
use std::{
    collections::VecDeque,
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
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Identity of a process, given to the factory of its app.
#[derive(Clone, Debug)]
pub struct Actor {
    /// Name of the process, which is its actor in the trace.
    pub name: String,
    /// Where the app records events.
    pub trace: Trace,
}

/// Body of a `/slow` response that was not cancelled.
pub const SLOW_DONE: &str = "slow done\n";
/// Body of a `/slow` response whose context was cancelled.
pub const SLOW_CANCELLED: &str = "cancelled\n";
/// The two halves of the body of `/stuck`.
pub const STUCK_HALVES: [&str; 2] = ["stuck ha", "lf done\n"];
/// The pause between the chunks of `/stream`.
pub const CHUNK_INTERVAL: Duration = Duration::from_millis(100);

/// The default app.
#[derive(Clone, Debug)]
pub struct Drill {
    actor: Actor,
    handlers: Arc<AtomicU64>,
}

impl Drill {
    /// Creates the app of one process.
    #[must_use]
    pub fn new(actor: Actor) -> Self {
        Self { actor, handlers: Arc::default() }
    }
}

/// Future of a handler.
type HandlerFuture =
    Pin<Box<dyn Future<Output = Result<Response<ChunkedBody>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Body>> for Drill {
    type Response = Response<ChunkedBody>;
    type Error = Infallible;
    type Future = HandlerFuture;

    fn call(&self, request: Request<Body>) -> HandlerFuture {
        let handler = self.handlers.fetch_add(1, Ordering::Relaxed);
        let guard = HandlerGuard { actor: self.actor.clone(), handler };
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let context = request.body().context();
        let mut fields = vec![
            ("handler", handler.into()),
            ("target", target.into()),
            ("phase", context.phase().name().into()),
        ];
        // By the host's clock.
        let left =
            context.remaining().map(|left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX));
        fields.extend(left.map(|left| ("left_us", left.into())));
        self.actor.trace.record(&self.actor.name, "handler begins", &fields);
        Box::pin(async move { Ok(answer(request, guard).await) })
    }
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

async fn answer(request: Request<Body>, guard: HandlerGuard) -> Response<ChunkedBody> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let ms =
        Duration::from_millis(parameter(&query, "ms").and_then(|ms| ms.parse().ok()).unwrap_or(0));
    match request.uri().path() {
        "/fast" => text(StatusCode::OK, "fast\n", guard),
        "/slow" => slow(&request, ms, guard).await,
        "/stuck" => stuck(ms, parameter(&query, "half"), guard).await,
        "/echo" => echo(request, guard).await,
        "/stream" => stream(ms, guard),
        "/panic" => panic!("asked to, by /panic"),
        "/breaks" => breaks(guard),
        "/bytes" => {
            let bytes = parameter(&query, "n").and_then(|n| n.parse().ok()).unwrap_or(0);
            text(StatusCode::OK, vec![b'b'; bytes], guard)
        }
        "/events" => events(guard),
        "/work" => work(&request, ms, &query, guard),
        "/upgrade" => upgrade(request, heeds(&query), guard),
        _ => text(StatusCode::NOT_FOUND, "not found\n", guard),
    }
}

async fn slow(request: &Request<Body>, ms: Duration, guard: HandlerGuard) -> Response<ChunkedBody> {
    let context = request.body().context();
    // `none` removes the deadline.
    if let Some(within) = request.uri().query().and_then(|query| parameter(query, "within")) {
        context.set_timeout(within.parse().ok().map(Duration::from_millis));
        watch(context.clone(), guard.actor.clone(), guard.handler);
    }
    tokio::select! {
        biased;
        () = client::pause(ms) => text(StatusCode::OK, SLOW_DONE, guard),
        () = context.root_cancelled() => {
            guard.cancelled("root");
            text(StatusCode::SERVICE_UNAVAILABLE, SLOW_CANCELLED, guard)
        }
        () = cancelled_unless_half_closed(context, &guard) => {
            guard.cancelled("request");
            text(StatusCode::SERVICE_UNAVAILABLE, SLOW_CANCELLED, guard)
        }
    }
}

/// Returns when the request is cancelled, but not on a half-close: the client still reads the
/// response, so the handler continues.
async fn cancelled_unless_half_closed(context: &RequestContext, guard: &HandlerGuard) {
    context.cancelled().await;
    if context.cancel_cause() == Some(CancelCause::ClientHalfClosed) {
        guard.actor.trace.record(
            &guard.actor.name,
            "half-close noticed",
            &[("handler", guard.handler.into())],
        );
        std::future::pending::<()>().await;
    }
}

/// Records when the context is cancelled, independently of its handler.
#[expect(clippy::disallowed_methods, reason = "nobody waits for who only looks on")]
fn watch(context: RequestContext, actor: Actor, handler: u64) {
    drop(tokio::spawn(async move {
        context.cancelled().await;
        actor.trace.record(&actor.name, "context cancelled", &[("handler", handler.into())]);
    }));
}

async fn stuck(ms: Duration, half: Option<&str>, guard: HandlerGuard) -> Response<ChunkedBody> {
    if half.is_none() {
        client::pause(ms).await;
        return text(StatusCode::OK, STUCK_HALVES.concat(), guard);
    }
    let [first, second] = STUCK_HALVES.map(|half| Bytes::from_static(half.as_bytes()));
    let size = (half == Some("length")).then_some((first.len() + second.len()) as u64);
    Response::new(ChunkedBody::new([(Duration::ZERO, first), (ms, second)], size, guard))
}

async fn echo(request: Request<Body>, guard: HandlerGuard) -> Response<ChunkedBody> {
    match request.into_body().collect().await {
        Ok(body) => text(StatusCode::OK, body.to_bytes(), guard),
        Err(_) => text(StatusCode::BAD_REQUEST, "the body did not come\n", guard),
    }
}

fn stream(ms: Duration, guard: HandlerGuard) -> Response<ChunkedBody> {
    let count = ms.as_millis() / CHUNK_INTERVAL.as_millis();
    let pieces = (0..count).map(|n| (CHUNK_INTERVAL, Bytes::from(format!("piece {n}\n"))));
    Response::new(ChunkedBody::new(
        pieces.chain([(CHUNK_INTERVAL, Bytes::from_static(b"end\n"))]),
        None,
        guard,
    ))
}

/// Sends a head and a chunk, then panics.
fn breaks(guard: HandlerGuard) -> Response<ChunkedBody> {
    let piece = (Duration::ZERO, Bytes::from_static(b"as far as this\n"));
    let mut body = ChunkedBody::new([piece, (CHUNK_INTERVAL, Bytes::new())], None, guard);
    body.breaks = true;
    Response::new(body)
}

fn events(guard: HandlerGuard) -> Response<ChunkedBody> {
    // More events than any scenario lasts.
    let events = (0..100_000).map(|n| (CHUNK_INTERVAL, Bytes::from(format!("data: {n}\n\n"))));
    let mut response = Response::new(ChunkedBody::new(events, None, guard));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    response
}

fn work(
    request: &Request<Body>,
    span: Duration,
    query: &str,
    guard: HandlerGuard,
) -> Response<ChunkedBody> {
    let context = request.body().context();
    // Create the guard here: the task may be dropped before its first poll.
    let left = tasks::TaskGuard::new(guard.actor.clone(), format!("left by {}", guard.handler));
    let end = match parameter(query, "heeds") {
        Some("yes") => Cooperation::Heeds,
        Some("panics") => Cooperation::Panics,
        Some(_) | None => Cooperation::Ignores,
    };
    context.spawn(tasks::leftover(left, context.clone(), span, end));
    text(StatusCode::OK, "begun\n", guard)
}

/// Upgrades without tracking the task: during the drain only the upgraded io keeps the connection
/// open.
#[expect(clippy::disallowed_methods, reason = "that the host does without is what is practised")]
fn upgrade(mut request: Request<Body>, heeds: bool, guard: HandlerGuard) -> Response<ChunkedBody> {
    let context = request.body().context().clone();
    let upgrading = hyper::upgrade::on(&mut request);
    let told = Http1Client { actor: guard.actor.clone() };
    drop(tokio::spawn(async move {
        let Ok(upgraded) = upgrading.await else { return };
        told.begins();
        echo_lines(TokioIo::new(upgraded), &context, heeds).await;
    }));
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, Bytes::new(), guard);
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("echo"));
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

/// Records `conversation begins` and, when the task of the upgraded connection is dropped,
/// `conversation ends`.
struct Http1Client {
    actor: Actor,
}

impl Http1Client {
    fn begins(&self) {
        self.actor.trace.record(&self.actor.name, "conversation begins", &[]);
    }
}

impl Drop for Http1Client {
    fn drop(&mut self) {
        self.actor.trace.record(&self.actor.name, "conversation ends", &[]);
    }
}

async fn echo_lines(
    mut io: TokioIo<hyper::upgrade::Upgraded>,
    context: &RequestContext,
    heeds: bool,
) {
    let mut line = [0; client::PING.len()];
    loop {
        let told = async {
            if heeds {
                context.draining().await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = told => {
                let _ = io.write_all(client::FAREWELL).await;
                let _ = io.shutdown().await;
                return;
            }
            read = io.read_exact(&mut line) => if read.is_err() || io.write_all(&line).await.is_err() {
                return;
            }
        }
    }
}

fn heeds(query: &str) -> bool {
    parameter(query, "heeds") == Some("yes")
}

fn text(status: StatusCode, body: impl Into<Bytes>, guard: HandlerGuard) -> Response<ChunkedBody> {
    let body = body.into();
    let size = Some(body.len() as u64);
    let mut response = Response::new(ChunkedBody::new([(Duration::ZERO, body)], size, guard));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// A body that sends each chunk after a pause.
#[derive(Debug)]
pub struct ChunkedBody {
    left: VecDeque<(Duration, Bytes)>,
    size: Option<u64>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Panics in place of the last chunk.
    breaks: bool,
    /// Dropped with the body.
    _guard: HandlerGuard,
}

impl ChunkedBody {
    fn new(
        pieces: impl IntoIterator<Item = (Duration, Bytes)>,
        size: Option<u64>,
        guard: HandlerGuard,
    ) -> Self {
        Self { left: pieces.into_iter().collect(), size, pause: None, breaks: false, _guard: guard }
    }
}

impl HttpBody for ChunkedBody {
    type Data = Bytes;
    type Error = Infallible;

    #[expect(clippy::disallowed_methods, reason = "the app lives on the world's time")]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let me = self.get_mut();
        let Some((pause, _)) = me.left.front() else { return Poll::Ready(None) };
        if !pause.is_zero() {
            let pause = *pause;
            ready!(
                me.pause
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)))
                    .as_mut()
                    .poll(cx)
            );
            me.pause = None;
        }
        assert!(!me.breaks || me.left.len() > 1, "asked to, by /breaks");
        Poll::Ready(me.left.pop_front().map(|(_, piece)| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
