//! A mark on a port that is ours alone.
//!
//! The workers of one process share a port by `SO_REUSEPORT`, and that lets in every process of the same user that sets it too,
//! whenever it was set: a second instance with `--reuse-port` would join one that never agreed (P14). The kernel keeps no record
//! of what we meant, so we do: a name in the abstract Unix namespace, which belongs to the same network namespace as the port and
//! vanishes with its socket, however the process ends.
//!
//! Every user of the machine may bind such names. So nothing depends on a name that another user
//! could take first: the holder adds its process id, the others find it in the system's list, and
//! only a holder of the same user counts. Another user's sockets cannot share the port anyway.

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

/// Set on an address for as long as it lives.
#[derive(Debug)]
pub(super) struct PortLock(
    #[expect(dead_code, reason = "held: the name lives as long as its socket")] Option<OwnedFd>,
);

impl PortLock {
    /// Marks `address`. Without a free name the port is not marked: a later process of the same
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
                    // Only a socket that listens tells others its user.
                    listen(&socket, QUEUE)?;
                    return Ok(Self(Some(socket)));
                }
            }
        }
        Ok(Self(None))
    }

    /// The mark of a port that is shared: none.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Whether a process of this user has marked this address, one that it covers, or one that
    /// covers it. The list of names is that of `proc(5)`; where it cannot be read the kernel may
    /// still refuse the port.
    pub(super) fn covers(address: SocketAddr) -> bool {
        let names = std::fs::read("/proc/net/unix").unwrap_or_default();
        let names = String::from_utf8_lossy(&names);
        let marked = names.lines().filter_map(|line| line.split_once(&format!("@{NAME_PREFIX}")));
        let is_meant = |rest: &str| {
            let marked = rest.split(' ').next().and_then(|address| address.parse().ok());
            marked.is_some_and(|marked| overlap(marked, address))
        };
        marked.into_iter().any(|(_, rest)| {
            is_meant(rest) && is_held_by_this_user(&format!("{NAME_PREFIX}{rest}"))
        })
    }
}

/// Whether a client could mean both.
pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |one: SocketAddr, other: SocketAddr| {
        one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4())
    };
    one.port() == other.port()
        && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
}

/// No name that a stranger can hold counts, nor one that does not say whose it is.
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
/// Names that are tried for one mark.
const NAMES: u32 = 16;
/// Processes that may ask for a mark in its life; nothing is ever accepted.
const QUEUE: i32 = 4096;
