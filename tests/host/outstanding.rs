//! P13: while a shutdown waits, the log, the status and the metrics name what it waits for.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    App, Client,
    frames::{Http2, SETTINGS},
    quick_plan, settings, until,
};
use axum::{Extension, Router, routing::get};
use lameduck::{BackgroundTask, Host, RequestContext, lifecycle::Plan};
use serde_json::Value;
use std::{io, time::Duration};

/// A plan whose drain outlasts the test.
fn long_drain() -> Plan {
    quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_secs(60))
}

async fn never() -> &'static str {
    std::future::pending().await
}

/// A response whose second chunk never arrives.
async fn stream() -> axum::response::Response {
    let first = futures_util::stream::iter([Ok::<_, io::Error>("first")]);
    let pieces = futures_util::StreamExt::chain(first, futures_util::stream::pending());
    axum::response::Response::new(axum::body::Body::from_stream(pieces))
}

async fn work(Extension(context): Extension<RequestContext>) -> &'static str {
    context.spawn(std::future::pending());
    "begun"
}

/// Returns what a stop waits for, by `/status`, as kind and name.
fn named(status: &Value) -> Vec<String> {
    let oldest = status["waiting_for"]["oldest"].as_array().unwrap();
    let mut named: Vec<String> = oldest
        .iter()
        .map(|waited| {
            format!("{} {}", waited["kind"].as_str().unwrap(), waited["name"].as_str().unwrap())
        })
        .collect();
    named.sort();
    named
}

#[test]
fn a_drain_names_the_requests_streams_work_and_tasks_that_it_waits_for() {
    // An operator saw `in_flight: 0` in the status, and nothing in the metrics, while tracked work
    // or a background task delayed the drain. Both must name what the drain waits for (P13).
    let router = Router::new()
        .route("/never", get(never))
        .route("/stream", get(stream))
        .route("/work", get(work))
        .route("/quick", get(|| async { "" }));
    let task = |_| std::future::pending::<Result<(), io::Error>>();
    let builder = Host::builder(
        settings().plan(long_drain()).grace_period(Duration::ZERO).request_timeout(None),
    );
    let app =
        App::start(builder.background_task(BackgroundTask::new("consumer", task)).serve(router));
    let mut clients: Vec<Client> = ["/never", "/stream"].map(|_| Client::connect(app.main)).into();
    clients[0].send_get("/never?secret=1");
    clients[1].send_get("/stream");
    clients[1].head().unwrap();
    assert_eq!(app.get("/work").body(), "begun");
    for _ in 0..20 {
        assert_eq!(app.get("/quick").status, 200);
    }
    app.stop();
    app.wait_for_phase("draining");
    let all = ["request GET /never", "stream GET /stream", "task task consumer", "work GET /work"];
    // A client has its response a moment before the host counts the request as finished.
    let is_all = |status: &Value| named(status) == all && status["waiting_for"]["total"] == 4;
    let status = until("all four, and no more", || Some(app.status()).filter(is_all));
    let by_kind = &status["waiting_for"]["by_kind"];
    for (kind, count) in [("request", 1), ("stream", 1), ("work", 1), ("task", 1), ("upgrade", 0)] {
        assert_eq!(by_kind[kind], count, "{status}");
    }
    #[cfg(feature = "metrics")]
    {
        let page = app.probe("/metrics").body();
        for kind in ["request", "stream", "work", "task"] {
            let line = format!("lameduck_waiting_for{{kind=\"{kind}\"}} 1");
            assert!(page.contains(&line), "no {line} in {page}");
        }
        assert!(
            page.contains("lameduck_background_task_running_seconds{task=\"consumer\"}"),
            "{page}"
        );
        assert!(!page.contains("/never"), "the paths of clients are no labels");
    }
    // A second interrupt ends the drain.
    app.signal(lameduck::lifecycle::Signal::Interrupt);
    app.signal(lameduck::lifecycle::Signal::Interrupt);
    let report = app.report();
    assert_eq!(
        (report.code(), report.work_dropped, report.requests.aborted),
        (3, 2, 2),
        "{report:?}"
    );
}

#[test]
fn a_response_that_its_client_does_not_read_is_named() {
    let large = || async { vec![b'x'; 64 << 20] };
    let app = App::start(
        Host::builder(settings().grace_period(Duration::ZERO))
            .serve(Router::new().route("/large", get(large))),
    );
    let mut http1 = Client::connect(app.main);
    http1.send_get("/large");
    until("its name", || (named(&app.status()) == ["stream GET /large"]).then_some(()));
    drop(http1);
    until("its end", || named(&app.status()).is_empty().then_some(()));
    assert_eq!(app.end().requests.gone, 1);
}

// A stop that waited for the host's own 500 did not name its request, if an HTTP/2 client had not
// opened the window (P13).
#[test]
fn a_500_that_waits_for_a_window_is_named() {
    async fn panics() {
        panic!("on purpose");
    }
    let router = Router::new().route("/panic", get(panics));
    let app = App::start(Host::builder(settings()).serve(router));
    let mut http2 = Http2::connect(app.main);
    // SETTINGS_INITIAL_WINDOW_SIZE.
    http2.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let stream = http2.get("/panic");
    http2.wait_for("a head", |frame| frame.stream == stream);
    until("its name", || (named(&app.status()) == ["stream GET /panic"]).then_some(()));
    drop(http2);
    assert_eq!(app.end().requests.panicked, 1);
}

#[test]
fn the_waiting_for_list_is_bounded_in_number_and_in_length() {
    let router = Router::new().fallback(work);
    let app = App::start(
        Host::builder(settings().plan(long_drain()).grace_period(Duration::ZERO)).serve(router),
    );
    let long = "x".repeat(5_000);
    for n in 0..30 {
        assert_eq!(app.get(&format!("/{n}/{long}")).status, 200);
    }
    // The client has its response before the server has counted the request.
    let waiting_for = until("the end of the requests", || {
        Some(app.status()["waiting_for"].clone())
            .filter(|waiting_for| waiting_for["by_kind"]["request"] == 0)
    });
    let oldest = waiting_for["oldest"].as_array().unwrap();
    assert_eq!(
        (waiting_for["total"].as_u64(), oldest.len()),
        (Some(30), 10),
        "the oldest by name, all by number"
    );
    assert!(oldest[0]["name"].as_str().unwrap().starts_with("GET /0/xxx"), "{waiting_for}");
    assert!(waiting_for.to_string().len() < 3_000, "{waiting_for}");
    app.stop();
    app.wait_for_phase("draining");
    app.signal(lameduck::lifecycle::Signal::Interrupt);
    app.signal(lameduck::lifecycle::Signal::Interrupt);
    assert_eq!(app.report().work_dropped, 30);
}
