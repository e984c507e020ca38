//! P5, P5d, P15: bodies that misreport their length, panic or are slow, on the fast path.

use super::{GET, host, outcomes};
#[cfg(feature = "metrics")]
use crate::support::until_holds;
use crate::support::{App, Client, End, block, pause};
use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// A body of one piece that can misreport its length, be slow, or panic.
struct Odd {
    piece: Option<Bytes>,
    says: u64,
    /// The time that `poll_frame` takes for the piece.
    takes: Duration,
    panics: Panics,
}

/// The call in which a body panics.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Panics {
    Nowhere,
    AsItIsAskedForItsEnd,
    AfterItsPiece,
}

impl Odd {
    fn new(piece: impl Into<Bytes>, says: u64) -> Self {
        Self { piece: Some(piece.into()), says, takes: Duration::ZERO, panics: Panics::Nowhere }
    }
}

impl http_body::Body for Odd {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        block(self.takes);
        Poll::Ready(self.piece.take().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let panics = match self.panics {
            Panics::Nowhere => false,
            Panics::AsItIsAskedForItsEnd => true,
            Panics::AfterItsPiece => self.piece.is_none(),
        };
        assert!(!panics, "asked for its end, on purpose");
        self.piece.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.says)
    }
}

// A body longer than its length was truncated to it. Its client took it for complete, and it was
// counted as finished. Later its connection was reset, which discarded earlier responses of the
// pipeline that were counted as finished. Nothing of such a response is written yet, so it must
// become a 500 (P5d).
#[test]
fn a_fast_path_body_longer_than_its_length_becomes_a_500() {
    let app = App::start(host(async |path, _| match &*path {
        "/long" => Body::new(Odd::new("all of it", 3)),
        "/very-long" => Body::new(Odd::new(vec![b'x'; 100_000], 3)),
        "/empty" => Body::new(Odd::new("all of it", 0)),
        _ => Body::from("hello"),
    }));
    for path in ["/long", "/very-long", "/empty"] {
        let mut client = Client::connect(app.main);
        client.send(format!("{GET}GET {path} HTTP/1.1\r\nhost: test\r\n\r\n{GET}"));
        assert_eq!(client.answer().body(), "hello");
        let error = client.answer();
        assert_eq!((error.status, &*error.body()), (500, "internal server error\n"), "{path}");
        assert!(error.header("date").is_some(), "{error:?}");
        assert_eq!(client.answer().body(), "hello", "the connection goes on after {path}");
    }
    let mut client = Client::connect(app.main);
    client.send("GET /long HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let error = client.answer();
    assert!(error.status == 500 && error.says_close(), "{error:?}");
    assert_eq!(client.end(), End::Closed);
    let report = app.end();
    assert_eq!(outcomes(&report), [10, 6, 0, 4, 0], "{report:?}");
    assert!(report.aborts.iter().all(|abort| !abort.by_shutdown && !abort.head_sent), "{report:?}");
    assert_eq!(report.connections.reset, 0, "{report:?}");
}

// A request kept its connection state and the connection state kept the request. Neither was
// dropped. The request was in flight for ever, and the report counted it as aborted by the stop
// (exit code 3). A panic in `is_end_stream` must end its request (P5c).
#[test]
fn a_body_that_panics_when_it_is_polled_for_its_end_is_counted() {
    let app = App::start(host(async |path, _| {
        let panics = match &*path {
            "/at-once" => Panics::AsItIsAskedForItsEnd,
            "/later" => {
                pause(20).await;
                Panics::AsItIsAskedForItsEnd
            }
            _ => Panics::AfterItsPiece,
        };
        Body::new(Odd { panics, ..Odd::new("all of it", 9) })
    }));
    let mut client = Client::connect(app.main);
    for path in ["/at-once", "/later"] {
        assert_eq!(client.get(path).status, 500, "{path}");
    }
    client.send_get("/after");
    let _ = client.end();
    let report = app.end();
    assert_eq!((outcomes(&report), report.code()), ([3, 2, 0, 0, 1], 0), "{report:?}");
}

// The latency was read when the handler had returned, not when its body had been sent.
#[cfg(feature = "metrics")]
#[test]
fn latency_runs_to_the_end_of_a_fast_path_response() {
    let app = App::start(host(async |_, _| {
        Body::new(Odd { takes: Duration::from_millis(120), ..Odd::new("all of it", 9) })
    }));
    assert_eq!(app.get("/").body(), "all of it");
    until_holds("it is counted", || app.status()["requests"]["finished"] == 1);
    let page = app.probe("/metrics").body();
    let sum = page
        .lines()
        .find_map(|line| line.split_once("request_duration_seconds_sum ")?.1.parse::<f64>().ok());
    assert!(sum.unwrap() >= 0.12, "{sum:?}");
    let _ = app.end();
}
