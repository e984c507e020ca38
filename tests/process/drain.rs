//! P4, P5, P6: no request is lost on real sockets, with a real process, its drill routes, raw
//! clients and real signals.
//!
//! These tests see what a simulation cannot: the accept queue of the kernel, its resets, Unix
//! sockets, descriptors, a suspended process. Each module tests one family of connections. Times
//! are asserted as orders, or with seconds of slack. What can be awaited (a phase, a request in
//! flight, an open connection) is read from `/status`.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "clients of a real process live in real time")]

mod announcements;
mod cut;
mod heads;
mod help;
mod http2;
mod http2_client;
mod idle;
mod listener;
mod load;
mod pipelined;
mod responses;
mod service;
mod upgraded;
mod uploads;
