//! The datagram socket by which a service manager hears of us.
//!
//! Nothing here waits: a manager that does not read costs an error, not a thread (P15). It is not connected, so that a manager
//! that was restarted is found again.

use rustix::{
    fd::OwnedFd,
    io::Errno,
    net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sendto, socket_with},
};
use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt};

/// Sends to one Unix datagram address.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    socket: OwnedFd,
    manager: SocketAddrUnix,
}

impl NotifySocket {
    /// A socket that sends to `address`: an absolute path, or a name in the abstract namespace after an `@`. Whether anybody is
    /// there is not asked.
    ///
    /// # Errors
    /// `InvalidInput` for any other address, or the system's.
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
    /// The system's; `WouldBlock` if the manager does not read.
    pub(crate) fn send(&self, message: &str) -> io::Result<()> {
        loop {
            match sendto(
                &self.socket,
                message.as_bytes(),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
                &self.manager,
            ) {
                Err(Errno::INTR) => {}
                // A datagram goes whole or not at all.
                sent => return sent.map(drop).map_err(io::Error::from),
            }
        }
    }
}
