//! Requests that are valid and unusual, or invalid in their `Host`.

use crate::client::RequestSpec;
use http::Method;
use serde::{Deserialize, Serialize};

/// An unusual HTTP/1 request to a route of the [default app](crate::app).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum OddRequest {
    /// A request with a body of this many bytes (0 for a `GET` without one), and an empty line
    /// after it (RFC 9112 §2.2).
    EmptyLine(usize),
    /// A `GET` with a body of this many bytes and its `Content-Length`; it is sent back.
    GetLength(usize),
    /// A `GET` with a chunked body of this many bytes; it is sent back.
    GetChunked(usize),
    /// A `POST` with a chunked body of this many bytes, and a `Content-Length` besides (RFC 9112
    /// §6.3). The body is sent back, and the connection ends.
    ChunkedLength(usize),
    /// A `POST` that offers an upgrade and has a body of this many bytes, which the handler does
    /// not read.
    UpgradeBody(usize),
    /// An HTTP/1.1 request without `Host`.
    NoHost,
    /// A `POST` whose `Host` is not a host, with a body of this many bytes.
    InvalidHostBody(usize),
    /// A request with two equal `Host` fields.
    TwoHosts,
    /// A request whose `Host` is not a host.
    InvalidHost,
    /// `Connection: close`.
    Close,
    /// `Connection: Close`.
    CloseInCapitals,
    /// `Connection` with `close` after an option that means nothing.
    CloseAmongOptions,
    /// HTTP/1.0, without `Host`.
    Http10,
    /// HTTP/1.0 with `Connection: keep-alive`.
    Http10KeepAlive,
    /// `Connection` with options that mean nothing.
    ConnectionOptions,
    /// Two fields `Connection`.
    TwoConnections,
    /// A target in absolute form.
    AbsoluteTarget,
    /// `Content-Length: 0`.
    LengthZero,
    /// `Expect: 100-continue` without a body.
    Expect,
    /// `Upgrade` without a body, to a protocol that the handler does not accept.
    Upgrade,
    /// 40 header fields.
    ManyFields,
    /// `OPTIONS *`, which no route serves.
    Asterisk,
    /// A `HEAD` with two equal `Host` fields.
    HeadTwoHosts,
    /// A `HEAD` with `Connection: close`.
    HeadClose,
    /// A `HEAD` of HTTP/1.0, without `Host`.
    HeadHttp10,
    /// A `POST` with a body of this many bytes, and a second `Content-Length` that is shorter.
    TwoLengths(usize),
    /// A `POST` with a body of this many bytes, whose `Content-Length` has a sign.
    SignedLength(usize),
}

/// Returns a body of whole requests, which no handler may ever see.
pub(super) fn looks_like_requests(bytes: usize) -> String {
    const REQUEST: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut body = REQUEST.repeat(bytes / REQUEST.len());
    body.push_str(&"u".repeat(bytes - body.len()));
    body
}

impl OddRequest {
    /// Those whose length is ambiguous (RFC 9112 §6.3).
    pub const LENGTHS: [Self; 2] = [Self::TwoLengths(100), Self::SignedLength(100)];

    /// Those with the method `HEAD`.
    pub const HEADS: [Self; 3] = [Self::HeadTwoHosts, Self::HeadClose, Self::HeadHttp10];

    /// One of each other kind.
    pub const ALL: [Self; 22] = [
        Self::EmptyLine(0),
        Self::GetLength(100),
        Self::GetChunked(100),
        Self::ChunkedLength(100),
        Self::UpgradeBody(1_000),
        Self::NoHost,
        Self::TwoHosts,
        Self::InvalidHost,
        Self::InvalidHostBody(100),
        Self::Close,
        Self::CloseInCapitals,
        Self::CloseAmongOptions,
        Self::Http10,
        Self::Http10KeepAlive,
        Self::ConnectionOptions,
        Self::TwoConnections,
        Self::AbsoluteTarget,
        Self::LengthZero,
        Self::Expect,
        Self::Upgrade,
        Self::ManyFields,
        Self::Asterisk,
    ];

    /// Returns the name of the kind.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EmptyLine(0) => "empty-line",
            Self::EmptyLine(_) => "empty-line-after-a-body",
            Self::GetLength(_) => "get-length",
            Self::GetChunked(_) => "get-chunked",
            Self::ChunkedLength(_) => "chunked-length",
            Self::UpgradeBody(_) => "upgrade-body",
            Self::NoHost => "no-host",
            Self::TwoHosts => "two-hosts",
            Self::InvalidHost => "invalid-host",
            Self::InvalidHostBody(_) => "invalid-host-body",
            Self::Close => "close",
            Self::CloseInCapitals => "close-in-capitals",
            Self::CloseAmongOptions => "close-among-options",
            Self::Http10 => "http-1.0",
            Self::Http10KeepAlive => "http-1.0-keep-alive",
            Self::ConnectionOptions => "connection-options",
            Self::TwoConnections => "two-connections",
            Self::AbsoluteTarget => "absolute-target",
            Self::LengthZero => "length-zero",
            Self::Expect => "expect",
            Self::Upgrade => "upgrade",
            Self::ManyFields => "many-fields",
            Self::Asterisk => "asterisk",
            Self::HeadTwoHosts => "head-two-hosts",
            Self::HeadClose => "head-close",
            Self::HeadHttp10 => "head-http-1.0",
            Self::TwoLengths(_) => "two-lengths",
            Self::SignedLength(_) => "signed-length",
        }
    }

    /// Whether the host must refuse the request with a 400 (RFC 9112 §3.2).
    #[must_use]
    pub const fn is_refused(self) -> bool {
        matches!(
            self,
            Self::NoHost
                | Self::TwoHosts
                | Self::HeadTwoHosts
                | Self::InvalidHost
                | Self::InvalidHostBody(_)
        )
    }

    /// Whether the host must refuse the request with a 400, and cannot count it as one.
    const fn is_malformed(self) -> bool {
        matches!(self, Self::TwoLengths(_) | Self::SignedLength(_))
    }

    /// Whether the connection ends with the response in any phase.
    #[must_use]
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Self::ChunkedLength(_) | Self::UpgradeBody(_) | Self::Http10 | Self::HeadHttp10
        ) || self.asks_to_close()
    }

    /// Whether the client asks for the end of the connection.
    pub(crate) const fn asks_to_close(self) -> bool {
        matches!(
            self,
            Self::Close | Self::CloseInCapitals | Self::CloseAmongOptions | Self::HeadClose
        )
    }

    /// Whether the response must announce the end of the connection in any phase.
    #[must_use]
    pub const fn announces_close(self) -> bool {
        matches!(self, Self::ChunkedLength(_))
            || self.asks_to_close()
            || self.is_refused()
            || self.is_malformed()
    }

    /// Whether the request has a body.
    #[must_use]
    pub const fn has_body(self) -> bool {
        self.echoed().is_some()
            || self.is_malformed()
            || matches!(self, Self::UpgradeBody(_) | Self::InvalidHostBody(_))
    }

    /// Returns the length of a body that is sent back.
    const fn echoed(self) -> Option<usize> {
        if let Self::EmptyLine(bytes @ 1..)
        | Self::GetLength(bytes)
        | Self::GetChunked(bytes)
        | Self::ChunkedLength(bytes) = self
        {
            Some(bytes)
        } else {
            None
        }
    }

    /// Returns the status and the length of the response, if nothing cuts the request.
    #[must_use]
    pub const fn response(self) -> (u64, Option<u64>) {
        if self.is_refused() || self.is_malformed() {
            (400, None)
        } else if matches!(self, Self::Asterisk) {
            (404, None)
        } else if let Some(bytes) = self.echoed() {
            (200, Some(bytes as u64))
        } else if self.is_head() {
            (200, Some(0))
        } else {
            (200, Some(5))
        }
    }

    /// Whether the method is `HEAD`.
    const fn is_head(self) -> bool {
        matches!(self, Self::HeadTwoHosts | Self::HeadClose | Self::HeadHttp10)
    }

    /// Returns the request to send.
    #[must_use]
    pub fn ask(self) -> RequestSpec {
        let name = self.name();
        let fast = format!("/fast?odd={name}");
        let head = |fields: &str| format!("GET {fast} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        let body = |bytes: usize| "o".repeat(bytes);
        let echo = self
            .echoed()
            .map_or_else(|| fast.clone(), |bytes| format!("/body?odd={name}&n={bytes}"));
        let wire = match self {
            Self::EmptyLine(0) => format!("{}\r\n", head("")),
            Self::EmptyLine(bytes) => format!(
                "POST {echo} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n{}\r\n",
                body(bytes)
            ),
            Self::GetLength(bytes) => format!(
                "GET {echo} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n{}",
                body(bytes)
            ),
            Self::GetChunked(bytes) => format!(
                "GET {echo} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                 {bytes:x}\r\n{}\r\n0\r\n\r\n",
                body(bytes)
            ),
            Self::ChunkedLength(bytes) => {
                let size = format!("{bytes:x}\r\n");
                format!(
                    "POST {echo} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
                     Transfer-Encoding: chunked\r\n\r\n{size}{}\r\n0\r\n\r\n",
                    size.len(),
                    looks_like_requests(bytes)
                )
            }
            Self::UpgradeBody(bytes) => format!(
                "POST {fast} HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\
                 Content-Length: {bytes}\r\n\r\n{}",
                looks_like_requests(bytes)
            ),
            Self::NoHost => format!("GET {fast} HTTP/1.1\r\nAccept: */*\r\n\r\n"),
            Self::TwoHosts => head("Host: localhost\r\n"),
            Self::InvalidHostBody(bytes) => format!(
                "POST {fast} HTTP/1.1\r\nHost: a b/c\r\nContent-Length: {bytes}\r\n\r\n{}",
                looks_like_requests(bytes)
            ),
            Self::InvalidHost => format!("GET {fast} HTTP/1.1\r\nHost: a b/c\r\n\r\n"),
            Self::Close => head("Connection: close\r\n"),
            Self::CloseInCapitals => head("Connection: Close\r\n"),
            Self::CloseAmongOptions => head("Connection: x-nothing, close\r\n"),
            Self::Http10 => format!("GET {fast} HTTP/1.0\r\n\r\n"),
            Self::HeadTwoHosts => {
                format!("HEAD {fast} HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n")
            }
            Self::HeadClose => {
                format!("HEAD {fast} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            }
            Self::HeadHttp10 => format!("HEAD {fast} HTTP/1.0\r\n\r\n"),
            Self::Http10KeepAlive => {
                format!("GET {fast} HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n")
            }
            Self::ConnectionOptions => head("Connection: keep-alive, x-nothing\r\n"),
            Self::TwoConnections => head("Connection: keep-alive\r\nConnection: x-nothing\r\n"),
            Self::AbsoluteTarget => {
                format!("GET http://localhost{fast} HTTP/1.1\r\nHost: localhost\r\n\r\n")
            }
            Self::LengthZero => head("Content-Length: 0\r\n"),
            Self::Expect => head("Expect: 100-continue\r\nContent-Length: 0\r\n"),
            Self::Upgrade => head("Connection: upgrade\r\nUpgrade: h2c\r\n"),
            Self::ManyFields => {
                head(&(0..40).map(|n| format!("x-{n}: {n}\r\n")).collect::<String>())
            }
            Self::TwoLengths(bytes) => format!(
                "POST {fast} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\
                 Content-Length: {bytes}\r\n\r\n{}",
                looks_like_requests(bytes)
            ),
            Self::SignedLength(bytes) => format!(
                "POST {fast} HTTP/1.1\r\nHost: localhost\r\nContent-Length: +{bytes}\r\n\r\n{}",
                looks_like_requests(bytes)
            ),
            Self::Asterisk => "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        };
        let target = if self == Self::Asterisk { "*".to_owned() } else { echo };
        let method = if self == Self::Asterisk {
            Method::OPTIONS
        } else if self.is_head() {
            Method::HEAD
        } else if matches!(
            self,
            Self::EmptyLine(1..)
                | Self::ChunkedLength(_)
                | Self::UpgradeBody(_)
                | Self::InvalidHostBody(_)
                | Self::TwoLengths(_)
                | Self::SignedLength(_)
        ) {
            Method::POST
        } else {
            Method::GET
        };
        RequestSpec { method, wire: Some(wire.into()), ..RequestSpec::get(target) }
    }
}
