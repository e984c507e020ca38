//! A real process of the service: starts it, reads its log, signals it, and always ends it.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

/// A running service. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    /// Address of its main server: the first TCP address of several.
    pub(crate) main: SocketAddr,
    /// All addresses of its main server, as it logs them.
    pub(crate) addresses: Vec<String>,
    /// Address of its internal server.
    pub(crate) internal: SocketAddr,
    log: Arc<Log>,
    reader: Option<thread::JoinHandle<()>>,
}

/// The log lines of the process. Threads that wait for more lines are notified.
#[derive(Debug, Default)]
struct Log {
    lines: Mutex<Vec<serde_json::Value>>,
    grew: Condvar,
}

impl Log {
    fn lock(&self) -> MutexGuard<'_, Vec<serde_json::Value>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longest wait for a start.
const START_MAX: Duration = Duration::from_secs(20);

impl Service {
    /// Starts `binary` with `args` on ports that the system chooses, and waits until it serves.
    ///
    /// # Errors
    /// If it cannot be started, or does not serve in time.
    pub(crate) fn start(binary: &Path, args: &[&str]) -> io::Result<Self> {
        Self::start_on(binary, "127.0.0.1:0", args)
    }

    /// Starts `binary` with its main server on `address`, and waits until it serves.
    ///
    /// # Errors
    /// If it cannot be started, or does not serve in time.
    pub(crate) fn start_on(binary: &Path, address: &str, args: &[&str]) -> io::Result<Self> {
        Self::launch(Command::new(binary).args(["--addr", address]).args(args))
    }

    /// Starts `command`, and waits until it serves. The command line must be complete except for
    /// the internal address and the log format.
    ///
    /// # Errors
    /// If it cannot be started, or does not serve in time.
    pub(crate) fn launch(command: &mut Command) -> io::Result<Self> {
        let mut child = command
            .args(["--internal-addr", "127.0.0.1:0", "--log-format", "json"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let log = Arc::new(Log::default());
        let written = log.clone();
        let reader = thread::Builder::new().name("log".into()).spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
                written.lock().push(line);
                written.grew.notify_all();
            }
        })?;
        let unbound = SocketAddr::from(([0; 4], 0));
        let mut me = Self {
            child,
            main: unbound,
            addresses: Vec::new(),
            internal: unbound,
            log,
            reader: Some(reader),
        };
        // From here on, an early return drops `me`, which kills the process.
        if !me.await_log(START_MAX, |line| line["phase"] == "serving") {
            return Err(io::Error::other("the service did not log that it serves"));
        }
        let bound = me
            .log()
            .into_iter()
            .find(|line| line["message"] == "bound")
            .ok_or(io::ErrorKind::InvalidData)?;
        me.addresses =
            bound["main"].as_str().unwrap_or_default().split(", ").map(str::to_owned).collect();
        let parse = |address: &str| address.parse::<SocketAddr>().ok();
        me.main = me.addresses.iter().find_map(|address| parse(address)).unwrap_or(unbound);
        me.internal =
            bound["internal"].as_str().and_then(parse).ok_or(io::ErrorKind::InvalidData)?;
        Ok(me)
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If the process is gone.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::InvalidInput)?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its exit, and returns its status.
    ///
    /// # Errors
    /// If it does not exit in time. Then it is killed.
    pub(crate) fn wait(&mut self, most: Duration) -> io::Result<ExitStatus> {
        let end = Instant::now() + most;
        loop {
            if let Some(status) = self.child.try_wait()? {
                if let Some(reader) = self.reader.take() {
                    let _ = reader.join();
                }
                return Ok(status);
            }
            if Instant::now() >= end {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the service did not exit in time",
                ));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Returns the lines logged until now.
    pub(crate) fn log(&self) -> Vec<serde_json::Value> {
        self.log.lock().clone()
    }

    /// Waits until it has logged a matching line. Returns false if it does not in time.
    pub(crate) fn await_log(
        &self,
        most: Duration,
        such: impl Fn(&serde_json::Value) -> bool,
    ) -> bool {
        let waited = self
            .log
            .grew
            .wait_timeout_while(self.log.lock(), most, |lines| !lines.iter().any(&such));
        let (lines, _) = waited.unwrap_or_else(PoisonError::into_inner);
        lines.iter().any(such)
    }

    /// Returns its report, once it has exited.
    pub(crate) fn report(&self) -> Option<serde_json::Value> {
        let line = self.log().into_iter().find(|line| line["message"] == "report")?;
        serde_json::from_str(line["report"].as_str()?).ok()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
