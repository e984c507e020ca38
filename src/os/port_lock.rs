//! A lock on a port that belongs to this process alone.
//!
//! The workers of one process share a port by `SO_REUSEPORT`. That also admits every process of the
//! same user that sets the option, no matter when: a second instance with `--reuse-port` would join
//! an instance without it (P14). The kernel does not record which sharing was intended. This lock
//! does: it is a name in the abstract Unix namespace. The name belongs to the same network
//! namespace as the port and vanishes with its socket, however the process ends.
//!
//! Every user of the machine may bind such names. So nothing depends on a name that another user
//! could take first. The holder adds its process id, other processes find it in the system's list,
//! and only a holder of the same user counts. Another user's sockets cannot share the port anyway.

use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
        sockopt::socket_peercred,
    },
    process::geteuid,
};
use std::{io, net::SocketAddr};

/// Holds the lock on an address until it is dropped.
#[derive(Debug)]
pub(super) struct PortLock(
    #[expect(dead_code, reason = "held: the name lives as long as its socket")] Option<OwnedFd>,
);

impl PortLock {
    /// Locks `address`. If no name is free, the port stays unlocked: a later process of the same
    /// user may then share it.
    pub(super) fn set(address: SocketAddr) -> io::Result<Self> {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        for number in 0..NAMES {
            // Processes of several containers may have the same id and the same network.
            let name = format!("{NAME_PREFIX}{address} {}.{number}", std::process::id());
            match bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?) {
                Err(Errno::ADDRINUSE) => {}
                bound => {
                    bound?;
                    // Only a listening socket reveals its user to a peer.
                    listen(&socket, BACKLOG)?;
                    return Ok(Self(Some(socket)));
                }
            }
        }
        Ok(Self(None))
    }

    /// Returns the value for a shared port, which has no lock.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Returns whether a process of this user has locked this address, one that it covers, or one
    /// that covers it. The names are listed as in `proc(5)`. Where the list cannot be read, the
    /// kernel may still refuse the port.
    pub(super) fn covers(address: SocketAddr) -> bool {
        let names = std::fs::read("/proc/net/unix").unwrap_or_default();
        let names = String::from_utf8_lossy(&names);
        let marked = names.lines().filter_map(|line| line.split_once(&format!("@{NAME_PREFIX}")));
        let is_for_address = |rest: &str| {
            let marked = rest.split(' ').next().and_then(|address| address.parse().ok());
            marked.is_some_and(|marked| overlap(marked, address))
        };
        marked.into_iter().any(|(_, rest)| {
            is_for_address(rest) && is_held_by_this_user(&format!("{NAME_PREFIX}{rest}"))
        })
    }
}

/// Returns whether one client address can reach both.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |one: SocketAddr, other: SocketAddr| {
        one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4())
    };
    one.port() == other.port()
        && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
}

/// A name held by another user does not count, nor one that does not reveal its user.
fn is_held_by_this_user(name: &str) -> bool {
    let holder = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        socket_peercred(&socket)
    };
    holder().is_ok_and(|holder| holder.uid == geteuid())
}

const NAME_PREFIX: &str = "lameduck exclusive ";
/// Maximum number of names that are tried for one lock.
const NAMES: u32 = 16;
/// Processes that can check a lock while it is held; their connections are never accepted.
const BACKLOG: i32 = 4096;
