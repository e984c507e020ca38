//! P2, P5, P7: the service manager's side: a real datagram socket, real sockets that are handed
//! over, and restarts that lose nothing.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod hand_over;
mod manager;
mod notify;
mod sockets;
mod units;
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
