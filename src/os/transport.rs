//! A connection of the operating system: its bytes, and what the kernel knows about them.

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
};

/// An accepted TCP or Unix connection.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    close: Close,
    /// Our own side is shut.
    is_shut: bool,
    /// Where the descriptor goes in the end.
    spare_fds: Option<SpareFds>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Only while it is dropped.
    Gone,
}

/// How a connection ends when the kernel closes its descriptor.
///
/// An accepted TCP connection inherits `SO_LINGER` with a timeout of zero: if the process dies, by
/// whatever end, a response that was cut ends in a reset and does not look complete (P5d). A close
/// by this process clears the option first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// With a reset, if the process dies. A drop clears that first.
    ResetByExit,
    /// With a FIN. Our side is shut, or the socket has no reset, as a Unix socket.
    Fin,
    /// With a reset, by a drop too.
    Reset,
}

impl Close {
    /// From now on the connection ends with a FIN, however the process ends.
    pub(super) fn cleanly(&mut self, descriptor: BorrowedFd<'_>) {
        if *self == Self::ResetByExit {
            // It fails only on a connection that is broken already.
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
            // It cannot be reset; its peer sees an end.
            Kind::Unix => {}
        }
    }
}

/// What kind of socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Tcp,
    Unix,
}

impl Socket {
    /// Its descriptor goes back to `spare_fds` in the end.
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

    /// Takes it out of the runtime.
    ///
    /// # Errors
    /// Itself, if its descriptor is promised to a reserve, or the runtime will not let go of it.
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

    /// On the runtime that it is called on.
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
        Ok(Self { stream, close, is_shut, spare_fds: None })
    }

    /// Before our FIN: what was written by then is complete, and is delivered also if the process
    /// dies meanwhile.
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

/// So little is read and written by the system's calls themselves: those of the C library are points of cancellation, which costs
/// more than the copy.
const SHORT: usize = 4096;

#[cfg(target_os = "linux")]
const WITHOUT_SIGPIPE: SendFlags = SendFlags::NOSIGNAL;
/// It is an option of the socket.
#[cfg(not(target_os = "linux"))]
const WITHOUT_SIGPIPE: SendFlags = SendFlags::empty();

impl Stream {
    fn poll_read_short(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut room = [MaybeUninit::uninit(); SHORT];
        let room = &mut room[..buf.remaining()];
        loop {
            let mut had_some = false;
            let tried = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || {
                        receive(stream.as_fd(), room, buf, &mut had_some)
                    })
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    stream.try_io(Interest::READABLE, || {
                        receive(stream.as_fd(), room, buf, &mut had_some)
                    })
                }
                Self::Gone => return gone(),
            };
            match tried {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if had_some {
                        return Poll::Ready(Ok(()));
                    }
                }
                tried => return Poll::Ready(tried),
            }
        }
    }

    fn poll_write_short(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let tried = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || Ok(send(stream, bytes, WITHOUT_SIGPIPE)?))
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_io(Interest::WRITABLE, || Ok(send(stream, bytes, WITHOUT_SIGPIPE)?))
                }
                Self::Gone => return gone(),
            };
            match tried {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                tried => return Poll::Ready(tried),
            }
        }
    }
}

/// Reads once. What does not fill the room has emptied the kernel's buffer: that it would block next is told at once, if there
/// was anything (`had_some`).
fn receive(
    from: BorrowedFd<'_>,
    room: &mut [MaybeUninit<u8>],
    to: &mut ReadBuf<'_>,
    had_some: &mut bool,
) -> io::Result<()> {
    let most = room.len();
    let ((bytes, _), len) = recv(from, room, RecvFlags::empty())?;
    to.put_slice(bytes);
    if 0 < len && len < most {
        *had_some = true;
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
            spare_fds: None,
        }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), close: Close::Fin, is_shut: false, spare_fds: None }
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
        let polled = match &self.stream {
            Stream::Tcp(stream) => stream.poll_read_ready(cx),
            Stream::Unix(stream) => stream.poll_read_ready(cx),
            Stream::Gone => return Poll::Pending,
        };
        polled.map(drop)
    }

    #[cfg(target_os = "linux")]
    fn unacknowledged(&self) -> Option<usize> {
        match &self.stream {
            Stream::Tcp(stream) => super::unacknowledged::ask(stream),
            Stream::Unix(_) | Stream::Gone => None,
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

/// A look into the kernel's buffer.
pub(super) fn peek(descriptor: BorrowedFd<'_>, is_shut: bool) -> Peek {
    loop {
        let mut byte = [0];
        return match recv(descriptor, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            // An end is read for ever, whatever becomes of the connection after it.
            Ok((_, 0)) if peer(descriptor, is_shut) == Peer::Gone => Peek::Broken,
            Ok((_, 0)) => Peek::Ended,
            Ok(_) => Peek::Data,
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) => Peek::Empty,
            Err(_) => Peek::Broken,
        };
    }
}

/// What the kernel knows of the peer, whatever can still be read. A connection that is shut on both
/// sides hangs up, which tells that the peer is gone unless our own side is one of them (`is_shut`).
#[cfg(target_os = "linux")]
pub(super) fn peer(descriptor: BorrowedFd<'_>, is_shut: bool) -> Peer {
    let mut polled = [PollFd::from_borrowed_fd(descriptor, PollFlags::RDHUP)];
    if poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_err() {
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

/// Elsewhere an end is all that can be seen.
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
        // Out of the runtime first: what becomes of the descriptor next is not its business any more.
        let descriptor: Option<OwnedFd> = match mem::replace(&mut self.stream, Stream::Gone) {
            Stream::Tcp(stream) => stream.into_std().ok().map(OwnedFd::from),
            Stream::Unix(stream) => stream.into_std().ok().map(OwnedFd::from),
            Stream::Gone => None,
        };
        if let Some(descriptor) = descriptor {
            spare_fds.take_back(descriptor);
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
        match &mut self.get_mut().stream {
            stream if buf.remaining() <= SHORT => stream.poll_read_short(cx, buf),
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
            stream if buf.len() <= SHORT => stream.poll_write_short(cx, buf),
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
