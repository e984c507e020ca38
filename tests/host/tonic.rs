//! P5d, P9: tonic's own client at a service of tonic's, in each phase.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{App, MAX_WAIT, pause, quick_plan, settings, until_holds};
use axum::{
    extract::Request,
    response::IntoResponse,
    routing::{get, post},
};
use futures_util::{StreamExt, stream};
use http::uri::PathAndQuery;
use lameduck::{Host, Settings, StreamShutdown};
use std::time::Duration;
use tonic::{Code, Response, Status, client, server, service::Routes, transport::Channel};
use tonic_health::{
    ServingStatus,
    pb::{HealthCheckRequest, HealthCheckResponse},
    server::health_reporter,
};
use tonic_prost::ProstCodec;
use tower::service_fn;

#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

type Replies = stream::BoxStream<'static, Result<Text, Status>>;

/// Serves a method with one reply.
async fn unary<F, R>(method: F, request: Request) -> impl IntoResponse
where
    F: Fn(Text) -> R,
    R: Future<Output = Result<Text, Status>>,
{
    let codec = ProstCodec::<Text, Text>::default();
    let method = |request: tonic::Request<Text>| {
        let reply = method(request.into_inner());
        async { reply.await.map(Response::new) }
    };
    server::Grpc::new(codec).unary(service_fn(method), request).await
}

/// Serves a method with a stream of replies.
async fn streaming(
    replies: fn() -> Replies,
    request: Request,
) -> http::Response<tonic::body::Body> {
    let codec = ProstCodec::<Text, Text>::default();
    let method = move |_: tonic::Request<Text>| async move { Ok(Response::new(replies())) };
    server::Grpc::new(codec).server_streaming(service_fn(method), request).await
}

fn ticks() -> Replies {
    every(20)
}

/// A stream with a message every `ms`.
fn every(ms: u64) -> Replies {
    stream::unfold((), move |()| async move {
        pause(ms).await;
        Some((Ok(Text { text: "tick".to_owned() }), ()))
    })
    .boxed()
}

fn breaks() -> Replies {
    let panics = stream::once(async {
        pause(50).await;
        panic!("in the stream")
    });
    ticks().take(2).chain(panics).boxed()
}

async fn echo(text: Text) -> Result<Text, Status> {
    Ok(text)
}

async fn stuck(_: Text) -> Result<Text, Status> {
    std::future::pending().await
}

async fn panics(_: Text) -> Result<Text, Status> {
    panic!("in the handler")
}

fn start(settings: Settings) -> App {
    let (_, health) = health_reporter();
    let spread = |request| async {
        let mut response = streaming(ticks, request).await;
        response.extensions_mut().insert(StreamShutdown::EndSpread);
        response
    };
    let router = Routes::new(health)
        .into_axum_router()
        .route("/", get(|| async { "hello over HTTP" }))
        .route("/test/Echo", post(|request| unary(echo, request)))
        .route("/test/Stuck", post(|request| unary(stuck, request)))
        .route("/test/Panics", post(|request| unary(panics, request)))
        .route("/test/Ticks", post(|request| streaming(ticks, request)))
        .route("/test/Quick", post(|request| streaming(|| every(1), request)))
        .route("/test/Breaks", post(|request| streaming(breaks, request)))
        .route("/test/Spread", post(spread));
    App::start(Host::builder(settings).serve(router))
}

/// A client of tonic, on a new runtime.
struct Client {
    runtime: tokio::runtime::Runtime,
    channel: Channel,
}

impl Client {
    fn connect(app: &App) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let endpoint = Channel::from_shared(format!("http://{}", app.main)).unwrap();
        let channel = runtime.block_on(endpoint.connect()).unwrap();
        Self { runtime, channel }
    }

    /// Runs a call aside. Returns its replies and the status that ended it.
    fn call(&self, path: &'static str) -> Running {
        let text = Text { text: "ping".to_owned() };
        self.call_with::<Text, Text>(path, text)
    }

    #[expect(clippy::disallowed_methods, reason = "these tests live in real time")]
    fn call_with<A, B>(&self, path: &'static str, message: A) -> Running<B>
    where
        A: prost::Message + 'static,
        B: prost::Message + Default + 'static,
    {
        let mut client = client::Grpc::new(self.channel.clone());
        Running(self.runtime.spawn(async move {
            client.ready().await.unwrap();
            let request = tonic::Request::new(message);
            let (path, codec) = (PathAndQuery::from_static(path), ProstCodec::<A, B>::default());
            let called =
                tokio::time::timeout(MAX_WAIT, client.server_streaming(request, path, codec));
            let mut replies = match called.await.expect("the call ends") {
                Ok(response) => response.into_inner(),
                Err(status) => return (Vec::new(), status),
            };
            let mut all = Vec::new();
            loop {
                let next = tokio::time::timeout(MAX_WAIT, replies.message());
                match next.await.expect("the stream ends") {
                    Ok(Some(reply)) => all.push(reply),
                    Ok(None) => return (all, Status::ok("")),
                    Err(status) => return (all, status),
                }
            }
        }))
    }

    fn end<B>(&self, running: Running<B>) -> (Vec<B>, Status) {
        self.runtime.block_on(running.0).unwrap()
    }
}

struct Running<B = Text>(tokio::task::JoinHandle<(Vec<B>, Status)>);

/// Settings whose drain lasts 300 ms, without a deadline of requests.
fn short_drain() -> Settings {
    let plan = quick_plan().drain(Duration::from_millis(300));
    settings().plan(plan).request_timeout(None)
}

#[test]
fn axum_and_tonic_share_a_port() {
    let app = start(settings());
    assert_eq!(app.get("/").body(), "hello over HTTP");
    let client = Client::connect(&app);
    let (replies, status) = client.end(client.call("/test/Echo"));
    assert_eq!((replies[0].text.as_str(), status.code()), ("ping", Code::Ok));
    let (_, status) = client.end(client.call("/test/Unknown"));
    assert_eq!(status.code(), Code::Unimplemented);
    let health = HealthCheckRequest { service: String::new() };
    let check = client.call_with("/grpc.health.v1.Health/Check", health);
    let (replies, _): (Vec<HealthCheckResponse>, _) = client.end(check);
    assert_eq!(replies[0].status, ServingStatus::Serving as i32);
    assert_eq!(app.end().code(), 0);
}

#[test]
fn the_client_sees_the_status_of_each_failure() {
    let app = start(settings().request_timeout(Some(Duration::from_millis(200))));
    let client = Client::connect(&app);
    for (path, code, replies) in [
        ("/test/Stuck", Code::DeadlineExceeded, 0),
        ("/test/Panics", Code::Internal, 0),
        ("/test/Breaks", Code::Internal, 2),
    ] {
        let (all, status) = client.end(client.call(path));
        assert_eq!((status.code(), all.len()), (code, replies), "{path}: {status:?}");
    }
    assert_eq!(app.end().code(), 0);
}

#[test]
fn the_client_sees_what_the_shutdown_cuts_as_unavailable() {
    let app = start(short_drain());
    let client = Client::connect(&app);
    let running = ["/test/Stuck", "/test/Ticks", "/test/Spread"].map(|path| client.call(path));
    until_holds("they are in flight", || app.status()["in_flight"] == 3);
    app.stop();
    let [stuck, ticks, spread] = running.map(|running| client.end(running));
    for (all, status) in [&stuck, &ticks, &spread] {
        assert_eq!(status.code(), Code::Unavailable, "{status:?} after {}", all.len());
    }
    assert!(stuck.0.is_empty() && !ticks.0.is_empty() && !spread.0.is_empty());
    let report = app.report();
    let requests = &report.requests;
    assert_eq!((report.code(), requests.finished, requests.aborted), (3, 1, 2), "{report}");
}

// A call that had handed on a message in the instant of the abort was reset, and its client got
// UNKNOWN. A stream with many messages always has one on its way (P5d).
#[test]
fn a_call_that_is_cut_between_two_quick_messages_is_unavailable() {
    let app = start(short_drain());
    let client = Client::connect(&app);
    let running = [(); 16].map(|()| client.call("/test/Quick"));
    until_holds("they are in flight", || app.status()["in_flight"] == 16);
    app.stop();
    for (all, status) in running.map(|running| client.end(running)) {
        assert_eq!(status.code(), Code::Unavailable, "{status:?} after {}", all.len());
    }
    assert_eq!(app.report().requests.aborted, 16);
}

#[test]
fn a_watch_of_the_health_does_not_hold_the_drain() {
    let app = start(short_drain());
    let client = Client::connect(&app);
    let health = HealthCheckRequest { service: String::new() };
    let watch = client.call_with("/grpc.health.v1.Health/Watch", health);
    until_holds("it is in flight", || app.status()["in_flight"] == 1);
    app.stop();
    let (replies, status): (Vec<HealthCheckResponse>, _) = client.end(watch);
    assert_eq!((replies.len(), status.code()), (1, Code::Unavailable));
    assert_eq!(app.report().code(), 0);
}
