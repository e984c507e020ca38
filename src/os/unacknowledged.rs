//! Counts the bytes of a TCP connection that its peer has not acknowledged.
//!
//! A completed write proves nothing about the peer: the kernel buffers megabytes. Acknowledged
//! bytes are progress. The usual way is the `SIOCOUTQ` ioctl, which no crate offers as a safe call.
//! The kernel reports the same number (`write_seq - snd_una`) through [`sock_diag`], which needs
//! only messages. One request costs a few microseconds. It is made rarely: for peers that a drain
//! waits for.

use super::sock_diag::{self, DiagRequest, Dump, REQUEST, SOCK_DIAG_BY_FAMILY, u16_at, u32_at};
use socket2::SockRef;
use std::os::fd::AsFd;
use std::{
    cell::{Cell, OnceCell},
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::OwnedFd,
};

/// Returns the number of bytes written to `stream` and not acknowledged, if the kernel reports it.
pub(super) fn ask(stream: &impl AsFd) -> Option<usize> {
    let socket = SockRef::from(stream);
    // It fails if both sides have closed. As the first call it then saves the others.
    let peer = socket.peer_addr().ok()?.as_socket()?;
    let local = socket.local_addr().ok()?.as_socket()?;
    let cookie = socket.cookie().ok()?;
    NETLINK.with(|netlink| netlink.ask(local, peer, cookie))
}

/// The connections of this machine whose sending sides are shut, and whose peers have not
/// acknowledged everything before the FIN. Each has its cookie and its bytes.
#[derive(Debug)]
pub(super) struct ShutConnections(BTreeMap<u64, usize>);

/// The TCP states between our FIN and its acknowledgement, of `linux/tcp_states.h`, as bits:
/// `TCP_FIN_WAIT1`, `TCP_LAST_ACK`, `TCP_CLOSING`.
const FIN_SENT: u32 = 1 << 4 | 1 << 9 | 1 << 11;
/// Enough for some thousand connections.
const DATAGRAMS_MAX: usize = 64;

impl ShutConnections {
    /// Dumps them, which costs less than a question for each of many. `None` if the kernel does not
    /// report them, or there are very many.
    pub(super) fn dump() -> Option<Self> {
        let mut found = BTreeMap::new();
        let request = sock_diag::dump_of_both_families(FIN_SENT);
        let netlink = sock_diag::open().ok()?;
        let dumped = sock_diag::dump(&netlink, &request, DATAGRAMS_MAX, |message| {
            // The FIN counts as a byte.
            let unacknowledged = send_queue(message)?;
            if unacknowledged > 1 {
                found.insert(cookie(message)?, unacknowledged);
            }
            Some(())
        })?;
        (dumped == Dump::Complete).then_some(Self(found))
    }

    /// Returns the number of bytes written to `stream` and not acknowledged by the time of the
    /// dump. `stream` was shut before.
    pub(super) fn unacknowledged(&self, stream: &impl AsFd) -> Option<usize> {
        if self.0.is_empty() {
            return Some(0);
        }
        let cookie = SockRef::from(stream).cookie().ok()?;
        Some(self.0.get(&cookie).copied().unwrap_or(0))
    }
}

thread_local! {
    static NETLINK: NetlinkSocket =
        const { NetlinkSocket { netlink: OnceCell::new(), asked: Cell::new(0) } };
}

/// A thread's netlink socket.
struct NetlinkSocket {
    netlink: OnceCell<OwnedFd>,
    asked: Cell<u32>,
}

impl NetlinkSocket {
    fn ask(&self, local: SocketAddr, peer: SocketAddr, cookie: u64) -> Option<usize> {
        let netlink = self.netlink()?;
        let number = self.asked.get().wrapping_add(1);
        self.asked.set(number);
        // Match every TCP state.
        DiagRequest { flags: REQUEST, number, states: u32::MAX, local, peer, cookie }
            .send(netlink)?;
        loop {
            let mut bytes = [0; 512];
            let message = sock_diag::receive(netlink, &mut bytes)?;
            // Skip the response to an earlier request that was not received in time.
            if u32_at(message, 8) == Some(number) {
                return answer(message);
            }
        }
    }

    fn netlink(&self) -> Option<&OwnedFd> {
        if self.netlink.get().is_none() {
            let _ = self.netlink.set(sock_diag::open().ok()?);
        }
        self.netlink.get()
    }
}

/// Extracts the send queue from an `nlmsghdr` and an `inet_diag_msg`.
fn answer(message: &[u8]) -> Option<usize> {
    const HEADER_BYTES: usize = 16;
    if u16_at(message, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    send_queue(message.get(HEADER_BYTES..)?)
}

/// Extracts the send queue from an `inet_diag_msg`. Before it come 4 bytes of state, 48 of
/// identity, the timer's expiry and the receive queue.
fn send_queue(message: &[u8]) -> Option<usize> {
    usize::try_from(u32_at(message, 4 + 48 + 4 + 4)?).ok()
}

/// Extracts the cookie, with which the identity ends.
fn cookie(message: &[u8]) -> Option<u64> {
    const COOKIE_AT: usize = 4 + 48 - 8;
    let low = u32_at(message, COOKIE_AT)?;
    let high = u32_at(message, COOKIE_AT + 4)?;
    Some(u64::from(high) << 32 | u64::from(low))
}
