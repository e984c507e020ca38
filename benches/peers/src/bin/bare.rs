//! Bare hyper: a thread with a single-threaded runtime for each core, `serve_connection` and nothing else. At SIGTERM it is simply
//! gone.

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use lameduck_peers::{address, announce, cores, hello, listen, stopped};
use std::{convert::Infallible, io, thread};
use tokio::{net::TcpListener, runtime::Builder};

fn main() -> io::Result<()> {
    let first = listen(address()?)?;
    let at = first.local_addr()?;
    let others = (1..cores().get()).map(|_| listen(at)).collect::<io::Result<Vec<_>>>()?;
    for listener in others.into_iter().chain([first]) {
        thread::spawn(move || Builder::new_current_thread().enable_all().build()?.block_on(serve(listener)));
    }
    announce(at)?;
    Builder::new_current_thread().enable_all().build()?.block_on(stopped())
}

async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service = service_fn(|_| async { Ok::<_, Infallible>(hello()) });
            http1::Builder::new().serve_connection(TokioIo::new(stream), service).await
        });
    }
}
