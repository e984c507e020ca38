//! How many bytes of a TCP connection its peer has not acknowledged.
//!
//! A write that was accepted says nothing about the peer: the kernel swallows megabytes. What the peer acknowledged is
//! progress. The usual question is the `SIOCOUTQ` ioctl, which no crate offers as a safe call; the kernel gives the same
//! number (`write_seq - snd_una`) to `sock_diag(7)`, the interface behind `ss`, and that is only messages. One question
//! costs a few microseconds and needs no privilege. It is asked rarely: about peers that keep a drain waiting.
//!
//! Where the kernel does not answer (a sandbox without netlink, a kernel without `inet_diag`) the answer is unknown.

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with},
};
use socket2::SockRef;
use std::{
    cell::{Cell, OnceCell},
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};
use tokio::net::TcpStream;

/// The bytes of `stream` that were written and not acknowledged, if the kernel tells.
pub(super) fn ask(stream: &TcpStream) -> Option<usize> {
    let local = stream.local_addr().ok()?;
    let peer = stream.peer_addr().ok()?;
    let cookie = SockRef::from(stream).cookie().ok()?;
    DESK.with(|desk| desk.ask(local, peer, cookie))
}

thread_local! {
    static DESK: Desk = const { Desk { netlink: OnceCell::new(), asked: Cell::new(0) } };
}

/// Where one thread asks. The kernel answers within the call that asks, so nothing is ever awaited here.
struct Desk {
    netlink: OnceCell<OwnedFd>,
    asked: Cell<u32>,
}

impl Desk {
    fn ask(&self, local: SocketAddr, peer: SocketAddr, cookie: u64) -> Option<usize> {
        let netlink = self.netlink()?;
        let number = self.asked.get().wrapping_add(1);
        self.asked.set(number);
        send(netlink, &question(number, local, peer, cookie), SendFlags::DONTWAIT).ok()?;
        loop {
            let mut bytes = [0; 512];
            let length = match recv(netlink, &mut bytes[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(Errno::INTR) => continue,
                Err(_) => return None,
            };
            // An answer to an earlier question, whose asker did not get it, is passed over.
            if u32_at(&bytes[..length], 8) == Some(number) {
                return answer(&bytes[..length]);
            }
        }
    }

    fn netlink(&self) -> Option<&OwnedFd> {
        if self.netlink.get().is_none() {
            let made =
                socket_with(AddressFamily::NETLINK, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG));
            let _ = self.netlink.set(made.ok()?);
        }
        self.netlink.get()
    }
}

/// `SOCK_DIAG_BY_FAMILY`, of `linux/sock_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`, of `linux/netlink.h`.
const REQUEST: u16 = 1;
const TCP: u8 = 6;
const QUESTION_BYTES: usize = 72;

/// A `nlmsghdr` and an `inet_diag_req_v2`, of `linux/inet_diag.h`, about one connection.
fn question(number: u32, local: SocketAddr, peer: SocketAddr, cookie: u64) -> Vec<u8> {
    let mut message = Vec::with_capacity(QUESTION_BYTES);
    message.extend((QUESTION_BYTES as u32).to_ne_bytes());
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend(number.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes()); // from: the kernel knows
    let family = if local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    message.extend([family.as_raw() as u8, TCP, 0, 0]); // no extensions; padding
    message.extend(u32::MAX.to_ne_bytes()); // in any state
    message.extend(local.port().to_be_bytes());
    message.extend(peer.port().to_be_bytes());
    message.extend(sixteen_bytes(local.ip()));
    message.extend(sixteen_bytes(peer.ip()));
    message.extend(scope(local).to_ne_bytes());
    // The cookie is the socket's identity: no other socket that came to have these addresses can answer.
    message.extend((cookie as u32).to_ne_bytes());
    message.extend(((cookie >> 32) as u32).to_ne_bytes());
    message
}

/// The send queue in a `nlmsghdr` and an `inet_diag_msg`: 16 bytes of header, 4 of state, 48 of identity, the timer's expiry
/// and the receive queue stand before it.
fn answer(message: &[u8]) -> Option<usize> {
    const SEND_QUEUE_AT: usize = 16 + 4 + 48 + 4 + 4;
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    if kind != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    usize::try_from(u32_at(message, SEND_QUEUE_AT)?).ok()
}

fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?))
}

fn sixteen_bytes(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    }
}
