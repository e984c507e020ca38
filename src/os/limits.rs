//! How much of the machine this process may use: descriptors and cores.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use rustix::io::Errno;
use std::{io, num::NonZeroUsize};

/// Descriptors that connections never get. They are for standard streams, the runtimes that every
/// process has, log files, a few outgoing connections of handlers, and the internal server (P16).
const DESCRIPTORS_RESERVED: usize = 64;
/// Descriptors of each worker: its runtime and its epoll of idle connections.
const DESCRIPTORS_PER_WORKER: usize = 6;
/// Descriptors of a worker for each address: the listener, and the spare one for its shutdown.
const DESCRIPTORS_PER_LISTENER: usize = 2;
/// Below this, the connection limit itself would be a denial of service.
const CONNECTIONS_AT_LEAST: usize = 16;
/// Above this, the descriptor limit says nothing about what the machine can bear.
const CONNECTIONS_AT_MOST: usize = 1_000_000;

/// Descriptor limit if the system does not report one: the usual soft limit.
const DESCRIPTORS_DEFAULT: usize = 1024;

/// Returns how many descriptors this process may have open (the soft limit), or `None` if there is
/// no limit.
#[must_use]
pub fn descriptors_max() -> Option<usize> {
    // Not by rustix, which assumes that the call succeeds.
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((RLIM_INFINITY, _)) => None,
        Ok((limit, _)) => Some(usize::try_from(limit).unwrap_or(usize::MAX)),
        Err(_) => Some(DESCRIPTORS_DEFAULT),
    }
}

/// Returns the default limit of concurrent connections, for a process whose number of workers is
/// not known yet: the limit on descriptors, less 64 that connections never get; at least 16, at
/// most a million.
#[must_use]
pub fn connections_max() -> usize {
    within(descriptors_max(), 0)
}

/// Returns the same less what this number of workers needs, if each listens on this number of
/// addresses.
pub(crate) fn connections_max_beside(workers: usize, addresses: usize) -> usize {
    let of_worker = DESCRIPTORS_PER_WORKER + DESCRIPTORS_PER_LISTENER * addresses;
    within(descriptors_max(), workers * of_worker)
}

/// Returns how many cores this process may use, or 1 if that is unknown. Its affinity and, on
/// Linux, the CPU quota of its cgroup are respected.
#[must_use]
pub fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Adds to a start error which limit was reached, and how to raise it.
pub(crate) fn with_limit(error: io::Error) -> io::Error {
    match reached_limit(&error) {
        Some(limit) => io::Error::new(error.kind(), format!("{error}: {limit}")),
        None => error,
    }
}

/// Returns which limit an error of the system means, and how to raise it.
pub(crate) fn reached_limit(error: &io::Error) -> Option<String> {
    match Errno::from_io_error(error)? {
        Errno::MFILE => {
            let most = descriptors_max().map_or_else(|| "few".to_owned(), |most| most.to_string());
            Some(format!(
                "at most {most} descriptors are allowed; raise the limit (ulimit -n, LimitNOFILE)"
            ))
        }
        Errno::NFILE => Some("the system has no descriptor left; raise fs.file-max".to_owned()),
        Errno::AGAIN => Some(
            "no more threads are allowed; raise the limit (ulimit -u, TasksMax, pids.max)"
                .to_owned(),
        ),
        _ => None,
    }
}

fn within(descriptors: Option<usize>, of_workers: usize) -> usize {
    descriptors
        .unwrap_or(usize::MAX)
        .saturating_sub(DESCRIPTORS_RESERVED + of_workers)
        .clamp(CONNECTIONS_AT_LEAST, CONNECTIONS_AT_MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_a_reserve_of_descriptors() {
        assert_eq!(within(Some(1024), 0), 960);
        assert_eq!(within(Some(1024), 16 * 8), 832);
    }

    #[test]
    fn a_tiny_limit_still_admits_some_and_none_is_not_endless() {
        assert_eq!(within(Some(20), 8), 16);
        assert_eq!(within(None, 8), 1_000_000);
    }

    #[test]
    fn this_process_has_a_core_and_a_connection() {
        assert!(cores().get() >= 1);
        assert!((16..=1_000_000).contains(&connections_max()));
    }
}
