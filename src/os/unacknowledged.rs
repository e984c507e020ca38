//! Counts the bytes of a TCP connection that its peer has not acknowledged.
//!
//! A completed write proves nothing about the peer: the kernel buffers megabytes. Acknowledged
//! bytes are progress. The usual way is the `SIOCOUTQ` ioctl, which no crate offers as a safe call.
//! The kernel reports the same number (`write_seq - snd_una`) through [`sock_diag`], which needs
//! only messages. One request costs a few microseconds. It is made rarely: for peers that a drain
//! waits for.

use super::sock_diag::{self, DiagRequest, REQUEST, SOCK_DIAG_BY_FAMILY, u16_at, u32_at};
use socket2::SockRef;
use std::os::fd::AsFd;
use std::{
    cell::{Cell, OnceCell},
    net::SocketAddr,
    os::fd::OwnedFd,
};

/// Returns the number of bytes written to `stream` and not acknowledged, if the kernel reports it.
pub(super) fn ask(stream: &impl AsFd) -> Option<usize> {
    let socket = SockRef::from(stream);
    let local = socket.local_addr().ok()?.as_socket()?;
    let peer = socket.peer_addr().ok()?.as_socket()?;
    let cookie = socket.cookie().ok()?;
    NETLINK.with(|netlink| netlink.ask(local, peer, cookie))
}

thread_local! {
    static NETLINK: NetlinkSocket = const { NetlinkSocket { netlink: OnceCell::new(), asked: Cell::new(0) } };
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

/// Extracts the send queue from an `nlmsghdr` and an `inet_diag_msg`. Before it come 16 bytes of
/// header, 4 of state, 48 of identity, the timer's expiry and the receive queue.
fn answer(message: &[u8]) -> Option<usize> {
    const SEND_QUEUE_AT: usize = 16 + 4 + 48 + 4 + 4;
    if u16_at(message, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    usize::try_from(u32_at(message, SEND_QUEUE_AT)?).ok()
}
