//! axum-server with its `Handle`, as in its example of a graceful shutdown.

use axum_server::Handle;
use lameduck_check_servers::{DRAIN, address, router, stopped};
use std::io;

#[tokio::main]
async fn main() -> io::Result<()> {
    let handle = Handle::new();
    let stopping = handle.clone();
    tokio::spawn(async move {
        stopped().await;
        stopping.graceful_shutdown(Some(DRAIN));
    });
    axum_server::bind(address()).handle(handle).serve(router().into_make_service()).await
}
