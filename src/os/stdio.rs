//! Writes one line to standard error, without waiting for its reader.
//!
//! `eprintln!` panics if the reader of the pipe is gone, and blocks for ever if the reader does not
//! read. A process that must exit in bounded time (P7) can afford neither. A line that cannot be
//! written at once is dropped: this is for final messages, not for logs.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io,
    stdio::stderr,
};

/// A pipe with any free space takes this many bytes at once, or none (POSIX `PIPE_BUF`, as on
/// Linux).
const LINE_BYTES_MAX: usize = 4096;

/// Writes `line` and a newline to standard error in one write, if that is possible at once. Cuts it
/// to 4096 bytes. Never blocks on a pipe, never panics, and reports no error, since nothing is left
/// to report it to.
pub fn write_stderr_line(line: &str) {
    let mut bytes = Vec::with_capacity(line.len().min(LINE_BYTES_MAX) + 1);
    bytes.extend_from_slice(&line.as_bytes()[..line.len().min(LINE_BYTES_MAX - 1)]);
    bytes.push(b'\n');
    write_or_drop(&bytes);
}

fn write_or_drop(bytes: &[u8]) {
    // Any other error: this file cannot promise not to block (a terminal, an old kernel), a sandbox
    // refuses the call, or it is a regular file with other work in progress. Ask `poll` instead;
    // for a full pipe it reports no space again.
    if matches!(write_without_waiting(bytes), Ok(_) | Err(io::Errno::PIPE | io::Errno::BADF)) {
        return;
    }
    let stderr = stderr();
    let mut waiting = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let polled = io::retry_on_intr(|| poll(&mut waiting, Some(&at_once)));
    if polled.is_ok() && waiting[0].revents().contains(PollFlags::OUT) {
        let _ = io::write(stderr, bytes);
    }
}

/// Writes with `RWF_NOWAIT`. A `poll` before a plain write is not enough: another thread's write
/// may fill the pipe in between.
#[cfg(target_os = "linux")]
fn write_without_waiting(bytes: &[u8]) -> io::Result<usize> {
    let current_offset = u64::MAX;
    io::pwritev2(
        stderr(),
        &[std::io::IoSlice::new(bytes)],
        current_offset,
        io::ReadWriteFlags::NOWAIT,
    )
}

#[cfg(not(target_os = "linux"))]
fn write_without_waiting(_: &[u8]) -> io::Result<usize> {
    Err(io::Errno::NOSYS)
}
