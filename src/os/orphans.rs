//! Connections whose worker is blocked when the process ends.
//!
//! The kernel would close them with a FIN, and half an answer that ends with the connection would look whole (P5). Their descriptors
//! belong to a thread that does not listen; the process asks the kernel for copies of its own descriptors (`pidfd_getfd`), and tells
//! the connections behind them to reset when they are closed.

use crate::env::Address;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::SockRef;
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

/// Makes every connection to `addresses` end with a reset. Those to a Unix socket have none.
pub(super) fn reset(addresses: &[Address]) {
    if let Err(error) = try_reset(addresses) {
        crate::log::warn!(%error, "connections of a blocked worker cannot be reset: what they were sent may look whole");
    }
}

fn try_reset(addresses: &[Address]) -> io::Result<()> {
    let ports: Vec<u16> = addresses.iter().filter_map(Address::tcp).map(|address| address.port()).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let us = pidfd_open(getpid(), PidfdFlags::empty())?;
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Closed meanwhile, or by another thread's leave another one now: that is why it is looked at, and not its number.
        let Ok(descriptor) = pidfd_getfd(us.as_fd(), number, PidfdGetfdFlags::empty()) else { continue };
        if is_connection_to(&descriptor, &ports) {
            // It fails only on a connection that is broken already.
            let _ = SockRef::from(&descriptor).set_linger(Some(Duration::ZERO));
        }
    }
    Ok(())
}

/// A listener has no peer, and a connection that we opened has a port of its own.
fn is_connection_to(descriptor: &OwnedFd, ports: &[u16]) -> bool {
    let socket = SockRef::from(descriptor);
    let local = socket.local_addr().ok().and_then(|address| address.as_socket()).map(|address: SocketAddr| address.port());
    local.is_some_and(|port| ports.contains(&port)) && socket.peer_addr().is_ok()
}
