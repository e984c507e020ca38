//! P9: a deadline per request.

use crate::support::{App, Client, Service, now, pause, settings, until_holds};
use axum::{Extension, Router, http::StatusCode, routing::get};
use lameduck::{Host, RequestContext, RouteTimeout};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

#[test]
fn at_its_deadline_and_not_earlier_a_request_gets_a_503_with_the_reason() {
    let service = Service::start(&["--request-timeout=300ms"]);
    let mut client = Client::connect(service.main);
    for _ in 0..5 {
        let asked = now();
        let answer = client.get("/stuck?ms=60000");
        let took = asked.elapsed();
        assert_eq!(answer.status, 503);
        assert!(took >= Duration::from_millis(300), "{took:?} is before the deadline");
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert!(
            answer.body().contains("timed out") && answer.body().contains("300ms"),
            "{}",
            answer.body()
        );
    }
    assert_eq!(service.status()["requests"]["timed_out"], 5);
    assert_eq!(client.get("/").status, 200, "the connection is none the worse for it");
}

#[test]
fn a_response_in_time_is_the_handlers_own_and_zero_means_no_deadline() {
    let service = Service::start(&["--request-timeout=2s"]);
    assert_eq!(service.get("/slow?ms=50").body(), "slow done\n");
    let patient = Service::start(&["--request-timeout=0s"]);
    assert_eq!(patient.get("/slow?ms=500").body(), "slow done\n");
    assert!(patient.status()["plan"]["request_timeout_ms"].is_null());
}

#[test]
fn a_body_that_streams_is_not_cut_by_the_deadline() {
    let service = Service::start(&["--request-timeout=200ms"]);
    let answer = service.get("/stream?ms=900");
    assert!(answer.body().ends_with("piece 8\nend\n"), "{}", answer.body());
    assert_eq!(service.status()["requests"]["timed_out"], 0);
}

#[test]
fn the_deadline_runs_from_the_complete_head_and_while_the_body_is_awaited() {
    let service = Service::start(&["--request-timeout=400ms"]);
    let mut client = Client::connect(service.main);
    client.send("POST /echo HTTP/1.1\r\nhost: t\r\n");
    assert!(client.is_silent_for(Duration::from_millis(600)), "half a head is no request yet");
    let complete = now();
    client.send("content-length: 10\r\n\r\nhello");
    let answer = client.answer();
    assert_eq!(answer.status, 503, "a body that never ends is no excuse");
    assert!(complete.elapsed() >= Duration::from_millis(400));
}

#[test]
fn on_http2_only_the_request_at_its_deadline_times_out() {
    let service = Service::start(&["--request-timeout=300ms"]);
    let mut client = crate::support::frames::Http2::connect(service.main);
    let stuck = client.get("/stuck?ms=60000");
    let stream = client.get("/stream?ms=900");
    assert!(client.body(stuck).contains("timed out"));
    assert!(client.body(stream).ends_with("end\n"), "its neighbour is not touched");
}

async fn sleeper() -> &'static str {
    pause(700).await;
    "slept"
}

#[test]
fn a_route_has_a_deadline_of_its_own_or_none() {
    async fn sets_its_own(Extension(context): Extension<RequestContext>) -> &'static str {
        context.set_timeout(Some(Duration::from_millis(250)));
        pause(60_000).await;
        "never"
    }
    let router = Router::new()
        .route("/common", get(sleeper))
        .route("/longer", get(sleeper).layer(RouteTimeout::after(Duration::from_secs(10))))
        .route("/none", get(sleeper).layer(RouteTimeout::none()))
        .route("/shorter", get(sleeper).layer(RouteTimeout::after(Duration::from_millis(100))))
        .route("/own", get(sets_its_own));
    let app = App::start(
        Host::builder(settings().request_timeout(Some(Duration::from_millis(400)))).serve(router),
    );
    assert_eq!(app.get("/common").status, 503);
    assert_eq!(app.get("/longer").body(), "slept");
    assert_eq!(app.get("/none").body(), "slept");
    assert!(app.get("/shorter").body().contains("100ms"));
    let asked = now();
    assert!(app.get("/own").body().contains("250ms"));
    assert!(asked.elapsed() >= Duration::from_millis(250));
    let report = app.end();
    assert_eq!(
        (report.code(), report.requests.timed_out, report.requests.finished),
        (0, 3, 2),
        "{report:?}"
    );
}

#[test]
fn a_deadline_may_be_removed_while_the_handler_waits() {
    async fn extends(Extension(context): Extension<RequestContext>) -> &'static str {
        pause(150).await;
        context.set_timeout(None);
        pause(600).await;
        "extended"
    }
    let app = App::start(
        Host::builder(settings().request_timeout(Some(Duration::from_millis(300))))
            .serve(Router::new().route("/", get(extends))),
    );
    assert_eq!(app.get("/").body(), "extended");
    assert_eq!(app.end().code(), 0);
}

#[test]
fn a_context_has_the_remaining_time_and_is_cancelled_at_the_deadline_or_a_disconnect() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let noted = cancelled.clone();
    let handler = move |Extension(context): Extension<RequestContext>| {
        let noted = noted.clone();
        async move {
            assert!(
                context.remaining().is_some_and(|left| left <= Duration::from_millis(800)),
                "{context:?}"
            );
            assert_eq!(context.app_version(), "9.9.9");
            let token = context.cancellation_token();
            // This task outlives the handler, which is dropped at its deadline.
            context.spawn(async move {
                token.cancelled().await;
                noted.store(true, Relaxed);
            });
            pause(60_000).await;
            StatusCode::OK
        }
    };
    let router = Router::new().route("/", get(handler));
    let app = App::start(
        Host::builder(
            settings().app_version("9.9.9").request_timeout(Some(Duration::from_millis(800))),
        )
        .serve(router),
    );
    assert_eq!(app.get("/").status, 503);
    until_holds("the cancellation at the deadline", || cancelled.swap(false, Relaxed));
    let mut gone = Client::connect(app.main);
    gone.send_get("/");
    until_holds("the request", || app.status()["in_flight"] == 1);
    drop(gone);
    until_holds("the cancellation", || cancelled.load(Relaxed));
    assert_eq!(app.end().code(), 0);
}
