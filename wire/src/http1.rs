//! HTTP/1: responses, and a client that can send anything.

use crate::{Connection, End, Track};
use std::{
    io,
    net::SocketAddr,
    ops::{Deref, DerefMut},
    time::Duration,
};

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Minor version: 0 or 1.
    pub minor: u8,
    /// Status code.
    pub status: u16,
    /// Fields, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body. It is empty if only the head was read.
    pub bytes: Vec<u8>,
}

/// How the end of a body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body: 1xx, 204 and 304.
    Empty,
    /// By this length.
    Length(usize),
    /// By the last chunk.
    Chunked,
    /// By the close of the connection.
    Close,
}

impl Response {
    /// Returns the first field with this name, which must be in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns the body as text.
    #[must_use]
    pub fn body(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Returns whether the response announces the close of its connection: by any of its fields
    /// `connection`, or as one of HTTP/1.0 without `keep-alive` (RFC 9112 §9.3).
    #[must_use]
    pub fn says_close(&self) -> bool {
        let has = |wanted: &str| {
            let is_wanted = |option: &str| option.trim().eq_ignore_ascii_case(wanted);
            self.fields("connection").any(|value| value.split(',').any(is_wanted))
        };
        has("close") || (self.minor == 0 && !has("keep-alive"))
    }

    /// Returns the values of all fields with this name, which must be in lower case.
    fn fields(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        let fields = self.headers.iter().filter(move |(known, _)| known == name);
        fields.map(|(_, value)| value.as_str())
    }

    /// Returns whether another response to the same request follows (RFC 9110 §15.2).
    const fn is_interim(&self) -> bool {
        self.status >= 100 && self.status < 200 && self.status != 101
    }

    /// Returns how the end of the body is known, or `None` if the length is not a number.
    #[must_use]
    pub fn framing(&self) -> Option<Framing> {
        if self.status < 200 || self.status == 204 || self.status == 304 {
            return Some(Framing::Empty);
        }
        let codings = self.fields("transfer-encoding").next_back();
        let coding = codings.and_then(|value| value.rsplit(',').next());
        if coding.is_some_and(|coding| coding.trim().eq_ignore_ascii_case("chunked")) {
            return Some(Framing::Chunked);
        }
        match self.header("content-length") {
            Some(length) => length.parse().ok().map(Framing::Length),
            None => Some(Framing::Close),
        }
    }
}

/// Bytes read as a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A complete response, and its length in bytes.
    Complete(Response, usize),
    /// The beginning of a response. One without a length is never complete before the close.
    Partial,
    /// No response of HTTP/1.
    Malformed,
}

/// Reads a response from the beginning of `bytes`, of which more may come. Interim responses before
/// it are skipped, and count for its length.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    read(bytes, false)
}

/// Reads a response from the beginning of `bytes`, after which the connection was closed regularly.
/// This completes a response without a length (RFC 9112 §6.3).
#[must_use]
pub fn parse_at_close(bytes: &[u8]) -> Parsed {
    read(bytes, true)
}

fn read(bytes: &[u8], is_closed: bool) -> Parsed {
    let mut begin = 0;
    let (mut response, head_end) = loop {
        let Some(length) = find(&bytes[begin..], b"\r\n\r\n") else { return Parsed::Partial };
        let end = begin + length;
        let Some(response) = parse_head(&bytes[begin..end]) else { return Parsed::Malformed };
        if !response.is_interim() {
            break (response, end);
        }
        begin = end + 4;
    };
    let body = &bytes[head_end + 4..];
    let (read, length) = match response.framing() {
        None => return Parsed::Malformed,
        Some(Framing::Close) if !is_closed => return Parsed::Partial,
        Some(Framing::Close) => (body.to_vec(), body.len()),
        Some(Framing::Empty) => (Vec::new(), 0),
        Some(Framing::Length(length)) if body.len() < length => return Parsed::Partial,
        Some(Framing::Length(length)) => (body[..length].to_vec(), length),
        Some(Framing::Chunked) => match parse_chunks(body) {
            Ok(chunks) => chunks,
            Err(failed) => return failed,
        },
    };
    response.bytes = read;
    Parsed::Complete(response, head_end + 4 + length)
}

/// Returns the decoded body and the bytes that it took.
fn parse_chunks(bytes: &[u8]) -> Result<(Vec<u8>, usize), Parsed> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = find(&bytes[at..], b"\r\n").ok_or(Parsed::Partial)?;
        let length = parse_chunk_size(&bytes[at..at + line]).ok_or(Parsed::Malformed)?;
        at += line + 2;
        if length == 0 {
            return Ok((body, at + trailer_length(&bytes[at..]).ok_or(Parsed::Partial)?));
        }
        let end = at.checked_add(length).ok_or(Parsed::Malformed)?;
        if bytes.len() < end + 2 {
            return Err(Parsed::Partial);
        }
        body.extend_from_slice(&bytes[at..end]);
        at = end + 2;
    }
}

/// Returns the length of the trailers with the empty line after them, if that has arrived.
fn trailer_length(bytes: &[u8]) -> Option<usize> {
    if bytes.starts_with(b"\r\n") { Some(2) } else { find(bytes, b"\r\n\r\n").map(|end| end + 4) }
}

fn parse_chunk_size(line: &[u8]) -> Option<usize> {
    let line = std::str::from_utf8(line).ok()?;
    usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()
}

fn parse_head(head: &[u8]) -> Option<Response> {
    // RFC 9110 §5.5: a value may have bytes that are no UTF-8.
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.strip_prefix("HTTP/1.")?.split(' ');
    let (minor, status) = (first.next()?.parse().ok()?, first.next()?.parse().ok()?);
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Response { minor, status, headers, bytes: Vec::new() })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Returns a GET request that keeps the connection open.
#[must_use]
pub fn get_bytes(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

/// An HTTP/1 client on one connection.
#[derive(Debug)]
pub struct Client(Connection);

impl Deref for Client {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

impl From<Connection> for Client {
    fn from(connection: Connection) -> Self {
        Self(connection)
    }
}

impl Client {
    /// Connects, and gives up each wait after `max_wait`.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn connect(address: SocketAddr, max_wait: Duration) -> io::Result<Self> {
        Connection::connect(address, max_wait).map(Self)
    }

    /// Connects, and records what happens on the connection.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn connect_tracked(
        address: SocketAddr,
        max_wait: Duration,
        track: Track,
    ) -> io::Result<Self> {
        Connection::connect_tracked(address, max_wait, Some(track)).map(Self)
    }

    /// Closes the connection by a reset.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn reset(self) -> io::Result<()> {
        self.0.reset()
    }

    /// Sends a GET request, and returns its final response. A request that could not be sent may
    /// have a response all the same.
    ///
    /// # Errors
    /// How the connection ended before the response was complete.
    pub fn request(&mut self, path: &str) -> Result<Response, End> {
        let _ = self.send(get_bytes(path));
        self.response()
    }

    /// Returns the head of the next response, which may be an interim one such as 100. Its body
    /// stays unread.
    ///
    /// # Errors
    /// How the connection ended before the head was complete.
    pub fn head(&mut self) -> Result<Response, End> {
        loop {
            if let Some(end) = find(self.unread(), b"\r\n\r\n") {
                let head = self.consume(end + 4);
                return parse_head(&head[..end]).ok_or(End::Malformed);
            }
            if self.read_more()? == 0 {
                return Err(if self.unread().is_empty() { End::Closed } else { End::ClosedEarly });
            }
        }
    }

    /// Returns the next final response. Interim ones before it are skipped.
    ///
    /// # Errors
    /// How the connection ended before the response was complete.
    pub fn response(&mut self) -> Result<Response, End> {
        let mut response = self.head()?;
        while response.is_interim() {
            response = self.head()?;
        }
        response.bytes = self.body(&response)?;
        Ok(response)
    }

    /// Returns the body of a response whose head was read.
    ///
    /// # Errors
    /// How the connection ended before the body was complete.
    pub fn body(&mut self, head: &Response) -> Result<Vec<u8>, End> {
        match head.framing().ok_or(End::Malformed)? {
            Framing::Empty => Ok(Vec::new()),
            Framing::Length(length) => self.exactly(length),
            Framing::Chunked => self.chunks(),
            Framing::Close => self.to_end(),
        }
    }

    /// Reads one chunk. The last one is empty; the trailers are read with it, and dropped.
    ///
    /// # Errors
    /// How the connection ended before the chunk was complete.
    pub fn chunk(&mut self) -> Result<Vec<u8>, End> {
        let length = parse_chunk_size(&self.line()?).ok_or(End::Malformed)?;
        if length == 0 {
            while !self.line()?.is_empty() {}
            return Ok(Vec::new());
        }
        let chunk = self.exactly(length)?;
        self.exactly(2)?;
        Ok(chunk)
    }

    /// Reads a line, and returns it without its end.
    fn line(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some(end) = find(self.unread(), b"\r\n") {
                let mut line = self.consume(end + 2);
                line.truncate(end);
                return Ok(line);
            }
            if self.read_more()? == 0 {
                return Err(End::ClosedEarly);
            }
        }
    }

    fn chunks(&mut self) -> Result<Vec<u8>, End> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Client, Framing, Parsed, parse, parse_at_close};
    use std::{io::Write, net::TcpListener, time::Duration};

    fn complete(bytes: &str) -> (u16, String, usize) {
        match parse(bytes.as_bytes()) {
            Parsed::Complete(response, length) => (response.status, response.body(), length),
            Parsed::Partial | Parsed::Malformed => panic!("{bytes:?}"),
        }
    }

    #[test]
    fn a_response_is_complete_with_its_last_byte() {
        let by_length = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        let chunked =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\n\r\n";
        for bytes in [by_length, chunked] {
            let next = format!("{bytes}HTTP/1.1 500 ");
            assert_eq!(complete(&next), (200, "hi".to_owned(), bytes.len()));
            for length in 0..bytes.len() {
                assert_eq!(parse(&bytes.as_bytes()[..length]), Parsed::Partial, "{length}");
            }
        }
        assert_eq!(complete("HTTP/1.1 204 No Content\r\n\r\n").2, 27);
    }

    // Servers were blamed for an early hint, for trailers, for a name in Latin-1, and for a close
    // that they had announced in a second field.
    #[test]
    fn interim_responses_trailers_and_repeated_fields_are_read() {
        let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
        let bytes = [
            &format!("{hint}HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nserver: Caf")
                .into_bytes(),
            &b"\xe9\r\nconnection: x\r\nConnection: y, Close\r\ntransfer-encoding: chunked\r\n\r\n"
                [..],
            b"2\r\nhi\r\n0\r\na: b\r\nc: d\r\n\r\n",
        ]
        .concat();
        let next = [&bytes[..], b"HTTP/1.1 204 Next\r\n\r\n"].concat();
        for length in 0..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Parsed::Partial, "{length}");
        }
        let Parsed::Complete(parsed, length) = parse(&next) else { panic!() };
        assert_eq!(length, bytes.len());

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = Client::connect(address, Duration::from_secs(5)).unwrap();
        let mut server = listener.accept().unwrap().0;
        server.write_all(&next).unwrap();
        server.write_all(hint.as_bytes()).unwrap();
        for response in [parsed, client.response().unwrap()] {
            assert_eq!((response.status, response.body().as_str()), (200, "hi"));
            assert_eq!(response.header("server"), Some("Caf\u{fffd}"));
            assert!(response.says_close());
        }
        assert_eq!(client.response().unwrap().status, 204);
        assert_eq!(client.head().unwrap().status, 103);
    }

    // A server of HTTP/1.0 was blamed for closing connections that it had not kept.
    #[test]
    fn a_response_of_http_1_0_closes_its_connection_unless_it_has_keep_alive() {
        for (head, closes) in [
            ("HTTP/1.0 204 No Content", true),
            ("HTTP/1.0 204 No Content\r\nConnection: x, Keep-Alive", false),
            ("HTTP/1.1 204 No Content", false),
        ] {
            let Some(response) = super::parse_head(head.as_bytes()) else { panic!("{head}") };
            assert_eq!(response.says_close(), closes, "{head}");
        }
    }

    #[test]
    fn what_is_no_response_is_malformed() {
        for bytes in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        ] {
            assert_eq!(parse(bytes.as_bytes()), Parsed::Malformed, "{bytes:?}");
        }
    }

    #[test]
    fn a_response_without_a_length_ends_with_its_connection() {
        let bytes = b"HTTP/1.0 200 OK\r\n\r\nhello";
        assert_eq!(parse(bytes), Parsed::Partial);
        let Parsed::Complete(response, length) = parse_at_close(bytes) else { panic!() };
        assert_eq!((response.bytes, length), (b"hello".to_vec(), bytes.len()));
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhello";
        assert_eq!((parse_at_close(cut), parse_at_close(b"HTTP/1")), {
            (Parsed::Partial, Parsed::Partial)
        });
        let Some(response) = super::parse_head(b"HTTP/1.0 200 OK") else { panic!() };
        assert_eq!(response.framing(), Some(Framing::Close));
    }
}
