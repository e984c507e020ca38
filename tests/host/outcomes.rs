//! P5c: the observer of outcomes sees each request once, with what the counters have.

use crate::support::{
    App, Client, MAX_WAIT,
    app::Workers,
    frames::{END_HEADERS, END_STREAM, HEADERS, Http2},
    quick_plan, settings, until, until_holds,
};
use axum::{
    Router,
    body::Body,
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use http::{HeaderName, StatusCode, header};
use lameduck::{BackgroundTask, Hook, Host, ReadinessCheck, RequestOutcome, lifecycle::Phase};
use lameduck_wire::http2::request_block;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

/// What the observer was called with: outcome, method, path, status, bytes of the body.
type Seen = (RequestOutcome, String, String, Option<u16>, u64);

fn start(workers: Workers) -> (App, impl Fn() -> Vec<Seen>) {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let written = seen.clone();
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/upload", post(|body: String| async move { body }))
        .route("/large", get(|| async { vec![b'x'; 100_000] }))
        .route("/late", get(late))
        .route("/slow", get(|| crate::support::pause(60_000)))
        .route("/panic", get(async || -> &'static str { panic!("on purpose") }));
    let plan = quick_plan().drain(Duration::from_millis(300));
    let settings = settings().plan(plan).request_timeout(Some(Duration::from_secs(30)));
    let host = Host::builder(settings)
        .on_outcome(move |request| {
            assert!(request.duration < Duration::from_secs(30), "{request:?}");
            written.lock().unwrap_or_else(PoisonError::into_inner).push((
                request.outcome,
                request.method.to_string(),
                request.path.to_owned(),
                request.status.map(|status| status.as_u16()),
                request.body_bytes,
            ));
            assert_ne!(request.path, "/large", "a panic in the observer harms nothing");
        })
        .serve(router);
    let of = move || {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        seen.sort_by(|one, other| (&one.2, one.4).cmp(&(&other.2, other.4)));
        seen
    };
    (App::start_on(host, workers), of)
}

/// Ends its body some time after the last promised byte.
async fn late() -> ([(HeaderName, &'static str); 1], Body) {
    let end = stream::once(crate::support::pause(50)).filter_map(async |_| None);
    let parts = stream::iter([Ok::<_, Infallible>("hello")]).chain(end);
    ([(header::CONTENT_LENGTH, "5")], Body::from_stream(parts))
}

fn row(outcome: RequestOutcome, method: &str, path: &str, status: Option<u16>, bytes: u64) -> Seen {
    (outcome, method.to_owned(), path.to_owned(), status, bytes)
}

#[test]
fn each_request_is_seen_once_with_its_outcome_status_and_bytes() {
    use RequestOutcome::{Aborted, Finished, Gone};
    for workers in [Workers::Task, Workers::Threads(1)] {
        let (app, seen) = start(workers);
        let mut client = Client::connect(app.main);
        assert_eq!(client.get("/?secret=1").body(), "hello", "without hyper");
        client.send("POST /upload HTTP/1.1\r\nhost: t\r\ncontent-length: 3\r\n\r\nabc");
        assert_eq!(client.answer().body(), "abc", "by hyper");
        assert_eq!(client.get("/large").bytes.len(), 100_000);
        // The last byte is held back until the end is known, and was counted twice.
        assert_eq!(client.get("/late").body(), "hello");
        assert_eq!(client.get("/panic").status, 500);
        let mut leaving = Client::connect(app.main);
        leaving.send_get("/slow?of=one+that+leaves");
        until_holds("in flight", || app.status()["in_flight"] == 1);
        leaving.reset();
        until("its outcome", || (seen().len() == 6).then_some(()));
        let mut cut = Client::connect(app.main);
        cut.send_get("/slow");
        until_holds("in flight", || app.status()["in_flight"] == 1);
        let report = app.end();
        let expected = [
            row(Finished, "GET", "/", Some(200), 5),
            row(Finished, "GET", "/large", Some(200), 100_000),
            row(Finished, "GET", "/late", Some(200), 5),
            row(Finished, "GET", "/panic", Some(500), 22),
            row(Gone, "GET", "/slow", None, 0),
            row(Aborted, "GET", "/slow", Some(503), 0),
            row(Finished, "POST", "/upload", Some(200), 3),
        ];
        assert_eq!(seen(), expected, "{workers:?}");
        assert_eq!(report.requests.started, expected.len() as u64);
    }
}

#[test]
fn a_request_whose_deadline_expires_is_seen_as_timed_out() {
    let seen: Arc<Mutex<Vec<_>>> = Arc::default();
    let written = seen.clone();
    let timeout = Some(Duration::from_millis(50));
    let host = Host::builder(settings().request_timeout(timeout))
        .on_outcome(move |request| {
            let status = request.status.map(|status| status.as_u16());
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            written.push((request.outcome, status));
        })
        .serve(Router::new().route("/slow", get(|| crate::support::pause(60_000))));
    let app = App::start(host);
    assert_eq!(app.get("/slow").status, 503);
    assert_eq!(app.end().requests.timed_out, 1);
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(*seen, [(RequestOutcome::TimedOut, Some(503))]);
}

#[test]
fn calls_upgrades_and_refused_requests_are_seen_with_protocol_and_phase() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let written = seen.clone();
    let upgrade = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "echo")];
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/call", post(|| crate::support::pause(60_000)))
        .route("/upgrade", get(move || async move { (StatusCode::SWITCHING_PROTOCOLS, upgrade) }));
    let host = Host::builder(settings().plan(quick_plan().drain(Duration::from_millis(300))))
        .on_outcome(move |request| {
            let (outcome, phase) = (request.outcome.name(), request.phase);
            let status = request.status.map_or(0, |status| status.as_u16());
            let phase = if phase == Phase::Serving { "serving" } else { "stopping" };
            written.lock().unwrap_or_else(PoisonError::into_inner).push(format!(
                "{} {} {:?} {status} {outcome} {phase}",
                request.method, request.path, request.version
            ));
        })
        .serve(router);
    let app = App::start(host);
    let mut http2 = Http2::connect(app.main);
    let stream = http2.get("/");
    assert_eq!(http2.body(stream), "hello");
    let call = |http2: &mut Http2, stream: u32, timeout: &str| {
        let mut block = request_block("POST", "localhost", "/call");
        for (name, value) in [("content-type", "application/grpc"), ("grpc-timeout", timeout)] {
            // RFC 7541 §6.2.2: a literal without indexing, with a new name.
            block.extend([0, u8::try_from(name.len()).unwrap()]);
            block.extend(name.as_bytes());
            block.push(u8::try_from(value.len()).unwrap());
            block.extend(value.as_bytes());
        }
        http2.send(HEADERS, END_HEADERS | END_STREAM, stream, &block);
    };
    call(&mut http2, stream + 2, "50m");
    http2.wait_for("the end of a call", |frame| frame.stream == stream + 2);
    let mut refused = Client::connect(app.main);
    refused.send("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    assert_eq!(refused.answer().status, 400);
    let mut garbage = Client::connect(app.main);
    garbage.send("GARBAGE\r\n\r\n");
    assert_eq!(garbage.answer().status, 400, "it is no request");
    let mut upgraded = Client::connect(app.main);
    upgraded
        .send("GET /upgrade HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    assert_eq!(upgraded.head().unwrap().status, 101);
    call(&mut http2, stream + 4, "50S");
    until_holds("the call", || app.status()["in_flight"] == 1);
    let started = app.end().requests.started;
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    seen.sort();
    assert_eq!(
        seen,
        [
            "GET / HTTP/1.1 400 finished serving",
            "GET / HTTP/2.0 200 finished serving",
            "GET /upgrade HTTP/1.1 101 finished serving",
            "POST /call HTTP/2.0 200 aborted stopping",
            "POST /call HTTP/2.0 200 timed_out serving",
        ]
    );
    assert_eq!(started, 5);
}

/// What a closure holds, whose destructor panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor, on purpose");
    }
}

// The observer of outcomes held a runtime, whose destructor panics where the host dropped it, after
// the report. The process exited with 101 (P13).
#[test]
fn what_a_closure_of_the_app_holds_does_not_replace_the_report() {
    let with_bombs = || {
        let (observer, check, route, task) = (Bomb, Bomb, Bomb, Bomb);
        let ok = || std::future::ready(Ok::<_, Infallible>(()));
        let check = ReadinessCheck::new("bomb", move || {
            let _held = &check;
            ok()
        });
        Host::builder(settings())
            .on_outcome(move |_| {
                let _held = &observer;
            })
            .readiness_check(check)
            .internal_route("/bomb", move |_| {
                let _held = &route;
                std::future::ready(http::Response::new(""))
            })
            .background_task(BackgroundTask::new("bomb", move |_| {
                std::mem::forget(task);
                ok()
            }))
    };
    let app = App::start(with_bombs().serve(Router::new()));
    assert_eq!(app.get("/").status, 404);
    assert_eq!(app.end().code(), 0);
    let broken = Hook::on_start("broken", || std::future::ready(Err(std::io::Error::other("no"))));
    let report = App::spawn(with_bombs().hook(broken).serve(Router::new()), Workers::Task).report();
    assert_eq!(report.code(), 1, "{report:?}");
}

// An observer that blocked held the name of its request. The probes and the driver waited for that
// name: no liveness had a response, and no signal had an effect (P3, P7, P16).
#[test]
fn an_observer_that_blocks_blocks_no_probe() {
    let (release, blocks) = mpsc::channel::<()>();
    let (entered, has_entered) = mpsc::channel();
    let blocks = Mutex::new(blocks);
    let router = Router::new().route("/slow", get(|| crate::support::pause(20)));
    let host = Host::builder(settings().plan(quick_plan()))
        .on_outcome(move |_| {
            let _ = entered.send(());
            let _ = blocks.lock().unwrap().recv();
        })
        .serve(router);
    let app = App::start_on(host, Workers::Threads(1));
    let mut client = Client::connect(app.main);
    client.send("GET /slow HTTP/1.1\r\nhost: t\r\n\r\n");
    has_entered.recv_timeout(MAX_WAIT).unwrap();
    for path in ["/status", "/liveness"] {
        assert_eq!(app.probe(path).status, 200, "{path}");
    }
    drop(release);
    assert_eq!(app.end().code(), 0);
}
