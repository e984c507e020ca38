//! P5d: a response head that contradicts its body, its request or HTTP itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use super::{Chunk, log, outcomes, wait_for_line};
use crate::support::{
    App, Client, End, builder,
    frames::{HEADERS, Http2, RST_STREAM},
    service_fn, settings,
};
use axum::{body::Body, http::header, response::Response};
use futures_util::stream;
use lameduck::Host;
use std::convert::Infallible;

/// Heads that contradict their bodies or themselves: the path of `framed`, then `=`, then values of
/// `content-length` separated by `;`.
const CONTRADICTIONS: [&str; 11] = [
    "/full=3",
    "/full=10",
    "/full=0",
    "/stream=4;5",
    "/stream=4, 5",
    "/stream=four",
    "/stream=+4",
    "/stream=-4",
    "/stream=",
    "/empty=4",
    "/chunked=4",
];

/// Returns the response that the path describes: a body of four bytes, full or streamed, or an
/// empty one.
fn framed(request: &http::Request<lameduck::Body>) -> Response {
    let (kind, lengths) = request.uri().path().split_once('=').unwrap();
    let body = match kind {
        "/full" => Body::from("four"),
        "/empty" => Body::empty(),
        _ => Body::from_stream(stream::iter([Chunk::Ok("fo"), Chunk::Ok("ur")])),
    };
    let mut response = Response::new(body);
    for length in lengths.split(';') {
        response
            .headers_mut()
            .append(header::CONTENT_LENGTH, length.replace("%20", " ").parse().unwrap());
    }
    if kind == "/chunked" {
        response.headers_mut().insert(header::TRANSFER_ENCODING, "chunked".parse().unwrap());
    }
    response
}

// A handler set a `content-length` of 3 on a body of 4 bytes. Both were sent as they were, and the
// client read the next response from the wrong byte. A contradictory head must become a 500 that is
// logged and counted (P5d).
#[test]
fn a_head_that_contradicts_its_body_or_itself_becomes_a_500_that_is_logged_and_counted() {
    let _ = log();
    let service = service_fn(async |request: http::Request<lameduck::Body>| {
        Ok::<_, Infallible>(framed(&request))
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    let mut http2 = Http2::connect(app.main);
    for path in CONTRADICTIONS {
        let path = path.replace(' ', "%20");
        for head in ["", "x: y\r\n", "expect: 100-continue\r\ncontent-length: 0\r\n"] {
            client.send(format!("GET {path} HTTP/1.1\r\nhost: t\r\n{head}\r\n"));
            let response = client.answer();
            assert_eq!(
                (response.status, response.body().as_str()),
                (500, "internal server error\n"),
                "{path}"
            );
            assert!(response.header("date").is_some(), "{response:?}");
        }
        let stream = http2.get(&path);
        assert_eq!(http2.body(stream), "internal server error\n", "{path}");
        wait_for_line(&["ERROR", "invalid response; the client gets a 500", "GET", &path]);
    }
    for path in ["/full=4", "/full=4;4", "/stream=4", "/stream=4,%204", "/stream=004"] {
        assert_eq!(client.get(path).body(), "four", "{path}");
        let stream = http2.get(path);
        assert_eq!(http2.body(stream), "four", "{path}");
    }
    // In a response to HEAD, the length describes a body that is not sent.
    client.send("HEAD /empty=4 HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(client.head().unwrap().header("content-length"), Some("4"));
    client.send("HEAD /full=10 HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(client.head().unwrap().header("content-length"), Some("10"));
    client.send("HEAD /full=4;5 HTTP/1.1\r\nhost: t\r\n\r\n");
    assert_eq!(client.head().unwrap().status, 500);
    assert_eq!(client.get("/full=4").body(), "four", "and the next response is in step");
    let report = app.end();
    assert_eq!(outcomes(&report), ([13, 45, 0, 0], 0), "{report:?}");
    assert!(report.aborts.iter().all(|abort| !abort.head_sent && !abort.by_shutdown), "{report:?}");
}

// A handler returned a 1xx. Over HTTP/2 the stream ended without a response; over HTTP/1 it became
// a 500 without a log line. It must become a logged 500 on both.
#[test]
fn a_status_that_is_not_final_becomes_a_500_that_is_logged() {
    let _ = log();
    let service = service_fn(async |request: http::Request<lameduck::Body>| {
        let status = request.uri().path()[1..].parse::<u16>().unwrap();
        Ok::<_, Infallible>(
            http::Response::builder().status(status).body(Body::from("content")).unwrap(),
        )
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    let mut http2 = Http2::connect(app.main);
    for status in [100, 101, 102, 103, 199] {
        for head in ["", "expect: 100-continue\r\n"] {
            client.send(format!("GET /{status} HTTP/1.1\r\nhost: t\r\n{head}\r\n"));
            assert_eq!(client.answer().status, 500, "{status}");
        }
        let stream = http2.get(&format!("/{status}"));
        assert_eq!(http2.body(stream), "internal server error\n", "{status}");
        wait_for_line(&[
            "ERROR",
            "invalid response; the client gets a 500",
            "GET",
            &format!("/{status}"),
            "status",
        ]);
    }
    // A 101 over HTTP/1.0, where an upgrade is ignored (RFC 9110 §7.8).
    let mut old = Client::connect(app.main);
    old.send("GET /101 HTTP/1.0\r\nupgrade: echo\r\nconnection: upgrade\r\n\r\n");
    assert_eq!(old.answer().status, 500);
    assert_eq!(client.get("/200").body(), "content");
    let report = app.end();
    assert_eq!(outcomes(&report), ([17, 0, 0, 0], 0), "{report:?}");
}

// Over HTTP/2, a response to HEAD got `content-length: 0` on 204 and 304, and a 205 kept its
// content. None of them has content, and a length only where HTTP allows one.
#[test]
fn a_status_without_content_has_no_body_and_no_wrong_length() {
    let service = service_fn(async |request: http::Request<lameduck::Body>| {
        let status = request.uri().path()[1..].parse::<u16>().unwrap();
        let body =
            if request.uri().query().is_some() { Body::from("content") } else { Body::empty() };
        // This `date` does not contain the bytes that encode `content-length`.
        let response = http::Response::builder().status(status).header("date", "x");
        let length = if request.uri().query() == Some("length") { Some("7") } else { None };
        Ok::<_, Infallible>(
            length
                .into_iter()
                .fold(response, |response, length| response.header("content-length", length))
                .body(body)
                .unwrap(),
        )
    });
    let app = App::start(builder().serve_hyper(service));
    let mut http2 = Http2::connect(app.main);
    let mut count = 0;
    for status in [204, 205, 304] {
        for query in ["", "?content", "?length"] {
            for method in ["GET", "HEAD", "OPTIONS"] {
                count += 2;
                // The first request of a connection may take the fast path.
                let mut client = Client::connect(app.main);
                client.send(format!("{method} /{status}{query} HTTP/1.1\r\nhost: t\r\n\r\n"));
                let head = client.head().unwrap();
                assert_eq!(head.status, status);
                let length = head.header("content-length");
                let says = match (status, method) {
                    (205, "GET" | "OPTIONS") => length == Some("0"),
                    (304, _) => length.is_none() || (query == "?length" && length == Some("7")),
                    _ => length.is_none(),
                };
                assert!(says, "{method} {status}{query}: {head:?}");
                assert!(
                    head.header("transfer-encoding").is_none(),
                    "{method} {status}{query}: {head:?}"
                );
                assert_eq!(client.get("/200?content").body(), "content", "the next is in step");
            }
            let path = format!("/{status}{query}");
            for stream in [http2.get(&path), http2.ask_head(&path)] {
                count += 1;
                let last = http2.wait_for("the end", |frame| {
                    frame.stream == stream && (frame.ends_stream() || frame.kind == RST_STREAM)
                });
                assert_eq!(last.kind, HEADERS, "{path}: its head ends it: {last:?}");
                // HPACK: `content-length` is entry 28 of the static table, either as a literal with
                // a value or indexed.
                let says = last.payload.windows(2).any(|bytes| bytes == [0x0f, 0x0d])
                    || last.payload.contains(&0x5c);
                assert_eq!(says, status == 304 && query == "?length", "{path}: {last:?}");
            }
        }
    }
    let report = app.end();
    assert_eq!(outcomes(&report), ([count, 0, 0, 0], 0), "{report:?}");
}

// A proxy returned the response of its client library, with version 0.9 or 3. hyper panicked, and
// the request was counted as gone. The version must be that of the connection.
#[test]
fn the_version_of_a_response_is_that_of_its_connection() {
    let service = service_fn(async |request: http::Request<lameduck::Body>| {
        let version = match request.uri().path() {
            "/0.9" => http::Version::HTTP_09,
            "/1.0" => http::Version::HTTP_10,
            "/2" => http::Version::HTTP_2,
            _ => http::Version::HTTP_3,
        };
        let body = Body::from_stream(stream::iter([Chunk::Ok("all "), Chunk::Ok("of it")]));
        let body = if request.uri().query().is_some() { body } else { Body::from("all of it") };
        Ok::<_, Infallible>(http::Response::builder().version(version).body(body).unwrap())
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    let mut http2 = Http2::connect(app.main);
    for path in ["/0.9", "/1.0", "/2", "/3"] {
        for path in [path.to_owned(), format!("{path}?stream")] {
            assert_eq!(client.get(&path).body(), "all of it", "{path}, and the connection goes on");
            let stream = http2.get(&path);
            assert_eq!(http2.body(stream), "all of it");
            let mut old = Client::connect(app.main);
            old.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
            old.head().unwrap();
            assert_eq!(
                (old.exactly(9).unwrap().as_slice(), old.end()),
                (&b"all of it"[..], End::Closed),
                "{path}"
            );
        }
    }
    let report = app.end();
    assert_eq!(outcomes(&report), ([24, 0, 0, 0], 0), "{report:?}");
}

// A 2xx to CONNECT opens a tunnel. A response with `content-length` and content made its client
// read them as bytes of the tunnel. Both must be removed.
#[test]
fn a_success_to_connect_has_neither_length_nor_content() {
    let service = service_fn(async |_: http::Request<lameduck::Body>| {
        Ok::<_, Infallible>(
            http::Response::builder()
                .header("content-length", "7")
                .body(Body::from("content"))
                .unwrap(),
        )
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    client.send("CONNECT t:80 HTTP/1.1\r\nhost: t:80\r\n\r\n");
    let head = client.head().unwrap();
    assert_eq!(
        (head.status, head.header("content-length"), head.header("transfer-encoding")),
        (200, None, None)
    );
    assert_eq!(client.end(), End::Closed, "nobody took the tunnel");
    let report = app.end();
    assert_eq!(outcomes(&report), ([1, 0, 0, 0], 0), "{report:?}");
}

#[test]
fn a_response_to_head_has_no_body_even_if_the_service_returns_one() {
    // Over HTTP/2 hyper sent the body. The client reset the stream or the whole connection, and the
    // request was counted as finished. A response to HEAD has no body.
    let service = service_fn(|request: http::Request<lameduck::Body>| async move {
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        Ok::<_, Infallible>(http::Response::new(http_body_util::Full::from("eleven long")))
    });
    let app = App::start(
        Host::builder(settings().request_timeout(Some(std::time::Duration::from_millis(100))))
            .serve_hyper(service),
    );
    let mut http2 = Http2::connect(app.main);
    for path in ["/", "/never"] {
        let stream = http2.ask_head(path);
        let last = http2.wait_for("the end", |frame| {
            frame.stream == stream && (frame.ends_stream() || frame.kind == RST_STREAM)
        });
        assert_eq!(
            (last.kind, last.payload.is_empty()),
            (HEADERS, false),
            "{path}: its head ends it: {last:?}"
        );
    }
    let stream = http2.get("/");
    assert_eq!(http2.body(stream), "eleven long");
    let mut http1 = Client::connect(app.main);
    http1.send("HEAD / HTTP/1.1\r\nhost: t\r\n\r\n");
    let head = http1.head().unwrap();
    assert_eq!(head.header("content-length"), Some("11"), "{head:?}");
    assert_eq!(http1.get("/").body(), "eleven long", "and the next answer is where it belongs");
    let report = app.end();
    assert_eq!((report.requests.finished, report.requests.timed_out), (4, 1), "{report:?}");
}
