//! How many handshakes with a listening TCP port are under way (P5a, P8).
//!
//! A client is connected, in its own eyes, once our SYN-ACK has reached it. Until its ACK is back there is nothing to accept,
//! and a listener that closes then resets a client who believes to be connected. How long that takes is the client's round
//! trip, which nobody here can know; but the kernel knows whom it waits for, and tells [`sock_diag`].
//!
//! None under way means that all who completed theirs are in the accept queue: the kernel replaces the handshake by its
//! connection in one step, and shows that as a handshake, too, until it is queued.
//!
//! Under a flood the kernel may answer with SYN cookies. It keeps nothing of such a handshake, so it is not counted.

use super::sock_diag::{
    self, DUMP, NO_COOKIE, Question, REQUEST, SOCK_DIAG_BY_FAMILY, sixteen_bytes, u16_at, u32_at,
};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

/// `TCP_SYN_RECV`, of `linux/tcp_states.h`, as a bit. The kernel takes it to mean its `TCP_NEW_SYN_RECV` as well.
const SYN_RECEIVED: u32 = 1 << 3;
/// More than the kernel puts into one datagram, unless it is asked for more.
const DATAGRAM_MAX: usize = 16 * 1024;
/// Some thousand handshakes. Whether there are even more makes no difference to anybody.
const DATAGRAMS_MAX: usize = 64;

/// The handshakes under way with whoever listens at `local`, if the kernel tells. `netlink` is a
/// new [`sock_diag`] socket: an earlier dump that was not read to its end would be in the way.
///
/// Its walk through all connections costs about a millisecond on a machine with a large table of them.
pub(super) fn under_way(netlink: &OwnedFd, local: SocketAddr) -> Option<usize> {
    // A handshake has the family of its listener: that of an IPv4 client with a dual-stack one is IPv6, as is the connection.
    let (asked, anybody) = match local {
        SocketAddr::V4(local) => (
            (Ipv4Addr::UNSPECIFIED, local.port()).into(),
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        ),
        SocketAddr::V6(local) => (
            (Ipv6Addr::UNSPECIFIED, local.port()).into(),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        ),
    };
    let question = Question {
        flags: REQUEST | DUMP,
        number: 1,
        states: SYN_RECEIVED,
        local: asked,
        peer: anybody,
        cookie: NO_COOKIE,
    };
    question.send(netlink)?;
    let mut bytes = vec![0; DATAGRAM_MAX];
    let mut count = 0;
    for _ in 0..DATAGRAMS_MAX {
        match read(sock_diag::receive(netlink, &mut bytes)?, local)? {
            Part::More(found) => count += found,
            Part::Last(found) => return Some(count + found),
        }
    }
    Some(count)
}

/// How many handshakes a datagram tells of.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    More(usize),
    Last(usize),
}

/// Reads a datagram: `nlmsghdr`s, each with an `inet_diag_msg` behind it. `None` if it is an error or makes no sense.
fn read(mut datagram: &[u8], local: SocketAddr) -> Option<Part> {
    const HEADER_BYTES: usize = 16;
    const NLMSG_DONE: u16 = 3;
    let mut found = 0;
    while !datagram.is_empty() {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let message = datagram.get(..length)?;
        let body = message.get(HEADER_BYTES..)?;
        match u16_at(message, 4)? {
            SOCK_DIAG_BY_FAMILY => found += usize::from(is_with(body, local)?),
            // It ends with zero, or with what went wrong.
            NLMSG_DONE => return (u32_at(body, 0)? == 0).then_some(Part::Last(found)),
            _ => return None,
        }
        // Each begins at a multiple of four.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Part::More(found))
}

/// Whether an `inet_diag_msg` tells of a handshake with `local`: four bytes of state, our port, the other's, our address.
fn is_with(body: &[u8], local: SocketAddr) -> Option<bool> {
    let port = u16::from_be_bytes(body.get(4..6)?.try_into().ok()?);
    let address = body.get(8..24)?;
    Some(
        port == local.port()
            && (local.ip().is_unspecified() || address == sixteen_bytes(local.ip())),
    )
}

#[cfg(test)]
mod tests {
    use super::{Part, read};

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.resize(16, 0);
        message.extend(body);
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    fn handshake(port: u16, address: [u8; 4]) -> Vec<u8> {
        let mut body = vec![2, 3, 0, 0];
        body.extend(port.to_be_bytes());
        body.extend([0xff, 0xff]);
        body.extend(address);
        body.resize(72 + 1, 0);
        message(20, &body)
    }

    #[test]
    fn those_with_another_port_or_address_are_not_counted() {
        let all = [
            handshake(80, [10, 0, 0, 1]),
            handshake(81, [10, 0, 0, 1]),
            handshake(80, [10, 0, 0, 2]),
        ]
        .concat();
        assert_eq!(read(&all, "10.0.0.1:80".parse().unwrap()), Some(Part::More(1)));
        assert_eq!(read(&all, "0.0.0.0:80".parse().unwrap()), Some(Part::More(2)));
        let last = [all, message(3, &[0; 4])].concat();
        assert_eq!(read(&last, "0.0.0.0:81".parse().unwrap()), Some(Part::Last(1)));
    }

    #[test]
    fn an_error_and_what_makes_no_sense_are_no_answer() {
        let local = "0.0.0.0:80".parse().unwrap();
        let whole = handshake(80, [127, 0, 0, 1]);
        assert_eq!(read(&message(2, &[0; 20]), local), None);
        assert_eq!(read(&message(3, &(-2_i32).to_ne_bytes()), local), None);
        assert_eq!(read(&whole[..40], local), None);
        assert_eq!(read(&message(20, &[0; 10]), local), None);
        assert_eq!(read(&[0; 64], local), None, "a length of nothing");
    }
}
