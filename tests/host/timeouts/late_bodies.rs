//! P15, P6: a body that a task reads after the response has ended.

use super::{ALL_WORKERS, TIMEOUT, outcomes};
use crate::support::{
    self, App, Client, End, MAX_WAIT, app::Workers, block, now, quick_plan, settings,
};
use axum::{
    Router,
    body::Body,
    http::StatusCode,
    routing::{get, post},
};
use futures_util::StreamExt;
use lameduck::{Host, Limits};
use std::{future::poll_fn, sync::mpsc, task::Poll, time::Duration};

/// Starts a host whose handlers of uploads respond at once, while tasks read the bodies. Returns
/// the lengths of the bodies; `None` for one that was cut.
fn start(workers: Workers) -> (App, mpsc::Receiver<Option<usize>>) {
    let limits = Limits::default().send_timeout(TIMEOUT).body_timeout(TIMEOUT);
    let plan = quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_secs(5));
    let (sender, lengths) = mpsc::channel();
    let upload = |pause: Duration| {
        let sender = sender.clone();
        post(async move |body| {
            spawn(async move { sender.send(read(body, pause).await).unwrap_or(()) })
        })
    };
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/accepted", upload(Duration::ZERO))
        .route("/pauses", upload(2 * TIMEOUT));
    let host = Host::builder(settings().plan(plan).limits(limits)).serve(router);
    (App::start_on(host, workers), lengths)
}

#[expect(clippy::disallowed_methods, reason = "what an app does")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> StatusCode {
    drop(tokio::spawn(task));
    StatusCode::ACCEPTED
}

/// Returns the length of a body. Pauses after a poll that returned nothing, although the connection
/// may have more.
async fn read(body: Body, pause: Duration) -> Option<usize> {
    let mut body = body.into_data_stream();
    let mut read = body.next().await?.ok()?.len();
    if let Poll::Ready(part) = poll_fn(|cx| Poll::Ready(body.poll_next_unpin(cx))).await {
        read += part?.ok()?.len();
    }
    support::pause(pause.as_millis() as u64).await;
    while let Some(part) = body.next().await {
        read += part.ok()?.len();
    }
    Some(read)
}

// A task read the body of a request whose response had ended. If the client then sent nothing more,
// its connection was kept without a bound, and held the drain for its whole length (P15, P6).
#[test]
fn a_body_that_stops_after_the_response_ends_its_connection() {
    for workers in ALL_WORKERS {
        let (app, _) = start(workers);
        let stalled = || {
            let mut client = Client::connect(app.main);
            client.send("POST /accepted HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n12345");
            assert_eq!(client.answer().status, 202);
            client
        };
        let begin = now();
        let mut client = stalled();
        assert_eq!(client.end(), End::Closed, "{workers:?}");
        assert!(begin.elapsed() >= TIMEOUT, "{:?}", begin.elapsed());
        assert_eq!(app.status()["connections"]["body_timeouts"], 1);
        let mut slow = stalled();
        for _ in 0..5 {
            block(TIMEOUT / 4);
            slow.send("x");
        }
        assert_eq!(slow.get("/").body(), "hello");
        let _stalled = stalled();
        let report = app.end();
        assert!(report.shutdown < TIMEOUT * 8, "{workers:?}: {report:?}");
        assert_eq!((report.code(), outcomes(&report)), (0, [4, 0, 0, 0]));
    }
}

// A client that sent the line end of a chunk, of which its reader gets nothing, and then nothing
// more, had no time limit any more (P15, P6).
#[test]
fn a_line_end_after_a_chunk_restarts_the_time_of_a_late_body() {
    for workers in ALL_WORKERS {
        let (app, _) = start(workers);
        let mut client = Client::connect(app.main);
        let head = "POST /accepted HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n";
        client.send(format!("{head}5\r\nhello"));
        assert_eq!(client.answer().status, 202);
        block(TIMEOUT / 2);
        client.send("\r\n");
        let begin = now();
        assert_eq!(client.end(), End::Closed, "{workers:?}");
        assert!(begin.elapsed() >= TIMEOUT, "{:?}", begin.elapsed());
        assert_eq!(app.end().connections.body_timeouts, 1);
    }
}

// A task that read a body after the response had ended got no end of it before the next request on
// its connection. Its client got the blame, although it had sent all (P5, P13).
#[test]
fn a_late_body_of_a_known_length_ends_with_its_last_byte() {
    for workers in ALL_WORKERS {
        let (app, lengths) = start(workers);
        let mut client = Client::connect(app.main);
        client.send("POST /accepted HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n12345");
        assert_eq!(client.answer().status, 202);
        client.send("67890");
        assert_eq!(lengths.recv_timeout(MAX_WAIT), Ok(Some(10)), "{workers:?}");
        assert_eq!(client.get("/").body(), "hello");
        assert_eq!(app.end().connections.body_timeouts, 0);
    }
}

// A client that had sent all of its upload got the blame when the task that read it did other work
// for longer than the body timeout. The task lost what it had not read (P5, P13).
#[test]
fn a_task_that_pauses_gets_all_of_a_late_body() {
    const LENGTH: usize = 200_000;
    for workers in ALL_WORKERS {
        let (app, lengths) = start(workers);
        let mut client = Client::connect(app.main);
        let head = format!("POST /pauses HTTP/1.1\r\nhost: t\r\ncontent-length: {LENGTH}\r\n\r\n");
        client.send([head.as_bytes(), &[b'x'; LENGTH]].concat());
        assert_eq!(client.answer().status, 202);
        assert_eq!(lengths.recv_timeout(MAX_WAIT), Ok(Some(LENGTH)), "{workers:?}");
        assert_eq!(app.end().connections.body_timeouts, 0);
    }
}
