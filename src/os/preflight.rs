//! Checks that threads and descriptors are available before code runs that panics without them
//! (P14).
//!
//! tokio panics when the system refuses a thread or a socket pair, and so does the writer thread of
//! the log. A multi-threaded runtime that got only some of its threads is worse: its drop waits for
//! them for ever.

use rustix::io::fcntl_dupfd_cloexec;
use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};
use tokio::runtime::{Builder, Runtime};

/// More descriptors than a runtime opens: an epoll and a copy, an eventfd, and a socket pair for
/// signals and a copy.
const RUNTIME_DESCRIPTORS: usize = 12;

/// Longest wait for a multi-threaded runtime. It takes this long only if another process took the
/// last thread after the check.
const BUILD_MAX: Duration = Duration::from_secs(5);

/// Builds the first single-threaded runtime of the process, or returns why that is not possible.
pub(crate) fn single_threaded() -> io::Result<Runtime> {
    descriptors(RUNTIME_DESCRIPTORS)?;
    catch(|| Builder::new_current_thread().enable_all().build())
}

/// Builds a runtime with `workers` threads, or returns why that is not possible.
pub(crate) fn multi_threaded(name: &'static str, workers: usize) -> io::Result<Runtime> {
    descriptors(RUNTIME_DESCRIPTORS)?;
    let (built, build) = mpsc::channel();
    // On a separate thread: if another process takes the last thread after the check, the build
    // never returns.
    let building = thread::Builder::new().name("lameduck-start".into()).spawn(move || {
        let runtime = threads(workers).and_then(|()| {
            catch(|| {
                Builder::new_multi_thread()
                    .worker_threads(workers)
                    .thread_name(name)
                    .enable_all()
                    .build()
            })
        });
        let _ = built.send(runtime);
        thread_id()
    })?;
    let runtime = build.recv_timeout(BUILD_MAX).unwrap_or_else(|_| {
        let refused = format!("the system refused one of {workers} threads");
        Err(io::Error::new(io::ErrorKind::TimedOut, refused))
    });
    if runtime.is_ok() {
        wait_until_gone(building);
    }
    runtime
}

/// Starts `count` threads, all at the same time, and ends them.
///
/// # Errors
/// Errors of the system, if it refuses one of them.
pub(crate) fn threads(count: usize) -> io::Result<()> {
    let mut started = Vec::new();
    let mut outcome = Ok(());
    for _ in 0..count {
        let parked = thread::Builder::new().spawn(|| {
            thread::park();
            thread_id()
        });
        match parked {
            Ok(thread) => started.push(thread),
            Err(error) => outcome = Err(error),
        }
    }
    for thread in &started {
        thread.thread().unpark();
    }
    started.into_iter().for_each(wait_until_gone);
    outcome
}

/// Opens `count` descriptors, all at the same time, and closes them.
fn descriptors(count: usize) -> io::Result<()> {
    let first = OwnedFd::from(UnixDatagram::unbound()?);
    let copies = (1..count).map(|_| fcntl_dupfd_cloexec(&first, 0));
    copies.collect::<Result<Vec<_>, _>>()?;
    Ok(())
}

/// Runs `start`, which panics if the system refuses it a resource, and returns the panic as an
/// error.
pub(crate) fn catch<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(start)).unwrap_or_else(|panic| {
        let message = panic
            .downcast::<String>()
            .map_or_else(|_| "it panicked".to_owned(), |message| *message);
        Err(io::Error::other(message))
    })
}

/// Waits until a joined thread no longer counts against the limit, which takes a moment.
fn wait_until_gone(thread: JoinHandle<Option<u32>>) {
    const TRIES: usize = 1000;
    let Ok(Some(id)) = thread.join() else { return };
    let entry = std::path::PathBuf::from(format!("/proc/self/task/{id}"));
    for _ in 0..TRIES {
        if !entry.exists() {
            return;
        }
        thread::yield_now();
    }
}

#[cfg(target_os = "linux")]
fn thread_id() -> Option<u32> {
    u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).ok()
}

#[cfg(not(target_os = "linux"))]
fn thread_id() -> Option<u32> {
    None
}
