//! Endless event streams, and how each of them ends at a shutdown.
//!
//! | route | ends | because |
//! |---|---|---|
//! | `/events` | when the drain begins | its type is `text/event-stream` |
//! | `/lines` | when the drain begins | it carries [`StreamShutdown::EndAtDraining`] |
//! | `/farewell` | when the drain begins, with a final event | see below |
//! | `/spread` | at a moment of `SHUTDOWN_STREAMS` | it carries [`StreamShutdown::EndSpread`] |
//! | `/socket` | the same, with the close code 1012 | a WebSocket; it watches [`RequestContext::stream_end`] |
//!
//! `/farewell` carries [`StreamShutdown::Finish`] and watches [`RequestContext::draining`].
//!
//! A long stream, as the last two are, has a separate budget, and ends at a moment in it that is
//! drawn at random. So the clients of many streams do not reconnect all at once.
//!
//! Each stream ends completely: its client sees a regular end, not an error, and reconnects. It
//! reaches another process, since this one is no longer ready and does not listen. So no stream
//! ends at the stop request: a client that reconnects to a lame duck would reach the same process
//! again. An unmarked endless stream of another type would last until the cancel wait ends, and
//! be cut.
//!
//! ```text
//! $ cargo run --example events
//! $ curl -N localhost:8080/farewell     # in another terminal; then press Ctrl-C at the first
//! ```
//!
//! The stream continues for the five seconds of the lame duck, sends its final event and ends; curl
//! exits with 0. The request's deadline of five seconds does not apply to it: a deadline is for the
//! head of a response.
#![expect(
    clippy::disallowed_methods,
    reason = "an app lives on tokio's time; only the host must not"
)]

use axum::{
    Extension, Router,
    body::Body,
    extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    response::{IntoResponse, Sse, sse::Event},
    routing::get,
};
use futures_util::{Stream, StreamExt, stream};
use lameduck::{
    Host, RequestContext, RunOptions, Settings, StreamShutdown,
    cli::logging::{self, LogFormat},
};
use std::{convert::Infallible, time::Duration};

const EVERY: Duration = Duration::from_millis(250);

fn main() {
    let log = logging::install(LogFormat::Auto, None).unwrap_or_else(|error| error.exit());
    lameduck::run_with(RunOptions::new().finish(|_| drop(log)), || {
        let router = Router::new()
            .route("/events", get(events))
            .route("/lines", get(lines))
            .route("/farewell", get(farewell))
            .route("/spread", get(spread))
            .route("/socket", get(socket));
        Ok(Host::builder(Settings::from_env()?).serve(router))
    })
}

/// Ends by default: axum's `Sse` sets `text/event-stream`.
async fn events() -> impl IntoResponse {
    Sse::new(
        ticks().map(|n| {
            Ok::<_, Infallible>(Event::default().id(n.to_string()).data(format!("tick {n}")))
        }),
    )
}

/// A stream of another type needs the marker in the response's extensions, where axum's `Extension`
/// puts it.
async fn lines() -> impl IntoResponse {
    let lines = ticks().map(|n| Ok::<_, Infallible>(format!("tick {n}\n")));
    (Extension(StreamShutdown::EndAtDraining), Body::from_stream(lines))
}

/// With `Finish`, the host does not end this stream. It ends itself, after a final event.
async fn farewell(Extension(context): Extension<RequestContext>) -> impl IntoResponse {
    let ticks = ticks().map(|n| Event::default().data(format!("tick {n}")));
    let farewell =
        Event::default().event("farewell").retry(Duration::from_millis(100)).data("reconnect");
    let events =
        ticks.take_until(async move { context.draining().await }).chain(stream::iter([farewell]));
    (Extension(StreamShutdown::Finish), Sse::new(events.map(Ok::<_, Infallible>)))
}

/// A long stream. Its end is a regular one, like that of all others.
async fn spread() -> impl IntoResponse {
    let ticks = ticks().map(|n| Ok::<_, Infallible>(Event::default().data(format!("tick {n}"))));
    (Extension(StreamShutdown::EndSpread), Sse::new(ticks))
}

/// A WebSocket. The call of `stream_end` makes it a long stream.
async fn socket(
    upgrade: WebSocketUpgrade,
    Extension(context): Extension<RequestContext>,
) -> impl IntoResponse {
    let end = context.stream_end();
    upgrade.on_upgrade(|socket| talk(socket, end))
}

async fn talk(mut socket: WebSocket, end: impl Future<Output = ()>) {
    let mut ticks = std::pin::pin!(ticks());
    let mut end = std::pin::pin!(end);
    let sent = loop {
        let sent = tokio::select! {
            biased;
            () = &mut end => {
                let frame = CloseFrame { code: close_code::RESTART, reason: "reconnect".into() };
                break socket.send(Message::Close(Some(frame))).await;
            }
            Some(n) = ticks.next() => socket.send(format!("tick {n}").into()).await,
        };
        if sent.is_err() {
            return;
        }
    };
    // The client responds with its own close frame.
    if sent.is_ok() {
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

fn ticks() -> impl Stream<Item = u64> {
    stream::unfold((tokio::time::interval(EVERY), 0), |(mut interval, n)| async move {
        interval.tick().await;
        Some((n, (interval, n + 1)))
    })
}
