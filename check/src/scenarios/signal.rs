//! Signals at other moments than the usual one.

use crate::{
    probe::unshare,
    process::Output,
    scenario::{Grade, Need, Scenario, Weight},
    server::{Plan, Server},
    target::Stop,
    trial::{Abort, Trial, get, route},
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "signal/during-start",
        weight: Weight::Always(Grade::Must),
        needs: &[Need::StopSignal],
        does: "Requests the stop a few milliseconds after the process was started, and waits for \
               the exit.",
        why: "A deploy that is rolled back stops processes that have just been started. If a \
              signal arrives before its handler, or the start drops it, the stop never begins.",
        rule: "Kubernetes: SIGTERM may come at any time; SIGKILL follows after the grace period",
        repair: "Install the handler first, and check for a signal when the start has finished.",
        play: during_start,
    },
    Scenario {
        name: "signal/at-ready",
        weight: Weight::Always(Grade::Must),
        needs: &[Need::StopSignal],
        does: "Requests the stop as soon as the server has responded that it is ready, and waits \
               for the exit.",
        why: "Workers may serve before their supervisor handles signals. A signal that arrives in \
              between is lost, and the process continues as if nothing had been requested.",
        rule: "Kubernetes: SIGTERM may come at any time; SIGKILL follows after the grace period",
        repair: "Install the handlers of all processes before the listeners are opened.",
        play: at_ready,
    },
    Scenario {
        name: "signal/twice",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::Slow, Need::StopSignal],
        does: "Requests a response that takes 500 ms, and the stop twice, 100 ms apart. It is \
               skipped if the stop is SIGINT or SIGQUIT.",
        why: "Supervisors, shells and scripts repeat SIGTERM. Many runtimes restore the default \
              action after the first, so that the second kills the process.",
        rule: "signal(7): the default action of SIGTERM ends the process",
        repair: "Keep the handler for the whole stop; let only SIGINT shorten it.",
        play: twice,
    },
    Scenario {
        name: "signal/pid-1",
        weight: Weight::Always(Grade::Must),
        needs: &[Need::StopSignal, Need::PidNamespace],
        does: "Runs the server as PID 1 of a namespace, as in a container, requests the stop, and \
               waits for the exit.",
        why: "PID 1 has no default action for signals: without a handler SIGTERM is ignored, and \
              every stop ends with SIGKILL.",
        rule: "pid_namespaces(7); docker and Kubernetes run the command as PID 1",
        repair: "Install a handler, or run the command under an init such as tini.",
        play: pid_1,
    },
];

fn during_start(trial: &mut Trial<'_>) -> Result<(), Abort> {
    let plan = Plan::new(trial.target)?;
    let command = plan.command(trial.target);
    let server = Server::spawn(trial.target, &plan, command, Output::Kept)?;
    trial.set_server(server);
    thread::sleep(Duration::from_millis(trial.drawn(1, 40)));
    trial.stop()?;
    trial.expect_exit("a signal during the start")?;
    Ok(())
}

fn at_ready(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.set_server(Server::start(trial.target)?);
    trial.stop()?;
    trial.expect_exit("a signal at the moment of its readiness")?;
    Ok(())
}

fn twice(trial: &mut Trial<'_>) -> Result<(), Abort> {
    if matches!(trial.target.stop, Stop::Signal(Signal::INT | Signal::QUIT)) {
        let name = trial.target.stop.name();
        return Err(Abort::Skip(format!("a second {name} requests a shorter stop")));
    }
    trial.start()?;
    let takes = trial.beyond_stop(500);
    let path = route(trial.target.paths.slow.as_deref().unwrap_or_default(), takes);
    let mut client = trial.connect("slow")?;
    client.send(get(&path))?;
    thread::sleep(Duration::from_millis(100));
    trial.stop()?;
    trial.wait_until(Duration::from_millis(100));
    let again = match trial.server()?.process.exit() {
        // Then it has lost the request, or only its parent has ended.
        Some((exit, _)) => {
            Err(Abort::Broken(format!("no second stop: the server had ended: {exit}")))
        }
        None => trial.stop(),
    };
    let response = client.response();
    trial.expect_response("slow", &response);
    again
}

fn pid_1(trial: &mut Trial<'_>) -> Result<(), Abort> {
    let plan = Plan::new(trial.target)?;
    let inner = plan.command(trial.target);
    let Some(mut command) = unshare() else {
        return Err(Abort::Skip(Need::PidNamespace.missing().to_owned()));
    };
    command.stdin(Stdio::null()).arg("--").arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    trial.start_by(&plan, command, Output::Kept)?;
    let outer = trial.server()?.process.id();
    let Some(pid) = child_of(outer) else {
        return Err(Abort::Broken("the process in the namespace was not found".to_owned()));
    };
    let signal = match trial.target.stop {
        Stop::Signal(signal) => signal,
        Stop::Post(_) | Stop::Command(_) => Signal::TERM,
    };
    trial.stop_by(|_| kill_process(pid, signal).map_err(|error| error.to_string()))?;
    trial.expect_exit("being PID 1")?;
    Ok(())
}

/// Returns the child of a process that has one.
fn child_of(pid: Pid) -> Option<Pid> {
    let pid = pid.as_raw_pid();
    let path = format!("/proc/{pid}/task/{pid}/children");
    let end = Instant::now() + Duration::from_secs(2);
    loop {
        let children = fs::read_to_string(&path).unwrap_or_default();
        let child = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
        if let Some(child) = child {
            return Pid::from_raw(child);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(test)]
mod tests {
    use super::twice;
    use crate::{
        target::{Stop, Target},
        trial::{Abort, Trial},
    };
    use rustix::process::Signal;

    // A server that a second Ctrl-C stops at once was blamed with `--stop INT`.
    #[test]
    fn a_second_interrupt_may_shorten_the_stop() {
        for signal in [Signal::INT, Signal::QUIT] {
            let mut target = Target::new(vec!["/no/such/program".to_owned()]);
            target.stop = Stop::Signal(signal);
            let played = twice(&mut Trial::new(&target, 1));
            assert!(matches!(&played, Err(Abort::Skip(_))), "{played:?}");
        }
    }
}
