//! The clients of a scenario.

use super::{HeaderFault, OddRequest, ProxyHeader, RareRequest, Request};
use crate::client::{
    AfterRequest, ClientId, Connect, ExchangePacing, First, Http1Client, Pace, RequestSpec, Retry,
    Step, byte_less, connection_per_request, given_up, keep_alive, multiplexed, one_request, pause,
    pipelined, raw, resetting, session, silent_http2, stalled, strangers, upgraded, uploading,
    windowless, windowless_request,
};
use serde::{Deserialize, Serialize};
use std::{iter, time::Duration};

/// A client of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// When the client begins.
    pub at_ms: u64,
    /// The request that it sends.
    pub request_kind: RequestKind,
    /// How it sends requests.
    pub traffic: Traffic,
    /// Every second request, if different.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<RequestKind>,
    /// Whether it sends its first request on HTTP/2 only after the server's SETTINGS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits_for_settings: bool,
    /// The PROXY header with which each of its connections begins, if it comes through a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<ProxyHeader>,
}

/// A request to a route of the [default app](crate::app).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestKind {
    /// A response at once.
    Fast,
    /// A response after the given milliseconds, or when the request is cancelled.
    Slow(u64),
    /// A response after the given milliseconds, whatever happens.
    Stuck(u64, StuckResponse),
    /// A body of this many bytes, which is sent back.
    Echo(usize),
    /// A streamed response that lasts the given milliseconds.
    Stream(u64),
    /// A body of this many bytes, which the handler does not read; it responds at once.
    Unread(usize),
    /// A panic of the handler.
    Panic,
    /// A head and a chunk, then a panic of the body.
    Breaks,
    /// A `HEAD` request with a response at once.
    Head,
    /// A response of this many bytes at once.
    Bytes(usize),
    /// A response after the given milliseconds, without a deadline.
    Unlimited(u64),
    /// An event stream that only the drain ends.
    Events,
    /// A response at once, and tracked work for the given milliseconds.
    Work(u64, Cooperation),
    /// A response after the given milliseconds, under the route's own deadline in milliseconds.
    Within(u64, u64),
    /// A request to a user's service.
    User(Box<Request>),
    /// An unusual request. Only on HTTP/1.
    Odd(OddRequest),
    /// A response whose body does not match its `Content-Length`.
    Mismatch(WrongLength),
    /// A request whose handler uses a rare part of the public interface.
    Rare(RareRequest),
}

/// A `Content-Length` that does not match the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WrongLength {
    /// 3 for a body of 4 bytes.
    Short,
    /// 10 for a body of 4 bytes.
    Long,
    /// 3 for 4 bytes that are sent in pieces, so that the host learns it after the head.
    ShortLate,
    /// 10 for 4 bytes that are sent in pieces.
    LongLate,
}

impl WrongLength {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Short, Self::Long, Self::ShortLate, Self::LongLate];

    /// Returns the length that the head has.
    #[must_use]
    pub const fn said(self) -> u64 {
        match self {
            Self::Short | Self::ShortLate => 3,
            Self::Long | Self::LongLate => 10,
        }
    }

    /// Whether the host learns the length of the body only after the head.
    #[must_use]
    pub const fn is_late(self) -> bool {
        matches!(self, Self::ShortLate | Self::LongLate)
    }
}

/// Whether a handler's work ends when it is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cooperation {
    /// It ends.
    Heeds,
    /// It continues.
    Ignores,
    /// It continues and panics at the end. Only for [`RequestKind::Work`].
    Panics,
}

/// What a stuck handler sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StuckResponse {
    /// Nothing.
    Nothing,
    /// The head with a `Content-Length`, and half of the body.
    Length,
    /// The head and half of the body, chunked.
    Chunked,
}

/// How a client sends its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Traffic {
    /// One request on one connection.
    Once(Pacing),
    /// One request after the other on one connection.
    KeepAlive {
        /// Number of requests.
        requests: u64,
        /// Pause between requests.
        every_ms: u64,
        /// Whether a failed request is retried where RFC 9112 §9.5 allows it.
        retries: bool,
    },
    /// One request after the other, each on its own connection.
    PerRequest {
        /// Number of requests.
        requests: u64,
        /// Pause between requests.
        every_ms: u64,
    },
    /// Requests on one HTTP/2 connection, without waiting for responses.
    Http2 {
        /// Number of requests.
        requests: u64,
        /// Pause between requests.
        every_ms: u64,
    },
    /// All requests at once on one HTTP/2 connection. The client reads only the response heads and
    /// drops the responses after a while.
    Http2Leaves {
        /// Number of requests.
        requests: u64,
        /// How long the bodies are left unread.
        after_ms: u64,
    },
    /// All requests at once on one HTTP/2 connection whose client never opens a window.
    Http2Windowless {
        /// Number of requests.
        requests: u64,
    },
    /// A client of HTTP/2 that reads nothing of a large response, and then asks and resets streams
    /// without end.
    Http2Resets {
        /// How often it asks and resets.
        rounds: u64,
        /// Streams of one round.
        streams: u64,
    },
    /// One request over HTTP/2, whose body comes in pieces.
    Http2Upload {
        /// Bytes of a piece.
        bytes: usize,
        /// Pause before each piece.
        every_ms: u64,
    },
    /// One request on one HTTP/1 connection. The client reads some bytes of the response, then
    /// nothing for a while, then the rest.
    Stalls {
        /// Bytes of the response that it reads first.
        reads: u64,
        /// How long it then reads nothing, unless the connection is reset earlier.
        for_ms: u64,
    },
    /// All requests at once on one HTTP/1 connection.
    Pipelined {
        /// Number of requests.
        requests: u64,
    },
    /// Connects, waits, then sends a request.
    Late {
        /// How long it sends nothing.
        after_ms: u64,
    },
    /// Sends a request and closes the connection after a while, whatever has arrived by then.
    Leaves {
        /// How long it waits for the response.
        after_ms: u64,
        /// Whether it resets the connection, as the exit of a process does.
        resets: bool,
        /// Whether it has shut down its write side after the request.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        half_closed: bool,
    },
    /// Sends a user's request and the ones that follow it, one after the other, and repeats this.
    Session {
        /// Number of repetitions.
        times: u64,
        /// Pause between repetitions.
        every_ms: u64,
    },
    /// Connects and never sends anything.
    ByteLess,
    /// Connects, sends half of a request head, and nothing more.
    HalfHead,
    /// Sends half of a request head to the internal server, and nothing more.
    InternalHalfHead,
    /// Opens many connections to the internal server, and keeps them.
    InternalStrangers {
        /// What each of them sends.
        stranger: Stranger,
        /// Number of connections.
        count: u64,
    },
    /// Starts HTTP/2 and sends nothing more.
    SilentHttp2,
    /// Errs in the PROXY header of its connection.
    BadHeader(HeaderFault),
    /// Upgrades the connection and sends a line at intervals until the server closes.
    Upgraded {
        /// Pause between lines.
        every_ms: u64,
        /// Whether the handler ends the connection when the drain begins, or at the moment of a
        /// long stream.
        cooperation: Cooperation,
        /// Whether it is a long stream.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_long: bool,
    },
}

/// What a stranger sends to the internal server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stranger {
    /// Nothing.
    ByteLess,
    /// Half of a request head.
    HalfHead,
    /// A request on HTTP/2, whose stream never gets a window.
    Windowless,
}

/// How a client paces one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pacing {
    /// At once.
    Prompt,
    /// In two halves of the head, with a pause of this many milliseconds.
    HeadPause(u64),
    /// The body in pieces of this many bytes, each after a pause of this many milliseconds.
    SlowUpload(usize, u64),
    /// Reads the response in pieces of this many bytes, each after a pause of this many
    /// milliseconds.
    SlowReader(usize, u64),
    /// The client shuts down its write side after the request.
    HalfClosed,
}

impl Traffic {
    /// Whether nothing but the requests themselves delays this client.
    #[must_use]
    pub const fn is_simple(self) -> bool {
        matches!(
            self,
            Self::Once(Pacing::Prompt)
                | Self::KeepAlive { .. }
                | Self::PerRequest { .. }
                | Self::ByteLess
        )
    }

    /// Whether this client may end its connection before it has all that it requested.
    #[must_use]
    pub const fn leaves(self) -> bool {
        matches!(
            self,
            Self::Leaves { .. }
                | Self::Http2Leaves { .. }
                | Self::Http2Windowless { .. }
                | Self::Http2Resets { .. }
                | Self::Stalls { .. }
                | Self::Upgraded { .. }
        )
    }

    /// Whether this client sends requests over HTTP/2.
    #[must_use]
    pub const fn is_http2(self) -> bool {
        matches!(
            self,
            Self::Http2 { .. }
                | Self::Http2Leaves { .. }
                | Self::Http2Windowless { .. }
                | Self::Http2Resets { .. }
                | Self::Http2Upload { .. }
        )
    }

    /// Returns the pause before each piece of a body that comes in pieces.
    #[must_use]
    pub const fn upload_pause(self) -> Option<u64> {
        if let Self::Once(Pacing::SlowUpload(_, ms)) | Self::Http2Upload { every_ms: ms, .. } = self
        {
            Some(ms)
        } else {
            None
        }
    }

    /// Returns how many requests this client sends one after the other.
    #[must_use]
    pub const fn requests(self) -> u64 {
        match self {
            Self::KeepAlive { requests, .. }
            | Self::PerRequest { requests, .. }
            | Self::Http2 { requests, .. }
            | Self::Pipelined { requests }
            | Self::Session { times: requests, .. } => requests,
            Self::Once(_)
            | Self::Http2Leaves { .. }
            | Self::Http2Windowless { .. }
            | Self::Http2Resets { .. }
            | Self::Http2Upload { .. }
            | Self::Stalls { .. }
            | Self::Late { .. }
            | Self::Leaves { .. }
            | Self::ByteLess
            | Self::HalfHead
            | Self::InternalHalfHead
            | Self::InternalStrangers { .. }
            | Self::SilentHttp2
            | Self::BadHeader(_)
            | Self::Upgraded { .. } => 1,
        }
    }

    /// Whether this client waits for its responses and reads them at once.
    #[must_use]
    pub const fn is_patient(self) -> bool {
        !matches!(
            self,
            Self::Leaves { .. }
                | Self::Http2Leaves { .. }
                | Self::Http2Windowless { .. }
                | Self::Http2Resets { .. }
                | Self::Stalls { .. }
                | Self::Once(Pacing::SlowReader(..))
        )
    }

    /// Whether this client sends whole requests at once, and reads without a pause above
    /// `pause_max_ms`.
    #[must_use]
    pub const fn is_prompt(self, pause_max_ms: u64) -> bool {
        if let Self::Once(Pacing::SlowReader(_, pause)) = self {
            return pause <= pause_max_ms;
        }
        matches!(
            self,
            Self::Once(Pacing::Prompt | Pacing::HalfClosed)
                | Self::KeepAlive { .. }
                | Self::PerRequest { .. }
                | Self::Http2 { .. }
                | Self::Session { .. }
        )
    }

    /// Returns the same kind of client, which reads at once.
    #[must_use]
    pub const fn at_full_pace(self) -> Self {
        if let Self::Http2Leaves { requests, .. } | Self::Http2Windowless { requests } = self {
            return Self::Http2 { requests, every_ms: 0 };
        }
        // A host cannot tell a client that left from one that shut down its side, until Linux sends
        // a reset for what arrives later. The simulated networks do not.
        if let Self::Leaves { after_ms, half_closed, .. } = self {
            return Self::Leaves { after_ms, resets: true, half_closed };
        }
        let has_own_pace = matches!(
            self,
            Self::Stalls { .. }
                | Self::Http2Upload { .. }
                | Self::Once(
                    Pacing::HeadPause(_) | Pacing::SlowUpload(..) | Pacing::SlowReader(..)
                )
        );
        if has_own_pace { Self::Once(Pacing::Prompt) } else { self }
    }
}

impl Client {
    /// Creates a client that sends one prompt request.
    #[must_use]
    pub const fn once(at_ms: u64, request_kind: RequestKind) -> Self {
        Self::new(at_ms, request_kind, Traffic::Once(Pacing::Prompt))
    }

    /// Creates a client.
    #[must_use]
    pub const fn new(at_ms: u64, request_kind: RequestKind, traffic: Traffic) -> Self {
        Self { at_ms, request_kind, traffic, then: None, waits_for_settings: false, header: None }
    }

    /// Makes every second request a `request_kind`.
    #[must_use]
    pub fn then(mut self, request_kind: RequestKind) -> Self {
        self.then = Some(request_kind);
        self
    }

    /// Whether the body of one of its responses fails, which ends the whole connection.
    #[must_use]
    pub fn has_failing_body(&self) -> bool {
        let fails = |request_kind: &RequestKind| {
            matches!(
                request_kind,
                RequestKind::Breaks
                    | RequestKind::Mismatch(_)
                    | RequestKind::Rare(RareRequest::Padded(_, true) | RareRequest::Fails)
            )
        };
        fails(&self.request_kind) || self.then.as_ref().is_some_and(fails)
    }

    /// Returns the request that has this target.
    #[must_use]
    pub fn request_kind_of(&self, target: &str) -> &RequestKind {
        self.then.as_ref().filter(|then| then.ask().target == target).unwrap_or(&self.request_kind)
    }

    /// Whether its connections have to begin with a PROXY header.
    #[must_use]
    pub const fn expects_header(&self) -> bool {
        self.header.is_some()
            || matches!(
                self.traffic,
                Traffic::BadHeader(HeaderFault::Missing | HeaderFault::Invalid | HeaderFault::Half)
            )
    }

    /// Whether it pauses within its PROXY header.
    #[must_use]
    pub fn has_slow_header(&self) -> bool {
        self.header.is_some_and(|header| !header.lasts().is_zero())
    }

    /// Uses the host on `route`, its internal server, or, without a header and TLS, the address
    /// `bare`. `n` is the client's number.
    pub(super) async fn use_host<C: Connect, R: Connect>(
        &self,
        n: usize,
        client_id: &ClientId,
        route: &C,
        (internal, bare): (&R, &R),
    ) {
        pause(Duration::from_millis(self.at_ms)).await;
        let ask = self.request_kind.ask();
        let many = |requests: u64, every_ms: u64| {
            let every = Duration::from_millis(every_ms);
            let pauses = iter::once(Duration::ZERO).chain(iter::repeat(every));
            let asks =
                [ask.clone(), self.then.as_ref().map_or_else(|| ask.clone(), RequestKind::ask)];
            (0..requests)
                .zip(pauses)
                .map(move |(n, pause)| (pause, asks[usize::from(n % 2 == 1)].clone()))
        };
        // The trace has the outcomes.
        match self.traffic {
            Traffic::Once(pacing) => {
                let _ = one_request(client_id, route, &ask, pacing.pacing()).await;
            }
            Traffic::KeepAlive { requests, every_ms, retries } => {
                let retry = if retries { Retry::AsAllowed } else { Retry::Never };
                keep_alive(client_id, route, many(requests, every_ms), retry).await;
            }
            Traffic::PerRequest { requests, every_ms } => {
                connection_per_request(client_id, route, many(requests, every_ms)).await;
            }
            Traffic::Http2 { requests, every_ms } => {
                let first =
                    if self.waits_for_settings { First::AfterSettings } else { First::AtOnce };
                multiplexed(client_id, route, many(requests, every_ms), first).await;
            }
            Traffic::Http2Leaves { requests, after_ms } => {
                let asks: Vec<RequestSpec> = many(requests, 0).map(|(_, ask)| ask).collect();
                given_up(client_id, route, &asks, Duration::from_millis(after_ms)).await;
            }
            Traffic::Http2Windowless { requests } => {
                let asks: Vec<RequestSpec> = many(requests, 0).map(|(_, ask)| ask).collect();
                windowless(client_id, route, &asks).await;
            }
            Traffic::Http2Upload { bytes, every_ms } => {
                let every = Duration::from_millis(every_ms);
                uploading(client_id, route, &ask, bytes.max(1), every).await;
            }
            Traffic::Http2Resets { rounds, streams } => {
                resetting(client_id, route, &ask, rounds, streams).await;
            }
            Traffic::Stalls { reads, for_ms } => {
                stalled(client_id, route, &ask, reads, Duration::from_millis(for_ms)).await;
            }
            Traffic::Pipelined { requests } => {
                let asks: Vec<RequestSpec> = many(requests, 0).map(|(_, ask)| ask).collect();
                drop(pipelined(client_id, route, &asks).await);
            }
            Traffic::Late { after_ms } => {
                if let Ok(mut http1_client) = Http1Client::open(client_id, route).await {
                    pause(Duration::from_millis(after_ms)).await;
                    let _ = http1_client.exchange(client_id, &ask, ExchangePacing::PROMPT).await;
                }
            }
            Traffic::Leaves { after_ms, resets, half_closed } => {
                let Ok(mut http1_client) = Http1Client::open(client_id, route).await else {
                    return;
                };
                let pacing = if half_closed { Pacing::HalfClosed } else { Pacing::Prompt };
                tokio::select! {
                    biased;
                    _ = http1_client.exchange(client_id, &ask, pacing.pacing()) => return,
                    () = pause(Duration::from_millis(after_ms)) => client_id.tell("leaves", &[]),
                }
                if resets {
                    C::reset(http1_client.into_io());
                }
            }
            Traffic::InternalStrangers { stranger, count } => {
                let head = RequestSpec::get("/status").head();
                let bytes = match stranger {
                    Stranger::ByteLess => Vec::new(),
                    Stranger::HalfHead => head[..head.len() / 2].to_vec(),
                    Stranger::Windowless => windowless_request("/status"),
                };
                strangers(client_id, internal, bytes.into(), count).await;
            }
            Traffic::Session { times, every_ms } => {
                if let RequestKind::User(request) = &self.request_kind {
                    let every = Duration::from_millis(every_ms);
                    session(client_id, route, request, times, every).await;
                }
            }
            Traffic::ByteLess => byte_less(client_id, route, client_id.patience()).await,
            Traffic::SilentHttp2 => silent_http2(client_id, route, client_id.patience()).await,
            Traffic::BadHeader(fault) => {
                let bytes = Step::Send(fault.bytes(n).into());
                raw(client_id, bare, &[bytes, Step::ReadToEnd { at_most: client_id.patience() }])
                    .await;
            }
            Traffic::Upgraded { every_ms, cooperation, is_long } => {
                let class = if is_long { "&class=spread" } else { "" };
                let target = format!("/upgrade?heeds={}{class}", cooperation.name());
                let ask =
                    RequestSpec::get(target).with("Connection", "upgrade").with("Upgrade", "echo");
                upgraded(client_id, route, &ask, Duration::from_millis(every_ms)).await;
            }
            Traffic::HalfHead | Traffic::InternalHalfHead => {
                let mut head = ask.head();
                head.truncate(head.len() / 2);
                let steps =
                    [Step::Send(head.into()), Step::ReadToEnd { at_most: client_id.patience() }];
                if self.traffic == Traffic::HalfHead {
                    raw(client_id, route, &steps).await;
                } else {
                    raw(client_id, internal, &steps).await;
                }
            }
        }
    }
}

impl Traffic {
    /// Whether the client uses the internal server only.
    #[must_use]
    pub const fn is_internal(&self) -> bool {
        matches!(self, Self::InternalHalfHead | Self::InternalStrangers { .. })
    }
}

impl RequestKind {
    /// Returns the request, if it is one to a user's service.
    #[must_use]
    pub const fn user(&self) -> Option<&Request> {
        if let Self::User(request) = self { Some(request) } else { None }
    }

    /// Returns the request to send.
    #[must_use]
    pub fn ask(&self) -> RequestSpec {
        match self {
            Self::Fast => RequestSpec::get("/fast"),
            Self::Slow(ms) => RequestSpec::get(format!("/slow?ms={ms}")),
            Self::Stuck(ms, StuckResponse::Nothing) => RequestSpec::get(format!("/stuck?ms={ms}")),
            Self::Stuck(ms, StuckResponse::Length) => {
                RequestSpec::get(format!("/stuck?ms={ms}&head=1"))
            }
            Self::Stuck(ms, StuckResponse::Chunked) => {
                RequestSpec::get(format!("/stuck?ms={ms}&chunked=1"))
            }
            Self::Echo(bytes) => RequestSpec::post("/echo", vec![b'e'; *bytes]),
            Self::Stream(ms) => RequestSpec::get(format!("/stream?ms={ms}")),
            Self::Unread(bytes) => RequestSpec::post("/fast", vec![b'u'; *bytes]),
            Self::Panic => RequestSpec::get("/panic"),
            Self::Breaks => RequestSpec::get("/breaks"),
            Self::Head => {
                RequestSpec { method: http::Method::HEAD, ..RequestSpec::get("/fast?head") }
            }
            Self::Bytes(bytes) => RequestSpec::get(format!("/bytes?n={bytes}")),
            Self::Unlimited(ms) => RequestSpec::get(format!("/slow?ms={ms}&within=none")),
            Self::Events => RequestSpec::get("/events"),
            Self::Work(ms, cooperation) => {
                RequestSpec::get(format!("/work?ms={ms}&heeds={}", cooperation.name()))
            }
            Self::Within(ms, within) => RequestSpec::get(format!("/slow?ms={ms}&within={within}")),
            Self::User(request) => request.spec(None),
            Self::Odd(odd) => odd.ask(),
            Self::Rare(rare) => rare.ask(),
            Self::Mismatch(length) => RequestSpec::get(format!(
                "/mismatch?says={}&late={}",
                length.said(),
                if length.is_late() { "yes" } else { "no" }
            )),
        }
    }
}

impl Cooperation {
    const fn name(self) -> &'static str {
        match self {
            Self::Heeds => "yes",
            Self::Ignores => "no",
            Self::Panics => "panics",
        }
    }
}

impl Pacing {
    fn pacing(self) -> ExchangePacing {
        let trickle = |bytes: usize, ms| Pace::Trickle {
            bytes: bytes.max(1),
            pause: Duration::from_millis(ms),
        };
        match self {
            Self::Prompt => ExchangePacing::PROMPT,
            Self::HeadPause(ms) => {
                ExchangePacing { head_pause: Duration::from_millis(ms), ..ExchangePacing::PROMPT }
            }
            Self::SlowUpload(bytes, ms) => {
                ExchangePacing { upload: trickle(bytes, ms), ..ExchangePacing::PROMPT }
            }
            Self::SlowReader(bytes, ms) => {
                ExchangePacing { download: trickle(bytes, ms), ..ExchangePacing::PROMPT }
            }
            Self::HalfClosed => {
                ExchangePacing { after: AfterRequest::Fin, ..ExchangePacing::PROMPT }
            }
        }
    }
}
