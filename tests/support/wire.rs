//! The HTTP/1 client of `lameduck-wire`. What a test does not expect fails the test here.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use super::MAX_WAIT;
pub(crate) use lameduck_wire::{End, connection::is_refused, http1::Response as Answer};
use lameduck_wire::{connection::Connection, http1};
use std::{
    io,
    net::SocketAddr,
    ops::{Deref, DerefMut},
    time::Duration,
};

/// One connection.
#[derive(Debug)]
pub(crate) struct Client(http1::Client);

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

/// Fails the test for an end that is none: nothing arrived in time, or an error of the system.
#[track_caller]
fn ended(end: End) -> End {
    assert!(!matches!(end, End::Silent | End::Malformed | End::Failed(_)), "cannot read: {end}");
    end
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        http1::Client::connect(address, MAX_WAIT).map(Self)
    }

    /// Sends bytes. Fails if the kernel does not take them.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.0.send(bytes)
    }

    /// Sends bytes. Fails if the peer takes none for this long.
    pub(crate) fn try_send_within(&mut self, bytes: &[u8], within: Duration) -> io::Result<()> {
        self.send_within(bytes, within)
    }

    /// Shrinks the receive buffer, so that data stays at the sender.
    pub(crate) fn read_nothing(&self) {
        self.set_receive_buffer(64 * 1024).unwrap();
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.send(bytes).unwrap();
    }

    /// Sends a GET request that keeps the connection open.
    #[track_caller]
    pub(crate) fn send_get(&mut self, path: &str) {
        self.send(http1::get_bytes(path));
    }

    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send_get(path);
        self.answer()
    }

    /// The address that the server sees as its peer.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.0.local_address().unwrap()
    }

    /// Closes the connection with a reset.
    pub(crate) fn reset(self) {
        self.0.reset().unwrap();
    }

    pub(crate) fn shut_write(&self) {
        self.0.shut_write().unwrap();
    }

    /// Returns the next response, which must be complete. An interim one counts.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        match self.next() {
            Ok(answer) => answer,
            Err(end) => {
                let unread = String::from_utf8_lossy(self.unread());
                panic!("no whole answer: {end} after {unread:?}")
            }
        }
    }

    /// Returns the head of the next response. Its body stays unread.
    pub(crate) fn head(&mut self) -> Result<Answer, End> {
        self.0.head().map_err(ended)
    }

    /// Returns the next response, or how the connection ended before it was complete.
    pub(crate) fn try_answer(&mut self) -> Result<Answer, End> {
        self.next().map_err(ended)
    }

    /// Reads the next response. No test may miss a 1xx that it does not expect.
    fn next(&mut self) -> Result<Answer, End> {
        let mut answer = self.0.head()?;
        answer.bytes = self.0.body(&answer)?;
        Ok(answer)
    }

    /// Reads everything, and returns how the connection ended.
    pub(crate) fn end(&mut self) -> End {
        ended(self.0.end())
    }

    /// Reads exactly `length` bytes, whatever they are.
    pub(crate) fn exactly(&mut self, length: usize) -> Result<Vec<u8>, End> {
        self.0.exactly(length).map_err(ended)
    }

    /// Reads one chunk. The last one is empty.
    pub(crate) fn chunk(&mut self) -> Result<Vec<u8>, End> {
        self.0.chunk().map_err(ended)
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
