//! TLS on both ends, by rustls itself: the records of the host under test are real ones.
//!
//! Only the key exchange and the signature are not: they would take most of the CPU of a scenario
//! ([`crypto`]). All have one length, and no session is resumed. So the length of every record
//! depends on the scenario alone. Its bytes do not: rustls draws numbers from the system. A trace
//! with TLS therefore contains lengths, and no bytes on the wire
//! ([`Trace::hide_payload`](crate::trace::Trace::hide_payload)).

mod crypto;
mod in_parts;

use in_parts::InParts;
pub use in_parts::RecordParts;

use super::{ClientId, Connect};
use rustls::{
    ClientConfig, ClientConnection, ServerConfig,
    client::Resumption,
    pki_types::ServerName,
    sign::{CertifiedKey, SingleCertAndKey},
};
use std::{
    io,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsConnector, client};

const CERTIFICATE: &[u8] = include_bytes!("tls/certificate.der");

/// The name in the certificate.
const NAME: &str = "server";

/// The configuration of a host under test.
///
/// # Panics
/// Never: the provider has TLS 1.3.
#[must_use]
pub fn server_config() -> Arc<ServerConfig> {
    static CONFIG: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
        let key = CertifiedKey::new(vec![CERTIFICATE.into()], Arc::new(crypto::Key));
        let config = ServerConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()
            .expect("a provider of TLS 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        Arc::new(config)
    });
    CONFIG.clone()
}

fn client_config() -> Arc<ClientConfig> {
    static CONFIG: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| {
        let mut config = ClientConfig::builder_with_provider(crypto::provider())
            .with_safe_default_protocol_versions()
            .expect("a provider of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(crypto::Verifier(CERTIFICATE)))
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        Arc::new(config)
    });
    CONFIG.clone()
}

/// Returns the first message of a client.
pub(super) fn client_hello() -> Vec<u8> {
    let mut hello = Vec::new();
    let name = ServerName::try_from(NAME).map_err(io::Error::other);
    let client = name
        .and_then(|name| ClientConnection::new(client_config(), name).map_err(io::Error::other));
    // Neither the name nor the configuration is invalid.
    let _ = client.and_then(|mut client| client.write_tls(&mut hello));
    hello
}

/// A route whose connections speak TLS. `tcp connected` is recorded before the handshake, and
/// `connected` after it. The end of each connection is recorded as `tls end`: with `clean` =
/// `yes` after a close_notify, with `no` after a FIN without one.
#[derive(Clone, Debug)]
pub struct TlsRoute<C> {
    route: C,
    client_id: ClientId,
}

impl<C> TlsRoute<C> {
    /// Adds TLS to the route of a client.
    pub const fn new(route: C, client_id: ClientId) -> Self {
        Self { route, client_id }
    }
}

impl<C: Connect> Connect for TlsRoute<C> {
    type Io = TlsIo<C::Io>;

    async fn connect(&self) -> io::Result<Self::Io> {
        let io = self.route.connect().await?;
        self.client_id.tell("tcp connected", &[]);
        let name = ServerName::try_from(NAME).map_err(io::Error::other)?;
        let stream = TlsConnector::from(client_config()).connect(name, InParts::new(io)).await?;
        Ok(TlsIo { stream, client_id: self.client_id.clone(), is_end_recorded: false })
    }

    fn reset(io: Self::Io) {
        C::reset(io.stream.into_inner().0.io);
    }

    fn is_broken(io: &Self::Io) -> bool {
        C::is_broken(&io.stream.get_ref().0.io)
    }

    fn send_in_parts(io: &mut Self::Io, parts: RecordParts) -> bool {
        io.stream.get_mut().0.send_in_parts(parts);
        true
    }
}

/// A client's connection with TLS.
#[derive(Debug)]
pub struct TlsIo<Io> {
    stream: client::TlsStream<InParts<Io>>,
    client_id: ClientId,
    is_end_recorded: bool,
}

impl<Io> TlsIo<Io> {
    fn record_end(&mut self, clean: &'static str) {
        if !std::mem::replace(&mut self.is_end_recorded, true) {
            self.client_id.tell("tls end", &[("clean", clean.into())]);
        }
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsIo<Io> {
    /// A FIN without a close_notify ends the stream as over TCP.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match ready!(Pin::new(&mut this.stream).poll_read(cx, buf)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => this.record_end("no"),
            Err(error) => return Poll::Ready(Err(error)),
            Ok(()) if buf.filled().len() == before && buf.remaining() > 0 => this.record_end("yes"),
            Ok(()) => {}
        }
        Poll::Ready(Ok(()))
    }
}

impl<Io: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsIo<Io> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Every second client sends only its close_notify, which ends its side as a FIN does. The FIN
    /// comes when it closes.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.client_id.is_odd() {
            this.stream.get_mut().1.send_close_notify();
            return Pin::new(&mut this.stream).poll_flush(cx);
        }
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}
