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
//!
//! The kernel reveals a holder only to a process that connects to it. Each check leaves a
//! connection in the holder's queue, and a full queue refuses further checks. So the listeners of
//! the port also accept these connections, and drop them.

use super::accept::{accept_nonblocking, is_empty};
use rustix::{
    fd::{AsFd, OwnedFd},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
        sockopt::socket_peercred,
    },
    process::geteuid,
};
use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::io::{Interest, unix::AsyncFd};

/// Holds the lock on an address until it is dropped.
#[derive(Debug)]
pub(super) struct PortLock(Option<Arc<OwnedFd>>);

/// The connections of processes that checked a lock. A listener of the port discards them.
#[derive(Debug)]
pub(super) struct LockChecks(AsyncFd<Arc<OwnedFd>>);

impl LockChecks {
    /// Discards one connection, if there is any. If there was, wakes the task for the next one.
    pub(super) fn poll_discard(&self, cx: &mut Context<'_>) {
        while let Poll::Ready(Ok(mut ready)) = self.0.poll_read_ready(cx) {
            match accept_nonblocking(self.0.get_ref().as_fd()) {
                Ok(_) => return cx.waker().wake_by_ref(),
                Err(error) if is_empty(&error) => ready.clear_ready(),
                // Such as no free descriptor: the next poll tries again.
                Err(_) => return,
            }
        }
    }
}

impl PortLock {
    /// Locks `address`. If no name is free, the port stays unlocked: a later process of the same
    /// user may then share it.
    pub(super) fn set(address: SocketAddr) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        for number in 0..NAMES {
            // Processes of several containers may have the same id and the same network.
            let name = format!("{NAME_PREFIX}{address} {}.{number}", std::process::id());
            match bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?) {
                Err(Errno::ADDRINUSE) => {}
                bound => {
                    bound?;
                    // Only a listening socket reveals its user to a peer.
                    listen(&socket, BACKLOG)?;
                    return Ok(Self(Some(Arc::new(socket))));
                }
            }
        }
        Ok(Self(None))
    }

    /// Returns the value for a shared port, which has no lock.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Registers with the reactor of the current runtime. Returns `None` if the port is not locked,
    /// or if that is not possible: then the queue holds [`BACKLOG`] checks.
    pub(super) fn checks(&self) -> Option<LockChecks> {
        #[expect(
            deprecated,
            reason = "its successor is unsafe to call with an owner that swaps descriptors; an \
                      OwnedFd does not"
        )]
        let registered = AsyncFd::with_interest(self.0.clone()?, Interest::READABLE);
        registered.ok().map(LockChecks)
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
/// Checks that the queue holds until a listener is polled.
const BACKLOG: i32 = 4096;
