//! Endless event streams, and how each of them ends at a shutdown.
//!
//! | route | ends | because |
//! |---|---|---|
//! | `/events` | when the drain begins | its type is `text/event-stream` |
//! | `/lines` | when the drain begins | it carries [`StreamShutdown::EndAtDraining`] |
//! | `/farewell` | when the drain begins, with a final event | see below |
//!
//! `/farewell` carries [`StreamShutdown::Finish`] and watches [`RequestContext::draining`].
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
//! The stream goes on for the five seconds of the lame duck, sends its farewell and ends; curl
//! exits with 0. The request's deadline of five seconds does not apply to it: a deadline is for the
//! head of a response.
#![expect(
    clippy::disallowed_methods,
    reason = "an app lives on tokio's time; only the host must not"
)]

use axum::{
    Extension, Router,
    body::Body,
    response::{IntoResponse, Sse, sse::Event},
    routing::get,
};
use futures_util::{Stream, StreamExt, stream};
use lameduck::{
    Host, RequestContext, RunOptions, Settings, StreamShutdown,
    cli::logging::{self, LogError, LogFormat},
};
use std::{convert::Infallible, time::Duration};

const EVERY: Duration = Duration::from_millis(250);

fn main() -> Result<(), LogError> {
    let log = logging::install(LogFormat::Auto, None)?;
    lameduck::run_with(RunOptions::new().finish(|_| drop(log)), || {
        let router = Router::new()
            .route("/events", get(events))
            .route("/lines", get(lines))
            .route("/farewell", get(farewell));
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

fn ticks() -> impl Stream<Item = u64> {
    stream::unfold((tokio::time::interval(EVERY), 0), |(mut interval, n)| async move {
        interval.tick().await;
        Some((n, (interval, n + 1)))
    })
}
