//! A real process of the service: started, read, signalled, and never left behind.

use rustix::process::{Pid, Signal, kill_process};
use std::{
    io::{self, BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

/// A running service. Dropped, it is killed.
#[derive(Debug)]
pub struct Service {
    child: Child,
    /// Where its main server listens.
    pub main: SocketAddr,
    /// Where its internal server listens.
    pub internal: SocketAddr,
    log: Arc<Mutex<Vec<serde_json::Value>>>,
    reader: Option<thread::JoinHandle<()>>,
}

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(20);

impl Service {
    /// Starts `binary` on ports of the system's choice, with `args`, and waits until it serves.
    ///
    /// # Errors
    /// If it cannot be started, or does not serve in time.
    pub fn start(binary: &Path, args: &[&str]) -> io::Result<Self> {
        Self::start_on(binary, "127.0.0.1:0", args)
    }

    /// Starts `binary` with its main server on `address`.
    ///
    /// # Errors
    /// If it cannot be started, or does not serve in time.
    pub fn start_on(binary: &Path, address: &str, args: &[&str]) -> io::Result<Self> {
        let mut child = Command::new(binary)
            .args(["--addr", address, "--internal-addr", "127.0.0.1:0", "--log-format", "json"])
            .args(args)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let (bound, addresses) = mpsc::channel();
        let written = log.clone();
        let reader = thread::Builder::new().name("log".into()).spawn(move || {
            let mut found = (None, false);
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let Ok(line) = serde_json::from_str::<serde_json::Value>(&line) else { continue };
                let address = |field: &str| line[field].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
                if line["message"] == "bound" {
                    found.0 = address("main").zip(address("internal"));
                }
                if line["phase"] == "serving" && !found.1 {
                    found.1 = true;
                    let _ = bound.send(found.0);
                }
                written.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        })?;
        match addresses.recv_timeout(START_MAX) {
            Ok(Some((main, internal))) => Ok(Self { child, main, internal, log, reader: Some(reader) }),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(io::Error::other("it did not say that it serves"))
            }
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits for its exit; returns its code.
    ///
    /// # Errors
    /// If it does not exit in time; then it is killed.
    pub fn wait(&mut self, most: Duration) -> io::Result<ExitStatus> {
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
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not exit in time"));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it logged so far.
    pub fn log(&self) -> Vec<serde_json::Value> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Its report, once it has exited.
    pub fn report(&self) -> Option<serde_json::Value> {
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
