//! The process under test, in a process group that is killed whatever happens.

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Read},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// Bytes of a process's output that are kept.
const OUTPUT_MAX: usize = 256 * 1024;

/// The groups that are alive, for [`kill_all`].
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Kills all process groups that this program has started, before it is ended by a signal.
pub fn kill_all() {
    for group in GROUPS.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        if let Some(group) = Pid::from_raw(*group) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// Where the output of the process goes.
#[derive(Debug)]
pub enum Output {
    /// It is read and kept.
    Kept,
    /// Into these ends of a pipe.
    Pipe(io::PipeWriter),
}

/// A process and its descendants. Dropping it kills them.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Pid,
    output: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
    exited: Option<(Exit, Instant)>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or(0)),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::from_named_raw(*number) {
                Some(Signal::TERM) => f.write_str("killed by SIGTERM"),
                Some(Signal::INT) => f.write_str("killed by SIGINT"),
                Some(Signal::KILL) => f.write_str("killed by SIGKILL"),
                Some(Signal::PIPE) => f.write_str("killed by SIGPIPE"),
                _ => write!(f, "killed by signal {number}"),
            },
        }
    }
}

impl Process {
    /// Starts a command in its own process group.
    ///
    /// # Errors
    /// If the program cannot be started; the error names it.
    pub fn start(command: &mut Command, output: Output) -> io::Result<Self> {
        command.process_group(0);
        let reader = match output {
            Output::Kept => {
                let (reader, writer) = io::pipe()?;
                command.stdout(writer.try_clone()?).stderr(writer);
                Some(reader)
            }
            Output::Pipe(writer) => {
                command.stdout(writer.try_clone()?).stderr(writer);
                None
            }
        };
        let child = command.spawn().map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            io::Error::new(error.kind(), format!("cannot start `{program}`: {error}"))
        })?;
        // The command holds the write ends of the pipe, which would hide the end of the output.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let group = Pid::from_child(&child);
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).insert(group.as_raw_pid());
        let kept = Arc::new(Mutex::new(Vec::new()));
        let output = kept.clone();
        let mut process = Self { child, group, output, reader: None, exited: None };
        if let Some(reader) = reader {
            let thread = thread::Builder::new().name("output".into());
            process.reader = Some(thread.spawn(move || keep(reader, &kept))?);
        }
        Ok(process)
    }

    /// Returns its process id, which is also that of its group.
    #[must_use]
    pub const fn id(&self) -> Pid {
        self.group
    }

    /// Sends a signal to the process that was started, as a platform does.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.group, signal)?)
    }

    /// Stops the whole group, and waits until its first process is stopped. The kernel still
    /// completes handshakes and keeps bytes for it.
    ///
    /// # Errors
    /// If it is gone.
    pub fn freeze(&self) -> io::Result<()> {
        kill_process_group(self.group, Signal::STOP)?;
        let end = Instant::now() + Duration::from_secs(2);
        while Instant::now() < end && self.state().is_some_and(|state| state != 'T') {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Continues the whole group.
    ///
    /// # Errors
    /// If it is gone.
    pub fn thaw(&self) -> io::Result<()> {
        Ok(kill_process_group(self.group, Signal::CONT)?)
    }

    /// Returns the state in `/proc`, where there is one.
    fn state(&self) -> Option<char> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.group.as_raw_pid()));
        stat.ok()?.rsplit_once(") ")?.1.chars().next()
    }

    /// Returns how the process ended and when that was noticed, or `None` if it runs.
    pub fn exit(&mut self) -> Option<(Exit, Instant)> {
        if self.exited.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.exited = Some((Exit::of(status), Instant::now()));
        }
        self.exited
    }

    /// Waits for the exit until `end`. Returns `None` if it still runs then.
    pub fn exit_until(&mut self, end: Instant) -> Option<(Exit, Instant)> {
        loop {
            if let Some(exit) = self.exit() {
                return Some(exit);
            }
            if Instant::now() >= end {
                return None;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills the whole group.
    pub fn kill(&mut self) {
        // The group still exists if its first process was not waited for, or has descendants.
        let _ = kill_process_group(self.group, Signal::KILL);
        let _ = self.exit_until(Instant::now() + Duration::from_secs(5));
        GROUPS.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.group.as_raw_pid());
    }

    /// Waits a moment for the end of the output of a process that has exited.
    pub fn await_output(&self) {
        let end = Instant::now() + Duration::from_millis(300);
        let is_read = || self.reader.as_ref().is_none_or(thread::JoinHandle::is_finished);
        while !is_read() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns the output until now, at most 256 KiB.
    #[must_use]
    pub fn output(&self) -> String {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&output).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn keep(mut reader: io::PipeReader, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = reader.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = OUTPUT_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}
