//! A request as its client saw it.

use crate::{
    app::SLOW_CANCELLED,
    scenario::Client,
    trace::{Fnv64, Record},
};
use std::{collections::BTreeMap, time::Duration};

/// Event for a response that the service of a user made.
pub(crate) const RESPONDS: &str = "service responds";
/// Event for the status that such a service gave to a gRPC call after its head.
pub(crate) const ENDS_CALL: &str = "service ends call";
/// What the host says to a gRPC call that ends at its time in a shutdown, as one that has finished.
const ENDS_REGULARLY: &str = "the service is shutting down";

/// A request as its client saw it.
#[derive(Clone, Debug)]
pub struct ObservedRequest {
    /// Index of the client.
    pub client: usize,
    /// Connection number, per client.
    pub connection: u64,
    /// Number of earlier requests on the same connection.
    pub earlier: u64,
    /// Path and query.
    pub target: String,
    /// Which of its client's kinds of requests it is.
    pub kind: usize,
    /// Whether the method is `HEAD`.
    pub is_head: bool,
    /// When the client began to send the request.
    pub observed: Duration,
    /// When the client had written its last byte, if known.
    pub sent: Option<Duration>,
    /// Arrival of the response head, its status, and whether it announces the close.
    pub head: Option<(Duration, u64, bool)>,
    /// When and how the request ended.
    pub end: Option<(Duration, RequestResult)>,
    /// The hash of its body, if it was complete.
    pub body_hash: Option<u64>,
    /// Which error body the response had, if it was complete.
    pub said: ErrorKind,
    /// Status of the response that the service made, if the run records it.
    pub service_status: Option<u64>,
    /// Position among the requests that follow each other.
    pub step: usize,
    /// The beginning of the response body, if the client keeps it.
    pub body: Option<String>,
    /// Number of messages received, of a WebSocket or a gRPC call.
    pub messages: Option<u64>,
    /// Number of server-sent events received, if the client counts them.
    pub events: u64,
    /// Number of the request, per client.
    pub number: u64,
    /// The status of a gRPC call, and the length of the body before it.
    pub call: Option<(u64, u64)>,
    /// Whether the service of a user gave the call its status, after the head.
    pub service_ends_call: bool,
    /// Whether the host ended the call regularly, at its time in the shutdown.
    pub ends_regularly: bool,
    /// Whether the status of the call came after the head.
    pub has_trailers: bool,
}

impl ObservedRequest {
    /// Whether the service made the response. A run records this only for a user's service. The
    /// record is made outside the response, so no service can imitate it.
    #[must_use]
    pub fn is_by_service(&self) -> bool {
        let status = self.head.map(|(_, status, _)| status);
        status.is_some() && status == self.service_status
    }

    /// Whether the service made all of the response: the host may end a gRPC call after its head.
    #[must_use]
    pub fn is_all_by_service(&self) -> bool {
        self.is_by_service() && (!self.has_trailers || self.service_ends_call)
    }

    /// Returns the cause, if the request got no complete response.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        match &self.end {
            Some((_, RequestResult::Failed(how))) => Some(how),
            Some((_, RequestResult::Completed(..))) | None => None,
        }
    }

    /// Returns the status of a gRPC call, if its response has one.
    #[must_use]
    pub fn grpc_status(&self) -> Option<u64> {
        self.call.map(|(status, _)| status)
    }
}

impl ObservedRequest {
    /// Reads the status of a gRPC call. One that the host gives in place of a response head is what
    /// a 503 is for other requests.
    fn read_call_status(&mut self, record: &Record) {
        let (status, bytes) = (record.number("status"), record.number("bytes"));
        self.call = status.zip(bytes);
        self.has_trailers = record.text("place") == Some("trailers");
        let is_error = record.text("place") == Some("head") && status != Some(0);
        if let Some((_, head, _)) = &mut self.head
            && is_error
            && self.service_status.is_none()
        {
            *head = 503;
        }
    }

    /// Translates the end of a gRPC call into that of another request: a deadline is a 503, and so
    /// is a cut before the head. A cut after the head is a reset.
    fn read_end_of_call(&mut self, at: Duration) {
        let is_by_host = !self.is_all_by_service();
        let is_regular = self.ends_regularly || self.target.contains("&end=");
        match self.call {
            Some((4, bytes)) if is_by_host => {
                self.end = Some((at, RequestResult::Completed(503, bytes)));
                self.said = ErrorKind::TimedOut;
            }
            Some((14, _)) if is_by_host && self.head.is_some_and(|(_, head, _)| head == 503) => {
                self.end = Some((at, RequestResult::Completed(503, 0)));
                self.said = ErrorKind::Aborted;
            }
            // One that the host ends at its time has finished.
            Some((14, _)) if is_by_host && !is_regular => {
                self.end = Some((at, RequestResult::Failed("stream-reset".to_owned())));
            }
            Some(_) | None => {}
        }
    }
}

/// Kind of a complete response, by its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The handler's own response, or none.
    Anything,
    /// One of the others, to `HEAD`: without a body they look alike.
    Bodyless,
    /// Request timeout: a 503 with none of the other bodies.
    TimedOut,
    /// Aborted by the shutdown.
    Aborted,
    /// Aborted because the request body stopped arriving.
    Stalled,
}

impl ErrorKind {
    fn of(status: u64, body_hash: &str) -> Self {
        let is = |line: &str| {
            let mut hash = Fnv64::new();
            hash.feed(line.as_bytes());
            format!("{:016x}", hash.value()) == body_hash
        };
        if status != 503 || is(SLOW_CANCELLED) {
            Self::Anything
        } else if is("") {
            Self::Bodyless
        } else if is("request aborted: the service is shutting down and the drain has ended\n") {
            Self::Aborted
        } else if is(
            "request aborted: its body stopped arriving while the service was shutting down\n",
        ) {
            Self::Stalled
        } else {
            Self::TimedOut
        }
    }
}

/// How a request ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestResult {
    /// Complete response: status and length.
    Completed(u64, u64),
    /// No complete response, and the cause.
    Failed(String),
}

/// Reads the requests of these clients.
pub(super) fn requests(records: &[Record], clients: &[Client]) -> Vec<ObservedRequest> {
    let targets = |client: &Client| client.kinds().map(|kind| kind.ask().target).collect();
    let targets: Vec<Vec<String>> = clients.iter().map(targets).collect();
    let mut requests: BTreeMap<(usize, u64), ObservedRequest> = BTreeMap::new();
    for record in records {
        let by = if matches!(record.event, RESPONDS | ENDS_CALL) {
            record.text("client").unwrap_or_default()
        } else {
            &record.actor
        };
        let Some(client) = by.strip_prefix("client-").and_then(|n| n.parse().ok()) else {
            continue;
        };
        let Some(request) = record.number("request") else { continue };
        if record.event == "asks" {
            let target = record.text("target").unwrap_or_default();
            let mut kinds = targets.get(client).into_iter().flatten();
            let observed = ObservedRequest {
                client,
                connection: record.number("connection").unwrap_or(0),
                earlier: record.number("earlier").unwrap_or(0),
                target: target.to_owned(),
                kind: kinds.position(|of| of == target).unwrap_or(0),
                is_head: record.text("method") == Some("HEAD"),
                observed: record.at,
                sent: None,
                head: None,
                end: None,
                said: ErrorKind::Anything,
                body_hash: None,
                service_status: None,
                step: 0,
                body: None,
                messages: None,
                events: 0,
                number: request,
                call: None,
                service_ends_call: false,
                ends_regularly: false,
                has_trailers: false,
            };
            requests.insert((client, request), observed);
            continue;
        }
        let Some(observed) = requests.get_mut(&(client, request)) else { continue };
        match record.event {
            "sent" => observed.sent = Some(record.at),
            "head" => {
                let status = record.number("status").unwrap_or(0);
                observed.head = Some((record.at, status, record.text("close") == Some("yes")));
            }
            "completed" => {
                let (status, bytes) = (record.number("status"), record.number("body_bytes"));
                observed.end = Some((
                    record.at,
                    RequestResult::Completed(status.unwrap_or(0), bytes.unwrap_or(0)),
                ));
                let hash = record.text("body_hash");
                observed.body_hash = hash.and_then(|hash| u64::from_str_radix(hash, 16).ok());
                if observed.call.is_some() {
                    observed.read_end_of_call(record.at);
                } else if !observed.is_by_service() {
                    observed.said = ErrorKind::of(
                        status.unwrap_or(0),
                        record.text("body_hash").unwrap_or_default(),
                    );
                }
            }
            "call status" => observed.read_call_status(record),
            RESPONDS => observed.service_status = record.number("status"),
            ENDS_CALL => observed.service_ends_call = true,
            "step" => {
                observed.step = record
                    .number("step")
                    .and_then(|step| usize::try_from(step).ok())
                    .unwrap_or_default();
            }
            "body" => observed.body = record.text("body").map(ToOwned::to_owned),
            "messages" | "call messages" => {
                observed.messages = record.number("count");
                observed.ends_regularly = record.text("message") == Some(ENDS_REGULARLY);
            }
            "events" => observed.events = record.number("count").unwrap_or_default(),
            "failed" => {
                observed.end = Some((
                    record.at,
                    RequestResult::Failed(record.text("how").unwrap_or_default().to_owned()),
                ));
            }
            _ => {}
        }
    }
    requests.into_values().collect()
}
