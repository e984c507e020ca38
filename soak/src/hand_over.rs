//! The ways from one process to its successor on one host, without a balancer.
//!
//! ```text
//!  restart      old: signal ── lame duck ── drain ── exit
//!                                                         new: start ── serve
//!               in between no process listens: connects are refused
//!
//!  socket       the same, but this process holds the socket: connects wait in its queue,
//!               and none is refused
//!
//!  reuse-port                       new: start next to the old one ── serve
//!               old:                                     signal ── lame duck ── drain ── exit
//! ```

use super::process::Service;
use rustix::process::Signal;
use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::ExitStatus,
    str::FromStr,
    time::Duration,
};

/// How one process hands over to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// The old process exits, then the new one starts.
    Restart,
    /// The same, with a socket that its holder keeps open.
    Socket,
    /// The new process starts next to the old one, which stops once the new one serves.
    ReusePort,
}

impl FromStr for HandOver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "restart" => Ok(Self::Restart),
            "socket" => Ok(Self::Socket),
            "reuse-port" => Ok(Self::ReusePort),
            _ => Err("expected restart, socket or reuse-port".to_owned()),
        }
    }
}

/// An address, and processes that serve it one after the other.
#[derive(Debug)]
pub struct Relay {
    /// Address of the current process.
    pub address: SocketAddr,
    hand_over: HandOver,
    binary: PathBuf,
    flags: Vec<String>,
    /// The socket, for [`HandOver::Socket`].
    held: Option<TcpListener>,
    now: Option<Service>,
}

/// An exit that takes longer is a failure.
const EXIT_MAX: Duration = Duration::from_secs(40);

impl Relay {
    /// Starts the first process, on a port that the system chooses.
    ///
    /// # Errors
    /// If it does not serve.
    pub fn start(hand_over: HandOver, binary: PathBuf, flags: &[&str]) -> io::Result<Self> {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let held =
            if hand_over == HandOver::Socket { Some(TcpListener::bind(nowhere)?) } else { None };
        let mut flags: Vec<String> = flags.iter().map(|&flag| flag.to_owned()).collect();
        if hand_over == HandOver::ReusePort {
            flags.push("--reuse-port".to_owned());
        }
        let mut me = Self { address: nowhere, hand_over, binary, flags, held, now: None };
        let first = me.next()?;
        me.address = first.main;
        me.now = Some(first);
        Ok(me)
    }

    /// Replaces the current process by the next. Returns the old one's exit status and report.
    ///
    /// # Errors
    /// If the old process does not exit in time, or the new one does not serve.
    pub fn pass_on(&mut self) -> io::Result<(ExitStatus, Option<serde_json::Value>)> {
        let mut old = self.now.take().ok_or(io::ErrorKind::NotFound)?;
        if self.hand_over == HandOver::ReusePort {
            self.now = Some(self.next()?);
        }
        old.signal(Signal::TERM)?;
        let status = old.wait(EXIT_MAX)?;
        if self.now.is_none() {
            self.now = Some(self.next()?);
        }
        Ok((status, old.report()))
    }

    /// Returns the socket, for [`HandOver::Socket`].
    pub fn held(&self) -> Option<&TcpListener> {
        self.held.as_ref()
    }

    fn next(&self) -> io::Result<Service> {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        match &self.held {
            Some(held) => Service::start_with(&self.binary, held.try_clone()?.into(), &flags),
            None => Service::start_on(&self.binary, &self.address.to_string(), &flags),
        }
    }
}
