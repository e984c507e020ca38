//! P5d, P9, P15: a gRPC client learns in terms of gRPC why its call failed, in each phase.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    App, MAX_WAIT,
    frames::{DATA, END_HEADERS, END_STREAM, HEADERS, Http2, RST_STREAM, SETTINGS},
    pause, quick_plan, settings, until_holds,
};
use axum::{
    Router,
    body::{Body, Bytes},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::{Stream, StreamExt, stream};
use http::{HeaderMap, HeaderValue, Request, header};
use http_body::Frame;
use http_body_util::StreamBody;
use lameduck::{CancelCause, Host, Report, RequestContext, Settings, StreamShutdown};
use lameduck_wire::http2::request_block;
use std::{
    convert::Infallible,
    future::pending,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

/// The result of a call, as its client sees it.
#[derive(Debug, Default)]
struct Call {
    /// The response head; `None` if the stream or the connection ended before it.
    head: Option<HeaderMap>,
    status: u16,
    /// Whether the head ended the stream.
    only_head: bool,
    data: usize,
    trailers: Option<HeaderMap>,
    /// The error code of a reset, or another error as text.
    reset: Option<String>,
}

impl Call {
    /// The status and the message of gRPC in the trailers, or in a response of only trailers.
    fn grpc(&self) -> (&str, &str) {
        let fields = if self.only_head { self.head.as_ref() } else { self.trailers.as_ref() };
        let of = |name: &str| {
            let value = fields.and_then(|fields| fields.get(name));
            value.map_or("", |value| value.to_str().expect("it is ASCII"))
        };
        (of("grpc-status"), of("grpc-message"))
    }

    #[track_caller]
    fn is_only_trailers(&self, status: &str, message: &str) {
        assert!(self.only_head && self.status == 200, "{self:?}");
        let head = self.head.as_ref().expect("it has a head");
        assert_eq!(head[header::CONTENT_TYPE], "application/grpc", "{self:?}");
        assert!(head.contains_key(header::DATE), "{self:?}");
        assert_eq!(self.grpc().0, status, "{self:?}");
        assert!(self.grpc().1.contains(message), "{self:?}");
    }

    #[track_caller]
    fn ends_with_trailers(&self, status: &str, message: &str) {
        assert!(!self.only_head && self.status == 200 && self.data > 0, "{self:?}");
        assert_eq!(self.grpc().0, status, "{self:?}");
        assert!(self.grpc().1.contains(message), "{self:?}");
        assert_eq!(self.reset, None, "{self:?}");
    }
}

/// Runs calls on one connection, all at once, in a new thread.
#[expect(clippy::disallowed_methods, reason = "these tests live in real time")]
fn calls(main: SocketAddr, calls: &'static [(&str, &[(&str, &str)])]) -> Calls {
    let (began, begun) = std::sync::mpsc::channel();
    let results = crate::support::aside(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let io = tokio::net::TcpStream::connect(main).await.unwrap();
            let (client, connection) = h2::client::handshake(io).await.unwrap();
            let mut connections = tokio::task::JoinSet::new();
            connections.spawn(connection);
            let all = calls.iter().map(|(path, fields)| call(client.clone(), path, fields));
            began.send(()).unwrap();
            tokio::time::timeout(MAX_WAIT, futures_util::future::join_all(all))
                .await
                .expect("every call ends")
        })
    });
    begun.recv().unwrap();
    Calls(results)
}

struct Calls(std::thread::JoinHandle<Vec<Call>>);

impl Calls {
    #[track_caller]
    fn ended(self) -> Vec<Call> {
        self.0.join().expect("the calls end")
    }
}

async fn call(client: h2::client::SendRequest<Bytes>, path: &str, fields: &[(&str, &str)]) -> Call {
    let mut client = client.ready().await.unwrap();
    let mut request = Request::post(format!("http://localhost{path}"));
    if !fields.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc+proto");
    }
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    // An empty message: not compressed, no bytes.
    body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    let mut call = Call::default();
    let reset = |error: h2::Error| match error.reason() {
        Some(reason) => format!("{reason:?}"),
        None => error.to_string(),
    };
    let response = match response.await {
        Ok(response) => response,
        Err(error) => return Call { reset: Some(reset(error)), ..call },
    };
    let (head, mut body) = response.into_parts();
    (call.status, call.head, call.only_head) =
        (head.status.as_u16(), Some(head.headers), body.is_end_stream());
    while let Some(data) = body.data().await {
        match data {
            Ok(data) => {
                call.data += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            Err(error) => return Call { reset: Some(reset(error)), ..call },
        }
    }
    match body.trailers().await {
        Ok(trailers) => call.trailers = trailers,
        Err(error) => call.reset = Some(reset(error)),
    }
    call
}

fn message() -> Bytes {
    Bytes::from_static(&[0; 5])
}

fn grpc(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/grpc")], body).into_response()
}

/// One message, then what `rest` yields.
fn first_then(rest: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Response {
    let first = stream::once(async { Ok::<_, io::Error>(message()) });
    grpc(Body::from_stream(first.chain(rest)))
}

/// A message every 20 ms, without end.
fn endless() -> Response {
    grpc(Body::from_stream(stream::unfold((), |()| async {
        pause(20).await;
        Some((Ok::<_, Infallible>(message()), ()))
    })))
}

fn router() -> Router {
    let unary = || async {
        let trailers = HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]);
        let frames = [Frame::data(message()), Frame::trailers(trailers)];
        grpc(Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>)))))
    };
    let no_deadline = |context: RequestContext| async move {
        context.set_timeout(None);
        pending::<Response>().await
    };
    let at_draining = || async {
        let mut response = endless();
        response.extensions_mut().insert(StreamShutdown::EndAtDraining);
        response
    };
    let short = || async {
        let mut response = grpc(Body::from("abc"));
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("4"));
        response
    };
    let panics = || async {
        first_then(stream::once(async {
            pause(20).await;
            panic!("in the body")
        }))
    };
    let fails = || async {
        first_then(stream::once(async {
            pause(20).await;
            Err(io::Error::other("a secret of the service"))
        }))
    };
    let flood = || async {
        grpc(Body::from_stream(stream::repeat_with(|| {
            Ok::<_, Infallible>(Bytes::from(vec![0; 1024]))
        })))
    };
    Router::new()
        .route("/unary", post(unary))
        .route("/stuck", post(pending::<Response>))
        .route("/no-deadline", post(no_deadline))
        .route("/endless", post(|| async { endless() }))
        .route("/silent", post(|| async { first_then(stream::pending()) }))
        .route("/at-draining", post(at_draining))
        .route("/panic", post(|| async { panic!("before the head") as Response }))
        .route("/panic-in-body", post(panics))
        .route("/failed-body", post(fails))
        .route("/short", post(short))
        .route("/flood", post(flood))
}

fn start(settings: Settings) -> App {
    App::start(Host::builder(settings).serve(router()))
}

/// Settings whose drain lasts 300 ms, without a deadline of requests.
fn short_drain() -> Settings {
    let plan = quick_plan().drain(Duration::from_millis(300));
    settings().plan(plan).request_timeout(None)
}

fn wait_for_in_flight(app: &App, count: u64) {
    until_holds("the calls are in flight", || app.status()["in_flight"] == count);
}

/// Returns the counts of finished, timed out, aborted and gone requests.
fn outcomes(report: &Report) -> [u64; 4] {
    let requests = &report.requests;
    [requests.finished, requests.timed_out, requests.aborted, requests.gone]
}

#[test]
fn the_hosts_deadline_is_deadline_exceeded() {
    let app = start(settings().request_timeout(Some(Duration::from_millis(200))));
    // A longer timeout of the client, and one that is not valid, leave the host's as it is.
    let ended = calls(
        app.main,
        &[
            ("/stuck", &[]),
            ("/stuck", &[("grpc-timeout", "1H")]),
            ("/stuck", &[("grpc-timeout", "1 fortnight")]),
        ],
    )
    .ended();
    for call in ended {
        call.is_only_trailers("4", "no response within its deadline of 200ms");
    }
    assert_eq!(outcomes(&app.end()), [0, 3, 0, 0]);
}

#[test]
fn a_grpc_timeout_covers_the_whole_call() {
    let app = start(settings());
    let timeout: &[_] = &[("grpc-timeout", "200m")];
    let ended = calls(
        app.main,
        Box::leak(Box::new([
            ("/stuck", timeout),
            ("/no-deadline", timeout),
            ("/endless", timeout),
            ("/silent", timeout),
            ("/unary", &[("grpc-timeout", "10S")]),
        ])),
    )
    .ended();
    ended[0].is_only_trailers("4", "no response within its deadline of 200ms");
    ended[1].is_only_trailers("4", "no response within its deadline of 200ms");
    ended[2].ends_with_trailers("4", "deadline");
    ended[3].ends_with_trailers("4", "deadline");
    ended[4].ends_with_trailers("0", "");
    assert_eq!(outcomes(&app.end()), [1, 4, 0, 0]);
}

#[test]
fn a_call_is_served_in_the_lame_duck() {
    let app = start(settings().plan(quick_plan().lame_duck(Duration::from_secs(2))));
    app.stop();
    app.wait_for_phase("lame_duck");
    let ended = calls(app.main, &[("/unary", &[])]).ended();
    ended[0].ends_with_trailers("0", "");
    let report = app.report();
    assert_eq!((report.code(), outcomes(&report)), (0, [1, 0, 0, 0]));
}

#[test]
fn what_the_shutdown_cuts_is_unavailable_before_and_after_the_head() {
    let app = start(short_drain());
    let running = calls(
        app.main,
        &[
            ("/stuck", &[]),
            ("/endless", &[]),
            ("/silent", &[]),
            ("/stuck", &[("grpc-timeout", "1H")]),
        ],
    );
    wait_for_in_flight(&app, 4);
    app.stop();
    let ended = running.ended();
    ended[0].is_only_trailers("14", "the service is shutting down");
    ended[1].ends_with_trailers("14", "cut by the shutdown");
    ended[2].ends_with_trailers("14", "cut by the shutdown");
    ended[3].is_only_trailers("14", "the service is shutting down");
    let report = app.report();
    assert_eq!((report.code(), outcomes(&report)), (3, [0, 0, 4, 0]));
    assert_eq!(report.aborts.iter().filter(|abort| abort.head_sent).count(), 2);
}

#[test]
fn a_stream_that_ends_at_draining_is_unavailable_and_its_request_is_finished() {
    let app = start(short_drain());
    let running = calls(app.main, &[("/at-draining", &[])]);
    wait_for_in_flight(&app, 1);
    app.stop();
    running.ended()[0].ends_with_trailers("14", "the service is shutting down");
    let report = app.report();
    assert_eq!((report.code(), outcomes(&report)), (0, [1, 0, 0, 0]));
}

#[test]
fn a_panic_and_a_response_that_contradicts_itself_are_internal_errors() {
    let app = start(settings());
    let ended = calls(
        app.main,
        &[("/panic", &[]), ("/panic-in-body", &[]), ("/failed-body", &[]), ("/short", &[])],
    )
    .ended();
    ended[0].is_only_trailers("13", "internal server error");
    ended[1].ends_with_trailers("13", "panicked");
    ended[2].ends_with_trailers("13", "the response body failed");
    assert!(!ended[2].grpc().1.contains("secret"), "{:?}", ended[2]);
    ended[3].is_only_trailers("13", "internal server error");
    assert_eq!(outcomes(&app.end()), [1, 0, 3, 0]);
}

#[test]
fn a_refusal_by_the_host_is_told_as_a_status() {
    let app = start(settings().limits(lameduck::Limits::default().headers_max(4)));
    let ended = calls(
        app.main,
        &[
            ("/unary", &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")]),
            ("/unary", &[("host", "elsewhere")]),
        ],
    )
    .ended();
    ended[0].is_only_trailers("8", "above the limit of 4");
    ended[1].is_only_trailers("13", "bad request");
    assert_eq!(app.end().code(), 0);
}

#[test]
fn other_requests_are_not_told_in_terms_of_grpc() {
    let app = start(settings().request_timeout(Some(Duration::from_millis(200))));
    let ended = calls(
        app.main,
        &[
            ("/stuck", &[("content-type", "application/grpc-web+proto")]),
            ("/stuck", &[("content-type", "application/json"), ("grpc-timeout", "1m")]),
            ("/panic", &[("content-type", "application/json")]),
        ],
    )
    .ended();
    assert_eq!(ended.iter().map(|call| call.status).collect::<Vec<_>>(), [503, 503, 500]);
    for call in &ended {
        assert!(
            !call.head.as_ref().is_some_and(|head| head.contains_key("grpc-status")),
            "{call:?}"
        );
    }
    assert_eq!(app.end().code(), 0);
}

/// Sends a call whose response may have no byte of data.
fn windowless(app: &App, path: &str, timeout: &str) -> Http2 {
    let mut client = Http2::connect(app.main);
    // RFC 9113 §6.5.2: SETTINGS_INITIAL_WINDOW_SIZE is 4.
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let mut block = request_block("POST", "localhost", path);
    let fields = [("content-type", "application/grpc"), ("grpc-timeout", timeout)];
    for text in fields.iter().filter(|(_, value)| !value.is_empty()) {
        // RFC 7541 §6.2.2: a literal without indexing, with a new name.
        block.push(0);
        for text in [text.0, text.1] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    client.send(HEADERS, END_STREAM | END_HEADERS, 1, &block);
    client
}

/// Returns the error code of the reset that ends the call.
#[track_caller]
fn reset_code(client: &mut Http2) -> u8 {
    let reset = client.wait_for("the reset", |frame| frame.kind == RST_STREAM);
    assert!(!client.seen.iter().any(|frame| frame.kind == DATA || frame.ends_stream()));
    reset.payload[3]
}

/// RFC 9113 §7.
const CANCEL: u8 = 8;

#[test]
fn where_trailers_would_wait_for_the_client_the_stream_is_reset() {
    let app = start(short_drain());
    let mut cut = windowless(&app, "/flood", "");
    let mut expired = windowless(&app, "/flood", "300m");
    assert_eq!(reset_code(&mut expired), CANCEL, "at the deadline of the call");
    wait_for_in_flight(&app, 1);
    app.stop();
    assert_eq!(reset_code(&mut cut), CANCEL, "at the abort");
    let report = app.report();
    assert_eq!((report.code(), outcomes(&report)), (3, [0, 1, 1, 0]));
}

// At the deadline of a call its response body was dropped, and its context cancelled after that, or
// never by that cause. What the body held could not tell why it was dropped (P9).
#[test]
fn a_body_is_dropped_after_the_context_of_its_call_was_cancelled() {
    struct Asks(RequestContext, Arc<Mutex<Vec<Option<CancelCause>>>>);
    impl Drop for Asks {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0.cancel_cause());
        }
    }
    let causes = Arc::<Mutex<Vec<_>>>::default();
    let seen = causes.clone();
    let asks = async move |context: RequestContext| {
        let asks = Asks(context, seen);
        first_then(stream::pending().map(move |item| {
            let _ = &asks;
            item
        }))
    };
    let app = App::start(Host::builder(settings()).serve(Router::new().route("/", post(asks))));
    let ended = calls(app.main, &[("/", &[("grpc-timeout", "200m")])]).ended();
    ended[0].ends_with_trailers("4", "deadline");
    let mut expired = windowless(&app, "/", "200m");
    assert_eq!(reset_code(&mut expired), CANCEL);
    let _ = app.end();
    assert_eq!(*causes.lock().unwrap(), [Some(CancelCause::Deadline); 2]);
}
