//! Restarts on one host, without a balancer, under load.
//!
//! ```text
//!  restart      old: stop ── lame duck ── drain ── exit
//!                                                       new: start ── serve
//!               in between no process listens: connects are refused
//!
//!  socket       the same, but this process holds the socket: connects wait in its queue,
//!               and none is refused
//!
//!  reuse-port                       new: start next to the old one ── serve
//!               old:                                     stop ── lame duck ── drain ── exit
//! ```

use crate::{
    load::{Habit, Load, RequestSpec, Totals, Wire, run},
    process::{Exit, Output},
    progress::Progress,
    server::{Plan, Server},
    target::Target,
    trial::route,
};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

/// How one process hands over to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HandOver {
    /// The old process exits, then the new one starts.
    Restart,
    /// The same, with a socket that its holder keeps open and passes as `LISTEN_FDS` does.
    Socket,
    /// The new process starts next to the old one, which stops once the new one is ready.
    ReusePort,
}

/// An address, and processes that serve it one after the other.
#[derive(Debug)]
pub struct Relay {
    target: Target,
    hand_over: HandOver,
    plan: Plan,
    /// The socket, for [`HandOver::Socket`].
    held: Option<TcpListener>,
    /// The process that serves, then its successor while both run. Dropping them kills them.
    servers: Vec<Server>,
}

/// The end of a process.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How it ended, or `None` if it did not within its grace period and was killed.
    pub exit: Option<Exit>,
    /// Whether it ended before its stop was requested.
    pub is_early: bool,
    /// Its output.
    pub output: String,
}

impl Ended {
    /// Returns whether it exited with 0 because of its stop.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.exit == Some(Exit::Code(0)) && !self.is_early
    }
}

impl Relay {
    /// Starts the first process.
    ///
    /// # Errors
    /// If it does not serve, or cannot be told apart from its successor on the same port.
    pub fn start(target: Target, hand_over: HandOver) -> Result<Self, String> {
        let has_own_probe = target.ready.as_ref().is_some_and(|url| url.contains("{port2}"));
        if hand_over == HandOver::ReusePort && !has_own_probe {
            return Err("reuse-port needs --ready with {port2}: on the shared port either \
                        process may respond"
                .to_owned());
        }
        if hand_over == HandOver::ReusePort && !target.stop.has_any(&["{port2}"]) {
            return Err(
                "reuse-port needs --stop with {port2}, or {pid} in a command: on the shared \
                        port either process may stop"
                    .to_owned(),
            );
        }
        let (held, plan) = match hand_over {
            HandOver::Socket => {
                let socket = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
                    .map_err(|error| error.to_string())?;
                let address = socket.local_addr().map_err(|error| error.to_string())?;
                (Some(socket), Plan::at(address)?)
            }
            HandOver::Restart | HandOver::ReusePort => (None, Plan::new(&target)?),
        };
        let mut relay = Self { target, hand_over, plan, held, servers: Vec::new() };
        relay.start_next()?;
        Ok(relay)
    }

    /// Returns the address that is served.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.plan.address()
    }

    /// Returns the socket, for [`HandOver::Socket`].
    #[must_use]
    pub const fn held(&self) -> Option<&TcpListener> {
        self.held.as_ref()
    }

    /// Replaces the current process by the next, under this load. Returns how the current one
    /// ended, also if the next one does not serve.
    ///
    /// After an error all processes that run continue: a kill would cut the requests of the load.
    pub fn pass_on(&mut self, load: &Load) -> (Option<Ended>, Result<(), String>) {
        let mut ended = None;
        let passed = self.replace(load, &mut ended);
        (ended, passed)
    }

    fn replace(&mut self, load: &Load, ended: &mut Option<Ended>) -> Result<(), String> {
        if self.hand_over == HandOver::ReusePort {
            self.start_next()?;
        }
        let old = self.servers.first_mut().ok_or("no process is running")?;
        *ended = Some(end(old, &self.target, load)?);
        self.servers.remove(0);
        if self.servers.is_empty() {
            // Without a successor, connections would wait in the queue of the held socket.
            self.start_next().inspect_err(|_| self.held = None)?;
        }
        Ok(())
    }

    /// Starts the next process, and waits until it is ready. One that is not stays: it may serve.
    fn start_next(&mut self) -> Result<(), String> {
        // The old process may still have the second port.
        let plan = Plan::at(self.plan.address())?;
        let mut command = plan.command(&self.target);
        if let Some(held) = &self.held {
            let socket = held.try_clone().map_err(|error| error.to_string())?;
            command = with_socket(&command, socket.into());
        }
        let mut next = Server::spawn(&self.target, &plan, command, Output::Kept)?;
        let is_ready = next.await_ready(&self.target);
        self.servers.push(next);
        is_ready
    }
}

/// Longest wait for the exit of a server whose stop cannot be requested.
const CRASH_MAX: Duration = Duration::from_millis(100);

/// Requests the stop of a server under this load, and waits for its exit.
///
/// # Errors
/// If the stop cannot be requested, or the stop command fails. The server may still serve then.
pub fn end(server: &mut Server, target: &Target, load: &Load) -> Result<Ended, String> {
    let early = server.process.exit();
    let stopped = if early.is_some() { Ok(()) } else { server.stop(&target.stop) };
    let is_early = early.is_some() || stopped.is_err();
    let exit = match stopped {
        Ok(()) => server.exit_until(Instant::now() + target.grace)?,
        // It may have exited by itself.
        Err(error) => Some(server.exit_until(Instant::now() + CRASH_MAX)?.ok_or(error)?),
    };
    // After the exit of all there are only close races: the kill cuts nothing.
    if server.process.has_running() {
        if exit.is_some() {
            load.wire.await_arrivals();
        }
        load.cut(|| server.process.kill());
    } else {
        server.process.kill();
    }
    server.process.await_output();
    Ok(Ended { exit: exit.map(|(exit, _)| exit), is_early, output: server.process.output() })
}

/// Returns a command with a socket as descriptor 3, as a service manager passes it.
fn with_socket(inner: &Command, socket: OwnedFd) -> Command {
    // The shell becomes the server by `exec`, so `$$` is the server's process id.
    let exec = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 0</dev/null";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", exec]).arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::from(socket));
    command
}

/// Settings of a soak.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// How one process hands over to the next.
    pub hand_over: HandOver,
    /// Number of restarts.
    pub restarts: usize,
    /// Clients that keep their connection; the same number opens one for every request.
    pub clients: usize,
    /// Longest one-way latency.
    pub latency: Duration,
    /// Load before each restart.
    pub every: Duration,
}

/// Result of a soak.
#[derive(Debug)]
pub struct Soaked {
    /// The outcomes of the requests.
    pub load: Arc<Load>,
    /// Number of restarts.
    pub restarts: usize,
    /// Why it ended before the last restart, if it did.
    pub error: Option<String>,
    /// Exits that were not clean, with the last lines of their outputs.
    pub unclean: Vec<String>,
    may_refuse: bool,
}

impl Soaked {
    /// Returns whether it is complete, there were responses, each had status 200, nothing was lost,
    /// every exit was clean, and no connection was refused if something always listened.
    #[must_use]
    pub fn is_perfect(&self) -> bool {
        let totals: &Totals = &self.load.totals;
        let failed = totals.lost() + totals.refused_by_status.load(Relaxed);
        let refused = totals.refused.load(Relaxed);
        let is_complete = self.error.is_none() && totals.answered() > 0;
        is_complete && failed == 0 && self.unclean.is_empty() && (self.may_refuse || refused == 0)
    }
}

/// A client that waits for its last response longer than this is given up.
const LAST_RESPONSE_MAX: Duration = Duration::from_secs(60);

/// Restarts a server repeatedly under load.
///
/// # Errors
/// If the first process does not serve. The error of a later one is part of the result.
pub async fn soak(target: &Target, soak: Soak, progress: &Progress) -> Result<Soaked, String> {
    let relay = Relay::start(target.clone(), soak.hand_over)?;
    let wire = Wire::new(relay.address(), Duration::ZERO..=soak.latency);
    let path = match &target.paths.slow {
        Some(slow) => route(slow, 3),
        None => target.paths.plain.clone(),
    };
    let load = Arc::new(Load::of(wire, vec![RequestSpec::get(&path)]));
    let mut clients = JoinSet::new();
    for habit in [Habit::KeepAlive, Habit::PerRequest] {
        for _ in 0..soak.clients {
            clients.spawn(run(load.clone(), habit));
        }
    }
    let may_refuse = soak.hand_over == HandOver::Restart;
    let mut soaked = Soaked { load, restarts: 0, error: None, unclean: Vec::new(), may_refuse };
    progress.begin(soak.restarts);
    let relay = Arc::new(Mutex::new(relay));
    let restarted = soaked.restart(&relay, soak, progress).await;
    progress.end();
    soaked.load.over.store(true, Relaxed);
    let _ = timeout(LAST_RESPONSE_MAX, clients.join_all()).await;
    // What still runs serves until here.
    drop(relay);
    soaked.error = restarted.err().or(soaked.load.expect_no_fault().err());
    Ok(soaked)
}

impl Soaked {
    /// Performs the restarts.
    async fn restart(
        &mut self,
        relay: &Arc<Mutex<Relay>>,
        soak: Soak,
        progress: &Progress,
    ) -> Result<(), String> {
        for _ in 0..soak.restarts {
            sleep(soak.every).await;
            let (relay, load) = (relay.clone(), self.load.clone());
            let passing = tokio::task::spawn_blocking(move || {
                relay.lock().unwrap_or_else(PoisonError::into_inner).pass_on(&load)
            });
            let (ended, passed) = passing.await.map_err(|error| error.to_string())?;
            self.unclean.extend(ended.filter(|ended| !ended.is_clean()).as_ref().map(describe));
            passed?;
            self.load.expect_no_fault()?;
            self.restarts += 1;
            progress.next(&self.load.totals.line());
        }
        Ok(())
    }
}

/// Returns how a process ended, with the last lines of its output.
#[must_use]
pub fn describe(ended: &Ended) -> String {
    let exit = ended.exit.map_or_else(|| "no exit in time".to_owned(), |exit| exit.to_string());
    let early = if ended.is_early { "the command ended without a stop request: " } else { "" };
    let lines: Vec<&str> = ended.output.lines().collect();
    let last = &lines[lines.len().saturating_sub(8)..];
    format!("{early}{exit}; the last lines of its output:\n{}", last.join("\n"))
}

/// Runs a future on a new runtime.
///
/// # Errors
/// If there can be no runtime.
pub fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work))
}

#[cfg(test)]
mod tests {
    use super::{Ended, HandOver, Relay, Soaked, describe};
    use crate::{
        load::{Load, Wire},
        process::Exit,
        target::Target,
    };
    use std::sync::{Arc, atomic::Ordering::Relaxed};

    // With a probe on the shared port the old process was taken for its successor, which did not
    // serve yet.
    #[test]
    fn processes_that_share_a_port_are_probed_on_another() {
        let mut target = Target::new(vec!["/no/such/program".to_owned()]);
        for ready in [None, Some("http://127.0.0.1:{port}/"), Some("http://127.0.0.1:80/")] {
            target.ready = ready.map(str::to_owned);
            let why = Relay::start(target.clone(), HandOver::ReusePort).unwrap_err();
            assert!(why.contains("--ready with {port2}"), "{ready:?}: {why}");
        }
    }

    // A stop request on the shared port, or a stop command without an id, stopped the successor in
    // place of the old process.
    #[test]
    fn processes_that_share_a_port_have_their_own_stop() {
        let mut target = Target::new(vec!["/no/such/program".to_owned()]);
        target.ready = Some("http://127.0.0.1:{port2}/".to_owned());
        for (stop, is_own) in [
            ("http:POST:http://127.0.0.1:{port}/stop", false),
            ("http:POST:http://127.0.0.1:{port2}/stop/{pid}", true),
            ("http:POST:http://127.0.0.1:81/stop/{pid}", false),
            ("cmd:curl 127.0.0.1:{port}/stop", false),
            ("cmd:kill {pid}", true),
            ("TERM", true),
        ] {
            target.stop = stop.parse().unwrap();
            let why = Relay::start(target.clone(), HandOver::ReusePort).unwrap_err();
            assert_eq!(!why.contains("reuse-port needs --stop"), is_own, "{stop}: {why}");
        }
    }

    // The error of a server whose exit was not clean stood above the lines that had led to it.
    #[test]
    fn the_last_lines_of_an_output_are_in_order() {
        let output = (1..=10).map(|line| format!("{line}\n")).collect();
        let ended = Ended { exit: Some(Exit::Code(3)), is_early: false, output };
        let described = describe(&ended);
        assert!(described.starts_with("exit code 3; "), "{described}");
        assert!(described.ends_with(":\n3\n4\n5\n6\n7\n8\n9\n10"), "{described}");
    }

    // A server that responded 503 during each restart was perfect, and so was one that had not
    // responded at all.
    #[test]
    fn a_soak_with_a_refusal_or_without_a_response_is_not_perfect() {
        let load = Arc::new(Load::new(Wire::direct(([127, 0, 0, 1], 1).into()), "/"));
        let mut soaked =
            Soaked { load, restarts: 1, error: None, unclean: Vec::new(), may_refuse: true };
        assert!(!soaked.is_perfect());
        soaked.load.totals.answered.store(1, Relaxed);
        assert!(soaked.is_perfect());
        soaked.error = Some("the successor does not serve".to_owned());
        assert!(!soaked.is_perfect());
        soaked.error = None;
        soaked.load.totals.refused_by_status.store(1, Relaxed);
        assert!(!soaked.is_perfect());
    }
}
