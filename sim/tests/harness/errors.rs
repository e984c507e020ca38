//! Handlers and response bodies that fail: the service is to blame unless a downstream failed.

use crate::failure_of;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lameduck_sim::{Connector, TestWorld, explore};
use std::{convert::Infallible, future::Future, io, time::Duration};

type Http = Client<Connector, Empty<Bytes>>;

/// Longest wait for a part of a response of a downstream.
const PART_MAX: Duration = Duration::from_secs(2);

#[expect(clippy::disallowed_methods, reason = "a service that sleeps sleeps by the world's time")]
async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

#[expect(clippy::disallowed_methods, reason = "a service that times out does so by its world")]
async fn in_time<T>(part: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::time::timeout(PART_MAX, part).await?)
}

/// A service with a report of four parts, one each 50 ms.
fn reports(world: &TestWorld) -> Http {
    let report = || async {
        Body::from_stream(stream::unfold(0, |n| async move {
            sleep(50).await;
            (n < 4).then(|| (Ok::<_, Infallible>(format!("page {n}\n")), n + 1))
        }))
    };
    let reports = world.downstream("reports", Router::new().route("/today", get(report)));
    Client::builder(TokioExecutor::new()).build(reports.connector())
}

/// Forwards the report as it arrives.
async fn forward(State(reports): State<Http>) -> Response {
    let today = reports.get(http::Uri::from_static("http://reports/today"));
    let Ok(Ok(response)) = in_time(today).await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let parts = stream::unfold(response.into_body(), |mut body| async move {
        let part = match in_time(body.frame()).await {
            Ok(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
            Ok(Some(Err(error))) => Err(io::Error::other(error)),
            Ok(None) => return None,
            Err(error) => Err(error),
        };
        Some((part, body))
    });
    Body::from_stream(parts).into_response()
}

// A downstream was reset while the service forwarded its response. The body could not be completed,
// and the cut was blamed on the host (P5), or on the shutdown (S1), although it was no abort of it.
#[test]
fn a_response_that_a_downstream_cuts_is_no_fault_of_the_service() {
    explore(|world: TestWorld| {
        let router = Router::new().route("/", get(forward)).with_state(reports(&world));
        world.host().serve(router)
    })
    .get("/")
    .expect(200)
    .seeds(0..150)
    .run()
    .unwrap();
}

// Without a downstream the service itself is to blame. The host was blamed (P5).
#[test]
fn a_response_body_that_fails_is_a_failure_of_the_service() {
    for first in [Some("page 0\n"), None] {
        let report = move || async move {
            let truncated = Err(io::Error::other("the file is truncated"));
            Body::from_stream(stream::iter(first.map(Ok).into_iter().chain([truncated])))
        };
        let router = move || Router::new().route("/report", get(report));
        let failed = explore(move |world| world.host().serve(router()));
        let failure = failure_of(failed.get("/report").expect(200).seeds(0..40).run());
        assert_eq!(failure.broken.promise, "S3", "{failure}");
        let why = "the response body of GET /report failed: the file is truncated";
        assert_eq!(failure.broken.why, why, "{failure}");
    }
}

/// Runs a service whose handler is a function that may fail.
fn fallible<F, Handled>(
    handler: impl Fn(&TestWorld) -> F + Send + Sync + 'static,
) -> Result<lameduck_sim::Passed, lameduck_sim::Failure>
where
    F: Fn() -> Handled + Clone + Send + Sync + 'static,
    Handled: Future<Output = io::Result<()>> + Send + 'static,
{
    explore(move |world: TestWorld| {
        let handler = handler(&world);
        world.host().serve(tower::service_fn(move |_: http::Request<lameduck::Body>| {
            let handling = handler();
            async move {
                handling.await?;
                Ok::<_, io::Error>(http::Response::new(Body::from("tea")))
            }
        }))
    })
    .get("/orders")
    .expect(200)
    .seeds(0..60)
    .run()
}

// The host responds with a 500 in place of the error, and no promise of the service is about
// responses of the host. So a handler that failed now and then was judged nowhere.
#[test]
fn a_handler_that_returns_an_error_is_a_failure_of_the_service() {
    let failed = fallible(|_| {
        let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        move || {
            let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::future::ready(if n % 2 == 1 { Err(io::Error::other("no tea")) } else { Ok(()) })
        }
    });
    let failure = failure_of(failed);
    assert_eq!(failure.broken.promise, "S3", "{failure}");
    assert_eq!(failure.broken.why, "the handler of GET /orders failed: no tea", "{failure}");
}

#[test]
fn a_handler_that_fails_with_its_downstream_is_no_failure_of_the_service() {
    let passed = fallible(|world| {
        let reports = reports(world);
        move || {
            let today = reports.get(http::Uri::from_static("http://reports/today"));
            async move {
                in_time(today).await?.map_err(io::Error::other)?;
                Ok(())
            }
        }
    });
    passed.unwrap();
}

// The host refuses such a response, and its client gets a 500. No
// oracle found it, or one blamed the host (P5).
#[test]
fn a_response_that_the_host_refuses_is_a_failure_of_the_service() {
    let responses: [(_, fn() -> Response); 2] = [
        ("content-length is 9, and the body has at most 3 bytes", || {
            ([("content-length", "9")], "tea").into_response()
        }),
        ("status 101 without a request to upgrade", || {
            StatusCode::SWITCHING_PROTOCOLS.into_response()
        }),
    ];
    for (why, response) in responses {
        let count = || std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let router = move || {
            let count = count();
            let order = move || async move {
                let n = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if n % 2 == 1 { response() } else { "tea".into_response() }
            };
            Router::new().route("/orders", get(order))
        };
        let refused = explore(move |world| world.host().serve(router())).get("/orders").expect(200);
        let failure = failure_of(refused.seeds(0..60).run());
        assert_eq!(failure.broken.promise, "S3", "{failure}");
        let all = format!("the response of GET /orders is invalid: {why}");
        assert!(failure.broken.why.starts_with(&all), "{failure}");
    }
}
