//! A connection of the operating system: its bytes, and what the kernel reports about them.

use super::SpareFds;
use crate::runtime::{Peek, Peer, Transport};
#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, recv, send},
};
use socket2::SockRef;
use std::{
    io::{self, IoSlice},
    mem::{self, MaybeUninit},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
    task::coop::poll_proceed,
};

/// An accepted TCP or Unix connection.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    close: Close,
    /// Whether our sending direction has been shut down.
    is_shut: bool,
    /// Whether the last read emptied the kernel's buffer.
    is_drained: bool,
    /// Takes over the descriptor when the connection is dropped.
    spare_fds: Option<SpareFds>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Only during a drop or `into_descriptor`.
    Gone,
}

/// How a connection ends when the kernel closes its descriptor.
///
/// An accepted TCP connection inherits `SO_LINGER` with a timeout of zero. If the process dies in
/// any way, a cut response ends in a reset and does not look complete (P5d). A close by this
/// process clears the option first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// With a reset if the process dies. A drop clears the option first.
    ResetByExit,
    /// With a FIN. Our sending direction is shut down, or the socket has no reset, like a Unix
    /// socket.
    Fin,
    /// With a reset, also when it is dropped.
    Reset,
}

impl Close {
    /// From now on the connection ends with a FIN, however the process ends.
    pub(super) fn cleanly(&mut self, descriptor: BorrowedFd<'_>) {
        if *self == Self::ResetByExit {
            // Fails only on a connection that is broken already.
            let _ = SockRef::from(&descriptor).set_linger(None);
            *self = Self::Fin;
        }
    }

    /// From now on the connection ends with a reset.
    pub(super) fn with_reset(&mut self, descriptor: BorrowedFd<'_>, kind: Kind) {
        match kind {
            Kind::Tcp => {
                let _ = SockRef::from(&descriptor).set_linger(Some(Duration::ZERO));
                *self = Self::Reset;
            }
            // A Unix socket cannot be reset; its peer reads end of file.
            Kind::Unix => {}
        }
    }
}

/// Address family of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Unix,
}

impl Socket {
    /// The descriptor returns to `spare_fds` when the connection is dropped.
    pub(super) fn with_spare_fds(mut self, spare_fds: Option<SpareFds>) -> Self {
        self.spare_fds = spare_fds;
        self
    }

    #[cfg(target_os = "linux")]
    pub(super) const fn is_shut(&self) -> bool {
        self.is_shut
    }

    pub(super) const fn kind(&self) -> Kind {
        match self.stream {
            Stream::Tcp(_) | Stream::Gone => Kind::Tcp,
            Stream::Unix(_) => Kind::Unix,
        }
    }

    /// Deregisters the connection from the runtime and returns its descriptor.
    ///
    /// # Errors
    /// Returns the connection itself if its descriptor belongs to spare descriptors, or if the
    /// runtime does not release it.
    #[cfg(target_os = "linux")]
    pub(super) fn into_descriptor(mut self) -> Result<(OwnedFd, Close), Self> {
        if self.spare_fds.is_some() {
            return Err(self);
        }
        let descriptor = match mem::replace(&mut self.stream, Stream::Gone) {
            Stream::Tcp(stream) => stream.into_std().map(OwnedFd::from),
            Stream::Unix(stream) => stream.into_std().map(OwnedFd::from),
            Stream::Gone => return Err(self),
        };
        let close = self.close;
        descriptor.map(|descriptor| (descriptor, close)).map_err(|_| self)
    }

    /// Registers the descriptor on the current runtime.
    #[cfg(target_os = "linux")]
    pub(super) fn from_descriptor(
        descriptor: OwnedFd,
        kind: Kind,
        close: Close,
        is_shut: bool,
    ) -> io::Result<Self> {
        let stream = match kind {
            Kind::Tcp => Stream::Tcp(TcpStream::from_std(descriptor.into())?),
            Kind::Unix => Stream::Unix(UnixStream::from_std(descriptor.into())?),
        };
        Ok(Self { stream, close, is_shut, is_drained: false, spare_fds: None })
    }

    /// Called before our FIN. What was written by then is complete, and is delivered even if the
    /// process dies in the meantime.
    fn close_cleanly(&mut self) {
        let descriptor = match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(_) | Stream::Gone => return,
        };
        self.close.cleanly(descriptor);
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.stream {
            Stream::Tcp(stream) => Some(stream.as_fd()),
            Stream::Unix(stream) => Some(stream.as_fd()),
            Stream::Gone => None,
        }
    }
}

/// Up to this size, bypass libc's wrappers. Being pthread cancellation points, they cost more than
/// the extra copy.
const UNWRAPPED_BYTES_MAX: usize = 4096;

#[cfg(target_os = "linux")]
const WITHOUT_SIGPIPE: SendFlags = SendFlags::NOSIGNAL;
/// Elsewhere `SIGPIPE` is suppressed by an option of the socket.
#[cfg(not(target_os = "linux"))]
const WITHOUT_SIGPIPE: SendFlags = SendFlags::empty();

impl Stream {
    /// `is_drained`: whether the last read emptied the kernel's buffer, before and after this one.
    fn poll_read_short(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        is_drained: &mut bool,
    ) -> Poll<io::Result<()>> {
        let mut room = [MaybeUninit::uninit(); UNWRAPPED_BYTES_MAX];
        let room = &mut room[..buf.remaining()];
        if mem::take(is_drained) {
            ready!(self.poll_read_ready(cx))?;
        }
        loop {
            // Otherwise tried before the runtime is asked for readiness, which costs more than the
            // attempt.
            let turn = ready!(poll_proceed(cx));
            let tried = match self {
                Self::Tcp(stream) => stream
                    .try_io(Interest::READABLE, || receive(stream.as_fd(), room, buf, is_drained)),
                Self::Unix(stream) => stream
                    .try_io(Interest::READABLE, || receive(stream.as_fd(), room, buf, is_drained)),
                Self::Gone => return gone(),
            };
            match tried {
                _ if *is_drained => {
                    turn.made_progress();
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(turn),
                tried => {
                    turn.made_progress();
                    return Poll::Ready(tried);
                }
            }
            ready!(self.poll_read_ready(cx))?;
        }
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Gone => gone(),
        }
    }

    fn poll_write_short(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let turn = ready!(poll_proceed(cx));
            let send = |socket: BorrowedFd<'_>| Ok(send(socket, bytes, WITHOUT_SIGPIPE)?);
            let tried = match self {
                Self::Tcp(stream) => stream.try_io(Interest::WRITABLE, || send(stream.as_fd())),
                Self::Unix(stream) => stream.try_io(Interest::WRITABLE, || send(stream.as_fd())),
                Self::Gone => return gone(),
            };
            match tried {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => drop(turn),
                tried => {
                    turn.made_progress();
                    return Poll::Ready(tried);
                }
            }
            ready!(match self {
                Self::Tcp(stream) => stream.poll_write_ready(cx),
                Self::Unix(stream) => stream.poll_write_ready(cx),
                Self::Gone => return gone(),
            })?;
        }
    }
}

/// Reads once. A read that does not fill `room` has emptied the kernel's buffer, so the next one
/// would block. In that case, if it read anything, sets `is_drained` and returns `WouldBlock`, so
/// that the reactor clears its readiness.
fn receive(
    from: BorrowedFd<'_>,
    room: &mut [MaybeUninit<u8>],
    to: &mut ReadBuf<'_>,
    is_drained: &mut bool,
) -> io::Result<()> {
    let most = room.len();
    let ((bytes, _), len) = recv(from, room, RecvFlags::empty())?;
    to.put_slice(bytes);
    if 0 < len && len < most {
        *is_drained = true;
        return Err(io::ErrorKind::WouldBlock.into());
    }
    Ok(())
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Tcp(stream),
            close: Close::ResetByExit,
            is_shut: false,
            is_drained: false,
            spare_fds: None,
        }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self {
            stream: Stream::Unix(stream),
            close: Close::Fin,
            is_shut: false,
            is_drained: false,
            spare_fds: None,
        }
    }
}

impl Transport for Socket {
    fn peek(&self) -> Peek {
        self.descriptor().map_or(Peek::Broken, |descriptor| peek(descriptor, self.is_shut))
    }

    fn peer(&self) -> Peer {
        self.descriptor().map_or(Peer::Gone, |descriptor| peer(descriptor, self.is_shut))
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.stream, Stream::Gone) {
            return Poll::Pending;
        }
        self.stream.poll_read_ready(cx).map(drop)
    }

    #[cfg(target_os = "linux")]
    fn unacknowledged(&self) -> Option<usize> {
        match &self.stream {
            Stream::Tcp(stream) => super::unacknowledged::ask(stream),
            Stream::Unix(_) | Stream::Gone => None,
        }
    }

    fn discard_unread(&mut self) {
        let Some(descriptor) = self.descriptor() else { return };
        let mut discard = [0; 4096];
        for _ in 0..64 {
            match recv(descriptor, &mut discard[..], RecvFlags::DONTWAIT) {
                Ok((_, 1..)) | Err(Errno::INTR) => {}
                Ok((_, 0)) | Err(_) => return,
            }
        }
    }

    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Some(descriptor) = self.descriptor() else { return gone() };
        let mut room = [MaybeUninit::uninit(); UNWRAPPED_BYTES_MAX];
        let len = buf.remaining().min(room.len());
        loop {
            match recv(descriptor, &mut room[..len], RecvFlags::DONTWAIT) {
                Ok(((bytes, _), _)) => {
                    buf.put_slice(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn reset_on_drop(&mut self) {
        let kind = self.kind();
        let descriptor = match &self.stream {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
            Stream::Gone => return,
        };
        self.close.with_reset(descriptor, kind);
    }
}

/// Peeks into the kernel's receive buffer.
pub(super) fn peek(descriptor: BorrowedFd<'_>, is_shut: bool) -> Peek {
    loop {
        let mut byte = [0];
        return match recv(descriptor, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            // End of file is read for ever, whatever happens to the connection afterwards.
            Ok((_, 0)) if peer(descriptor, is_shut) == Peer::Gone => Peek::Broken,
            Ok((_, 0)) => Peek::Ended,
            Ok(_) => Peek::Data,
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => Peek::Empty,
            Err(_) => Peek::Broken,
        };
    }
}

/// Returns the state of the peer as the kernel knows it, no matter what is left to read. The kernel
/// reports a hang-up once both directions are shut down. Unless ours is one of them (`is_shut`),
/// the peer is then gone.
#[cfg(target_os = "linux")]
pub(super) fn peer(descriptor: BorrowedFd<'_>, is_shut: bool) -> Peer {
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // A signal, such as a profile sends, interrupts even a `poll` that does not wait.
    if rustix::io::retry_on_intr(|| poll(&mut polled, Some(&now))).is_err() {
        return Peer::Unknown;
    }
    let found = polled[0].revents();
    if found.contains(PollFlags::ERR) || (found.contains(PollFlags::HUP) && !is_shut) {
        Peer::Gone
    } else if found.contains(PollFlags::RDHUP) {
        Peer::HalfClosed
    } else {
        Peer::Open
    }
}

/// Elsewhere end of file is all that can be seen.
#[cfg(not(target_os = "linux"))]
pub(super) fn peer(descriptor: BorrowedFd<'_>, _: bool) -> Peer {
    let mut byte = [0];
    match recv(descriptor, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((_, 0)) => Peer::HalfClosed,
        Ok(_) | Err(Errno::INTR | Errno::WOULDBLOCK) => Peer::Open,
        Err(_) => Peer::Gone,
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.close_cleanly();
        let Some(spare_fds) = self.spare_fds.take() else { return };
        // Deregister from the runtime first, because the descriptor is then reused outside of it.
        let descriptor: Option<OwnedFd> = match mem::replace(&mut self.stream, Stream::Gone) {
            Stream::Tcp(stream) => stream.into_std().ok().map(OwnedFd::from),
            Stream::Unix(stream) => stream.into_std().ok().map(OwnedFd::from),
            Stream::Gone => None,
        };
        if let Some(descriptor) = descriptor {
            spare_fds.reclaim(descriptor);
        }
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.stream {
            stream if buf.remaining() <= UNWRAPPED_BYTES_MAX => {
                stream.poll_read_short(cx, buf, &mut this.is_drained)
            }
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Gone => gone(),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            stream if buf.len() <= UNWRAPPED_BYTES_MAX => stream.poll_write_short(cx, buf),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Gone => gone(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Gone => gone(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.close_cleanly();
        this.is_shut = true;
        match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Gone => gone(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Gone => gone(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
            Stream::Gone => false,
        }
    }
}
