//! Socket options, read back from the kernel.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test says what must not fail by unwrapping it")]

use crate::support::{
    service::{ANYWHERE, Service, command},
    wire::Client,
};
use rustix::process::Signal;
use std::{net::TcpStream, time::Duration};

/// Returns the timers of the service's connections to this port by the kernel's table: the kind,
/// and the seconds left.
fn timers(port: u16) -> Vec<(u8, f64)> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows.filter(|row| row[1].ends_with(&format!(":{port:04X}")) && row[3] == "01");
    ours.map(|row| {
        let (timer, ticks) = row[5].split_once(':').unwrap();
        (
            u8::from_str_radix(timer, 16).unwrap(),
            u64::from_str_radix(ticks, 16).unwrap() as f64 / 100.0,
        )
    })
    .collect()
}

#[test]
fn a_silent_peer_is_probed_after_the_configured_time_or_never() {
    const KEEPALIVE: u8 = 2;
    for (flag, expected) in [("--tcp-keepalive=33s", Some(33.0)), ("--tcp-keepalive=0s", None)] {
        let service = Service::start(&[flag]);
        let mut client = Client::connect(service.main);
        assert_eq!(client.get("/").status, 200);
        let timers = timers(service.main.port());
        assert_eq!(timers.len(), 1, "{timers:?}");
        let asked_after = (timers[0].0 == KEEPALIVE).then_some(timers[0].1);
        match (expected, asked_after) {
            (Some(at_most), Some(after)) => {
                assert!(after <= at_most && after > at_most - 30.0, "{flag}: {after}");
            }
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => panic!("{flag}: {timers:?}"),
        }
    }
}

#[test]
fn the_kernel_completes_no_more_connections_than_the_backlog() {
    let flags = ANYWHERE.into_iter().filter(|flag| !flag.starts_with("--workers"));
    let service = Service::watch(command().args(flags).args(["--backlog=3", "--workers=1"]));
    service.wait_for_phase("serving");
    service.suspend();
    let connect = || TcpStream::connect_timeout(&service.main, Duration::from_millis(100));
    // One more than configured, because the kernel compares the queue before it adds a connection.
    let queued: Vec<_> = std::iter::from_fn(|| connect().ok()).take(40).collect();
    assert_eq!(queued.len(), 4);
    service.signal(Signal::CONT);
    drop(queued);
}
