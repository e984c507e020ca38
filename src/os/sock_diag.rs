//! Requests to `sock_diag(7)`, the interface that `ss` uses: netlink messages, which need no
//! privilege and no unsafe code.
//!
//! The kernel responds within the send and receive calls, so nothing is awaited. It may not respond
//! at all, in a sandbox without netlink or in a kernel without `inet_diag`. Then the socket cannot
//! be opened, or an error is received, and the result is unknown.

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
        socket_with,
    },
};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::OwnedFd,
};

/// `SOCK_DIAG_BY_FAMILY`, of `linux/sock_diag.h`: the type of a request and of its responses.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`, of `linux/netlink.h`.
pub(super) const REQUEST: u16 = 1;
/// `NLM_F_DUMP`: list every socket that matches, not one.
pub(super) const DUMP: u16 = 0x300;
/// `INET_DIAG_NOCOOKIE`, of `linux/inet_diag.h`: match any socket.
pub(super) const NO_COOKIE: u64 = u64::MAX;

const TCP: u8 = 6;
const REQUEST_BYTES: usize = 72;

/// An `nlmsghdr` and an `inet_diag_req_v2`, of `linux/inet_diag.h`.
pub(super) struct DiagRequest {
    /// `NLM_F_…`.
    pub(super) flags: u16,
    /// Sequence number; the responses carry it, too.
    pub(super) number: u32,
    /// Bit mask of the TCP states to match.
    pub(super) states: u32,
    /// Local address to match; a dump matches only its family and port.
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// Identity of the socket. It excludes a later socket with the same addresses.
    pub(super) cookie: u64,
}

pub(super) fn open() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?)
}

impl DiagRequest {
    pub(super) fn send(&self, netlink: &OwnedFd) -> Option<()> {
        send(netlink, &self.message(), SendFlags::DONTWAIT).ok().map(drop)
    }

    fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(REQUEST_BYTES);
        message.extend((REQUEST_BYTES as u32).to_ne_bytes());
        message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend(self.flags.to_ne_bytes());
        message.extend(self.number.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes()); // pid: 0, the kernel fills it in
        let family = if self.local.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        message.extend([family.as_raw() as u8, TCP, 0, 0]); // no extensions; padding
        message.extend(self.states.to_ne_bytes());
        message.extend(self.local.port().to_be_bytes());
        message.extend(self.peer.port().to_be_bytes());
        message.extend(sixteen_bytes(self.local.ip()));
        message.extend(sixteen_bytes(self.peer.ip()));
        message.extend(scope(self.local).to_ne_bytes());
        message.extend((self.cookie as u32).to_ne_bytes());
        message.extend(((self.cookie >> 32) as u32).to_ne_bytes());
        message
    }
}

/// Receives the next datagram of a response, or `None` if there is none or it was truncated.
pub(super) fn receive<'a>(netlink: &OwnedFd, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    loop {
        match recv(netlink, &mut *bytes, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            // With `MSG_TRUNC`, the kernel returns the full length of the datagram.
            Ok((_, length)) => return bytes.get(..length),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

pub(super) fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

pub(super) fn u32_at(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(message.get(at..at + 4)?.try_into().ok()?))
}

/// Encodes an address for these messages: an IPv4 address comes first, followed by zeros.
pub(super) fn sixteen_bytes(ip: IpAddr) -> [u8; 16] {
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
