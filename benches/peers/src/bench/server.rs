//! A server under measurement: started on a core of its own, watched through `/proc`, stopped by SIGTERM.

use std::{
    env, fs,
    io::{self, BufRead as _, BufReader},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What measures, and what is measured, each have a core.
pub const SERVER_CORE: &str = "0";
pub const CLIENT_CORE: &str = "1";

/// Ticks of a process's times in a second; Linux has no other number here.
const TICKS: f64 = 100.0;

/// A running server.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
}

/// Time on the core, in seconds.
#[derive(Clone, Copy)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

/// Where a server's binary is: beside ours.
pub fn binary(name: &str) -> io::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name(name))
}

impl Server {
    /// Starts it, under `wrapper` if that names a program.
    pub fn start(name: &str, wrapper: &[String]) -> io::Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE]).args(wrapper).arg(binary(name)?).arg("127.0.0.1:0");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let out = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening ").and_then(|address| address.parse().ok());
        let address = address.ok_or_else(|| io::Error::other(format!("{name} did not start: {line:?}")))?;
        let server = Self { child, address };
        // Bound is not yet listening.
        while TcpStream::connect(address).is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    pub fn cpu(&self) -> io::Result<Cpu> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The second field is the name, in parentheses, and may hold anything.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let seconds = |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / TICKS;
        Ok(Cpu { user: seconds(11), system: seconds(12) })
    }

    /// A line of `/proc/<pid>/status`, in bytes: `VmRSS` is what is resident now, `VmHWM` the most that ever was.
    pub fn memory(&self, line: &str) -> io::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        Ok(kilobytes.unwrap_or(0.0) * 1024.0)
    }

    /// Asks it to stop; when.
    pub fn ask_to_stop(&self) -> io::Result<Instant> {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM)?;
        Ok(Instant::now())
    }

    /// Waits for its end.
    pub fn wait(mut self) -> io::Result<()> {
        self.child.wait().map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already, or in the way of the next.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
