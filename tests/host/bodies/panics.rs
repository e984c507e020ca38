//! P15: a panic of a body or of a handler costs only its request, and is named.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use super::{
    Grudge, GrudgingError, app, assert_becomes_a_500, outcomes, wait_for_gone, wait_for_line,
};
use crate::idle_set::bodies::Rude;
use crate::support::{
    App, Client, End, builder,
    frames::{Http2, RST_STREAM},
    service_fn, until_holds,
};
use axum::{body::Body, response::Response};
use std::{cell::Cell, convert::Infallible, sync::Arc};

/// Sends a request over HTTP/1 and closes the connection with a response unread, so that the kernel
/// sends a reset.
fn leave(app: &App, path: &str) {
    // A client may have received its response before the request is counted.
    until_holds("all have ended", || app.status()["in_flight"] == 0);
    let finished = app.status()["requests"]["finished"].as_u64().unwrap();
    let mut client = Client::connect(app.main);
    client.send_get("/");
    until_holds("an answer", || app.status()["requests"]["finished"] == finished + 1);
    client.send_get(path);
    until_holds("the request", || app.status()["in_flight"] == 1);
    drop(client);
}

// A body that had sent everything panicked when it was dropped, and the panic unwound through
// hyper. The client got a FIN without a byte of the response, the request was counted as gone, and
// no panic was counted. The response must be sent, and the panic counted (P15).
#[test]
fn a_body_that_panics_when_it_is_dropped_is_sent_and_its_panic_counted() {
    let app = app();
    let mut client = Client::connect(app.main);
    for _ in 0..2 {
        assert_eq!(client.get("/drops-badly").body(), "all of it", "the connection goes on");
    }
    let mut http2 = Http2::connect(app.main);
    let badly = http2.get("/drops-badly");
    assert_eq!(http2.body(badly), "all of it");
    let report = app.end();
    assert_eq!(outcomes(&report), ([3, 0, 0, 3], 0), "{report:?}");
    wait_for_line(&["ERROR", "response body panicked", "GET", "/drops-badly"]);
}

// For an HTTP/1.0 client the end of the connection is the end of the response. A body panicked when
// the shutdown dropped it, and the connection closed with a FIN instead of a reset. Half a response
// must never look complete (P5d).
#[test]
fn a_body_that_panics_when_it_is_cut_does_not_look_complete() {
    let app = app();
    let mut client = Client::connect(app.main);
    client.send("GET /never-ends HTTP/1.0\r\n\r\n");
    client.head().unwrap();
    assert_eq!(client.exactly(10).unwrap(), b"some of it");
    app.stop();
    assert_eq!(client.end(), End::Reset);
    let report = app.report();
    assert_eq!(outcomes(&report), ([0, 1, 0, 1], 3), "{report:?}");
    assert_eq!(report.connections.reset, 1, "{report:?}");
}

#[test]
fn a_body_that_panics_when_its_client_leaves_costs_only_its_request() {
    let app = app();
    let mut http2 = Http2::connect(app.main);
    let left = http2.get("/never-ends");
    http2.wait_for("data", |frame| {
        frame.stream == left && frame.kind == crate::support::frames::DATA
    });
    http2.send(RST_STREAM, 0, left, &8_u32.to_be_bytes());
    wait_for_gone(&app, 1);
    let stays = http2.get("/");
    assert_eq!(http2.body(stays), "hello");
    leave(&app, "/never-ends");
    let report = app.end();
    assert_eq!(outcomes(&report), ([2, 0, 2, 2], 0), "{report:?}");
}

// hyper dropped a handler together with its connection, and the handler panicked. The panic was not
// counted. It must be, and it costs only its request (P15).
#[test]
fn a_handler_that_panics_when_its_client_leaves_costs_only_its_request() {
    let app = app();
    let mut http2 = Http2::connect(app.main);
    let left = http2.get("/waits");
    until_holds("the request", || app.status()["in_flight"] == 1);
    http2.send(RST_STREAM, 0, left, &8_u32.to_be_bytes());
    wait_for_gone(&app, 1);
    let stays = http2.get("/");
    assert_eq!(http2.body(stays), "hello");
    leave(&app, "/waits");
    let report = app.end();
    assert_eq!(outcomes(&report), ([2, 0, 2, 2], 0), "{report:?}");
    wait_for_line(&["ERROR", "handler panicked", "GET", "/waits"]);
}

// Work that a handler had spawned panicked after the response, and the log had no line. It must be
// logged with its request (P13).
#[test]
fn tracked_work_that_panics_is_logged_with_its_request() {
    let app = app();
    assert_eq!(app.get("/spawns?secret=x").status, 200);
    wait_for_line(&[
        "ERROR",
        "tracked work panicked",
        "work=GET /spawns phase",
        "after the response, on purpose",
    ]);
    assert_eq!(app.end().code(), 1);
}

// The error of a handler panicked when it was dropped, and the panic unwound through hyper. The
// connection was reset, without the 500 of the request. A panic costs its request (P15).
#[test]
fn an_error_of_a_handler_that_panics_when_it_is_dropped_is_a_500() {
    let app = App::start(
        builder().serve_hyper(service_fn(async |_| Err::<Response, _>(GrudgingError(Grudge)))),
    );
    let mut client = Client::connect(app.main);
    for head in ["GET / HTTP/1.1\r\n", "OPTIONS / HTTP/1.1\r\n"] {
        client.send(format!("{head}host: t\r\n\r\n"));
        assert_eq!(client.answer().status, 500, "{head}");
    }
    let mut http2 = Http2::connect(app.main);
    let stream = http2.get("/");
    assert_eq!(http2.body(stream), "internal server error\n");
    let report = app.end();
    assert_eq!(outcomes(&report), ([3, 0, 0, 0], 0), "{report:?}");
}

// A body that panicked when its length was queried ended its connection without a response, and its
// request was counted as gone. Nothing of the response was sent, so the client must get a 500
// (P15).
#[test]
fn a_body_that_panics_on_its_length_is_a_500() {
    let app = App::start(builder().serve_hyper(service_fn(async |_| {
        Ok::<_, Infallible>(Response::new(Body::new(Rude(Cell::new(0)))))
    })));
    let mut client = Client::connect(app.main);
    for head in ["GET / HTTP/1.1\r\n", "POST / HTTP/1.1\r\ncontent-length: 0\r\n"] {
        client.send(format!("{head}host: t\r\n\r\n"));
        assert_eq!(client.answer().status, 500, "{head}");
    }
    let mut http2 = Http2::connect(app.main);
    for _ in 0..2 {
        let stream = http2.get("/");
        assert_eq!(http2.body(stream), "internal server error\n");
    }
    let report = app.end();
    assert_eq!(outcomes(&report), ([4, 0, 0, 4], 0), "{report:?}");
    wait_for_line(&["ERROR", "handler panicked", "no question for its length", "POST"]);
}

// An extension of a response panicked when hyper or h2 dropped it. The connection or the stream was
// reset, its request was counted as gone, and no line named the panic (P15).
#[test]
fn an_extension_that_panics_when_it_is_dropped_is_counted_and_named() {
    #[derive(Clone, Debug)]
    struct Extension(#[expect(dead_code, reason = "it is only dropped")] Arc<Grudge>);
    let app = App::start(builder().serve_hyper(service_fn(async |_| {
        let mut response = Response::new(Body::from("all of it"));
        let reason = hyper::ext::ReasonPhrase::from_static(b"By The Way");
        response.extensions_mut().insert(reason);
        response.extensions_mut().insert(Extension(Arc::new(Grudge)));
        Ok::<_, Infallible>(response)
    })));
    let status_line = b"HTTP/1.1 200 By The Way\r\n";
    let clients = ["GET / HTTP/1.1\r\n", "OPTIONS / HTTP/1.1\r\n"].map(|head| {
        let mut client = Client::connect(app.main);
        client.send(format!("{head}host: t\r\n\r\n"));
        assert_eq!(client.exactly(status_line.len()).unwrap(), status_line, "{head:?}");
        client
    });
    let mut http2 = Http2::connect(app.main);
    for _ in 0..2 {
        let stream = http2.get("/");
        assert_eq!(http2.body(stream), "all of it");
    }
    drop(clients);
    let report = app.end();
    assert_eq!(outcomes(&report), ([4, 0, 0, 4], 0), "{report:?}");
    wait_for_line(&["ERROR", "handler panicked", "on purpose", "OPTIONS"]);
}

// An error of a body panicked when it was dropped. Its request was counted as gone, not as aborted.
#[test]
fn an_error_of_a_body_that_panics_when_it_is_dropped_costs_only_its_request() {
    let app = app();
    assert_becomes_a_500(&app, "/fails-badly");
    let mut http2 = Http2::connect(app.main);
    let badly = http2.get("/fails-badly");
    http2.wait_for("the reset", |frame| frame.stream == badly && frame.kind == RST_STREAM);
    let stays = http2.get("/");
    assert_eq!(http2.body(stays), "hello");
    let report = app.end();
    assert_eq!(outcomes(&report), ([2, 2, 0, 0], 0), "{report:?}");
    wait_for_line(&["ERROR", "response body failed", "with a grudge", "/fails-badly"]);
    wait_for_line(&["ERROR", "the app's code panicked in a destructor", "on purpose"]);
}
