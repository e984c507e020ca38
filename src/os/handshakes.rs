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

use super::sock_diag::{self, DUMP, DiagRequest, NO_COOKIE, REQUEST, sixteen_bytes};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::OwnedFd,
};

/// `TCP_SYN_RECV`, of `linux/tcp_states.h`, as a bit. The kernel includes its `TCP_NEW_SYN_RECV` in
/// it.
const SYN_RECEIVED: u32 = 1 << 3;
/// Enough for some thousand handshakes. More than that makes no difference to the caller.
const DATAGRAMS_MAX: usize = 64;

/// Returns the number of handshakes in progress with the listener at `local`, or `None` if the
/// kernel does not report it. `netlink` must be a new [`sock_diag`] socket.
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
    let mut count = 0;
    sock_diag::dump(netlink, &request.message(), DATAGRAMS_MAX, |message| {
        count += usize::from(is_handshake_with(message, local)?);
        Some(())
    })?;
    Some(count)
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
    use super::is_handshake_with;
    use crate::os::sock_diag::{Part, read};
    use std::net::SocketAddr;

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

    /// Returns the handshakes in a datagram, and whether it is the last.
    fn count(datagram: &[u8], local: SocketAddr) -> Option<(Part, usize)> {
        let mut count = 0;
        let part = read(datagram, |message| {
            count += usize::from(is_handshake_with(message, local)?);
            Some(())
        })?;
        Some((part, count))
    }

    #[test]
    fn handshakes_with_another_port_or_address_are_not_counted() {
        let all = [
            handshake(80, [10, 0, 0, 1]),
            handshake(81, [10, 0, 0, 1]),
            handshake(80, [10, 0, 0, 2]),
        ]
        .concat();
        assert_eq!(count(&all, "10.0.0.1:80".parse().unwrap()), Some((Part::More, 1)));
        assert_eq!(count(&all, "0.0.0.0:80".parse().unwrap()), Some((Part::More, 2)));
        let last = [all, message(3, &[0; 4])].concat();
        assert_eq!(count(&last, "0.0.0.0:81".parse().unwrap()), Some((Part::Last, 1)));
    }

    #[test]
    fn an_error_and_what_makes_no_sense_are_no_answer() {
        let local = "0.0.0.0:80".parse().unwrap();
        let whole = handshake(80, [127, 0, 0, 1]);
        assert_eq!(count(&message(2, &[0; 20]), local), None);
        assert_eq!(count(&message(3, &(-2_i32).to_ne_bytes()), local), None);
        assert_eq!(count(&whole[..40], local), None);
        assert_eq!(count(&message(20, &[0; 10]), local), None);
        assert_eq!(count(&[0; 64], local), None, "a length of nothing");
    }
}
