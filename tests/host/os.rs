//! The production side of the ports, on real sockets, signals, threads and descriptors. Loopback
//! only, ports of the system's choice.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod network;
mod quiesce;
mod spawner;
mod transport;
mod unix_path;
