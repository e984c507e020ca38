//! The HTTP/2 client of `lameduck-wire`. What a test does not expect fails the test here.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use super::MAX_WAIT;
pub(crate) use lameduck_wire::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PING, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, frame,
};
use lameduck_wire::{End, http2};
use std::{
    net::SocketAddr,
    ops::{Deref, DerefMut},
    time::Duration,
};

/// One connection.
#[derive(Debug)]
pub(crate) struct Http2(http2::Client);

impl Deref for Http2 {
    type Target = http2::Client;

    fn deref(&self) -> &http2::Client {
        &self.0
    }
}

impl DerefMut for Http2 {
    fn deref_mut(&mut self) -> &mut http2::Client {
        &mut self.0
    }
}

impl Http2 {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self(http2::Client::connect(address, MAX_WAIT).unwrap())
    }

    /// Sends a GET request. Returns the id of its stream.
    pub(crate) fn get(&mut self, path: &str) -> u32 {
        self.get_from("localhost", path)
    }

    /// Sends a GET request with this `:authority`.
    pub(crate) fn get_from(&mut self, authority: &str, path: &str) -> u32 {
        self.request("GET", authority, path).unwrap()
    }

    /// Sends a HEAD request.
    pub(crate) fn ask_head(&mut self, path: &str) -> u32 {
        self.request("HEAD", "localhost", path).unwrap()
    }

    /// Grants windows of 1 GiB and shrinks the receive buffer, so that data stays at the sender.
    pub(crate) fn read_nothing(&mut self) {
        self.0.read_nothing().unwrap();
    }

    /// Enlarges the receive buffer again.
    pub(crate) fn read_again(&mut self) {
        self.connection().set_receive_buffer(1 << 20).unwrap();
    }

    /// Sends bytes. Fails if the peer takes none for this long.
    pub(crate) fn try_send(&mut self, bytes: &[u8], within: Duration) -> std::io::Result<()> {
        self.connection().send_within(bytes, within)
    }

    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.0.send(kind, flags, stream, payload).unwrap();
    }

    /// Sends a PING. The peer may be gone.
    pub(crate) fn ping(&mut self) {
        let _ = self.0.send(PING, 0, 0, b"still up");
    }

    /// Returns the next frame, or `None` at the end of the connection.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        match self.0.next_frame() {
            Ok(frame) => Some(frame),
            Err(End::Closed | End::ClosedEarly | End::Reset) => None,
            Err(end) => panic!("cannot read a frame: {end}"),
        }
    }

    /// Reads until a frame matches, or panics with all received frames.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, what: &str, is_it: impl Fn(&Frame) -> bool) -> Frame {
        match self.0.find(is_it) {
            Ok(frame) => frame,
            Err(end) => panic!("{end} before {what}: {:?}", self.seen),
        }
    }

    /// Returns the whole body of a stream, which must end with END_STREAM.
    #[track_caller]
    pub(crate) fn body(&mut self, stream: u32) -> String {
        self.wait_for("the end of a stream", |frame| frame.stream == stream && frame.ends_stream());
        String::from_utf8_lossy(&self.data(stream)).into_owned()
    }

    pub(crate) fn read_to_end(&mut self) {
        while self.next().is_some() {}
    }
}
