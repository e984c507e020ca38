//! A connection of the operating system: its bytes, and what the kernel knows about them.

use super::DescriptorReserve;
use crate::env::{Look, Transport};
use rustix::net::{RecvFlags, recv};
use socket2::SockRef;
use std::{
    io::{self, IoSlice},
    mem,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// An accepted TCP or Unix connection.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    /// Where the descriptor goes in the end.
    reserve: Option<DescriptorReserve>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// Only while it is dropped.
    Gone,
}

impl Socket {
    /// Its descriptor goes back to `reserve` in the end.
    pub(super) fn with_reserve(mut self, reserve: Option<DescriptorReserve>) -> Self {
        self.reserve = reserve;
        self
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.stream {
            Stream::Tcp(stream) => Some(stream.as_fd()),
            Stream::Unix(stream) => Some(stream.as_fd()),
            Stream::Gone => None,
        }
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self { stream: Stream::Tcp(stream), reserve: None }
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self { stream: Stream::Unix(stream), reserve: None }
    }
}

impl Transport for Socket {
    fn look(&self) -> Look {
        let Some(descriptor) = self.descriptor() else { return Look::Broken };
        loop {
            let mut byte = [0];
            return match recv(descriptor, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((_, 0)) => Look::Ended,
                Ok(_) => Look::Data,
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::WOULDBLOCK) => Look::Empty,
                Err(_) => Look::Broken,
            };
        }
    }

    #[cfg(target_os = "linux")]
    fn unacknowledged(&self) -> Option<usize> {
        match &self.stream {
            Stream::Tcp(stream) => super::unacknowledged::ask(stream),
            Stream::Unix(_) | Stream::Gone => None,
        }
    }

    /// A Unix socket cannot be reset; its peer sees an end.
    fn reset_on_drop(&mut self) {
        match &self.stream {
            Stream::Tcp(stream) => {
                // It fails only on a connection that is broken already.
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
            Stream::Unix(_) | Stream::Gone => {}
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let Some(reserve) = self.reserve.take() else { return };
        // Out of the runtime first: what becomes of the descriptor next is not its business any more.
        let descriptor: Option<OwnedFd> = match mem::replace(&mut self.stream, Stream::Gone) {
            Stream::Tcp(stream) => stream.into_std().ok().map(OwnedFd::from),
            Stream::Unix(stream) => stream.into_std().ok().map(OwnedFd::from),
            Stream::Gone => None,
        };
        if let Some(descriptor) = descriptor {
            reserve.take_back(descriptor);
        }
    }
}

fn gone<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Gone => gone(),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
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
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Gone => gone(),
        }
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
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
