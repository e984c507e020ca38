//! A TCP connection that reports how it ends.

use crate::recorder::{Event, Excerpt, Track};
use socket2::SockRef;
use std::{
    fmt,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// Why no further byte, or no complete response, was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// A FIN before the first byte of a response.
    Closed,
    /// A FIN inside a response whose length requires more bytes.
    ClosedEarly,
    /// A reset.
    Reset,
    /// Nothing arrived within the longest wait, or the deadline is over. The connection is still
    /// open.
    Silent,
    /// The bytes are not HTTP.
    Malformed,
    /// Another error of the system.
    Failed(ErrorKind),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed without a byte of a response"),
            Self::ClosedEarly => f.write_str("closed inside the response"),
            Self::Reset => f.write_str("reset"),
            Self::Silent => f.write_str("open, but nothing arrived in time"),
            Self::Malformed => f.write_str("the bytes are not HTTP"),
            Self::Failed(kind) => write!(f, "failed: {kind}"),
        }
    }
}

/// How long after the deadline what has arrived can be read.
const AFTER_DEADLINE: Duration = Duration::from_secs(1);

/// One connection. Bytes that were received and not consumed yet are kept.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    max_wait: Duration,
    deadline: Option<Instant>,
    track: Option<Track>,
}

impl Connection {
    /// Connects, and gives up each wait after `max_wait`.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn connect(address: SocketAddr, max_wait: Duration) -> io::Result<Self> {
        Self::connect_tracked(address, max_wait, None)
    }

    /// Connects, and records what happens on the connection.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn connect_tracked(
        address: SocketAddr,
        max_wait: Duration,
        track: Option<Track>,
    ) -> io::Result<Self> {
        let record = |event| track.iter().for_each(|track| track.record(Event::clone(&event)));
        record(Event::Connecting);
        let stream = TcpStream::connect_timeout(&address, max_wait)
            .inspect_err(|error| record(Event::ConnectFailed(error.kind())))?;
        record(Event::Connected);
        stream.set_write_timeout(Some(max_wait))?;
        stream.set_read_timeout(Some(max_wait))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, unread: Vec::new(), max_wait, deadline: None, track })
    }

    /// Sets the longest wait for the next bytes.
    pub const fn set_max_wait(&mut self, max_wait: Duration) {
        self.max_wait = max_wait;
    }

    /// Sets the time after which no read waits. It bounds a peer that sends a byte now and then.
    /// What has arrived by then can be read for another second, which bounds one that never stops.
    pub const fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
    }

    /// Returns the socket.
    #[must_use]
    pub const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Returns the address that the server sees as its peer.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// If the kernel does not take them all in time.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let bytes = bytes.as_ref();
        self.record(|| Event::Sent(Excerpt::of(bytes)));
        self.stream.write_all(bytes)
    }

    /// Sends bytes. Gives up if the peer takes none for this long.
    ///
    /// # Errors
    /// If the kernel does not take them all in time.
    pub fn send_within(&mut self, bytes: &[u8], within: Duration) -> io::Result<()> {
        self.stream.set_write_timeout(Some(within))?;
        self.send(bytes)
    }

    /// Sends a FIN, and keeps reading.
    ///
    /// # Errors
    /// If the connection is closed already.
    pub fn shut_write(&self) -> io::Result<()> {
        self.record(|| Event::ShutWrite);
        self.stream.shutdown(Shutdown::Write)
    }

    /// Closes the connection by a reset.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn reset(self) -> io::Result<()> {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO))
    }

    /// Sets the size of the kernel's receive buffer. A small one keeps data at the sender.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        SockRef::from(&self.stream).set_recv_buffer_size(bytes)
    }

    /// Returns the bytes that were received and not consumed.
    #[must_use]
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Takes all bytes that were received and not consumed.
    pub fn take_unread(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.unread)
    }

    /// Consumes the first `length` unread bytes, or fewer if there are fewer.
    pub fn consume(&mut self, length: usize) -> Vec<u8> {
        let rest = self.unread.split_off(length.min(self.unread.len()));
        std::mem::replace(&mut self.unread, rest)
    }

    /// Reads once. Returns the number of new bytes, or 0 after a FIN.
    ///
    /// # Errors
    /// [`End::Reset`], [`End::Silent`] or [`End::Failed`].
    pub fn read_more(&mut self) -> Result<usize, End> {
        let now = Instant::now();
        if self.deadline.is_some_and(|end| now >= end + AFTER_DEADLINE) {
            self.record(|| Event::Ended(End::Silent));
            return Err(End::Silent);
        }
        let end = self.deadline.map(|end| end.saturating_duration_since(now));
        // A timeout of zero is refused by the system.
        let wait = end.map_or(self.max_wait, |end| end.min(self.max_wait));
        self.read_within(wait.max(Duration::from_millis(1)))
    }

    fn read_within(&mut self, wait: Duration) -> Result<usize, End> {
        let mut buffer = [0; 16 * 1024];
        let result =
            self.stream.set_read_timeout(Some(wait)).and_then(|()| self.stream.read(&mut buffer));
        match result {
            Ok(read) => {
                self.unread.extend_from_slice(&buffer[..read]);
                self.record(|| match read {
                    0 => Event::Ended(End::Closed),
                    _ => Event::Received(Excerpt::of(&buffer[..read])),
                });
                Ok(read)
            }
            // The process was stopped and continued. The kernel does not restart a read that has a
            // timeout (`signal(7)`).
            Err(error) if error.kind() == ErrorKind::Interrupted => self.read_within(wait),
            Err(error) => {
                let end = end_of(&error);
                self.record(|| Event::Ended(end));
                Err(end)
            }
        }
    }

    /// Reads exactly `length` bytes, whatever they are.
    ///
    /// # Errors
    /// How the connection ended before; a FIN is [`End::ClosedEarly`].
    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>, End> {
        while self.unread.len() < length {
            if self.read_more()? == 0 {
                return Err(End::ClosedEarly);
            }
        }
        Ok(self.consume(length))
    }

    /// Reads until a FIN, and returns the bytes before it.
    ///
    /// # Errors
    /// Any other end.
    pub fn to_end(&mut self) -> Result<Vec<u8>, End> {
        while self.read_more()? > 0 {}
        Ok(self.take_unread())
    }

    /// Reads and discards everything, and returns how the connection ended.
    pub fn end(&mut self) -> End {
        loop {
            match self.read_more() {
                Ok(0) => return End::Closed,
                Ok(_) => self.unread.clear(),
                Err(end) => return end,
            }
        }
    }

    /// Returns whether nothing arrives for `span`: neither a byte nor an end.
    pub fn is_silent_for(&mut self, span: Duration) -> bool {
        self.read_within(span.max(Duration::from_millis(1))) == Err(End::Silent)
    }

    fn record(&self, event: impl FnOnce() -> Event) {
        if let Some(track) = &self.track {
            track.record(event());
        }
    }
}

fn end_of(error: &io::Error) -> End {
    let kind = error.kind();
    if matches!(kind, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) {
        End::Reset
    } else if matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut) {
        End::Silent
    } else {
        End::Failed(kind)
    }
}

/// Returns whether a connect is refused. A connect without a result within 200 ms is not.
#[must_use]
pub fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_millis(200))
        .is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::{Connection, End};
    use std::{
        io::Write,
        net::TcpListener,
        thread,
        time::{Duration, Instant},
    };

    // A server that sent without a pause was read for ever, whatever the deadline.
    #[test]
    fn a_peer_that_never_stops_is_read_until_a_second_after_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            while stream.write_all(b"piece\n").is_ok() {}
        });
        let mut connection = Connection::connect(address, Duration::from_secs(5)).unwrap();
        let begin = Instant::now();
        connection.set_deadline(begin + Duration::from_millis(50));
        assert_eq!(connection.end(), End::Silent);
        assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
        drop(connection);
        server.join().unwrap();
    }
}
