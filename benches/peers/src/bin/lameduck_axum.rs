//! lameduck with an axum router: what a user of `axum::serve` gets who changes one line.

use axum::{Router, routing::get};
use lameduck_peers::{HELLO, host};

fn main() -> ! {
    let router = Router::new().route("/", get(|| async { HELLO }));
    lameduck::main(|| Ok(host()?.tower(router)), |_| {})
}
