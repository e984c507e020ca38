//! The output of a process, of which the last bytes are kept.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind, Read},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// Bytes at the end of a process's output that are kept.
const OUTPUT_MAX: usize = 256 * 1024;
/// Pause after a read of an empty pipe that does not wait.
const READ_EVERY: Duration = Duration::from_millis(2);

/// Where the output of the process goes.
#[derive(Debug)]
pub enum Output {
    /// It is read and kept.
    Kept,
    /// Into the second end of this pipe. It is read at the first end, and kept, until
    /// [`Process::stop_reading`](super::Process::stop_reading).
    Pipe(io::PipeReader, io::PipeWriter),
}

impl Output {
    /// Sets the output of a command. Returns the end to read.
    pub(super) fn of(self, command: &mut Command) -> io::Result<io::PipeReader> {
        let (reader, writer) = match self {
            Self::Kept => io::pipe()?,
            Self::Pipe(reader, writer) => {
                rustix::io::ioctl_fionbio(&reader, true)?;
                (reader, writer)
            }
        };
        command.stdout(writer.try_clone()?).stderr(writer);
        Ok(reader)
    }

    /// Closes the write ends that the command holds: they would hide the end of the output.
    pub(super) fn release(command: &mut Command) {
        command.stdout(Stdio::null()).stderr(Stdio::null());
    }
}

/// What was read of an output.
#[derive(Debug, Default)]
pub(super) struct Kept {
    bytes: Arc<Mutex<VecDeque<u8>>>,
    is_over: Arc<AtomicBool>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Kept {
    /// Begins to read.
    pub(super) fn begin(&mut self, from: io::PipeReader) -> io::Result<()> {
        let (bytes, is_over) = (self.bytes.clone(), self.is_over.clone());
        let thread = thread::Builder::new().name("output".into());
        self.reader = Some(thread.spawn(move || keep(from, &bytes, &is_over))?);
        Ok(())
    }

    /// Ends the reading of a pipe that the caller has provided.
    pub(super) fn stop(&mut self) {
        self.is_over.store(true, Relaxed);
        let _ = self.reader.take().map(thread::JoinHandle::join);
    }

    /// Waits a moment for the end of the output.
    pub(super) fn await_end(&self) {
        let end = Instant::now() + Duration::from_millis(300);
        let is_read = || self.reader.as_ref().is_none_or(thread::JoinHandle::is_finished);
        while !is_read() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn text(&self) -> String {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(bytes.make_contiguous()).into_owned()
    }
}

/// Reads until the end, or until it is over, and keeps the last bytes.
fn keep(mut reader: impl Read, kept: &Mutex<VecDeque<u8>>, is_over: &AtomicBool) {
    let mut buffer = [0; 8192];
    while !is_over.load(Relaxed) {
        match reader.read(&mut buffer) {
            Ok(read @ 1..) => {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&buffer[..read]);
                let excess = kept.len().saturating_sub(OUTPUT_MAX);
                kept.drain(..excess);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(READ_EVERY),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OUTPUT_MAX, keep};
    use std::{
        collections::VecDeque,
        sync::{Mutex, atomic::AtomicBool},
    };

    // A server that had logged 256 KiB before it failed was reported without its error.
    #[test]
    fn the_end_of_a_long_output_is_kept() {
        let kept = Mutex::new(VecDeque::new());
        let output = [vec![b'x'; OUTPUT_MAX], b"the error".to_vec()].concat();
        keep(&output[..], &kept, &AtomicBool::new(false));
        assert!(kept.into_inner().unwrap().iter().eq(&output[b"the error".len()..]));
    }
}
