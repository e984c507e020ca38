//! P16: the internal server responds only to names that no web page can have.

use crate::support::{App, Service, builder, frames::Http2, now, settings, wire};
use axum::{Router, routing::get};
use lameduck::Host;

/// Returns the status of a request with these lines, on a new connection.
fn status_of(address: std::net::SocketAddr, head: &str) -> u16 {
    wire::request(address, &format!("{head}\r\nconnection: close\r\n\r\n")).status
}

#[test]
fn a_web_page_cannot_read_the_status_through_its_own_dns_name() {
    // DNS rebinding: the own name of a web page resolves to an internal address, and the browser
    // sends the page's requests there. `/status` responded to any Host, with addresses, version and
    // plan. Unknown names must be refused (P16).
    let app = App::start(
        Host::builder(settings().internal_host("app.default.svc").internal_host(".pods.example"))
            .internal_route("/mine", |_| async { http::Response::new("mine") })
            .serve(Router::new().route("/", get(|| async { "hello" }))),
    );
    let internal = app.internal;
    for path in ["/status", "/metrics", "/readiness", "/serving", "/liveness", "/mine", "/nowhere"]
    {
        let refused = wire::request(
            internal,
            &format!("GET {path} HTTP/1.1\r\nhost: evil.example:8081\r\nconnection: close\r\n\r\n"),
        );
        assert_eq!(refused.status, 421, "{path}");
        let text = refused.body();
        assert!(text.contains("evil.example:8081") && text.contains("internal_hosts"), "{text}");
    }
    assert_eq!(
        status_of(internal, "POST /mine HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 0"),
        421
    );
    assert_eq!(
        status_of(internal, "GET http://evil.example/status HTTP/1.1\r\nhost: 127.0.0.1"),
        421,
        "absolute form"
    );
    // A kubelet, Prometheus by address and by a configured name, people, and requests without a
    // Host.
    for host in
        [internal.to_string(), "127.0.0.1".into(), "[::1]:8081".into(), "localhost:8081".into()]
    {
        assert_eq!(
            status_of(internal, &format!("GET /status HTTP/1.1\r\nhost: {host}")),
            200,
            "{host}"
        );
    }
    for host in ["app.default.svc:8081", "APP.default.svc.", "app-0.pods.example:8081"] {
        assert_eq!(
            status_of(internal, &format!("GET /metrics HTTP/1.1\r\nhost: {host}")),
            200,
            "{host}"
        );
    }
    assert_eq!(status_of(internal, "GET /readiness HTTP/1.0"), 200, "HAProxy's httpchk");
    assert_eq!(
        status_of(app.main, "GET / HTTP/1.1\r\nhost: www.example"),
        200,
        "the main server serves every name"
    );
    assert_eq!(app.end().code(), 0);
}

#[test]
fn a_rebound_dns_name_is_refused_over_http2() {
    let app = App::start(builder().serve(Router::new()));
    let mut http2 = Http2::connect(app.internal);
    let stream = http2.get_from("evil.example", "/status");
    assert!(http2.body(stream).contains("is not allowed here"));
    let stream = http2.get_from("localhost", "/serving");
    assert_eq!(http2.body(stream), "serving\n");
    assert_eq!(app.end().code(), 0);
}

#[test]
fn an_internal_unix_socket_responds_to_any_name() {
    // No web page can reach a Unix socket, and clients invent a name for it.
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };
    let path = crate::support::scratch_path("internal.sock");
    let mut service = Service::watch(crate::support::service::command().args([
        "--addr=127.0.0.1:0",
        "--log-format=json",
        "--lame-duck=0s",
        &format!("--internal-addr=unix:{}", path.display()),
    ]));
    service.wait_for_phase("serving");
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream
        .write_all(b"GET /serving HTTP/1.1\r\nhost: made-up.example\r\nconnection: close\r\n\r\n")
        .expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it responds");
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let asked = now();
    service.signal(rustix::process::Signal::TERM);
    assert_eq!(service.exit_code_since(asked).0, 0);
}
