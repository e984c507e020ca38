//! Idle connections in a separate epoll, which the runtime watches as one descriptor.
//!
//! A connection costs only its descriptor here: no task, and no registration in the runtime. The
//! kernel stores the key by which the owner identifies it.

use super::{
    transport::{self, Close, Kind, Socket},
    unacknowledged::ShutConnections,
};
use crate::runtime::{IdlePoller, Peek, Peer, Transport};
use bytes::Bytes;
use rustix::{
    event::{
        Timespec,
        epoll::{self, CreateFlags, Event, EventData, EventFlags},
    },
    io::Errno,
    net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown},
};
use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf, unix::AsyncFd},
    runtime::Handle,
};

/// An epoll for idle connections.
#[derive(Debug)]
pub struct EpollPoller {
    epoll: AsyncFd<OwnedFd>,
    /// The runtime of the connections, whatever runtime a handler makes current.
    runtime: Handle,
    /// `None` before the first query, and if the kernel does not report them.
    shut: Option<ShutConnections>,
}

/// Maximum number of events per `epoll_wait`.
const EVENTS_AT_ONCE: usize = 64;

impl EpollPoller {
    /// Creates an epoll on the current runtime.
    ///
    /// # Errors
    /// Errors of the system.
    pub(super) fn new() -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe to call with an owner that swaps descriptors; an \
                      OwnedFd does not"
        )]
        let epoll =
            AsyncFd::with_interest(epoll::create(CreateFlags::CLOEXEC)?, Interest::READABLE)?;
        Ok(Self { epoll, runtime: Handle::current(), shut: None })
    }
}

impl IdlePoller for EpollPoller {
    type Io = Socket;
    type Idle = IdleSocket;

    fn insert(&mut self, io: Socket, key: usize) -> Result<IdleSocket, Socket> {
        let Some(descriptor) = io.descriptor() else { return Err(io) };
        let flags = EventFlags::IN | EventFlags::RDHUP;
        // The descriptor is in the runtime's epoll, too, until `into_descriptor` removes it. That
        // causes no spurious wake-up in between.
        if epoll::add(&self.epoll, descriptor, EventData::new_u64(key as u64), flags).is_err() {
            return Err(io);
        }
        let (kind, is_shut) = (io.kind(), io.is_shut());
        match io.into_descriptor() {
            Ok((descriptor, close)) => {
                Ok(IdleSocket { descriptor: Some(descriptor), kind, close, is_shut })
            }
            Err(io) => {
                if let Some(descriptor) = io.descriptor() {
                    let _ = epoll::delete(&self.epoll, descriptor);
                }
                Err(io)
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, found: &mut Vec<usize>) -> Poll<()> {
        loop {
            let mut ready = match self.epoll.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(ready)) => ready,
                // The runtime is shutting down.
                Poll::Ready(Err(_)) => return Poll::Pending,
            };
            let mut events = [const { MaybeUninit::<Event>::uninit() }; EVENTS_AT_ONCE];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            match epoll::wait(self.epoll.get_ref(), &mut events[..], Some(&now)) {
                Ok(([], _)) => ready.clear_ready(),
                Ok((events, _)) => {
                    found.extend(
                        events.iter().filter_map(|event| usize::try_from(event.data.u64()).ok()),
                    );
                    return Poll::Ready(());
                }
                Err(Errno::INTR) => {}
                Err(_) => return Poll::Pending,
            }
        }
    }

    fn query_shut(&mut self) -> bool {
        self.shut = ShutConnections::dump();
        self.shut.is_some()
    }

    fn unacknowledged(&self, idle: &IdleSocket) -> Option<usize> {
        match (&self.shut, idle.kind) {
            (Some(shut), Kind::Tcp) => shut.unacknowledged(idle.descriptor.as_ref()?),
            (None, Kind::Tcp) | (_, Kind::Unix) => idle.unacknowledged(),
        }
    }

    fn remove(&mut self, mut idle: IdleSocket) -> io::Result<(Socket, Bytes)> {
        epoll::delete(&self.epoll, idle.descriptor()?)?;
        let descriptor = idle.descriptor.take().ok_or(Errno::BADF)?;
        let _entered = self.runtime.enter();
        Ok((
            Socket::from_descriptor(descriptor, idle.kind, idle.close, idle.is_shut)?,
            Bytes::new(),
        ))
    }
}

/// A connection that waits in an [`EpollPoller`].
#[derive(Debug)]
pub struct IdleSocket {
    /// `None` only while the connection is being removed.
    descriptor: Option<OwnedFd>,
    kind: Kind,
    close: Close,
    is_shut: bool,
}

impl IdleSocket {
    fn descriptor(&self) -> Result<BorrowedFd<'_>, Errno> {
        self.descriptor.as_ref().map(OwnedFd::as_fd).ok_or(Errno::BADF)
    }
}

impl Drop for IdleSocket {
    fn drop(&mut self) {
        if let Some(descriptor) = &self.descriptor {
            self.close.cleanly(descriptor.as_fd());
        }
    }
}

/// Maps `WouldBlock` and `Interrupted` to `Pending`, without registering a waker.
fn at_once<R>(result: Result<R, Errno>) -> Poll<io::Result<R>> {
    match result {
        Err(Errno::WOULDBLOCK | Errno::INTR) => Poll::Pending,
        result => Poll::Ready(result.map_err(io::Error::from)),
    }
}

impl AsyncRead for IdleSocket {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut room = [MaybeUninit::uninit(); 4096];
        let most = buf.remaining().min(room.len());
        let read = self
            .descriptor()
            .and_then(|socket| recv(socket, &mut room[..most], RecvFlags::DONTWAIT));
        at_once(read).map_ok(|((read, _), _)| buf.put_slice(read))
    }
}

impl AsyncWrite for IdleSocket {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        at_once(self.descriptor().and_then(|socket| send(socket, bytes, flags)))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut nothing = SendAncillaryBuffer::default();
        at_once(self.descriptor().and_then(|to| sendmsg(to, slices, &mut nothing, flags)))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { descriptor: Some(descriptor), close, is_shut, .. } = self.get_mut() else {
            return Poll::Ready(Err(Errno::BADF.into()));
        };
        *is_shut = true;
        close.cleanly(descriptor.as_fd());
        Poll::Ready(shutdown(descriptor, Shutdown::Write).map_err(io::Error::from))
    }
}

impl Transport for IdleSocket {
    fn peek(&self) -> Peek {
        self.descriptor()
            .map_or(Peek::Broken, |descriptor| transport::peek(descriptor, self.is_shut))
    }

    fn peer(&self) -> Peer {
        self.descriptor().map_or(Peer::Gone, |descriptor| transport::peer(descriptor, self.is_shut))
    }

    fn unacknowledged(&self) -> Option<usize> {
        match self.kind {
            Kind::Tcp => super::unacknowledged::ask(self.descriptor.as_ref()?),
            Kind::Unix => None,
        }
    }

    fn reset_on_drop(&mut self) {
        if let Some(descriptor) = &self.descriptor {
            self.close.with_reset(descriptor.as_fd(), self.kind);
        }
    }
}
