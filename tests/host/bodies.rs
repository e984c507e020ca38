//! P5, P13, P15: an error in a body, or a panic while it is dropped, costs only its request. It is
//! counted for what it was, and the response never looks complete.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

mod heads;
mod lengths;
mod panics;

use crate::support::{
    App, Client, End, builder,
    frames::{HEADERS, Http2, RST_STREAM},
    pause, until_holds,
};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::{any, get},
};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::{Frame, SizeHint};
use lameduck::{Report, RequestContext};
use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
};

type Chunk = Result<&'static str, io::Error>;

/// Panics when it is dropped.
#[derive(Debug)]
struct Grudge;

impl Drop for Grudge {
    fn drop(&mut self) {
        panic!("dropped, on purpose");
    }
}

/// A body of these chunks that panics when it is dropped.
fn grudging(pieces: impl Stream<Item = Chunk> + Send + 'static) -> Body {
    let grudge = Grudge;
    Body::from_stream(pieces.inspect(move |_| {
        let _held = &grudge;
    }))
}

async fn drops_badly() -> Body {
    grudging(stream::iter(["all ", "of it"]).map(Ok))
}

async fn never_ends() -> Body {
    grudging(stream::iter([Ok("some of it")]).chain(stream::pending()))
}

/// An error that panics when it is dropped.
#[derive(Debug)]
struct GrudgingError(Grudge);

impl std::fmt::Display for GrudgingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("with a grudge")
    }
}

impl std::error::Error for GrudgingError {}

async fn fails_badly() -> Body {
    Body::from_stream(stream::iter([Ok("some of it"), Err(GrudgingError(Grudge))]))
}

async fn waits_with_a_grudge() -> &'static str {
    let _grudge = Grudge;
    std::future::pending().await
}

/// A response with this `content-length` whose body is `pieces`.
fn promising(length: u64, pieces: &'static [&'static str]) -> Response {
    let pieces = stream::iter(pieces).map(|piece| Chunk::Ok(piece));
    ([(header::CONTENT_LENGTH, length.to_string())], Body::from_stream(pieces)).into_response()
}

async fn short() -> Response {
    promising(10, &["four"])
}

/// A response with this `content-length`. After its first piece it waits for a moment.
fn later(length: u64, first: &'static str, second: Option<Chunk>) -> Response {
    let second = stream::once(async move {
        pause(100).await;
        second
    });
    let pieces = stream::iter([Chunk::Ok(first)]).chain(second.filter_map(async |second| second));
    ([(header::CONTENT_LENGTH, length.to_string())], Body::from_stream(pieces)).into_response()
}

/// A response that fails after a moment, with the bytes of its `content-length` sent before.
fn late(path: &str) -> Response {
    match path {
        "/surplus" => later(4, "four", Some(Ok("more"))),
        "/error" => later(4, "four", Some(Err(io::Error::other("the upstream broke late")))),
        "/one-byte" => later(1, "4", Some(Ok("more"))),
        "/nothing" => later(4, "four", None),
        _ => "hello".into_response(),
    }
}

async fn exact() -> Response {
    promising(9, &["all ", "of it"])
}

async fn long() -> Response {
    promising(6, &["all ", "of it"])
}

async fn waits_at_its_end() -> Response {
    let pieces = stream::iter([Chunk::Ok("all "), Chunk::Ok("of it")]).chain(stream::pending());
    ([(header::CONTENT_LENGTH, "9")], Body::from_stream(pieces)).into_response()
}

/// A body of known length that does not report its end: it keeps the default `is_end_stream`.
struct Known {
    piece: Option<&'static str>,
    length: u64,
}

impl http_body::Body for Known {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.piece.take().map(|piece| Ok(Frame::data(piece.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}

async fn known() -> Body {
    Body::new(Known { piece: Some("all of it"), length: 9 })
}

async fn known_and_short() -> Body {
    Body::new(Known { piece: Some("some of it"), length: 90 })
}

async fn with_trailers() -> Response {
    // A proxy passes on the trailers of an upstream of HTTP/1.
    let fields = [(header::ETAG, "x"), (header::CONNECTION, "close"), (header::TE, "gzip")];
    let fields = fields.map(|(name, value)| (name, value.parse().unwrap()));
    let trailers = HeaderMap::from_iter(fields);
    let frames = [Frame::data("all of it".into()), Frame::trailers(trailers)]
        .map(Ok::<Frame<Bytes>, Infallible>);
    Body::new(StreamBody::new(stream::iter(frames))).into_response()
}

/// Fails once the drain has begun.
async fn fails_in_the_drain(Extension(context): Extension<RequestContext>) -> Body {
    let end = stream::once(async move {
        context.draining().await;
        Chunk::Err(io::Error::other("the upstream broke"))
    });
    Body::from_stream(stream::iter([Ok("some of it")]).chain(end))
}

async fn spawns_a_panic(Extension(context): Extension<RequestContext>) {
    context.spawn(async { panic!("after the response, on purpose") });
}

fn app() -> App {
    let _ = log();
    let routes = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/drops-badly", get(drops_badly))
        .route("/fails-badly", get(fails_badly))
        .route("/never-ends", get(never_ends))
        .route("/never-ends/{*rest}", any(never_ends))
        .route("/waits", get(waits_with_a_grudge))
        .route("/short", get(short))
        .route("/short-later", get(async || later(10, "four", None)))
        .route("/large", get(async || vec![b'x'; LARGE]))
        .route("/exact", get(exact))
        .route("/long", get(long))
        .route("/long-in-pieces", get(async || promising(4, &["all ", "of it"])))
        .route("/long-after-nothing", get(async || promising(4, &["all ", "", "", "of it"])))
        .route("/waits-at-its-end", get(waits_at_its_end))
        .route("/known", get(known))
        .route("/known-and-short", get(known_and_short))
        .route("/trailers", get(with_trailers))
        .route("/spawns", get(spawns_a_panic))
        .route("/fails", get(fails_in_the_drain));
    App::start(builder().serve(routes))
}

/// The log of this process.
fn log() -> &'static Arc<Mutex<Vec<u8>>> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let written = log.clone();
        let writer = move || Tee(written.clone());
        tracing_subscriber::fmt().with_ansi(false).with_writer(writer).init();
        log
    })
}

struct Tee(Arc<Mutex<Vec<u8>>>);

impl io::Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits for a log line that contains all of these texts.
#[track_caller]
fn wait_for_line(texts: &[&str]) {
    until_holds(&format!("a line with {texts:?}"), || {
        let log = String::from_utf8_lossy(&log().lock().unwrap()).into_owned();
        log.lines().any(|line| texts.iter().all(|text| line.contains(text)))
    });
}

/// Returns the counts of finished, aborted, gone and panicked requests, and the exit code.
fn outcomes(report: &Report) -> ([u64; 4], u8) {
    let requests = &report.requests;
    ([requests.finished, requests.aborted, requests.gone, requests.panicked], report.code())
}

#[track_caller]
fn wait_for_gone(app: &App, count: u64) {
    until_holds("requests that are gone", || app.status()["requests"]["gone"] == count);
}

/// Sends a request for a body that fails at once, after one that succeeds. Both must get responses.
fn assert_becomes_a_500(app: &App, path: &str) {
    let mut client = Client::connect(app.main);
    client.send(format!("GET / HTTP/1.1\r\nhost: t\r\n\r\nGET {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
    assert_eq!(client.answer().body(), "hello", "before {path}");
    let error = client.answer();
    assert_eq!((error.status, &*error.body()), (500, "internal server error\n"), "{path}");
    assert!(error.says_close() && error.header("date").is_some(), "{error:?}");
    assert_eq!(client.end(), End::Closed, "{path}");
}

/// More than a client's kernel takes before the client reads.
const LARGE: usize = 500_000;

// Trailers end a body. A body that reports its end only when it is polled again after them was
// counted as gone. It is finished (P5c). With a field that only HTTP/1 has (RFC 9113 §8.2.2), an
// HTTP/2 response ended in a reset, and counted as finished, too (P5d).
#[test]
fn a_body_that_ends_with_trailers_is_finished() {
    let app = app();
    let mut client = Client::connect(app.main);
    assert_eq!(client.get("/trailers").body(), "all of it");
    let mut http2 = Http2::connect(app.main);
    let stream = http2.get("/trailers");
    assert_eq!(http2.body(stream), "all of it");
    let last =
        http2.wait_for("the trailers", |frame| frame.stream == stream && frame.ends_stream());
    assert_eq!(last.kind, HEADERS);
    let report = app.end();
    assert_eq!(outcomes(&report), ([2, 0, 0, 0], 0), "{report:?}");
}

// An upstream failed during the drain, and the exit code was 3; just before the drain it would have
// been 0. The operator on call looked for a drain that was too short. An error of the body itself
// is not a cut by the shutdown (P13).
#[test]
fn a_body_that_fails_in_the_drain_is_not_counted_as_cut_by_the_shutdown() {
    let app = app();
    let mut client = Client::connect(app.main);
    client.send_get("/fails");
    client.head().unwrap();
    let mut http2 = Http2::connect(app.main);
    let broken = http2.get("/fails");
    http2.wait_for("data", |frame| {
        frame.stream == broken && frame.kind == crate::support::frames::DATA
    });
    app.stop();
    assert_eq!(client.end(), End::Reset);
    http2.wait_for("RST_STREAM", |frame| frame.stream == broken && frame.kind == RST_STREAM);
    let report = app.report();
    assert_eq!(outcomes(&report), ([0, 2, 0, 0], 0), "{report:?}");
    assert!(report.aborts.iter().all(|abort| !abort.by_shutdown), "{report:?}");
    wait_for_line(&["ERROR", "response body failed", "GET", "/fails", "the upstream broke"]);
}

#[test]
fn a_body_that_the_shutdown_cuts_is_counted_as_cut_by_the_shutdown() {
    let app = app();
    let mut client = Client::connect(app.main);
    client.send_get("/never-ends");
    client.head().unwrap();
    let report = app.end();
    assert_eq!(outcomes(&report).1, 3, "{report:?}");
    assert!(report.aborts.iter().all(|abort| abort.by_shutdown), "{report:?}");
}

// A client sent paths as long as a head may be. The report and each log line had them whole, and
// a thousand of them stayed in memory for the life of the process. Names are truncated (P15).
#[test]
fn long_names_of_requests_are_truncated_in_the_report_and_in_the_log() {
    let app = app();
    let (method, path) = ("A-LONG-METHOD-".repeat(200), "/a-long-path".repeat(1_000));
    let mut client = Client::connect(app.main);
    client.send(format!("{method} /never-ends{path} HTTP/1.1\r\nhost: t\r\n\r\n"));
    client.head().unwrap();
    let report = app.end();
    let [aborted] = &report.aborts[..] else { panic!("one was aborted: {report:?}") };
    let whole = (method, format!("/never-ends{path}"));
    for (name, whole) in [(&aborted.method, whole.0), (&aborted.path, whole.1)] {
        assert_eq!(name.chars().count(), 1_025);
        assert!(whole.starts_with(name.strip_suffix('…').unwrap()), "{name}");
    }
    wait_for_line(&["request aborted", "/never-ends/a-long-path"]);
    let log = String::from_utf8_lossy(&log().lock().unwrap()).into_owned();
    let longest = log.lines().filter(|line| line.contains("/a-long-path")).map(str::len).max();
    assert!(longest < Some(5_000), "{longest:?}");
}
