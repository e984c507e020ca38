//! HTTP/2: frames, and a client that distinguishes GOAWAY, RST_STREAM and the end of a stream (RFC
//! 9113).

use crate::{Connection, End, Track};
use std::{fmt, io, net::SocketAddr, time::Duration};

/// Frame type DATA.
pub const DATA: u8 = 0;
/// Frame type HEADERS.
pub const HEADERS: u8 = 1;
/// Frame type RST_STREAM.
pub const RST_STREAM: u8 = 3;
/// Frame type SETTINGS.
pub const SETTINGS: u8 = 4;
/// Frame type PING.
pub const PING: u8 = 6;
/// Frame type GOAWAY.
pub const GOAWAY: u8 = 7;
/// Frame type WINDOW_UPDATE.
pub const WINDOW_UPDATE: u8 = 8;
/// Frame type CONTINUATION.
pub const CONTINUATION: u8 = 9;

/// Error code of a request that was not processed (RFC 9113 §8.7).
pub const REFUSED_STREAM: u32 = 7;

/// Flag of DATA and HEADERS: the last frame of the stream.
pub const END_STREAM: u8 = 1;
/// Flag of SETTINGS and PING.
pub const ACK: u8 = 1;
/// Flag of HEADERS and CONTINUATION: the last frame of the block.
pub const END_HEADERS: u8 = 4;

/// What a client sends first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// Type.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream id, 0 for the connection.
    pub stream: u32,
    /// Payload.
    pub payload: Vec<u8>,
}

/// Prints only the length of a long payload, to keep a failure readable.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, flags, stream, payload } = self;
        write!(f, "kind {kind} flags {flags} stream {stream} ")?;
        if payload.len() > 64 {
            write!(f, "{} bytes", payload.len())
        } else {
            write!(f, "{payload:?}")
        }
    }
}

impl Frame {
    /// Returns whether this is the last frame of its stream.
    #[must_use]
    pub const fn ends_stream(&self) -> bool {
        (self.kind == DATA || self.kind == HEADERS) && self.flags & END_STREAM != 0
    }

    /// Returns the last stream id of a GOAWAY, or 0 if the payload is too short.
    #[must_use]
    pub fn last_stream(&self) -> u32 {
        self.number(0) & 0x7fff_ffff
    }

    /// Returns the error code of an RST_STREAM, or 0 if the payload is too short.
    #[must_use]
    pub fn error_code(&self) -> u32 {
        self.number(0)
    }

    fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_be_bytes)
    }

    /// Returns the status in the header block of a response, if it is at the beginning, where RFC
    /// 9113 §8.3 puts it.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        const PADDED: u8 = 0x8;
        const PRIORITY: u8 = 0x20;
        let mut block = self.payload.as_slice();
        if self.flags & PADDED != 0 {
            block = block.get(1..)?;
        }
        if self.flags & PRIORITY != 0 {
            block = block.get(5..)?;
        }
        status(block)
    }
}

/// Decodes the first field of a header block (RFC 7541) if it is `:status`.
fn status(mut block: &[u8]) -> Option<u16> {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // Updates of the size of the dynamic table may come first.
    while block.first()? & 0xe0 == 0x20 {
        let is_long = block[0] & 0x1f == 0x1f;
        let rest = block.get(1..)?;
        let length = if is_long { rest.iter().position(|byte| byte & 0x80 == 0)? + 1 } else { 0 };
        block = rest.get(length..)?;
    }
    let (first, rest) = block.split_first()?;
    if let Some(index) = first.checked_sub(0x88).filter(|index| *index < 7) {
        return Some(INDEXED[usize::from(index)]);
    }
    // A literal whose name is one of the indexes 8 to 14.
    let name = if first & 0xc0 == 0x40 { first & 0x3f } else { first & 0x0f };
    if !(8..15).contains(&name) || first & 0x80 != 0 {
        return None;
    }
    let (length, value) = rest.split_first()?;
    let value = value.get(..usize::from(length & 0x7f))?;
    if length & 0x80 == 0 {
        return std::str::from_utf8(value).ok()?.parse().ok();
    }
    huffman_number(value)
}

/// Decodes three digits: 0, 1 and 2 have five bits, the others six.
fn huffman_number(bytes: &[u8]) -> Option<u16> {
    let bits = bytes.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut left = 8 * bytes.len();
    let mut take = |count: usize| {
        left = left.checked_sub(count)?;
        Some(u16::try_from(bits >> left & ((1 << count) - 1)).unwrap_or(0))
    };
    let mut number = 0;
    for _ in 0..3 {
        let five = take(5)?;
        let digit = match five {
            0..=2 => five,
            _ => (five << 1 | take(1)?).checked_sub(0b01_1001)? + 3,
        };
        number = 10 * number + Some(digit).filter(|digit| *digit < 10)?;
    }
    Some(number)
}

/// Bytes of a frame before its payload.
const FRAME_HEADER: usize = 9;

/// Returns the length of the frame at the beginning of these bytes, with its header.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(..FRAME_HEADER)?;
    let length =
        usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
    Some(FRAME_HEADER + length)
}

/// Encodes a frame. A payload of 16 MiB or more does not fit, and its length is truncated.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Encodes the header block of a request without a body: the method, then `:scheme`, `:path` and
/// `:authority`.
#[must_use]
pub fn request_block(method: &str, authority: &str, path: &str) -> Vec<u8> {
    // RFC 7541: `:method: GET` and `:scheme: http` by their indexes, the others as literals
    // without indexing.
    let mut block = Vec::new();
    let mut literal = |name: u8, value: &str| {
        block.push(name);
        // Lengths of 127 and more continue in further bytes.
        let mut length = value.len();
        if length < 127 {
            block.push(u8::try_from(length).unwrap_or(0));
        } else {
            block.push(127);
            length -= 127;
            while length >= 128 {
                block.push(u8::try_from(length % 128).unwrap_or(0) | 0x80);
                length /= 128;
            }
            block.push(u8::try_from(length).unwrap_or(0));
        }
        block.extend_from_slice(value.as_bytes());
    };
    literal(0x02, method);
    literal(0x06, "http");
    literal(0x04, path);
    literal(0x01, authority);
    block
}

/// An HTTP/2 client on one connection. It acknowledges SETTINGS and PING frames, as a client must.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    next_stream: u32,
    /// All frames received, in order.
    pub seen: Vec<Frame>,
}

impl Client {
    /// Connects, and sends the preface with empty SETTINGS.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn connect(address: SocketAddr, max_wait: Duration) -> io::Result<Self> {
        Self::on(Connection::connect(address, max_wait)?)
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
        Self::on(Connection::connect_tracked(address, max_wait, Some(track))?)
    }

    fn on(connection: Connection) -> io::Result<Self> {
        let mut client = Self { connection, next_stream: 1, seen: Vec::new() };
        client.connection.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())?;
        Ok(client)
    }

    /// Returns the connection below.
    pub const fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Sends a request without a body. Returns the id of its stream.
    ///
    /// # Errors
    /// If the kernel does not take the bytes.
    pub fn request(&mut self, method: &str, authority: &str, path: &str) -> io::Result<u32> {
        let stream = self.take_stream();
        let block = request_block(method, authority, path);
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block)?;
        Ok(stream)
    }

    /// Grants windows of 1 GiB and shrinks the receive buffer, so that data stays at the sender.
    ///
    /// # Errors
    /// If the kernel does not take the bytes.
    pub fn read_nothing(&mut self) -> io::Result<()> {
        self.connection.set_receive_buffer(64 * 1024)?;
        self.open_windows(&[])
    }

    /// Grants windows of 1 GiB, so that no response waits for this client, and forbids the dynamic
    /// table of HPACK, so that every status can be read.
    ///
    /// # Errors
    /// If the kernel does not take the bytes.
    pub fn read_everything(&mut self) -> io::Result<()> {
        // RFC 9113 §6.5.2: SETTINGS_HEADER_TABLE_SIZE is 1.
        self.open_windows(&[0, 1, 0, 0, 0, 0])
    }

    /// Sends these settings, and windows of 1 GiB for the connection and each stream.
    fn open_windows(&mut self, settings: &[u8]) -> io::Result<()> {
        let window = (1_u32 << 30).to_be_bytes();
        // RFC 9113 §6.5.2: SETTINGS_INITIAL_WINDOW_SIZE is 4.
        self.send(SETTINGS, 0, 0, &[settings, &[0, 4], &window].concat())?;
        self.send(WINDOW_UPDATE, 0, 0, &window)
    }

    /// Returns the id of the next stream and reserves it.
    pub const fn take_stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// If the kernel does not take the bytes.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        self.connection.send(frame(kind, flags, stream, payload))
    }

    /// Returns the next frame. Part of a frame stays unread.
    ///
    /// # Errors
    /// How the connection ended before: [`End::Closed`] between two frames, [`End::ClosedEarly`]
    /// inside one.
    pub fn next_frame(&mut self) -> Result<Frame, End> {
        let length = loop {
            let unread = self.connection.unread();
            if let Some(length) = frame_length(unread).filter(|length| unread.len() >= *length) {
                break length;
            }
            if self.connection.read_more()? == 0 {
                let is_between = self.connection.unread().is_empty();
                return Err(if is_between { End::Closed } else { End::ClosedEarly });
            }
        };
        let mut header = self.connection.consume(length);
        let payload = header.split_off(FRAME_HEADER);
        let stream = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) & 0x7fff_ffff;
        let frame = Frame { kind: header[3], flags: header[4], stream, payload };
        if frame.flags & ACK == 0 {
            // The peer may have closed already.
            let _ = match frame.kind {
                SETTINGS => self.send(SETTINGS, ACK, 0, &[]),
                PING => self.send(PING, ACK, 0, &frame.payload),
                _ => Ok(()),
            };
        }
        self.seen.push(frame.clone());
        Ok(frame)
    }

    /// Returns the first frame that matches, of those received already or of those to come.
    ///
    /// # Errors
    /// How the connection ended before.
    pub fn find(&mut self, matches: impl Fn(&Frame) -> bool) -> Result<Frame, End> {
        if let Some(frame) = self.seen.iter().find(|frame| matches(frame)) {
            return Ok(frame.clone());
        }
        loop {
            let frame = self.next_frame()?;
            if matches(&frame) {
                return Ok(frame);
            }
        }
    }

    /// Returns the status of the response on a stream, or `None` if none was received that can be
    /// read. Interim responses (1xx) are skipped.
    #[must_use]
    pub fn status(&self, stream: u32) -> Option<u16> {
        let is_head = |frame: &&Frame| frame.stream == stream && frame.kind == HEADERS;
        let mut statuses = self.seen.iter().filter(is_head).map(Frame::status);
        statuses.find(|status| !matches!(status, Some(100..200)))?
    }

    /// Returns the data received on a stream until now.
    #[must_use]
    pub fn data(&self, stream: u32) -> Vec<u8> {
        let frames = self.seen.iter().filter(|frame| frame.stream == stream && frame.kind == DATA);
        frames.flat_map(|frame| frame.payload.iter().copied()).collect()
    }

    /// Reads until the end of the connection, and returns it.
    pub fn end(&mut self) -> End {
        loop {
            if let Err(end) = self.next_frame() {
                return end;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        ACK, Client, DATA, END_HEADERS, End, Frame, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE,
        frame, request_block, status,
    };
    use std::{
        io::{Read, Write},
        net::{Shutdown, TcpListener, TcpStream},
        time::Duration,
    };

    /// Returns a client that waits for this long, and the server's end of its connection.
    fn connect(max_wait: Duration) -> (Client, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Client::connect(listener.local_addr().unwrap(), max_wait).unwrap();
        (client, listener.accept().unwrap().0)
    }

    // A server whose frame arrived in two parts, with a pause in between, seemed to send garbage:
    // the header was consumed although the wait for the payload had ended.
    #[test]
    fn part_of_a_frame_stays_unread() {
        let (mut client, mut server) = connect(Duration::from_millis(20));
        let bytes = frame(DATA, 0, 1, b"hello");
        for part in [&bytes[..4], &bytes[4..12]] {
            server.write_all(part).unwrap();
            assert_eq!(client.next_frame(), Err(End::Silent));
        }
        server.write_all(&bytes[12..]).unwrap();
        assert_eq!(client.next_frame().map(|frame| frame.payload), Ok(b"hello".to_vec()));
        server.write_all(&bytes[..12]).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.next_frame(), Err(End::ClosedEarly));
    }

    // A server was blamed for a response that waited for the window of the client, after 65,535
    // bytes on its connection.
    #[test]
    fn a_client_that_reads_everything_opens_its_windows_and_has_no_table() {
        let (mut client, mut server) = connect(Duration::from_secs(2));
        client.read_everything().unwrap();
        let settings = [0, 1, 0, 0, 0, 0, 0, 4, 0x40, 0, 0, 0];
        let expected = [
            PREFACE,
            &frame(SETTINGS, 0, 0, &[]),
            &frame(SETTINGS, 0, 0, &settings),
            &frame(WINDOW_UPDATE, 0, 0, &[0x40, 0, 0, 0]),
        ];
        let mut sent = vec![0; expected.concat().len()];
        server.read_exact(&mut sent).unwrap();
        assert_eq!(sent, expected.concat());
    }

    #[test]
    fn the_status_of_a_stream_is_its_final_one() {
        let (mut client, mut server) = connect(Duration::from_secs(2));
        for (stream, block) in [(1, &b"\x08\x03103"[..]), (1, &[0x88]), (3, &[0xbe]), (3, &[0x88])]
        {
            server.write_all(&frame(HEADERS, END_HEADERS, stream, block)).unwrap();
        }
        server.write_all(&frame(SETTINGS, ACK, 0, &[])).unwrap();
        client.find(|frame| frame.kind == SETTINGS).unwrap();
        assert_eq!((client.status(1), client.status(3), client.status(5)), (Some(200), None, None));
    }

    #[test]
    fn a_status_is_read_in_each_encoding() {
        assert_eq!(status(&[0x88, 0x61]), Some(200));
        assert_eq!(status(&[0x3f, 0xe1, 0x1f, 0x8d]), Some(404));
        assert_eq!(status(b"\x08\x03503"), Some(503));
        assert_eq!(status(b"\x48\x03301"), Some(301));
        // RFC 7541 §C.6: 302 and 307 by Huffman.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), Some(302));
        assert_eq!(status(&[0x48, 0x83, 0x64, 0x0e, 0xff]), Some(307));
        assert_eq!(status(&[0x82]), None);
        assert_eq!(status(&[]), None);
    }

    #[test]
    fn padding_and_priority_are_skipped() {
        let payload = vec![0, 0, 0, 0, 0, 16, 0x88];
        let frame = Frame { kind: HEADERS, flags: END_HEADERS | 0x28, stream: 1, payload };
        assert_eq!(frame.status(), Some(200));
    }

    #[test]
    fn a_long_path_has_its_length_in_more_bytes() {
        // RFC 7541 §5.1: 127, then 300 - 127 = 173 = 45 + 1 · 128.
        let block = request_block("GET", "a", &"x".repeat(300));
        assert!(block.windows(4).any(|bytes| bytes == [0x04, 127, 45 | 0x80, 1]), "{block:?}");
    }
}
