//! A started server: its process, and the addresses that it was given.

use crate::{
    port,
    process::{Exit, Output, Process},
    target::{Listen, Stop, Target, Url},
    tls,
};
use lameduck_wire::{End, http1::Client};
use std::{
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Longest wait for a response to a probe, unless another one is given, or to a stop request.
const PROBE_MAX: Duration = Duration::from_secs(5);
/// Pause between two attempts while the server starts.
const POLL: Duration = Duration::from_millis(5);

/// A server, with its chosen addresses.
#[derive(Debug)]
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its readiness.
    pub ready: Option<Url>,
    /// Its liveness.
    pub live: Option<Url>,
    plan: Plan,
    /// The last stop command, which may still run. Dropping it kills it.
    stop_command: Option<Process>,
    /// The connection of the last stop request, until its response.
    stop_request: Option<Client>,
}

/// The addresses of a server that may be started several times.
#[derive(Clone, Debug)]
pub struct Plan {
    address: SocketAddr,
    second: u16,
}

impl Plan {
    /// Chooses the ports of a server.
    ///
    /// # Errors
    /// If no port is free, or the server's own address is in use.
    pub fn new(target: &Target) -> Result<Self, String> {
        let free = || port::free().map_err(|error| error.to_string());
        let address = match target.listen {
            Listen::Chosen { .. } => SocketAddr::from(([127, 0, 0, 1], free()?)),
            Listen::At(address) => {
                if TcpStream::connect_timeout(&address, PROBE_MAX).is_ok() {
                    return Err(format!(
                        "another process listens on {address}; stop it, or let a free port be \
                         chosen by --port-env or {{port}} in the command"
                    ));
                }
                address
            }
        };
        Ok(Self { address, second: free()? })
    }

    /// Keeps this address, and chooses the second port.
    ///
    /// # Errors
    /// If no port is free.
    pub fn at(address: SocketAddr) -> Result<Self, String> {
        Ok(Self { address, second: port::free().map_err(|error| error.to_string())? })
    }

    /// Returns the address of the server.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the command of the server.
    ///
    /// # Panics
    /// Never: a target has a program.
    #[must_use]
    pub fn command(&self, target: &Target) -> Command {
        let mut words = target.command.iter().map(|word| self.fill(word));
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).stdin(Stdio::null());
        if let Listen::Chosen { variables } = &target.listen {
            for variable in variables {
                command.env(variable, self.address.port().to_string());
            }
        }
        command
    }

    /// Replaces `{port}` and `{port2}`.
    fn fill(&self, text: &str) -> String {
        text.replace("{port}", &self.address.port().to_string())
            .replace("{port2}", &self.second.to_string())
    }
}

impl Server {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started, exits, or is not ready in time.
    pub fn start(target: &Target) -> Result<Self, String> {
        let plan = Plan::new(target)?;
        Self::start_by(target, &plan, plan.command(target), Output::Kept)
    }

    /// Starts this command as the server, and waits until it is ready.
    ///
    /// # Errors
    /// If it cannot be started, exits, or is not ready in time.
    pub fn start_by(
        target: &Target,
        plan: &Plan,
        command: Command,
        output: Output,
    ) -> Result<Self, String> {
        let mut server = Self::spawn(target, plan, command, output)?;
        server.await_ready(target)?;
        Ok(server)
    }

    /// Starts this command as the server. It may not be ready.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn spawn(
        target: &Target,
        plan: &Plan,
        mut command: Command,
        output: Output,
    ) -> Result<Self, String> {
        let parse = |url: &Option<String>| {
            url.as_ref().map(|url| plan.fill(url).parse::<Url>()).transpose()
        };
        let (ready, live) = (parse(&target.ready)?, parse(&target.live)?);
        let process = Process::start(&mut command, output).map_err(|error| error.to_string())?;
        Ok(Self {
            process,
            address: plan.address,
            ready,
            live,
            plan: plan.clone(),
            stop_command: None,
            stop_request: None,
        })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// If it exits, or is not ready in time. It may serve then.
    pub fn await_ready(&mut self, target: &Target) -> Result<(), String> {
        let end = Instant::now() + target.start_max;
        let url = self
            .ready
            .clone()
            .unwrap_or_else(|| Url { address: self.address, path: target.paths.plain.clone() });
        let mut last = String::from("no connection was accepted");
        let is_over_tls = target.tls && target.ready.is_none();
        loop {
            let status = if is_over_tls {
                tls::status_of(url.address, &url.path, PROBE_MAX)
            } else {
                status_of(&url)
            };
            match status {
                Ok(200) => return self.expect_running(),
                Ok(status) => last = format!("GET {} responded {status}", url.path),
                Err(error) => last = error.unwrap_or(last),
            }
            let ended = if let Some((exit, _)) = self.process.exit() {
                exit.to_string()
            } else if Instant::now() >= end {
                format!("not ready after {:?}", target.start_max)
            } else {
                std::thread::sleep(POLL);
                continue;
            };
            self.process.await_output();
            let output = self.process.output();
            let scheme = if is_over_tls { "https" } else { "http" };
            return Err(format!(
                "the server did not start: {ended}; {last} ({scheme}://{}{}); its output:\n{}",
                url.address,
                url.path,
                excerpt(&output)
            ));
        }
    }

    /// Checks that the command still runs. Called before its stop is requested.
    ///
    /// # Errors
    /// If it has exited. A server that continues in the background receives no signal, and its exit
    /// is not seen.
    pub fn expect_running(&mut self) -> Result<(), String> {
        let Some((exit, _)) = self.process.exit() else { return Ok(()) };
        self.process.await_output();
        let output = self.process.output();
        Err(format!(
            "the command ended without a stop request: {exit}. A server must run in the \
             foreground, since the signals go to the process of the command; its output:\n{}",
            excerpt(&output)
        ))
    }

    /// Requests the stop. A stop command is started and not waited for: one such as `docker stop`
    /// waits for the exit itself. Neither is the response to a stop request, which may come after
    /// the drain.
    ///
    /// # Errors
    /// If the process is gone, the request fails, or the command cannot be started.
    pub fn stop(&mut self, stop: &Stop) -> Result<(), String> {
        match stop {
            Stop::Signal(signal) => self
                .process
                .signal(*signal)
                .map_err(|error| format!("cannot signal the server: {error}")),
            Stop::Post(url) => {
                let url: Url = self.plan.fill(url).parse()?;
                let mut client = Client::connect(url.address, PROBE_MAX)
                    .map_err(|error| format!("the stop request: {error}"))?;
                let _ = client.send(format!(
                    "POST {} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\
                     connection: close\r\n\r\n",
                    url.path
                ));
                client.set_max_wait(Duration::from_millis(1));
                self.stop_request = Some(client);
                Ok(())
            }
            Stop::Command(command) => {
                let pid = self.process.id().as_raw_pid().to_string();
                let command = self.plan.fill(command).replace("{pid}", &pid);
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &command]).stdin(Stdio::null());
                let started = Process::start(&mut shell, Output::Kept)
                    .map_err(|error| format!("the stop command: {error}"))?;
                self.stop_command = Some(started);
                Ok(())
            }
        }
    }

    /// Judges the stop command, if there was one and it has ended, or the response to the stop
    /// request, if it has arrived.
    ///
    /// # Errors
    /// If the command did not end with exit code 0, or the status is 300 or more.
    pub fn judge_stop(&mut self) -> Result<(), String> {
        if let Some(client) = &mut self.stop_request {
            let head = client.head();
            if head != Err(End::Silent) {
                self.stop_request = None;
            }
            // It may stop before it responds.
            if let Ok(head) = head
                && head.status >= 300
            {
                return Err(format!("the stop request: {}", head.status));
            }
        }
        let Some(command) = &mut self.stop_command else { return Ok(()) };
        match command.exit() {
            None | Some((Exit::Code(0), _)) => Ok(()),
            Some((exit, _)) => {
                command.await_output();
                let output = command.output();
                Err(format!("the stop command: {exit} {}", excerpt(&output)).trim_end().to_owned())
            }
        }
    }

    /// Waits for the exit until `end`. Returns `None` if it still runs then. A stop command that
    /// still waits for the exit is killed.
    ///
    /// # Errors
    /// If the stop command or the stop request fails meanwhile.
    pub fn exit_until(&mut self, end: Instant) -> Result<Option<(Exit, Instant)>, String> {
        loop {
            let exit = self.process.exit();
            self.judge_stop()?;
            if exit.is_some() {
                return Ok(exit);
            }
            if Instant::now() >= end {
                // They could fail because of the SIGKILL that follows.
                (self.stop_command, self.stop_request) = (None, None);
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Returns the status of one GET request, or why there is none.
///
/// # Errors
/// `None` if the connection was refused, or what happened after the connect.
pub fn status_of(url: &Url) -> Result<u16, Option<String>> {
    status_within(url, PROBE_MAX)
}

/// The same, with this longest wait for the response.
///
/// # Errors
/// Those of [`status_of`].
pub fn status_within(url: &Url, max_wait: Duration) -> Result<u16, Option<String>> {
    let deadline = Instant::now() + max_wait;
    let mut client = Client::connect(url.address, max_wait).map_err(|_| None)?;
    client.set_deadline(deadline);
    let _ = client
        .send(format!("GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", url.path));
    client.response().map(|response| response.status).map_err(|end| Some(end.to_string()))
}

/// Returns the first and the last lines: a backtrace stands after its error.
pub(crate) fn excerpt(output: &str) -> String {
    const KEPT: usize = 12;
    let lines: Vec<&str> = output.lines().collect();
    let Some(more @ 1..) = lines.len().checked_sub(2 * KEPT) else { return lines.join("\n") };
    let (first, last) = (&lines[..KEPT], &lines[KEPT + more..]);
    format!("{}\n[{more} more lines]\n{}", first.join("\n"), last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::excerpt;

    #[test]
    fn the_output_of_a_server_is_shown_from_both_ends() {
        let output = |lines: usize| (1..=lines).map(|line| format!("{line}\n")).collect::<String>();
        assert_eq!(excerpt(""), "");
        assert_eq!(excerpt(&output(24)), output(24).trim_end());
        let long = excerpt(&output(30));
        assert!(long.starts_with("1\n") && long.ends_with("\n30"), "{long}");
        assert!(long.contains("\n12\n[6 more lines]\n19\n"), "{long}");
    }
}
