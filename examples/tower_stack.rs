//! What lameduck leaves to tower-http, in one stack: request ids, a trace, a limit on bodies,
//! compression. It also has a route with its own deadline.
//!
//! ```text
//!   host: context, deadline, outcome ──▶ set id ──▶ trace ──▶ propagate id ──▶ limit ──▶ compress
//!                                                                                           │
//!                                                        /report: RouteTimeout ◀── Router ◀─┘
//! ```
//!
//! ```text
//! $ cargo run --example tower_stack
//! $ curl -i localhost:8080/                            # x-request-id, and a log line with that id
//! $ curl -i -H 'x-request-id: mine' localhost:8080/    # the client's id is kept
//! $ curl -i --compressed localhost:8080/page           # content-encoding: gzip
//! $ head -c 20000 /dev/zero | curl -i --data-binary @- localhost:8080/upload    # 413
//! $ curl -i localhost:8080/slow/8000       # 503 after five seconds, the host's deadline
//! $ curl -i localhost:8080/report/8000     # 200 after eight: this route has thirty
//! ```
//!
//! The host itself sends the 503 of a deadline. It drops the handler with the whole stack around
//! it, so that nothing in the stack can delay it, and no layer sees that response. The host's
//! report counts it as *timed out*. To have it in the trace, add tower-http's `TimeoutLayer` inside
//! of it, with a slightly shorter timeout.
#![expect(
    clippy::disallowed_methods,
    reason = "an app lives on tokio's time; only the host must not"
)]

use axum::{
    Router,
    body::Bytes,
    extract::Path,
    http::Request,
    routing::{get, post},
};
use lameduck::{
    Host, RouteTimeout, RunOptions, Settings,
    cli::logging::{self, LogFormat},
};
use std::time::Duration;
use tower::ServiceBuilder;
use tower_http::{
    compression::CompressionLayer,
    limit::RequestBodyLimitLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    trace::{DefaultOnResponse, TraceLayer},
};
use tracing::{Level, Span, info_span};

const BODY_BYTES_MAX: usize = 16 * 1024;
const REPORT_TIMEOUT: Duration = Duration::from_secs(30);

fn main() {
    let log = logging::install(LogFormat::Auto, None).unwrap_or_else(|error| error.exit());
    lameduck::run_with(RunOptions::new().finish(|_| drop(log)), || {
        let router = Router::new()
            .route("/", get(async || "hello world"))
            .route("/page", get(async || "a page that is worth compressing\n".repeat(1_000)))
            .route("/upload", post(upload))
            .route("/slow/{ms}", get(slow))
            .route("/report/{ms}", get(slow).layer(RouteTimeout::after(REPORT_TIMEOUT)));
        let trace = TraceLayer::new_for_http()
            .make_span_with(span)
            .on_response(DefaultOnResponse::new().level(Level::INFO));
        // The first layer is the outermost.
        let stack = ServiceBuilder::new()
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(trace)
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
            .layer(CompressionLayer::new())
            .service(router);
        Ok(Host::builder(Settings::from_env()?).serve(stack))
    })
}

/// The fields of every log line about a request. The query is left out, because it may hold
/// secrets.
fn span<B>(request: &Request<B>) -> Span {
    let id = request
        .extensions()
        .get::<RequestId>()
        .and_then(|id| id.header_value().to_str().ok())
        .unwrap_or_default();
    info_span!("request", id, method = %request.method(), path = request.uri().path())
}

async fn upload(body: Bytes) -> String {
    format!("{} bytes\n", body.len())
}

async fn slow(Path(ms): Path<u64>) -> String {
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("that took {ms} ms\n")
}
