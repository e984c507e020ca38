//! P12: every stop signal takes effect, and an impatient one ends the current wait.

use crate::support::{
    Client, Service, now,
    service::{ANYWHERE, command},
};
use rustix::process::Signal;
use std::{process::Stdio, time::Duration};

/// Waits so long that only a signal can end them within the bound of a test.
const ENDLESS: [&str; 3] = ["--lame-duck=300s", "--drain=300s", "--cancel=300s"];

fn phases_after_serving(service: &Service) -> Vec<String> {
    service.phases().split_off(2)
}

#[test]
fn each_of_the_four_signals_requests_the_same_stop() {
    for (signal, name) in [
        (Signal::TERM, "SIGTERM"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::HUP, "SIGHUP"),
    ] {
        let mut service = Service::start(&["--lame-duck=20ms"]);
        service.signal(signal);
        assert_eq!(service.exit_code(), 0, "{name}");
        assert_eq!(service.report()["reason"], name);
        assert_eq!(
            phases_after_serving(&service),
            ["lame_duck", "draining", "cancelling", "cleaning_up", "stopped"]
        );
        let hint =
            service.lines().iter().any(|line| line.to_string().contains("again to skip the wait"));
        assert_eq!(
            hint,
            signal == Signal::INT,
            "the hint is for who sits at a keyboard, with {name}"
        );
    }
}

#[test]
fn a_further_sigint_or_sigquit_ends_the_current_wait_in_each_phase() {
    for impatient in [Signal::INT, Signal::QUIT] {
        let mut service = Service::start(&ENDLESS);
        let mut client = Client::connect(service.main);
        client.send_get("/stuck?ms=600000");
        service.wait_for_in_flight(1);
        service.signal(Signal::TERM);
        service.wait_for_phase("lame_duck");
        service.signal(impatient);
        service.wait_for_phase("draining");
        assert_eq!(service.status()["phase"], "draining", "it ended one wait, not two");
        service.signal(impatient);
        service.wait_for_phase("cancelling");
        service.signal(impatient);
        assert_eq!(client.answer().status, 503, "cut, and told so");
        assert_eq!(service.exit_code(), 3);
        let heard = service
            .lines()
            .iter()
            .filter(|line| line.to_string().contains("ends the current wait"))
            .count();
        assert_eq!(heard, 3);
    }
}

#[test]
fn a_further_sigterm_or_sighup_is_logged_and_changes_nothing() {
    let mut service = Service::start(&["--lame-duck=800ms", "--drain=800ms", "--cancel=600ms"]);
    let mut client = Client::connect(service.main);
    client.send_get("/stuck?ms=600000");
    service.wait_for_in_flight(1);
    let asked = now();
    service.signal(Signal::TERM);
    for phase in ["lame_duck", "draining", "cancelling"] {
        service.wait_for_phase(phase);
        service.signal(Signal::TERM);
        service.signal(Signal::HUP);
    }
    assert_eq!(client.answer().status, 503);
    assert!(
        asked.elapsed() >= Duration::from_millis(800 + 800 + 350),
        "no wait was cut short: {:?}",
        asked.elapsed()
    );
    assert_eq!(service.exit_code(), 3);
    let heard = service
        .lines()
        .iter()
        .filter(|line| line.to_string().contains("ignored, the shutdown is in progress"))
        .count();
    assert_eq!(heard, 6);
    assert_eq!(service.report()["reason"], "SIGTERM", "the first that asked");
}

#[test]
fn a_sigint_after_a_sigint_is_as_impatient_as_one_after_a_sigterm() {
    let mut service = Service::start(&ENDLESS);
    service.signal(Signal::INT);
    service.wait_for_line("again to skip the wait");
    service.signal(Signal::INT);
    assert_eq!(service.exit_code(), 0, "idle: nothing is left to wait for after the lame duck");
    assert_eq!(service.report()["reason"], "SIGINT");
}

#[test]
fn a_burst_of_signals_of_all_kinds_ends_in_a_stop_like_any_other() {
    let mut service = Service::start(&ENDLESS);
    for _ in 0..20 {
        for signal in [Signal::TERM, Signal::HUP, Signal::QUIT, Signal::INT] {
            // The process may have exited already.
            let _ = rustix::process::kill_process(service.pid(), signal);
        }
    }
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn a_signal_right_after_the_exec_is_never_lost() {
    // The handlers are installed before anything is bound, so process 1 of a container never
    // ignores a signal. Before that the signal has its default action, which also ends the process.
    for delay in 0..10 {
        let mut child = command().args(ANYWHERE).arg("--lame-duck=0s").spawn().unwrap();
        crate::support::block(Duration::from_millis(delay));
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM)
            .unwrap();
        let code = crate::support::service::wait(&mut child);
        assert!(code.is_none() || code == Some(0), "{code:?} after {delay} ms");
    }
}

#[test]
fn a_signal_that_is_no_stop_signal_changes_nothing() {
    let mut service = Service::start(&[]);
    service.signal(Signal::PIPE);
    assert_eq!(service.get("/").status, 200);
    assert!(service.is_running());
    assert_eq!(service.status()["phase"], "serving");
}

/// A blocked signal stays blocked over an exec. A service that was started with blocked signals
/// could only be killed. It must unblock them (P12).
#[cfg(target_os = "linux")]
#[test]
fn signals_that_the_parent_blocked_are_received() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT, Signal::HUP] {
        let service = command();
        let mut blocked = std::process::Command::new("env");
        blocked
            .arg("--block-signal=TERM,INT,QUIT,HUP")
            .arg(service.get_program())
            .args(ANYWHERE)
            .arg("--lame-duck=20ms");
        for (name, value) in service.get_envs() {
            match value {
                Some(value) => blocked.env(name, value),
                None => blocked.env_remove(name),
            };
        }
        blocked.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut service = Service::watch(&mut blocked);
        service.wait_for_phase("serving");
        service.signal(signal);
        assert_eq!(service.exit_code(), 0, "{signal:?}");
    }
}

/// The order of two pending signals is unknown. A Ctrl-C reached a service and its parent, which
/// passed a SIGTERM on. The SIGINT was taken for a further signal, and the whole lame duck delay
/// was skipped. Both together are one stop (P12).
#[test]
fn a_sigint_followed_by_a_sigterm_is_one_stop_request() {
    let mut service = Service::start(&["--lame-duck=700ms"]);
    let asked = now();
    service.suspend();
    service.signal(Signal::INT);
    service.signal(Signal::TERM);
    service.signal(Signal::CONT);
    let (code, took) = service.exit_code_since(asked);
    assert_eq!(code, 0);
    assert!(took >= Duration::from_millis(700), "P4: {took:?}");
    assert_eq!(service.report()["reason"], "SIGINT");
}

/// A SIGTERM was held for a SIGINT that follows it only if it was the first signal of all. After a
/// reload by SIGHUP, a Ctrl-C that reached the service as a SIGTERM and a SIGINT skipped the whole
/// lame duck delay (P4).
#[test]
fn a_sigterm_is_held_for_a_sigint_after_a_signal_that_stops_nothing_too() {
    let is_one_request = || {
        let mut service = Service::start(&["--stop-signals=TERM,INT", "--lame-duck=300ms"]);
        service.signal(Signal::HUP);
        service.wait_for_line("signal ignored");
        service.signal(Signal::TERM);
        crate::support::block(Duration::from_micros(500));
        service.signal(Signal::INT);
        assert_eq!(service.exit_code(), 0);
        service.report()["reason"] == "SIGINT"
    };
    // On a busy machine the second may come too late.
    assert!((0..20).any(|_| is_one_request()));
}

#[cfg(target_os = "linux")]
#[test]
fn no_thread_that_runs_user_code_blocks_a_signal() {
    // A child inherits the blocked signals of the thread that starts it. `timeout 1 sleep 6`, run
    // by a handler, took six seconds, and SIGTERM could not end processes that a service had
    // started. No thread that runs user code may block a signal.
    let service = Service::start(&[]);
    let threads = || {
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", service.pid().as_raw_nonzero())).unwrap();
        // A thread that ends meanwhile has no status.
        let statuses = tasks
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
        let field = |status: &str, name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        statuses
            .map(|status| (field(&status, "Name:"), field(&status, "SigBlk:")))
            .collect::<Vec<_>>()
    };
    // The kernel keeps fifteen characters of a name, and a thread sets its name once it runs.
    for name in ["lameduck-worker", "lameduck-contro", "lameduck-intern"] {
        let blocked = crate::support::until(name, || {
            let blocked: Vec<_> = threads()
                .into_iter()
                .filter(|(found, _)| found == name)
                .map(|(_, blocked)| blocked)
                .collect();
            (!blocked.is_empty()).then_some(blocked)
        });
        assert!(blocked.iter().all(|blocked| blocked == "0000000000000000"), "{name}: {blocked:?}");
    }
}

/// Under `nohup` SIGHUP is ignored from the start. The service restored its default, and the end of
/// the terminal stopped it. It must stay ignored. A background job of a shell has SIGINT and
/// SIGQUIT ignored, and those must still stop the service (P12).
#[cfg(target_os = "linux")]
#[test]
fn only_sighup_stays_ignored_if_it_was_ignored_at_the_start() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let service = command();
        let mut ignoring = std::process::Command::new("sh");
        ignoring
            .args(["-c", "trap '' HUP INT QUIT TERM; exec \"$0\" \"$@\""])
            .arg(service.get_program());
        ignoring.args(ANYWHERE).arg("--lame-duck=20ms");
        for (name, value) in service.get_envs() {
            match value {
                Some(value) => ignoring.env(name, value),
                None => ignoring.env_remove(name),
            };
        }
        ignoring.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut service = Service::watch(&mut ignoring);
        service.wait_for_phase("serving");
        service.signal(Signal::HUP);
        assert_eq!(service.get("/").status, 200);
        assert_eq!(service.status()["phase"], "serving");
        service.signal(signal);
        assert_eq!(service.exit_code(), 0, "{signal:?}");
        let name = match signal {
            Signal::TERM => "SIGTERM",
            Signal::INT => "SIGINT",
            _ => "SIGQUIT",
        };
        assert_eq!(service.report()["reason"], name);
    }
}

#[test]
fn signals_that_do_not_stop_are_logged_and_ignored() {
    let mut service = Service::start(&["--stop-signals=TERM", "--lame-duck=0s"]);
    service.signal(Signal::HUP);
    let line = service.wait_for_line("signal ignored");
    assert_eq!(line["signal"], "SIGHUP");
    service.signal(Signal::INT);
    service.wait_for_line("SIGINT");
    assert_eq!(service.probe("/readiness").status, 200);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn an_unknown_stop_signal_is_refused_at_the_start() {
    let ended = crate::support::run_to_end(command().arg("--stop-signals=TERM,USR1"));
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("USR1") && ended.stderr.contains("QUIT"), "{}", ended.stderr);
}
