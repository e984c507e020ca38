//! What strangers may ask of us, and for how long they may take to ask.

use std::time::Duration;

/// Limits on connections and requests. The defaults are those of [`Settings`](crate::Settings).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at one time. At the limit idle ones make room, those first that never sent a byte, then the longest idle. If
    /// there is none, nothing more is accepted, so that the kernel's queue is the back-pressure.
    /// Default: the process's limit on descriptors less 64, at least 16, at most a million.
    pub connections_max: usize,
    /// Bytes of a request head. Default 32 KiB, least 8 KiB. More is answered with 431.
    pub header_bytes_max: usize,
    /// Header fields of a request. Default 100. More is answered with 431, on HTTP/2 on the stream.
    pub headers_max: usize,
    /// From the accept of a connection to its first byte. Default 60 s, since balancers and browsers connect ahead. Then it is closed.
    pub first_byte_timeout: Duration,
    /// From the first byte of a request head to its last. Default 10 s. Then the client gets a 408. On HTTP/2 also the longest time
    /// for a frame that carries no data, and from the preface to the first request; then the client gets a GOAWAY.
    pub header_timeout: Duration,
    /// How long a client may take nothing of a response while bytes of it wait to leave. Default 30 s. Then the response is cut.
    /// The drain waits for 5 s at most.
    pub send_timeout: Duration,
    /// How long a client may send nothing of a request body while the handler waits for it. Default 30 s. Then the client gets a
    /// 503. The drain waits for 5 s at most.
    pub body_timeout: Duration,
    /// How long an idle connection is kept. Default 620 s: longer than any balancer keeps its end (60 to 600 s), because the
    /// side that closes first loses the requests that cross its close on the wire.
    pub keep_alive: Duration,
    /// Streams at one time on an HTTP/2 connection. Default 200.
    pub http2_streams_max: u32,
    /// What becomes of a request whose client shuts its side of an HTTP/1 connection while it runs.
    /// Default: it is served.
    pub half_close: HalfClose,
}

/// What becomes of a request of HTTP/1 whose client shuts its side of the connection while it runs.
/// TCP does not tell a client that has sent all it wants to send from one that has left: both send a
/// FIN, and only a later reset shows the difference.
///
/// A client that is certainly gone is another thing: its requests are dropped and count as `gone`,
/// whatever this says. So it is with HTTP/2, where a client that shuts its side of the connection has
/// ended all of its requests; the end of a stream's own request body means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HalfClose {
    /// The response is still sent. The request's context is cancelled, and says why:
    /// [`CancelCause::ClientHalfClosed`](crate::CancelCause::ClientHalfClosed). The default.
    #[default]
    Serve,
    /// The handler is dropped, its connection closed, and the request counts as `gone`.
    Drop,
    /// The response is still sent, and the handler does not notice.
    Ignore,
}

impl Limits {
    /// The internal server's.
    pub(crate) fn internal(self) -> Self {
        Self {
            connections_max: INTERNAL_CONNECTIONS_MAX,
            header_timeout: self.header_timeout.min(INTERNAL_PROGRESS_WAIT),
            send_timeout: self.send_timeout.min(INTERNAL_PROGRESS_WAIT),
            body_timeout: self.body_timeout.min(INTERNAL_PROGRESS_WAIT),
            http2_streams_max: self.http2_streams_max.min(INTERNAL_STREAMS_MAX),
            ..self
        }
    }
}

/// How long a connection may stay silent after its accept before the drain may close it.
pub(crate) const FIRST_BYTE_GRACE: Duration = Duration::from_millis(250);

/// Connections at one time above the limit, while those that make room for them close. They need descriptors that the default limit
/// leaves free.
pub(crate) const EVICTED_AT_ONCE: u64 = 8;

/// How long half a request head may take to become whole in the drain.
pub(crate) const HEAD_GRACE: Duration = Duration::from_secs(1);

/// How long a close with unread bytes reads on, so that the kernel does not throw our answer away.
pub(crate) const LINGER: Duration = Duration::from_secs(1);

/// How long the close of an idle connection looks for a request that crossed it on the wire, if the client does not close too.
pub(crate) const RACE_WATCH: Duration = Duration::from_millis(10);

/// How long a client may go without any progress in the drain: nothing acknowledged of a response, or nothing more of a request's
/// body. While serving that is for [`Limits::send_timeout`] and [`Limits::body_timeout`].
pub(crate) const PROGRESS_WAIT: Duration = Duration::from_secs(5);

/// How much longer than a stream an HTTP/2 connection may stand still whose client's windows are closed: the streams are reset first.
pub(crate) const STREAMS_FIRST: Duration = Duration::from_secs(1);

/// Bytes that an HTTP/2 connection writes for each of its streams before one of them has its turn for certain.
pub(crate) const PASSED_OVER: u64 = 64 * 1024;

/// Up to this much of an answer leaves at once whatever the peer does (the initial congestion window, RFC 6928), and a reset that
/// comes later cannot take it back.
pub(crate) const SENT_AT_ONCE: u64 = 10 * 1460;

/// How often a close that waits for acknowledgements looks for them.
pub(crate) const ACKNOWLEDGED_CHECK: Duration = Duration::from_millis(10);

/// How long an idle connection keeps what it takes to answer the next request: hyper, or what plain requests are answered with, and its
/// task.
pub(crate) const PARK_AFTER: Duration = Duration::from_secs(1);

/// Idle connections that keep hyper, or what plain requests are answered with, a worker; above it they are parked at once. It bounds the
/// memory of a burst.
pub(crate) const LIVE_MAX: usize = 256;

/// Tasks of a worker, above which connections that wait are parked deep at once: plain requests are answered there as well.
pub(crate) const TASKS_MAX: usize = 128;

/// How long an HTTP/2 peer may take to answer the PING behind a GOAWAY, with no stream open.
pub(crate) const PONG_WAIT: Duration = Duration::from_secs(1);

/// How often a busy HTTP/1 connection is asked whether its client is still there.
pub(crate) const GONE_CHECK: Duration = Duration::from_secs(1);

/// Connections that the internal server takes at one time: probes, scrapers and a few people. One more is accepted all the same, and
/// another makes room.
pub(crate) const INTERNAL_CONNECTIONS_MAX: usize = 128;

/// Streams of an HTTP/2 connection to the internal server: so many requests of one client at most go before a probe.
pub(crate) const INTERNAL_STREAMS_MAX: u32 = 16;

/// How long a client of the internal server may take for a request head, and how long it may make no progress with a body or a
/// response: its clients are near, and few.
pub(crate) const INTERNAL_PROGRESS_WAIT: Duration = Duration::from_secs(2);

// The bound of each queue, table and buffer that is kept for a client. Together they bound the memory of a connection (P15).

/// Bytes that hyper reads of an HTTP/2 connection in one poll of its task. h2 decodes all that it can read before hyper takes the
/// first request, so this bounds the requests and fields that are decoded and not yet checked; and other connections wait for no
/// longer than it takes to decode them.
pub(crate) const READ_IN_TURN_MAX: u32 = 64 * 1024;

/// Least size of hyper's read buffer and of its write buffer for HTTP/1; `header_bytes_max` if that is more. At the limit nothing more is
/// read, or taken of a response.
pub(crate) const HTTP1_BUFFER: usize = 64 * 1024;

/// Responses that wait for a flush and are settled one by one, because the client of an HTTP/2 connection reads so slowly that its write
/// buffer does not run empty.
pub(crate) const ENDED_UNSENT_SETTLED: u32 = 16;

/// Rounds of `http2_streams_max` requests that are read while the client does not read: it may reset streams and open others. h2 keeps
/// some 400 bytes of each until it can write again.
pub(crate) const UNREAD_ROUNDS_MAX: u32 = 4;

/// Bytes of a response body that h2 holds for one stream whose client does not read. A single larger piece of the handler's is held
/// whole: it is in memory anyway.
pub(crate) const HTTP2_SEND_BUFFER: usize = 64 * 1024;

/// Bytes of request bodies that a client may send on an HTTP/2 connection before its handlers read any, on all streams together and
/// on one: the bandwidth-delay product of 100 Mbit/s and 80 ms.
pub(crate) const HTTP2_RECEIVE_WINDOW: u32 = 1024 * 1024;

/// The largest HTTP/2 frame that is accepted (RFC 9113 §4.2: the least that may be chosen).
pub(crate) const HTTP2_FRAME_MAX: u32 = 16 * 1024;

/// Bytes of the table that a client's HPACK encoder may fill (RFC 7541 §4.2: the default).
pub(crate) const HPACK_TABLE: u32 = 4 * 1024;

/// Streams that a client resets before hyper has taken their requests; one more ends the connection with ENHANCE_YOUR_CALM
/// (CVE-2023-44487).
pub(crate) const HTTP2_RESETS_PENDING_MAX: usize = 20;

/// Streams that h2 resets for errors of the client in the lifetime of a connection; one more ends it with ENHANCE_YOUR_CALM.
pub(crate) const HTTP2_ERROR_RESETS_MAX: usize = 1024;
