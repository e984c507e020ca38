//! A measured server: started on its own core, observed through `/proc`, stopped by its signal.

use crate::{
    Result, client,
    cores::{TICKS, on_both_cores, on_server_core},
    peer::{Peer, Speaks},
};
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open};
use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A running server.
pub struct Server {
    child: Child,
    peer: &'static Peer,
    pub address: SocketAddr,
    /// When it was started.
    pub began: Instant,
    /// A pidfd, readable once the process has ended.
    pub exit: OwnedFd,
}

/// How a server is started.
#[derive(Default)]
pub struct Setup<'a> {
    /// The wrapper command that runs it; none if empty.
    pub wrapper: &'a [String],
    /// Environment variables for the lameduck servers.
    pub variables: &'a [(&'static str, String)],
    pub http2: bool,
    /// Whether it has both cores, and so two workers.
    pub both_cores: bool,
}

/// CPU time in seconds.
#[derive(Clone, Copy)]
pub struct Cpu {
    pub user: f64,
    pub system: f64,
}

/// Longest wait for a start. Under valgrind a start takes seconds.
const START_TIME: Duration = Duration::from_secs(60);

impl Server {
    /// Starts a server, and waits until it accepts connections.
    pub fn start(peer: &'static Peer, setup: &Setup<'_>) -> Result<Self> {
        let mut server = Self::spawn(peer, setup)?;
        while client::connect(server.address).is_err() {
            server.check_start()?;
            thread::sleep(Duration::from_millis(1));
        }
        Ok(server)
    }

    /// Starts a server.
    pub fn spawn(peer: &'static Peer, setup: &Setup<'_>) -> Result<Self> {
        // No other process takes the port in between: ephemeral ports are assigned in turn.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = peer.command(setup.wrapper, address, setup.http2)?;
        if peer.is_lameduck() {
            command.envs(setup.variables.iter().map(|(name, value)| (name, value)));
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let start = || (Instant::now(), command.spawn());
        let (began, child) =
            if setup.both_cores { on_both_cores(start)? } else { on_server_core(start)? };
        let child = child.map_err(|error| format!("{}: {error}", peer.name))?;
        let exit = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
        Ok(Self { child, peer, address, began, exit })
    }

    /// Returns an error if the process has ended or takes too long to start.
    pub fn check_start(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("{} did not start: {status}", self.peer.name).into());
        }
        if self.began.elapsed() > START_TIME {
            return Err(format!("{} did not start within {START_TIME:?}", self.peer.name).into());
        }
        Ok(())
    }

    /// Returns the address of a path, for a load generator.
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.peer.speaks == Speaks::Tls { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Returns the CPU time used by the process and its children.
    pub fn cpu(&self) -> io::Result<Cpu> {
        let mut cpu = Cpu { user: 0.0, system: 0.0 };
        for process in self.processes() {
            let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
            // The second field is the name, in parentheses, and may contain anything.
            let fields: Vec<&str> =
                stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            let seconds = |index: usize| {
                fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / TICKS
            };
            cpu.user += seconds(11);
            cpu.system += seconds(12);
        }
        Ok(cpu)
    }

    /// Returns the resident bytes of the process and its children, now.
    pub fn resident(&self) -> io::Result<f64> {
        self.memory("VmRSS")
    }

    /// Returns the peak of the resident bytes.
    pub fn resident_peak(&self) -> io::Result<f64> {
        self.memory("VmHWM")
    }

    fn memory(&self, line: &str) -> io::Result<f64> {
        let mut bytes = 0.0;
        for process in self.processes() {
            let text = fs::read_to_string(format!("/proc/{process}/status"))?;
            let line = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'));
            let kilobytes =
                line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
            bytes += kilobytes.unwrap_or(0.0) * 1024.0;
        }
        Ok(bytes)
    }

    /// Returns the process, and its workers if they are processes, too.
    pub fn processes(&self) -> Vec<u32> {
        let id = self.child.id();
        let children =
            fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        [id].into_iter().chain(children).collect()
    }

    /// Sends the stop signal, and returns when.
    pub fn ask_to_stop(&self) -> io::Result<Instant> {
        let asked = Instant::now();
        kill_process(Pid::from_child(&self.child), self.peer.stop_signal())?;
        Ok(asked)
    }

    /// Waits for the end of the process.
    pub fn wait(mut self) -> io::Result<Instant> {
        self.child.wait()?;
        Ok(Instant::now())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already. If not, it must end before the next measurement. Send
        // SIGTERM first, so that a server with worker processes ends them too.
        let _ = kill_process(Pid::from_child(&self.child), rustix::process::Signal::TERM);
        let patience = Instant::now();
        while matches!(self.child.try_wait(), Ok(None))
            && patience.elapsed() < Duration::from_millis(500)
        {
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
