//! hyper and tokio-rustls: a thread with a single-threaded runtime per core, with the certificate
//! of `APP_TLS_CERT` and `APP_TLS_KEY`. At SIGTERM it exits at once.

use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lameduck_peers::{address, announce, cores, listen, respond, stopped};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{env, error::Error, io, sync::Arc, thread};
use tokio::{net::TcpListener, runtime::Builder};
use tokio_rustls::TlsAcceptor;

fn main() -> Result<(), Box<dyn Error>> {
    let acceptor = TlsAcceptor::from(Arc::new(config()?));
    let first = listen(address()?)?;
    let at = first.local_addr()?;
    let others = (1..cores().get()).map(|_| listen(at)).collect::<io::Result<Vec<_>>>()?;
    for listener in others.into_iter().chain([first]) {
        let acceptor = acceptor.clone();
        thread::spawn(move || {
            Builder::new_current_thread().enable_all().build()?.block_on(serve(listener, acceptor))
        });
    }
    announce(at)?;
    Ok(Builder::new_current_thread().enable_all().build()?.block_on(stopped())?)
}

fn config() -> Result<ServerConfig, Box<dyn Error>> {
    let certificates =
        CertificateDer::pem_file_iter(env::var("APP_TLS_CERT")?)?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(env::var("APP_TLS_KEY")?)?;
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn serve(listener: std::net::TcpListener, acceptor: TlsAcceptor) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let (io, service) =
                (TokioIo::new(stream), service_fn(|request: Request<Incoming>| respond(&request)));
            let _ = match is_http2 {
                true => {
                    http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
                }
                false => http1::Builder::new().serve_connection(io, service).await,
            };
        });
    }
}
