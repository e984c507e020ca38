//! hyper-util: its `auto` builder and `GracefulShutdown`, on tokio's multi-threaded runtime, as in
//! its example.

use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
};
use lameduck_peers::{address, announce, cores, listen, respond, stopped};
use std::{io, pin::pin};
use tokio::{net::TcpListener, runtime::Builder};

fn main() -> io::Result<()> {
    Builder::new_multi_thread().worker_threads(cores().get()).enable_all().build()?.block_on(
        async {
            let listener = TcpListener::from_std(listen(address()?)?)?;
            announce(listener.local_addr()?)?;
            let builder = auto::Builder::new(TokioExecutor::new());
            let graceful = GracefulShutdown::new();
            let mut stopped = pin!(stopped());
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let (stream, _) = accepted?;
                        stream.set_nodelay(true)?;
                        let stream = TokioIo::new(stream);
                        let service = service_fn(|request: Request<Incoming>| respond(&request));
                        let connection = builder.serve_connection_with_upgrades(stream, service);
                        let connection = graceful.watch(connection.into_owned());
                        tokio::spawn(connection);
                    }
                    stopped = &mut stopped => break stopped?,
                }
            }
            drop(listener);
            graceful.shutdown().await;
            Ok(())
        },
    )
}
