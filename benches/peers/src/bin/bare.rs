//! Bare hyper: a thread with a single-threaded runtime per core, and only `serve_connection`. At
//! SIGTERM it exits at once.

use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lameduck_peers::{address, announce, cores, listen, respond, speaks_http2, stopped};
use std::{io, thread};
use tokio::{net::TcpListener, runtime::Builder};

fn main() -> io::Result<()> {
    let first = listen(address()?)?;
    let at = first.local_addr()?;
    let others = (1..cores().get()).map(|_| listen(at)).collect::<io::Result<Vec<_>>>()?;
    for listener in others.into_iter().chain([first]) {
        thread::spawn(move || {
            Builder::new_current_thread().enable_all().build()?.block_on(serve(listener))
        });
    }
    announce(at)?;
    Builder::new_current_thread().enable_all().build()?.block_on(stopped())
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let http2 = speaks_http2();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let (io, service) =
                (TokioIo::new(stream), service_fn(|request: Request<Incoming>| respond(&request)));
            match http2 {
                true => {
                    http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
                }
                false => http1::Builder::new().serve_connection(io, service).await,
            }
        });
    }
}
