//! Accepts connections from the kernel, without the reactor.

use crate::runtime::Address;
use rustix::net::SocketAddrAny;
use std::{
    io,
    net::SocketAddr,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};
use tokio::net::{TcpStream, UnixStream};

pub(super) enum AcceptedStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

pub(super) fn is_empty(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

pub(super) fn accept_tcp(listener: BorrowedFd<'_>) -> io::Result<(AcceptedStream, Address)> {
    let (descriptor, peer) = accept_nonblocking(listener)?;
    let peer = SocketAddr::try_from(peer.ok_or(io::ErrorKind::ConnectionAborted)?)?;
    Ok((
        AcceptedStream::Tcp(TcpStream::from_std(descriptor.into())?),
        Address::Tcp(canonical(peer)),
    ))
}

pub(super) fn accept_unix(listener: BorrowedFd<'_>) -> io::Result<(AcceptedStream, Address)> {
    let (descriptor, peer) = accept_nonblocking(listener)?;
    Ok((
        AcceptedStream::Unix(UnixStream::from_std(descriptor.into())?),
        Address::Unix(peer.and_then(unix_path_of)),
    ))
}

/// Converts the IPv4-mapped address of a dual-stack socket's peer to IPv4. Other IPv6 addresses
/// keep their scope.
pub(super) fn canonical(peer: SocketAddr) -> SocketAddr {
    match peer {
        SocketAddr::V4(_) => peer,
        SocketAddr::V6(v6) => {
            v6.ip().to_ipv4_mapped().map_or(peer, |ip| SocketAddr::new(ip.into(), v6.port()))
        }
    }
}

fn unix_path_of(peer: SocketAddrAny) -> Option<PathBuf> {
    let peer = rustix::net::SocketAddrUnix::try_from(peer).ok()?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(peer.path_bytes()?)))
}

#[cfg(target_os = "linux")]
pub(super) fn accept_nonblocking(
    socket: BorrowedFd<'_>,
) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    use rustix::net::{SocketFlags, acceptfrom_with};

    Ok(acceptfrom_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn accept_nonblocking(
    socket: BorrowedFd<'_>,
) -> io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (descriptor, peer) = rustix::net::acceptfrom(socket)?;
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&descriptor, true)?;
    Ok((descriptor, peer))
}

#[cfg(test)]
mod tests {
    use super::canonical;
    use std::net::SocketAddr;

    #[test]
    fn an_ipv6_peer_keeps_its_scope_and_a_mapped_one_becomes_ipv4() {
        let scoped: SocketAddr = "[fe80::1%3]:80".parse().unwrap();
        assert_eq!(canonical(scoped), scoped);
        assert_eq!(
            canonical("[::ffff:192.0.2.7]:80".parse().unwrap()),
            "192.0.2.7:80".parse().unwrap()
        );
    }
}
