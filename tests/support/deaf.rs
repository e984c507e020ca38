//! A client that hears nothing for a while, as one far away: what is sent to it arrives with a TTL that is not good enough. Anybody
//! may ask for that; a filter would take a privilege.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use nix::{libc, setsockopt_impl, sockopt_impl, sys::socket::SetSockOpt};
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;

sockopt_impl!(MinTtl, SetOnly, libc::IPPROTO_IP, libc::IP_MINTTL, i32);
sockopt_impl!(MinHopCount, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, i32);

/// Its SYN has arrived, and it has not heard the answer.
pub(crate) fn connect(address: SocketAddr) -> Socket {
    let client = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    hear_from(&client, 255);
    client.set_nonblocking(true).unwrap();
    let error = client.connect(&address.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
    client
}

/// From now on it hears: of the handshake, what the listener's side sends again a second after the first.
pub(crate) fn hear(client: &Socket) {
    hear_from(client, 0);
}

fn hear_from(client: &Socket, ttl: i32) {
    if client.domain().unwrap() == Domain::IPV6 {
        MinHopCount.set(client, &ttl).unwrap();
    } else {
        MinTtl.set(client, &ttl).unwrap();
    }
}
