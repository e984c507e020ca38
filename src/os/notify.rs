//! Datagram socket for notifications to a service manager.
//!
//! No call here waits: a manager that does not read costs an error, not a thread (P15). The socket
//! is not connected, so it also reaches a manager that has been restarted.

use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with},
};
use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt};

/// Returns the monotonic time in microseconds, by which a manager orders its signals and our
/// messages.
pub(crate) fn monotonic_usec() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    let now = now.map(std::time::Duration::from).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

/// Sends to one Unix datagram address.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: OwnedFd,
    manager: SocketAddrUnix,
}

impl NotifySocket {
    /// Returns a socket that sends to `address`: an absolute path, or a name in the abstract
    /// namespace after an `@`. Does not check that anything listens there.
    ///
    /// # Errors
    /// `InvalidInput` for any other address; otherwise errors of the system.
    pub(crate) fn to(address: &OsStr) -> io::Result<Self> {
        let manager = match address.as_bytes() {
            [b'/', ..] => SocketAddrUnix::new(address)?,
            [b'@', name @ ..] if !name.is_empty() => SocketAddrUnix::new_abstract_name(name)?,
            _ => {
                let expected = "expected an absolute path, or a name after an `@`";
                return Err(io::Error::new(io::ErrorKind::InvalidInput, expected));
            }
        };
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, manager })
    }

    /// Sends one datagram, now or not at all.
    ///
    /// # Errors
    /// Errors of the system; `WouldBlock` if the manager does not read.
    pub(crate) fn send(&self, message: &str) -> io::Result<()> {
        loop {
            match sendto(
                &self.socket,
                message.as_bytes(),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                &self.manager,
            ) {
                Err(Errno::INTR) => {}
                // A datagram is sent whole or not at all.
                sent => return sent.map(drop).map_err(io::Error::from),
            }
        }
    }
}
