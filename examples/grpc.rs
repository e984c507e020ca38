//! gRPC and HTTP on one port: services of tonic, routes of axum, and the health of gRPC.
//!
//! | call or route | what it does |
//! |---|---|
//! | `GET /` | hello world, by axum |
//! | `/hello.Greeter/Hello` | responds with a greeting |
//! | `/hello.Greeter/Sleep` | the same after a day: the deadline of the host ends it |
//! | `/hello.Greeter/Count` | a greeting every 100 ms, without end |
//! | `/grpc.health.v1.Health/Check` and `Watch` | SERVING, and NOT_SERVING from the stop request on |
//!
//! `Count` is a long stream: in a shutdown it ends at a moment of `SHUTDOWN_STREAMS`. Its client
//! sees UNAVAILABLE then, and calls again.
//!
//! The messages and the service are written by hand here, so that the example needs no `protoc`. In
//! a service `tonic-prost-build` generates them, and `Routes::new(GreeterServer::new(greeter))`
//! serves them in the same way.
//!
//! ```text
//! $ cargo run --example grpc
//! $ grpcurl -plaintext -proto health.proto localhost:8080 grpc.health.v1.Health/Check
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "an app lives on tokio's time; only the host must not"
)]

use axum::{
    Router,
    extract::Request,
    response::IntoResponse,
    routing::{get, post},
};
use futures_util::{Stream, stream};
use lameduck::{
    BackgroundTask, Host, RunOptions, Settings, StreamShutdown,
    cli::logging::{self, LogFormat},
};
use std::{convert::Infallible, time::Duration};
use tonic::{Response, Status, server::Grpc, service::Routes};
use tonic_health::{ServingStatus, server::health_reporter};
use tonic_prost::ProstCodec;
use tower::service_fn;

/// The services whose health is reported. `""` is the whole process.
const SERVICES: [&str; 2] = ["", "hello.Greeter"];

#[derive(Clone, PartialEq, prost::Message)]
struct HelloRequest {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HelloReply {
    #[prost(string, tag = "1")]
    text: String,
}

fn main() {
    let log = logging::install(LogFormat::Auto, None).unwrap_or_else(|error| error.exit());
    lameduck::run_with(RunOptions::new().finish(|_| drop(log)), || {
        let (reporter, health) = health_reporter();
        let router = Routes::new(health)
            .into_axum_router()
            .route("/", get(|| async { "hello world" }))
            .merge(greeter());
        // Serving from the start on, and no more from the stop request on.
        let reports = BackgroundTask::new("health", |context| async move {
            for service in SERVICES {
                reporter.set_service_status(service, ServingStatus::Serving).await;
            }
            context.stopping().await;
            for service in SERVICES {
                reporter.set_service_status(service, ServingStatus::NotServing).await;
            }
            Ok::<_, Infallible>(())
        });
        Ok(Host::builder(Settings::from_env()?).background_task(reports).serve(router))
    })
}

/// The methods of `hello.Greeter`.
fn greeter() -> Router {
    let sleep = |request: tonic::Request<HelloRequest>| async move {
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        hello(request).await
    };
    Router::new()
        .route("/hello.Greeter/Hello", post(|request| unary(hello, request)))
        .route("/hello.Greeter/Sleep", post(move |request| unary(sleep, request)))
        .route("/hello.Greeter/Count", post(serve_count))
}

/// Serves a method with one reply by tonic, as its generated code does.
async fn unary<F, R>(method: F, request: Request) -> impl IntoResponse
where
    F: Fn(tonic::Request<HelloRequest>) -> R,
    R: Future<Output = Result<Response<HelloReply>, Status>>,
{
    let codec = ProstCodec::<HelloReply, HelloRequest>::default();
    Grpc::new(codec).unary(service_fn(method), request).await
}

async fn hello(request: tonic::Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
    let name = request.into_inner().name;
    if name.is_empty() {
        return Err(Status::invalid_argument("whom to greet?"));
    }
    Ok(Response::new(HelloReply { text: format!("hello {name}") }))
}

async fn serve_count(request: Request) -> impl IntoResponse {
    let codec = ProstCodec::<HelloReply, HelloRequest>::default();
    let mut response = Grpc::new(codec).server_streaming(service_fn(count), request).await;
    response.extensions_mut().insert(StreamShutdown::EndSpread);
    response
}

async fn count(
    request: tonic::Request<HelloRequest>,
) -> Result<Response<impl Stream<Item = Result<HelloReply, Status>>>, Status> {
    let name = request.into_inner().name;
    let every = tokio::time::interval(Duration::from_millis(100));
    Ok(Response::new(stream::unfold((every, 1_u64), move |(mut every, n)| {
        let text = format!("hello {name}, {n}");
        async move {
            every.tick().await;
            Some((Ok(HelloReply { text }), (every, n + 1)))
        }
    })))
}
