//! P4, P5, P5a, P5b, P5d, P6, P14, P15: connections over TLS are drained as those over TCP.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

mod certificate_reload;
mod client;
mod drain;
mod handshake;
mod spent_keys;

use crate::support::{App, app::Workers, block, quick_plan, service_fn, settings, until_holds};
use axum::body::Body;
use client::{End, TlsClient, config};
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use lameduck::{Host, HostErrorKind, HttpService, Limits, Settings};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert, ResolvesServerCertUsingSni},
    sign::CertifiedKey,
};
use std::{convert::Infallible, sync::Arc, time::Duration};

const ALL_WORKERS: [Workers; 2] = [Workers::Task, Workers::Threads(1)];

/// A certificate for `localhost` and its key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

fn identity() -> Identity {
    identity_of("localhost")
}

fn identity_of(name: &str) -> Identity {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Identity {
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    }
}

impl Identity {
    fn server(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        config(&self.certificate, alpn)
    }
}

/// Serves `hello`; `/slow` after 400 ms, `/endless` a body that never ends, `/large` 40 MB,
/// `/chunks` 40 MB of unknown length, `/echo` the request's body, `/half` whether the client's
/// half-close was seen within 5 s.
async fn serve(request: Request<lameduck::Body>) -> Result<Response<Body>, Infallible> {
    let body = match request.uri().path() {
        "/slow" => {
            crate::support::pause(400).await;
            Body::from("slow")
        }
        "/endless" => {
            let first = futures_util::stream::iter([Ok::<_, Infallible>("first")]);
            Body::from_stream(first.chain(futures_util::stream::pending()))
        }
        "/large" => Body::from(vec![b'x'; 40 << 20]),
        "/chunks" => {
            let chunk = || Ok::<_, Infallible>(vec![b'x'; 10_000]);
            Body::from_stream(futures_util::stream::iter((0..4_000).map(move |_| chunk())))
        }
        "/echo" => Body::from(request.into_body().collect().await.unwrap().to_bytes()),
        "/half" => {
            let context = request.body().context().clone();
            context.cancelled().await;
            Body::from(format!("{:?}", context.cancel_cause()))
        }
        _ => Body::from("hello"),
    };
    Ok(Response::new(body))
}

fn host_with(settings: Settings) -> lameduck::Builder {
    let plan = quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_secs(8));
    Host::builder(settings.plan(plan).request_timeout(None))
}

fn host(identity: &Identity, limits: Limits) -> Host<impl HttpService> {
    host_with(settings().limits(limits)).tls(identity.server()).serve_hyper(service_fn(serve))
}

fn start(identity: &Identity, workers: Workers) -> App {
    App::start_on(host(identity, Limits::default()), workers)
}

/// Waits until idle connections are in the idle set, where there is one.
fn park() {
    block(Duration::from_millis(1_500));
}

#[test]
fn alpn_chooses_the_protocol() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        for alpn in [&["http/1.1"][..], &[]] {
            let mut client = TlsClient::connect(app.main, &identity.client(alpn));
            assert_eq!(client.get("/").body(), "hello");
            assert_eq!(client.get("/slow").body(), "slow");
        }
        for alpn in [&["h2", "http/1.1"][..], &[]] {
            let mut client = TlsClient::connect(app.main, &identity.client(alpn));
            client.start_http2("/");
            assert_eq!(client.http2_body().unwrap(), "hello");
        }
        // A client that does not speak what it agreed on is refused by the other's parser.
        let mut confused = TlsClient::connect(app.main, &identity.client(&["h2"]));
        confused.send_get("/");
        assert_ne!(confused.end(), End::Reset);
        assert!(!confused.unread.starts_with(b"HTTP/1"), "{:?}", confused.unread);
        let mut confused = TlsClient::connect(app.main, &identity.client(&["http/1.1"]));
        confused.start_http2("/");
        assert_eq!(confused.end(), End::Clean);
        assert_eq!(confused.unread, b"", "no SETTINGS");
        let report = app.end();
        assert_eq!((report.code(), report.connections.handshakes), (0, 6));
    }
}

#[test]
fn the_users_resolver_chooses_the_certificate_by_the_name_of_the_server() {
    let names = ["one.example", "two.example"];
    let identities = names.map(identity_of);
    let provider = rustls::crypto::ring::default_provider();
    let mut resolver = ResolvesServerCertUsingSni::new();
    for (name, Identity { certificate, key, .. }) in names.iter().zip(&identities) {
        let key = provider.key_provider.load_private_key(key.clone_key()).unwrap();
        resolver.add(name, CertifiedKey::new(vec![certificate.clone()], key)).unwrap();
    }
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    let host = host_with(settings()).tls(Arc::new(config)).serve_hyper(service_fn(serve));
    let app = App::start(host);
    for (name, identity) in names.iter().zip(&identities) {
        let mut client = TlsClient::silent_to(name, app.main, &identity.client(&[]));
        client.handshake().expect("the certificate of this name");
        assert_eq!(client.get("/").body(), "hello");
    }
    let mut other = TlsClient::silent(app.main, &identities[0].client(&[]));
    assert_eq!(other.handshake(), Err(End::Refused), "no certificate has this name");
    let report = app.end();
    assert_eq!((report.code(), report.connections.handshakes_failed), (0, 1));
}

// An idle connection read the empty lines and left the request in the session, where the poller
// does not see it. It was served when the client sent more, or never.
#[test]
fn a_request_behind_empty_lines_in_one_record_is_served() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let mut client = TlsClient::connect(app.main, &identity.client(&[]));
        assert_eq!(client.get("/").body(), "hello");
        park();
        let lines = b"\r\n".repeat(2_048);
        client.send([&lines[..], lameduck_wire::http1::get_bytes("/").as_ref()].concat());
        assert_eq!(client.response().expect("a response").body(), "hello", "{workers:?}");
        assert_eq!(app.end().code(), 0);
    }
}

#[test]
fn idle_connections_make_room_at_the_limit_and_end_cleanly() {
    // An idle connection waits for the kernel to report bytes. It must also wake up to make room.
    let identity = identity();
    let limits = Limits::default().connections_max(2);
    for workers in ALL_WORKERS {
        for is_parked in [false, true] {
            let app = App::start_on(host(&identity, limits), workers);
            let mut clients = [(); 2].map(|()| {
                let mut client = TlsClient::connect(app.main, &identity.client(&[]));
                assert_eq!(client.get("/").body(), "hello");
                client
            });
            if is_parked {
                park();
            }
            let mut third = TlsClient::connect(app.main, &identity.client(&[]));
            assert_eq!(third.get("/").body(), "hello");
            assert_eq!(clients[0].end(), End::Clean, "{workers:?}, parked: {is_parked}");
            assert_eq!(clients[1].get("/").body(), "hello");
            let report = app.end();
            assert_eq!((report.code(), report.connections.evicted), (0, 1));
        }
    }
}

#[test]
fn parked_connections_serve_requests_of_any_size() {
    // One record may hold more than a parked connection reads at once. What is left is in the
    // session, where the kernel does not report it.
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let mut client = TlsClient::connect(app.main, &identity.client(&[]));
        assert_eq!(client.get("/").body(), "hello");
        park();
        assert_eq!(client.get("/").body(), "hello");
        park();
        let burst = lameduck_wire::http1::get_bytes("/").repeat(120);
        client.send(&burst);
        for _ in 0..120 {
            assert_eq!(client.response().unwrap().body(), "hello", "{workers:?}");
        }
        park();
        let body = "x".repeat(100_000);
        client.send(format!(
            "POST /echo HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.response().unwrap().body(), body);
        let report = app.end();
        assert_eq!((report.code(), report.requests.finished), (0, 123));
    }
}

// The host started, `/serving` was 200, and each connection was dropped: rustls refused every
// session. A failed start is loud (P14).
#[test]
fn a_configuration_that_rustls_refuses_ends_the_start() {
    let mut config = (*identity().server()).clone();
    config.max_fragment_size = Some(16);
    let host = host_with(settings()).tls(Arc::new(config)).serve_hyper(service_fn(serve));
    let stop = host.shutdown_handle();
    crate::support::aside(move || {
        block(Duration::from_secs(5));
        stop.stop();
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let report = runtime.block_on(host.run());
    let error = report.error.as_ref().expect("an error");
    assert_eq!((report.code(), error.kind()), (1, HostErrorKind::Tls));
    assert!(
        error.with_causes().starts_with("cannot speak TLS with the configuration: "),
        "{error:#}"
    );
}

/// Has no certificate, and panics when it is dropped, as a runtime does that it may hold.
#[derive(Debug)]
struct PanicsOnDrop;

impl ResolvesServerCert for PanicsOnDrop {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("a destructor, on purpose");
    }
}

// The resolver of a service held a runtime, whose destructor panics where the host dropped it. The
// report was lost, and the exit code was 101 (P13). With a callback that panicked, too, the process
// was aborted.
#[test]
fn what_a_resolver_holds_does_not_replace_the_report() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string().parse().unwrap();
    let unusable: fn(&mut ServerConfig) = |config| config.max_fragment_size = Some(16);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for (settings, change, failure) in [
        (settings(), (|_| ()) as fn(&mut ServerConfig), None),
        (settings().main_address(taken), |_| (), Some(HostErrorKind::Listen)),
        (settings(), unusable, Some(HostErrorKind::Tls)),
        (settings().tls_files("/no/crt", "/no/key"), |_| (), Some(HostErrorKind::Settings)),
    ] {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(PanicsOnDrop));
        change(&mut config);
        let callback = failure.map(|_| PanicsOnDrop);
        let host = host_with(settings)
            .tls(Arc::new(config))
            .on_bound(move |_| drop(callback))
            .serve_hyper(service_fn(serve));
        host.shutdown_handle().stop();
        let report = runtime.block_on(host.run());
        let code = failure.map_or(0, |kind| if kind == HostErrorKind::Settings { 2 } else { 1 });
        let kind = report.error.as_ref().map(lameduck::HostError::kind);
        assert_eq!((report.code(), kind), (code, failure), "{report:?}");
    }
}

#[test]
fn a_request_is_served_after_the_clients_half_close() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        for path in ["/", "/slow", "/half"] {
            let mut notified = TlsClient::connect(app.main, &identity.client(&[]));
            notified.send_get(path);
            notified.send_close_notify();
            let response = notified.response().unwrap();
            assert_eq!(response.status, 200, "{path}");
            if path == "/half" {
                assert_eq!(response.body(), "Some(ClientHalfClosed)");
            }
            assert_eq!(notified.end(), End::Clean, "{path}");
            let mut shut = TlsClient::connect(app.main, &identity.client(&[]));
            shut.send_get(path);
            shut.shut_write();
            assert_eq!(shut.response().unwrap().status, 200, "{path}");
            assert_eq!(shut.end(), End::Clean, "{path}");
        }
        let report = app.end();
        assert_eq!((report.code(), report.requests.finished, report.requests.gone), (0, 6, 0));
    }
}

#[test]
fn a_client_that_reads_nothing_is_cut_after_the_send_timeout() {
    // The session accepts bytes that the kernel has not taken. They are not sent.
    let identity = identity();
    let limits = Limits::default().send_timeout(Duration::from_secs(1));
    for workers in ALL_WORKERS {
        let app = App::start_on(host(&identity, limits), workers);
        for http2 in [false, true] {
            let mut client = TlsClient::connect(app.main, &identity.client(&[]));
            if http2 {
                client.start_http2("/large");
            } else {
                client.send_get("/large");
            }
            let expected = if http2 { 2 } else { 1 };
            until_holds("the send timeout", || {
                app.status()["connections"]["send_timeouts"].as_u64() >= Some(expected)
            });
            if http2 {
                while client.next_frame().expect("an RST_STREAM").0 != 3 {}
            } else {
                assert_eq!(client.end(), End::Reset, "{workers:?}");
            }
        }
        drop(app.end());
    }
}
