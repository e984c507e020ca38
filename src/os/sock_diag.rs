//! Questions to `sock_diag(7)`, the interface behind `ss`: messages over netlink, which need no privilege and no unsafe code.
//!
//! The kernel answers within the calls that ask and receive, so nothing is ever awaited. Where it does not answer (a sandbox
//! without netlink, a kernel without `inet_diag`) there is no socket, or an error in its place: the answer is unknown.

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

/// `SOCK_DIAG_BY_FAMILY`, of `linux/sock_diag.h`: the kind of a question and of its answers.
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`, of `linux/netlink.h`.
pub(super) const REQUEST: u16 = 1;
/// `NLM_F_DUMP`: about every socket that matches, not one.
pub(super) const DUMP: u16 = 0x300;
/// `INET_DIAG_NOCOOKIE`, of `linux/inet_diag.h`: whoever it is.
pub(super) const NO_COOKIE: u64 = u64::MAX;

const TCP: u8 = 6;
const QUESTION_BYTES: usize = 72;

/// A `nlmsghdr` and an `inet_diag_req_v2`, of `linux/inet_diag.h`.
pub(super) struct Question {
    /// `NLM_F_…`.
    pub(super) flags: u16,
    /// Its answers carry it, too.
    pub(super) number: u32,
    /// A bit for each state that matters.
    pub(super) states: u32,
    /// Its family, and in a dump its port, are what is asked for.
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    /// A socket's identity: no other socket that came to have these addresses can answer.
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

impl Question {
    pub(super) fn send(&self, netlink: &OwnedFd) -> Option<()> {
        send(netlink, &self.message(), SendFlags::DONTWAIT).ok().map(drop)
    }

    fn message(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(QUESTION_BYTES);
        message.extend((QUESTION_BYTES as u32).to_ne_bytes());
        message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        message.extend(self.flags.to_ne_bytes());
        message.extend(self.number.to_ne_bytes());
        message.extend(0_u32.to_ne_bytes()); // from: the kernel knows
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

/// The next datagram of answers, if there is one and it is whole.
pub(super) fn receive<'a>(netlink: &OwnedFd, bytes: &'a mut [u8]) -> Option<&'a [u8]> {
    loop {
        match recv(netlink, &mut *bytes, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
            // Told to, the kernel gives the length that it would have had.
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

/// An address as these messages have it: one of IPv4 stands first, before zeros.
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
