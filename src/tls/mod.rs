//! TLS by rustls, on the main server.
//!
//! | file | its job |
//! |---|---|
//! | [`listener`] | the listeners of an address, whose connections may speak TLS |
//! | [`plain_or_tls`] | one of its connections: with TLS, or without |
//! | [`stream`] | a connection with TLS: the handshake, records, the end |
//! | [`session`] | rustls over bytes, without a socket |
//! | [`certificate`] | certificate and key, from PEM files |
//! | [`certificate_reload`] | replaces them while the host serves |

mod certificate;
mod certificate_reload;
mod listener;
mod plain_or_tls;
mod session;
mod stream;

pub(crate) use certificate::{CertificateFiles, Content as CertificateContent};
pub(crate) use certificate_reload::ReloadingCertificate;
pub(crate) use listener::TlsReservation;

use certificate::{CertificateError, Content};
use rustls::{ServerConfig, crypto::CryptoProvider, server::ProducesTickets};
use session::Session;
use std::{error::Error, fmt, sync::Arc};

/// Returns a configuration with the certificate in `content`, which was read from `files`. It
/// offers TLS 1.2 and 1.3, and by ALPN HTTP/2 and HTTP/1.1. It requests no client certificate.
///
/// # Errors
/// If there is no provider of cryptography, or if the files cannot be used.
pub(crate) fn from_files(
    files: CertificateFiles,
    content: Content,
) -> Result<(Arc<ServerConfig>, Arc<ReloadingCertificate>), TlsError> {
    let provider = provider().ok_or(TlsError::NoProvider)?;
    let certificate = ReloadingCertificate::load(files, content, provider.clone())?;
    let certificate = Arc::new(certificate);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificate.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    if let Some(ticketer) = ticketer()? {
        config.ticketer = ticketer;
    }
    Ok((Arc::new(config), certificate))
}

/// Makes a session of a configuration, and drops it.
///
/// # Errors
/// If rustls cannot use the configuration.
pub(crate) fn check(config: &Arc<ServerConfig>) -> Result<(), rustls::Error> {
    Session::new(config.clone()).map(drop)
}

/// The provider that the process has installed, or else the one of the features.
fn provider() -> Option<Arc<CryptoProvider>> {
    if let Some(installed) = CryptoProvider::get_default() {
        return Some(installed.clone());
    }
    #[cfg(feature = "tls-ring")]
    return Some(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(all(feature = "tls-aws-lc-rs", not(feature = "tls-ring")))]
    return Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    None
}

/// Encrypts tickets with keys that only this process has, so that sessions are resumed on every
/// worker.
#[cfg_attr(
    not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")),
    expect(clippy::unnecessary_wraps, reason = "the signature with a provider")
)]
fn ticketer() -> Result<Option<Arc<dyn ProducesTickets>>, rustls::Error> {
    #[cfg(feature = "tls-ring")]
    return rustls::crypto::ring::Ticketer::new().map(Some);
    #[cfg(all(feature = "tls-aws-lc-rs", not(feature = "tls-ring")))]
    return rustls::crypto::aws_lc_rs::Ticketer::new().map(Some);
    #[cfg(not(any(feature = "tls-ring", feature = "tls-aws-lc-rs")))]
    Ok(None)
}

/// Why a host cannot speak TLS.
#[derive(Debug)]
pub(crate) enum TlsError {
    Certificate(CertificateError),
    NoProvider,
    Rustls(rustls::Error),
}

impl From<CertificateError> for TlsError {
    fn from(error: CertificateError) -> Self {
        Self::Certificate(error)
    }
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Rustls(error)
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(error) => error.fmt(f),
            Self::NoProvider => f.write_str(
                "no provider of cryptography: enable the feature tls-ring or tls-aws-lc-rs, or \
                 install one (rustls::crypto::CryptoProvider::install_default)",
            ),
            Self::Rustls(error) => error.fmt(f),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Certificate(error) => error.source(),
            Self::NoProvider => None,
            Self::Rustls(error) => error.source(),
        }
    }
}
