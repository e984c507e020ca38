//! Replaces the certificate while the host serves. The configuration stays the same, so sessions
//! and tickets survive.

use super::certificate::{CertificateError, CertificateFiles, Content, Loaded};
use crate::{errors::Chain, runtime::Clock};
use rustls::{
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::mpsc;

/// Interval at which the files are read. They are a few kilobytes. Their content shows a change
/// whatever the time stamps say, and however a directory or symlink was replaced.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The current certificate of a host, and the files that it came from.
#[derive(Debug)]
pub(crate) struct ReloadingCertificate {
    files: CertificateFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    watched: Mutex<Watched>,
    /// In seconds since the Unix epoch; 0 if unknown.
    expires: AtomicU64,
    /// In seconds since the Unix epoch; 0 before the first.
    last_reload: AtomicU64,
    reloaded: AtomicU64,
    failed: AtomicU64,
}

/// What the files contained.
#[derive(Debug)]
struct Watched {
    /// Fingerprint of the content that is in use.
    loaded: u64,
    /// Fingerprint of the content that was last loaded or refused.
    decided: u64,
    /// Fingerprint of the content that was last read.
    seen: u64,
}

impl ReloadingCertificate {
    /// # Errors
    /// If the files cannot be used.
    pub(super) fn load(
        files: CertificateFiles,
        content: Content,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, CertificateError> {
        let fingerprint = content.fingerprint();
        let Loaded { key, expires } = files.parse(content, &provider)?;
        Ok(Self {
            files,
            provider,
            current: RwLock::new(Arc::new(key)),
            watched: Mutex::new(Watched {
                loaded: fingerprint,
                decided: fingerprint,
                seen: fingerprint,
            }),
            expires: AtomicU64::new(expires.map_or(0, |expires| expires.as_secs())),
            last_reload: AtomicU64::new(0),
            reloaded: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Checks the files every second until the future is dropped. A separate thread reads them, so
    /// that a file system that hangs stops neither the driver nor the exit.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn watch(
        self: Arc<Self>,
        clock: Arc<dyn Clock>,
    ) -> io::Result<impl Future<Output = ()> + Send> {
        let (requests, mut requested) = mpsc::channel::<()>(1);
        let (contents, mut read) = mpsc::channel(1);
        let files = self.files.clone();
        thread::Builder::new().name("lameduck-certif".into()).spawn(move || {
            while requested.blocking_recv().is_some() {
                let _ = contents.blocking_send(files.read());
            }
        })?;
        Ok(async move {
            loop {
                clock.sleep_until(clock.now() + READ_INTERVAL).await;
                let _ = requests.send(()).await;
                let Some(content) = read.recv().await else { return };
                self.check(content, clock.wall());
            }
        })
    }

    /// Loads the files once their content has changed and stayed the same for one interval: a
    /// program that writes one file after the other is not caught between them. A certificate that
    /// cannot be used leaves the current one in place.
    fn check(&self, content: Content, now: SystemTime) {
        let fingerprint = content.fingerprint();
        {
            let mut watched = self.watched();
            let is_stable = watched.seen == fingerprint;
            watched.seen = fingerprint;
            if fingerprint == watched.decided || !is_stable {
                return;
            }
            watched.decided = fingerprint;
            if fingerprint == watched.loaded {
                return;
            }
        }
        match self.files.parse(content, &self.provider) {
            Ok(Loaded { key, expires }) => {
                self.watched().loaded = fingerprint;
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                self.expires.store(expires.map_or(0, |expires| expires.as_secs()), Relaxed);
                let now = now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                self.last_reload.store(now.as_secs(), Relaxed);
                self.reloaded.fetch_add(1, Relaxed);
                let path = self.files.certificate.display();
                crate::log::info!(%path, "the TLS certificate was replaced");
            }
            Err(error) => {
                self.failed.fetch_add(1, Relaxed);
                crate::log::warn!(
                    error = %Chain(&error),
                    "cannot use the new TLS certificate; keeping the current one"
                );
            }
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of the certificate's validity, in seconds since the Unix epoch.
    pub(crate) fn expires(&self) -> Option<u64> {
        Some(self.expires.load(Relaxed)).filter(|expires| *expires > 0)
    }

    /// The last reload, in seconds since the Unix epoch.
    pub(crate) fn last_reload(&self) -> Option<u64> {
        Some(self.last_reload.load(Relaxed)).filter(|at| *at > 0)
    }

    /// The numbers of reloads that succeeded and that failed.
    pub(crate) fn reloads(&self) -> [(&'static str, u64); 2] {
        [("replaced", self.reloaded.load(Relaxed)), ("refused", self.failed.load(Relaxed))]
    }
}

impl ResolvesServerCert for ReloadingCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pair = rcgen::CertifiedKey<rcgen::KeyPair>;

    fn new_pair() -> Pair {
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap()
    }

    fn content(certificate: &Pair, key: &Pair) -> Content {
        let [certificate, key] = [certificate.cert.pem(), key.signing_key.serialize_pem()];
        Content { certificate: Ok(certificate.into_bytes()), key: Ok(key.into_bytes()) }
    }

    fn loaded(content: Content) -> ReloadingCertificate {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let files = CertificateFiles { certificate: "cert.pem".into(), key: "key.pem".into() };
        ReloadingCertificate::load(files, content, provider).unwrap()
    }

    // A process that could not open its files for two seconds logged that its certificate was
    // replaced, and counted it, when it could read them again. They had not changed (P13).
    #[test]
    fn a_certificate_that_can_be_read_again_was_not_replaced() {
        let [old, new] = [new_pair(), new_pair()];
        let unreadable = || {
            let error = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
            Content { certificate: error(), key: error() }
        };
        let current = loaded(content(&old, &old));
        for read in [unreadable(), unreadable(), content(&old, &old), content(&old, &old)] {
            current.check(read, UNIX_EPOCH);
        }
        assert_eq!(current.reloads(), [("replaced", 0), ("refused", 1)]);
        for read in [content(&new, &new), content(&new, &new), unreadable(), unreadable()] {
            current.check(read, UNIX_EPOCH);
        }
        for read in [content(&new, &new), content(&new, &new)] {
            current.check(read, UNIX_EPOCH);
        }
        assert_eq!(current.reloads(), [("replaced", 1), ("refused", 2)]);
    }

    // A program that replaces one file after the other was caught between them: the operator got a
    // warning for each renewal of the certificate.
    #[test]
    fn files_are_not_loaded_between_the_writes_of_two() {
        let [old, new] = [new_pair(), new_pair()];
        let current = loaded(content(&old, &old));
        current.check(content(&new, &old), UNIX_EPOCH);
        current.check(content(&new, &new), UNIX_EPOCH);
        assert_eq!(current.reloads(), [("replaced", 0), ("refused", 0)], "nothing is stable");
        current.check(content(&new, &new), UNIX_EPOCH);
        assert_eq!(current.reloads(), [("replaced", 1), ("refused", 0)]);
    }
}
