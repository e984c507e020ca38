//! A mark on a port that is ours alone.
//!
//! The workers of one process share a port by `SO_REUSEPORT`, and that lets in every process of the same user that sets it too,
//! whenever it was set: a second instance with `--reuse-port` would join one that never agreed (P14). The kernel keeps no record
//! of what we meant, so we do: a name in the abstract Unix namespace, which belongs to the same network namespace as the port and
//! vanishes with its socket, however the process ends.

use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with},
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Set on an address for as long as it lives.
#[derive(Debug)]
pub(super) struct Mark(#[expect(dead_code, reason = "held: the name lives as long as its socket")] Option<OwnedFd>);

impl Mark {
    /// Marks `address`. If somebody has marked it already, it stays marked by them: then one of us will not get the port.
    pub(super) fn set(address: SocketAddr) -> io::Result<Self> {
        match take(address) {
            Ok(name) => Ok(Self(Some(name))),
            Err(Errno::ADDRINUSE) => Ok(Self(None)),
            Err(error) => Err(error.into()),
        }
    }

    /// The mark of a port that is shared: none.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Whether somebody has marked this address, one that it covers, or one that covers it.
    pub(super) fn covers(address: SocketAddr) -> bool {
        let everywhere = [IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        let marked = [address.ip()].into_iter().chain(everywhere);
        let is_marked = |ip| take(SocketAddr::new(ip, address.port())).is_err_and(|error| error == Errno::ADDRINUSE);
        marked.into_iter().any(is_marked) || address.ip().is_unspecified() && is_any_marked(address.port())
    }
}

/// Whether any address with this port is marked, as the system's list of names tells (`proc(5)`). Where that is not to be had the
/// kernel may still refuse the port.
fn is_any_marked(port: u16) -> bool {
    let names = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let marked = names.lines().filter_map(|line| line.split_once(&format!("@{MARK}"))?.1.parse::<SocketAddr>().ok());
    marked.into_iter().any(|marked| marked.port() == port)
}

const MARK: &str = "lameduck exclusive ";

fn take(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let name = format!("{MARK}{address}");
    bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
    Ok(socket)
}
