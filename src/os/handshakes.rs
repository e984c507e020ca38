//! Counts the handshakes in progress on a listening TCP port (P5a, P8).
//!
//! A client considers itself connected once it has received our SYN-ACK. Until its ACK arrives
//! there is nothing to accept, and a listener that closes then resets that client. The wait takes
//! one round trip of the client, which this process cannot know. The kernel lists the handshakes it
//! is waiting for, through [`sock_diag`].
//!
//! A count of zero means that all completed handshakes are in the accept queue. The kernel replaces
//! the handshake by its connection in one step, and lists that as a handshake, too, until it is
//! queued.
//!
//! Under a flood the kernel may use SYN cookies. It keeps no state of such a handshake, so it is
//! not counted.

use super::sock_diag::{
    self, DUMP, DiagRequest, NO_COOKIE, REQUEST, SOCK_DIAG_BY_FAMILY, sixteen_bytes, u16_at, u32_at,
};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

/// `TCP_SYN_RECV`, of `linux/tcp_states.h`, as a bit. The kernel includes its `TCP_NEW_SYN_RECV` in
/// it.
const SYN_RECEIVED: u32 = 1 << 3;
/// More than the kernel puts into one datagram by default.
const DATAGRAM_MAX: usize = 16 * 1024;
/// Enough for some thousand handshakes. More than that makes no difference to the caller.
const DATAGRAMS_MAX: usize = 64;

/// Returns the number of handshakes in progress with the listener at `local`, or `None` if the
/// kernel does not report it. `netlink` must be a new [`sock_diag`] socket: it must hold no unread
/// rest of an earlier dump.
///
/// The kernel walks through all connections for this. With a large table of them it takes about a
/// millisecond.
pub(super) fn count_in_progress(netlink: &OwnedFd, local: SocketAddr) -> Option<usize> {
    // A handshake has the family of its listener. The one of an IPv4 client with a dual-stack
    // listener is IPv6, as is the connection.
    let (asked, any_peer) = match local {
        SocketAddr::V4(local) => (
            (Ipv4Addr::UNSPECIFIED, local.port()).into(),
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        ),
        SocketAddr::V6(local) => (
            (Ipv6Addr::UNSPECIFIED, local.port()).into(),
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        ),
    };
    let request = DiagRequest {
        flags: REQUEST | DUMP,
        number: 1,
        states: SYN_RECEIVED,
        local: asked,
        peer: any_peer,
        cookie: NO_COOKIE,
    };
    request.send(netlink)?;
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

/// Number of handshakes that one datagram lists.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    More(usize),
    Last(usize),
}

/// Parses a datagram: `nlmsghdr`s, each followed by an `inet_diag_msg`. Returns `None` if it is an
/// error or malformed.
fn read(mut datagram: &[u8], local: SocketAddr) -> Option<Part> {
    const HEADER_BYTES: usize = 16;
    const NLMSG_DONE: u16 = 3;
    let mut found = 0;
    while !datagram.is_empty() {
        let length = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let message = datagram.get(..length)?;
        let body = message.get(HEADER_BYTES..)?;
        match u16_at(message, 4)? {
            SOCK_DIAG_BY_FAMILY => found += usize::from(is_handshake_with(body, local)?),
            // The body is zero, or an error code.
            NLMSG_DONE => return (u32_at(body, 0)? == 0).then_some(Part::Last(found)),
            _ => return None,
        }
        // Messages are aligned to four bytes.
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Part::More(found))
}

/// Returns whether an `inet_diag_msg` describes a handshake with `local`. Its layout: four bytes of
/// state, local port, remote port, local address.
fn is_handshake_with(body: &[u8], local: SocketAddr) -> Option<bool> {
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
    fn handshakes_with_another_port_or_address_are_not_counted() {
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
