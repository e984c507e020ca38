//! The health service of tonic on its own server, with its own graceful shutdown.

use lameduck_peers::{address, announce, cores, listen, stopped};
use std::error::Error;
use tokio::{net::TcpListener, runtime::Builder};
use tonic::transport::{Server, server::TcpIncoming};

fn main() -> Result<(), Box<dyn Error>> {
    Builder::new_multi_thread().worker_threads(cores().get()).enable_all().build()?.block_on(
        async {
            let listener = TcpListener::from_std(listen(address()?)?)?;
            announce(listener.local_addr()?)?;
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            let (_, health) = tonic_health::server::health_reporter();
            let server = Server::builder().add_service(health);
            Ok(server
                .serve_with_incoming_shutdown(incoming, async { drop(stopped().await) })
                .await?)
        },
    )
}
