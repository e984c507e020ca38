//! Identity of a client, and the events that it records about its requests.

use super::{Head, RequestSpec};
use crate::trace::{Fnv64, Trace, Value};
use std::{
    error::Error,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Identity of a client in the trace. Clones share it, including the count of requests.
#[derive(Clone, Debug)]
pub struct ClientId {
    name: Arc<str>,
    trace: Trace,
    max_wait: Duration,
    requests: Arc<AtomicU64>,
    connections: Arc<AtomicU64>,
    keeps_bodies: bool,
    noise: Option<Duration>,
}

/// Number of bytes of a response body that are kept.
pub(super) const KEPT_MAX: usize = 16 * 1024;

/// Whether the client of this name does not respond to the PINGs of HTTP/2: every fifth one.
pub(crate) fn withholds_pongs(name: &str) -> bool {
    (Fnv64::of(name.as_bytes()) / 10).is_multiple_of(5)
}

impl ClientId {
    /// Whether its number is odd.
    pub(super) fn is_odd(&self) -> bool {
        self.name.bytes().last().is_some_and(|digit| digit % 2 == 1)
    }

    /// Creates a client called `name` that abandons a request after 120 s.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>, trace: Trace) -> Self {
        Self {
            name: name.into(),
            trace,
            max_wait: Duration::from_secs(120),
            requests: Arc::new(AtomicU64::new(0)),
            connections: Arc::new(AtomicU64::new(0)),
            keeps_bodies: false,
            noise: None,
        }
    }

    /// Records the response bodies.
    #[must_use]
    pub(crate) fn with_bodies(mut self, keeps_bodies: bool) -> Self {
        self.keeps_bodies = keeps_bodies;
        self
    }

    /// Sets the pause between things that it sends beside its requests, and that ask for nothing.
    #[must_use]
    pub(crate) const fn with_noise(mut self, every: Option<Duration>) -> Self {
        self.noise = every;
        self
    }

    /// Returns that pause.
    pub(super) const fn noise(&self) -> Option<Duration> {
        self.noise
    }

    /// Returns how many bytes of a response body are kept.
    pub(super) const fn keeps(&self) -> usize {
        if self.keeps_bodies { KEPT_MAX } else { 0 }
    }

    /// Whether the hash of a body and the number of its events are used: not if it is kept only to
    /// be read, and is not recorded.
    pub(super) fn measures_bodies(&self) -> bool {
        !self.keeps_bodies || self.trace.takes_records()
    }

    /// Whether the client waits for the end of a connection whose last response it has, instead of
    /// closing it: every second one, by its name.
    pub(super) fn awaits_last_ends(&self) -> bool {
        !self.keeps_bodies && (Fnv64::of(self.name.as_bytes()) >> 16).is_multiple_of(2)
    }

    /// Whether the client sends header blocks of HTTP/2 in several frames: every third one, by its
    /// name.
    pub(super) fn divides_header_blocks(&self) -> bool {
        !self.keeps_bodies && (Fnv64::of(self.name.as_bytes()) >> 24).is_multiple_of(3)
    }

    /// Whether the client does not respond to the PINGs of HTTP/2.
    pub(super) fn withholds_pongs(&self) -> bool {
        !self.keeps_bodies && withholds_pongs(&self.name)
    }

    /// Records the body of a response, if this client keeps bodies.
    pub(super) fn received(&self, request: u64, body: &[u8]) {
        if self.keeps_bodies {
            self.tell_with("body", || {
                let body = String::from_utf8_lossy(body).into_owned();
                [("request", request.into()), ("body", body.into())]
            });
        }
    }

    /// Records the number of server-sent events of a response, if it has any.
    pub(super) fn events(&self, request: u64, count: u64) {
        if count > 0 {
            self.tell("events", &[("request", request.into()), ("count", count.into())]);
        }
    }

    /// Records which of the requests that follow each other the last one was.
    pub(super) fn step(&self, step: usize) {
        let request = self.requests.load(Ordering::Relaxed).saturating_sub(1);
        self.tell("step", &[("request", request.into()), ("step", step.into())]);
    }

    /// Changes the time after which the client abandons a request.
    #[must_use]
    pub fn with_max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }

    /// Returns how long the client waits for a complete response.
    #[must_use]
    pub const fn max_wait(&self) -> Duration {
        self.max_wait
    }

    /// Records any other event of the client.
    pub fn tell(&self, event: &'static str, fields: &[(&'static str, Value)]) {
        self.trace.record(&self.name, event, fields);
    }

    /// Records an event whose fields are made only if the trace takes records.
    fn tell_with<const N: usize>(
        &self,
        event: &'static str,
        fields: impl FnOnce() -> [(&'static str, Value); N],
    ) {
        if self.trace.takes_records() {
            self.tell(event, &fields());
        }
    }

    pub(super) fn connected(&self) -> u64 {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        self.tell("connected", &[("connection", connection.into())]);
        connection
    }

    pub(super) fn not_connected(&self, failure: &RequestFailure) {
        self.tell("connect failed", &[("how", failure.how.name().into())]);
    }

    pub(super) fn asks(&self, ask: &RequestSpec, connection: u64, earlier: u64) -> u64 {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        self.tell_with("asks", || {
            [
                ("request", request.into()),
                ("connection", connection.into()),
                ("earlier", earlier.into()),
                ("method", ask.method.as_str().into()),
                ("target", ask.target.as_str().into()),
                ("fields", ask.field_count().into()),
            ]
        });
        request
    }

    pub(super) fn sent(&self, request: u64) {
        self.tell("sent", &[("request", request.into())]);
    }

    /// Returns the name of a request.
    pub(super) fn name_of(&self, request: u64) -> String {
        format!("{}/{request}", self.name)
    }

    /// Records a response head.
    pub(super) fn head(&self, request: u64, head: &Head) {
        if !self.trace.takes_records() {
            return;
        }
        let closes = if head.closes { "yes" } else { "no" };
        let mine = Fnv64::of(self.name_of(request).as_bytes());
        let of = head.of.map(|of| if of == mine { "mine" } else { "another" });
        let mut fields = vec![
            ("request", request.into()),
            ("status", head.status.into()),
            ("close", closes.into()),
        ];
        fields.extend(of.map(|of| ("of", of.into())));
        fields.extend(head.date.map(|date| ("date", date.into())));
        fields.extend(head.wrong_length().map(|length| ("wrong_length", length.into())));
        fields.extend(head.length.map(|length| ("length", length.into())));
        self.tell("head", &fields);
    }

    /// Records the status of a gRPC call, where it was, and the length of the body before it.
    pub(super) fn call_ended(&self, request: u64, status: u64, place: &'static str, bytes: u64) {
        self.tell(
            "call status",
            &[
                ("request", request.into()),
                ("status", status.into()),
                ("place", place.into()),
                ("bytes", bytes.into()),
            ],
        );
    }

    /// Records that a response that the client did not take was cut.
    pub(super) fn response_lost(&self, request: u64, how: How) {
        self.tell("response lost", &[("of", request.into()), ("how", how.name().into())]);
    }

    pub(super) fn ended(&self, request: u64, end: &Result<ResponseSummary, RequestFailure>) {
        match end {
            Ok(done) => self.tell_with("completed", || {
                [
                    ("request", request.into()),
                    ("status", done.status.into()),
                    ("body_bytes", done.body_bytes.into()),
                    ("body_hash", format!("{:016x}", done.body_hash).into()),
                ]
            }),
            Err(failure) => self.tell_with("failed", || {
                [
                    ("request", request.into()),
                    ("how", failure.how.name().into()),
                    ("answer_bytes", failure.answer_bytes.into()),
                ]
            }),
        }
    }
}

/// Summary of a complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseSummary {
    /// Status code.
    pub status: u16,
    /// Whether the response announced the end of the connection.
    pub closes: bool,
    /// Whether the connection can carry another request.
    pub keeps_alive: bool,
    /// Length of the body in bytes.
    pub body_bytes: u64,
    /// FNV-1a hash of the body.
    pub body_hash: u64,
    /// Status of a gRPC call, if the response has one.
    pub grpc_status: Option<u64>,
    /// Number of messages in the response of a gRPC call, if the client keeps bodies.
    pub grpc_messages: u64,
}

impl ResponseSummary {
    pub(super) fn new(head: &Head, body_bytes: u64, body_hash: u64) -> Self {
        Self {
            status: head.status,
            closes: head.closes,
            keeps_alive: head.keeps_alive(),
            body_bytes,
            body_hash,
            grpc_status: None,
            grpc_messages: 0,
        }
    }
}

/// A failed request, as seen by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFailure {
    /// How the request failed.
    pub how: How,
    /// Number of response bytes received. If there are none, RFC 9112 §9.5 lets the client retry.
    pub answer_bytes: u64,
}

/// Ways in which a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum How {
    /// Nothing listened on the port.
    Refused,
    /// The connection could not be made for another reason.
    Unreachable,
    /// The connection was reset before the response head.
    ResetBeforeHead,
    /// The connection was reset within the response body.
    ResetInBody,
    /// The connection ended before the response head.
    EndBeforeHead,
    /// The connection ended within the body, in a way that the client can detect.
    BodyCut,
    /// The response was not complete in time.
    TimedOut,
    /// The bytes received were not HTTP.
    Garbled,
    /// HTTP/2: the server refused the stream unprocessed; the client may retry (RFC 9113 §8.7).
    StreamRefused,
    /// HTTP/2: the server reset the stream.
    StreamReset,
    /// HTTP/2: the connection was closed before the request was sent.
    NotSent,
}

impl How {
    /// Returns the name used in the trace.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ResetBeforeHead => "reset-before-head",
            Self::ResetInBody => "reset-in-body",
            Self::EndBeforeHead => "end-before-head",
            Self::BodyCut => "body-cut",
            Self::TimedOut => "timed-out",
            Self::Garbled => "garbled",
            Self::StreamRefused => "stream-refused",
            Self::StreamReset => "stream-reset",
            Self::NotSent => "not-sent",
        }
    }
}

impl RequestFailure {
    pub(super) const fn new(how: How, answer_bytes: u64) -> Self {
        Self { how, answer_bytes }
    }

    /// Whether the server cannot have seen the request.
    pub(crate) const fn was_not_sent(&self) -> bool {
        matches!(self.how, How::Refused | How::Unreachable | How::NotSent | How::StreamRefused)
    }

    pub(super) fn of_connect(error: &io::Error) -> Self {
        let how = if error.kind() == io::ErrorKind::ConnectionRefused {
            How::Refused
        } else {
            How::Unreachable
        };
        Self::new(how, 0)
    }
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} after {} bytes of an answer", self.how.name(), self.answer_bytes)
    }
}

impl Error for RequestFailure {}
