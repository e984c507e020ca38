//! Replaces certificate and key in files while the host serves.

use super::*;
use crate::support::scratch_path;
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

/// A directory whose files are replaced as Kubernetes does: by another target of a symlink.
struct Mounted(PathBuf);

impl Mounted {
    fn new(name: &str, certificate: &Identity, key: &Identity) -> Self {
        let mounted = Self(scratch_path(name));
        fs::create_dir(&mounted.0).unwrap();
        mounted.replace("0", certificate, key);
        for file in ["tls.crt", "tls.key"] {
            symlink(Path::new("data").join(file), mounted.0.join(file)).unwrap();
        }
        mounted
    }

    fn replace(&self, version: &str, certificate: &Identity, key: &Identity) {
        let folder = self.0.join(version);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("tls.crt"), &certificate.certificate_pem).unwrap();
        fs::write(folder.join("tls.key"), &key.key_pem).unwrap();
        let next = self.0.join("next");
        symlink(version, &next).unwrap();
        fs::rename(next, self.0.join("data")).unwrap();
    }

    fn host(&self) -> Host<impl HttpService> {
        let settings = settings().tls_files(self.0.join("tls.crt"), self.0.join("tls.key"));
        host_with(settings).serve_hyper(service_fn(serve))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether a new connection gets this certificate.
fn serves(app: &App, identity: &Identity) -> bool {
    let mut client = TlsClient::silent(app.main, &identity.client(&[]));
    client.handshake().is_ok() && client.get("/").status == 200
}

#[test]
fn a_replaced_certificate_is_used_by_new_connections_and_loses_none() {
    let identities = [identity(), identity(), identity()];
    let mounted = Mounted::new("reload", &identities[0], &identities[0]);
    let app = App::start_on(mounted.host(), Workers::Threads(1));
    let mut old = TlsClient::connect(app.main, &identities[0].client(&[]));
    assert_eq!(old.get("/").body(), "hello");
    let main = app.main;
    let (done, trusted) = (
        Arc::new(AtomicBool::new(false)),
        identities.iter().map(|identity| identity.certificate.clone()).collect::<Vec<_>>(),
    );
    // Each connection gets one of the certificates, and its response.
    let load = crate::support::aside({
        let done = done.clone();
        move || {
            let mut served = 0;
            while !done.load(Relaxed) {
                let is_served = trusted.iter().any(|certificate| {
                    let mut client = TlsClient::silent(main, &config(certificate, &[]));
                    match client.handshake() {
                        Ok(()) => client.get("/").status == 200,
                        Err(End::Refused) => false,
                        Err(end) => panic!("{end:?}"),
                    }
                });
                assert!(is_served);
                served += 1;
            }
            served
        }
    });
    for (n, identity) in identities.iter().enumerate().skip(1) {
        mounted.replace(&n.to_string(), identity, identity);
        until_holds("the new certificate", || serves(&app, identity));
        assert!(!serves(&app, &identities[n - 1]));
        assert_eq!(old.get("/").body(), "hello");
    }
    done.store(true, Relaxed);
    assert!(load.join().unwrap() > 0);
    assert_eq!(app.end().code(), 0);
}

#[test]
fn a_pair_that_does_not_match_leaves_the_current_one_in_place() {
    let (first, second, third) = (identity(), identity(), identity());
    let mounted = Mounted::new("mismatch", &first, &first);
    let app = App::start_on(mounted.host(), Workers::Task);
    mounted.replace("1", &second, &third);
    block(Duration::from_millis(3_500));
    assert!(serves(&app, &first));
    assert!(!serves(&app, &second) && !serves(&app, &third));
    mounted.replace("2", &second, &second);
    until_holds("the new certificate", || serves(&app, &second));
    assert_eq!(app.end().code(), 0);
}

#[test]
fn tickets_survive_a_replaced_certificate() {
    let (first, second) = (identity(), identity());
    let mounted = Mounted::new("tickets", &first, &first);
    let app = App::start_on(mounted.host(), Workers::Task);
    let client_config = first.client(&[]);
    let mut client = TlsClient::connect(app.main, &client_config);
    assert_eq!(client.get("/").body(), "hello");
    mounted.replace("1", &second, &second);
    until_holds("the new certificate", || serves(&app, &second));
    let mut client = TlsClient::connect(app.main, &client_config);
    assert_eq!(client.tls.handshake_kind(), Some(rustls::HandshakeKind::Resumed));
    assert_eq!(client.get("/").body(), "hello");
    assert_eq!(app.end().code(), 0);
}

/// Runs a host that does not start. Returns its exit code and its error.
fn refused(settings: Settings) -> (u8, String) {
    let host = host_with(settings).serve_hyper(service_fn(serve));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let report = runtime.block_on(host.run());
    (report.code(), report.error.expect("an error").with_causes().to_owned())
}

#[test]
fn files_that_cannot_be_used_are_refused_with_one_clear_line() {
    let (identity, other) = (identity(), identity());
    let folder = scratch_path("refused");
    fs::create_dir(&folder).unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let certificate = file("certificate.pem", &identity.certificate_pem);
    let key = file("key.pem", &identity.key_pem);
    let other = file("other.pem", &other.key_pem);
    let empty = file("empty.pem", "");
    let missing = folder.join("missing.pem");
    for (certificate, key, expected) in [
        (&missing, &key, "cannot read {}: No such file or directory"),
        (&certificate, &missing, "cannot read {}: No such file or directory"),
        (&empty, &key, "no certificate in {}"),
        (&certificate, &empty, "no private key in {}"),
        (&certificate, &other, "the key in {} does not belong to the certificate in"),
    ] {
        let (code, error) = refused(settings().tls_files(certificate, key));
        let culprit =
            [&missing, &empty, &other].into_iter().find(|path| [certificate, key].contains(path));
        let expected = expected.replace("{}", &culprit.unwrap().display().to_string());
        assert_eq!(code, 1, "{error}");
        assert!(error.starts_with(&format!("cannot speak TLS: {expected}")), "{error}");
    }
    let mut alone = settings();
    alone.tls_cert = Some(certificate.clone());
    let (code, error) = refused(alone);
    assert_eq!(code, 2);
    assert!(error.contains("tls_cert") && error.contains("set tls_key, too"), "{error}");
    let mut alone = settings();
    alone.tls_key = Some(key);
    assert_eq!(refused(alone).0, 2);
    fs::remove_dir_all(&folder).unwrap();
}
