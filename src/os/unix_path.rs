//! The path of a Unix socket: its owner, and the removal of stale paths.
//!
//! A killed process leaves its socket's path in the file system, and connections to it are refused.
//! Such a path is taken over. A path whose socket accepts connections is in use, and one that is
//! not a socket must not be removed. At the end the path is unlinked only if it still leads to the
//! socket that this process bound: a successor may have put its own there.
//!
//! Two instances may do this at the same time. Each first locks the directory, so that what it has
//! found out is still true when it acts on it. It waits a moment for the lock and then continues
//! without, because any program that may read the directory can hold it.

use rustix::{
    event::{Timespec, poll},
    fs::{FlockOperation, flock},
    io::Errno,
};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf, absolute},
    sync::atomic::{AtomicBool, Ordering},
};

/// A path with our socket. Dropping it unlinks the path. Keep the socket open until then, so that
/// its inode number cannot be reused for a successor's socket.
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
    /// `AddrInUse` if another socket listens there, `AlreadyExists` if the path is not a socket;
    /// otherwise errors of the system.
    pub(super) fn bind(path: &Path, mode: Option<u32>) -> io::Result<(Self, Socket)> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let address = SockAddr::unix(path)?;
        let _locked = lock_directory_of(path);
        match socket.bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_if_stale(path, &address)?;
                socket.bind(&address)?;
            }
            bound => bound?,
        }
        let inode = Inode::of(&fs::symlink_metadata(path)?);
        // The app may change the directory later.
        let bound = Self { path: absolute(path)?, inode, unlinked: AtomicBool::new(false) };
        if let Some(mode) = mode {
            // Set before it listens: until then no client can connect, whatever the umask allows.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        Ok((bound, socket))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `listen` for our socket, if the path still leads to it. Until it listens, it looks
    /// stale, and a second process may have replaced it.
    ///
    /// # Errors
    /// `AddrInUse` if the path leads elsewhere; otherwise those of `listen`.
    pub(super) fn listen(&self, listen: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let _locked = lock_directory_of(&self.path);
        self.check_is_ours()?;
        listen()?;
        // It may have been replaced in between if the directory is not locked.
        self.check_is_ours()
    }

    fn check_is_ours(&self) -> io::Result<()> {
        if self.unlinked.load(Ordering::Acquire) || !self.leads_to_us() {
            return Err(Errno::ADDRINUSE.into());
        }
        Ok(())
    }

    fn leads_to_us(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|now| Inode::of(&now) == self.inode)
    }

    /// Removes the path if it is still ours. New clients can no longer find the socket then. Of
    /// several workers that share it, only the first does this: a second check could mistake a
    /// successor's path for ours. No instance replaces the path while the socket listens.
    pub(super) fn unlink(&self) -> io::Result<()> {
        if self.unlinked.swap(true, Ordering::AcqRel) || !self.leads_to_us() {
            return Ok(());
        }
        fs::remove_file(&self.path).inspect_err(|_| self.unlinked.store(false, Ordering::Release))
    }
}

impl Drop for UnixPath {
    fn drop(&mut self) {
        if !self.unlinked.load(Ordering::Acquire) {
            // It may not have listened, so that another instance is about to replace its path.
            let _locked = lock_directory_of(&self.path);
            let _ = self.unlink();
        }
    }
}

impl Inode {
    fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), number: metadata.ino() }
    }
}

/// Locks the directory of `path` until the returned file is dropped. `None` if that is not
/// possible, or another program keeps it locked.
fn lock_directory_of(path: &Path) -> Option<File> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = File::open(directory.unwrap_or(Path::new("."))).ok()?;
    for _ in 0..LOCK_TRIES {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            // Waits for the pause: there is nothing to poll.
            Err(Errno::WOULDBLOCK) => {
                let _ = poll(&mut [], Some(&LOCK_PAUSE));
            }
            Err(_) => return None,
        }
    }
    None
}

/// Other instances hold the lock for a few system calls.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

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
    // A listener with a full queue would block a blocking connect.
    caller.set_nonblocking(true)?;
    match caller.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        Ok(()) | Err(_) => Err(Errno::ADDRINUSE.into()),
    }
}
