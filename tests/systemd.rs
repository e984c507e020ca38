//! The service manager's side: a real datagram socket that hears us, real sockets that are handed over, and restarts that lose
//! nothing (P2, P5, P7).
#![cfg(all(target_os = "linux", feature = "systemd"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

#[path = "systemd/hand_over.rs"]
mod hand_over;
#[path = "systemd/manager.rs"]
mod manager;
#[path = "systemd/notify.rs"]
mod notify;
#[path = "systemd/sockets.rs"]
mod sockets;
#[path = "systemd/units.rs"]
mod units;
#[path = "systemd/victim.rs"]
mod victim;

/// A tool that the machine may not have. Where everything is to be tested, it must.
fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    assert!(
        found || std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{tool} is missing: apt-get install systemd"
    );
    found
}
