//! Clients on raw sockets, for tests of servers.
//!
//! A client library hides how a connection ends. These clients report it: by a FIN, inside a
//! response or between two, by a reset, or not at all ([`End`]). They block, have a bound on every
//! wait, and can record each byte with its time ([`Recorder`]). [`timeline`] draws what happened.
//!
//! This crate works with any server. The tests, the simulation and the check use it.
#![expect(clippy::disallowed_methods, reason = "clients outside the host: they live in real time")]

pub mod connection;
pub mod http1;
pub mod http2;
pub mod recorder;
pub mod timeline;

pub use connection::{Connection, End};
pub use recorder::{Event, Excerpt, Recorder, Track};
