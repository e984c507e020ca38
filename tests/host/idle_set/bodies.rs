//! P5d, P15: bodies that panic or fail in the idle set.

use super::{GET, connections, host, idle_clients, outcomes, start};
use crate::support::{End, pause};
use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use std::{
    cell::Cell,
    convert::Infallible,
    io,
    pin::Pin,
    task::{Context, Poll},
};

/// A body that panics in `size_hint`, after this many calls.
pub(crate) struct Rude(pub(crate) Cell<u32>);

impl http_body::Body for Rude {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.0.get().checked_sub(1).expect("no question for its length, on purpose");
        self.0.set(left);
        SizeHint::with_exact(2)
    }
}

// An uncaught panic of a body costs its connection the task. A connection in the idle set has none,
// so the panic ended the worker with all its connections. It must cost only its own request, or its
// connection if the response has begun (P15).
#[test]
fn a_panic_of_a_body_in_the_idle_set_costs_only_its_connection() {
    let app = start(host(async |path, _| match &*path {
        "/rude" => Body::new(Rude(Cell::new(0))),
        "/ruder" => Body::new(Rude(Cell::new(1))),
        "/panic" => panic!("on purpose"),
        _ => Body::from("hello"),
    }));
    let [mut rude, mut ruder, mut handler, mut neighbour] = idle_clients(&app);
    assert_eq!(handler.get("/panic").status, 500);
    assert_eq!(rude.get("/rude").status, 500);
    assert_eq!(rude.get("/").body(), "hello");
    ruder.send_get("/ruder");
    assert!(ruder.try_answer().is_err());
    assert_eq!(neighbour.get("/").body(), "hello");
    assert_eq!(app.get("/").body(), "hello");
    let report = app.end();
    assert_eq!(connections(&report)[..1], [5]);
    assert_eq!(report.requests.panicked, 3);
    let [started, finished, timed_out, aborted, gone] = outcomes(&report);
    assert_eq!(started, finished + timed_out + aborted + gone);
}

/// A body that yields its four bytes, and fails at once or after a moment.
struct Fails {
    left: Option<&'static str>,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl http_body::Body for Fails {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(left) = self.left.take() {
            return Poll::Ready(Some(Ok(Frame::data(left.into()))));
        }
        let wait = self.wait.as_mut().map_or(Poll::Ready(()), |wait| wait.as_mut().poll(cx));
        wait.map(|()| Some(Err(io::Error::other("the upstream broke"))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(4)
    }
}

// A body failed in the idle set, and its connection was reset together with earlier responses. An
// error that came after the promised bytes was not noticed. One that comes before anything was
// written must become a 500, and one that comes later must cut the response (P5d).
#[test]
fn a_body_that_fails_in_the_idle_set_becomes_a_500_or_cuts_its_response() {
    let app = start(host(async |path, _| match &*path {
        "/at-once" => Body::new(Fails { left: Some("four"), wait: None }),
        "/late" => Body::new(Fails { left: Some("four"), wait: Some(Box::pin(pause(100))) }),
        _ => Body::from("hello"),
    }));
    let [mut at_once, mut late] = idle_clients(&app);
    at_once.send(format!("{GET}GET /at-once HTTP/1.1\r\nhost: test\r\n\r\n{GET}"));
    assert_eq!(at_once.answer().body(), "hello");
    assert_eq!(at_once.answer().status, 500);
    assert_eq!(at_once.answer().body(), "hello", "the connection goes on");
    late.send(format!("{GET}GET /late HTTP/1.1\r\nhost: test\r\n\r\n{GET}"));
    assert_eq!(late.answer().body(), "hello");
    assert_eq!(late.try_answer().unwrap_err(), End::Reset);
    let report = app.end();
    assert_eq!(outcomes(&report), [7, 5, 0, 2, 0], "{report:?}");
    assert_eq!(connections(&report), [2, 1, 0, 1], "{report:?}");
}
