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
/// `TCPDIAG_GETSOCK`, of `linux/inet_diag.h`: the type of the older request, whose dump has the
/// connections of both address families.
const TCPDIAG_GETSOCK: u16 = 18;

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
        send_message(netlink, &self.message())
    }

    /// Encodes the request.
    pub(super) fn message(&self) -> Vec<u8> {
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

fn send_message(netlink: &OwnedFd, message: &[u8]) -> Option<()> {
    send(netlink, message, SendFlags::DONTWAIT).ok().map(drop)
}

/// Encodes a request to dump the TCP sockets of both address families in these states: an
/// `nlmsghdr` and an `inet_diag_req`. The newer request has to name a family, and the kernel walks
/// through all connections for each.
pub(super) fn dump_of_both_families(states: u32) -> Vec<u8> {
    const BYTES: usize = 76;
    let mut message = Vec::with_capacity(BYTES);
    message.extend((BYTES as u32).to_ne_bytes());
    message.extend(TCPDIAG_GETSOCK.to_ne_bytes());
    message.extend((REQUEST | DUMP).to_ne_bytes());
    // The number and the port, as above; family, lengths and extensions, which a dump ignores; any
    // ports, addresses and interface.
    message.resize(BYTES - 16, 0);
    message.extend(NO_COOKIE.to_ne_bytes());
    message.extend(states.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes()); // no tables
    message
}

/// More than the kernel puts into one datagram by default.
const DATAGRAM_MAX: usize = 32 * 1024;

/// How a dump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dump {
    Complete,
    /// There was more than the caller wanted to read.
    TooLong,
}

/// Dumps all sockets that match the encoded request. Calls `each` with their `inet_diag_msg`s; it
/// returns `None` if one is malformed. Reads at most `datagrams_max` datagrams. Returns `None` if
/// the kernel responds with an error or not at all. `netlink` must be a new socket: it must hold no
/// unread rest of an earlier dump.
///
/// The kernel walks through all connections for this. With a large table of them it takes some
/// milliseconds.
pub(super) fn dump(
    netlink: &OwnedFd,
    request: &[u8],
    datagrams_max: usize,
    mut each: impl FnMut(&[u8]) -> Option<()>,
) -> Option<Dump> {
    send_message(netlink, request)?;
    let mut bytes = vec![0; DATAGRAM_MAX];
    for _ in 0..datagrams_max {
        match read(receive(netlink, &mut bytes)?, &mut each)? {
            Part::More => {}
            Part::Last => return Some(Dump::Complete),
        }
    }
    Some(Dump::TooLong)
}

/// Whether a further datagram follows in a dump.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    More,
    Last,
}

/// Parses a datagram of a dump: `nlmsghdr`s, each followed by an `inet_diag_msg`. Returns `None` if
/// it is an error or malformed.
pub(super) fn read(mut datagram: &[u8], mut each: impl FnMut(&[u8]) -> Option<()>) -> Option<Part> {
    const HEADER_BYTES: usize = 16;
    const NLMSG_DONE: u16 = 3;
    while !datagram.is_empty() {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let message = datagram.get(..length)?;
        let body = message.get(HEADER_BYTES..)?;
        match u16_at(message, 4)? {
            SOCK_DIAG_BY_FAMILY | TCPDIAG_GETSOCK => each(body)?,
            // The body is zero, or an error code.
            NLMSG_DONE => return (u32_at(body, 0)? == 0).then_some(Part::Last),
            _ => return None,
        }
        // Messages are aligned to four bytes.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Part::More)
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
