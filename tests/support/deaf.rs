//! A client that discards received packets for a while, as if it was far away. It requires a TTL
//! that no packet here has. This socket option needs no privilege; a packet filter would.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use nix::{libc, setsockopt_impl, sockopt_impl, sys::socket::SetSockOpt};
use socket2::{Domain, Socket, Type};
use std::net::SocketAddr;

sockopt_impl!(MinTtl, SetOnly, libc::IPPROTO_IP, libc::IP_MINTTL, i32);
sockopt_impl!(MinHopCount, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, i32);

/// Connects without blocking. The SYN has arrived, and the client discards the SYN-ACK.
pub(crate) fn connect(address: SocketAddr) -> Socket {
    let client = Socket::new(Domain::for_address(address), Type::STREAM, None).unwrap();
    hear_from(&client, 255);
    client.set_nonblocking(true).unwrap();
    let error = client.connect(&address.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::INPROGRESS.raw_os_error()));
    client
}

/// From now on the client accepts packets. The kernel of the server sends the SYN-ACK again one
/// second after the first.
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
