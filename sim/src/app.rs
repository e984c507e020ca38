//! The app under test: a default one whose routes practise what a shutdown meets, on the world's time.
//!
//! | route | what it does |
//! |---|---|
//! | `/fast` | answers at once |
//! | `/slow?ms=N` | answers after N ms, with `&within=M` by a deadline of its own, with `&within=none` by none; when its context is cancelled, at once, with a 503 that says so |
//! | `/stuck?ms=N` | answers after N ms, whatever happens; `&half=length` and `&half=chunked` send the head and half of the body first |
//! | `/echo` | reads it all, then answers it |
//! | `/stream?ms=N` | a piece each 100 ms for N ms, then `end` |
//! | `/bytes?n=N` | N bytes at once |
//! | `/panic` | panics |
//! | `/breaks` | sends a piece, and panics 100 ms later |
//! | `/events` | an event each 100 ms, for ever: the host ends it |
//! | `/work?ms=N` | answers at once; what it leaves behind works for N ms, or with `&heeds=yes` until the root context is cancelled; with `&heeds=panics` it panics after N ms |
//! | `/upgrade` | changes to an echo; with `&heeds=yes` it says farewell when the drain begins |
//!
//! Every handler tells the trace: `handler begins` (with the phase that it sees, and the time it has by the host's clock), `handler cancelled` (with the reason, as far as a handler can know it),
//! `handler ends` (when it and its body are gone, however). Any other [`HttpService`](lameduck::HttpService) can take its
//! place: see [`Seat`].

use crate::{client, scenario::Heed, tasks, trace::Trace};
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

/// Where an app lives: what a factory of apps is given.
#[derive(Clone, Debug)]
pub struct Seat {
    /// The name of its process, which is its actor in the trace.
    pub name: String,
    /// Where to tell what happens.
    pub trace: Trace,
}

/// What `/slow` answers when it has its time.
pub const SLOW_DONE: &str = "slow done\n";
/// What `/slow` answers when its context is cancelled.
pub const SLOW_CANCELLED: &str = "cancelled\n";
/// What `/stuck` answers, in two halves.
pub const STUCK_HALVES: [&str; 2] = ["stuck ha", "lf done\n"];
/// The pause between the pieces of `/stream`.
pub const PIECE_EVERY: Duration = Duration::from_millis(100);

/// The default app.
#[derive(Clone, Debug)]
pub struct Drill {
    seat: Seat,
    handlers: Arc<AtomicU64>,
}

impl Drill {
    /// The app of one process.
    #[must_use]
    pub fn new(seat: Seat) -> Self {
        Self { seat, handlers: Arc::default() }
    }
}

/// A handler at work.
type Handling = Pin<Box<dyn Future<Output = Result<Response<Pieces>, Infallible>> + Send>>;

impl hyper::service::Service<Request<Body>> for Drill {
    type Response = Response<Pieces>;
    type Error = Infallible;
    type Future = Handling;

    fn call(&self, request: Request<Body>) -> Handling {
        let handler = self.handlers.fetch_add(1, Ordering::Relaxed);
        let witness = Witness { seat: self.seat.clone(), handler };
        let target = request.uri().path_and_query().map_or("", |target| target.as_str());
        let context = request.body().context();
        let mut fields =
            vec![("handler", handler.into()), ("target", target.into()), ("phase", context.phase().name().into())];
        // By the host's clock.
        let left = context.remaining().map(|left| u64::try_from(left.as_micros()).unwrap_or(u64::MAX));
        fields.extend(left.map(|left| ("left_us", left.into())));
        self.seat.trace.record(&self.seat.name, "handler begins", &fields);
        Box::pin(async move { Ok(answer(request, witness).await) })
    }
}

/// Tells the trace when the last of a handler is gone.
#[derive(Debug)]
struct Witness {
    seat: Seat,
    handler: u64,
}

impl Witness {
    fn cancelled(&self, by: &'static str) {
        let fields = [("handler", self.handler.into()), ("by", by.into())];
        self.seat.trace.record(&self.seat.name, "handler cancelled", &fields);
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.seat.trace.record(&self.seat.name, "handler ends", &[("handler", self.handler.into())]);
    }
}

async fn answer(request: Request<Body>, witness: Witness) -> Response<Pieces> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let ms = Duration::from_millis(parameter(&query, "ms").and_then(|ms| ms.parse().ok()).unwrap_or(0));
    match request.uri().path() {
        "/fast" => text(StatusCode::OK, "fast\n", witness),
        "/slow" => slow(&request, ms, witness).await,
        "/stuck" => stuck(ms, parameter(&query, "half"), witness).await,
        "/echo" => echo(request, witness).await,
        "/stream" => stream(ms, witness),
        "/panic" => panic!("asked to, by /panic"),
        "/breaks" => breaks(witness),
        "/bytes" => {
            let bytes = parameter(&query, "n").and_then(|n| n.parse().ok()).unwrap_or(0);
            text(StatusCode::OK, vec![b'b'; bytes], witness)
        }
        "/events" => events(witness),
        "/work" => work(&request, ms, &query, witness),
        "/upgrade" => upgrade(request, heeds(&query), witness),
        _ => text(StatusCode::NOT_FOUND, "not found\n", witness),
    }
}

async fn slow(request: &Request<Body>, ms: Duration, witness: Witness) -> Response<Pieces> {
    let context = request.body().context();
    // `none` takes the deadline away.
    if let Some(within) = request.uri().query().and_then(|query| parameter(query, "within")) {
        context.set_timeout(within.parse().ok().map(Duration::from_millis));
        watch(context.clone(), witness.seat.clone(), witness.handler);
    }
    tokio::select! {
        biased;
        () = client::pause(ms) => text(StatusCode::OK, SLOW_DONE, witness),
        () = context.root_cancelled() => {
            witness.cancelled("root");
            text(StatusCode::SERVICE_UNAVAILABLE, SLOW_CANCELLED, witness)
        }
        () = cancelled_for_good(context, &witness) => {
            witness.cancelled("request");
            text(StatusCode::SERVICE_UNAVAILABLE, SLOW_CANCELLED, witness)
        }
    }
}

/// A client that has only shut its side reads the response: the handler goes on.
async fn cancelled_for_good(context: &RequestContext, witness: &Witness) {
    context.cancelled().await;
    if context.cancel_cause() == Some(CancelCause::ClientHalfClosed) {
        witness.seat.trace.record(&witness.seat.name, "half-close noticed", &[("handler", witness.handler.into())]);
        std::future::pending::<()>().await;
    }
}

/// Tells the trace when a context is cancelled, whatever became of its handler.
#[expect(clippy::disallowed_methods, reason = "nobody waits for who only looks on")]
fn watch(context: RequestContext, seat: Seat, handler: u64) {
    drop(tokio::spawn(async move {
        context.cancelled().await;
        seat.trace.record(&seat.name, "context cancelled", &[("handler", handler.into())]);
    }));
}

async fn stuck(ms: Duration, half: Option<&str>, witness: Witness) -> Response<Pieces> {
    if half.is_none() {
        client::pause(ms).await;
        return text(StatusCode::OK, STUCK_HALVES.concat(), witness);
    }
    let [first, second] = STUCK_HALVES.map(|half| Bytes::from_static(half.as_bytes()));
    let size = (half == Some("length")).then_some((first.len() + second.len()) as u64);
    Response::new(Pieces::new([(Duration::ZERO, first), (ms, second)], size, witness))
}

async fn echo(request: Request<Body>, witness: Witness) -> Response<Pieces> {
    match request.into_body().collect().await {
        Ok(body) => text(StatusCode::OK, body.to_bytes(), witness),
        Err(_) => text(StatusCode::BAD_REQUEST, "the body did not come\n", witness),
    }
}

fn stream(ms: Duration, witness: Witness) -> Response<Pieces> {
    let count = ms.as_millis() / PIECE_EVERY.as_millis();
    let pieces = (0..count).map(|n| (PIECE_EVERY, Bytes::from(format!("piece {n}\n"))));
    Response::new(Pieces::new(pieces.chain([(PIECE_EVERY, Bytes::from_static(b"end\n"))]), None, witness))
}

/// A head and a piece, then a panic.
fn breaks(witness: Witness) -> Response<Pieces> {
    let piece = (Duration::ZERO, Bytes::from_static(b"as far as this\n"));
    let mut body = Pieces::new([piece, (PIECE_EVERY, Bytes::new())], None, witness);
    body.breaks = true;
    Response::new(body)
}

fn events(witness: Witness) -> Response<Pieces> {
    // More than any scenario lasts.
    let events = (0..100_000).map(|n| (PIECE_EVERY, Bytes::from(format!("data: {n}\n\n"))));
    let mut response = Response::new(Pieces::new(events, None, witness));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    response
}

fn work(request: &Request<Body>, span: Duration, query: &str, witness: Witness) -> Response<Pieces> {
    let context = request.body().context();
    // It may be dropped before it is polled.
    let left = tasks::Witness::begins(witness.seat.clone(), format!("left by {}", witness.handler));
    let end = match parameter(query, "heeds") {
        Some("yes") => Heed::Heeds,
        Some("panics") => Heed::Panics,
        Some(_) | None => Heed::Ignores,
    };
    context.spawn(tasks::leftover(left, context.clone(), span, end));
    text(StatusCode::OK, "begun\n", witness)
}

/// The io alone keeps what follows in the drain: nobody tracks the task.
#[expect(clippy::disallowed_methods, reason = "that the host does without is what is practised")]
fn upgrade(mut request: Request<Body>, heeds: bool, witness: Witness) -> Response<Pieces> {
    let context = request.body().context().clone();
    let upgrading = hyper::upgrade::on(&mut request);
    let told = Conversation { seat: witness.seat.clone() };
    drop(tokio::spawn(async move {
        let Ok(upgraded) = upgrading.await else { return };
        told.begins();
        echo_lines(TokioIo::new(upgraded), &context, heeds).await;
    }));
    let mut response = text(StatusCode::SWITCHING_PROTOCOLS, Bytes::new(), witness);
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("echo"));
    response.headers_mut().remove(header::CONTENT_TYPE);
    response
}

/// Tells the trace of an upgraded connection: `conversation begins` and, when its task is gone, `conversation ends`.
struct Conversation {
    seat: Seat,
}

impl Conversation {
    fn begins(&self) {
        self.seat.trace.record(&self.seat.name, "conversation begins", &[]);
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.seat.trace.record(&self.seat.name, "conversation ends", &[]);
    }
}

async fn echo_lines(mut io: TokioIo<hyper::upgrade::Upgraded>, context: &RequestContext, heeds: bool) {
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

fn text(status: StatusCode, body: impl Into<Bytes>, witness: Witness) -> Response<Pieces> {
    let body = body.into();
    let size = Some(body.len() as u64);
    let mut response = Response::new(Pieces::new([(Duration::ZERO, body)], size, witness));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// A body whose pieces come one at a time, each after a pause.
#[derive(Debug)]
pub struct Pieces {
    left: VecDeque<(Duration, Bytes)>,
    size: Option<u64>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Its last piece is a panic.
    breaks: bool,
    /// Held until the body is gone.
    _witness: Witness,
}

impl Pieces {
    fn new(pieces: impl IntoIterator<Item = (Duration, Bytes)>, size: Option<u64>, witness: Witness) -> Self {
        Self { left: pieces.into_iter().collect(), size, pause: None, breaks: false, _witness: witness }
    }
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    #[expect(clippy::disallowed_methods, reason = "the app lives on the world's time")]
    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let me = self.get_mut();
        let Some((pause, _)) = me.left.front() else { return Poll::Ready(None) };
        if !pause.is_zero() {
            let pause = *pause;
            ready!(me.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause))).as_mut().poll(cx));
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
