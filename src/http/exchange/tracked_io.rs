//! The io that hyper holds: a wrapper around the transport that records what is read and written.

use super::{
    connection_state::{ConnectionState, Protocol},
    http2_input::FrameScanner,
    in_flight::UnflushedResponses,
};
use crate::http::server::{connection_slot::WriteStrategy, date};
use crate::runtime::{Peek, Peer, Transport};
use bytes::{Buf, Bytes, buf::Chain};
use std::{
    io, mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// Slot into which the transport is put when hyper drops the io.
pub(crate) type IoReturn<T> = Arc<Mutex<Option<T>>>;

/// A transport on loan to hyper. It replays the sniffed bytes and records its traffic in the
/// [`ConnectionState`].
pub(crate) struct TrackedIo<T: Transport> {
    /// `None` only inside `drop` and `into_transport`.
    io: Option<T>,
    prefix: Bytes,
    /// Bytes to write before any of hyper's.
    unwritten: Chain<Bytes, Bytes>,
    /// Bytes of an interim response that hyper has still to write.
    interim: usize,
    reading: Reading,
    /// Present on HTTP/2.
    frames: Option<Box<FrameScanner>>,
    connection: Arc<ConnectionState>,
    unflushed: Weak<UnflushedResponses>,
    io_return: Option<IoReturn<T>>,
    /// Bytes of hyper's were written since its last flush.
    has_written: bool,
    /// The socket was readable while hyper did not read.
    is_readable: bool,
    /// Once upgraded: ready when the connection must end. One for each [`Direction`], since two
    /// tasks may read and write.
    endings: [Option<Ending>; 2],
}

/// Whether the wait is for a long stream, and the wait for its abort.
type Ending = (bool, Pin<Box<WaitForCancellationFutureOwned>>);

#[derive(Clone, Copy, Debug)]
enum Direction {
    Read,
    Write,
}

/// The first bytes of a response that hyper makes itself. The version is that of the last request.
const ERROR_PREFIXES: [&[u8]; 2] = [b"HTTP/1.1 4", b"HTTP/1.0 4"];

/// A field of each head that the host makes, and of none that hyper makes.
const DATE_FIELD: &[u8] = b"\r\ndate: ";

/// The interim response that hyper makes. It is no part of the response.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Whether hyper may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Open,
    /// hyper sees the end of the input, whatever the client sends.
    Ended,
}

impl<T: Transport> TrackedIo<T> {
    /// Wraps the transport of an HTTP/1 connection, from which hyper returns the io by
    /// `into_parts`.
    pub(crate) fn new(
        io: T,
        prefix: Bytes,
        connection: Arc<ConnectionState>,
        unflushed: &Arc<UnflushedResponses>,
    ) -> Self {
        if io.is_spent() {
            connection.announcement.set_aged();
        }
        Self {
            io: Some(io),
            prefix,
            unwritten: Bytes::new().chain(Bytes::new()),
            interim: 0,
            reading: Reading::Open,
            frames: None,
            connection,
            unflushed: Arc::downgrade(unflushed),
            io_return: None,
            has_written: false,
            is_readable: false,
            endings: [None, None],
        }
    }

    /// Wraps the transport of an HTTP/2 connection. hyper does not return its io, so a drop puts
    /// the transport into the returned slot.
    pub(crate) fn returning(
        io: T,
        prefix: Bytes,
        connection: Arc<ConnectionState>,
        unflushed: &Arc<UnflushedResponses>,
    ) -> (Self, IoReturn<T>) {
        let io_return = IoReturn::default();
        let mut this = Self::new(io, prefix, connection, unflushed);
        this.io_return = Some(io_return.clone());
        this.frames = Some(Box::new(FrameScanner::new()));
        (this, io_return)
    }

    /// Sets the bytes that are written before any of hyper's.
    pub(crate) fn write_first(&mut self, unwritten: Chain<Bytes, Bytes>) {
        if unwritten.has_remaining() {
            self.connection.io.before_write();
        }
        self.unwritten = unwritten;
    }

    /// Ends hyper's input, including bytes that were read already: the last response is being sent.
    pub(crate) fn end_reading(&mut self) {
        self.reading = Reading::Ended;
    }

    /// Returns the transport and the part of the prefix that hyper has not read.
    pub(crate) fn into_transport(mut self) -> Option<(T, Bytes)> {
        let prefix = mem::take(&mut self.prefix);
        self.io.take().map(|io| (io, prefix))
    }

    /// Writes the bytes that precede hyper's.
    #[inline]
    fn poll_unwritten(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unwritten.has_remaining() { self.poll_write_first(cx) } else { Poll::Ready(Ok(())) }
    }

    #[cold]
    fn poll_write_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = &mut self.io else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while self.unwritten.has_remaining() {
            self.connection.io.before_write();
            let polled = Pin::new(&mut *io).poll_write(cx, self.unwritten.chunk());
            if let Poll::Ready(Err(_)) = &polled {
                self.connection.io.on_broken();
            }
            let written = ready!(polled)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.connection.io.on_written(written);
            self.unwritten.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Records bytes that were read. Returns how many of them hyper may have. The others must be
    /// kept as the prefix.
    fn on_read(&mut self, read: &[u8]) -> usize {
        self.is_readable = false;
        let len = match &mut self.frames {
            Some(frames) => {
                let left = self.connection.requests_left();
                self.connection.io.inflow.on_read(frames, read, left)
            }
            None => read.len(),
        };
        self.connection.io.on_read(&read[..len]);
        len
    }

    fn on_nothing_read(&mut self, cx: &Context<'_>) {
        let inflow = &self.connection.io.inflow;
        let is_final = self.connection.io.is_final_read_wanted();
        let is_peek_wanted = inflow.take_peek_requested() || is_final;
        let has_data = is_peek_wanted
            && self.io.as_mut().is_some_and(|io| io.read_ahead() || io.peek() == Peek::Data);
        if is_final {
            self.connection.io.on_final_read(has_data);
        }
        if has_data {
            // The reactor has not reported these bytes yet.
            cx.waker().wake_by_ref();
        } else {
            inflow.on_awaited();
        }
    }

    /// Limits what hyper reads. A client that does not read may have only a limited number of
    /// requests waiting, and one connection must not delay the others by reading for too long.
    #[inline]
    fn poll_may_read(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.connection.must_hold_reads() {
            self.connection.io.inflow.on_reads_held();
            return Poll::Pending;
        }
        let read = self.connection.io.inflow.read_in_poll() as usize;
        if self.connection.server().caps().read_per_poll.is_reached_by(read) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Whether hyper makes the response itself, to a head that it cannot parse: no service call is
    /// waiting for a response, and no earlier one is partly written.
    fn is_made_by_hyper(&self, bytes: &[u8]) -> bool {
        let connection = &self.connection;
        ERROR_PREFIXES.iter().any(|prefix| bytes.starts_with(prefix))
            && connection.protocol == Protocol::Http1
            && !connection.is_in_flight()
            && (!connection.responses.has_unflushed() || connection.io.is_flushed())
            && !connection.upgrade.is_upgraded()
            && !bytes.windows(DATE_FIELD.len()).any(|field| field == DATE_FIELD)
    }

    /// Writes a head that hyper made and adds a date to it (RFC 9110 §6.6.1).
    #[cold]
    fn write_dated(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut dated = bytes.to_vec();
        if bytes.ends_with(b"\r\n\r\n") {
            dated.truncate(bytes.len() - 2);
            dated.extend_from_slice(b"date: ");
            dated.extend_from_slice(date::header(self.connection.server().clock.wall()).as_bytes());
            dated.extend_from_slice(b"\r\n\r\n");
        }
        self.unwritten = Bytes::from(dated).chain(Bytes::new());
        // What the kernel does not accept now is sent before the next write or flush.
        match self.poll_unwritten(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(bytes.len())),
        }
    }

    /// Records bytes of hyper's that were written. Those of an interim response do not count.
    #[inline]
    fn on_written(&mut self, written: usize) {
        let interim = written.min(self.interim);
        self.interim -= interim;
        self.has_written = true;
        self.connection.io.on_written(written - interim);
        if self.io.as_ref().is_some_and(Transport::is_spent) {
            self.connection.announcement.set_aged();
        }
    }

    fn io(&mut self) -> io::Result<Pin<&mut T>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Returns an error once an upgraded connection must end. hyper no longer controls it, so its
    /// I/O fails when the server aborts what is left after the drain.
    #[inline]
    fn poll_ending(&mut self, direction: Direction, cx: &mut Context<'_>) -> io::Result<()> {
        if !self.connection.upgrade.is_upgraded() {
            return Ok(());
        }
        self.poll_upgraded_ending(direction, cx)
    }

    #[cold]
    fn poll_upgraded_ending(
        &mut self,
        direction: Direction,
        cx: &mut Context<'_>,
    ) -> io::Result<()> {
        let tokens = &self.connection.server().tokens;
        // It may become a long stream later.
        let is_stream = self.connection.upgrade.is_stream();
        let abort = if is_stream { &tokens.abort } else { &tokens.abort_requests };
        let ending = &mut self.endings[direction as usize];
        if ending.as_ref().is_none_or(|(of_stream, _)| *of_stream != is_stream) {
            *ending = Some((is_stream, Box::pin(abort.clone().cancelled_owned())));
        }
        let is_over = |ending: &mut Ending| ending.1.as_mut().poll(cx).is_ready();
        if ending.as_mut().is_some_and(is_over) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the service is shutting down",
            ));
        }
        Ok(())
    }

    /// Records a transport error. It ends the connection: nothing more can be flushed.
    #[inline]
    fn record_error<R>(&self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if let Poll::Ready(Err(_)) = &polled {
            self.connection.io.on_broken();
        }
        polled
    }

    /// Watches for a client that leaves while its HTTP/1 request runs. hyper does not read then, so
    /// it would not notice. Requests a peek as soon as the socket is readable. If a next request
    /// made it readable, it stays so, and the connection requests further peeks once per second.
    fn watch_for_departure(&mut self, cx: &mut Context<'_>) {
        let is_watched = self.connection.protocol == Protocol::Http1
            && self.connection.is_in_flight()
            && !self.is_readable;
        if is_watched && self.io.as_ref().is_some_and(|io| io.poll_readable(cx).is_ready()) {
            self.is_readable = true;
            self.connection.io.request_peek();
        }
    }

    /// Runs the peek that the connection requested. The connection cannot reach the transport while
    /// hyper holds it.
    #[inline]
    fn peek_if_requested(&mut self, cx: &Context<'_>) -> io::Result<()> {
        if self.connection.io.take_peek_requested() { self.peek(cx) } else { Ok(()) }
    }

    #[cold]
    fn peek(&mut self, cx: &Context<'_>) -> io::Result<()> {
        let Some(io) = &mut self.io else { return Ok(()) };
        if io.read_ahead() {
            // The reactor does not report these bytes any more.
            cx.waker().wake_by_ref();
        }
        match io.peer() {
            Peer::Open | Peer::Unknown => {}
            Peer::HalfClosed => self.connection.on_half_closed(),
            Peer::Gone => {
                self.connection.io.on_broken();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
        let is_wanted = self.connection.io.take_unacknowledged_requested();
        if self.connection.io.is_write_blocked() || is_wanted {
            match io.unacknowledged() {
                Some(unacknowledged) => self.connection.io.on_unacknowledged(unacknowledged),
                None if is_wanted => self.connection.io.on_unacknowledged(0),
                None => {}
            }
        }
        Ok(())
    }
}

impl<T: Transport> AsyncRead for TrackedIo<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_ending(Direction::Read, cx)?;
        if this.reading == Reading::Ended {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_may_read(cx));
        if this.prefix.has_remaining() {
            let now = this.prefix.len().min(buf.remaining());
            let read = this.prefix.slice(..now);
            let len = this.on_read(&read);
            this.prefix.advance(len);
            buf.put_slice(&read[..len]);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = this.io()?.poll_read(cx, buf);
        if this.record_error(polled)?.is_pending() {
            this.on_nothing_read(cx);
            return Poll::Pending;
        }
        let read = &buf.filled()[before..];
        if !read.is_empty() {
            let len = this.on_read(read);
            if len < read.len() {
                this.prefix = Bytes::copy_from_slice(&read[len..]);
                buf.set_filled(before + len);
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncWrite for TrackedIo<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_ending(Direction::Write, cx)?;
        this.peek_if_requested(cx)?;
        ready!(this.poll_unwritten(cx))?;
        if this.is_made_by_hyper(bytes) {
            return this.write_dated(cx, bytes);
        }
        if bytes == CONTINUE {
            this.interim = bytes.len();
        }
        this.connection.io.before_write();
        let polled = this.io()?.poll_write(cx, bytes);
        let written = ready!(this.record_error(polled))?;
        this.on_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_ending(Direction::Write, cx)?;
        this.peek_if_requested(cx)?;
        ready!(this.poll_unwritten(cx))?;
        if let [bytes] = slices
            && this.is_made_by_hyper(bytes)
        {
            return this.write_dated(cx, bytes);
        }
        if matches!(slices, [bytes] if **bytes == *CONTINUE) {
            this.interim = CONTINUE.len();
        }
        this.connection.io.before_write();
        let polled = this.io()?.poll_write_vectored(cx, slices);
        let written = ready!(this.record_error(polled))?;
        this.on_written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.writes == WriteStrategy::Vectored
            && self.io.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.watch_for_departure(cx);
        this.peek_if_requested(cx)?;
        ready!(this.poll_unwritten(cx))?;
        let polled = this.io()?.poll_flush(cx);
        if T::BUFFERS_WRITES {
            this.connection.io.set_write_blocked(polled.is_pending());
        }
        ready!(this.record_error(polled))?;
        this.connection.io.on_flushed();
        // h2 flushes more often than it writes.
        if this.frames.is_some()
            && mem::take(&mut this.has_written)
            && let Some(unflushed) = this.unflushed.upgrade()
        {
            unflushed.settle_written();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.connection.responses.is_aborted() {
            // A FIN would make the cut response look complete (P5d). The connection is reset
            // instead.
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_unwritten(cx))?;
        if this.connection.protocol == Protocol::Http2 {
            // Whether this end cuts a response is decided when hyper has returned.
            this.connection.io.on_shutdown_begun();
            return Poll::Ready(Ok(()));
        }
        let polled = this.io()?.poll_shutdown(cx);
        if polled.is_pending() {
            this.connection.io.on_shutdown_begun();
        }
        this.record_error(polled)
    }
}

impl<T: Transport> Drop for TrackedIo<T> {
    fn drop(&mut self) {
        self.connection.io.on_io_dropped();
        if self.connection.upgrade.end_upgrade() {
            self.connection.server().metrics.upgraded_closed.add_one();
        }
        if let Some(io_return) = &self.io_return {
            *io_return.lock().unwrap_or_else(PoisonError::into_inner) = self.io.take();
        }
    }
}

/// Returns `read` followed by `more`. Copies only if neither is empty.
pub(crate) fn joined(read: Bytes, more: Bytes) -> Bytes {
    match (read.is_empty(), more.is_empty()) {
        (_, true) => read,
        (true, false) => more,
        (false, false) => [read, more].concat().into(),
    }
}
