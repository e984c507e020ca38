//! The notifications that the manager receives, and their times.

use super::{
    manager::Manager,
    victim::{Victim, WITHOUT_SYSTEMD},
};
use crate::support::{
    Client, Service, block, now, scratch_path,
    service::{ANYWHERE, command},
    until, until_holds,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{os::unix::net::UnixDatagram, time::Duration};

const QUICK: [&str; 1] = ["--lame-duck=300ms"];

fn start(variables: &[(&str, &str)]) -> Service {
    start_with(&QUICK, variables)
}

fn start_with(flags: &[&str], variables: &[(&str, &str)]) -> Service {
    let service =
        Service::watch(command().args(ANYWHERE).args(flags).envs(variables.iter().copied()));
    service.wait_for_phase("serving");
    service
}

/// A whole run with a request in flight, and the notifications that `manager` receives.
fn life_with_a_slow_request(manager: &Manager) {
    let flags = ["--lame-duck=2s"];
    let mut service = start_with(&flags, &[("NOTIFY_SOCKET", &manager.address)]);
    manager.wait_for("STATUS=serving");
    assert_eq!(manager.lines(), ["READY=1", "STATUS=serving"]);
    let mut slow = Client::connect(service.main);
    slow.send_get("/slow?ms=4700");
    service.wait_for_in_flight(1);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);

    let lines = manager.lines();
    let at = |line: &str| lines.iter().position(|heard| heard.starts_with(line)).expect(line);
    let order = [
        "READY=1",
        "STATUS=serving",
        "STOPPING=1",
        "STATUS=lame_duck: 1 in flight, 1 connections, at most ",
        "STATUS=draining: 1 in flight, 1 connections, at most ",
        "STATUS=cleaning_up: 0 in flight",
    ];
    assert!(order.map(at).is_sorted(), "{lines:#?}");
    assert_eq!((manager.count("READY"), manager.count("STOPPING")), (1, 1), "{lines:#?}");
    assert!((2..=5).contains(&manager.count("STATUS=draining")), "about once a second: {lines:#?}");
    assert_eq!(manager.count("WATCHDOG"), 0, "nobody asked for it");
    // In the lame duck, the drain, perhaps the cancel wait, and the clean-up: each time the
    // remaining time, which decreases.
    let extended: Vec<u64> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=")?.parse().ok())
        .collect();
    assert!((3..=4).contains(&extended.len()), "{lines:#?}");
    assert!(extended.is_sorted_by(|earlier, later| earlier > later), "{lines:#?}");
    // 2 s + 10 s + 3 s + 5 s + 1 s, and a second.
    assert!((19_000_000..=22_000_000).contains(&extended[0]), "{lines:#?}");
}

#[test]
fn a_manager_at_a_path_receives_ready_then_the_status_then_the_stop() {
    life_with_a_slow_request(&Manager::at_a_path());
}

#[test]
fn a_manager_with_an_abstract_name_receives_the_same() {
    life_with_a_slow_request(&Manager::with_an_abstract_name());
}

#[test]
fn nothing_is_sent_before_serving() {
    let manager = Manager::at_a_path();
    let victim = Victim::spawn(&[("NOTIFY_SOCKET", &manager.address), ("WATCHDOG_USEC", "50000")]);
    // The notifier and this response use the internal thread. The interval of the watchdog expires
    // several times.
    assert!(victim.ask("internal", "/startupz").unwrap().starts_with("HTTP/1.1 503"));
    block(Duration::from_millis(200));
    assert_eq!(manager.lines(), [""; 0]);
    victim.allow();
    manager.wait_for("READY=1");
    assert!(
        victim.ask("internal", "/startupz").unwrap().starts_with("HTTP/1.1 200"),
        "ready means ready"
    );
}

// The feature alone, which another crate may enable, made a host notify the manager. Only the call
// may.
#[test]
fn a_host_that_does_not_call_systemd_sends_nothing_even_with_the_feature() {
    let manager = Manager::at_a_path();
    let variables = [("NOTIFY_SOCKET", &*manager.address), (WITHOUT_SYSTEMD, "1")];
    let mut victim = Victim::spawn(&variables);
    victim.allow();
    until_holds("the start", || {
        victim.ask("internal", "/startupz").unwrap().starts_with("HTTP/1.1 200")
    });
    kill_process(Pid::from_child(&victim.child), Signal::TERM).unwrap();
    assert_eq!(crate::support::service::wait(&mut victim.child), Some(0));
    assert_eq!(manager.lines(), [""; 0]);
}

#[test]
fn a_stop_during_the_start_is_sent_and_ready_never_was() {
    let manager = Manager::at_a_path();
    let mut victim = Victim::spawn(&[("NOTIFY_SOCKET", &manager.address)]);
    kill_process(Pid::from_child(&victim.child), Signal::TERM).unwrap();
    assert_eq!(crate::support::service::wait(&mut victim.child), Some(0));
    assert_eq!(manager.count("READY"), 0);
    assert_eq!(manager.lines().first().map(String::as_str), Some("STOPPING=1"));
}

#[test]
fn the_watchdog_is_notified_at_half_of_its_time_and_while_draining() {
    let manager = Manager::at_a_path();
    let mut service = start(&[("NOTIFY_SOCKET", &manager.address), ("WATCHDOG_USEC", "200000")]);
    until_holds("some feeding", || manager.count("WATCHDOG=1") >= 3);
    let mut slow = Client::connect(service.main);
    slow.send_get("/slow?ms=1500");
    service.wait_for_started(1);
    service.signal(Signal::TERM);
    service.wait_for_phase("draining");
    let draining = now();
    assert_eq!(service.exit_code(), 0);
    let fed: Vec<_> =
        manager.heard().into_iter().filter(|heard| heard.line == "WATCHDOG=1").collect();
    let while_draining = fed.iter().filter(|heard| heard.at >= draining).count();
    // About a second at ten per second. A slow machine sends fewer, and never more than one per
    // half of the interval.
    assert!((2..=16).contains(&while_draining), "{while_draining}");
    // A busy machine delays some, and not most of them.
    let mut gaps: Vec<_> = fed.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    gaps.sort();
    assert!(gaps[gaps.len() / 2] < Duration::from_millis(200), "{gaps:?}");
}

#[test]
fn a_watchdog_of_another_process_is_not_notified() {
    let manager = Manager::at_a_path();
    let variables = [
        ("NOTIFY_SOCKET", manager.address.as_str()),
        ("WATCHDOG_USEC", "20000"),
        ("WATCHDOG_PID", "1"),
    ];
    let mut service = start(&variables);
    manager.wait_for("READY=1");
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
    assert_eq!(manager.count("WATCHDOG"), 0);
}

/// A worker that misses two ticks of 2.5 s is wedged (P3). The manager must notice that and the
/// recovery.
#[test]
fn the_watchdog_is_not_notified_while_a_worker_is_wedged() {
    let manager = Manager::at_a_path();
    let variables = [("NOTIFY_SOCKET", manager.address.as_str()), ("WATCHDOG_USEC", "400000")];
    let victim = Victim::spawn(&variables);
    victim.allow();
    manager.wait_for("WATCHDOG=1");
    let _blocked = victim.block_for(Duration::from_secs(11));
    manager.wait_for("STATUS=serving: worker ");
    let fed = manager.count("WATCHDOG=1");
    assert!(victim.ask("internal", "/liveness").unwrap().starts_with("HTTP/1.1 503"));
    block(Duration::from_secs(1));
    assert_eq!(manager.count("WATCHDOG=1"), fed, "five times its half went by");
    until("the feeding, once it runs again", || (manager.count("WATCHDOG=1") > fed).then_some(()));
    assert_eq!(
        manager.lines().iter().rfind(|line| line.starts_with("STATUS")).unwrap(),
        "STATUS=serving"
    );
}

#[test]
fn a_manager_that_cannot_be_reached_costs_one_line_in_the_log() {
    let gone = scratch_path("nobody").display().to_string();
    for (address, line) in [
        (gone.as_str(), "cannot reach the service manager"),
        ("no/such/kind", "NOTIFY_SOCKET=no/such/kind"),
    ] {
        let mut service = start(&[("NOTIFY_SOCKET", address), ("WATCHDOG_USEC", "20000")]);
        service.wait_for_line(line);
        assert_eq!(service.get("/").status, 200);
        service.signal(Signal::TERM);
        assert_eq!(service.exit_code(), 0);
        let complaints = service
            .lines()
            .iter()
            .filter(|line| line.to_string().contains("service manager"))
            .count();
        assert_eq!(complaints, 1);
    }
}

/// A message for the watchdog that the manager had no room for was followed by the next one only
/// after half of its time, when that time was over: systemd ended a healthy process.
#[test]
fn a_message_for_the_watchdog_that_was_not_received_is_sent_again_soon() {
    let path = scratch_path("busy");
    let manager = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    let next = || {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "6000000")];
    let mut service = start(&variables);
    assert!(next().contains("WATCHDOG=1"));
    let fed = now();
    while filler.send_to(b"noise", &path).is_ok() {}
    service.wait_for_line("cannot reach the service manager");
    while !next().contains("WATCHDOG=1") {}
    assert!(
        fed.elapsed() < Duration::from_secs(5),
        "after 3 s, and not after 6: {:?}",
        fed.elapsed()
    );
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_manager_that_does_not_read_delays_nothing_and_receives_ready_once_it_does() {
    let path = scratch_path("deaf");
    let manager = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"noise", &path).is_ok() {}
    let mut service = start(&[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    service.wait_for_line("cannot reach the service manager");
    assert_eq!(service.probe("/readiness").status, 200, "the internal thread is not held up");
    let mut buffer = [0; 4096];
    until("READY=1", || {
        let length = manager.recv(&mut buffer).unwrap();
        buffer[..length].starts_with(b"READY=1\nSTATUS=serving\n").then_some(())
    });
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
    std::fs::remove_file(&path).unwrap();
}
