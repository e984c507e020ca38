//! P13: while a shutdown waits, the log, the status and the metrics name what it waits for.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

mod support;

use axum::{Extension, Router, routing::get};
use lameduck::{RequestContext, lifecycle::Plan};
use rustix::process::Signal;
use serde_json::Value;
use std::{io, time::Duration};
use support::{App, Client, Service, builder, quick_plan, until};

/// A plan whose drain outlasts every look.
fn long_drain() -> Plan {
    Plan { lame_duck: Duration::ZERO, drain: Duration::from_secs(60), ..quick_plan() }
}

async fn never() -> &'static str {
    std::future::pending().await
}

/// A response whose second piece never comes.
async fn stream() -> axum::response::Response {
    let first = futures_util::stream::iter([Ok::<_, io::Error>("first")]);
    let pieces = futures_util::StreamExt::chain(first, futures_util::stream::pending());
    axum::response::Response::new(axum::body::Body::from_stream(pieces))
}

async fn work(Extension(context): Extension<RequestContext>) -> &'static str {
    context.spawn(std::future::pending());
    "begun"
}

/// What `/status` says that a stop waits for, as kind and name.
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
    // While tracked work or a background task held a drain, the status showed `in_flight: 0`, and the metrics nothing.
    let router = Router::new()
        .route("/never", get(never))
        .route("/stream", get(stream))
        .route("/work", get(work))
        .route("/quick", get(|| async { "" }));
    let task = |_| std::future::pending::<Result<(), io::Error>>();
    let builder = builder().plan(long_drain()).grace_period(Duration::ZERO).request_timeout(None);
    let app = App::start(builder.background("consumer", task).tower(router));
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
    let status = until("all four", || Some(app.status()).filter(|status| named(status) == all));
    let by_kind = &status["waiting_for"]["by_kind"];
    for (kind, count) in [("request", 1), ("stream", 1), ("work", 1), ("task", 1), ("upgrade", 0)] {
        assert_eq!(by_kind[kind], count, "{status}");
    }
    assert_eq!(status["waiting_for"]["total"], 4);
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
    // An impatient operator ends it.
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
fn the_log_names_what_a_drain_waits_for_and_what_it_dropped() {
    // The log showed zeros while tracked work held a drain, and the warning that it was dropped named nothing.
    let mut service = Service::start(&[
        "--lame-duck=100ms",
        "--drain=500ms",
        "--cancel=500ms",
        "--request-timeout=30s",
    ]);
    assert_eq!(service.get("/work?ms=60000").status, 202);
    let mut upgraded = Client::connect(service.main);
    upgraded
        .send("GET /upgrade HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    assert_eq!(upgraded.head().unwrap().status, 101);
    let mut stuck = Client::connect(service.main);
    stuck.send_get("/stuck?ms=60000");
    service.wait_for_in_flight(1);
    let busy = until("the upgrade", || {
        Some(service.status()).filter(|status| status["waiting_for"]["by_kind"]["upgrade"] == 1)
    });
    assert_eq!(busy["waiting_for"]["by_kind"]["request"], 1, "{busy}");
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 3);
    let lines = service.lines();
    for phase in ["draining", "cancelling"] {
        let line = lines
            .iter()
            .find(|line| line["phase"] == phase && line.get("connections").is_some())
            .unwrap();
        let waiting_for = line["waiting_for"].as_str().unwrap_or_else(|| panic!("{line}"));
        for name in ["GET /work (work, ", "GET /stuck (request, ", "GET /upgrade (upgrade, "] {
            assert!(waiting_for.contains(name), "no {name} in {line}");
        }
        assert!(!waiting_for.contains("60000"), "no query: {line}");
    }
    let dropped = |name: &str| {
        let of = |line: &&Value| {
            line["message"].as_str().is_some_and(|said| said.starts_with("work that outlived"))
        };
        lines
            .iter()
            .filter(of)
            .find(|line| line["work"] == name)
            .unwrap_or_else(|| panic!("{name}: {lines:?}"))
    };
    let work = dropped("GET /work");
    assert_eq!(work["kind"], "work", "{work}");
    assert!(work["age_ms"].as_u64().unwrap() >= 800, "{work}");
}

#[test]
fn a_response_that_its_client_does_not_read_is_named() {
    let large = || async { vec![b'x'; 64 << 20] };
    let app = App::start(
        builder().grace_period(Duration::ZERO).tower(Router::new().route("/large", get(large))),
    );
    let mut http1 = Client::connect(app.main);
    http1.send_get("/large");
    until("its name", || (named(&app.status()) == ["stream GET /large"]).then_some(()));
    drop(http1);
    until("its end", || named(&app.status()).is_empty().then_some(()));
    assert_eq!(app.end().requests.gone, 1);
}

#[test]
fn what_is_named_is_bounded_in_number_and_in_length() {
    let router = Router::new().fallback(work);
    let app = App::start(builder().plan(long_drain()).grace_period(Duration::ZERO).tower(router));
    let long = "x".repeat(5_000);
    for n in 0..30 {
        assert_eq!(app.get(&format!("/{n}/{long}")).status, 200);
    }
    // The client has a response before its server has counted it.
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
