//! Parser of HTTP/1 responses. It is strict, because a cut response must never look complete (RFC
//! 9112 §6, §7, §8).

use super::{OF_FIELD, events::EventCount};
use crate::trace::Fnv64;
use bytes::{Buf, BytesMut};
use http::Method;

/// Head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Whether the server closes the connection after this response: it sent `Connection: close`,
    /// or uses HTTP/1.0 without `Connection: keep-alive`.
    pub closes: bool,
    /// Hash of the name of the request that it responds to, if the response repeats it.
    pub of: Option<u64>,
    /// The time of day of its `Date`, in seconds.
    pub date: Option<u64>,
    /// Its `Content-Length`; [`u64::MAX`] if it has none and is chunked.
    pub length: Option<u64>,
    framing: Framing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// Error: the bytes are not HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Garbled;

impl Head {
    /// Removes a complete head from `buffer`, if there is one.
    pub(super) fn take(
        buffer: &mut BytesMut,
        method: &Method,
        mut on_field: impl FnMut(&str, &str),
    ) -> Result<Option<Self>, Garbled> {
        let Some(end) = find(buffer, b"\r\n\r\n") else { return Ok(None) };
        let bytes = buffer.split_to(end + 4);
        let text = std::str::from_utf8(&bytes[..end]).map_err(|_| Garbled)?;
        let mut lines = text.split("\r\n");
        let status_line = lines.next().ok_or(Garbled)?;
        let version = status_line.strip_prefix("HTTP/1.").ok_or(Garbled)?;
        let status: u16 =
            status_line.get(9..12).and_then(|code| code.parse().ok()).ok_or(Garbled)?;
        let is_http10 = version.starts_with('0');
        let (mut closes, mut keeps) = (false, !is_http10);
        let mut framing = Framing::UntilClose;
        let (mut of, mut date) = (None, None);
        for line in lines {
            let (name, value) = line.split_once(':').ok_or(Garbled)?;
            let value = value.trim();
            on_field(name, value);
            if name.eq_ignore_ascii_case(OF_FIELD) {
                of = Some(Fnv64::of(value.as_bytes()));
            } else if name.eq_ignore_ascii_case("date") {
                date = time_of_day(value);
            } else if name.eq_ignore_ascii_case("connection") {
                let has = |option: &str| {
                    value.split(',').any(|value| value.trim().eq_ignore_ascii_case(option))
                };
                closes |= has("close");
                keeps |= has("keep-alive");
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                framing = Framing::Chunked;
            } else if name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
                framing = Framing::Length(value.parse().map_err(|_| Garbled)?);
            }
        }
        let length = match framing {
            Framing::Length(length) => Some(length),
            Framing::Chunked => Some(u64::MAX),
            Framing::UntilClose => None,
        };
        // RFC 9112 §6.3: these have no body, whatever their header fields say.
        if method == Method::HEAD || status < 200 || status == 204 || status == 304 {
            framing = Framing::Length(0);
        }
        Ok(Some(Self { status, closes: closes || !keeps, of, date, length, framing }))
    }

    /// Reads the head of an HTTP/2 response.
    pub(super) fn of_http2<B>(response: &http::Response<B>) -> Self {
        let field = |name: &str| response.headers().get(name);
        Self {
            status: response.status().as_u16(),
            closes: false,
            of: field(OF_FIELD).map(|of| Fnv64::of(of.as_bytes())),
            date: field("date").and_then(|date| time_of_day(date.to_str().ok()?)),
            length: field("content-length").and_then(|length| length.to_str().ok()?.parse().ok()),
            framing: Framing::UntilClose,
        }
    }

    /// Returns the length that a head has although its status allows none (RFC 9110 §8.6). A 205
    /// may say that it is empty, and a 304 has the length of another response.
    pub(super) fn wrong_length(&self) -> Option<u64> {
        let is_wrong = |length: &u64| match self.status {
            ..200 | 204 => true,
            205 => *length > 0,
            304 => *length == 0 || *length == u64::MAX,
            _ => false,
        };
        self.length.filter(is_wrong)
    }

    /// Returns whether another head follows (RFC 9110 §15.2). None follows a 101.
    pub(super) const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Returns whether the connection can carry another request afterwards.
    pub(super) fn keeps_alive(&self) -> bool {
        !self.closes && self.status != 101 && self.framing != Framing::UntilClose
    }
}

/// Reads the seconds since midnight from a `Date` such as `Tue, 01 Jan 2030 08:49:37 GMT`.
fn time_of_day(date: &str) -> Option<u64> {
    let mut numbers = date.get(17..25)?.split(':').map(|part| part.parse::<u64>().ok());
    let [hours, minutes, seconds] = [numbers.next()??, numbers.next()??, numbers.next()??];
    Some(hours * 3_600 + minutes * 60 + seconds)
}

/// Body of a response, parsed as it arrives.
#[derive(Debug)]
pub(super) struct Body {
    state: State,
    bytes: u64,
    hash: Fnv64,
    /// The first bytes, at most as many as the client keeps.
    kept: Vec<u8>,
    keeps: usize,
    is_measured: bool,
    events: EventCount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    Done,
}

impl Body {
    pub(super) fn new(head: &Head) -> Self {
        let state = match head.framing {
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self {
            state,
            bytes: 0,
            hash: Fnv64::new(),
            kept: Vec::new(),
            keeps: 0,
            is_measured: true,
            events: EventCount::default(),
        }
    }

    /// Keeps the first `keeps` bytes. Has a hash and a number of events only if `is_measured`.
    pub(super) fn keeping(self, keeps: usize, is_measured: bool) -> Self {
        Self { keeps, is_measured, ..self }
    }

    pub(super) fn into_kept(self) -> Vec<u8> {
        self.kept
    }

    /// Returns the number of server-sent events, which a client counts that keeps bodies.
    pub(super) const fn events(&self) -> u64 {
        self.events.get()
    }

    /// Returns the number of body bytes received.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) const fn hash(&self) -> u64 {
        self.hash.value()
    }

    /// Consumes body bytes from `buffer`. Returns whether the body is complete.
    pub(super) fn take(&mut self, buffer: &mut BytesMut) -> Result<bool, Garbled> {
        loop {
            match self.state {
                State::Done | State::Length(0) => return Ok(true),
                State::Length(left) => match self.take_data(buffer, left) {
                    0 => return Ok(false),
                    taken => self.state = State::Length(left - taken),
                },
                State::UntilClose => {
                    self.take_data(buffer, u64::MAX);
                    return Ok(false);
                }
                State::ChunkSize => {
                    let Some(line) = take_line(buffer) else { return Ok(false) };
                    let size = std::str::from_utf8(&line)
                        .ok()
                        .and_then(|line| line.split(';').next())
                        .ok_or(Garbled)?;
                    self.state = match u64::from_str_radix(size.trim(), 16).map_err(|_| Garbled)? {
                        0 => State::Trailer,
                        size => State::Chunk(size),
                    };
                }
                State::Chunk(0) => self.state = State::ChunkEnd,
                State::Chunk(left) => match self.take_data(buffer, left) {
                    0 => return Ok(false),
                    taken => self.state = State::Chunk(left - taken),
                },
                State::ChunkEnd => match take_line(buffer) {
                    None => return Ok(false),
                    Some(line) if line.is_empty() => self.state = State::ChunkSize,
                    Some(_) => return Err(Garbled),
                },
                State::Trailer => match take_line(buffer) {
                    None => return Ok(false),
                    Some(line) if line.is_empty() => self.state = State::Done,
                    Some(_) => {}
                },
            }
        }
    }

    /// Returns whether the body is complete if the stream ends here.
    pub(super) fn may_end_here(&self) -> bool {
        matches!(self.state, State::UntilClose | State::Done | State::Length(0))
    }

    fn take_data(&mut self, buffer: &mut BytesMut, most: u64) -> u64 {
        let taken = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        if self.is_measured {
            self.hash.feed(&buffer[..taken]);
            if self.keeps > 0 {
                self.events.read(&buffer[..taken]);
            }
        }
        let room = self.keeps.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&buffer[..taken.min(room)]);
        buffer.advance(taken);
        self.bytes += taken as u64;
        taken as u64
    }
}

fn take_line(buffer: &mut BytesMut) -> Option<BytesMut> {
    let end = find(buffer, b"\r\n")?;
    let line = buffer.split_to(end);
    buffer.advance(2);
    Some(line)
}

fn find<const N: usize>(buffer: &[u8], what: &[u8; N]) -> Option<usize> {
    buffer.windows(N).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::{Body, Head};
    use bytes::BytesMut;
    use http::Method;

    fn read(text: &str) -> (Head, bool, bool, u64) {
        let mut buffer = BytesMut::from(text);
        let head = Head::take(&mut buffer, &Method::GET, |_, _| {}).unwrap().unwrap();
        let mut body = Body::new(&head);
        let whole = body.take(&mut buffer).unwrap();
        (head, whole, body.may_end_here(), body.bytes())
    }

    #[test]
    fn a_body_of_known_length_is_whole_at_its_length_only() {
        let (head, whole, _, bytes) = read("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
        assert!(whole && bytes == 3 && head.keeps_alive());
        let (_, whole, may_end, _) = read("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc");
        assert!(!whole && !may_end);
    }

    #[test]
    fn a_chunked_body_without_its_last_chunk_is_cut() {
        let (_, whole, _, bytes) =
            read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert!(whole && bytes == 3);
        let (_, whole, may_end, _) =
            read("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        assert!(!whole && !may_end);
    }

    #[test]
    fn connection_close_is_seen() {
        let (head, ..) =
            read("HTTP/1.1 503 Busy\r\nconnection: keep-alive, Close\r\ncontent-length: 0\r\n\r\n");
        assert!(head.closes && head.status == 503);
    }
}
