//! lameduck with an axum router: what a user of `axum::serve` gets who changes one line.

use axum::{Router, routing::get};
use lameduck_peers::{HELLO, SLOW, SLOW_TIME, host};

fn main() -> ! {
    let router = Router::new().route("/", get(|| async { HELLO })).route(SLOW, get(slow));
    lameduck::main(|| Ok(host()?.tower(router)), |_| {})
}

async fn slow() -> &'static str {
    tokio::time::sleep(SLOW_TIME).await;
    HELLO
}
