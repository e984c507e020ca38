//! gRPC calls, unary and streaming.

use crate::failure_of;
use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Response, StatusCode},
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use lameduck::{
    RequestContext, StreamShutdown, TowerService,
    lifecycle::{Phase, Plan},
};
use lameduck_sim::{Request, TestWorld, Trial, Trials, explore};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

type Item = Result<Frame<Bytes>, Infallible>;

/// A message of two bytes, with its prefix.
const MESSAGE: &[u8] = b"\0\0\0\0\x02ok";

fn trailers(status: u64) -> Frame<Bytes> {
    let mut fields = HeaderMap::new();
    fields.insert("grpc-status", HeaderValue::from(status));
    Frame::trailers(fields)
}

fn reply(frames: impl futures_util::Stream<Item = Item> + Send + 'static) -> Response<Body> {
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

async fn unary(call: Bytes) -> Response<Body> {
    assert_eq!(&call[..], b"\0\0\0\0\x03tea", "the message with its prefix");
    reply(stream::iter([Ok(Frame::data(Bytes::from_static(MESSAGE))), Ok(trailers(0))]))
}

/// A message every 30 ms, until the drain begins.
#[expect(clippy::disallowed_methods, reason = "a service that sleeps sleeps by the world's time")]
async fn stream_of(context: axum::Extension<RequestContext>) -> Response<Body> {
    let messages = stream::unfold(context.0, |context| async move {
        tokio::select! {
            biased;
            () = context.draining() => None,
            () = tokio::time::sleep(Duration::from_millis(30)) => {
                Some((Ok(Frame::data(Bytes::from_static(MESSAGE))), context))
            }
        }
    });
    reply(messages.chain(stream::iter([Ok(trailers(0))])))
}

/// Responds with only a head, as a service does that needs its closed pool.
async fn closed(context: axum::Extension<RequestContext>) -> Response<Body> {
    if context.phase() <= Phase::LameDuck {
        return reply(stream::iter([Ok(trailers(0))]));
    }
    let mut response = reply(stream::empty());
    let fields = response.headers_mut();
    fields.insert("grpc-status", HeaderValue::from_static("13"));
    fields.insert("grpc-message", HeaderValue::from_static("the pool is closed"));
    response
}

fn router() -> Router {
    Router::new()
        .route("/tea.Tea/Unary", post(unary))
        .route("/tea.Tea/Stream", post(stream_of))
        .route("/tea.Tea/Closed", post(closed))
}

#[test]
fn unary_calls_and_streams_are_made_and_their_messages_counted() {
    explore(|world| world.host().serve(router()))
        .request(Request::grpc("/tea.Tea/Unary", ["tea"]))
        .request(Request::grpc_stream("/tea.Tea/Stream", [""], 3))
        .request(Request::grpc("/tea.Tea/Unary", ["tea"]).then(Request::get("/none").expect(404)))
        .seeds(0..25)
        .run()
        .unwrap();
    let too_many = Request::grpc_stream("/tea.Tea/Stream", [""], 1_000_000);
    let failed = explore(|world| world.host().serve(router())).request(too_many).seeds(0..5).run();
    assert_eq!(failure_of(failed).broken.promise, "S6");
}

#[test]
fn a_status_that_says_that_the_service_is_broken_is_found_with_its_message() {
    let failed = explore(|world| world.host().serve(router()))
        .request(Request::grpc("/tea.Tea/Closed", [""]))
        .seeds(0..100)
        .run();
    let failure = failure_of(failed);
    assert_eq!(failure.broken.promise, "S5", "{failure}");
    let why = &failure.broken.why;
    assert!(why.starts_with("gRPC /tea.Tea/Closed got 13 in draining"), "{failure}");
    assert!(why.contains("instead of status 0: \"the pool is closed\""), "{failure}");
    let log = failure.to_string();
    assert!(log.contains("0 messages received, \"the pool is closed\""), "{failure}");
    assert!(log.contains(": gRPC status 13"), "{failure}");
}

#[test]
fn a_service_of_tonic_is_called_and_an_unknown_method_proves_nothing() {
    let health = || {
        let (_, health) = tonic_health::server::health_reporter();
        tonic::service::Routes::new(health).into_axum_router()
    };
    let check = "/grpc.health.v1.Health/Check";
    explore(move |world| world.host().serve(health()))
        .request(Request::grpc(check, [""]))
        .request(Request::grpc(check, ["\n\x03tea"]).expect(5))
        .seeds(0..12)
        .run()
        .unwrap();
    let mistyped = explore(move |world| world.host().serve(health()))
        .request(Request::grpc("/grpc.health.v1.Health/Chek", [""]))
        .seeds(0..2);
    let failure = failure_of(mistyped.run());
    assert!(failure.broken.why.contains("got 12"), "UNIMPLEMENTED: {failure}");
}

/// Responds as its downstream does, or gives up after a second.
#[expect(clippy::disallowed_methods, reason = "a service that times out does so by its world")]
async fn is_healthy(channel: Channel) -> StatusCode {
    let mut health = HealthClient::new(channel);
    let check = health.check(HealthCheckRequest::default());
    match tokio::time::timeout(Duration::from_secs(1), check).await {
        Ok(Ok(_)) => StatusCode::OK,
        Ok(Err(_)) | Err(_) => StatusCode::BAD_GATEWAY,
    }
}

#[test]
fn a_service_calls_another_over_a_channel_of_tonic_whatever_faults_that_one_has() {
    explore(|world: TestWorld| {
        let (_, health) = tonic_health::server::health_reporter();
        let router = tonic::service::Routes::new(health).into_axum_router();
        let peer = world.downstream("peer", router);
        let endpoint = Endpoint::from_static("http://peer");
        let channel = endpoint.connect_with_connector_lazy(peer.connector());
        let router = Router::new().route("/", get(move || is_healthy(channel)));
        world.host().serve(router)
    })
    .get("/")
    .expect(200)
    .seeds(0..60)
    .run()
    .unwrap();
}

/// A message every 30 ms, without end. The host may end the call by its class.
#[expect(clippy::disallowed_methods, reason = "a service that sleeps sleeps by the world's time")]
fn endless(class: StreamShutdown) -> Response<Body> {
    let messages = stream::unfold((), |()| async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        Some((Ok(Frame::data(Bytes::from_static(MESSAGE))), ()))
    });
    let mut response = reply(messages);
    response.extensions_mut().insert(class);
    response
}

fn endless_calls(class: StreamShutdown) -> Trials<TowerService<Router>> {
    let host = move |world: TestWorld| {
        let router =
            Router::new().route("/tea.Tea/Stream", post(move || async move { endless(class) }));
        world.host().serve(router)
    };
    explore(host).plan(Plan::new().streams(Duration::from_secs(5))).seeds(0..40)
}

// The host was blamed (P5): it counts a call that it aborts after its head, and its client has a
// status of the host, which was taken for one of the service. The service is to blame.
#[test]
fn a_call_that_ignores_the_shutdown_is_a_failure_of_the_service() {
    let endless = Request::grpc_stream("/tea.Tea/Stream", [""], 1);
    let failure = failure_of(endless_calls(StreamShutdown::Finish).request(endless).run());
    assert_eq!(failure.broken.promise, "S1", "{failure}");
}

// The status UNAVAILABLE is of the host, which ends such a call at its time. The service was blamed
// for it (S5).
#[test]
fn a_call_that_the_host_ends_at_its_time_is_no_failure() {
    for class in [StreamShutdown::EndAtDraining, StreamShutdown::EndSpread] {
        let endless = Request::grpc_stream("/tea.Tea/Stream", [""], 1).expect(0);
        endless_calls(class).request(endless).run().unwrap();
    }
}

// The host ended a call at the timeout of its client, after its head, and was blamed for that (P5),
// or the service was (S5).
#[test]
fn a_call_that_its_timeout_ends_after_its_head_is_no_failure() {
    let timed = Request::grpc_stream("/tea.Tea/Stream", [""], 1).header("grpc-timeout", "200m");
    for request in [timed.clone(), timed.expect(0)] {
        endless_calls(StreamShutdown::Finish).request(request).run().unwrap();
    }
}

/// Refuses every second order by UNAVAILABLE or without a status, and stores the others.
fn order(stored: &AtomicUsize, count: &AtomicUsize) -> Response<Body> {
    let status = match count.fetch_add(1, Relaxed) % 4 {
        0 => Some(14),
        2 => None,
        _ => {
            stored.fetch_add(1, Relaxed);
            Some(0)
        }
    };
    reply(stream::iter(status.map(|status| Ok(trailers(status)))))
}

// A client that got UNAVAILABLE was counted as one whose order was acknowledged, since the status
// of HTTP is 200. The service was blamed (S4) for an order that it had refused.
#[test]
fn a_call_without_the_status_0_is_not_acknowledged() {
    explore(|world: TestWorld| {
        let (stored, count) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let orders = Arc::clone(&stored);
        let order = move || async move { order(&orders, &count) };
        let router = Router::new().route("/tea.Tea/Order", post(order));
        Trial::of(world.host().serve(router)).at_exit(move |received| {
            let (succeeded, stored) = (received.succeeded("/tea.Tea/Order"), stored.load(Relaxed));
            let is_right = succeeded <= stored;
            is_right.then_some(()).ok_or_else(|| format!("{succeeded} succeeded, {stored} stored"))
        })
    })
    .request(Request::grpc("/tea.Tea/Order", [""]).expect([0, 2, 14]))
    .seeds(0..25)
    .run()
    .unwrap();
}
