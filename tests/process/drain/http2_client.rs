//! An HTTP/2 client that sends only what the test requests and sees every frame. A library would
//! respond to each PING, open each window, and hide the GOAWAYs.

use super::help::{End, connect};
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The last stream of a GOAWAY that only warns (RFC 9113 §6.8).
pub(crate) const ANY_STREAM: u32 = (1 << 31) - 1;

// RFC 9113 §6.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The degree of cooperation of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// The client responds to PINGs and opens windows.
    Good,
    /// The client opens windows and responds to no PING.
    NoPong,
    /// The client responds to PINGs and opens no window.
    NoWindow,
    /// The client only sends requests.
    Mute,
}

/// The part of a response that has been received on a stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) status: Option<u16>,
    pub(crate) body: Vec<u8>,
    pub(crate) end: Option<StreamEnd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    Whole,
    Reset,
}

/// A GOAWAY: the last stream that is served, and the error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goaway {
    pub(crate) last: u32,
    pub(crate) code: u32,
}

#[derive(Debug)]
pub(crate) struct Http2 {
    socket: TcpStream,
    received: Vec<u8>,
    manners: Manners,
    next: u32,
    unanswered_ping: Option<Vec<u8>>,
    pub(crate) streams: BTreeMap<u32, Stream>,
    pub(crate) goaways: Vec<Goaway>,
    pub(crate) end: Option<End>,
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr, manners: Manners) -> Self {
        Self::new(connect(address).unwrap(), manners)
    }

    pub(crate) fn new(socket: TcpStream, manners: Manners) -> Self {
        let mut me = Self {
            socket,
            received: Vec::new(),
            manners,
            next: 1,
            unanswered_ping: None,
            streams: BTreeMap::new(),
            goaways: Vec::new(),
            end: None,
        };
        me.socket.write_all(PREFACE).unwrap();
        me.send(SETTINGS, 0, 0, &[]);
        me
    }

    pub(crate) fn get(&mut self, path: &str) -> u32 {
        // RFC 7541 appendix A: 2 is `:method: GET`.
        self.open(0x82, path, END_STREAM | END_HEADERS)
    }

    /// Opens the windows for whole responses, and shrinks the receive buffer of the socket.
    pub(crate) fn open_windows_wide(&mut self) {
        socket2::SockRef::from(&self.socket).set_recv_buffer_size(64 * 1024).unwrap();
        let room = (1_u32 << 24).to_be_bytes();
        // RFC 9113 §6.5.2: SETTINGS_INITIAL_WINDOW_SIZE is 4.
        self.send(SETTINGS, 0, 0, &[&[0, 4], &room[..]].concat());
        self.send(WINDOW_UPDATE, 0, 0, &room);
    }

    /// Reads the first frame of the server.
    pub(crate) fn read_greeting(&mut self) {
        self.read_frame();
    }

    /// Opens a stream whose body follows.
    pub(crate) fn post(&mut self, path: &str) -> u32 {
        self.open(0x83, path, END_HEADERS)
    }

    pub(crate) fn send_data(&mut self, id: u32, data: &[u8], last: bool) {
        self.send(DATA, if last { END_STREAM } else { 0 }, id, data);
    }

    /// Responds to the PING that was left without a response.
    pub(crate) fn pong_at_last(&mut self) {
        let ping = self.unanswered_ping.take().unwrap();
        self.manners = Manners::Good;
        self.send(PING, ACK, 0, &ping);
    }

    /// Reads frames until `then` holds or the connection ends.
    pub(crate) fn read_until(&mut self, then: impl Fn(&Self) -> bool) {
        while self.end.is_none() && !then(self) {
            self.read_frame();
        }
    }

    /// Reads until the stream has ended, and returns what was received.
    pub(crate) fn read_stream(&mut self, id: u32) -> &Stream {
        self.read_until(|me| me.streams[&id].end.is_some());
        &self.streams[&id]
    }

    pub(crate) fn read_to_the_end(&mut self) {
        self.read_until(|_| false);
    }

    fn open(&mut self, method: u8, path: &str, flags: u8) -> u32 {
        let id = self.next;
        self.next += 2;
        // `:scheme: http` is 6; `:path` is 4 and `:authority` 1, both as literals without indexing.
        let mut block = vec![method, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
        block.extend_from_slice(path.as_bytes());
        block.extend_from_slice(b"\x01\x04test");
        self.streams.insert(id, Stream::default());
        self.send(HEADERS, flags, id, &block);
        id
    }

    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        // Fails if the server has closed. The next read reports that, after everything that the
        // server sent before.
        let _ = self.socket.write_all(&frame);
    }

    /// Reads `count` bytes. Returns `None` at the end of the connection.
    fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        let mut buffer = [0; 64 * 1024];
        while self.received.len() < count {
            match self.socket.read(&mut buffer) {
                Ok(0) => self.end = Some(End::Closed),
                Ok(read) => self.received.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.end = Some(End::Reset);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}: {self:?}"),
            }
            if self.end.is_some() {
                return None;
            }
        }
        let rest = self.received.split_off(count);
        Some(std::mem::replace(&mut self.received, rest))
    }

    fn read_frame(&mut self) {
        let Some(head) = self.take(9) else { return };
        let number =
            |bytes: &[u8]| bytes.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        let (kind, flags, id) = (head[3], head[4], number(&head[5..]) & ANY_STREAM);
        let Some(payload) = self.take(number(&head[..3]) as usize) else { return };
        match kind {
            HEADERS => self.stream(id).status = Some(status(&payload)),
            DATA => {
                self.stream(id).body.extend_from_slice(&payload);
                if matches!(self.manners, Manners::Good | Manners::NoPong) && !payload.is_empty() {
                    let credit = u32::try_from(payload.len()).unwrap().to_be_bytes();
                    self.send(WINDOW_UPDATE, 0, 0, &credit);
                    self.send(WINDOW_UPDATE, 0, id, &credit);
                }
            }
            RST_STREAM => self.stream(id).end = Some(StreamEnd::Reset),
            SETTINGS if flags & ACK == 0 && self.manners != Manners::Mute => {
                self.send(SETTINGS, ACK, 0, &[]);
            }
            PING if flags & ACK == 0 && matches!(self.manners, Manners::NoPong | Manners::Mute) => {
                self.unanswered_ping = Some(payload);
            }
            PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload),
            GOAWAY => {
                self.goaways.push(Goaway {
                    last: number(&payload[..4]) & ANY_STREAM,
                    code: number(&payload[4..8]),
                });
            }
            _ => {}
        }
        if matches!(kind, HEADERS | DATA) && flags & END_STREAM != 0 {
            self.stream(id).end = Some(StreamEnd::Whole);
        }
    }

    fn stream(&mut self, id: u32) -> &mut Stream {
        self.streams.get_mut(&id).expect("a stream that we opened")
    }
}

/// Decodes the status of a header block. It comes first (RFC 9113 §8.3), so a few forms of HPACK
/// are enough.
fn status(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        // A literal value for the name of entry 8, plain or in Huffman code.
        [0x08 | 0x18 | 0x48, 0x03, b'5', b'0', b'3', ..]
        | [0x08 | 0x18 | 0x48, 0x83, 0x6c, 0x0c, 0xff, ..] => 503,
        _ => panic!("a status that this client does not know: {block:x?}"),
    }
}
