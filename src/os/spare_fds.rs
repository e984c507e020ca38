//! Descriptors kept back, so that a process without free descriptors still responds to its probes
//! (P15, P16).
//!
//! A spare descriptor is an unbound socket that is never used. (A file would not do: an empty image
//! has none to open, not even `/dev/null`.) When an accept fails because no descriptor is free, the
//! listener closes a spare and accepts with the freed number. When such a connection ends, its
//! descriptor does not return to the process, where the backlog of the main server would take it at
//! once. Instead one `dup2` replaces it by a spare, which closes the connection and keeps the
//! number. So four spares serve four probes at a time, for ever.

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Spare descriptors. Clones share them.
#[derive(Clone, Debug)]
pub struct SpareFds {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The socket that spares are duplicated from. Never released, so a spare can be created
    /// without opening a file.
    template: OwnedFd,
    size: usize,
    spares: Mutex<Vec<OwnedFd>>,
}

impl SpareFds {
    /// Keeps `size` descriptors back, and one more to duplicate them from.
    ///
    /// # Errors
    /// Errors of the system, such as that no descriptors are left.
    pub fn new(size: usize) -> io::Result<Self> {
        let template = OwnedFd::from(UnixDatagram::unbound()?);
        let spares = (0..size).map(|_| copy(&template)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { shared: Arc::new(Shared { template, size, spares: Mutex::new(spares) }) })
    }

    /// Returns the current number of spares.
    #[must_use]
    pub fn spares(&self) -> usize {
        self.lock().len()
    }

    /// Closes one spare. Returns whether there was one: then the next call that opens a descriptor
    /// gets its number.
    pub(super) fn release_one(&self) -> bool {
        self.lock().pop().is_some()
    }

    /// Runs `open`. While it fails because no descriptor is free, closes a spare and tries again.
    #[cfg(target_os = "linux")]
    pub(super) fn open<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if is_out_of_descriptors(&error) && self.release_one() => {}
                outcome => return outcome,
            }
        }
    }

    /// Replaces released spares while the process has free descriptors.
    pub(super) fn refill(&self) {
        let mut spares = self.lock();
        while spares.len() < self.shared.size {
            let Ok(spare) = copy(&self.shared.template) else { break };
            spares.push(spare);
        }
    }

    /// Closes the file of `descriptor`. If a spare is missing, the descriptor becomes one, and at
    /// no moment is free for other uses.
    pub(super) fn reclaim(&self, mut descriptor: OwnedFd) {
        let mut spares = self.lock();
        if spares.len() < self.shared.size
            && replace(&self.shared.template, &mut descriptor).is_ok()
        {
            spares.push(descriptor);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.shared.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether an error means that no descriptors are left, in the process or in the whole
/// system.
pub(super) fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

fn copy(template: &OwnedFd) -> Result<OwnedFd, Errno> {
    fcntl_dupfd_cloexec(template, 0)
}

#[cfg(target_os = "linux")]
fn replace(template: &OwnedFd, descriptor: &mut OwnedFd) -> Result<(), Errno> {
    rustix::io::dup3(template, descriptor, rustix::io::DupFlags::CLOEXEC)
}

#[cfg(not(target_os = "linux"))]
fn replace(template: &OwnedFd, descriptor: &mut OwnedFd) -> Result<(), Errno> {
    rustix::io::dup2(template, descriptor)?;
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, os::unix::net::UnixStream};

    #[test]
    fn a_spare_that_was_given_up_comes_back() {
        let spare_fds = SpareFds::new(2).unwrap();
        assert!(spare_fds.release_one() && spare_fds.release_one());
        assert!(!spare_fds.release_one());
        spare_fds.refill();
        assert_eq!(spare_fds.spares(), 2);
    }

    #[test]
    fn a_connection_taken_back_is_closed_and_becomes_a_spare() {
        let spare_fds = SpareFds::new(1).unwrap();
        assert!(spare_fds.release_one());
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        spare_fds.reclaim(ours.into());
        assert_eq!(spare_fds.spares(), 1);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_full_reserve_just_closes() {
        let spare_fds = SpareFds::new(1).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        spare_fds.reclaim(ours.into());
        assert_eq!(spare_fds.spares(), 1);
        assert_eq!(theirs.read(&mut [0]).unwrap(), 0);
    }
}
