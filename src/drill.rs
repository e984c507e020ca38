//! The demo service: hello world, and the routes to practise shutdowns with. The binary serves it,
//! and the simulation does with routes of its own in addition.
//!
//! | route | what it does |
//! |---|---|
//! | `GET /` | `hello world`, with the version in the header `app-version` |
//! | `GET /peer` | the address of the client, or of the client that a proxy announced |
//! | `GET /slow?ms=N` | responds after N ms; honours cancellation |
//! | `GET /stuck?ms=N` | the same, but ignores cancellation |
//! | `GET /work?ms=N` | responds at once, and spawns work of N ms that ignores cancellation |
//! | `POST /echo` | reads the whole body, then returns it |
//! | `GET /stream?ms=N` | one chunk every 100 ms, the last one is `end` |
//! | `GET /big?bytes=N` | N bytes |
//! | `GET /upgrade` | 101 with the offered protocol, then echo |
//! | `GET /panic` | panics |
//! | `GET /cpu?ms=N` | computes for N ms without a pause, so its worker serves nothing else |
//!
//! `/slow` with `&within=M` sets a deadline of M ms for the request, and `&within=none` removes it.
//! `/stuck` with `&head=1` sends the head and half of the body first, and with `&chunked=1` the
//! same without a length.

use crate::http::{Body, CancelCause};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use std::{
    convert::Infallible,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bounds of the routes' parameters.
const MS_MAX: u64 = 600_000;
const BYTES_MAX: u64 = 1 << 30;
const ECHO_BYTES_MAX: usize = 16 << 20;
const BIG_CHUNK: usize = 64 * 1024;

/// The body of `/slow`.
pub const SLOW_DONE: &str = "slow done\n";
/// The body of `/slow` if the request was cancelled.
pub const SLOW_CANCELLED: &str = "cancelled\n";
/// The two halves of the body of `/stuck`.
pub const STUCK_HALVES: [&str; 2] = ["stuck ha", "lf done\n"];
/// The pause before each chunk of `/stream`.
pub const CHUNK_INTERVAL: Duration = Duration::from_millis(100);

/// The routes that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routes {
    /// Hello world, and the routes to practise shutdowns with.
    Drill,
    /// Only hello world.
    HelloOnly,
}

/// The service of the binary.
#[derive(Debug)]
pub struct Service {
    version: HeaderValue,
    routes: Routes,
}

/// The body of a response: text, or chunks with pauses.
pub type DrillBody = Either<Full<Bytes>, Paced>;
/// A response of the demo service.
pub type DrillResponse = Response<DrillBody>;

impl Service {
    /// Creates hello world in this version, with or without the drill routes.
    #[must_use]
    pub fn new(version: &str, routes: Routes) -> Self {
        let version = HeaderValue::from_str(version).unwrap_or(HeaderValue::from_static("invalid"));
        Self { version, routes }
    }

    fn hello(&self, request: &Request<Body>) -> DrillResponse {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return not_allowed("GET, HEAD");
        }
        let mut response = text(StatusCode::OK, "hello world");
        response.headers_mut().insert("app-version", self.version.clone());
        response
    }
}

impl hyper::service::Service<Request<Body>> for Service {
    type Response = DrillResponse;
    type Error = Infallible;
    type Future = DrillFuture;

    fn call(&self, request: Request<Body>) -> DrillFuture {
        if request.uri().path() == "/" {
            return DrillFuture::Now(Some(self.hello(&request)));
        }
        if self.routes == Routes::HelloOnly {
            return DrillFuture::Now(Some(text(StatusCode::NOT_FOUND, "not found\n")));
        }
        DrillFuture::Later(Box::pin(async move {
            drill(request).await.unwrap_or_else(|refused| *refused)
        }))
    }
}

/// The response future: ready at once, or after a while.
pub enum DrillFuture {
    /// A response that exists already; the first poll takes it.
    Now(Option<DrillResponse>),
    /// A response that takes time.
    Later(Pin<Box<dyn Future<Output = DrillResponse> + Send>>),
}

impl Future for DrillFuture {
    type Output = Result<DrillResponse, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Now(response) => {
                response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(response)))
            }
            Self::Later(response) => response.as_mut().poll(cx).map(Ok),
        }
    }
}

impl fmt::Debug for DrillFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DrillFuture")
    }
}

async fn drill(request: Request<Body>) -> Result<DrillResponse, Box<DrillResponse>> {
    let path = request.uri().path().to_owned();
    let expected = if path == "/echo" { Method::POST } else { Method::GET };
    const KNOWN: [&str; 10] = [
        "/peer", "/slow", "/stuck", "/work", "/echo", "/stream", "/big", "/upgrade", "/panic",
        "/cpu",
    ];
    if !KNOWN.contains(&path.as_str()) {
        return Err(Box::new(text(StatusCode::NOT_FOUND, "not found\n")));
    }
    if request.method() != expected {
        return Err(Box::new(not_allowed(if path == "/echo" { "POST" } else { "GET" })));
    }
    let query = Query::of(&request)?;
    match path.as_str() {
        "/peer" => Ok(text(StatusCode::OK, format!("{}\n", request.body().context().peer()))),
        "/slow" => Ok(slow(&request, &query).await),
        "/stuck" => Ok(stuck(&query).await),
        "/work" => Ok(work(&request, query.ms)),
        "/echo" => Ok(echo(request).await),
        "/stream" => Ok(stream(query.ms)),
        "/big" => Ok(big(query.bytes)),
        "/upgrade" => Ok(upgrade(request)),
        "/cpu" => Ok(cpu(query.ms)),
        _ => panic!("requested by GET /panic"),
    }
}

/// Ready at once if there is nothing to wait for.
#[expect(
    clippy::disallowed_methods,
    reason = "a handler of the app, not of the host: it lives on tokio's time"
)]
async fn sleep(ms: u64) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

async fn slow(request: &Request<Body>, query: &Query) -> DrillResponse {
    let context = request.body().context();
    if let Some(within) = query.within {
        context.set_timeout(within.map(Duration::from_millis));
    }
    let cancelled = async {
        context.cancelled().await;
        // A half-closed client still reads. Serve it until the drain ends.
        if context.cancel_cause() == Some(CancelCause::ClientHalfClosed) {
            context.root_cancelled().await;
        }
    };
    tokio::select! {
        biased;
        () = sleep(query.ms) => text(StatusCode::OK, SLOW_DONE),
        () = cancelled => text(StatusCode::SERVICE_UNAVAILABLE, SLOW_CANCELLED),
    }
}

async fn stuck(query: &Query) -> DrillResponse {
    if query.head || query.chunked {
        let [first, second] = STUCK_HALVES.map(|half| Bytes::from_static(half.as_bytes()));
        let size = (!query.chunked).then_some((first.len() + second.len()) as u64);
        let pause = Duration::from_millis(query.ms);
        return Paced::response([(Duration::ZERO, first), (pause, second)], size);
    }
    sleep(query.ms).await;
    text(StatusCode::OK, STUCK_HALVES.concat())
}

fn work(request: &Request<Body>, ms: u64) -> DrillResponse {
    request.body().context().spawn(sleep(ms));
    text(StatusCode::ACCEPTED, "work started\n")
}

fn cpu(ms: u64) -> DrillResponse {
    text(StatusCode::OK, format!("{:016x}\n", compute(Duration::from_millis(ms))))
}

/// Computes until `span` has passed, in rounds of some microseconds.
#[expect(clippy::disallowed_methods, reason = "a handler of the app, which uses real CPU time")]
fn compute(span: Duration) -> u64 {
    let begin = std::time::Instant::now();
    let mut state = 1;
    while begin.elapsed() < span {
        state = hot_function(state);
    }
    state
}

/// The function that a profile of `/cpu` must name: xorshift.
#[inline(never)]
fn hot_function(mut state: u64) -> u64 {
    for _ in 0..10_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    }
    state
}

async fn echo(request: Request<Body>) -> DrillResponse {
    match Limited::new(request.into_body(), ECHO_BYTES_MAX).collect().await {
        Ok(body) => Response::new(Either::Left(Full::new(body.to_bytes()))),
        Err(error) if error.is::<LengthLimitError>() => text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("body is longer than {ECHO_BYTES_MAX} bytes\n"),
        ),
        Err(error) => {
            text(StatusCode::BAD_REQUEST, format!("the body could not be read: {error}\n"))
        }
    }
}

fn stream(ms: u64) -> DrillResponse {
    let every = u64::try_from(CHUNK_INTERVAL.as_millis()).unwrap_or(u64::MAX);
    let chunks = (0..ms / every).map(|n| Bytes::from(format!("piece {n}\n")));
    let chunks = chunks.chain([Bytes::from_static(b"end\n")]);
    Paced::response(chunks.map(|chunk| (CHUNK_INTERVAL, chunk)), None)
}

fn big(bytes: u64) -> DrillResponse {
    static FILLER: [u8; BIG_CHUNK] = [b'x'; BIG_CHUNK];
    let chunks = (0..bytes).step_by(BIG_CHUNK).map(move |sent| {
        let chunk = usize::try_from(bytes - sent).unwrap_or(BIG_CHUNK).min(BIG_CHUNK);
        (Duration::ZERO, Bytes::from_static(&FILLER[..chunk]))
    });
    Paced::response(chunks, Some(bytes))
}

fn upgrade(mut request: Request<Body>) -> DrillResponse {
    // RFC 9110 §7.8: ignore the header on HTTP/1.0.
    let offered = request
        .headers()
        .get(header::UPGRADE)
        .filter(|_| request.version() == Version::HTTP_11)
        .cloned();
    let Some(protocol) = offered else {
        return text(
            StatusCode::UPGRADE_REQUIRED,
            "send `connection: upgrade` and `upgrade: <protocol>`\n",
        );
    };
    let context = request.body().context().clone();
    let upgrading = hyper::upgrade::on(&mut request);
    context.spawn(async move {
        let Ok(upgraded) = upgrading.await else { return };
        let mut io = TokioIo::new(upgraded);
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = io.read(&mut buffer).await {
            if io.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
    });
    let mut response = Response::new(Either::Left(Full::default()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, protocol);
    response
}

/// A body that sends each chunk after a pause.
pub struct Paced {
    /// The next chunk, after its pause.
    next: Option<(Duration, Bytes)>,
    chunks: Box<dyn Iterator<Item = (Duration, Bytes)> + Send>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
    size: Option<u64>,
}

impl Paced {
    /// Creates a response with these chunks, each after its pause, and with this length if it is
    /// known.
    pub fn response<C>(chunks: C, size: Option<u64>) -> DrillResponse
    where
        C: IntoIterator<Item = (Duration, Bytes)>,
        C::IntoIter: Send + 'static,
    {
        let mut chunks: Box<dyn Iterator<Item = _> + Send> = Box::new(chunks.into_iter());
        let next = chunks.next();
        Response::new(Either::Right(Self { next, chunks, pause: None, size }))
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Infallible;

    #[expect(clippy::disallowed_methods, reason = "a body of the app lives on tokio's time")]
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        let Some((pause, _)) = this.next else { return Poll::Ready(None) };
        if !pause.is_zero() {
            let sleep = this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
            ready!(sleep.as_mut().poll(cx));
            this.pause = None;
        }
        let chunk = std::mem::replace(&mut this.next, this.chunks.next());
        Poll::Ready(chunk.map(|(_, chunk)| Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced").field("next", &self.next).finish_non_exhaustive()
    }
}

/// The parameters of a drill.
#[derive(Debug, Default)]
struct Query {
    ms: u64,
    bytes: u64,
    head: bool,
    chunked: bool,
    within: Option<Option<u64>>,
}

impl Query {
    fn of(request: &Request<Body>) -> Result<Self, Box<DrillResponse>> {
        let mut query = Self::default();
        let pairs =
            request.uri().query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        for pair in pairs {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "ms" => query.ms = number(name, value, MS_MAX)?,
                "bytes" => query.bytes = number(name, value, BYTES_MAX)?,
                "head" => query.head = number(name, value, 1)? == 1,
                "chunked" => query.chunked = number(name, value, 1)? == 1,
                "within" if value == "none" => query.within = Some(None),
                "within" => query.within = Some(Some(number(name, value, MS_MAX)?)),
                _ => {
                    return Err(bad(&format!(
                        "unknown parameter `{name}`; available: ms, bytes, head, chunked and within"
                    )));
                }
            }
        }
        Ok(query)
    }
}

fn number(name: &str, value: &str, most: u64) -> Result<u64, Box<DrillResponse>> {
    value.parse().ok().filter(|number| *number <= most).ok_or_else(|| {
        bad(&format!("parameter `{name}` is `{value}`; expected a whole number from 0 to {most}"))
    })
}

fn bad(reason: &str) -> Box<DrillResponse> {
    Box::new(text(StatusCode::BAD_REQUEST, format!("{reason}\n")))
}

fn not_allowed(allowed: &'static str) -> DrillResponse {
    let mut response =
        text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed} are allowed\n"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Creates a plain text response.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> DrillResponse {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
