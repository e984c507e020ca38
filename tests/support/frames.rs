//! An HTTP/2 client that distinguishes GOAWAY, RST_STREAM and the end of a stream (RFC 9113).

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use super::PATIENCE;
use std::{
    fmt,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One frame.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
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
    pub(crate) fn ends_stream(&self) -> bool {
        (self.kind == DATA || self.kind == HEADERS) && self.flags & END_STREAM != 0
    }

    /// Returns the last stream id of a GOAWAY.
    pub(crate) fn last_stream(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().unwrap()) & 0x7fff_ffff
    }
}

/// Encodes a frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// One connection. It acknowledges SETTINGS and PING frames, as a client must.
#[derive(Debug)]
pub(crate) struct Http2 {
    stream: TcpStream,
    next_stream: u32,
    /// All frames received, in order.
    pub(crate) seen: Vec<Frame>,
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut me = Self { stream, next_stream: 1, seen: Vec::new() };
        me.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        me.send(SETTINGS, 0, 0, &[]);
        me
    }

    /// Sends a GET request. Returns the id of its stream.
    pub(crate) fn get(&mut self, path: &str) -> u32 {
        self.ask(&[0x82], "localhost", path)
    }

    /// Sends a GET request with this `:authority`.
    pub(crate) fn get_from(&mut self, authority: &str, path: &str) -> u32 {
        self.ask(&[0x82], authority, path)
    }

    /// Sends a HEAD request.
    pub(crate) fn ask_head(&mut self, path: &str) -> u32 {
        self.ask(b"\x02\x04HEAD", "localhost", path)
    }

    fn ask(&mut self, method: &[u8], authority: &str, path: &str) -> u32 {
        let stream = self.take_stream();
        // RFC 7541: `:method: GET` and `:scheme: http` by their indexes, `:path` and `:authority`
        // as literals without indexing.
        let mut block = method.to_vec();
        block.extend_from_slice(&[0x86, 0x04, u8::try_from(path.len()).unwrap()]);
        block.extend_from_slice(path.as_bytes());
        block.extend_from_slice(&[0x01, u8::try_from(authority.len()).unwrap()]);
        block.extend_from_slice(authority.as_bytes());
        self.send(HEADERS, END_STREAM | END_HEADERS, stream, &block);
        stream
    }

    /// Grants windows of 1 GiB and shrinks the receive buffer, so that data stays at the sender.
    pub(crate) fn read_nothing(&mut self) {
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(64 * 1024).unwrap();
        let window = (1_u32 << 30).to_be_bytes();
        // RFC 9113 §6.5.2: SETTINGS_INITIAL_WINDOW_SIZE is 4.
        self.send(SETTINGS, 0, 0, &[&[0, 4], &window[..]].concat());
        self.send(WINDOW_UPDATE, 0, 0, &window);
    }

    /// Enlarges the receive buffer again.
    pub(crate) fn read_again(&self) {
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(1 << 20).unwrap();
    }

    /// Returns the id of the next stream and reserves it.
    pub(crate) const fn take_stream(&mut self) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 2;
        stream
    }

    /// Sends bytes. Fails if the peer takes none for this long.
    pub(crate) fn try_send(
        &mut self,
        bytes: &[u8],
        within: std::time::Duration,
    ) -> std::io::Result<()> {
        self.stream.set_write_timeout(Some(within)).unwrap();
        self.stream.write_all(bytes)
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.stream.write_all(&frame(kind, flags, stream, payload)).unwrap();
    }

    /// Sends a PING. The peer may be gone.
    pub(crate) fn ping(&mut self) {
        let _ = self.stream.write_all(&[
            0, 0, 8, PING, 0, 0, 0, 0, 0, b's', b't', b'i', b'l', b'l', b' ', b'u', b'p',
        ]);
    }

    /// Returns the next frame, or `None` at the end of the connection.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        if !self.read(&mut header) {
            return None;
        }
        let length =
            usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let mut payload = vec![0; length];
        if !self.read(&mut payload) {
            return None;
        }
        let stream = u32::from_be_bytes(header[5..].try_into().unwrap()) & 0x7fff_ffff;
        let frame = Frame { kind: header[3], flags: header[4], stream, payload };
        if frame.flags & ACK == 0 {
            // The peer may have closed already.
            match frame.kind {
                SETTINGS => self.send_if_open(SETTINGS, &[]),
                PING => self.send_if_open(PING, &frame.payload),
                _ => {}
            }
        }
        self.seen.push(frame.clone());
        Some(frame)
    }

    /// Reads until a frame matches, or panics with all received frames.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, is_it: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(frame) = self.seen.iter().find(|frame| is_it(frame)) {
            return frame.clone();
        }
        loop {
            match self.next() {
                Some(frame) if is_it(&frame) => return frame,
                Some(_) => {}
                None => panic!("the connection ended before {what}: {:?}", self.seen),
            }
        }
    }

    /// Returns the whole body of a stream, which must end with END_STREAM.
    #[track_caller]
    pub(crate) fn body(&mut self, stream: u32) -> String {
        self.wait_for("the end of a stream", |frame| frame.stream == stream && frame.ends_stream());
        let data = self.seen.iter().filter(|frame| frame.stream == stream && frame.kind == DATA);
        data.map(|frame| String::from_utf8_lossy(&frame.payload).into_owned()).collect()
    }

    pub(crate) fn read_to_end(&mut self) {
        while self.next().is_some() {}
    }

    fn send_if_open(&mut self, kind: u8, payload: &[u8]) {
        let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![a, b, c, kind, ACK, 0, 0, 0, 0];
        bytes.extend_from_slice(payload);
        let _ = self.stream.write_all(&bytes);
    }

    fn read(&mut self, buffer: &mut [u8]) -> bool {
        match self.stream.read_exact(buffer) {
            Ok(()) => true,
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
                ) =>
            {
                false
            }
            Err(error) => panic!("cannot read a frame: {error}"),
        }
    }
}
