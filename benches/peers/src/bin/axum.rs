//! `axum::serve` on tokio's multi-threaded runtime, with its own graceful shutdown.

use axum::serve::ListenerExt;
use lameduck_peers::{address, announce, cores, listen, router, stopped};
use std::io;
use tokio::{net::TcpListener, runtime::Builder};

fn main() -> io::Result<()> {
    Builder::new_multi_thread().worker_threads(cores().get()).enable_all().build()?.block_on(
        async {
            let listener = TcpListener::from_std(listen(address()?)?)?;
            announce(listener.local_addr()?)?;
            let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
            axum::serve(listener, router())
                .with_graceful_shutdown(async { drop(stopped().await) })
                .await
        },
    )
}
