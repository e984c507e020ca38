//! One line to standard error, without waiting for whoever reads it.
//!
//! `eprintln!` panics when the reader of the pipe is gone, and blocks for ever when the reader is there but does not read. A
//! process that must exit in bounded time (P7) can afford neither. What cannot be written now is dropped: this is for last
//! words, not for logs.

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io,
    stdio::stderr,
};

/// A pipe that has room at all takes this much at once, or nothing (POSIX `PIPE_BUF`, as Linux has it).
const LINE_BYTES_MAX: usize = 4096;

/// Writes `line` and a newline to standard error, if that is possible at once, in one write. It is cut to 4096 bytes. It
/// never blocks on a pipe, never panics and reports no error: there is nobody left to report it to.
pub fn write_stderr_line(line: &str) {
    let mut bytes = Vec::with_capacity(line.len().min(LINE_BYTES_MAX) + 1);
    bytes.extend_from_slice(&line.as_bytes()[..line.len().min(LINE_BYTES_MAX - 1)]);
    bytes.push(b'\n');
    write_at_once(&bytes);
}

fn write_at_once(bytes: &[u8]) {
    match write_without_waiting(bytes) {
        // This kind of file cannot promise not to block (a terminal, an old kernel), or it is a regular file with other work
        // under way. Ask poll instead; a full pipe says no here a second time.
        Err(io::Errno::OPNOTSUPP | io::Errno::NOSYS | io::Errno::AGAIN | io::Errno::INVAL) => {}
        Ok(_) | Err(_) => return,
    }
    let stderr = stderr();
    let mut waiting = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    if poll(&mut waiting, Some(&at_once)).is_ok() && waiting[0].revents().contains(PollFlags::OUT) {
        let _ = io::write(stderr, bytes);
    }
}

/// Closes the gap between a poll that says yes and a write that blocks, because another thread's write came between.
#[cfg(target_os = "linux")]
fn write_without_waiting(bytes: &[u8]) -> io::Result<usize> {
    let wherever_it_stands = u64::MAX;
    io::pwritev2(
        stderr(),
        &[std::io::IoSlice::new(bytes)],
        wherever_it_stands,
        io::ReadWriteFlags::NOWAIT,
    )
}

#[cfg(not(target_os = "linux"))]
fn write_without_waiting(_: &[u8]) -> io::Result<usize> {
    Err(io::Errno::NOSYS)
}
