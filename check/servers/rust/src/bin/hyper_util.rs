//! hyper-util's `auto` builder and `GracefulShutdown`, as in its example.

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use lameduck_check_servers::{DRAIN, address, router, stopped};
use std::{io, pin::pin};

#[tokio::main]
async fn main() -> io::Result<()> {
    let listener = tokio::net::TcpListener::bind(address()).await?;
    let server = auto::Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    let mut stopped = pin!(stopped());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (stream, service) = (TokioIo::new(stream), TowerToHyperService::new(router()));
                let connection = server.serve_connection_with_upgrades(stream, service);
                let connection = graceful.watch(connection.into_owned());
                tokio::spawn(connection);
            }
            () = &mut stopped => break,
        }
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(DRAIN) => {
            eprintln!("waited 5 seconds for graceful shutdown, aborting");
        }
    }
    Ok(())
}
