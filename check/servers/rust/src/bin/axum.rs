//! `axum::serve` with its graceful shutdown, as in axum's example.

use lameduck_check_servers::{address, router, stopped};
use std::io;

#[tokio::main]
async fn main() -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address()).await?;
    axum::serve(listener, router()).with_graceful_shutdown(stopped()).await
}
