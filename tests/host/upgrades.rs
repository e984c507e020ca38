//! P7, P8: upgraded connections end with the shutdown, however the app uses them.

use crate::support::{App, Client, End, now, pause, quick_plan, settings, until_holds};
use axum::{Router, extract::Request, response::IntoResponse, routing::get};
use http::{StatusCode, header};
use hyper_util::rt::TokioIo;
use lameduck::{Host, RequestContext};
use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};

/// Changes the protocol. One task reads, and another writes one byte after the first has begun to
/// wait. The second ends with the first.
#[expect(clippy::disallowed_methods, reason = "as libraries for WebSocket do")]
async fn two_tasks(mut request: Request) -> impl IntoResponse {
    let upgrading = hyper::upgrade::on(&mut request);
    drop(tokio::spawn(async move {
        let Ok(upgraded) = upgrading.await else { return };
        let (mut reading, mut writing) = tokio::io::split(TokioIo::new(upgraded));
        let (begin, begun) = oneshot::channel();
        let (_end, ended) = oneshot::channel::<()>();
        drop(tokio::spawn(async move {
            if begun.await.is_ok() && writing.write_all(b"x").await.is_ok() {
                let _ = ended.await;
            }
        }));
        let wait = async {
            let _ = begin.send(());
            pending::<()>().await;
        };
        tokio::select! {
            biased;
            _ = reading.read_u8() => {}
            () = wait => {}
        }
    }));
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "chat")];
    (StatusCode::SWITCHING_PROTOCOLS, headers)
}

// One task read an upgraded connection, and another wrote to it. The abort woke only the task that
// had used the connection last. The other kept it open, for the whole budget of long streams.
#[test]
fn an_upgraded_connection_of_two_tasks_ends_with_ordinary_requests() {
    let plan = quick_plan()
        .lame_duck(Duration::ZERO)
        .drain(Duration::from_millis(400))
        .cancel(Duration::from_millis(600))
        .streams(Duration::from_secs(12));
    let router = Router::new().route("/", get(two_tasks));
    let app = App::start(Host::builder(settings().plan(plan)).serve(router));
    let mut client = Client::connect(app.main);
    client.send("GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n");
    assert_eq!(client.head().map(|head| head.status), Ok(101));
    assert_eq!(client.exactly(1), Ok(b"x".to_vec()));
    until_holds("upgraded", || app.status()["connections"]["upgraded"] == 1);
    let begin = now();
    app.stop();
    assert_eq!(client.end(), End::Closed);
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    assert!(app.report().shutdown < Duration::from_secs(8));
}

// The work of a request awaited the end of its long stream. A later upgrade on the connection
// became a long stream by that, and outlasted the drain of ordinary requests (P7).
#[test]
fn the_work_of_an_earlier_request_makes_no_upgrade_a_long_stream() {
    let plan = quick_plan()
        .lame_duck(Duration::ZERO)
        .drain(Duration::from_millis(400))
        .cancel(Duration::from_millis(600))
        .streams(Duration::from_secs(6));
    let [go, awaits] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let (waits, noted) = (go.clone(), awaits.clone());
    let leftover = move |context: RequestContext| async move {
        context.clone().spawn(async move {
            while !waits.load(Relaxed) {
                pause(5).await;
            }
            let ended = context.stream_end();
            noted.store(true, Relaxed);
            ended.await;
        });
        "spawned"
    };
    let router = Router::new().route("/", get(two_tasks)).route("/leftover", get(leftover));
    let app = App::start(Host::builder(settings().plan(plan)).serve(router));
    let mut client = Client::connect(app.main);
    client.send_get("/leftover");
    assert_eq!(client.try_answer().map(|answer| answer.status), Ok(200));
    client.send("GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n");
    assert_eq!(client.head().map(|head| head.status), Ok(101));
    assert_eq!(client.exactly(1), Ok(b"x".to_vec()));
    until_holds("upgraded", || app.status()["connections"]["upgraded"] == 1);
    go.store(true, Relaxed);
    until_holds("the work awaits its end", || awaits.load(Relaxed));
    let begin = now();
    app.stop();
    assert_eq!(client.end(), End::Closed);
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    assert_eq!(app.report().work_dropped, 0);
}
