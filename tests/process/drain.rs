//! P4, P5, P6: not one request lost, on real sockets: a real process with its drill routes, raw
//! sockets, real signals.
//!
//! Here is seen what a simulation cannot see: the kernel's accept queue, its resets, Unix sockets,
//! descriptors, a stopped process. Each module is a family of connection shapes and holds P4, P5
//! and P6 against it. Times are asserted as orders or with seconds of slack; what can be awaited (a
//! phase, a request in flight, an open connection) is asked of `/status`.
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
mod upgraded;
mod uploads;
