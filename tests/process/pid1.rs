//! P12: process 1 of a container has no default action for a signal that it does not handle. A
//! service that ignores its stop signal there is killed at the end of the grace period, with all
//! its requests. In these tests the real binary is process 1 of a PID namespace.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    Client, Service, aside, run_to_end,
    service::{ANYWHERE, command},
    until,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    process::{Command, Stdio},
};

/// Flags of a new PID namespace with its own `/proc`, which ends with `unshare`.
const NAMESPACE: [&str; 4] = ["--pid", "--fork", "--mount-proc", "--kill-child"];
/// Additional flags for users other than root.
const AS_ROOT_OF_ITS_OWN: [&str; 2] = ["--user", "--map-root-user"];

/// Returns `unshare` with the flags that work on this machine, or `None` if none do.
fn unshare() -> Option<Command> {
    let ways: [&[&str]; 2] = [&[], &AS_ROOT_OF_ITS_OWN];
    let way = ways.into_iter().find(|way| {
        let mut trial = Command::new("unshare");
        trial.args(*way).args(NAMESPACE).arg("true");
        let quiet = trial.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        is_found(quiet) && run_to_end(quiet).code == Some(0)
    });
    crate::support::is_at_hand("unshare (util-linux), or the permission to use it,", way.is_some());
    let mut unshare = Command::new("unshare");
    unshare.args(way?).args(NAMESPACE);
    Some(unshare)
}

fn is_found(command: &Command) -> bool {
    Command::new(command.get_program())
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

/// Starts the binary as process 1. Also returns its id outside of the namespace.
fn process_1(flags: &[&str]) -> Option<(Service, Pid)> {
    let mut unshare = unshare()?;
    // `command` has the environment for tests.
    let service = command();
    unshare.arg(service.get_program()).args(ANYWHERE).args(flags);
    for (name, value) in service.get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    unshare.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let service = Service::watch(&mut unshare);
    service.wait_for_phase("serving");
    let outside = service.pid().as_raw_nonzero();
    let child = until("the child of unshare", || {
        let children =
            fs::read_to_string(format!("/proc/{outside}/task/{outside}/children")).unwrap();
        children
            .split_whitespace()
            .next()
            .and_then(|child| child.parse().ok())
            .and_then(Pid::from_raw)
    });
    let status = fs::read_to_string(format!("/proc/{}/status", child.as_raw_nonzero())).unwrap();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    assert_eq!(ids.split_whitespace().last(), Some("1"), "it is process 1 in there");
    Some((service, child))
}

#[test]
fn as_process_1_it_drains_and_exits_0_on_each_stop_signal() {
    for (signal, name) in [
        (Signal::TERM, "SIGTERM"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::HUP, "SIGHUP"),
    ] {
        let Some((mut service, process_1)) = process_1(&["--lame-duck=1s"]) else { return };
        let address = service.main;
        let slow = aside(move || Client::connect(address).get("/slow?ms=600").body());
        service.wait_for_started(1);
        kill_process(process_1, signal).unwrap();
        service.wait_for_phase("lame_duck");
        assert_eq!(service.get("/").status, 200, "{name}: a lame duck serves");
        assert_eq!(slow.join().unwrap(), "slow done\n", "{name}: what was in flight is answered");
        assert_eq!(service.exit_code(), 0, "{name}: {:?}", service.lines());
        let report = service.report();
        assert_eq!((&report["reason"], &report["verdict"]), (&name.into(), &"clean".into()));
    }
}

#[test]
fn as_process_1_a_second_interrupt_ends_the_wait() {
    let Some((mut service, process_1)) = process_1(&["--lame-duck=60s"]) else { return };
    kill_process(process_1, Signal::INT).unwrap();
    service.wait_for_phase("lame_duck");
    kill_process(process_1, Signal::INT).unwrap();
    assert_eq!(service.exit_code(), 0, "long before the minute is over");
}
