//! The path of a Unix socket: who owns it, and what to do with one that somebody left behind.
//!
//! A process that was killed leaves its socket's path in the file system, where nobody answers. Such a path is taken over.
//! One where somebody answers is in use, and one that is not a socket is not ours to remove. At the end the path is unlinked
//! only if it is still the socket we bound: a successor may have put its own there.

use rustix::io::Errno;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// A path with our socket. Dropping it unlinks it; keep the socket open until then, so that its inode's number cannot be
/// given to a successor's.
#[derive(Debug)]
pub(super) struct UnixPath {
    path: PathBuf,
    inode: Inode,
    unlinked: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
}

impl UnixPath {
    /// Binds a socket at `path`, with these permissions, which does not listen yet.
    ///
    /// # Errors
    /// `AddrInUse` if somebody answers there, `AlreadyExists` if there is something else than a socket, or the system's.
    pub(super) fn bind(path: &Path, mode: Option<u32>) -> io::Result<(Self, Socket)> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let address = SockAddr::unix(path)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_if_stale(path, &address)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        let inode = Inode::of(&fs::symlink_metadata(path)?);
        let bound = Self { path: path.to_owned(), inode, unlinked: AtomicBool::new(false) };
        if let Some(mode) = mode {
            // Before it listens: until then nobody can connect, whatever the umask allows.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok((bound, socket))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the path leads to our socket. Until it listens, our socket looks like one that was left behind, and a second
    /// process may have taken it over.
    pub(super) fn is_ours(&self) -> bool {
        !self.unlinked.load(Ordering::Acquire) && self.leads_to_us()
    }

    fn leads_to_us(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|now| Inode::of(&now) == self.inode)
    }

    /// Removes the path, if it is still ours. Then nobody new can find the socket. Of several workers that share it, the first does
    /// it: a second look could mistake a successor's path for ours.
    pub(super) fn unlink(&self) -> io::Result<()> {
        if self.unlinked.swap(true, Ordering::AcqRel) || !self.leads_to_us() {
            return Ok(());
        }
        fs::remove_file(&self.path).inspect_err(|_| self.unlinked.store(false, Ordering::Release))
    }
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        let _ = self.unlink();
    }
}

impl Inode {
    fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
    }
}

fn remove_if_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the path exists and is not a socket",
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let caller = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A listener whose queue is full would keep a blocking connect waiting.
    caller.set_nonblocking(true)?;
    match caller.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(Errno::ADDRINUSE.into()),
    }
}
