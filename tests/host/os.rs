//! The production side of the runtime traits, on real sockets, signals, threads and descriptors. It
//! uses only loopback addresses and ports that the system chooses.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod network;
mod quiesce;
mod spawner;
mod transport;
mod unix_path;
