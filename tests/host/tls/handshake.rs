//! P5a, P6, P15: handshakes are bounded, part of the drain, and do not starve requests.

use super::*;
use crate::support::{in_time, now};
use rustls::server::{ClientHello, ResolvesServerCert};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

/// The first bytes of a handshake and the rest of its first flight.
fn first_flight(client: &mut TlsClient) -> (Vec<u8>, Vec<u8>) {
    let hello = client.take_records();
    let (half, rest) = hello.split_at(hello.len() / 2);
    (half.to_vec(), rest.to_vec())
}

#[test]
fn a_handshake_under_way_at_the_stop_is_completed_and_served_once() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let (app, mut begun) = in_time(|| {
            let app = start(&identity, workers);
            let mut begun = TlsClient::silent(app.main, &identity.client(&[]));
            let (half, rest) = first_flight(&mut begun);
            begun.send_raw(&half);
            until_holds("the accept", || app.status()["connections"]["open"] == 1);
            let begin = now();
            app.stop();
            app.wait_for_phase("draining");
            block(Duration::from_millis(300));
            begun.send_raw(&rest);
            // The drain gives it a second.
            (begin.elapsed() < Duration::from_millis(900)).then_some((app, begun))
        });
        begun.handshake().expect("the handshake");
        let response = begun.get("/");
        assert_eq!((response.body().as_str(), response.says_close()), ("hello", true));
        assert_eq!(begun.end(), End::Clean, "{workers:?}");
        let report = app.report();
        assert_eq!((report.code(), report.requests.finished), (0, 1));
    }
}

#[test]
fn handshakes_do_not_hold_the_drain() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let silent = TlsClient::silent(app.main, &identity.client(&[]));
        let mut begun = TlsClient::silent(app.main, &identity.client(&[]));
        let (half, _) = first_flight(&mut begun);
        begun.send_raw(&half);
        until_holds("the accepts", || app.status()["connections"]["open"] == 2);
        let report = app.end();
        assert!(report.shutdown < Duration::from_secs(4), "{workers:?}: {:?}", report.shutdown);
        assert_eq!((report.code(), report.connections.handshakes), (0, 0));
        drop(silent);
    }
}

#[test]
fn a_handshake_has_a_timeout_of_its_own() {
    let identity = identity();
    let limits = Limits::default().tls_handshake_timeout(Duration::from_millis(700));
    for workers in ALL_WORKERS {
        let app = App::start_on(host(&identity, limits), workers);
        let begin = now();
        let mut silent = TlsClient::silent(app.main, &identity.client(&[]));
        let mut begun = TlsClient::silent(app.main, &identity.client(&[]));
        let (half, _) = first_flight(&mut begun);
        begun.send_raw(&half);
        let mut done = TlsClient::connect(app.main, &identity.client(&[]));
        assert_eq!((silent.end(), begun.end()), (End::Cut, End::Cut), "{workers:?}");
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(700), "{took:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(done.get("/").body(), "hello", "its handshake is complete");
        let report = app.end();
        assert_eq!((report.code(), report.connections.handshake_timeouts), (0, 2));
    }
}

#[test]
fn a_failed_handshake_costs_its_connection_only() {
    let identity = identity();
    let app = start(&identity, Workers::Task);
    let mut plain = crate::support::Client::connect(app.main);
    plain.send("GET / HTTP/1.1\r\nhost: localhost\r\n\r\n");
    let answer = plain.to_end().expect("an alert and a FIN");
    assert_eq!(answer.first(), Some(&21), "an alert says why: {answer:?}");
    let mut distrustful = TlsClient::silent(app.main, &super::identity().client(&[]));
    assert_eq!(distrustful.handshake(), Err(End::Refused));
    drop(distrustful);
    let mut client = TlsClient::connect(app.main, &identity.client(&[]));
    assert_eq!(client.get("/").body(), "hello");
    until_holds("the failures", || app.status()["connections"]["handshakes_failed"] == 2);
    let report = app.end();
    assert_eq!((report.code(), report.connections.handshakes), (0, 1));
}

/// A resolver that counts the handshakes of which the first step was made.
#[derive(Debug)]
struct Counting(AtomicUsize, Arc<CertifiedKey>);

impl ResolvesServerCert for Counting {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.fetch_add(1, Relaxed);
        Some(self.1.clone())
    }
}

// Every step had a turn, and gave it back before the next task was polled. So a request that
// arrived with the first flights of many clients waited for all of them.
#[test]
fn many_handshakes_do_not_starve_requests() {
    let identity = identity();
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(identity.key.clone_key()).unwrap();
    let key = Arc::new(CertifiedKey::new(vec![identity.certificate.clone()], key));
    let begun = Arc::new(Counting(AtomicUsize::new(0), key));
    let config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(begun.clone());
    let [is_blocked, has_arrived] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (blocked, arrived) = (is_blocked.clone(), has_arrived.clone());
    let service = service_fn(move |request: Request<lameduck::Body>| {
        let (begun, blocked, arrived) = (begun.clone(), blocked.clone(), arrived.clone());
        async move {
            if request.uri().path() == "/block" {
                blocked.store(true, Relaxed);
                until_holds("the arrival", || arrived.load(Relaxed));
            }
            Ok::<_, Infallible>(Response::new(Body::from(begun.0.load(Relaxed).to_string())))
        }
    });
    let host = host_with(settings()).tls(Arc::new(config)).serve_hyper(service);
    // The worker has one thread, which `/block` blocks until everything has arrived.
    let app = App::start_on(host, Workers::Threads(1));
    let config = identity.client(&[]);
    let mut blocker = TlsClient::connect(app.main, &config);
    let mut client = TlsClient::connect(app.main, &config);
    let mut others: Vec<_> = (0..300).map(|_| TlsClient::silent(app.main, &config)).collect();
    until_holds("the accepts", || app.status()["connections"]["open"] == 302);
    let hellos: Vec<_> = others.iter_mut().map(TlsClient::take_records).collect();
    blocker.send_get("/block");
    until_holds("the block", || is_blocked.load(Relaxed));
    for (other, hello) in others.iter_mut().zip(hellos) {
        other.send_raw(&hello);
    }
    client.send_get("/");
    has_arrived.store(true, Relaxed);
    let begun: usize = client.response().unwrap().body().parse().unwrap();
    assert!(begun < 50, "{begun} handshakes went first");
    for other in &mut others {
        other.handshake().expect("every handshake is completed");
    }
    assert_eq!(app.end().connections.handshakes, 302);
}

#[cfg(feature = "proxy-protocol")]
#[test]
fn a_header_precedes_the_tls_handshake() {
    use crate::proxy_protocol::{CLIENT, LOCAL, VERSION_1, VERSION_2, connect, host, service};

    let identity = identity();
    for workers in ALL_WORKERS {
        let builder = host("127.0.0.1:0".parse().unwrap(), Limits::default());
        let app = App::start_on(builder.tls(identity.server()).serve(service()), workers);
        for (header, alpn) in [(VERSION_1, &[][..]), (VERSION_2, &["http/1.1"])] {
            let mut client = TlsClient::silent(app.main, &identity.client(alpn));
            // One packet has the header and the first flight.
            let hello = client.take_records();
            client.send_raw(&[header, &hello].concat());
            client.handshake().expect("the handshake");
            assert_eq!(client.get("/").body(), CLIENT, "{workers:?}");
            park();
            assert_eq!(client.get("/").body(), CLIENT, "{workers:?}: after it was parked");
        }
        let mut client = TlsClient::silent(app.main, &identity.client(&["h2"]));
        for byte in VERSION_2 {
            client.send_raw(&[*byte]);
        }
        client.handshake().expect("the handshake");
        client.start_http2("/");
        assert_eq!(client.http2_body().unwrap(), CLIENT, "{workers:?}");
        // Neither a health check nor a client without a header is a failed handshake.
        drop(connect(&app, LOCAL));
        let mut plain = TlsClient::silent(app.main, &identity.client(&[]));
        assert_eq!(plain.handshake(), Err(End::Cut));
        until_holds("both ends", || app.status()["connections"]["proxy_headers_refused"] == 1);
        let connections = app.end().connections;
        assert_eq!((connections.handshakes, connections.handshakes_failed), (3, 0));
    }
}

// A PROXY header was completed in the drain, and the first byte of the handshake came a moment
// later. The connection was closed in between: the time of a first byte counted from the accept
// (P5).
#[cfg(feature = "proxy-protocol")]
#[test]
fn a_handshake_follows_a_header_that_is_completed_in_the_drain() {
    use crate::proxy_protocol::{CLIENT, VERSION_1, host, service};

    let identity = identity();
    for workers in ALL_WORKERS {
        let builder = host("127.0.0.1:0".parse().unwrap(), Limits::default());
        let app = App::start_on(builder.tls(identity.server()).serve(service()), workers);
        let mut client = TlsClient::silent(app.main, &identity.client(&[]));
        client.send_raw(&VERSION_1[..20]);
        until_holds("the accept", || app.status()["connections"]["open"] == 1);
        app.stop();
        app.wait_for_phase("draining");
        block(Duration::from_millis(400));
        client.send_raw(&VERSION_1[20..]);
        block(Duration::from_millis(50));
        client.handshake().expect("the handshake");
        assert_eq!(client.get("/").body(), CLIENT, "{workers:?}");
        assert_eq!(app.report().code(), 0);
    }
}

/// A resolver that panics.
#[derive(Debug)]
struct Panics;

impl ResolvesServerCert for Panics {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        panic!("no certificate, on purpose")
    }
}

// The panic unwound through the task of the connection: the log had no line, and the handshake was
// not counted. A panic of the app's code costs its connection, and is named (P15).
#[test]
fn a_resolver_that_panics_costs_its_connection_and_is_named() {
    let identity = identity();
    let mut config = (*identity.server()).clone();
    config.cert_resolver = Arc::new(Panics);
    for workers in ALL_WORKERS {
        let host = host_with(settings()).tls(Arc::new(config.clone()));
        let app = App::start_on(host.serve_hyper(service_fn(serve)), workers);
        let mut client = TlsClient::silent(app.main, &identity.client(&[]));
        assert_eq!(client.handshake(), Err(End::Cut), "{workers:?}");
        let mut plain = crate::support::Client::connect(app.main);
        plain.send("GET / HTTP/1.1\r\n\r\n");
        let _ = plain.end();
        let report = app.end();
        let connections = &report.connections;
        assert_eq!((report.code(), connections.handshakes_failed, connections.open()), (0, 2, 0));
    }
}
