//! Limits on clients: what they may send and hold, and how long they may take.

use super::caps::Caps;
use std::time::Duration;

/// Limits on connections and requests. The defaults are those of [`Settings`](crate::Settings).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at one time. At the limit idle connections make room, first those that never
    /// sent a byte, then the longest idle. If there is none, nothing more is accepted: the kernel's
    /// queue is the back-pressure. Default: the process's limit on descriptors less 64, and
    /// less 8 for each worker and 2 for each of its further addresses; at least 16, at most a
    /// million. [`Limits::default`] knows no workers: its value is lowered at the start, unless it
    /// was set by the setter, a flag or a variable.
    pub connections_max: usize,
    /// Bytes of a request head. A longer one gets a 431. Default 32 KiB, minimum 8 KiB.
    pub header_bytes_max: usize,
    /// Header fields of a request. With more it gets a 431, on HTTP/2 on its stream. Default 100.
    pub headers_max: usize,
    /// Time from the accept of a connection to its first byte; then the connection is closed.
    /// Default 60 s, since balancers and browsers connect ahead.
    pub first_byte_timeout: Duration,
    /// Time from the accept of a connection to the end of its TLS handshake; then the connection is
    /// closed. A PROXY header before the handshake is included. Default 10 s. The drain waits for
    /// 1 s at most.
    pub tls_handshake_timeout: Duration,
    /// Time from the first byte of a request head to its last; then the client gets a 408. Default
    /// 10 s. On HTTP/2 it is also the maximum for a frame that carries no data, and from the
    /// preface to the first request; then the client gets a GOAWAY. A PROXY header that has begun
    /// has this time from the accept of its connection; then the connection is closed.
    pub header_timeout: Duration,
    /// Time that a client may receive nothing of a response while bytes of it are waiting to be
    /// sent; then the response is cut. Default 30 s. The drain waits for 5 s at most.
    pub send_timeout: Duration,
    /// Time that a client may send nothing of a request body while the handler waits for it; then
    /// the client gets a 503. If a task waits for it after the response, HTTP/1 closes the
    /// connection then, and an HTTP/2 connection counts as idle. Default 30 s. The drain waits for
    /// 5 s at most.
    pub body_timeout: Duration,
    /// Time that an idle connection is kept. Default 620 s: longer than any balancer keeps its end
    /// (60 to 600 s), because the end that closes first loses the requests that cross its close on
    /// the wire.
    pub keep_alive: Duration,
    /// Age at which a connection announces its close while serving: HTTP/1 with its next response,
    /// HTTP/2 with a GOAWAY, so that long-lived clients spread over new instances. Each connection
    /// draws its limit from the last tenth of this. Default: `None`, no limit. Streams that are
    /// open then are served to their end.
    pub connection_age_max: Option<Duration>,
    /// Concurrent streams on an HTTP/2 connection. Default 200.
    pub http2_streams_max: u32,
    /// Treatment of a running HTTP/1 request whose client shuts its side of the connection.
    /// Default: it is served.
    pub half_close: HalfClose,
    /// Whether `connections_max` was set, to whatever value.
    pub(crate) is_connections_max_set: bool,
    #[cfg(feature = "__caps")]
    pub(crate) caps: Caps,
}

/// Treatment of a running HTTP/1 request whose client shuts its side of the connection. TCP does
/// not distinguish a client that has sent all its requests from one that has left: both send a FIN,
/// and only a later reset shows the difference.
///
/// If a client is certainly gone, its requests are dropped and count as `gone`, whatever this
/// setting says. The same holds for HTTP/2, where a client that shuts its side of the connection
/// ends all of its requests. The end of a single stream's request body means nothing there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HalfClose {
    /// The response is still sent. The request's context is cancelled with the cause
    /// [`CancelCause::ClientHalfClosed`](crate::CancelCause::ClientHalfClosed). The default.
    #[default]
    Serve,
    /// The handler is dropped, its connection is closed, and the request counts as `gone`.
    Drop,
    /// The response is still sent, and the handler is not notified.
    Ignore,
}

/// Setters for a chain: `Limits::default().headers_max(50)`.
impl Limits {
    /// Sets [`connections_max`](#structfield.connections_max).
    #[must_use]
    pub const fn connections_max(mut self, connections_max: usize) -> Self {
        self.connections_max = connections_max;
        self.is_connections_max_set = true;
        self
    }

    /// Sets [`header_bytes_max`](#structfield.header_bytes_max).
    #[must_use]
    pub const fn header_bytes_max(mut self, header_bytes_max: usize) -> Self {
        self.header_bytes_max = header_bytes_max;
        self
    }

    /// Sets [`headers_max`](#structfield.headers_max).
    #[must_use]
    pub const fn headers_max(mut self, headers_max: usize) -> Self {
        self.headers_max = headers_max;
        self
    }

    /// Sets [`first_byte_timeout`](#structfield.first_byte_timeout).
    #[must_use]
    pub const fn first_byte_timeout(mut self, first_byte_timeout: Duration) -> Self {
        self.first_byte_timeout = first_byte_timeout;
        self
    }

    /// Sets [`tls_handshake_timeout`](#structfield.tls_handshake_timeout).
    #[must_use]
    pub const fn tls_handshake_timeout(mut self, tls_handshake_timeout: Duration) -> Self {
        self.tls_handshake_timeout = tls_handshake_timeout;
        self
    }

    /// Sets [`header_timeout`](#structfield.header_timeout).
    #[must_use]
    pub const fn header_timeout(mut self, header_timeout: Duration) -> Self {
        self.header_timeout = header_timeout;
        self
    }

    /// Sets [`send_timeout`](#structfield.send_timeout).
    #[must_use]
    pub const fn send_timeout(mut self, send_timeout: Duration) -> Self {
        self.send_timeout = send_timeout;
        self
    }

    /// Sets [`body_timeout`](#structfield.body_timeout).
    #[must_use]
    pub const fn body_timeout(mut self, body_timeout: Duration) -> Self {
        self.body_timeout = body_timeout;
        self
    }

    /// Sets [`keep_alive`](#structfield.keep_alive).
    #[must_use]
    pub const fn keep_alive(mut self, keep_alive: Duration) -> Self {
        self.keep_alive = keep_alive;
        self
    }

    /// Sets [`connection_age_max`](#structfield.connection_age_max).
    #[must_use]
    pub const fn connection_age_max(mut self, connection_age_max: Option<Duration>) -> Self {
        self.connection_age_max = connection_age_max;
        self
    }

    /// Sets [`http2_streams_max`](#structfield.http2_streams_max).
    #[must_use]
    pub const fn http2_streams_max(mut self, http2_streams_max: u32) -> Self {
        self.http2_streams_max = http2_streams_max;
        self
    }

    /// Sets [`half_close`](#structfield.half_close).
    #[must_use]
    pub const fn half_close(mut self, half_close: HalfClose) -> Self {
        self.half_close = half_close;
        self
    }
}

impl Limits {
    /// Replaces the caps. Not for users.
    #[cfg(feature = "__caps")]
    #[doc(hidden)]
    #[must_use]
    pub const fn caps(mut self, caps: Caps) -> Self {
        self.caps = caps;
        self
    }

    /// Returns the caps that users cannot set.
    #[cfg(feature = "__caps")]
    pub(crate) const fn fixed(&self) -> &Caps {
        &self.caps
    }

    /// Returns the caps that users cannot set.
    #[cfg(not(feature = "__caps"))]
    pub(crate) const fn fixed(&self) -> &'static Caps {
        &Caps::DEFAULT
    }

    /// Returns the limits of the internal server.
    pub(crate) fn internal(self) -> Self {
        let caps = self.fixed();
        Self {
            connections_max: caps.internal_connections_max.get(),
            header_timeout: self.header_timeout.min(INTERNAL_PROGRESS_WAIT),
            send_timeout: self.send_timeout.min(INTERNAL_PROGRESS_WAIT),
            body_timeout: self.body_timeout.min(INTERNAL_PROGRESS_WAIT),
            connection_age_max: None,
            http2_streams_max: self.http2_streams_max.min(caps.internal_streams_max.get_u32()),
            ..self
        }
    }
}

/// Time that a connection may stay silent after its accept before the drain may close it, before it
/// may be evicted at the connection limit, and before an HTTP/2 connection gets its GOAWAY.
pub(crate) const FIRST_BYTE_GRACE: Duration = Duration::from_millis(250);

/// Time in which a partial request head must become complete in the drain. On HTTP/2 also the time
/// after a GOAWAY for a client that has sent no request yet. In every phase also how long input
/// without a request delays a time limit at least: see `FinalReads`.
pub(crate) const HEAD_GRACE: Duration = Duration::from_secs(1);

/// Time that a close with unread bytes continues to read, so that the kernel does not discard our
/// response.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// Time that the close of an idle connection watches for a request that crossed it on the wire, if
/// the client does not close too.
pub(crate) const RACE_WATCH: Duration = Duration::from_millis(10);

/// Time that a client may make no progress in the drain: it acknowledges nothing of a response, or
/// sends nothing more of a request body. While serving, [`Limits::send_timeout`] and
/// [`Limits::body_timeout`] apply.
pub(super) const PROGRESS_WAIT: Duration = Duration::from_secs(5);

/// Extra time before an HTTP/2 connection is cut whose client keeps its windows closed: the streams
/// are reset first.
pub(crate) const STREAM_RESETS_FIRST: Duration = Duration::from_secs(1);

/// Interval at which a close that waits for acknowledgements checks for them.
pub(crate) const ACK_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Time that an idle connection keeps its task and what serves its next request: hyper, or the
/// state of the fast path.
pub(crate) const PARK_AFTER: Duration = Duration::from_secs(1);

/// Time for an HTTP/2 peer to return the PONG after a GOAWAY, with no stream open.
pub(crate) const PONG_WAIT: Duration = Duration::from_secs(1);

/// Interval at which a busy connection or stream is checked for a client that left or stalled.
pub(crate) const CLIENT_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The same once an HTTP/1 client has half-closed its connection. Its socket stays readable, so the
/// reactor does not report a reset.
pub(crate) const HALF_CLOSED_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Time for a request head on the internal server, and the maximum without progress of a body or a
/// response. Its clients are near and few.
pub(super) const INTERNAL_PROGRESS_WAIT: Duration = Duration::from_secs(2);

/// The largest HTTP/2 frame that is accepted: the minimum that RFC 9113 §4.2 allows.
pub(crate) const HTTP2_FRAME_MAX: u32 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::{Duration, INTERNAL_PROGRESS_WAIT, Limits};

    #[test]
    fn the_clients_of_the_internal_server_have_little_time() {
        let times = |limits: Limits| {
            let internal = limits.internal();
            [internal.header_timeout, internal.send_timeout, internal.body_timeout]
        };
        assert_eq!(times(Limits::default()), [INTERNAL_PROGRESS_WAIT; 3]);
        let less = Duration::from_secs(1);
        let short = Limits::default().header_timeout(less).send_timeout(less).body_timeout(less);
        assert_eq!(times(short), [less; 3]);
    }
}
