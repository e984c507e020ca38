//! The production side of the ports, on real sockets, signals, threads and descriptors. Loopback only, ports of the system's
//! choice.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[cfg(target_os = "linux")]
#[path = "support/deaf.rs"]
mod deaf;
#[path = "os/help.rs"]
mod help;
#[path = "os/network.rs"]
mod network;
#[path = "os/quiesce.rs"]
mod quiesce;
#[path = "os/spawner.rs"]
mod spawner;
#[path = "os/transport.rs"]
mod transport;
#[path = "os/unix_path.rs"]
mod unix_path;
