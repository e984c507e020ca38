//! The certificate and key of a host, read from files.

use rustls::{
    crypto::CryptoProvider,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    sign::CertifiedKey,
};
use std::{
    error::Error,
    fmt, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tokio::sync::oneshot;
use x509_cert::{Certificate, der::Decode};

/// The paths of a certificate chain and its key, both PEM.
#[derive(Clone, Debug)]
pub(crate) struct CertificateFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

/// A certificate chain and the key that belongs to it.
pub(super) struct Loaded {
    pub(super) key: CertifiedKey,
    /// The end of the validity of the first certificate, since the Unix epoch; `None` if it cannot
    /// be read.
    pub(super) expires: Option<Duration>,
}

/// The content of both files at one moment.
pub(crate) struct Content {
    pub(super) certificate: io::Result<Vec<u8>>,
    pub(super) key: io::Result<Vec<u8>>,
}

impl CertificateFiles {
    pub(crate) fn read(&self) -> Content {
        Content { certificate: fs::read(&self.certificate), key: fs::read(&self.key) }
    }

    /// Reads the files on a separate thread, since a pipe or a file system may block it for ever.
    /// The caller has a limit.
    ///
    /// # Errors
    /// If there is no thread for it.
    pub(crate) async fn read_aside(&self) -> io::Result<Content> {
        let (result, read) = oneshot::channel();
        let files = self.clone();
        let read_files = move || drop(result.send(files.read()));
        thread::Builder::new().name("lameduck-certif".into()).spawn(read_files)?;
        read.await.map_err(io::Error::other)
    }

    /// Parses the content, and checks that the key belongs to the certificate.
    pub(super) fn parse(
        &self,
        content: Content,
        provider: &CryptoProvider,
    ) -> Result<Loaded, CertificateError> {
        let Content { certificate, key } = content;
        let at = |path: &Path, reason: Reason| CertificateError { path: path.to_owned(), reason };
        let of_chain = |reason| at(&self.certificate, reason);
        let of_key = |reason| at(&self.key, reason);
        let certificate = certificate.map_err(|error| of_chain(Reason::Unreadable(error)))?;
        let key = key.map_err(|error| of_key(Reason::Unreadable(error)))?;
        let chain = CertificateDer::pem_slice_iter(&certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| of_chain(Reason::NoPem(error)))?;
        let Some(first) = chain.first() else { return Err(of_chain(Reason::NoCertificate)) };
        let expires = Certificate::from_der(first)
            .ok()
            .map(|certificate| certificate.tbs_certificate.validity.not_after.to_unix_duration());
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
            let is_none = matches!(error, pem::Error::NoItemsFound);
            of_key(if is_none { Reason::NoKey } else { Reason::NoPem(error) })
        })?;
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
            let is_mismatch = matches!(error, rustls::Error::InconsistentKeys(_));
            of_key(if is_mismatch {
                Reason::NoMatch(self.certificate.clone())
            } else {
                Reason::Unusable(error)
            })
        })?;
        Ok(Loaded { key, expires })
    }
}

impl Content {
    /// Returns a number that differs if the content does.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for file in [&self.certificate, &self.key] {
            file.as_ref().map_err(io::Error::kind).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// A certificate or key that cannot be used.
#[derive(Debug)]
pub(crate) struct CertificateError {
    path: PathBuf,
    reason: Reason,
}

#[derive(Debug)]
enum Reason {
    Unreadable(io::Error),
    NoPem(pem::Error),
    NoCertificate,
    NoKey,
    NoMatch(PathBuf),
    Unusable(rustls::Error),
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.reason {
            Reason::Unreadable(_) => write!(f, "cannot read {path}"),
            Reason::NoPem(_) => write!(f, "{path} is not PEM"),
            Reason::NoCertificate => write!(f, "no certificate in {path}"),
            Reason::NoKey => write!(f, "no private key in {path}"),
            Reason::NoMatch(certificate) => write!(
                f,
                "the key in {path} does not belong to the certificate in {}",
                certificate.display()
            ),
            Reason::Unusable(_) => write!(f, "cannot use the key in {path}"),
        }
    }
}

impl Error for CertificateError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.reason {
            Reason::Unreadable(error) => Some(error),
            Reason::NoPem(error) => Some(error),
            Reason::Unusable(error) => Some(error),
            Reason::NoCertificate | Reason::NoKey | Reason::NoMatch(_) => None,
        }
    }
}
