//! How many bytes of a TCP connection its peer has not acknowledged.
//!
//! A write that was accepted says nothing about the peer: the kernel swallows megabytes. What the peer acknowledged is
//! progress. The usual question is the `SIOCOUTQ` ioctl, which no crate offers as a safe call; the kernel gives the same
//! number (`write_seq - snd_una`) to [`sock_diag`], and that is only messages. One question costs a few microseconds. It is
//! asked rarely: about peers that keep a drain waiting.

use super::sock_diag::{self, Question, REQUEST, SOCK_DIAG_BY_FAMILY, u16_at, u32_at};
use socket2::SockRef;
use std::os::fd::AsFd;
use std::{
    cell::{Cell, OnceCell},
    net::SocketAddr,
    os::fd::OwnedFd,
};

/// The bytes of `stream` that were written and not acknowledged, if the kernel tells.
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

/// Where one thread asks.
struct NetlinkSocket {
    netlink: OnceCell<OwnedFd>,
    asked: Cell<u32>,
}

impl NetlinkSocket {
    fn ask(&self, local: SocketAddr, peer: SocketAddr, cookie: u64) -> Option<usize> {
        let netlink = self.netlink()?;
        let number = self.asked.get().wrapping_add(1);
        self.asked.set(number);
        // Whatever state it is in.
        Question { flags: REQUEST, number, states: u32::MAX, local, peer, cookie }.send(netlink)?;
        loop {
            let mut bytes = [0; 512];
            let message = sock_diag::receive(netlink, &mut bytes)?;
            // An answer to an earlier question, whose asker did not get it, is passed over.
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

/// The send queue in a `nlmsghdr` and an `inet_diag_msg`: 16 bytes of header, 4 of state, 48 of identity, the timer's expiry
/// and the receive queue stand before it.
fn answer(message: &[u8]) -> Option<usize> {
    const SEND_QUEUE_AT: usize = 16 + 4 + 48 + 4 + 4;
    if u16_at(message, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    usize::try_from(u32_at(message, SEND_QUEUE_AT)?).ok()
}
