//! Requests whose handlers use a rare part of the host's public interface.

use super::{Call, odd::looks_like_requests};
use crate::client::RequestSpec;
use http::Method;
use serde::{Deserialize, Serialize};

/// A request to a route of the [default app](crate::app) whose handler uses a rare part of the
/// interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RareRequest {
    /// A long poll: a response that ends when the root context is cancelled.
    EndAtCancel,
    /// A handler that sets its timeout after `after` milliseconds to `within` milliseconds, counted
    /// from the head, or to none, and then ignores everything.
    LateTimeout {
        /// When it sets the timeout.
        after: u64,
        /// The timeout.
        within: Option<u64>,
    },
    /// A handler that ignores everything, under a `RouteTimeout` of this many milliseconds, or
    /// without a deadline.
    RouteTimeout(Option<u64>),
    /// A handler that ignores everything for this many milliseconds, and whose context is watched
    /// by a separate task.
    Watched(u64),
    /// A handler that ignores everything for `ms` milliseconds, and whose context is watched by a
    /// separate task from `after` milliseconds on.
    WatchedLate {
        /// When the task begins to watch.
        after: u64,
        /// How long the handler needs.
        ms: u64,
    },
    /// An event stream of the class `StreamShutdown::EndSpread` whose handler ends it after this
    /// number of events.
    ShortStream(u64),
    /// A handler that ignores everything for this many milliseconds, and panics if it is dropped.
    DropPanics(u64),
    /// A body of four bytes with its length, followed by this many empty frames, and then by a
    /// fifth byte or not.
    Padded(u64, bool),
    /// A handler that takes its time, reads a body which may have arrived before, and then
    /// responds with a body of any length.
    Late {
        /// How long it ignores everything.
        ms: u64,
        /// Bytes of the request body; a `GET` if there are none.
        body: usize,
        /// Bytes of the response body.
        bytes: usize,
        /// Whether the request has `Connection: close`.
        closes: bool,
        /// Whether the length of the response is unknown, so that hyper sends it.
        chunked: bool,
    },
    /// A response without content: with this status, or because the method is `HEAD`.
    Empty {
        /// 204, 205 or 304; any for `HEAD`.
        status: u16,
        /// How long the handler ignores everything.
        ms: u64,
        /// Whether the handler gives content all the same.
        content: bool,
        /// Whether the method is `HEAD`.
        head: bool,
    },
    /// A response that announces the close of its connection, as its handler says.
    Closes {
        /// How the handler says it.
        says: CloseOption,
        /// How long the handler ignores everything.
        ms: u64,
        /// Bytes of the response body.
        bytes: usize,
        /// Whether the length of the response is unknown, so that hyper sends it.
        chunked: bool,
    },
    /// A body of four bytes with its length, which panics at its first poll.
    Fails,
    /// A request with `Expect: 100-continue` and a body of this many bytes. The handler reads it,
    /// and the body of its response panics at its first poll. Only on HTTP/1.
    FailsAfter(usize),
    /// A body of four bytes, which panics when its length is queried.
    HasNoLength,
    /// A 101 for which the handler takes no connection.
    NotTaken,
    /// An event stream of the class `StreamShutdown::EndSpread`.
    LongStream,
    /// The same, whose handler also spawns tracked work for this many milliseconds, which ignores
    /// its cancellation.
    StreamWork(u64),
    /// A gRPC call. Only on HTTP/2.
    Call(Call),
}

/// How a handler says that its response is the last on the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CloseOption {
    /// `Connection: close`.
    Close,
    /// `Connection: Close`.
    InCapitals,
    /// `close` between options that mean nothing.
    AmongOptions,
    /// `close` in a second field `Connection`.
    InASecondField,
}

impl CloseOption {
    /// Each of them.
    pub const ALL: [Self; 4] =
        [Self::Close, Self::InCapitals, Self::AmongOptions, Self::InASecondField];

    /// Returns the name of it in a target.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::InCapitals => "capitals",
            Self::AmongOptions => "among",
            Self::InASecondField => "second",
        }
    }

    /// Returns the fields `Connection` that a name stands for.
    #[must_use]
    pub fn fields(name: &str) -> &'static [&'static str] {
        match name {
            "capitals" => &["Close"],
            "among" => &["x-one,close ,x-two"],
            "second" => &["x-one", "close"],
            _ => &["close"],
        }
    }
}

fn or_none(ms: Option<u64>) -> String {
    ms.map_or_else(|| "none".to_owned(), |ms| ms.to_string())
}

impl RareRequest {
    /// Returns the request to send.
    #[must_use]
    pub fn ask(self) -> RequestSpec {
        match self {
            Self::EndAtCancel => RequestSpec::get("/events?end=cancel"),
            Self::LateTimeout { after, within } => {
                let within = or_none(within);
                RequestSpec::get(format!("/ignores?after={after}&timeout={within}"))
            }
            Self::RouteTimeout(within) => {
                RequestSpec::get(format!("/ignores?route={}", or_none(within)))
            }
            Self::Watched(ms) => RequestSpec::get(format!("/ignores?watch=yes&ms={ms}")),
            Self::WatchedLate { after, ms } => {
                RequestSpec::get(format!("/ignores?watch={after}&ms={ms}"))
            }
            Self::ShortStream(events) => RequestSpec::get(format!("/events?n={events}&end=spread")),
            Self::DropPanics(ms) => RequestSpec::get(format!("/ignores?drop=panics&ms={ms}")),
            Self::Padded(frames, extra) => {
                let extra = if extra { "yes" } else { "no" };
                RequestSpec::get(format!("/padded?frames={frames}&extra={extra}"))
            }
            Self::Late { ms, body, bytes, closes, chunked } => {
                let chunked = if chunked { "&chunked=1" } else { "" };
                let target = format!("/late?ms={ms}&body={body}&n={bytes}{chunked}");
                let ask = if body > 0 {
                    RequestSpec::post(target, looks_like_requests(body))
                } else {
                    RequestSpec::get(target)
                };
                if closes { ask.with("Connection", "close") } else { ask }
            }
            Self::Empty { status, ms, content, head } => {
                let content = if content { "yes" } else { "no" };
                let ask =
                    RequestSpec::get(format!("/empty?status={status}&content={content}&ms={ms}"));
                if head { RequestSpec { method: Method::HEAD, ..ask } } else { ask }
            }
            Self::Closes { says, ms, bytes, chunked } => {
                let chunked = if chunked { "&chunked=1" } else { "" };
                let says = says.name();
                RequestSpec::get(format!("/closes?says={says}&ms={ms}&n={bytes}{chunked}"))
            }
            Self::Fails => RequestSpec::get("/fails"),
            Self::FailsAfter(body) => {
                RequestSpec::post(format!("/fails?body={body}"), looks_like_requests(body))
                    .with("Expect", "100-continue")
            }
            Self::HasNoLength => RequestSpec::get("/fails?length"),
            Self::LongStream => RequestSpec::get("/events?end=spread"),
            Self::StreamWork(ms) => RequestSpec::get(format!("/events?work={ms}&end=spread")),
            Self::Call(call) => call.ask(),
            Self::NotTaken => RequestSpec::get("/upgrade?taken=no")
                .with("Connection", "upgrade")
                .with("Upgrade", "echo"),
        }
    }
}
