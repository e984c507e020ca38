//! Options of the sockets that a network opens.

use socket2::{Domain, Socket, TcpKeepalive, Type};
use std::{io, net::SocketAddr, time::Duration};

/// Whether other processes of the same user may listen on the same ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReusePort {
    /// A second instance is refused with `AddrInUse`. The default.
    #[default]
    No,
    /// Every process with this option shares the port, and the kernel spreads connections over
    /// them.
    Yes,
}

/// Options of the sockets that a network opens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SocketOptions {
    /// Connections that the kernel completes and queues before they are accepted, for each
    /// listener. Default 4096; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Sends small writes at once (`TCP_NODELAY`). Default on: without it pipelined requests run at
    /// a tenth of the speed.
    pub nodelay: bool,
    /// Time without traffic after which the kernel sends keepalive probes to a TCP peer. It sends
    /// four, at intervals of a quarter of this time, and then drops the connection. Whole seconds,
    /// at least one. Default 60 s; `None` sends no probes.
    pub keepalive: Option<Duration>,
    /// Whether other processes may listen on the same port. Default no.
    pub reuse_port: ReusePort,
    /// Permissions of the Unix sockets that are bound, such as `0o660`. Default: `None`, which
    /// leaves them to the umask.
    pub unix_mode: Option<u32>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        let keepalive = Some(Duration::from_secs(60));
        Self { backlog: 4096, nodelay: true, keepalive, reuse_port: ReusePort::No, unix_mode: None }
    }
}

/// Setters for a chain: `SocketOptions::default().backlog(128)`.
impl SocketOptions {
    /// Sets [`backlog`](#structfield.backlog).
    #[must_use]
    pub const fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sets [`nodelay`](#structfield.nodelay).
    #[must_use]
    pub const fn nodelay(mut self, nodelay: bool) -> Self {
        self.nodelay = nodelay;
        self
    }

    /// Sets [`keepalive`](#structfield.keepalive).
    #[must_use]
    pub const fn keepalive(mut self, keepalive: Option<Duration>) -> Self {
        self.keepalive = keepalive;
        self
    }

    /// Sets [`reuse_port`](#structfield.reuse_port).
    #[must_use]
    pub const fn reuse_port(mut self, reuse_port: ReusePort) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// Sets [`unix_mode`](#structfield.unix_mode).
    #[must_use]
    pub const fn unix_mode(mut self, unix_mode: Option<u32>) -> Self {
        self.unix_mode = unix_mode;
        self
    }
}

impl SocketOptions {
    /// Sets the options of a TCP connection. On Linux a connection inherits them from its listener,
    /// which saves these calls at every accept.
    pub(super) fn apply_to_connection(&self, socket: &Socket) -> io::Result<()> {
        // A connection that this process does not close itself ends with a reset: see
        // `transport::Close`.
        socket.set_linger(Some(Duration::ZERO))?;
        socket.set_tcp_nodelay(self.nodelay)?;
        if let Some(silence) = self.keepalive {
            let silence = silence.max(Duration::from_secs(1));
            let interval = (silence / 4).max(Duration::from_secs(1));
            socket.set_tcp_keepalive(
                &TcpKeepalive::new().with_time(silence).with_interval(interval).with_retries(4),
            )?;
        }
        Ok(())
    }

    pub(super) fn listen(&self, socket: &Socket) -> io::Result<()> {
        socket.listen(i32::try_from(self.backlog).unwrap_or(i32::MAX))
    }
}

pub(super) fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    // socket2 sets close-on-exec. A child that inherited a listener would keep its queue open after
    // this process has ended.
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// Returns the TCP address that a socket is bound to.
pub(super) fn tcp_address(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
