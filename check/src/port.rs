//! Free ports for servers.

use std::{
    collections::BTreeSet,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Mutex, PoisonError},
};

/// Below the range from which Linux takes the ports of clients, so that no client is in the way.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

static TAKEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Returns a port of 127.0.0.1 on which nothing listens, and which was not returned before.
///
/// # Errors
/// If there is none.
pub fn free() -> io::Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    let count = LAST - FIRST;
    // Processes of this program that run at the same time begin at different places.
    let offset = u16::try_from(std::process::id().wrapping_mul(613) % u32::from(count));
    let begin = offset.unwrap_or(0);
    let mut ports = (0..count).map(|n| FIRST + (begin + n) % count);
    let is_free = |port: &u16| {
        !taken.contains(port)
            && TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], *port))).is_ok()
    };
    let Some(port) = ports.find(is_free) else {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("no port from {FIRST} to {LAST} of 127.0.0.1 is free"),
        ));
    };
    taken.insert(port);
    Ok(port)
}
