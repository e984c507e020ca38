//! Keeps newcomers out where the filter on a listening socket is forbidden (P5a).
//!
//! Linux may ask for CAP_NET_ADMIN before it attaches a filter to a TCP socket, and a service in a container has no such thing. What
//! anybody may do is to share a port with himself, and to say by a program which of the sockets on it takes a new connection. So
//! each listener gets a sibling of which no SYN is good enough, and all newcomers are sent there:
//!
//! ```text
//!            ┌ listener 0 ┐  handshakes under way complete here,
//!  SYN ──▶   │ listener 1 │  and wait to be accepted
//!   │        ├────────────┤
//!   └─────▶  │  shunt 0   │  drops what has crossed a single router: IP_MINTTL 255 (RFC 5082)
//!            │  shunt 1   │
//!            └────────────┘
//! ```
//!
//! A handshake that has begun belongs to its listener and is not asked again where it wants to go. To the client it is as with
//! the filter: it sends its SYN again after a second, to a successor on the port or to nobody, who refuses.
//!
//! The kernel keeps the sockets of a port in an array, in the order in which they began to listen, and fills the hole that one
//! leaves with the last. With as many shunts as listeners, the place behind the listeners is always that of a shunt, or behind the
//! end, where the program counts for nothing and all who are left are shunts. So a shunt may be closed only after all listeners.
//!
//! Few systems send with a TTL of 255 and not 64 or 128. Their handshakes complete in a shunt, which is a listener like any
//! other: it is accepted from. Not used on a port that other processes share: their newcomers are not ours to turn away.

use super::{ReusePort, SocketOptions};
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
    /// The TTL below which a segment of IPv4 is dropped: `ip(7)`.
    MinTtl,
    SetOnly,
    libc::IPPROTO_IP,
    libc::IP_MINTTL,
    i32
);
sockopt_impl!(
    /// The hop limit below which a segment of IPv6 is dropped: `ipv6(7)`.
    MinHopCount,
    SetOnly,
    libc::IPPROTO_IPV6,
    libc::IPV6_MINHOPCOUNT,
    i32
);

/// What a segment is sent with at most, and so what only one that crossed no router still has.
const TTL_MAX: i32 = 255;
/// `BPF_RET | BPF_K`, of `linux/bpf_common.h`.
const RETURN: u16 = 0x06;

/// The shunts of a port: closed when the last who holds them lets go.
#[derive(Clone, Debug)]
pub(super) struct Decoys(Arc<Port>);

#[derive(Debug)]
struct Port {
    listeners: usize,
    options: SocketOptions,
    decoys: Mutex<Vec<Arc<Socket>>>,
}

impl Decoys {
    /// None yet, for a port with so many listeners.
    pub(super) fn new(listeners: usize, options: SocketOptions) -> Self {
        Self(Arc::new(Port { listeners, options, decoys: Mutex::default() }))
    }

    /// From now on `listener` and its siblings complete no handshake that has not begun. Who gets through nevertheless is to be accepted
    /// from the socket that this returns.
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
        // One at a time, so that the first is the one behind the listeners.
        let mut decoys = self.0.decoys.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.options.listen(&decoy)?;
        choose(&decoy, self.0.listeners)?;
        decoys.push(decoy.clone());
        Ok(decoy)
    }

    fn open(&self, local: SocketAddr) -> io::Result<Socket> {
        let decoy = super::network::tcp_socket(local)?;
        decoy.set_nonblocking(true)?;
        decoy.set_reuse_address(true)?;
        decoy.set_reuse_port(true)?;
        // Both, if it takes clients of both families.
        MinTtl.set(&decoy, &TTL_MAX)?;
        if local.is_ipv6() {
            MinHopCount.set(&decoy, &TTL_MAX)?;
        }
        self.0.options.apply_to_connection(&decoy)?;
        decoy.bind(&SockAddr::from(local))?;
        Ok(decoy)
    }
}

/// From now on newcomers to the port of `socket` go to the one of its sockets with this place.
fn choose(socket: &impl AsFd, place: usize) -> io::Result<()> {
    let k = u32::try_from(place).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut instruction = libc::sock_filter { code: RETURN, jt: 0, jf: 0, k };
    let program = libc::sock_fprog { len: 1, filter: &raw mut instruction };
    Ok(AttachReusePortCbpf.set(socket, &program)?)
}
