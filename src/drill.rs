//! The reference service: hello world, and with `--drill` the routes to practise shutdowns with.
//!
//! | route | what it does |
//! |---|---|
//! | `GET /` | `hello world`, with the version in the header `app-version` |
//! | `GET /slow?ms=N` | responds after N ms; honours cancellation |
//! | `GET /stuck?ms=N` | the same, but ignores cancellation; `&head=1` sends the head and half of the body first, `&chunked=1` the same chunked |
//! | `GET /work?ms=N` | responds at once, and spawns work that takes N ms and ignores cancellation |
//! | `POST /echo` | reads the whole body, then returns it |
//! | `GET /stream?ms=N` | one chunk every 100 ms, the last one is `end` |
//! | `GET /big?bytes=N` | N bytes |
//! | `GET /upgrade` | 101 with the offered protocol, then echo |
//! | `GET /panic` | panics |

use crate::http::{Body, CancelCause};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bounds of the routes' parameters.
const MS_MAX: u64 = 600_000;
const BYTES_MAX: u64 = 1 << 30;
const ECHO_BYTES_MAX: usize = 16 << 20;
const PIECE_EVERY: Duration = Duration::from_millis(100);
const BIG_PIECE: usize = 64 * 1024;

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

type DrillBody = Either<Full<Bytes>, Paced>;
type DrillResponse = Response<DrillBody>;

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
            Self::Now(answer) => {
                answer.take().map_or(Poll::Pending, |answer| Poll::Ready(Ok(answer)))
            }
            Self::Later(answer) => answer.as_mut().poll(cx).map(Ok),
        }
    }
}

impl std::fmt::Debug for DrillFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DrillFuture")
    }
}

async fn drill(request: Request<Body>) -> Result<DrillResponse, Box<DrillResponse>> {
    let path = request.uri().path().to_owned();
    let expected = if path == "/echo" { Method::POST } else { Method::GET };
    let known = ["/slow", "/stuck", "/work", "/echo", "/stream", "/big", "/upgrade", "/panic"]
        .contains(&path.as_str());
    if !known {
        return Err(Box::new(text(StatusCode::NOT_FOUND, "not found\n")));
    }
    if request.method() != expected {
        return Err(Box::new(not_allowed(if path == "/echo" { "POST" } else { "GET" })));
    }
    let query = Query::of(&request)?;
    match path.as_str() {
        "/slow" => Ok(slow(&request, query.ms).await),
        "/stuck" => Ok(stuck(&query).await),
        "/work" => Ok(work(&request, query.ms)),
        "/echo" => Ok(echo(request).await),
        "/stream" => Ok(stream(query.ms)),
        "/big" => Ok(big(query.bytes)),
        "/upgrade" => Ok(upgrade(request)),
        _ => panic!("requested by GET /panic"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a handler of the app, not of the host: it lives on tokio's time"
)]
fn sleep(ms: u64) -> tokio::time::Sleep {
    tokio::time::sleep(Duration::from_millis(ms))
}

async fn slow(request: &Request<Body>, ms: u64) -> DrillResponse {
    let done = text(StatusCode::OK, "slow done\n");
    let context = request.body().context();
    let cancelled = async {
        context.cancelled().await;
        // A half-closed client still reads. Serve it until the drain ends.
        if context.cancel_cause() == Some(CancelCause::ClientHalfClosed) {
            context.root_cancelled().await;
        }
    };
    tokio::select! {
        biased;
        () = sleep(ms) => done,
        () = cancelled => text(StatusCode::SERVICE_UNAVAILABLE, "cancelled\n"),
    }
}

async fn stuck(query: &Query) -> DrillResponse {
    const HALVES: [&str; 2] = ["stuck ha", "lf done\n"];
    if query.head || query.chunked {
        let pieces = VecDeque::from(HALVES.map(|half| Bytes::from_static(half.as_bytes())));
        let size = (!query.chunked).then_some(HALVES.iter().map(|half| half.len() as u64).sum());
        return Response::new(Either::Right(Paced {
            pieces: Pieces::Given(pieces),
            size,
            every: Duration::from_millis(query.ms),
            wait: None,
            sent_first: false,
        }));
    }
    sleep(query.ms).await;
    text(StatusCode::OK, HALVES.concat())
}

fn work(request: &Request<Body>, ms: u64) -> DrillResponse {
    request.body().context().spawn(sleep(ms));
    text(StatusCode::ACCEPTED, "work started\n")
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
    let every = u64::try_from(PIECE_EVERY.as_millis()).unwrap_or(u64::MAX);
    let pieces = (0..ms / every).map(|n| Bytes::from(format!("piece {n}\n")));
    let pieces = pieces.chain([Bytes::from_static(b"end\n")]).collect();
    Response::new(Either::Right(Paced {
        pieces: Pieces::Given(pieces),
        size: None,
        every: PIECE_EVERY,
        wait: None,
        sent_first: false,
    }))
}

fn big(bytes: u64) -> DrillResponse {
    Response::new(Either::Right(Paced {
        pieces: Pieces::Filler(bytes),
        size: Some(bytes),
        every: Duration::ZERO,
        wait: None,
        sent_first: false,
    }))
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

/// A body that yields its chunks one at a time.
#[derive(Debug)]
pub struct Paced {
    pieces: Pieces,
    size: Option<u64>,
    every: Duration,
    wait: Option<Pin<Box<tokio::time::Sleep>>>,
    sent_first: bool,
}

#[derive(Debug)]
enum Pieces {
    Given(VecDeque<Bytes>),
    Filler(u64),
}

impl Pieces {
    fn next(&mut self) -> Option<Bytes> {
        static FILLER: [u8; BIG_PIECE] = [b'x'; BIG_PIECE];
        match self {
            Self::Given(pieces) => pieces.pop_front(),
            Self::Filler(0) => None,
            Self::Filler(left) => {
                let part = usize::try_from(*left).unwrap_or(BIG_PIECE).min(BIG_PIECE);
                *left -= part as u64;
                Some(Bytes::from_static(&FILLER[..part]))
            }
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Given(pieces) => pieces.is_empty(),
            Self::Filler(left) => *left == 0,
        }
    }
}

impl HttpBody for Paced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let me = self.get_mut();
        if me.sent_first && !me.every.is_zero() && !me.pieces.is_empty() {
            let every = u64::try_from(me.every.as_millis()).unwrap_or(u64::MAX);
            let wait = me.wait.get_or_insert_with(|| Box::pin(sleep(every)));
            std::task::ready!(wait.as_mut().poll(cx));
            me.wait = None;
        }
        me.sent_first = true;
        Poll::Ready(me.pieces.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// The parameters of a drill.
#[derive(Debug, Default)]
struct Query {
    ms: u64,
    bytes: u64,
    head: bool,
    chunked: bool,
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
                _ => {
                    return Err(bad(&format!(
                        "unknown parameter `{name}`; available: ms, bytes, head and chunked"
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

fn text(status: StatusCode, body: impl Into<Bytes>) -> DrillResponse {
    let mut response = Response::new(Either::Left(Full::new(body.into())));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
