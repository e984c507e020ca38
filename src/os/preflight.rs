//! Starts what panics if the system refuses it a thread or a descriptor, and returns the refusal as
//! an error (P14).
//!
//! tokio panics when the system refuses a thread or a socket pair, and so does the writer thread of
//! the log. A multi-threaded runtime that got only some of its threads is worse: its drop waits for
//! them for ever.

use rustix::io::{Errno, fcntl_dupfd_cloexec};
use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    panic::{self, AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    thread,
};
use tokio::runtime::{Builder, Runtime};

/// What the first runtime opens: an epoll and a copy, an eventfd, and a socket pair for signals and
/// a copy.
const RUNTIME_DESCRIPTORS: usize = 6;

/// Builds the first single-threaded runtime of the process, or returns why that is not possible.
pub(crate) fn single_threaded() -> io::Result<Runtime> {
    descriptors(RUNTIME_DESCRIPTORS)?;
    Builder::new_current_thread().enable_all().build()
}

/// Builds a later runtime, with `workers` threads, or returns why that is not possible.
pub(crate) fn multi_threaded(name: &'static str, workers: usize) -> io::Result<Runtime> {
    // Whether the runtime got all of its threads. They wait for that, and end at once if it did
    // not, because the unwinding of the build waits for their end.
    let is_complete = Arc::new(OnceLock::<bool>::new());
    let (complete, refused) = (is_complete.clone(), is_complete.clone());
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers).thread_name(name).enable_all().on_thread_start(move || {
        if !*complete.wait() {
            panic::resume_unwind(Box::new("a runtime without all of its threads"));
        }
    });
    let build = || {
        let built = builder.build();
        is_complete.get_or_init(|| true);
        built
    };
    catch_refusal(build, move || {
        refused.get_or_init(|| false);
    })?
}

/// Runs `start`, which panics if the system refuses it a thread, and returns the refusal as an
/// error. The panic is not reported. Calls `refused` when it happens, before the unwinding.
///
/// # Errors
/// Why `start` panicked: `EAGAIN` if it was refused a thread.
pub(crate) fn catch_refusal<T>(
    start: impl FnOnce() -> T,
    refused: impl Fn() + Send + Sync + 'static,
) -> io::Result<T> {
    let this = thread::current().id();
    let others: Arc<dyn Fn(&panic::PanicHookInfo<'_>) + Send + Sync> = panic::take_hook().into();
    let hook = others.clone();
    panic::set_hook(Box::new(
        move |panic| {
            if thread::current().id() == this { refused() } else { hook(panic) }
        },
    ));
    let started = catch_unwind(AssertUnwindSafe(start));
    panic::set_hook(Box::new(move |panic| others(panic)));
    started.map_err(|panic| {
        let message = panic.downcast::<String>().map_or_else(|_| "panicked".into(), |text| *text);
        // The text of the error is a part of the message. Its number is not, if it is quoted.
        let no_thread = io::Error::from(Errno::AGAIN);
        match no_thread.to_string().split(" (").next() {
            Some(text) if message.contains(text) => no_thread,
            Some(_) | None => io::Error::other(message),
        }
    })
}

/// Opens `count` descriptors, all at the same time, and closes them.
fn descriptors(count: usize) -> io::Result<()> {
    let first = OwnedFd::from(UnixDatagram::unbound()?);
    let copies = (1..count).map(|_| fcntl_dupfd_cloexec(&first, 0));
    copies.collect::<Result<Vec<_>, _>>()?;
    Ok(())
}
