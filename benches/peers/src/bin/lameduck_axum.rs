//! lameduck with an axum router: the result of changing one line of an app that uses `axum::serve`.

use axum::{Router, routing::get};
use lameduck_peers::{HELLO, SLOW, SLOW_TIME, host};

fn main() -> ! {
    let router = Router::new().route("/", get(|| async { HELLO })).route(SLOW, get(slow));
    lameduck::run(|| Ok(host()?.serve(router)))
}

async fn slow() -> &'static str {
    tokio::time::sleep(SLOW_TIME).await;
    HELLO
}
