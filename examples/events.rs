//! Event streams, which have no end of their own, and how each of them ends in a shutdown.
//!
//! | route | ends | because |
//! |---|---|---|
//! | `/events` | when the drain begins | its type is `text/event-stream` |
//! | `/lines` | when the drain begins | its answer carries [`StreamShutdown::EndAtDraining`] |
//! | `/farewell` | when the drain begins, with words of its own | it carries [`StreamShutdown::Finish`], and watches [`RequestContext::draining`] |
//!
//! Each ends whole, so that its client sees an end and not a breach, and reconnects: to somebody else, since this process is not
//! ready any more and does not listen. That is why none ends at the stop request: a client that reconnects to a lame duck would
//! get the very same process. An unmarked endless stream of another type would last until the cancel wait is over, and be cut.
//!
//! ```text
//! $ cargo run --example events
//! $ curl -N localhost:8080/farewell     # in another terminal; then press Ctrl-C at the first
//! ```
//!
//! The stream goes on for the five seconds of the lame duck, says farewell and ends; curl exits with 0. The request's deadline
//! of five seconds does not touch it: a deadline is for the head of an answer.
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
    Host, RequestContext, Settings, StreamShutdown,
    cli::logging::{self, LogFormat},
};
use std::{convert::Infallible, time::Duration};

const EVERY: Duration = Duration::from_millis(250);

fn main() -> Result<(), String> {
    let log = logging::install(LogFormat::Auto, None)?;
    lameduck::main(
        || {
            let router = Router::new()
                .route("/events", get(events))
                .route("/lines", get(lines))
                .route("/farewell", get(farewell));
            Ok(Host::builder().settings(Settings::from_env()?).tower(router))
        },
        |_| drop(log),
    )
}

/// The default does: axum's `Sse` says `text/event-stream`.
async fn events() -> impl IntoResponse {
    Sse::new(
        ticks().map(|n| {
            Ok::<_, Infallible>(Event::default().id(n.to_string()).data(format!("tick {n}")))
        }),
    )
}

/// A stream of another type has to say it: the marker goes into the response's extensions, as axum's `Extension` puts it.
async fn lines() -> impl IntoResponse {
    let lines = ticks().map(|n| Ok::<_, Infallible>(format!("tick {n}\n")));
    (Extension(StreamShutdown::EndAtDraining), Body::from_stream(lines))
}

/// Left to itself by `Finish`, this one ends by its own doing, and has the last word.
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
