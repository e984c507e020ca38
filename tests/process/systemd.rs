//! P2, P5, P7: the service manager: a real datagram socket, inherited sockets, and restarts that
//! lose nothing.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod hand_over;
mod manager;
mod notify;
mod sockets;
mod units;
mod victim;

/// Whether a tool is installed. In CI it must be.
fn is_installed(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(tool).is_file());
    assert!(
        found || std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{tool} is missing: apt-get install systemd"
    );
    found
}
