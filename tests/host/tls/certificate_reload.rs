//! Replaces certificate and key in files while the host serves.

use super::*;
use crate::support::{aside, scratch_path};
use client::config_of_several;
use lameduck::{
    lifecycle::Moment,
    os::TokioClock,
    runtime::{Clock, Sleep},
};
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    task::{Context, Poll},
    time::SystemTime,
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

    fn settings(&self) -> Settings {
        settings().tls_files(self.0.join("tls.crt"), self.0.join("tls.key"))
    }

    fn host(&self) -> Host<impl HttpService> {
        host_with(self.settings()).serve_hyper(service_fn(serve))
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
    let load = aside({
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

/// How many times faster the host's clock runs in the next test. The files are read once a second.
const SPEED: u32 = 50;

/// A clock that runs faster than the real one.
#[derive(Debug)]
struct FastClock(TokioClock);

struct FastSleep(Pin<Box<dyn Sleep>>);

fn real(at: Moment) -> Moment {
    Moment::EPOCH + at.since_epoch() / SPEED
}

impl Future for FastSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl Sleep for FastSleep {
    fn reset(mut self: Pin<&mut Self>, at: Moment) {
        self.0.as_mut().reset(real(at));
    }
}

impl Clock for FastClock {
    fn now(&self) -> Moment {
        Moment::EPOCH + self.0.now().since_epoch() * SPEED
    }

    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Sleep>> {
        Box::pin(FastSleep(self.0.sleep_until(real(at))))
    }

    fn wall(&self) -> SystemTime {
        self.0.wall()
    }
}

/// A host whose time limits are as long as usual in real time, although its clock runs fast.
fn fast_host(mounted: &Mounted) -> Host<impl HttpService> {
    let span = |seconds| Duration::from_secs(seconds) * SPEED;
    let limits = Limits::default()
        .first_byte_timeout(span(60))
        .tls_handshake_timeout(span(10))
        .header_timeout(span(10))
        .send_timeout(span(30))
        .keep_alive(span(600));
    let plan = quick_plan().start(span(10)).lame_duck(Duration::ZERO).drain(span(8));
    let plan = plan.cancel(span(1)).cleanup(span(2)).internal_close(span(1));
    let settings = mounted.settings().limits(limits).plan(plan).grace_period(Duration::ZERO);
    Host::builder(settings.request_timeout(None)).serve_hyper(service_fn(serve))
}

/// Sends requests until `done`, with pauses. Counts the complete responses; panics at any other.
fn load(
    done: &Arc<AtomicBool>,
    served: &Arc<AtomicU64>,
    mut request: impl FnMut() -> String + Send + 'static,
) -> std::thread::JoinHandle<()> {
    let (done, served) = (done.clone(), served.clone());
    aside(move || {
        while !done.load(Relaxed) {
            assert_eq!(request(), "hello");
            served.fetch_add(1, Relaxed);
            block(Duration::from_millis(4));
        }
    })
}

#[test]
fn a_certificate_is_replaced_a_hundred_times_under_load_and_no_request_fails() {
    let identities = [identity(), identity(), identity()];
    let mounted = Mounted::new("hundred", &identities[0], &identities[0]);
    let app = App::spawn_by(fast_host(&mounted), Workers::Threads(1), FastClock);
    until_holds("the start", || app.probe("/startupz").status == 200);
    let main = app.main;
    let trusting = |alpn: &[&str]| {
        config_of_several(identities.iter().map(|identity| &identity.certificate), alpn)
    };
    let (http1, http2) = (trusting(&["http/1.1"]), trusting(&["h2"]));
    let mut kept1 = TlsClient::connect(main, &http1);
    let mut kept2 = TlsClient::connect(main, &http2);
    kept2.start_http2("/");
    assert_eq!(kept2.http2_body().unwrap(), "hello");
    let (done, mut stream) = (Arc::<AtomicBool>::default(), 1);
    let served: [Arc<AtomicU64>; 4] = Default::default();
    let loads = [
        load(&done, &served[0], move || kept1.get("/").body()),
        load(&done, &served[1], move || {
            stream += 2;
            kept2.send_http2("/", stream);
            kept2.http2_body().unwrap()
        }),
        load(&done, &served[2], move || TlsClient::connect(main, &http1).get("/").body()),
        load(&done, &served[3], move || {
            let mut client = TlsClient::connect(main, &http2);
            client.start_http2("/");
            client.http2_body().unwrap()
        }),
    ];
    for n in 1..=100 {
        let next = &identities[n % identities.len()];
        mounted.replace(&n.to_string(), next, next);
        until_holds("the new certificate", || serves(&app, next));
    }
    done.store(true, Relaxed);
    for load in loads {
        load.join().expect("no request fails");
    }
    let served = served.map(|count| count.load(Relaxed));
    assert!(served.iter().all(|count| *count >= 100), "{served:?}");
    let report = app.end();
    let connections = report.connections;
    assert_eq!((report.code(), report.requests.started), (0, report.requests.finished));
    assert_eq!((connections.reset, connections.close_races), (0, 0), "{connections:?}");
    let timeouts = (connections.handshake_timeouts, connections.first_byte_timeouts);
    assert_eq!(timeouts, (0, 0), "{connections:?}");
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
