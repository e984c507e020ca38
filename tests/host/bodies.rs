//! P5, P13, P15: an error in a body, or a panic while it is dropped, costs only its request. It is
//! counted for what it was, and the response never looks complete.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    App, Client, End, builder,
    frames::{HEADERS, Http2, RST_STREAM},
    pause, settings, until_holds,
};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{Stream, StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::{Frame, SizeHint};
use lameduck::{Host, Report, RequestContext};
use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
};

type Chunk = Result<&'static str, io::Error>;

/// Panics when it is dropped.
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

/// A body that knows its length, but not when it has ended: it keeps the default `is_end_stream`.
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
    let trailers = HeaderMap::from_iter([(header::ETAG, "x".parse().unwrap())]);
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
        .route("/never-ends", get(never_ends))
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
fn fates(report: &Report) -> ([u64; 4], u8) {
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

/// Sends a request over HTTP/1 and closes the connection with a response unread, so that the kernel
/// sends a reset.
fn leave(app: &App, path: &str) {
    // A client may have received its response before the request is counted.
    until_holds("all have ended", || app.status()["in_flight"] == 0);
    let finished = app.status()["requests"]["finished"].as_u64().unwrap();
    let mut client = Client::connect(app.main);
    client.send_get("/");
    until_holds("an answer", || app.status()["requests"]["finished"] == finished + 1);
    client.send_get(path);
    until_holds("the request", || app.status()["in_flight"] == 1);
    drop(client);
}

// A body that had sent everything panicked when it was dropped, and the panic unwound through
// hyper. The client got a FIN without a byte of the response, the request was counted as gone, and
// no panic was counted. The response must be sent, and the panic counted (P15).
#[test]
fn a_body_that_panics_when_it_is_dropped_is_sent_and_its_panic_counted() {
    let app = app();
    let mut client = Client::connect(app.main);
    for _ in 0..2 {
        assert_eq!(client.get("/drops-badly").body(), "all of it", "the connection goes on");
    }
    let mut http2 = Http2::connect(app.main);
    let badly = http2.get("/drops-badly");
    assert_eq!(http2.body(badly), "all of it");
    let report = app.end();
    assert_eq!(fates(&report), ([3, 0, 0, 3], 0), "{report:?}");
    wait_for_line(&["ERROR", "response body panicked", "GET", "/drops-badly"]);
}

// For an HTTP/1.0 client the end of the connection is the end of the response. A body panicked when
// the shutdown dropped it, and the connection closed with a FIN instead of a reset. Half a response
// must never look complete (P5d).
#[test]
fn a_body_that_panics_when_it_is_cut_does_not_look_complete() {
    let app = app();
    let mut client = Client::connect(app.main);
    client.send("GET /never-ends HTTP/1.0\r\n\r\n");
    client.head().unwrap();
    assert_eq!(client.exactly(10).unwrap(), b"some of it");
    app.stop();
    assert_eq!(client.end(), End::Reset);
    let report = app.report();
    assert_eq!(fates(&report), ([0, 1, 0, 1], 3), "{report:?}");
    assert_eq!(report.connections.reset, 1, "{report:?}");
}

#[test]
fn a_body_that_panics_when_its_client_leaves_costs_only_its_request() {
    let app = app();
    let mut http2 = Http2::connect(app.main);
    let left = http2.get("/never-ends");
    http2.wait_for("data", |frame| {
        frame.stream == left && frame.kind == crate::support::frames::DATA
    });
    http2.send(RST_STREAM, 0, left, &8_u32.to_be_bytes());
    wait_for_gone(&app, 1);
    let stays = http2.get("/");
    assert_eq!(http2.body(stays), "hello");
    leave(&app, "/never-ends");
    let report = app.end();
    assert_eq!(fates(&report), ([2, 0, 2, 2], 0), "{report:?}");
}

// hyper dropped a handler together with its connection, and the handler panicked. The panic was not
// counted. It must be, and it costs only its request (P15).
#[test]
fn a_handler_that_panics_when_its_client_leaves_costs_only_its_request() {
    let app = app();
    let mut http2 = Http2::connect(app.main);
    let left = http2.get("/waits");
    until_holds("the request", || app.status()["in_flight"] == 1);
    http2.send(RST_STREAM, 0, left, &8_u32.to_be_bytes());
    wait_for_gone(&app, 1);
    let stays = http2.get("/");
    assert_eq!(http2.body(stays), "hello");
    leave(&app, "/waits");
    let report = app.end();
    assert_eq!(fates(&report), ([2, 0, 2, 2], 0), "{report:?}");
    wait_for_line(&["ERROR", "handler panicked", "GET", "/waits"]);
}

// The upstream of a proxy broke, or a file was truncated. The client got a FIN and was counted as
// gone although it still waited, or its stream failed and was counted as finished. Such a response
// must be a 500 if nothing of it was written, else reset. It is counted as aborted, and named in
// the log (P5d).
#[test]
fn a_body_shorter_than_its_content_length_is_aborted_and_named() {
    let app = app();
    for path in ["/short", "/known-and-short"] {
        assert_becomes_a_500(&app, path);
    }
    let mut client = Client::connect(app.main);
    client.send_get("/short-later");
    assert_eq!(client.try_answer().unwrap_err(), End::Reset);
    let mut http2 = Http2::connect(app.main);
    for path in ["/short", "/known-and-short"] {
        let broken = http2.get(path);
        http2.wait_for("RST_STREAM", |frame| frame.stream == broken && frame.kind == RST_STREAM);
        assert!(
            !http2.seen.iter().any(|frame| frame.stream == broken && frame.ends_stream()),
            "{:?}",
            http2.seen
        );
    }
    let whole = http2.get("/exact");
    assert_eq!(http2.body(whole), "all of it");
    let report = app.end();
    assert_eq!(fates(&report), ([3, 5, 0, 0], 0), "{report:?}");
    assert_eq!(report.connections.reset, 1, "{report:?}");
    let heads_sent = report.aborts.iter().filter(|abort| abort.head_sent).count();
    assert_eq!(heads_sent, 3, "{report:?}");
    wait_for_line(&[
        "ERROR",
        "response body failed",
        "GET",
        "/short",
        "ended 6 bytes before its content-length",
    ]);
}

// hyper drops a body once it has sent its `content-length`, and does not poll it for its end. Such
// a request was counted as gone. It is finished (P5c).
#[test]
fn a_body_as_long_as_its_content_length_is_finished() {
    let app = app();
    let mut client = Client::connect(app.main);
    for _ in 0..2 {
        assert_eq!(client.get("/exact").body(), "all of it");
        assert_eq!(client.get("/known").body(), "all of it");
    }
    client.send("HEAD /short HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.head().unwrap().header("content-length"), Some("10"));
    assert_eq!(client.get("/").body(), "hello");
    let report = app.end();
    assert_eq!(fates(&report), ([6, 0, 0, 0], 0), "{report:?}");
}

// A body longer than its `content-length` was truncated there, and its client took the beginning
// for the whole. It must be a 500 or reset, counted and named (P5d).
#[test]
fn a_body_longer_than_its_content_length_is_aborted_and_named() {
    let app = app();
    for path in ["/long", "/long-in-pieces", "/long-after-nothing"] {
        assert_becomes_a_500(&app, path);
    }
    let mut http2 = Http2::connect(app.main);
    for path in ["/long", "/long-in-pieces", "/long-after-nothing"] {
        let broken = http2.get(path);
        http2.wait_for("RST_STREAM", |frame| frame.stream == broken && frame.kind == RST_STREAM);
    }
    let report = app.end();
    assert_eq!(fates(&report), ([3, 6, 0, 0], 0), "{report:?}");
    wait_for_line(&[
        "ERROR",
        "response body failed",
        "GET",
        "/long",
        "longer than its content-length",
    ]);
}

// A body can wait for ever after its last byte. The response is complete without that wait, so it
// must be counted as finished (P5c).
#[test]
fn a_body_that_waits_after_its_content_length_is_finished_over_http1() {
    let app = app();
    let mut client = Client::connect(app.main);
    assert_eq!(client.get("/waits-at-its-end").body(), "all of it");
    assert_eq!(client.get("/").body(), "hello");
    let report = app.end();
    assert_eq!(fates(&report), ([2, 0, 0, 0], 0), "{report:?}");
}

/// A body of a known length, whatever it yields.
struct Exact(Body, u64);

impl http_body::Body for Exact {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.1)
    }
}

// A body yielded all bytes of its `content-length`, and a moment later more bytes or an error. The
// client took the response for complete, nothing was logged, and the request counted as finished.
// The last byte must not be sent before the end of the body is known (P5d).
#[test]
fn a_body_that_goes_on_or_fails_after_its_content_length_is_cut_logged_and_counted() {
    let _ = log();
    for is_exact in [false, true] {
        let service =
            hyper::service::service_fn(move |request: http::Request<lameduck::Body>| async move {
                let response = late(request.uri().path());
                let length = response.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                Ok::<_, Infallible>(match length.filter(|_| is_exact) {
                    Some(length) => response.map(|body| Body::new(Exact(body, length))),
                    None => response,
                })
            });
        let app = App::start(builder().serve_hyper(service));
        for method in ["GET", "POST"] {
            let ask = |path| format!("{method} {path} HTTP/1.1\r\nhost: t\r\n\r\n");
            for path in ["/surplus", "/error", "/one-byte"] {
                let mut client = Client::connect(app.main);
                client.send(format!("{}{}", ask("/"), ask(path)));
                assert_eq!(client.answer().body(), "hello", "before {path}");
                assert_eq!(client.try_answer().unwrap_err(), End::Reset, "{method} {path}");
            }
            let mut client = Client::connect(app.main);
            client.send(format!("{}{}", ask("/nothing"), ask("/")));
            assert_eq!([client.answer().body(), client.answer().body()], ["four", "hello"]);
        }
        let mut client = Client::connect(app.main);
        for path in ["/surplus", "/error"] {
            client.send(format!("HEAD {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
            let head = client.head().unwrap();
            assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
        }
        assert_eq!(client.get("/").body(), "hello");
        let report = app.end();
        assert_eq!(fates(&report), ([13, 6, 0, 0], 0), "{report:?}");
        assert_eq!(report.connections.reset, 6, "{report:?}");
    }
    wait_for_line(&["ERROR", "GET", "/surplus", "longer than its content-length"]);
    wait_for_line(&["ERROR", "POST", "/error", "the upstream broke late"]);
}

// The same with a `content-length` of 0: the head must wait until the end of the body is known.
#[test]
fn a_body_that_goes_on_late_after_a_content_length_of_zero_becomes_a_500() {
    let service = hyper::service::service_fn(async |request: http::Request<lameduck::Body>| {
        Ok::<_, Infallible>(match request.uri().path() {
            "/more" => later(0, "", Some(Ok("more"))),
            _ => later(0, "", None),
        })
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    assert_eq!(client.get("/more").status, 500);
    assert_eq!(client.get("/").body(), "");
    assert_eq!(client.get("/more").status, 500, "the connection goes on");
    let report = app.end();
    assert_eq!(fates(&report), ([1, 2, 0, 0], 0), "{report:?}");
}

/// More than a client's kernel takes before the client reads.
const LARGE: usize = 500_000;

// A body failed when a part of it was sent. The reset of its connection discarded an earlier
// response of the pipeline that was on its way and counted as finished. It must arrive first (P5d).
#[test]
fn responses_before_one_that_is_reset_arrive_complete() {
    let app = app();
    let mut client = Client::connect(app.main);
    client
        .send("GET /large HTTP/1.1\r\nhost: t\r\n\r\nGET /short-later HTTP/1.1\r\nhost: t\r\n\r\n");
    until_holds("the failure", || app.status()["requests"]["aborted"] == 1);
    let large = client.answer();
    assert_eq!((large.status, large.bytes.len()), (200, LARGE));
    assert_eq!(client.head().unwrap().status, 200);
    assert_eq!(client.end(), End::Reset);
    let report = app.end();
    assert_eq!(fates(&report), ([1, 1, 0, 0], 0), "{report:?}");
    assert_eq!(report.connections.reset, 1, "{report:?}");
}

/// Heads that contradict their bodies or themselves: the path of `framed`, then `=`, then values of
/// `content-length` separated by `;`.
const CONTRADICTIONS: [&str; 11] = [
    "/full=3",
    "/full=10",
    "/full=0",
    "/stream=4;5",
    "/stream=4, 5",
    "/stream=four",
    "/stream=+4",
    "/stream=-4",
    "/stream=",
    "/empty=4",
    "/chunked=4",
];

/// Returns the response that the path describes: a body of four bytes, full or streamed, or an
/// empty one.
fn framed(request: &http::Request<lameduck::Body>) -> Response {
    let (kind, lengths) = request.uri().path().split_once('=').unwrap();
    let body = match kind {
        "/full" => Body::from("four"),
        "/empty" => Body::empty(),
        _ => Body::from_stream(stream::iter([Chunk::Ok("fo"), Chunk::Ok("ur")])),
    };
    let mut response = Response::new(body);
    for length in lengths.split(';') {
        response
            .headers_mut()
            .append(header::CONTENT_LENGTH, length.replace("%20", " ").parse().unwrap());
    }
    if kind == "/chunked" {
        response.headers_mut().insert(header::TRANSFER_ENCODING, "chunked".parse().unwrap());
    }
    response
}

// A handler set a `content-length` of 3 on a body of 4 bytes. Both were sent as they were, and the
// client read the next response from the wrong byte. A contradictory head must become a 500 that is
// logged and counted (P5d).
#[test]
fn a_head_that_contradicts_its_body_or_itself_becomes_a_500_that_is_logged_and_counted() {
    let _ = log();
    let service = hyper::service::service_fn(async |request: http::Request<lameduck::Body>| {
        Ok::<_, Infallible>(framed(&request))
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    let mut http2 = Http2::connect(app.main);
    for path in CONTRADICTIONS {
        let path = path.replace(' ', "%20");
        for head in ["", "x: y\r\n", "expect: 100-continue\r\ncontent-length: 0\r\n"] {
            client.send(format!("GET {path} HTTP/1.1\r\nhost: t\r\n{head}\r\n"));
            let response = client.answer();
            assert_eq!(
                (response.status, response.body().as_str()),
                (500, "internal server error\n"),
                "{path}"
            );
            assert!(response.header("date").is_some(), "{response:?}");
        }
        let stream = http2.get(&path);
        assert_eq!(http2.body(stream), "internal server error\n", "{path}");
        wait_for_line(&["ERROR", "invalid response; the client gets a 500", "GET", &path]);
    }
    for path in ["/full=4", "/full=4;4", "/stream=4", "/stream=4,%204", "/stream=004"] {
        assert_eq!(client.get(path).body(), "four", "{path}");
        let stream = http2.get(path);
        assert_eq!(http2.body(stream), "four", "{path}");
    }
    // In a response to HEAD, the length describes a body that is not sent.
    client.send("HEAD /empty=4 HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(client.head().unwrap().header("content-length"), Some("4"));
    client.send("HEAD /full=10 HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(client.head().unwrap().header("content-length"), Some("10"));
    client.send("HEAD /full=4;5 HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 500);
    assert_eq!(client.get("/full=4").body(), "four", "and the next response is in step");
    let report = app.end();
    assert_eq!(fates(&report), ([13, 45, 0, 0], 0), "{report:?}");
    assert!(report.aborts.iter().all(|abort| !abort.head_sent && !abort.by_shutdown), "{report:?}");
}

// A handler returned a 1xx. Over HTTP/2 the stream ended without a response; over HTTP/1 it became
// a 500 without a log line. It must become a logged 500 on both.
#[test]
fn a_status_that_is_not_final_becomes_a_500_that_is_logged() {
    let _ = log();
    let service = hyper::service::service_fn(async |request: http::Request<lameduck::Body>| {
        let status = request.uri().path()[1..].parse::<u16>().unwrap();
        Ok::<_, Infallible>(
            http::Response::builder().status(status).body(Body::from("content")).unwrap(),
        )
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    let mut http2 = Http2::connect(app.main);
    for status in [100, 101, 102, 103, 199] {
        for head in ["", "expect: 100-continue\r\n"] {
            client.send(format!("GET /{status} HTTP/1.1\r\nhost: t\r\n{head}\r\n"));
            assert_eq!(client.answer().status, 500, "{status}");
        }
        let stream = http2.get(&format!("/{status}"));
        assert_eq!(http2.body(stream), "internal server error\n", "{status}");
        wait_for_line(&[
            "ERROR",
            "invalid response; the client gets a 500",
            "GET",
            &format!("/{status}"),
            "status",
        ]);
    }
    // A 101 over HTTP/1.0, where an upgrade is ignored (RFC 9110 §7.8).
    let mut old = Client::connect(app.main);
    old.send("GET /101 HTTP/1.0\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n");
    assert_eq!(old.answer().status, 500);
    assert_eq!(client.get("/200").body(), "content");
    let report = app.end();
    assert_eq!(fates(&report), ([17, 0, 0, 0], 0), "{report:?}");
}

// Over HTTP/2, a response to HEAD got `content-length: 0` on 204 and 304, and a 205 kept its
// content. None of them has content, and a length only where HTTP allows one.
#[test]
fn a_status_without_content_has_no_body_and_no_wrong_length() {
    let service = hyper::service::service_fn(async |request: http::Request<lameduck::Body>| {
        let status = request.uri().path()[1..].parse::<u16>().unwrap();
        let body =
            if request.uri().query().is_some() { Body::from("content") } else { Body::empty() };
        // This `date` does not contain the bytes that encode `content-length`.
        let response = http::Response::builder().status(status).header("date", "x");
        let length = if request.uri().query() == Some("length") { Some("7") } else { None };
        Ok::<_, Infallible>(
            length
                .into_iter()
                .fold(response, |response, length| response.header("content-length", length))
                .body(body)
                .unwrap(),
        )
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    let mut http2 = Http2::connect(app.main);
    let mut count = 0;
    for status in [204, 205, 304] {
        for query in ["", "?content", "?length"] {
            for method in ["GET", "HEAD", "POST"] {
                count += 1;
                client.send(format!("{method} /{status}{query} HTTP/1.1\r\nhost: t\r\n\r\n"));
                let head = client.head().unwrap();
                assert_eq!(head.status, status);
                let length = head.header("content-length");
                let says = match (status, method) {
                    (205, "GET" | "POST") => length == Some("0"),
                    (304, _) => length.is_none() || (query == "?length" && length == Some("7")),
                    _ => length.is_none(),
                };
                assert!(says, "{method} {status}{query}: {head:?}");
                assert!(
                    head.header("transfer-encoding").is_none(),
                    "{method} {status}{query}: {head:?}"
                );
            }
            let path = format!("/{status}{query}");
            for stream in [http2.get(&path), http2.ask_head(&path)] {
                count += 1;
                let last = http2.wait_for("the end", |frame| {
                    frame.stream == stream && (frame.ends_stream() || frame.kind == RST_STREAM)
                });
                assert_eq!(last.kind, HEADERS, "{path}: its head ends it: {last:?}");
                // HPACK: `content-length` is entry 28 of the static table, either as a literal with
                // a value or indexed.
                let says = last.payload.windows(2).any(|bytes| bytes == [0x0f, 0x0d])
                    || last.payload.contains(&0x5c);
                assert_eq!(says, status == 304 && query == "?length", "{path}: {last:?}");
            }
        }
    }
    assert_eq!(client.get("/200?content").body(), "content", "and the next response is in step");
    let report = app.end();
    assert_eq!(fates(&report), ([count + 1, 0, 0, 0], 0), "{report:?}");
}

// A proxy returned the response of its client library, with version 0.9 or 3. hyper panicked, and
// the request was counted as gone. The version must be that of the connection.
#[test]
fn the_version_of_a_response_is_that_of_its_connection() {
    let service = hyper::service::service_fn(async |request: http::Request<lameduck::Body>| {
        let version = match request.uri().path() {
            "/0.9" => http::Version::HTTP_09,
            "/1.0" => http::Version::HTTP_10,
            "/2" => http::Version::HTTP_2,
            _ => http::Version::HTTP_3,
        };
        let body = Body::from_stream(stream::iter([Chunk::Ok("all "), Chunk::Ok("of it")]));
        let body = if request.uri().query().is_some() { body } else { Body::from("all of it") };
        Ok::<_, Infallible>(http::Response::builder().version(version).body(body).unwrap())
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    let mut http2 = Http2::connect(app.main);
    for path in ["/0.9", "/1.0", "/2", "/3"] {
        for path in [path.to_owned(), format!("{path}?stream")] {
            assert_eq!(client.get(&path).body(), "all of it", "{path}, and the connection goes on");
            let stream = http2.get(&path);
            assert_eq!(http2.body(stream), "all of it");
            let mut old = Client::connect(app.main);
            old.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
            old.head().unwrap();
            assert_eq!(
                (old.exactly(9).unwrap().as_slice(), old.end()),
                (&b"all of it"[..], End::Closed),
                "{path}"
            );
        }
    }
    let report = app.end();
    assert_eq!(fates(&report), ([24, 0, 0, 0], 0), "{report:?}");
}

// A 2xx to CONNECT opens a tunnel. A response with `content-length` and content made its client
// read them as bytes of the tunnel. Both must be removed.
#[test]
fn a_success_to_connect_has_neither_length_nor_content() {
    let service = hyper::service::service_fn(async |_: http::Request<lameduck::Body>| {
        Ok::<_, Infallible>(
            http::Response::builder()
                .header("content-length", "7")
                .body(Body::from("content"))
                .unwrap(),
        )
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    client.send("CONNECT t:80 HTTP/1.1\r\nhost: t:80\r\n\r\n");
    let head = client.head().unwrap();
    assert_eq!(
        (head.status, head.header("content-length"), head.header("transfer-encoding")),
        (200, None, None)
    );
    assert_eq!(client.end(), End::Closed, "nobody took the tunnel");
    let report = app.end();
    assert_eq!(fates(&report), ([1, 0, 0, 0], 0), "{report:?}");
}

// Trailers end a body. A body that reports its end only when it is polled again after them was
// counted as gone. It is finished (P5c).
#[test]
fn a_body_that_ends_with_trailers_is_finished() {
    let app = app();
    let mut client = Client::connect(app.main);
    assert_eq!(client.get("/trailers").body(), "all of it");
    let mut http2 = Http2::connect(app.main);
    let stream = http2.get("/trailers");
    assert_eq!(http2.body(stream), "all of it");
    let report = app.end();
    assert_eq!(fates(&report), ([2, 0, 0, 0], 0), "{report:?}");
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
    assert_eq!(fates(&report), ([0, 2, 0, 0], 0), "{report:?}");
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
    assert_eq!(fates(&report).1, 3, "{report:?}");
    assert!(report.aborts.iter().all(|abort| abort.by_shutdown), "{report:?}");
}

#[test]
fn a_response_to_head_has_no_body_even_if_the_service_returns_one() {
    // Over HTTP/2 hyper sent the body. The client reset the stream or the whole connection, and the
    // request was counted as finished. A response to HEAD has no body.
    let service = hyper::service::service_fn(|request: http::Request<lameduck::Body>| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        Ok::<_, Infallible>(http::Response::new(http_body_util::Full::from("eleven long")))
    });
    let app = App::start(
        Host::builder(settings().request_timeout(Some(std::time::Duration::from_millis(100))))
            .serve_hyper(service),
    );
    let mut http2 = Http2::connect(app.main);
    for path in ["/", "/never"] {
        let stream = http2.ask_head(path);
        let last = http2.wait_for("the end", |frame| {
            frame.stream == stream && (frame.ends_stream() || frame.kind == RST_STREAM)
        });
        assert_eq!(
            (last.kind, last.payload.is_empty()),
            (HEADERS, false),
            "{path}: its head ends it: {last:?}"
        );
    }
    let stream = http2.get("/");
    assert_eq!(http2.body(stream), "eleven long");
    let mut http1 = Client::connect(app.main);
    http1.send("HEAD / HTTP/1.1\r\nhost: t\r\n\r\n");
    let head = http1.head().unwrap();
    assert_eq!(head.header("content-length"), Some("11"), "{head:?}");
    assert_eq!(http1.get("/").body(), "eleven long", "and the next answer is where it belongs");
    let report = app.end();
    assert_eq!((report.requests.finished, report.requests.timed_out), (4, 1), "{report:?}");
}

// Work that a handler had spawned panicked after the response, and the log had no line. It must be
// logged with its request (P13).
#[test]
fn tracked_work_that_panics_is_logged_with_its_request() {
    let app = app();
    assert_eq!(app.get("/spawns?secret=x").status, 200);
    wait_for_line(&[
        "ERROR",
        "tracked work panicked",
        "work=GET /spawns phase",
        "after the response, on purpose",
    ]);
    assert_eq!(app.end().code(), 1);
}
