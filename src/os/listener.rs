//! Accepts connections from a listening socket.
//!
//! A listener is made on one thread and used on another, so it joins a runtime only when it is first polled there. While it serves
//! it asks the kernel only when the runtime says that there is something. Once it is quiesced it asks the kernel each time: "until
//! it is empty" must mean the kernel's queue, not what the runtime has heard of it (P5a).

use super::{
    DescriptorReserve, SocketOptions, network::tcp_address, quiesce::drop_new_handshakes, reserve::is_out_of_descriptors,
    transport::Socket, unix_path::UnixPath,
};
use crate::env::{Address, Backlog, Listener};
use rustix::net::SocketAddrAny;
use std::{
    io,
    net::SocketAddr,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A listening TCP or Unix socket.
#[derive(Debug)]
pub struct OsListener {
    // In this order, because fields are dropped in it: leave the runtime, remove the path, close the socket.
    registered: Option<AsyncFd<Arc<socket2::Socket>>>,
    ownership: Ownership,
    socket: Arc<socket2::Socket>,
    local: Address,
    options: SocketOptions,
    reserve: Option<DescriptorReserve>,
    queue: Queue,
}

/// Whose socket it is, which decides how it ends.
#[derive(Clone, Debug)]
pub(super) enum Ownership {
    /// A port that we bound.
    Tcp,
    /// A path that we bound.
    Unix(Arc<UnixPath>),
    /// Somebody handed it to us and will hand it to a successor.
    Inherited,
}

/// Who knows whether somebody waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    /// The runtime, and the kernel only when that says so.
    Watched,
    /// The kernel.
    Asked,
}

impl OsListener {
    pub(super) fn new(socket: socket2::Socket, local: Address, ownership: Ownership, options: SocketOptions) -> Self {
        Self { registered: None, ownership, socket: Arc::new(socket), local, options, reserve: None, queue: Queue::Watched }
    }

    /// A listener from a descriptor that somebody else bound and listens on, such as a service manager. At the end its queue is
    /// left to the successor: [`quiesce`](Listener::quiesce) changes nothing on it.
    ///
    /// Of `options`, those that concern connections apply to them; the socket's own stay as they are, except that it
    /// becomes non-blocking and close-on-exec.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a listening TCP or Unix stream socket, or the system's.
    pub fn inherited(descriptor: OwnedFd, options: SocketOptions) -> io::Result<Self> {
        let socket = socket2::Socket::from(descriptor);
        let local = socket.local_addr()?;
        let local = if local.is_unix() {
            Address::Unix(local.as_pathname().map(PathBuf::from))
        } else {
            Address::Tcp(tcp_address(&socket)?)
        };
        if socket.r#type()? != socket2::Type::STREAM || !is_listening(&socket)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening stream socket"));
        }
        socket.set_cloexec(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self::new(socket, local, Ownership::Inherited, options))
    }

    /// When descriptors run out, accepts with those of `reserve`; they go back there when such a connection is dropped.
    #[must_use]
    pub fn with_reserve(self, reserve: DescriptorReserve) -> Self {
        Self { reserve: Some(reserve), ..self }
    }

    fn accept_now(&self) -> io::Result<(Socket, Address)> {
        let (descriptor, peer) = self.accept_descriptor()?;
        let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
        match &self.local {
            Address::Tcp(_) => {
                let peer = SocketAddr::try_from(peer)?;
                let stream = std::net::TcpStream::from(descriptor);
                if !self.options_are_inherited() {
                    // It fails if the peer is gone already, which its reader will find out.
                    let _ = self.options.apply_to_connection(&socket2::SockRef::from(&stream));
                }
                Ok((Socket::tcp(stream, self.reserve.clone())?, Address::Tcp(canonical(peer))))
            }
            Address::Unix(_) => {
                let peer = Address::Unix(unix_path_of(peer));
                Ok((Socket::unix(UnixStream::from(descriptor), self.reserve.clone())?, peer))
            }
        }
    }

    fn accept_descriptor(&self) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
        loop {
            let error = match accept_nonblocking(&self.socket) {
                Ok(accepted) => return Ok(accepted),
                Err(error) => error,
            };
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            // Without a descriptor the kernel does not even look whether somebody waits. Another thread may be faster with
            // what we freed: then the next spare goes, until there is none.
            let freed = is_out_of_descriptors(&error) && self.reserve.as_ref().is_some_and(DescriptorReserve::give_up_one);
            if !freed {
                self.refill_reserve();
                return Err(error);
            }
        }
    }

    fn refill_reserve(&self) {
        if let Some(reserve) = &self.reserve {
            reserve.refill();
        }
    }

    /// Linux copies a listener's options to its connections. On an inherited socket we set none.
    fn options_are_inherited(&self) -> bool {
        match self.ownership {
            Ownership::Tcp | Ownership::Unix(_) => cfg!(target_os = "linux"),
            Ownership::Inherited => false,
        }
    }
}

impl Listener for OsListener {
    type Io = Socket;

    /// # Panics
    /// Outside of a tokio runtime with I/O enabled.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Address)>> {
        self.refill_reserve();
        if self.registered.is_none() {
            self.registered = Some(AsyncFd::register_with_interest(self.socket.clone(), Interest::READABLE)?);
        }
        let Some(registered) = &self.registered else { return Poll::Pending };
        match self.queue {
            Queue::Watched => {}
            Queue::Asked => match self.accept_now() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            },
        }
        loop {
            let mut readiness = ready!(registered.poll_read_ready(cx))?;
            match self.accept_now() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => readiness.clear_ready(),
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn local(&self) -> Address {
        self.local.clone()
    }

    fn quiesce(&mut self) -> Backlog {
        self.queue = Queue::Asked;
        let sealed = match &self.ownership {
            Ownership::Tcp => drop_new_handshakes(&self.socket),
            Ownership::Unix(path) => path.unlink(),
            Ownership::Inherited => return Backlog::Inherited,
        };
        match sealed {
            Ok(()) => Backlog::Sealed,
            Err(error) => Backlog::Open(Some(error)),
        }
    }
}

/// An IPv4 peer of a dual-stack socket as what it is. Only then: an IPv6 address has a scope to keep.
fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => peer,
        SocketAddr::V6(v6) => v6.ip().to_ipv4_mapped().map_or(peer, |ip| SocketAddr::new(ip.into(), v6.port())),
    }
}

fn unix_path_of(peer: SocketAddrAny) -> Option<PathBuf> {
    let peer = rustix::net::SocketAddrUnix::try_from(peer).ok()?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(peer.path_bytes()?)))
}

#[cfg(target_os = "linux")]
fn accept_nonblocking(socket: &socket2::Socket) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    use rustix::net::{SocketFlags, acceptfrom_with};
    Ok(acceptfrom_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}

#[cfg(not(target_os = "linux"))]
fn accept_nonblocking(socket: &socket2::Socket) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (descriptor, peer) = rustix::net::acceptfrom(socket)?;
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&descriptor, true)?;
    Ok((descriptor, peer))
}

#[cfg(target_os = "linux")]
fn is_listening(socket: &socket2::Socket) -> io::Result<bool> {
    socket.is_listener()
}

/// Not to be asked here: the first accept will tell.
#[cfg(not(target_os = "linux"))]
fn is_listening(_: &socket2::Socket) -> io::Result<bool> {
    Ok(true)
}
