//! The process under test, in a process group that is killed whatever happens.

mod output;

pub use output::Output;

use output::Kept;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, kill_process_group,
    test_kill_process_group, waitid, waitpgid,
};
use std::{
    collections::BTreeSet,
    fmt,
    io::{self, ErrorKind},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus},
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// The process groups that this program has started.
static GROUPS: Groups = Groups::new();

/// Kills all process groups that this program has started. Called before it exits: no process can
/// be started after that. Processes that have left their group are killed if this program has
/// [adopted](adopt_orphans) them.
pub fn kill_all() {
    GROUPS.kill_all();
    orphans::kill();
}

/// Makes this program the parent of every process whose parent has exited, so that a server which
/// puts itself into the background is killed at the end, too.
///
/// # Errors
/// Errors of the system.
pub fn adopt_orphans() -> io::Result<()> {
    orphans::adopt()
}

/// Process groups that are alive, or `None` after they were all killed.
#[derive(Debug)]
struct Groups(Mutex<Option<BTreeSet<i32>>>);

impl Groups {
    const fn new() -> Self {
        Self(Mutex::new(Some(BTreeSet::new())))
    }

    /// Starts a command in its own group. The lock is held for the whole start, so that no group
    /// escapes a [`Self::kill_all`].
    fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(groups) = groups.as_mut() else {
            return Err(io::Error::new(ErrorKind::Interrupted, "this program is being ended"));
        };
        let child = command.process_group(0).spawn()?;
        groups.insert(Pid::from_child(&child).as_raw_pid());
        Ok(child)
    }

    fn remove(&self, group: Pid) {
        if let Some(groups) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            groups.remove(&group.as_raw_pid());
        }
    }

    fn kill_all(&self) {
        let groups = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        for group in groups.into_iter().flatten().filter_map(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// A process and its descendants. Dropping it kills them.
#[derive(Debug)]
pub struct Process {
    child: Child,
    group: Pid,
    output: Kept,
    exited: Option<(Exit, Instant)>,
    /// The group was killed and waited for.
    is_gone: bool,
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

/// Signals that end a process because of a fault in its code.
const CRASHES: [Signal; 8] = [
    Signal::PIPE,
    Signal::SEGV,
    Signal::ABORT,
    Signal::BUS,
    Signal::ILL,
    Signal::FPE,
    Signal::TRAP,
    Signal::SYS,
];

impl Exit {
    /// Returns whether a fault of the process ended it. The default action of a stop signal is no
    /// crash.
    #[must_use]
    pub fn is_crash(self) -> bool {
        let Self::Signal(number) = self else { return false };
        CRASHES.iter().any(|signal| signal.as_raw() == number)
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
                Some(Signal::ABORT) => f.write_str("killed by SIGABRT"),
                Some(Signal::SEGV) => f.write_str("killed by SIGSEGV"),
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
        let reader = output.of(command)?;
        let child = GROUPS.spawn(command).map_err(|error| {
            let program = command.get_program().to_string_lossy().into_owned();
            io::Error::new(error.kind(), format!("cannot start `{program}`: {error}"))
        })?;
        Output::release(command);
        let (group, output) = (Pid::from_child(&child), Kept::default());
        let mut process = Self { child, group, output, exited: None, is_gone: false };
        process.output.begin(reader)?;
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

    /// Lets the process open this many descriptors more than it has.
    ///
    /// # Errors
    /// If the process is gone, or the system has no such limit.
    pub fn limit_descriptors(&self, spare: u64) -> io::Result<()> {
        let folder = format!("/proc/{}/fd", self.group.as_raw_pid());
        let used: BTreeSet<u64> = std::fs::read_dir(folder)?
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        // The limit is one of their numbers, not of their count. Unused numbers are taken first.
        let mut unused = (0..).filter(|number| !used.contains(number));
        let limit = unused.nth(usize::try_from(spare).unwrap_or(usize::MAX)).unwrap_or(u64::MAX);
        limit_to(self.group, limit)
    }

    /// Stops the whole group, and waits until its first process is stopped. The kernel still
    /// completes handshakes and keeps bytes for it.
    ///
    /// # Errors
    /// If it is gone.
    pub fn freeze(&self) -> io::Result<()> {
        kill_process_group(self.group, Signal::STOP)?;
        let end = Instant::now() + Duration::from_secs(2);
        // One that has exited is never stopped.
        let has_settled = |state: Option<char>| matches!(state, Some('T' | 'Z') | None);
        while Instant::now() < end && !has_settled(self.state()) {
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

    /// Kills the group as soon as its first process has exited, as the end of PID 1 does in a
    /// container.
    ///
    /// # Errors
    /// If there can be no thread that waits for the exit.
    pub fn end_group_with_first(&self) -> io::Result<()> {
        let group = self.group;
        let wait = move || {
            // It stays a zombie, so that its id is not given to another.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            if waitid(WaitId::Pid(group), options).is_ok() {
                let _ = kill_process_group(group, Signal::KILL);
            }
        };
        thread::Builder::new().name("exit".into()).spawn(wait).map(drop)
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

    /// Returns whether a process of the group runs: the first one, or a descendant after its exit.
    pub fn has_running(&mut self) -> bool {
        if self.exit().is_none() {
            return true;
        }
        // Adopted ones that have ended are zombies of the group until they are waited for.
        while matches!(waitpgid(self.group, WaitOptions::NOHANG), Ok(Some(_))) {}
        test_kill_process_group(self.group).is_ok()
    }

    /// Kills the whole group.
    pub fn kill(&mut self) {
        // The ids of a group that is gone may have been given to another.
        if self.is_gone {
            return;
        }
        // The group still exists if its first process was not waited for, or has descendants.
        let _ = kill_process_group(self.group, Signal::KILL);
        // Waited for first, so that it is not taken for an adopted process.
        if self.exit_until(Instant::now() + Duration::from_secs(5)).is_some() {
            reap(self.group);
            self.is_gone = true;
        }
        GROUPS.remove(self.group);
    }

    /// Waits a moment for the end of the output of a process that has exited.
    pub fn await_output(&self) {
        self.output.await_end();
    }

    /// Ends the reading of its output, which goes into an [`Output::Pipe`].
    pub fn stop_reading(&mut self) {
        self.output.stop();
    }

    /// Returns the output until now, at most its last 256 KiB.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.text()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Waits for the killed processes of a group that this program has [adopted](adopt_orphans), for a
/// bounded time. Otherwise they would be zombies until its end.
fn reap(group: Pid) {
    let end = Instant::now() + Duration::from_secs(1);
    loop {
        match waitpgid(group, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
            // None is left, or none of them ends.
            Ok(None) | Err(_) => return,
        }
    }
}

#[cfg(target_os = "linux")]
fn limit_to(pid: Pid, limit: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, prlimit};
    let limit = Rlimit { current: Some(limit), maximum: Some(limit) };
    prlimit(Some(pid), Resource::Nofile, limit)?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn limit_to(_: Pid, _: u64) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// The descendants that have left their process group.
#[cfg(target_os = "linux")]
mod orphans {
    use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};
    use std::{
        fs, io, thread,
        time::{Duration, Instant},
    };

    pub(super) fn adopt() -> io::Result<()> {
        Ok(set_child_subreaper(Some(getpid()))?)
    }

    /// Kills the children of this process, then theirs, which become its children.
    pub(super) fn kill() {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            let children = children();
            if children.is_empty() || Instant::now() >= end {
                return;
            }
            for child in children {
                let _ = kill_process(child, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns the children that run. A zombie does not.
    fn children() -> Vec<Pid> {
        let own = getpid().as_raw_pid().to_string();
        let is_child = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let (_, fields) = stat.rsplit_once(") ")?;
            let mut fields = fields.split(' ');
            let is_running = !matches!(fields.next()?, "Z" | "X");
            (is_running && fields.next()? == own).then_some(pid)
        };
        let processes = fs::read_dir("/proc").into_iter().flatten();
        let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        ids.filter_map(is_child).filter_map(Pid::from_raw).collect()
    }
}

#[cfg(not(target_os = "linux"))]
mod orphans {
    pub(super) const fn adopt() -> std::io::Result<()> {
        Ok(())
    }

    pub(super) const fn kill() {}
}

#[cfg(test)]
mod tests {
    use super::{Groups, Output, Process};
    use std::{
        io::ErrorKind,
        os::unix::process::ExitStatusExt,
        process::Command,
        sync::Barrier,
        thread,
        time::{Duration, Instant},
    };

    // A server with worker processes left one zombie for each at every stop, until the check ended:
    // thousands in a soak.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_orphans_of_a_killed_group_are_no_zombies() {
        super::adopt_orphans().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "sleep 60 & sleep 60 & sleep 60 & echo $!"]);
        let mut process = Process::start(&mut shell, Output::Kept).unwrap();
        let end = Instant::now() + Duration::from_secs(5);
        assert!(process.exit_until(end).is_some());
        while process.output().is_empty() && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        let orphan = format!("/proc/{}", process.output().trim());
        assert!(std::fs::exists(&orphan).unwrap(), "{orphan}");
        process.kill();
        assert!(!std::fs::exists(&orphan).unwrap(), "{orphan}");
    }

    #[test]
    fn no_group_escapes_the_kill_of_all() {
        let (groups, barrier) = (Groups::new(), Barrier::new(2));
        let sleep = || groups.spawn(Command::new("sleep").arg("60"));
        let mut first = sleep().unwrap();
        let mut others = Vec::new();
        let refused = thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                groups.kill_all();
            });
            barrier.wait();
            loop {
                match sleep() {
                    Ok(child) => others.push(child),
                    Err(error) => return error,
                }
            }
        });
        assert_eq!(refused.kind(), ErrorKind::Interrupted);
        for child in others.iter_mut().chain([&mut first]) {
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        }
    }
}
