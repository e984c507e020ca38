//! P5d: a body that does not match its Content-Length is cut, logged and counted.

use super::{LARGE, app, assert_becomes_a_500, late, later, log, outcomes, wait_for_line};
use crate::support::{
    App, Client, End, builder,
    frames::{Http2, RST_STREAM},
    service_fn, until_holds,
};
use axum::{
    body::{Body, Bytes},
    http::header,
};
use hyper::body::{Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

// The upstream of a proxy broke, or a file was truncated. The client got a FIN and was counted as
// gone although it still waited, or its stream failed and was counted as finished. Such a response
// must be a 500 if nothing of it was written, else reset. It is counted as aborted, and named in
// the log (P5d).
#[test]
fn a_body_shorter_than_its_content_length_is_aborted_and_named() {
    let app = app();
    for path in ["/short", "/known-and-short"] {
        assert_becomes_a_500(&app, path);
    }
    let mut client = Client::connect(app.main);
    client.send_get("/short-later");
    assert_eq!(client.try_answer().unwrap_err(), End::Reset);
    let mut http2 = Http2::connect(app.main);
    for path in ["/short", "/known-and-short"] {
        let broken = http2.get(path);
        http2.wait_for("RST_STREAM", |frame| frame.stream == broken && frame.kind == RST_STREAM);
        assert!(
            !http2.seen.iter().any(|frame| frame.stream == broken && frame.ends_stream()),
            "{:?}",
            http2.seen
        );
    }
    let whole = http2.get("/exact");
    assert_eq!(http2.body(whole), "all of it");
    let report = app.end();
    assert_eq!(outcomes(&report), ([3, 5, 0, 0], 0), "{report:?}");
    assert_eq!(report.connections.reset, 1, "{report:?}");
    let heads_sent = report.aborts.iter().filter(|abort| abort.head_sent).count();
    assert_eq!(heads_sent, 3, "{report:?}");
    wait_for_line(&[
        "ERROR",
        "response body failed",
        "GET",
        "/short",
        "ended 6 bytes before its content-length",
    ]);
}

// hyper drops a body once it has sent its `content-length`, and does not poll it for its end. Such
// a request was counted as gone. It is finished (P5c).
#[test]
fn a_body_as_long_as_its_content_length_is_finished() {
    let app = app();
    let mut client = Client::connect(app.main);
    for _ in 0..2 {
        assert_eq!(client.get("/exact").body(), "all of it");
        assert_eq!(client.get("/known").body(), "all of it");
    }
    client.send("HEAD /short HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.head().unwrap().header("content-length"), Some("10"));
    assert_eq!(client.get("/").body(), "hello");
    let report = app.end();
    assert_eq!(outcomes(&report), ([6, 0, 0, 0], 0), "{report:?}");
}

// A body longer than its `content-length` was truncated there, and its client took the beginning
// for the whole. It must be a 500 or reset, counted and named (P5d).
#[test]
fn a_body_longer_than_its_content_length_is_aborted_and_named() {
    let app = app();
    for path in ["/long", "/long-in-pieces", "/long-after-nothing"] {
        assert_becomes_a_500(&app, path);
    }
    let mut http2 = Http2::connect(app.main);
    for path in ["/long", "/long-in-pieces", "/long-after-nothing"] {
        let broken = http2.get(path);
        http2.wait_for("RST_STREAM", |frame| frame.stream == broken && frame.kind == RST_STREAM);
    }
    let report = app.end();
    assert_eq!(outcomes(&report), ([3, 6, 0, 0], 0), "{report:?}");
    wait_for_line(&[
        "ERROR",
        "response body failed",
        "GET",
        "/long",
        "longer than its content-length",
    ]);
}

// A body can wait for ever after its last byte. The response is complete without that wait, so it
// must be counted as finished (P5c).
#[test]
fn a_body_that_waits_after_its_content_length_is_finished_over_http1() {
    let app = app();
    let mut client = Client::connect(app.main);
    assert_eq!(client.get("/waits-at-its-end").body(), "all of it");
    assert_eq!(client.get("/").body(), "hello");
    let report = app.end();
    assert_eq!(outcomes(&report), ([2, 0, 0, 0], 0), "{report:?}");
}

/// A body of a known length, whatever it yields.
struct Exact(Body, u64);

impl http_body::Body for Exact {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.1)
    }
}

// A body yielded all bytes of its `content-length`, and a moment later more bytes or an error. The
// client took the response for complete, nothing was logged, and the request counted as finished.
// The last byte must not be sent before the end of the body is known (P5d).
#[test]
fn a_body_that_goes_on_or_fails_after_its_content_length_is_cut_logged_and_counted() {
    let _ = log();
    for is_exact in [false, true] {
        let service = service_fn(move |request: http::Request<lameduck::Body>| async move {
            let response = late(request.uri().path());
            let length = response.headers().get(header::CONTENT_LENGTH);
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
            Ok::<_, Infallible>(match length.filter(|_| is_exact) {
                Some(length) => response.map(|body| Body::new(Exact(body, length))),
                None => response,
            })
        });
        let app = App::start(builder().serve_hyper(service));
        for method in ["GET", "OPTIONS"] {
            let ask = |path| format!("{method} {path} HTTP/1.1\r\nhost: t\r\n\r\n");
            for path in ["/surplus", "/error", "/one-byte"] {
                let mut client = Client::connect(app.main);
                client.send(format!("{}{}", ask("/"), ask(path)));
                assert_eq!(client.answer().body(), "hello", "before {path}");
                assert_eq!(client.try_answer().unwrap_err(), End::Reset, "{method} {path}");
            }
            let mut client = Client::connect(app.main);
            client.send(format!("{}{}", ask("/nothing"), ask("/")));
            assert_eq!([client.answer().body(), client.answer().body()], ["four", "hello"]);
        }
        let mut client = Client::connect(app.main);
        for path in ["/surplus", "/error"] {
            client.send(format!("HEAD {path} HTTP/1.1\r\nhost: t\r\n\r\n"));
            let head = client.head().unwrap();
            assert_eq!((head.status, head.header("content-length")), (200, Some("4")));
        }
        assert_eq!(client.get("/").body(), "hello");
        let report = app.end();
        assert_eq!(outcomes(&report), ([13, 6, 0, 0], 0), "{report:?}");
        assert_eq!(report.connections.reset, 6, "{report:?}");
    }
    wait_for_line(&["ERROR", "GET", "/surplus", "longer than its content-length"]);
    wait_for_line(&["ERROR", "OPTIONS", "/error", "the upstream broke late"]);
}

// The same with a `content-length` of 0: the head must wait until the end of the body is known.
#[test]
fn a_body_that_goes_on_late_after_a_content_length_of_zero_becomes_a_500() {
    let service = service_fn(async |request: http::Request<lameduck::Body>| {
        Ok::<_, Infallible>(match request.uri().path() {
            "/more" => later(0, "", Some(Ok("more"))),
            _ => later(0, "", None),
        })
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    assert_eq!(client.get("/more").status, 500);
    assert_eq!(client.get("/").body(), "");
    assert_eq!(client.get("/more").status, 500, "the connection goes on");
    let report = app.end();
    assert_eq!(outcomes(&report), ([1, 2, 0, 0], 0), "{report:?}");
}

// A body failed when a part of it was sent. The reset of its connection discarded an earlier
// response of the pipeline that was on its way and counted as finished. It must arrive first (P5d).
#[test]
fn responses_before_one_that_is_reset_arrive_complete() {
    let app = app();
    let mut client = Client::connect(app.main);
    client
        .send("GET /large HTTP/1.1\r\nhost: t\r\n\r\nGET /short-later HTTP/1.1\r\nhost: t\r\n\r\n");
    until_holds("the failure", || app.status()["requests"]["aborted"] == 1);
    let large = client.answer();
    assert_eq!((large.status, large.bytes.len()), (200, LARGE));
    assert_eq!(client.head().unwrap().status, 200);
    assert_eq!(client.end(), End::Reset);
    let report = app.end();
    assert_eq!(outcomes(&report), ([1, 1, 0, 0], 0), "{report:?}");
    assert_eq!(report.connections.reset, 1, "{report:?}");
}
