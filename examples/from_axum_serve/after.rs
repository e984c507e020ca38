//! A service that was on `axum::serve`. `docs/from-axum-serve.md` shows the change to lameduck.

use axum::{Router, routing::get};
use lameduck::{Host, Report, Settings};

#[tokio::main]
async fn main() -> Report {
    let router = Router::new().route("/", get(|| async { "hello world" }));
    let settings = Settings::from_env().unwrap_or_else(|error| error.exit());
    Host::builder(settings).serve(router).run().await
}
