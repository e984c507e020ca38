//! Keeps new connections out where a filter on a listening socket is forbidden (P5a).
//!
//! Linux may require CAP_NET_ADMIN to attach a filter to a TCP socket, and a service in a container
//! usually lacks it. Without privileges, a process may join its own SO_REUSEPORT group and attach a
//! program that selects the socket for each new connection. Each listener therefore gets a decoy
//! that rejects every SYN, and the program sends all new connections to the decoys:
//!
//! ```text
//!            ┌ listener 0 ┐  handshakes in progress complete here,
//!  SYN ──▶   │ listener 1 │  and wait to be accepted
//!   │        ├────────────┤
//!   └─────▶  │  decoy 0   │  drops what has crossed a single router: IP_MINTTL 255 (RFC 5082)
//!            │  decoy 1   │
//!            └────────────┘
//! ```
//!
//! A handshake that has begun belongs to its listener and is not selected again. For the client the
//! effect is that of the filter: it repeats its SYN after a second. A successor on the port then
//! accepts it, or the kernel refuses it.
//!
//! The kernel keeps the sockets of a port in an array, in the order in which they began to listen.
//! It fills the gap of a closed socket with the last one. The program selects the index after the
//! listeners. With as many decoys as listeners, that index always holds a decoy or is past the end.
//! Past the end the kernel ignores the program, and then all remaining sockets are decoys. So a
//! decoy may be closed only after all listeners.
//!
//! Few systems send with a TTL of 255 instead of 64 or 128. Their handshakes complete in a decoy,
//! so connections are accepted from decoys too. Decoys are not used on a port that other processes
//! share: this process must not turn away the new connections of others.

use super::socket_options::{ReusePort, SocketOptions, tcp_socket};
use nix::{
    libc, setsockopt_impl, sockopt_impl,
    sys::socket::{SetSockOpt, sockopt::AttachReusePortCbpf},
};
use socket2::{SockAddr, SockRef, Socket};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    sync::{Arc, Mutex, PoisonError},
};

sockopt_impl!(
    /// TTL below which an IPv4 segment is dropped: `ip(7)`.
    MinTtl,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MINTTL,
    i32
);
sockopt_impl!(
    /// Hop limit below which an IPv6 segment is dropped: `ipv6(7)`.
    MinHopCount,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MINHOPCOUNT,
    i32
);

/// Highest TTL a segment can be sent with. A segment still has it only if it crossed no router.
const TTL_MAX: i32 = 255;
/// `BPF_RET | BPF_K`, of `linux/bpf_common.h`.
const RETURN: u16 = 0x06;

/// The decoys of a port. They are closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Decoys(Arc<Port>);

#[derive(Debug)]
struct Port {
    listeners: usize,
    options: SocketOptions,
    decoys: Mutex<Vec<Arc<Socket>>>,
}

impl Decoys {
    /// Returns a set without decoys, for a port with `listeners` listeners.
    pub(super) fn new(listeners: usize, options: SocketOptions) -> Self {
        Self(Arc::new(Port { listeners, options, decoys: Mutex::default() }))
    }

    /// From now on `listener` and its siblings complete no handshake that has not begun. Accept the
    /// connections that get through nevertheless from the returned socket.
    pub(super) fn divert_new_connections(
        &self,
        listener: BorrowedFd<'_>,
        local: SocketAddr,
    ) -> io::Result<Arc<Socket>> {
        if self.0.options.reuse_port == ReusePort::Yes {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "other processes share the port",
            ));
        }
        SockRef::from(&listener).set_reuse_port(true)?;
        let decoy = Arc::new(self.open(local)?);
        // One at a time, so that the first decoy gets the index after the listeners.
        let mut decoys = self.0.decoys.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.options.listen(&decoy)?;
        route_new_connections_to(&decoy, self.0.listeners)?;
        decoys.push(decoy.clone());
        Ok(decoy)
    }

    fn open(&self, local: SocketAddr) -> io::Result<Socket> {
        let decoy = tcp_socket(local)?;
        decoy.set_nonblocking(true)?;
        decoy.set_reuse_address(true)?;
        decoy.set_reuse_port(true)?;
        // Set both: a dual-stack socket takes clients of both families.
        MinTtl.set(&decoy, &TTL_MAX)?;
        if local.is_ipv6() {
            MinHopCount.set(&decoy, &TTL_MAX)?;
        }
        self.0.options.apply_to_connection(&decoy)?;
        decoy.bind(&SockAddr::from(local))?;
        Ok(decoy)
    }
}

/// From now on the kernel sends new connections on the port of `socket` to the socket at index
/// `place`.
fn route_new_connections_to(socket: &impl AsFd, place: usize) -> io::Result<()> {
    let k = u32::try_from(place).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut instruction = libc::sock_filter { code: RETURN, jt: 0, jf: 0, k };
    let program = libc::sock_fprog { len: 1, filter: &raw mut instruction };
    Ok(AttachReusePortCbpf.set(socket, &program)?)
}
