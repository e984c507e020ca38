//! The requests that a client can send.

use super::{OddRequest, RareRequest, Request, odd::looks_like_requests};
use crate::{client::RequestSpec, content};
use serde::{Deserialize, Serialize};

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
    /// A body of this many bytes, which the handler does not read; it responds at once. Over HTTP/1
    /// an odd number of them is one chunk.
    Unread(usize),
    /// A panic of the handler.
    Panic,
    /// A head and a chunk, then a panic of the body.
    Breaks,
    /// A `HEAD` request with a response at once.
    Head,
    /// A `HEAD` request to the route of another kind, without a body.
    HeadOf(Box<Self>),
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

impl RequestKind {
    /// Returns the request, if it is one to a user's service.
    #[must_use]
    pub const fn user(&self) -> Option<&Request> {
        if let Self::User(request) = self { Some(request) } else { None }
    }

    /// Returns the kind whose route a `HEAD` request asks; for any other, itself.
    #[must_use]
    pub fn as_get(&self) -> &Self {
        if let Self::HeadOf(kind) = self { kind } else { self }
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
            Self::Echo(bytes) => RequestSpec::post("/echo", content::body(*bytes)),
            Self::Stream(ms) => RequestSpec::get(format!("/stream?ms={ms}")),
            Self::Unread(bytes) => {
                let has_length = bytes.is_multiple_of(2);
                let target = if has_length { "/fast?length" } else { "/fast?chunk" };
                let ask = RequestSpec::post(target, looks_like_requests(*bytes));
                if has_length { ask } else { ask.in_one_chunk() }
            }
            Self::Panic => RequestSpec::get("/panic"),
            Self::Breaks => RequestSpec::get("/breaks"),
            Self::Head => {
                RequestSpec { method: http::Method::HEAD, ..RequestSpec::get("/fast?head") }
            }
            Self::HeadOf(kind) => RequestSpec { method: http::Method::HEAD, ..kind.ask() },
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
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Heeds => "yes",
            Self::Ignores => "no",
            Self::Panics => "panics",
        }
    }
}
