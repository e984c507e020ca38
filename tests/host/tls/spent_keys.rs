//! P4, P5, P5d: a session of TLS 1.2 whose keys may encrypt only a limited number of records.

use super::*;
use crate::support::frames::frame;
use lameduck::Report;
use lameduck_wire::http1;
use rustls::{
    CipherSuiteCommon, SupportedCipherSuite, Tls12CipherSuite,
    crypto::ring::{self, cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256},
};

/// Records that the keys may encrypt. That of AES-GCM is 2^24.
const RECORDS_MAX: u64 = 64;

/// Returns the configuration of a server whose only cipher suite has this limit.
fn server(identity: &Identity) -> Arc<ServerConfig> {
    let SupportedCipherSuite::Tls12(suite) = TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 else {
        panic!("a suite of TLS 1.2")
    };
    let common = CipherSuiteCommon { confidentiality_limit: RECORDS_MAX, ..suite.common };
    let suite: &'static _ = Box::leak(Box::new(Tls12CipherSuite { common, ..*suite }));
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![SupportedCipherSuite::Tls12(suite)];
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn start(identity: &Identity, workers: Workers) -> App {
    let host = host_with(settings()).tls(server(identity)).serve_hyper(service_fn(serve));
    App::start_on(host, workers)
}

fn assert_nothing_lost(report: &Report, requests: u64) {
    assert_eq!((report.code(), report.connections.reset), (0, 0), "{report:?}");
    let counts = &report.requests;
    assert_eq!((counts.started, counts.finished), (requests, requests), "{counts:?}");
}

// The record after the last one that the keys may encrypt was refused: the client lost its request
// while the host was serving. The request counted as `gone`.
#[test]
fn http1_announces_its_close_before_its_keys_are_used_up() {
    const BY_HYPER: &str = "POST /echo HTTP/1.1\r\nhost: localhost\r\n\
        transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let identity = identity();
    for workers in ALL_WORKERS {
        for (request, parks) in [
            (&*http1::get_bytes("/"), false),
            (&*http1::get_bytes("/"), true),
            (BY_HYPER, false),
            (BY_HYPER, true),
        ] {
            let app = start(&identity, workers);
            let mut client = TlsClient::connect(app.main, &identity.client(&[]));
            for n in 1.. {
                client.send(request);
                let response = client.response().expect("a response");
                assert_eq!(response.body(), "hello");
                if response.says_close() {
                    assert!(n > RECORDS_MAX / 2, "{workers:?}: too early, with {n}");
                    assert_eq!(client.end(), End::Clean, "{workers:?}");
                    assert_nothing_lost(&app.end(), n);
                    break;
                }
                if parks && n % 25 == 0 {
                    park();
                }
            }
        }
    }
}

// The same on HTTP/2: all streams of the connection were lost.
#[test]
fn http2_sends_a_goaway_before_its_keys_are_used_up() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let mut client = TlsClient::connect(app.main, &identity.client(&["h2"]));
        client.start_http2("/");
        let mut requests = 1;
        assert_eq!(client.http2_body().unwrap(), "hello");
        while !client.has_goaway {
            client.send_http2("/", 2 * requests + 1);
            requests += 1;
            assert_eq!(client.http2_body().expect("a response"), "hello", "{workers:?}");
        }
        assert_eq!(client.end(), End::Clean, "{workers:?}");
        assert_nothing_lost(&app.end(), requests.into());
    }
}

// A response with more records than the keys may encrypt ended with a close_notify and a FIN: its
// client took the part of a body for all of it.
#[test]
fn a_response_that_uses_up_the_keys_does_not_look_complete() {
    let identity = identity();
    for workers in ALL_WORKERS {
        let app = start(&identity, workers);
        let mut http1 = TlsClient::connect(app.main, &identity.client(&[]));
        http1.send_get("/large");
        assert_eq!(http1.end(), End::Reset, "{workers:?}");
        let mut old = TlsClient::connect(app.main, &identity.client(&[]));
        old.send("GET /chunks HTTP/1.0\r\n\r\n");
        assert_eq!(old.end(), End::Reset, "{workers:?}");
        let mut http2 = TlsClient::connect(app.main, &identity.client(&["h2"]));
        http2.start_http2("/large");
        for stream in [0, 1] {
            http2.send(frame(8, 0, stream, &(1_u32 << 30).to_be_bytes()));
        }
        let end = loop {
            match http2.next_frame() {
                Ok((kind, flags, _)) => assert!(kind != 0 || flags & 1 == 0, "the end of a body"),
                Err(end) => break end,
            }
        };
        assert_ne!(end, End::Clean, "{workers:?}");
        let report = app.end();
        assert_eq!((report.requests.started, report.requests.finished), (3, 0));
    }
}
