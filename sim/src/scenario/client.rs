//! A client of a scenario, and how it uses the host.

use super::{
    Cooperation, ExtraFields, HeaderFault, Pacing, ProxyHeader, RareRequest, RequestKind, Stranger,
    Traffic,
};
use crate::client::{
    ClientId, Connect, ExchangePacing, First, FramePart, Http1Client, RequestSpec, Retry, Stall,
    Step, abandoned, byte_less, connection_per_request, given_up, goes_on, half_framed,
    head_in_pieces, keep_alive, multiplexed, one_request, one_unread, pause, pipelined, raw,
    read_slowly, resetting, sends_on, session, silent_first, silent_http2, slow_hello, slow_http2,
    stalled, stalled_http2, strangers, upgraded, uploading, windowless, windowless_request,
};
use serde::{Deserialize, Serialize};
use std::{iter, time::Duration};

/// Whether the body of the response to a request fails, if it is polled.
pub(crate) fn has_failing_body(request_kind: &RequestKind) -> bool {
    if let RequestKind::HeadOf(kind) = request_kind {
        return has_failing_body(kind);
    }
    matches!(
        request_kind,
        RequestKind::Breaks
            | RequestKind::Mismatch(_)
            | RequestKind::Rare(
                RareRequest::Padded(_, true)
                    | RareRequest::Fails
                    | RareRequest::FailsAfter(_)
                    | RareRequest::HasNoLength
            )
    )
}

fn asks_to_close(request_kind: &RequestKind) -> bool {
    matches!(request_kind, RequestKind::Rare(RareRequest::Late { closes: true, .. }))
        || matches!(request_kind, RequestKind::Odd(odd) if odd.asks_to_close())
}

/// A client of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// When the client begins.
    pub at_ms: u64,
    /// The request that it sends.
    pub request_kind: RequestKind,
    /// How it sends requests.
    pub traffic: Traffic,
    /// The requests after the first, in turn, before the first kind comes again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<RequestKind>,
    /// Whether it sends its first request on HTTP/2 only after the server's SETTINGS.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits_for_settings: bool,
    /// The PROXY header with which each of its connections begins, if it comes through a proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<ProxyHeader>,
    /// Header fields that it adds to each request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<ExtraFields>,
    /// Pause between things that it sends beside its requests, and that ask for nothing: empty
    /// lines between requests of HTTP/1, PINGs on HTTP/2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noise_ms: Option<u64>,
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
        Self {
            at_ms,
            request_kind,
            traffic,
            then: Vec::new(),
            waits_for_settings: false,
            header: None,
            fields: None,
            noise_ms: None,
        }
    }

    /// Returns what it sends for a request of this kind.
    #[must_use]
    pub fn ask(&self, request_kind: &RequestKind) -> RequestSpec {
        let ask = request_kind.ask();
        match self.fields {
            Some(fields) => fields.add_to(ask),
            None => ask,
        }
    }

    /// Adds the kind of the next request.
    #[must_use]
    pub fn then(mut self, request_kind: RequestKind) -> Self {
        self.then.push(request_kind);
        self
    }

    /// Returns the kinds of its requests, in turn.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = &RequestKind> + Clone {
        iter::once(&self.request_kind).chain(&self.then)
    }

    /// Whether the body of one of its responses fails, which ends the whole connection.
    #[must_use]
    pub fn has_failing_body(&self) -> bool {
        self.kinds().any(has_failing_body)
    }

    /// Sends all at once if a request asks for the close. A client must not go on after it (RFC
    /// 9112 §9.6): what it sends later would reset the connection, with its response.
    #[must_use]
    pub(crate) fn without_more_after_a_close(mut self) -> Self {
        if let Traffic::Pipelined { every_ms, .. } = &mut self.traffic
            && iter::once(&self.request_kind).chain(&self.then).any(asks_to_close)
        {
            *every_ms = 0;
        }
        self
    }

    /// Returns one of the kinds of its requests, counted from 0.
    #[must_use]
    pub fn request_kind_of(&self, kind: usize) -> &RequestKind {
        self.kinds().nth(kind).unwrap_or(&self.request_kind)
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
        let ask = self.ask(&self.request_kind);
        let then = self.then.first().map_or_else(|| ask.clone(), |then| self.ask(then));
        let many = |requests: u64, every_ms: u64| {
            let every = Duration::from_millis(every_ms);
            let pauses = iter::once(Duration::ZERO).chain(iter::repeat(every));
            let asks: Vec<RequestSpec> = self.kinds().map(|kind| self.ask(kind)).collect();
            let turns = (0..asks.len()).cycle().zip(pauses);
            (0..requests).zip(turns).map(move |(_, (n, pause))| (pause, asks[n].clone()))
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
            Traffic::Http2GoesOn { requests, every_ms, pong_ms } => {
                let pong = pong_ms.map(Duration::from_millis);
                goes_on(client_id, route, many(requests, every_ms), pong).await;
            }
            Traffic::Http2Leaves { requests, after_ms } => {
                let asks: Vec<RequestSpec> = many(requests, 0).map(|(_, ask)| ask).collect();
                given_up(client_id, route, &asks, Duration::from_millis(after_ms)).await;
            }
            Traffic::Http2Windowless { requests } => {
                let asks: Vec<RequestSpec> = many(requests, 0).map(|(_, ask)| ask).collect();
                windowless(client_id, route, &asks).await;
            }
            Traffic::Http2Slowly { window, every_ms } => {
                let every = Duration::from_millis(every_ms);
                read_slowly(client_id, route, &ask, window, every).await;
            }
            Traffic::Http2Upload { bytes, every_ms } => {
                let every = Duration::from_millis(every_ms);
                uploading(client_id, route, &ask, bytes.max(1), every).await;
            }
            Traffic::Http2Resets { rounds, streams } => {
                resetting(client_id, route, &ask, rounds, streams).await;
            }
            Traffic::Http2HalfFrame { requests, after_ms, bytes, every_ms, half_closes } => {
                let asks: Vec<RequestSpec> = many(requests, 0).map(|(_, ask)| ask).collect();
                let after = Duration::from_millis(after_ms);
                let every = Duration::from_millis(every_ms);
                let part = FramePart { bytes, every, half_closes };
                half_framed(client_id, route, &asks, after, part).await;
            }
            Traffic::Stalls { reads, for_ms, idle_ms, requests, between_ms } => {
                let stall = Stall {
                    before: idle_ms.map(|ms| (then, Duration::from_millis(ms))),
                    requests,
                    between: between_ms.map(Duration::from_millis),
                    reads,
                    pause: Duration::from_millis(for_ms),
                };
                stalled(client_id, route, &ask, stall).await;
            }
            Traffic::Http2Stalls { for_ms, beside_ms: Some(every_ms), .. } => {
                let (pause, every) =
                    (Duration::from_millis(for_ms), Duration::from_millis(every_ms));
                one_unread(client_id, route, &ask, &then, pause, every).await;
            }
            Traffic::Http2Stalls { for_ms, idle_ms, beside_ms: None } => {
                let stall = Stall {
                    before: idle_ms.map(|ms| (then, Duration::from_millis(ms))),
                    requests: 1,
                    between: None,
                    reads: 0,
                    pause: Duration::from_millis(for_ms),
                };
                stalled_http2(client_id, route, &ask, stall).await;
            }
            Traffic::Pipelined { requests, every_ms } => {
                let asks: Vec<RequestSpec> = many(requests, 0).map(|(_, ask)| ask).collect();
                let every = Duration::from_millis(every_ms);
                drop(pipelined(client_id, route, &asks, every).await);
            }
            Traffic::Late { after_ms, requests: 1, .. } => {
                if let Ok(mut http1_client) = Http1Client::open(client_id, route).await {
                    pause(Duration::from_millis(after_ms)).await;
                    let _ = http1_client.exchange(client_id, &ask, ExchangePacing::PROMPT).await;
                }
            }
            Traffic::Late { after_ms, requests, every_ms } => {
                let silent = Duration::from_millis(after_ms);
                silent_first(client_id, route, silent, many(requests, every_ms)).await;
            }
            Traffic::Leaves { after_ms, resets, half_closed, next_ms } => {
                let Ok(mut http1_client) = Http1Client::open(client_id, route).await else {
                    return;
                };
                let pacing = if half_closed { Pacing::HalfClosed } else { Pacing::Prompt };
                let exchanges = async {
                    match next_ms.map(Duration::from_millis) {
                        None => {
                            let _ = http1_client.exchange(client_id, &ask, pacing.pacing()).await;
                        }
                        Some(pause) => {
                            drop(http1_client.pipeline(client_id, &[ask, then], pause).await);
                        }
                    }
                };
                tokio::select! {
                    biased;
                    () = exchanges => return,
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
            Traffic::InPieces(how) => head_in_pieces(client_id, route, &ask, &then, how).await,
            Traffic::SendsOn(how) => sends_on(client_id, route, &ask, how).await,
            Traffic::ByteLess => byte_less(client_id, route, client_id.max_wait()).await,
            Traffic::SilentHttp2 => silent_http2(client_id, route, client_id.max_wait()).await,
            Traffic::SlowHttp2 { bytes, every_ms, is_whole } => {
                let every = Duration::from_millis(every_ms);
                slow_http2(client_id, route, bytes, every, is_whole).await;
            }
            Traffic::SlowHello { bytes, every_ms, is_whole } => {
                let every = Duration::from_millis(every_ms);
                slow_hello(client_id, bare, bytes, every, is_whole).await;
            }
            Traffic::Abandons { after_ms } => {
                abandoned(client_id, bare, Duration::from_millis(after_ms)).await;
            }
            Traffic::BadHeader(fault) => {
                let bytes = Step::Send(fault.bytes(n).into());
                raw(client_id, bare, &[bytes, Step::ReadToEnd { at_most: client_id.max_wait() }])
                    .await;
            }
            Traffic::Upgraded { every_ms, cooperation, is_long, pushes } => {
                // It may be a long stream from the beginning, or become one.
                let is_late = n % 2 == 1 && cooperation == Cooperation::Heeds;
                let class = match (is_long, is_late) {
                    (false, _) => "",
                    (true, false) => "&class=spread",
                    (true, true) => "&class=late",
                };
                let pushes = if pushes { "&pushes=yes" } else { "" };
                let target = format!("/upgrade?heeds={}{class}{pushes}", cooperation.name());
                let ask =
                    RequestSpec::get(target).with("Connection", "upgrade").with("Upgrade", "echo");
                upgraded(client_id, route, &ask, Duration::from_millis(every_ms)).await;
            }
            Traffic::HalfHead | Traffic::InternalHalfHead => {
                let mut head = ask.head();
                head.truncate(head.len() / 2);
                let steps =
                    [Step::Send(head.into()), Step::ReadToEnd { at_most: client_id.max_wait() }];
                if self.traffic == Traffic::HalfHead {
                    raw(client_id, route, &steps).await;
                } else {
                    raw(client_id, internal, &steps).await;
                }
            }
        }
    }
}
