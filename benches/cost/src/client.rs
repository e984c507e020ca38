//! A connection that carries a load.

use crate::load::{Load, Request};
use lameduck_wire::http2::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, WINDOW_UPDATE, frame,
    request_block,
};
use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Longest wait for a response.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Client {
    stream: TcpStream,
    at_once: usize,
    protocol: Protocol,
    /// What was read and belongs to the next response.
    unread: Vec<u8>,
}

enum Protocol {
    Http1 {
        requests: Vec<u8>,
    },
    Http2 {
        block: Vec<u8>,
        next_stream: u32,
        /// Bytes of bodies that the server was not given back yet.
        window_used: u32,
    },
}

impl Client {
    pub(crate) fn connect(address: SocketAddr, load: &Load) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let protocol = match load.request {
            Request::Http1(request) => {
                Protocol::Http1 { requests: request.repeat(load.at_once).into_bytes() }
            }
            Request::Http2(path) => {
                stream.write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())?;
                let block = request_block("GET", "bench", path);
                Protocol::Http2 { block, next_stream: 1, window_used: 0 }
            }
        };
        Ok(Self { stream, at_once: load.at_once, protocol, unread: Vec::new() })
    }

    /// Sends the requests of a round, in one write.
    pub(crate) fn send(&mut self) -> io::Result<()> {
        let Protocol::Http2 { block, next_stream, window_used } = &mut self.protocol else {
            return self.send_http1();
        };
        let mut bytes = Vec::new();
        if *window_used > 0 {
            bytes = frame(WINDOW_UPDATE, 0, 0, &window_used.to_be_bytes());
            *window_used = 0;
        }
        for _ in 0..self.at_once {
            bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, *next_stream, block));
            *next_stream += 2;
        }
        self.stream.write_all(&bytes)
    }

    fn send_http1(&mut self) -> io::Result<()> {
        match &self.protocol {
            Protocol::Http1 { requests } => self.stream.write_all(requests),
            Protocol::Http2 { .. } => Ok(()),
        }
    }

    /// Reads the responses of a round.
    pub(crate) fn receive(&mut self) -> io::Result<()> {
        for _ in 0..self.at_once {
            match self.protocol {
                Protocol::Http1 { .. } => self.receive_http1()?,
                Protocol::Http2 { .. } => self.receive_http2()?,
            }
        }
        Ok(())
    }

    fn receive_http1(&mut self) -> io::Result<()> {
        loop {
            if let Some(end) = response_end(&self.unread)?.filter(|end| self.unread.len() >= *end) {
                drop(self.unread.drain(..end));
                return Ok(());
            }
            self.read()?;
        }
    }

    /// Reads frames until a stream ends.
    fn receive_http2(&mut self) -> io::Result<()> {
        loop {
            while self.unread.len() < 9 {
                self.read()?;
            }
            let [a, b, c, kind, flags] = self.unread[..5] else { return Err(malformed()) };
            let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            while self.unread.len() < 9 + length {
                self.read()?;
            }
            drop(self.unread.drain(..9 + length));
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    self.stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?;
                }
                DATA => {
                    if let Protocol::Http2 { window_used, .. } = &mut self.protocol {
                        *window_used += u32::try_from(length).unwrap_or(0);
                    }
                }
                _ => {}
            }
            if flags & END_STREAM != 0 && (kind == DATA || kind == HEADERS) {
                return Ok(());
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                self.unread.extend_from_slice(&buffer[..read]);
                Ok(())
            }
        }
    }
}

/// Returns the length of the first response, once its head is complete.
fn response_end(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..head]).map_err(|_| malformed())?;
    if !text.starts_with("HTTP/1.1 200 ") {
        return Err(malformed());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.and_then(|length| length.parse().ok()).ok_or_else(malformed)?;
    Ok(Some(head + 4 + length))
}

fn malformed() -> io::Error {
    io::ErrorKind::InvalidData.into()
}
