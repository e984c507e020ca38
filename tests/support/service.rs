//! The real process: started on ports that the system chooses, observed through its log, killed at
//! the end of the test.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use super::{MAX_WAIT, block, now, until, until_holds, wire};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// A running `lameduck`.
#[derive(Debug)]
pub(crate) struct Service {
    child: Child,
    pub(crate) main: SocketAddr,
    pub(crate) internal: SocketAddr,
    log: Arc<Mutex<Vec<Value>>>,
}

/// The path of the binary. Only the package that builds the binary has it.
pub(crate) fn binary() -> &'static str {
    let path: Option<&str> = option_env!("CARGO_BIN_EXE_lameduck");
    path.expect("tests of the binary are in tests/process")
}

/// The command of the binary, without the settings of this process's environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(binary());
    for setting in lameduck::SETTINGS {
        command.env_remove(setting.variable);
    }
    // The tests may run under a service manager, so remove its variables, too.
    for variable in [
        "NOTIFY_SOCKET",
        "WATCHDOG_USEC",
        "WATCHDOG_PID",
        "LISTEN_FDS",
        "LISTEN_PID",
        "LISTEN_FDNAMES",
    ] {
        command.env_remove(variable);
    }
    command
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Flags of every test: ports that the system chooses, a JSON log, no check of the grace period.
pub(crate) const ANYWHERE: [&str; 6] = [
    "--addr=127.0.0.1:0",
    "--internal-addr=127.0.0.1:0",
    "--log-format=json",
    "--drill",
    "--workers=2",
    "--grace-period=0s",
];

impl Service {
    /// Starts the service with these additional flags, and waits until it serves.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let service = Self::spawn(flags);
        service.wait_for_phase("serving");
        service
    }

    /// Starts the service with these additional flags, and waits until it is bound.
    pub(crate) fn spawn(flags: &[&str]) -> Self {
        Self::watch(command().args(ANYWHERE).args(flags))
    }

    /// Starts a command and waits until it is bound.
    pub(crate) fn watch(command: &mut Command) -> Self {
        let mut service = Self::launch(command);
        let bound = until("the line that tells the addresses", || {
            assert!(
                service.child.try_wait().unwrap().is_none(),
                "it is gone: {:?}",
                service.lines()
            );
            service.lines().into_iter().find(|line| line["message"] == "bound")
        });
        let address =
            |server: &str| bound[server].as_str().unwrap().parse().unwrap_or(service.main);
        (service.main, service.internal) = (address("main"), address("internal"));
        service
    }

    /// Starts a command that may exit before it is bound.
    pub(crate) fn launch(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let written = log.clone();
        super::aside(move || {
            for line in lines.map_while(Result::ok) {
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                written.lock().unwrap().push(value);
            }
        });
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { child, main: nowhere, internal: nowhere, log }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Suspends the process, and waits until no thread of it runs.
    pub(crate) fn suspend(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        let is_stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|after_name| after_name.starts_with('T'))
        };
        until_holds("no thread runs", || {
            std::fs::read_dir(&tasks).unwrap().all(|task| is_stopped(task.unwrap()))
        });
    }

    /// Sends SIGTERM, and waits for the lame duck phase.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
        self.wait_for_phase("lame_duck");
    }

    pub(crate) fn get(&self, path: &str) -> wire::Answer {
        wire::get(self.main, path)
    }

    pub(crate) fn probe(&self, path: &str) -> wire::Answer {
        wire::get(self.internal, path)
    }

    pub(crate) fn status(&self) -> Value {
        serde_json::from_str(&self.probe("/status").body()).unwrap()
    }

    /// Waits until `count` requests are in flight.
    pub(crate) fn wait_for_in_flight(&self, count: u64) {
        until("requests in flight", || (self.status()["in_flight"] == count).then_some(()));
    }

    /// Waits until `count` requests have started. Unlike the number in flight, it never falls.
    pub(crate) fn wait_for_started(&self, count: u64) {
        until_holds("started requests", || self.status()["requests"]["started"] == count);
    }

    /// Returns all lines of the log until now. A line that is not JSON is a string.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.log.lock().unwrap().clone()
    }

    /// Returns the phases in the log, in order.
    pub(crate) fn phases(&self) -> Vec<String> {
        let phases = self
            .lines()
            .into_iter()
            .filter(|line| line.get("since_stop_ms").is_some() || is_early(line));
        phases.filter_map(|line| line["phase"].as_str().map(str::to_owned)).collect()
    }

    #[track_caller]
    pub(crate) fn wait_for_phase(&self, phase: &str) {
        until(&format!("phase {phase}"), || {
            self.phases().iter().any(|seen| seen == phase).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn wait_for_line(&self, text: &str) -> Value {
        until(&format!("a line with {text:?}"), || {
            self.lines().into_iter().find(|line| line.to_string().contains(text))
        })
    }

    /// Waits for the exit and for the end of the log. Returns the exit code.
    #[track_caller]
    pub(crate) fn exit_code(&mut self) -> i32 {
        let code = wait(&mut self.child).expect("a signal killed it");
        until("the end of its log", || (Arc::strong_count(&self.log) == 1).then_some(()));
        code
    }

    /// Waits for the exit. Returns the exit code and the time since `begin`.
    #[track_caller]
    pub(crate) fn exit_code_since(&mut self, begin: Instant) -> (i32, Duration) {
        let code = self.exit_code();
        (code, begin.elapsed())
    }

    /// Returns the report. The process must have exited.
    #[track_caller]
    pub(crate) fn report(&self) -> Value {
        let line = self
            .lines()
            .into_iter()
            .find(|line| line["message"] == "report")
            .expect("no report in the log");
        serde_json::from_str(line["report"].as_str().unwrap()).unwrap()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// The two phases before a stop have no `since_stop_ms`.
fn is_early(line: &Value) -> bool {
    line.get("in_flight").is_some() && (line["phase"] == "starting" || line["phase"] == "serving")
}

impl Drop for Service {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills the child if it still runs.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits for the exit. Returns the exit code, or `None` after a signal. Panics if the child does
/// not exit in time.
#[track_caller]
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let begin = now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begin.elapsed() > MAX_WAIT {
            end(child);
            panic!("it does not exit");
        }
        block(Duration::from_millis(5));
    }
}

/// The result of a process that ends without a stop request.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

/// Runs a command that ends without a stop request.
#[track_caller]
pub(crate) fn run_to_end(command: &mut Command) -> Ended {
    let begin = now();
    let mut child = command.spawn().unwrap();
    let code = wait(&mut child);
    let took = begin.elapsed();
    let (mut stdout, mut stderr) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    Ended { code, stdout, stderr, took }
}
