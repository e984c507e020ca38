//! An HTTP/1 client that distinguishes a close, a reset and an incomplete response.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use super::PATIENCE;
use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names are in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) bytes: Vec<u8>,
}

/// The end of a connection before its response is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A FIN before the first byte of a response.
    Closed,
    /// A FIN inside a response whose length requires more bytes.
    ClosedEarly,
    /// A reset.
    Reset,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn body(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Whether the response announces the close of its connection.
    pub(crate) fn says_close(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new() })
    }

    /// Sends bytes. Fails if the kernel does not take them.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends bytes. Fails if the peer takes none for this long.
    pub(crate) fn try_send_within(
        &mut self,
        bytes: &[u8],
        within: std::time::Duration,
    ) -> io::Result<()> {
        self.stream.set_write_timeout(Some(within)).unwrap();
        self.stream.write_all(bytes)
    }

    /// Shrinks the receive buffer, so that data stays at the sender.
    pub(crate) fn read_nothing(&self) {
        socket2::SockRef::from(&self.stream).set_recv_buffer_size(64 * 1024).unwrap();
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    /// Sends a GET request that keeps the connection open.
    pub(crate) fn send_get(&mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send_get(path);
        self.answer()
    }

    /// The address that the server sees as its peer.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    /// Closes the connection with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    pub(crate) fn shut_write(&self) {
        self.stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Returns the next response, which must be complete.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        match self.try_answer() {
            Ok(answer) => answer,
            Err(end) => {
                panic!("no whole answer: {end:?} after {:?}", String::from_utf8_lossy(&self.unread))
            }
        }
    }

    /// Returns the head of the next response. Its body stays unread.
    pub(crate) fn head(&mut self) -> Result<Answer, End> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Ok(parse_head(&String::from_utf8(head).unwrap()));
            }
            if self.read_more()? == 0 {
                return Err(if self.unread.is_empty() { End::Closed } else { End::ClosedEarly });
            }
        }
    }

    /// Returns the next response, or how the connection ended before it was complete.
    pub(crate) fn try_answer(&mut self) -> Result<Answer, End> {
        let mut answer = self.head()?;
        let chunked = answer.header("transfer-encoding").is_some_and(|value| value == "chunked");
        let length = answer.header("content-length").map(|value| value.parse::<usize>().unwrap());
        answer.bytes = match (chunked, length) {
            (true, _) => self.chunks()?,
            (false, Some(length)) => self.exactly(length)?,
            (false, None) => self.until_the_end()?,
        };
        Ok(answer)
    }

    /// Reads everything, and returns how the connection ended.
    pub(crate) fn end(&mut self) -> End {
        loop {
            match self.read_more() {
                Ok(0) => return End::Closed,
                Ok(_) => self.unread.clear(),
                Err(end) => return end,
            }
        }
    }

    /// Reads exactly `length` bytes, whatever they are.
    pub(crate) fn exactly(&mut self, length: usize) -> Result<Vec<u8>, End> {
        while self.unread.len() < length {
            if self.read_more()? == 0 {
                return Err(End::ClosedEarly);
            }
        }
        Ok(self.unread.drain(..length).collect())
    }

    fn until_the_end(&mut self) -> Result<Vec<u8>, End> {
        while self.read_more()? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// Reads one chunk. The last one is empty.
    pub(crate) fn chunk(&mut self) -> Result<Vec<u8>, End> {
        let line = loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                break String::from_utf8(line).unwrap();
            }
            if self.read_more()? == 0 {
                return Err(End::ClosedEarly);
            }
        };
        let length = usize::from_str_radix(line.trim(), 16).unwrap();
        let chunk = self.exactly(length)?;
        self.exactly(2)?;
        Ok(chunk)
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

    fn read_more(&mut self) -> Result<usize, End> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(read) => {
                self.unread.extend_from_slice(&buffer[..read]);
                Ok(read)
            }
            // The process was stopped and continued. The kernel does not restart a read that has a
            // timeout (`signal(7)`).
            Err(error) if error.kind() == ErrorKind::Interrupted => self.read_more(),
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
            {
                Err(End::Reset)
            }
            Err(error) => panic!("cannot read: {error}"),
        }
    }

    /// Whether nothing arrives for `span`.
    pub(crate) fn is_silent_for(&mut self, span: std::time::Duration) -> bool {
        self.stream.set_read_timeout(Some(span)).unwrap();
        let mut buffer = [0; 1024];
        let silent = match self.stream.read(&mut buffer) {
            Ok(read) => {
                self.unread.extend_from_slice(&buffer[..read]);
                false
            }
            Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}

/// Sends one request on a new connection.
#[track_caller]
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    request(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
    )
}

/// Sends any bytes on a new connection. Returns the response.
#[track_caller]
pub(crate) fn request(address: SocketAddr, bytes: &str) -> Answer {
    let mut client = Client::connect(address);
    client.send(bytes);
    client.answer()
}

/// Whether a connect is refused.
pub(crate) fn is_refused(address: SocketAddr) -> bool {
    match TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200)) {
        Ok(_) => false,
        Err(error) => error.kind() == ErrorKind::ConnectionRefused,
    }
}

fn parse_head(head: &str) -> Answer {
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    Answer { status, headers, bytes: Vec::new() }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
