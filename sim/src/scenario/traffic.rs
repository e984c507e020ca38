//! Who uses the host, and how.

use crate::client::{
    AfterRequest, ClientId, Connect, ExchangePacing, Http1Client, Pace, RequestSpec, Retry, Step,
    byte_less, connection_per_request, given_up, keep_alive, multiplexed, one_request, pause,
    pipelined, raw, silent_http2, upgraded,
};
use serde::{Deserialize, Serialize};
use std::{iter, time::Duration};

/// Somebody who uses the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// When it begins.
    pub at_ms: u64,
    /// What it asks for.
    pub request_kind: RequestKind,
    /// How it asks.
    pub traffic: Traffic,
    /// What every second request asks for, if it is not the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<RequestKind>,
}

/// What a client asks for: a route of the [drill](crate::app).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestKind {
    /// An answer at once.
    Fast,
    /// An answer after so many milliseconds, or when it is cancelled.
    Slow(u64),
    /// An answer after so many milliseconds, whatever happens.
    Stuck(u64, StuckResponse),
    /// So many bytes back.
    Echo(usize),
    /// Pieces for so many milliseconds.
    Stream(u64),
    /// An answer at once to so many bytes, which nobody reads.
    Unread(usize),
    /// A panic.
    Panic,
    /// A head, a piece, and then the body panics.
    Breaks,
    /// The head of an answer at once.
    Head,
    /// So many bytes at once.
    Bytes(usize),
    /// An answer after so many milliseconds, without a deadline.
    Unlimited(u64),
    /// Events without end, which the drain ends.
    Events,
    /// An answer at once, and work for so many milliseconds that outlives it.
    Work(u64, Cooperation),
    /// An answer after so many milliseconds, within a deadline of the route's own.
    Within(u64, u64),
    /// Anything else, by path and query: for other apps.
    Get(String),
    /// The same with a body: path and query, the body.
    Post(String, String),
}

/// Whether something ends when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cooperation {
    /// It does.
    Heeds,
    /// It does not.
    Ignores,
    /// It does not, and at its end it panics. Only of [`RequestKind::Work`].
    Panics,
}

/// What a stuck handler sends first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StuckResponse {
    /// Nothing.
    Nothing,
    /// The head, with a length, and half of the body.
    Length,
    /// The head and half of the body, chunked.
    Chunked,
}

/// How a client asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Traffic {
    /// One request on one connection.
    Once(Pacing),
    /// One after the other on one connection.
    KeepAlive {
        /// How many.
        requests: u64,
        /// The pause between.
        every_ms: u64,
        /// Whether it tries again where the standard lets it.
        retries: bool,
    },
    /// One after the other, each on its own connection.
    PerRequest {
        /// How many.
        requests: u64,
        /// The pause between.
        every_ms: u64,
    },
    /// On one HTTP/2 connection, without waiting for answers.
    Http2 {
        /// How many.
        requests: u64,
        /// The pause between.
        every_ms: u64,
    },
    /// All at once on one HTTP/2 connection; it reads nothing of the answers but their heads, and gives them up after a while.
    Http2Leaves {
        /// How many.
        requests: u64,
        /// How long it leaves them unread.
        after_ms: u64,
    },
    /// All at once on one connection.
    Pipelined {
        /// How many.
        requests: u64,
    },
    /// Connects, waits, then asks.
    Late {
        /// How long it says nothing.
        after_ms: u64,
    },
    /// Asks, and closes the connection whatever came by then.
    Leaves {
        /// How long it waits for its answer.
        after_ms: u64,
        /// Whether it resets the connection, as a process that dies does.
        resets: bool,
    },
    /// Connects, and never says anything.
    ByteLess,
    /// Connects, sends half a request head, and no more.
    HalfHead,
    /// The same on the internal server's port.
    InternalHalfHead,
    /// Begins to speak HTTP/2, and answers nothing.
    SilentHttp2,
    /// Changes to another protocol, and says something every so often until the server closes.
    Upgraded {
        /// The pause between.
        every_ms: u64,
        /// Whether the handler ends it when the drain begins.
        cooperation: Cooperation,
    },
}

/// How one request is paced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pacing {
    /// At once.
    Prompt,
    /// Half a head, a pause, the rest.
    HeadPause(u64),
    /// So many bytes of the body, a pause of so many milliseconds, and so on.
    SlowUpload(usize, u64),
    /// So many bytes of the answer, a pause of so many milliseconds, and so on.
    SlowReader(usize, u64),
    /// It shuts its side once it has asked.
    HalfClosed,
}

impl Client {
    /// One prompt request.
    #[must_use]
    pub const fn once(at_ms: u64, request_kind: RequestKind) -> Self {
        Self::new(at_ms, request_kind, Traffic::Once(Pacing::Prompt))
    }

    /// Any client.
    #[must_use]
    pub const fn new(at_ms: u64, request_kind: RequestKind, traffic: Traffic) -> Self {
        Self { at_ms, request_kind, traffic, then: None }
    }

    /// One whose every second request asks for something else.
    #[must_use]
    pub fn then(mut self, request_kind: RequestKind) -> Self {
        self.then = Some(request_kind);
        self
    }

    /// What is asked for by `target`.
    #[must_use]
    pub fn deed_of(&self, target: &str) -> &RequestKind {
        self.then.as_ref().filter(|then| then.ask().target == target).unwrap_or(&self.request_kind)
    }

    pub(super) async fn use_host<C: Connect>(&self, client_id: &ClientId, route: &C, internal: &C) {
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
        // The trace has what becomes of it.
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
                multiplexed(client_id, route, many(requests, every_ms)).await;
            }
            Traffic::Http2Leaves { requests, after_ms } => {
                let asks: Vec<RequestSpec> = many(requests, 0).map(|(_, ask)| ask).collect();
                given_up(client_id, route, &asks, Duration::from_millis(after_ms)).await;
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
            Traffic::Leaves { after_ms, resets } => {
                let Ok(mut http1_client) = Http1Client::open(client_id, route).await else {
                    return;
                };
                tokio::select! {
                    biased;
                    _ = http1_client.exchange(client_id, &ask, ExchangePacing::PROMPT) => return,
                    () = pause(Duration::from_millis(after_ms)) => client_id.tell("leaves", &[]),
                }
                if resets {
                    C::reset(http1_client.into_io());
                }
            }
            Traffic::ByteLess => byte_less(client_id, route, client_id.patience()).await,
            Traffic::SilentHttp2 => silent_http2(client_id, route, client_id.patience()).await,
            Traffic::Upgraded { every_ms, cooperation } => {
                let ask = RequestSpec::get(format!("/upgrade?heeds={}", cooperation.name()))
                    .with("Connection", "upgrade")
                    .with("Upgrade", "echo");
                upgraded(client_id, route, &ask, Duration::from_millis(every_ms)).await;
            }
            Traffic::HalfHead | Traffic::InternalHalfHead => {
                let mut head = ask.head();
                head.truncate(head.len() / 2);
                let route = if self.traffic == Traffic::HalfHead { route } else { internal };
                raw(
                    client_id,
                    route,
                    &[Step::Send(head.into()), Step::ReadToEnd { at_most: client_id.patience() }],
                )
                .await;
            }
        }
    }
}

impl RequestKind {
    /// The request.
    #[must_use]
    pub fn ask(&self) -> RequestSpec {
        match self {
            Self::Fast => RequestSpec::get("/fast"),
            Self::Slow(ms) => RequestSpec::get(format!("/slow?ms={ms}")),
            Self::Stuck(ms, StuckResponse::Nothing) => RequestSpec::get(format!("/stuck?ms={ms}")),
            Self::Stuck(ms, StuckResponse::Length) => {
                RequestSpec::get(format!("/stuck?ms={ms}&half=length"))
            }
            Self::Stuck(ms, StuckResponse::Chunked) => {
                RequestSpec::get(format!("/stuck?ms={ms}&half=chunked"))
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
            Self::Get(target) => RequestSpec::get(target.clone()),
            Self::Post(target, body) => RequestSpec::post(target.clone(), body.clone()),
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
