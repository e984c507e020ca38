//! Free ports for servers.

use socket2::{Domain, Socket, Type};
use std::{
    io,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

/// Below the range from which Linux takes the ports of clients, so that no client is in the way.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;
const COUNT: u16 = LAST - FIRST;

/// The next port to try, counted from [`FIRST`].
static NEXT: Mutex<Option<u16>> = Mutex::new(None);

/// Returns a port of 127.0.0.1 on which nothing listens. A port is returned again only after all
/// others were tried.
///
/// # Errors
/// If there is none.
pub fn free() -> io::Result<u16> {
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    // Processes of this program that run at the same time begin at different places.
    let offset = u16::try_from(std::process::id().wrapping_mul(613) % u32::from(COUNT));
    let next = next.get_or_insert_with(|| offset.unwrap_or(0));
    take(next, |port| try_bind(port).is_ok()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("no port from {FIRST} to {LAST} of 127.0.0.1 is free"),
        )
    })
}

/// Binds a socket to this port of 127.0.0.1. It does not listen: a process that another thread is
/// starting has a copy of it until it executes its program, and only a listener keeps a server off.
fn try_bind(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    Ok(socket)
}

/// Returns the first free port from `next` on, in a circle, and moves `next` past it.
fn take(next: &mut u16, is_free: impl Fn(u16) -> bool) -> Option<u16> {
    let offset = (0..COUNT).map(|n| (*next + n) % COUNT).find(|offset| is_free(FIRST + offset))?;
    *next = (offset + 1) % COUNT;
    Some(FIRST + offset)
}

#[cfg(test)]
mod tests {
    use super::{COUNT, FIRST, LAST, free, take, try_bind};
    use std::{collections::BTreeSet, net::TcpListener};

    // A server could not listen on its second port, which had been free: the socket that tried it
    // was a listener, and Python, which another test started, still had a copy.
    #[test]
    fn a_copy_of_the_socket_that_tried_a_port_keeps_no_server_off_it() {
        let port = free().unwrap();
        let copy = try_bind(port).unwrap();
        let server = TcpListener::bind(("127.0.0.1", port)).unwrap();
        drop(copy);
        assert!(try_bind(port).is_err(), "a port with a listener is not free");
        drop(server);
        assert!(try_bind(port).is_ok());
    }

    #[test]
    fn ports_never_run_out_and_come_again_as_late_as_possible() {
        let mut next = COUNT - 1;
        for _ in 0..3 {
            let ports: Option<BTreeSet<u16>> =
                (0..COUNT).map(|_| take(&mut next, |_| true)).collect();
            assert_eq!(ports, Some((FIRST..LAST).collect()));
        }
        assert_eq!(take(&mut next, |port| port == FIRST + 7), Some(FIRST + 7));
        assert_eq!(take(&mut next, |port| port != FIRST + 8), Some(FIRST + 9));
        assert_eq!(take(&mut next, |_| false), None);
    }
}
