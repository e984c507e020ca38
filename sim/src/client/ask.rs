//! A request to be sent by a client.

use bytes::Bytes;
use http::Method;

/// The header field with the name of a request.
pub const NAME_FIELD: &str = "x-request";

/// The field with the status of a gRPC call.
pub(crate) const GRPC_STATUS: http::HeaderName = http::HeaderName::from_static("grpc-status");

/// The header field of a response with the name of its request.
pub const OF_FIELD: &str = "x-of";

/// What [`RequestSpec::with_key`] replaces.
const KEY: &str = "{key}";

/// A request, independent of the HTTP version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestSpec {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// Header fields in addition to `Content-Length`, and to `Host: localhost` unless it is one.
    pub fields: Vec<(String, String)>,
    /// The body; empty for none.
    pub body: Bytes,
    /// The whole request in HTTP/1, where it differs from what the other fields say.
    pub wire: Option<Bytes>,
}

impl RequestSpec {
    /// Creates `GET target`.
    #[must_use]
    pub fn get(target: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            target: target.into(),
            fields: Vec::new(),
            body: Bytes::new(),
            wire: None,
        }
    }

    /// Creates `POST target` with a body.
    #[must_use]
    pub fn post(target: impl Into<String>, body: impl Into<Bytes>) -> Self {
        Self { method: Method::POST, body: body.into(), ..Self::get(target) }
    }

    /// Adds a header field.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sends the body as one chunk in HTTP/1.
    #[must_use]
    pub(crate) fn in_one_chunk(mut self) -> Self {
        let (method, target, len) = (&self.method, &self.target, self.body.len());
        let head = format!(
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
             {len:x}\r\n"
        );
        let wire = [head.as_bytes(), &self.body, b"\r\n0\r\n\r\n"].concat();
        self.wire = Some(wire.into());
        self
    }

    /// Replaces `{key}` in the target, the header values and the body. Returns also whether there
    /// was one.
    #[must_use]
    pub(crate) fn with_key(&self, key: &str) -> (Self, bool) {
        let fill = |text: &str| text.replace(KEY, key);
        let body = String::from_utf8_lossy(&self.body);
        let keyed = Self {
            target: fill(&self.target),
            fields: self.fields.iter().map(|(name, value)| (name.clone(), fill(value))).collect(),
            body: if body.contains(KEY) { fill(&body).into() } else { self.body.clone() },
            ..self.clone()
        };
        let has_key = keyed != *self;
        (keyed, has_key)
    }

    /// Adds the name of the request, by which its handler and its response are recognised.
    #[must_use]
    pub(crate) fn named(&self, name: &str) -> Self {
        let mut named = self.clone().with(NAME_FIELD, name);
        if let Some(wire) = &self.wire
            && let Some(end) = wire.windows(2).position(|window| window == b"\r\n")
        {
            let field = format!("{NAME_FIELD}: {name}\r\n");
            named.wire =
                Some([&wire[..end + 2], field.as_bytes(), &wire[end + 2..]].concat().into());
        }
        named
    }

    /// Returns the number of header fields in HTTP/1.
    #[must_use]
    pub(crate) fn field_count(&self) -> usize {
        let Some(wire) = &self.wire else {
            return 1 + self.fields_without_host().count() + usize::from(self.has_length());
        };
        let end = wire.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(0);
        wire[..end].windows(2).filter(|window| *window == b"\r\n").count()
    }

    /// Returns the value of `Host`, which is the authority in HTTP/2.
    pub(super) fn host(&self) -> &str {
        let host = self.fields.iter().find(|(name, _)| is_host(name));
        host.map_or("localhost", |(_, value)| value)
    }

    pub(super) fn fields_without_host(&self) -> impl Iterator<Item = &(String, String)> {
        self.fields.iter().filter(|(name, _)| !is_host(name))
    }

    /// Returns the HTTP/1.1 head, including the empty line.
    #[must_use]
    pub fn head(&self) -> Vec<u8> {
        let (method, host) = (self.method.as_str(), self.host());
        let mut head = [method, " ", &self.target, " HTTP/1.1\r\nHost: ", host, "\r\n"].concat();
        for (name, value) in self.fields_without_host() {
            head.extend([name.as_str(), ": ", value, "\r\n"]);
        }
        if self.has_length() {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Whether the head has a `Content-Length`.
    fn has_length(&self) -> bool {
        !self.body.is_empty() || self.method == Method::POST
    }

    /// Returns the whole request in HTTP/1.1.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        if let Some(wire) = &self.wire {
            return wire.to_vec();
        }
        let mut bytes = self.head();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host")
}
