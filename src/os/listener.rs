//! Accepts connections from a listening socket.
//!
//! A listener is created on one thread and used on another, so it joins a runtime only when it is
//! first polled there. While it serves, it calls `accept` only after the reactor has reported
//! readiness. Once it is quiesced it calls `accept` on every poll: "until the queue is empty" must
//! mean the kernel's queue, not the reactor's view of it (P5a).

use super::{
    SocketOptions, SpareFds,
    accept::{AcceptedStream, accept_tcp, accept_unix, canonical, is_empty},
    port_lock::{LockChecks, PortLock},
    quiesce::{DecoyListener, Seal},
    socket_options::{ReusePort, tcp_address},
    spare_fds::is_out_of_descriptors,
    transport::Socket,
    unix_path::UnixPath,
};
use crate::runtime::{Address, Listener, QuiesceOutcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::net::{TcpListener, UnixListener};
#[cfg(target_os = "linux")]
use tokio::runtime::{Handle, RuntimeFlavor};

/// A listening TCP or Unix socket.
#[derive(Debug)]
pub struct OsListener {
    // The path comes before the socket, because fields are dropped in order: see `UnixPath`.
    ownership: Ownership,
    socket: SocketState,
    local: Address,
    options: SocketOptions,
    spare_fds: Option<SpareFds>,
    accept_source: AcceptSource,
    lock_checks: Option<LockChecks>,
    /// The runtime of the first poll, on which the listener and its connections are registered.
    runtime: Option<Handle>,
    // After the socket: the seal must stay in place until the socket is closed.
    seal: Seal,
    decoy: DecoyListener,
}

/// Owner of the socket, which decides how it is closed.
#[derive(Clone, Debug)]
pub(super) enum Ownership {
    /// A port that this process bound, with its lock.
    Tcp(SharedPortLock),
    /// A path that this process bound.
    Unix(Arc<UnixPath>),
    /// A socket inherited from another process, which will pass it to a successor.
    Inherited,
}

/// Shared by all listeners of the port: the lock on it, if it is exclusive. (Outside Linux the
/// bound port itself is enough.)
pub(super) type SharedPortLock = Option<Arc<PortLock>>;

/// State of the socket.
#[derive(Debug)]
enum SocketState {
    /// Listening, but not polled yet.
    Made(socket2::Socket),
    /// Registered with the reactor.
    Tcp(TcpListener),
    /// Registered with the reactor.
    Unix(UnixListener),
}

/// Source of the information whether a connection is pending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AcceptSource {
    /// The reactor. `accept` is called only if it reports readiness.
    Reactor,
    /// The kernel. `accept` is called on every poll.
    Kernel,
}

impl OsListener {
    pub(super) fn new(
        socket: socket2::Socket,
        local: Address,
        ownership: Ownership,
        options: SocketOptions,
        seal: Seal,
    ) -> Self {
        let socket = SocketState::Made(socket);
        Self {
            ownership,
            socket,
            local,
            options,
            spare_fds: None,
            accept_source: AcceptSource::Reactor,
            lock_checks: None,
            runtime: None,
            seal,
            decoy: None,
        }
    }

    /// Returns a listener from a descriptor that another process, such as a service manager, bound
    /// and listens on. At a shutdown its queue is left to the successor, see
    /// [`is_inherited`](Listener::is_inherited).
    ///
    /// The options in `options` that concern connections apply to its connections. The socket's own
    /// options stay as they are, except that it becomes non-blocking and close-on-exec.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a listening TCP or Unix stream socket; otherwise errors of the
    /// system.
    pub fn inherited(descriptor: OwnedFd, options: SocketOptions) -> io::Result<Self> {
        let (socket, local) = listening_socket(descriptor)?;
        let seal = Seal::new(1, &options);
        Ok(Self::new(socket, local, Ownership::Inherited, options, seal))
    }

    /// When descriptors run out, accepts with those of `spare_fds`. They return there when such a
    /// connection is dropped.
    #[must_use]
    pub fn with_spare_fds(self, spare_fds: SpareFds) -> Self {
        Self { spare_fds: Some(spare_fds), ..self }
    }

    /// Registers the socket, and the lock of its port, with the reactor.
    fn enter_runtime(&mut self) -> io::Result<()> {
        if !matches!(self.socket, SocketState::Made(_)) {
            return Ok(());
        }
        self.socket.enter_runtime(&self.local)?;
        if let Ownership::Tcp(Some(lock)) = &self.ownership {
            self.lock_checks = lock.checks();
        }
        Ok(())
    }

    fn poll_accept_once(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(AcceptedStream, Address)>> {
        if let Some(checks) = &self.lock_checks {
            checks.poll_discard(cx);
        }
        // Poll the reactor first, even if the kernel is queried next: this registers the waker.
        let polled = self.socket.poll_accept(cx);
        match (polled, self.accept_source) {
            (Poll::Pending, AcceptSource::Kernel) => {
                let outcome = match (self.socket.accept_now(), &self.decoy) {
                    (Err(error), Some(decoy)) if is_empty(&error) => accept_tcp(decoy.as_fd()),
                    (outcome, _) => outcome,
                };
                if outcome.as_ref().is_err_and(is_empty) {
                    Poll::Pending
                } else {
                    Poll::Ready(outcome)
                }
            }
            (polled, AcceptSource::Reactor | AcceptSource::Kernel) => polled,
        }
    }

    /// Returns whether a connection can be accepted according to the kernel. Needs no descriptor.
    fn has_queued(&self) -> bool {
        let mut sockets = vec![PollFd::from_borrowed_fd(self.socket.descriptor(), PollFlags::IN)];
        sockets.extend(self.decoy.iter().map(|decoy| PollFd::new(&**decoy, PollFlags::IN)));
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        // If the call fails, assume a connection: an extra `accept` is better than a lost
        // connection.
        let polled = rustix::io::retry_on_intr(|| poll(&mut sockets, Some(&at_once)));
        polled.map_or(true, |readable| readable > 0)
    }

    fn configure(&self, stream: AcceptedStream) -> Socket {
        match stream {
            AcceptedStream::Tcp(stream) => {
                if !self.options_are_inherited() {
                    // Fails if the peer is gone already; the next read will find that out.
                    let _ = self.options.apply_to_connection(&SockRef::from(&stream));
                }
                Socket::from(stream).with_spare_fds(self.spare_fds.clone())
            }
            AcceptedStream::Unix(stream) => {
                Socket::from(stream).with_spare_fds(self.spare_fds.clone())
            }
        }
    }

    fn refill_spare_fds(&self) {
        if let Some(spare_fds) = &self.spare_fds {
            spare_fds.refill();
        }
    }

    /// On Linux a connection inherits the options of its listener. An inherited socket has none set
    /// by us.
    fn options_are_inherited(&self) -> bool {
        match self.ownership {
            Ownership::Tcp(_) | Ownership::Unix(_) => cfg!(target_os = "linux"),
            Ownership::Inherited => false,
        }
    }
}

impl Listener for OsListener {
    type Io = Socket;
    #[cfg(target_os = "linux")]
    type IdlePoller = super::EpollPoller;
    #[cfg(not(target_os = "linux"))]
    type IdlePoller = crate::runtime::NoIdlePoller<Socket>;

    /// Returns `None` if the listener has spare descriptors, and on a multi-threaded runtime,
    /// because one task serves all connections of a poller.
    #[cfg(target_os = "linux")]
    fn idle_poller(&self) -> Option<super::EpollPoller> {
        let has_one_thread = Handle::current().runtime_flavor() == RuntimeFlavor::CurrentThread;
        if self.spare_fds.is_some() || !has_one_thread {
            return None;
        }
        match super::EpollPoller::new() {
            Ok(poller) => Some(poller),
            Err(error) => {
                crate::log::warn!(
                    %error,
                    "cannot create an epoll instance; every idle connection keeps a task"
                );
                None
            }
        }
    }

    /// # Panics
    /// Panics outside of a tokio runtime with I/O enabled.
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Socket, Address)>> {
        self.refill_spare_fds();
        // A handler may have made another runtime current on this thread.
        let runtime = self.runtime.get_or_insert_with(Handle::current).clone();
        let _entered = runtime.enter();
        loop {
            let outcome = match self.enter_runtime() {
                Ok(()) => self.poll_accept_once(cx),
                Err(error) => Poll::Ready(Err(error)),
            };
            if let Poll::Ready(Err(error)) = &outcome {
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                if is_out_of_descriptors(error) {
                    // Without a free descriptor the kernel returns an error even if the queue is
                    // empty.
                    if self.accept_source == AcceptSource::Kernel && !self.has_queued() {
                        self.refill_spare_fds();
                        return Poll::Pending;
                    }
                    // Another thread may take the freed descriptor. Then the next spare is closed,
                    // until none is left.
                    if self.spare_fds.as_ref().is_some_and(SpareFds::release_one) {
                        continue;
                    }
                }
            }
            if !matches!(outcome, Poll::Ready(Ok(_))) {
                // No connection took the freed descriptor.
                self.refill_spare_fds();
            }
            return outcome.map_ok(|(stream, peer)| (self.configure(stream), peer));
        }
    }

    fn local(&self) -> Address {
        self.local.clone()
    }

    fn is_port_shared(&self) -> bool {
        match self.ownership {
            Ownership::Tcp(_) => self.options.reuse_port == ReusePort::Yes,
            Ownership::Unix(_) | Ownership::Inherited => false,
        }
    }

    fn is_inherited(&self) -> bool {
        matches!(self.ownership, Ownership::Inherited)
    }

    fn quiesce(&mut self) -> QuiesceOutcome {
        self.accept_source = AcceptSource::Kernel;
        let sealed = match (&self.ownership, &self.local) {
            (Ownership::Tcp(_), Address::Tcp(local)) => self
                .seal
                .drop_new_handshakes(self.socket.descriptor(), *local)
                .map(|decoy| self.decoy = decoy),
            (Ownership::Unix(path), _) => path.unlink(),
            (Ownership::Tcp(_), Address::Unix(_)) | (Ownership::Inherited, _) => {
                Err(io::ErrorKind::InvalidInput.into())
            }
        };
        match sealed {
            Ok(()) => QuiesceOutcome::Sealed,
            Err(error) => QuiesceOutcome::Open(Some(error)),
        }
    }

    /// A Unix socket has no handshakes: a connect either is complete or did not happen.
    fn handshakes(&self) -> Option<usize> {
        match &self.local {
            Address::Tcp(local) => self.seal.handshakes(*local),
            Address::Unix(_) => Some(0),
        }
    }
}

impl SocketState {
    fn enter_runtime(&mut self, local: &Address) -> io::Result<()> {
        let Self::Made(socket) = self else { return Ok(()) };
        // tokio closes a socket that it cannot register. The next poll tries again with this one.
        let duplicate = socket.try_clone()?;
        *self = match local {
            Address::Tcp(_) => Self::Tcp(TcpListener::from_std(duplicate.into())?),
            Address::Unix(_) => Self::Unix(UnixListener::from_std(duplicate.into())?),
        };
        Ok(())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Made(socket) => socket.as_fd(),
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }

    /// Accepts a connection if the reactor has reported readiness.
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(AcceptedStream, Address)>> {
        match self {
            Self::Tcp(listener) => listener.poll_accept(cx).map_ok(|(stream, peer)| {
                (AcceptedStream::Tcp(stream), Address::Tcp(canonical(peer)))
            }),
            Self::Unix(listener) => listener.poll_accept(cx).map_ok(|(stream, peer)| {
                (AcceptedStream::Unix(stream), Address::Unix(peer.as_pathname().map(PathBuf::from)))
            }),
            Self::Made(_) => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    /// Accepts a connection from the kernel, or returns `WouldBlock`.
    fn accept_now(&self) -> io::Result<(AcceptedStream, Address)> {
        match self {
            Self::Unix(listener) => accept_unix(listener.as_fd()),
            Self::Tcp(_) | Self::Made(_) => accept_tcp(self.descriptor()),
        }
    }
}

/// Checks that a descriptor is a listening stream socket, and makes it non-blocking and
/// close-on-exec. Returns it with its address.
pub(super) fn listening_socket(descriptor: OwnedFd) -> io::Result<(socket2::Socket, Address)> {
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
    Ok((socket, local))
}

#[cfg(target_os = "linux")]
fn is_listening(socket: &socket2::Socket) -> io::Result<bool> {
    socket.is_listener()
}

/// Not available on this system: the first `accept` fails instead.
#[cfg(not(target_os = "linux"))]
fn is_listening(_: &socket2::Socket) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        os::OsNetwork,
        runtime::{ListenAddress, Network, Reservation, ServerRole},
    };
    use std::{future::poll_fn, time::Duration};

    fn is_private_and_nonblocking(descriptor: &BorrowedFd<'_>) -> bool {
        let flags = rustix::io::fcntl_getfd(descriptor).unwrap();
        flags.contains(rustix::io::FdFlags::CLOEXEC)
            && SockRef::from(descriptor).nonblocking().unwrap()
    }

    async fn options_of_a_connection_to(mut listener: OsListener) -> (bool, bool, Duration, bool) {
        let address = listener.local().tcp().unwrap();
        let _client = std::net::TcpStream::connect(address).unwrap();
        let (connection, _) = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        let descriptor = connection.descriptor().unwrap();
        let socket = SockRef::from(&descriptor);
        (
            socket.tcp_nodelay().unwrap(),
            socket.keepalive().unwrap(),
            socket.tcp_keepalive_time().unwrap(),
            is_private_and_nonblocking(&descriptor),
        )
    }

    #[tokio::test]
    async fn connections_have_the_options_however_the_listener_came_to_be() {
        let options =
            SocketOptions { keepalive: Some(Duration::from_secs(33)), ..SocketOptions::default() };
        let expected = (true, true, Duration::from_secs(33), true);

        let address: ListenAddress = "127.0.0.1:0".parse().unwrap();
        for kept in 0..2 {
            // The other one is closed, so that the connection arrives at this one.
            let mut siblings = OsNetwork::new(options.clone())
                .reserve(&address, ServerRole::Main, 2)
                .unwrap()
                .listen()
                .await
                .unwrap();
            let kept = siblings.swap_remove(kept);
            drop(siblings);
            assert_eq!(options_of_a_connection_to(kept).await, expected);
        }

        let inherited = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let inherited = OsListener::inherited(inherited.into(), options).unwrap();
        assert_eq!(options_of_a_connection_to(inherited).await, expected);
    }

    /// A reactor without memory for one more registration refused a listener, which was lost: its
    /// worker accepted nothing more. The next poll must try again (P15).
    #[tokio::test]
    async fn a_listener_that_the_reactor_refuses_is_kept() {
        // epoll refuses a regular file.
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        rustix::io::ioctl_fionbio(&file, true).unwrap();
        let mut state = SocketState::Made(OwnedFd::from(file).into());
        for _ in 0..2 {
            let refused = state.enter_runtime(&Address::Tcp(([127, 0, 0, 1], 1).into()));
            assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
            assert!(matches!(state, SocketState::Made(_)));
        }
    }

    #[tokio::test]
    async fn connections_of_a_quiesced_listener_are_close_on_exec_and_do_not_block() {
        let address: ListenAddress = "127.0.0.1:0".parse().unwrap();
        let mut listener = OsNetwork::default()
            .reserve(&address, ServerRole::Main, 1)
            .unwrap()
            .listen()
            .await
            .unwrap()
            .remove(0);
        let _client = std::net::TcpStream::connect(listener.local().tcp().unwrap()).unwrap();
        listener.quiesce();
        let (connection, _) = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        let descriptor = connection.descriptor().unwrap();
        assert!(is_private_and_nonblocking(&descriptor));
        let socket = listener.socket.descriptor();
        assert!(is_private_and_nonblocking(&socket));
    }
}
