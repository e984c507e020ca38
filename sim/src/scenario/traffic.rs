//! What a client does with its connections.

use super::{Cooperation, HeadInPieces, HeaderFault, SendsOn};
use crate::client::{AfterRequest, ExchangePacing, Pace};
use serde::{Deserialize, Serialize};
use std::time::Duration;

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
    /// Requests on one HTTP/2 connection, without waiting for responses, also after its GOAWAY. The
    /// client responds late to the PING that follows a GOAWAY, or never.
    Http2GoesOn {
        /// Number of requests.
        requests: u64,
        /// Pause between requests.
        every_ms: u64,
        /// When it responds to a PING, if it does.
        pong_ms: Option<u64>,
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
    /// All requests at once on one HTTP/2 connection. After a while the client sends a part of a
    /// further frame, and nothing more.
    Http2HalfFrame {
        /// Number of requests.
        requests: u64,
        /// When it sends the part of the frame.
        after_ms: u64,
        /// Bytes of that part.
        bytes: usize,
        /// Pause between these bytes; 0 if they come at once.
        #[serde(default, skip_serializing_if = "is_zero")]
        every_ms: u64,
        /// Whether it shuts down its write side after it.
        half_closes: bool,
    },
    /// One request over HTTP/2, whose body comes in pieces.
    Http2Upload {
        /// Bytes of a piece.
        bytes: usize,
        /// Pause before each piece.
        every_ms: u64,
    },
    /// One request on one HTTP/2 connection. The client pauses after each part of the response.
    Http2Slowly {
        /// Bytes that the server may send before they are read.
        window: u32,
        /// The pause.
        every_ms: u64,
    },
    /// One request on one HTTP/1 connection. The client reads some bytes of the response, then
    /// nothing for a while, then the rest.
    Stalls {
        /// Bytes of the response that it reads first.
        reads: u64,
        /// How long it then reads nothing, unless the connection is reset earlier.
        for_ms: u64,
        /// Pause after a request before it, `then`, on the same connection, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idle_ms: Option<u64>,
        /// Number of requests that it sends at once.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        requests: u64,
        /// Pause after the first half of them, if it does not send all at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        between_ms: Option<u64>,
    },
    /// One request on one HTTP/2 connection. The client reads nothing of the response for a while,
    /// then everything.
    Http2Stalls {
        /// How long it reads nothing, unless the connection is reset earlier.
        for_ms: u64,
        /// Pause after a request before it, `then`, on the same connection, if there is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        idle_ms: Option<u64>,
        /// Pause before each of other requests, `then`, whose responses it reads meanwhile. Then it
        /// leaves only this stream unread.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beside_ms: Option<u64>,
    },
    /// Requests on one HTTP/1 connection, without waiting for responses.
    Pipelined {
        /// Number of requests.
        requests: u64,
        /// Pause between requests; 0 if all are sent at once.
        #[serde(default, skip_serializing_if = "is_zero")]
        every_ms: u64,
    },
    /// Connects, waits, then sends requests one after the other.
    Late {
        /// How long it sends nothing.
        after_ms: u64,
        /// Number of requests.
        #[serde(default = "one", skip_serializing_if = "is_one")]
        requests: u64,
        /// Pause between requests.
        #[serde(default, skip_serializing_if = "is_zero")]
        every_ms: u64,
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
        /// When it sends a second request, `then`, without waiting for the response, if it does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_ms: Option<u64>,
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
    /// Sends whole requests, and then one whose head comes in pieces.
    InPieces(HeadInPieces),
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
    /// The same, but the bytes come in pieces.
    SlowHttp2 {
        /// Bytes of a piece.
        bytes: usize,
        /// Pause before each piece but the first.
        every_ms: u64,
        /// Whether the last byte of the preface comes, and all that follows it.
        is_whole: bool,
    },
    /// Begins a TLS handshake, in pieces, and does not complete it.
    SlowHello {
        /// Bytes of a piece.
        bytes: usize,
        /// Pause before each piece but the first.
        every_ms: u64,
        /// Whether the last byte of the ClientHello comes.
        is_whole: bool,
    },
    /// Begins to connect, and gives up.
    Abandons {
        /// When it gives up. By then it may be connected.
        after_ms: u64,
    },
    /// Sends one request, and goes on sending when its connection is at its end.
    SendsOn(SendsOn),
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
        /// Whether the handler writes lines and reads none.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pushes: bool,
    },
}

const fn one() -> u64 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(super) const fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_one(number: &u64) -> bool {
    *number == 1
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
                | Self::Http2HalfFrame { .. }
                | Self::Http2Stalls { .. }
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
                | Self::Http2GoesOn { .. }
                | Self::Http2Leaves { .. }
                | Self::Http2Windowless { .. }
                | Self::Http2Resets { .. }
                | Self::Http2HalfFrame { .. }
                | Self::Http2Stalls { .. }
                | Self::Http2Slowly { .. }
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
            | Self::Http2GoesOn { requests, .. }
            | Self::Pipelined { requests, .. }
            | Self::Late { requests, .. }
            | Self::Session { times: requests, .. } => requests,
            Self::Once(_)
            | Self::Http2Leaves { .. }
            | Self::Http2Windowless { .. }
            | Self::Http2Resets { .. }
            | Self::Http2HalfFrame { .. }
            | Self::Http2Upload { .. }
            | Self::Http2Slowly { .. }
            | Self::Http2Stalls { .. }
            | Self::Stalls { .. }
            | Self::Leaves { .. }
            | Self::ByteLess
            | Self::HalfHead
            | Self::InPieces(_)
            | Self::InternalHalfHead
            | Self::InternalStrangers { .. }
            | Self::SilentHttp2
            | Self::SlowHttp2 { .. }
            | Self::SlowHello { .. }
            | Self::Abandons { .. }
            | Self::SendsOn(_)
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
                | Self::Http2HalfFrame { .. }
                | Self::Http2Stalls { .. }
                | Self::Http2Slowly { .. }
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
        if let Self::Http2Leaves { requests, .. }
        | Self::Http2Windowless { requests }
        | Self::Http2HalfFrame { requests, .. } = self
        {
            return Self::Http2 { requests, every_ms: 0 };
        }
        // A host cannot tell a client that left from one that shut down its side, until Linux sends
        // a reset for what arrives later. The simulated networks do not.
        if let Self::Leaves { after_ms, half_closed, next_ms, .. } = self {
            return Self::Leaves { after_ms, resets: true, half_closed, next_ms };
        }
        let has_own_pace = matches!(
            self,
            Self::Stalls { .. }
                | Self::Http2Stalls { .. }
                | Self::Http2Upload { .. }
                | Self::Http2Slowly { .. }
                | Self::InPieces(_)
                | Self::SendsOn(_)
                | Self::Once(
                    Pacing::HeadPause(_) | Pacing::SlowUpload(..) | Pacing::SlowReader(..)
                )
        );
        if has_own_pace { Self::Once(Pacing::Prompt) } else { self }
    }
}

impl Traffic {
    /// Whether the client uses the internal server only.
    #[must_use]
    pub const fn is_internal(&self) -> bool {
        matches!(self, Self::InternalHalfHead | Self::InternalStrangers { .. })
    }
}

impl Pacing {
    pub(super) fn pacing(self) -> ExchangePacing {
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
