//! A connection with TLS.
//!
//! ```text
//!  HTTP ◀── decrypted bytes ── Session ◀── ciphertext ── socket
//!
//!  poll_open      the handshake, in the connection's task, after what precedes it on the socket
//!  read_ahead     takes what the kernel holds, so that `peek` sees data and no ticket or alert
//!  poll_shutdown  close_notify, then FIN; after a cut only the FIN or the reset
//! ```

use super::session::Session;
use crate::runtime::{Address, Negotiated, Opening, Peek, Peer, Transport};
use bytes::{Buf, Bytes, BytesMut};
use rustls::ServerConfig;
use std::{
    cell::Cell,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::PollSemaphore;

/// Ciphertext that is read at once: a little more than the largest record.
const READ_MAX: usize = 18 * 1024;

/// Bytes of a response that are encrypted at once. No more is encrypted until the kernel has taken
/// the ciphertext of these.
const WRITE_MAX: usize = 32 * 1024;

/// Reads of records without data, such as tickets and alerts, in one poll.
const READS_PER_POLL: u8 = 16;

thread_local! {
    /// The buffers of one read and of one write. No session keeps them between polls.
    static INPUT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static OUTPUT: Cell<BytesMut> = Cell::new(BytesMut::new());
}

/// A connection with TLS.
pub(crate) struct TlsStream<T> {
    io: T,
    session: Box<Session>,
    handshake: Option<Box<Handshake>>,
    /// The session has refused to encrypt bytes, although the socket would take them. The response
    /// that they belong to is cut, so the connection ends with a reset and without a FIN (P5d).
    has_refused: bool,
}

/// The state of a handshake in progress.
struct Handshake {
    /// The client that a proxy announced before the handshake.
    client: Option<Address>,
    /// Each step that costs processor time needs a turn.
    turns: PollSemaphore,
    /// The turn of the last step. It ends with the next poll, so that every task that was ready
    /// then runs before the next step of any handshake.
    turn: Option<OwnedSemaphorePermit>,
    /// The client has sent something.
    has_begun: bool,
    /// Ciphertext was read that no turn has processed.
    has_unprocessed: bool,
}

impl<T: Transport> TlsStream<T> {
    /// Creates the server's side of a connection that was just accepted. `turns` limits the
    /// handshake steps that run before other tasks have their turn.
    ///
    /// # Errors
    /// If rustls cannot use the configuration.
    pub(super) fn new(
        io: T,
        config: Arc<ServerConfig>,
        turns: Arc<Semaphore>,
    ) -> Result<Self, rustls::Error> {
        let handshake = Handshake {
            client: None,
            turns: PollSemaphore::new(turns),
            turn: None,
            has_begun: false,
            has_unprocessed: false,
        };
        Ok(Self {
            io,
            session: Box::new(Session::new(config)?),
            handshake: Some(Box::new(handshake)),
            has_refused: false,
        })
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Address>>> {
        if let Some(handshake) = &mut self.handshake {
            handshake.turn = None;
        }
        ready!(self.poll_send(cx))?;
        self.session.check()?;
        let Some(handshake) = &mut self.handshake else { return Poll::Ready(Ok(None)) };
        if !self.session.is_handshaking() {
            let client = handshake.client.take();
            self.handshake = None;
            return Poll::Ready(Ok(client));
        }
        if self.io.opening() != Opening::Done {
            handshake.client = ready!(self.io.poll_open(cx))?;
        }
        if !handshake.has_unprocessed {
            let (io, session) = (&mut self.io, &mut self.session);
            let read = ready!(with_input(|input| {
                let mut buf = ReadBuf::new(&mut input[..READ_MAX]);
                ready!(Pin::new(io).poll_read(cx, &mut buf))?;
                session.keep(buf.filled());
                Poll::Ready(io::Result::Ok(buf.filled().len()))
            }))?;
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            (handshake.has_begun, handshake.has_unprocessed) = (true, true);
        }
        handshake.turn = ready!(handshake.turns.poll_acquire(cx));
        handshake.has_unprocessed = false;
        self.session.process_kept();
        // The client gets the reply now, or learns by an alert why there is none.
        let _ = self.poll_send(cx);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Writes the ciphertext that the kernel has not taken yet.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.unsent.has_remaining() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.session.unsent))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.session.unsent.advance(written);
            if self.session.unsent.is_empty() {
                self.session.unsent = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_plain(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Unsent bytes delay no read.
        let _ = self.poll_send(cx)?;
        for _ in 0..READS_PER_POLL {
            let before = buf.filled().len();
            self.session.read_plain(buf);
            if buf.filled().len() > before || self.session.has_peer_ended() {
                return Poll::Ready(Ok(()));
            }
            self.session.check()?;
            ready!(self.poll_fill(cx, buf))?;
            // An alert, or the response to a key update.
            let _ = self.poll_send(cx)?;
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            if self.session.take_turn() {
                break;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads ciphertext once and processes it. Returns the number of bytes that were read.
    fn poll_fill(&mut self, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        self.fill(to, |io, buf| Pin::new(io).poll_read(cx, buf))
    }

    fn fill(
        &mut self,
        to: &mut ReadBuf<'_>,
        read: impl FnOnce(&mut T, &mut ReadBuf<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<usize>> {
        let (io, session) = (&mut self.io, &mut self.session);
        with_input(|input| {
            let kept = session.partial().len();
            input.resize(input.len().max(kept + READ_MAX), 0);
            let mut buf = ReadBuf::new(&mut input[kept..kept + READ_MAX]);
            ready!(read(io, &mut buf))?;
            let len = buf.filled().len();
            if len == 0 {
                session.on_fin();
            } else {
                input[..kept].copy_from_slice(session.partial());
                session.process(&mut input[..kept + len], to);
            }
            Poll::Ready(Ok(len))
        })
    }
}

impl<T> TlsStream<T> {
    /// Whether the session holds no bytes, so that only the socket can have something to read.
    pub(super) fn is_quiet(&self) -> bool {
        self.handshake.is_none() && self.session.is_quiet()
    }

    /// Bytes that the peer has not acknowledged, with those of the socket by `of_io`.
    pub(super) fn unacknowledged_by(&self, of_io: impl Fn(&T) -> Option<usize>) -> Option<usize> {
        Some(of_io(&self.io)? + self.session.unsent.len())
    }

    /// Processes ciphertext that was read from the socket by the idle poller.
    pub(super) fn receive(&mut self, read: &[u8]) {
        if !read.is_empty() {
            self.session.keep(read);
            self.session.process_kept();
        }
    }

    /// Replaces the socket, with which `swap` may fail.
    pub(super) fn swap_io<U>(
        self,
        swap: impl FnOnce(T) -> Result<U, T>,
    ) -> Result<TlsStream<U>, Self> {
        let Self { io, session, handshake, has_refused } = self;
        match swap(io) {
            Ok(io) => Ok(TlsStream { io, session, handshake, has_refused }),
            Err(io) => Err(Self { io, session, handshake, has_refused }),
        }
    }

    /// Replaces the socket. Returns what was read from it in the meantime.
    pub(super) fn with_io<U>(
        self,
        replace: impl FnOnce(T) -> io::Result<(U, Bytes)>,
    ) -> io::Result<(TlsStream<U>, Bytes)> {
        let Self { io, session, handshake, has_refused } = self;
        replace(io).map(|(io, read)| (TlsStream { io, session, handshake, has_refused }, read))
    }
}

/// Lends the thread's buffer of at least `READ_MAX` bytes.
fn with_input<R>(work: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    let mut input = INPUT.take();
    if input.len() < READ_MAX {
        input.resize(READ_MAX, 0);
    }
    let result = work(&mut input);
    if input.len() <= 2 * READ_MAX {
        INPUT.set(input);
    }
    result
}

impl<T: Transport> AsyncRead for TlsStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.session.take_turn() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        this.poll_plain(cx, buf)
    }
}

impl<T: Transport> AsyncWrite for TlsStream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        let bytes = &bytes[..bytes.len().min(WRITE_MAX)];
        let mut out = OUTPUT.take();
        out.clear();
        let mut sent = 0;
        let is_open = this.session.is_open();
        let encrypted = this.session.encrypt(bytes, &mut out);
        if encrypted.is_err() && is_open {
            this.has_refused = true;
            this.reset_on_drop();
        }
        let result = encrypted.and_then(|()| {
            while sent < out.len() {
                match Pin::new(&mut this.io).poll_write(cx, &out[sent..])? {
                    Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Poll::Ready(written) => sent += written,
                    Poll::Pending => break,
                }
            }
            Ok(bytes.len())
        });
        // It goes out with the next poll of any direction.
        this.session.unsent.extend_from_slice(&out[sent..]);
        OUTPUT.set(out);
        Poll::Ready(result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.close();
        ready!(this.poll_send(cx))?;
        if this.has_refused {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<T: Transport> Transport for TlsStream<T> {
    const BUFFERS_WRITES: bool = true;

    fn peek(&self) -> Peek {
        if self.session.has_plain() {
            return Peek::Data;
        }
        match self.io.peek() {
            Peek::Data | Peek::Empty | Peek::Unknown if self.session.has_peer_ended() => {
                Peek::Ended
            }
            peek @ (Peek::Data | Peek::Empty | Peek::Ended | Peek::Broken | Peek::Unknown) => peek,
        }
    }

    fn peer(&self) -> Peer {
        match self.io.peer() {
            Peer::Open | Peer::Unknown if self.session.has_peer_ended() => Peer::HalfClosed,
            peer @ (Peer::Open | Peer::HalfClosed | Peer::Gone | Peer::Unknown) => peer,
        }
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.session.has_plain() { Poll::Ready(()) } else { self.io.poll_readable(cx) }
    }

    fn unacknowledged(&self) -> Option<usize> {
        self.unacknowledged_by(Transport::unacknowledged)
    }

    fn discard_unread(&mut self) {
        self.session.discard_plain();
        self.io.discard_unread();
    }

    fn reset_on_drop(&mut self) {
        self.session.mark_cut();
        self.io.reset_on_drop();
    }

    fn opening(&self) -> Opening {
        match self.handshake.as_deref() {
            Some(handshake) if handshake.has_begun => Opening::Begun,
            Some(_) if self.io.opening() != Opening::Done => self.io.opening(),
            Some(_) => Opening::Silent,
            None => Opening::Done,
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Address>>> {
        self.poll_handshake(cx)
    }

    fn negotiated(&self) -> Negotiated {
        match self.session.alpn() {
            Some(b"h2") => Negotiated::Http2,
            Some(_) => Negotiated::Http1,
            None => Negotiated::Unknown,
        }
    }

    fn has_buffered(&self) -> bool {
        self.session.has_buffered()
    }

    fn has_kept_end(&self) -> bool {
        self.session.has_ended()
    }

    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_plain(&mut Context::from_waker(Waker::noop()), buf)
    }

    fn read_ahead(&mut self) -> bool {
        if self.handshake.is_some() || self.session.is_readable() {
            return false;
        }
        let mut nothing = ReadBuf::new(&mut []);
        // The caller has waited for other connections, so no turn is due.
        self.session.take_turn();
        for _ in 0..READS_PER_POLL {
            let filled = self.fill(&mut nothing, T::read_now);
            let has_read = matches!(filled, Poll::Ready(Ok(1..))) && !self.session.take_turn();
            if self.session.is_readable() || !has_read {
                break;
            }
        }
        self.session.is_readable()
    }

    fn end_cleanly(&mut self) {
        self.session.close();
        let _ = self.poll_send(&mut Context::from_waker(Waker::noop()));
    }

    fn mark_cut(&mut self) {
        self.session.mark_cut();
    }

    fn is_spent(&self) -> bool {
        self.session.is_spent()
    }
}

#[cfg(test)]
#[cfg(feature = "tls-ring")]
mod tests;
