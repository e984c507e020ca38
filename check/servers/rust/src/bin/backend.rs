//! The server behind the proxies, which is not stopped.

use lameduck_check_servers::{address, routes};
use std::io;

#[tokio::main]
async fn main() -> io::Result<()> {
    axum::serve(tokio::net::TcpListener::bind(address()).await?, routes()).await
}
