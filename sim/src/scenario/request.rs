//! A request of a user's service: what a client sends, what it expects, and what it sends next.

use super::{Previous, Statuses};
use crate::client::{RequestSpec, grpc_frame};
use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A request that clients send to your service, with what you expect of the response.
///
/// ```
/// use lameduck_sim::Request;
///
/// let order = Request::post("/orders", "tea")
///     .header("idempotency-key", "1")
///     .expect(201)
///     .then(Request::get("{location}").expect(200).expect_body("tea"));
/// assert_eq!(order.to_string(), "POST /orders, then GET {location}");
/// ```
///
/// # What a client expects
/// Without [`expect`](Self::expect) a request succeeds with a status below 400, and a status of 500
/// or more is a failure. With it, every other status is a failure. Only responses that your service
/// made are judged, and only until a downstream of it fails.
///
/// # Requests that follow
/// A client sends the request of [`then`](Self::then) after a response that succeeded. In its
/// target, body and header values, `{location}` is replaced by the header field `Location` of that
/// response, `{body}` by its body, and `{/id}` by the string or number at this JSON pointer (RFC
/// 6901) in its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    method: String,
    target: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    body: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<(u16, u16)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    has: Option<String>,
    #[serde(default, skip_serializing_if = "Reads::is_whole")]
    reads: Reads,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    then: Option<Box<Self>>,
}

/// The statuses of gRPC that say that the service is broken: UNKNOWN, UNIMPLEMENTED, INTERNAL and
/// DATA_LOSS.
const GRPC_FAILURES: [u64; 4] = [2, 12, 13, 15];

/// What a client reads after the head of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reads {
    /// The body, to its end.
    #[default]
    Whole,
    /// A stream of server-sent events. At least this many must arrive.
    Events(u64),
    /// WebSocket messages: it sends these, one after the other, and receives one for each.
    WebSocket(Vec<String>),
    /// The response to a gRPC call with these messages. If `least` is set, at least
    /// that number of messages must arrive, and the call need not end.
    Grpc { messages: Vec<Vec<u8>>, least: Option<u64> },
}

impl Reads {
    fn is_whole(&self) -> bool {
        *self == Self::Whole
    }
}

impl Request {
    /// Creates a `GET` request.
    ///
    /// # Panics
    /// Panics if `target` does not begin with a slash or is not a path and query. A target with
    /// values of an earlier response, such as `{location}`, is not checked.
    #[track_caller]
    #[must_use]
    pub fn get(target: impl Into<String>) -> Self {
        Self::new(Method::GET, target)
    }

    /// Creates a `POST` request with a body.
    ///
    /// # Panics
    /// Panics for the same reasons as [`get`](Self::get).
    #[track_caller]
    #[must_use]
    pub fn post(target: impl Into<String>, body: impl Into<String>) -> Self {
        Self::new(Method::POST, target).body(body)
    }

    /// Creates a `PUT` request with a body.
    ///
    /// # Panics
    /// Panics for the same reasons as [`get`](Self::get).
    #[track_caller]
    #[must_use]
    pub fn put(target: impl Into<String>, body: impl Into<String>) -> Self {
        Self::new(Method::PUT, target).body(body)
    }

    /// Creates a `DELETE` request.
    ///
    /// # Panics
    /// Panics for the same reasons as [`get`](Self::get).
    #[track_caller]
    #[must_use]
    pub fn delete(target: impl Into<String>) -> Self {
        Self::new(Method::DELETE, target)
    }

    /// Creates a request with any method, without a body.
    ///
    /// # Panics
    /// Panics for the same reasons as [`get`](Self::get).
    #[track_caller]
    #[must_use]
    pub fn new(method: impl Into<Method>, target: impl Into<String>) -> Self {
        Self {
            method: method.into().to_string(),
            target: checked(target.into()),
            headers: Vec::new(),
            body: String::new(),
            statuses: Vec::new(),
            has: None,
            reads: Reads::Whole,
            then: None,
        }
    }

    /// Creates a WebSocket handshake (RFC 6455). The client then sends each of `messages`, receives
    /// one message for each, and closes the connection. A close by the service ends it earlier. The
    /// status of an upgrade is 101: with [`expect`](Self::expect) it must be named.
    ///
    /// ```
    /// # use lameduck_sim::Request;
    /// let chat = Request::websocket("/chat", ["hello", "bye"]);
    /// assert_eq!(chat.to_string(), "WebSocket /chat");
    /// ```
    ///
    /// # Panics
    /// Panics for the same reasons as [`get`](Self::get).
    #[track_caller]
    #[must_use]
    pub fn websocket(
        target: impl Into<String>,
        messages: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        let messages = messages.into_iter().map(Into::into).collect();
        let handshake = Self::get(target)
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        Self { reads: Reads::WebSocket(messages), ..handshake }
    }

    /// Creates a `GET` of server-sent events. The client reads until the service ends the stream,
    /// and expects at least `least` events before that, unless the stop comes earlier. Comments,
    /// such as keep-alives, are no events.
    ///
    /// # Panics
    /// Panics if `least` is 0, and for the same reasons as [`get`](Self::get).
    #[track_caller]
    #[must_use]
    pub fn events(target: impl Into<String>, least: u64) -> Self {
        assert!(least > 0, "a stream without an event proves nothing: expect at least one");
        let get = Self::get(target).header("accept", "text/event-stream");
        Self { reads: Reads::Events(least), ..get }
    }

    /// Creates a gRPC call over HTTP/2 (without TLS): `target` is `/package.Service/Method`, and
    /// `messages` are encoded, with prost by `encode_to_vec`: one of a unary call, several of a
    /// stream. The client sends them and reads the response to its end.
    ///
    /// The statuses of [`expect`](Self::expect) are those of gRPC. Without it a call succeeds with
    /// status 0. Statuses that say that the service is broken are failures: 2 (UNKNOWN), 12
    /// (UNIMPLEMENTED), 13 (INTERNAL) and 15 (DATA_LOSS).
    ///
    /// ```
    /// # use lameduck_sim::Request;
    /// let check = Request::grpc("/grpc.health.v1.Health/Check", [""]);
    /// let unknown = Request::grpc("/grpc.health.v1.Health/Check", ["\n\x03tea"]).expect(5);
    /// assert_eq!(check.to_string(), "gRPC /grpc.health.v1.Health/Check");
    /// ```
    ///
    /// # Panics
    /// Panics for the same reasons as [`get`](Self::get).
    #[track_caller]
    #[must_use]
    pub fn grpc<M: Into<Vec<u8>>>(
        target: impl Into<String>,
        messages: impl IntoIterator<Item = M>,
    ) -> Self {
        let messages = messages.into_iter().map(Into::into).collect();
        let call = Self::new(Method::POST, target)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        Self { reads: Reads::Grpc { messages, least: None }, ..call }
    }

    /// Creates a gRPC call whose response is a stream, as [`grpc`](Self::grpc) does. The call
    /// succeeds once at least `least` messages have arrived, even if it never ends.
    ///
    /// # Panics
    /// Panics if `least` is 0, and for the same reasons as [`get`](Self::get).
    #[track_caller]
    #[must_use]
    pub fn grpc_stream<M: Into<Vec<u8>>>(
        target: impl Into<String>,
        messages: impl IntoIterator<Item = M>,
        least: u64,
    ) -> Self {
        assert!(least > 0, "a stream without a message proves nothing: expect at least one");
        let mut call = Self::grpc(target, messages);
        if let Reads::Grpc { least: wanted, .. } = &mut call.reads {
            *wanted = Some(least);
        }
        call
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<String>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets the body to `value` as JSON, with its `Content-Type`.
    ///
    /// # Panics
    /// Panics if `value` cannot be written as JSON.
    #[track_caller]
    #[must_use]
    pub fn json(self, value: &impl Serialize) -> Self {
        let body = serde_json::to_string(value).expect("the body of a request must fit into JSON");
        self.header("content-type", "application/json").body(body)
    }

    /// Adds a header field. `Content-Length` is added for you, and `Host: localhost`, which a field
    /// `host` replaces.
    ///
    /// # Panics
    /// Panics if the name or the value is invalid.
    #[track_caller]
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        assert!(
            HeaderName::from_bytes(name.as_bytes()).is_ok()
                && HeaderValue::from_str(&value).is_ok(),
            "invalid header field {name:?}: {value:?}"
        );
        if name.eq_ignore_ascii_case("host") {
            let is_host = value.contains('{') || value.parse::<http::uri::Authority>().is_ok();
            assert!(is_host, "invalid host {value:?}: it must be a name or an address");
            self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case("host"));
        }
        self.headers.push((name, value));
        self
    }

    /// Sets the statuses that the response may have: a number, several, or a range.
    ///
    /// ```
    /// # use lameduck_sim::Request;
    /// let health = Request::get("/health").expect([200, 503]);
    /// let order = Request::delete("/orders/1").expect(200..=299);
    /// ```
    ///
    /// # Panics
    /// Panics if no status or each status is expected: that would prove nothing.
    #[track_caller]
    #[must_use]
    pub fn expect(mut self, statuses: impl Into<Statuses>) -> Self {
        self.statuses = statuses.into().0;
        let is_any = self.statuses.iter().any(|(from, to)| from <= to);
        assert!(is_any, "no status is expected: name one, as .expect(200)");
        let mut all = if self.is_grpc() { 0..=16 } else { 200..=599 };
        assert!(
            !all.all(|status| self.expects(status)),
            "each status is expected, which proves nothing: name those of a success"
        );
        self
    }

    /// Sets text that the body of the response must contain. It is compared with the first 16 KiB.
    /// A stream of [`events`](Self::events) may end before it: one stream must contain it (S6).
    ///
    /// # Panics
    /// Panics if the text is empty: each body contains that. Panics if the request is a WebSocket
    /// handshake or a gRPC call, whose messages are only counted.
    #[track_caller]
    #[must_use]
    pub fn expect_body(mut self, text: impl Into<String>) -> Self {
        assert!(
            matches!(self.reads, Reads::Whole | Reads::Events(_)),
            "{} has no text to compare: its messages are counted",
            self.name()
        );
        let text = self.has.insert(text.into());
        assert!(!text.is_empty(), "each body contains the empty text, which proves nothing");
        self
    }

    /// Adds the request that the same client sends after a response that succeeded. A second call
    /// adds a third request, and so on.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.then = Some(match self.then.take() {
            None => Box::new(next),
            Some(then) => Box::new(then.then(next)),
        });
        self
    }

    /// Returns this request and those that follow.
    pub(crate) fn steps(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |request| request.then.as_deref())
    }

    /// Whether an ordinary client can send it: it is one request with one response.
    pub(crate) fn is_single(&self) -> bool {
        self.then.is_none() && self.reads == Reads::Whole
    }

    /// Whether it changes something, by its method.
    pub(crate) fn is_write(&self) -> bool {
        matches!(self.method.as_str(), "POST" | "PUT" | "PATCH" | "DELETE")
    }

    /// Whether it has one response, which is read to its end.
    pub(crate) fn has_one_response(&self) -> bool {
        self.reads == Reads::Whole
    }

    pub(crate) const fn reads(&self) -> &Reads {
        &self.reads
    }

    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    /// Returns the name of this request alone.
    pub(crate) fn name(&self) -> String {
        let method = match self.reads {
            Reads::WebSocket(_) => "WebSocket",
            Reads::Grpc { .. } => "gRPC",
            Reads::Whole | Reads::Events(_) => &self.method,
        };
        format!("{method} {}", self.target)
    }

    /// Whether it is a gRPC call, whose statuses are those of gRPC.
    pub(crate) const fn is_grpc(&self) -> bool {
        matches!(self.reads, Reads::Grpc { .. })
    }

    /// Returns the status that is compared: of a gRPC call its own, which is 2 (UNKNOWN) if the
    /// response has none.
    pub(crate) fn status_of(&self, grpc: Option<u64>, http: u64) -> u64 {
        if self.is_grpc() { grpc.unwrap_or(2) } else { http }
    }

    /// Whether a response of the service with this status is a failure.
    pub(crate) fn refuses(&self, status: u64) -> bool {
        match (self.statuses.is_empty(), self.is_grpc()) {
            (true, false) => status >= 500,
            (true, true) => GRPC_FAILURES.contains(&status),
            (false, _) => !self.expects(status),
        }
    }

    /// Whether a response with this status is what the client wants.
    pub(crate) fn expects(&self, status: u64) -> bool {
        if self.statuses.is_empty() {
            return if self.is_grpc() { status == 0 } else { status < 400 };
        }
        self.statuses.iter().any(|(from, to)| (u64::from(*from)..=u64::from(*to)).contains(&status))
    }

    /// Whether the statuses were named.
    pub(crate) fn has_statuses(&self) -> bool {
        !self.statuses.is_empty()
    }

    /// Returns the text that the body must have and does not.
    pub(crate) fn misses<'a>(&'a self, body: &str) -> Option<&'a str> {
        self.has.as_deref().filter(|text| !body.contains(text))
    }

    /// Returns the expected statuses in words.
    pub(crate) fn expected(&self) -> String {
        if self.statuses.is_empty() {
            return if self.is_grpc() { "status 0" } else { "a status below 500" }.to_owned();
        }
        let words = self.statuses.iter().map(|(from, to)| {
            if from == to { from.to_string() } else { format!("{from} to {to}") }
        });
        words.collect::<Vec<_>>().join(" or ")
    }

    /// Returns the first value that the request takes from the previous response and that this does
    /// not have, such as `{location}`.
    pub(crate) fn missing_value(&self, previous: &Previous) -> Option<String> {
        let headers = self.headers.iter().map(|(_, value)| value.as_str());
        let texts = [self.target.as_str(), self.body.as_str()].into_iter().chain(headers);
        let names = texts.flat_map(|text| text.split('{').skip(1)).filter_map(|rest| {
            let (name, _) = rest.split_once('}')?;
            (name == "location" || name.starts_with('/')).then_some(name)
        });
        let mut missing = names.filter(|name| previous.value(name).is_none());
        missing.next().map(|name| format!("{{{name}}}"))
    }

    /// Returns the request to send, with values of the previous response.
    pub(crate) fn spec(&self, previous: Option<&Previous>) -> RequestSpec {
        let fill = |text: &str| previous.map_or_else(|| text.to_owned(), |found| found.fill(text));
        RequestSpec {
            method: self.method.parse().unwrap_or(Method::GET),
            fields: self.headers.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            body: match &self.reads {
                Reads::Grpc { messages, .. } => grpc_frame(messages),
                Reads::Whole | Reads::Events(_) | Reads::WebSocket(_) => fill(&self.body).into(),
            },
            ..RequestSpec::get(fill(&self.target))
        }
    }
}

/// Writes the method and target of the request and of those that follow it.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.steps().enumerate() {
            f.write_str(if n == 0 { "" } else { ", then " })?;
            f.write_str(&step.name())?;
        }
        Ok(())
    }
}

/// Rejects a mistyped target. The request would get a 400 or not be sent at all, and every service
/// survives that.
#[track_caller]
fn checked(target: String) -> String {
    if target.contains('{') {
        return target;
    }
    assert!(
        target.starts_with('/'),
        "invalid request target {target:?}: it must begin with a slash"
    );
    let whole =
        target.parse::<http::uri::PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == target);
    assert!(whole, "invalid request target {target:?}: it must be a path with an optional query");
    target
}

#[cfg(test)]
mod tests {
    use super::{Previous, Request};

    #[test]
    fn a_request_takes_values_from_the_response_before_it() {
        let previous = Previous {
            location: Some("/orders/7".to_owned()),
            body: r#"{"id":7,"tea":{"name":"oolong"}}"#.to_owned(),
        };
        let spec = Request::put("{location}?of={/id}", "{/tea/name} {of} {/none} {")
            .header("if-match", "{/id}")
            .spec(Some(&previous));
        assert_eq!(spec.target, "/orders/7?of=7");
        assert_eq!(spec.body, "oolong {of} {/none} {".as_bytes());
        assert_eq!(spec.fields, [("if-match".to_owned(), "7".to_owned())]);
    }

    #[test]
    fn what_is_expected_is_compared_with_the_status() {
        let any = Request::get("/");
        assert!(any.expects(302) && !any.expects(404) && !any.refuses(404) && any.refuses(500));
        let gone = Request::get("/").expect([404, 410]);
        assert!(gone.expects(410) && gone.refuses(200) && !gone.refuses(404));
        assert_eq!(Request::get("/").expect(200..=299).expected(), "200 to 299");
    }
}
