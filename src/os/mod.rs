//! What only production has: the ports of [`env`](crate::env), implemented with the operating system.
//!
//! | file | what it does | promises |
//! |---|---|---|
//! | `clock` | time, by tokio's clock and the system's calendar | P9 |
//! | `network`, `exclusive`, `unix_path` | binds ports exclusively, and Unix sockets with their stale leftovers | P2, P14 |
//! | `listener`, `quiesce`, `shunt`, `handshakes` | accepts; keeps newcomers out at the end without losing who came | P5, P8 |
//! | `transport`, `unacknowledged`, `sock_diag` | bytes, the last look, what the peer has not acknowledged, the reset | P5, P6 |
//! | `reserve` | descriptors kept back for the internal side | P15, P16 |
//! | `signals` | the four stop signals | P12 |
//! | `rooms`, `watchdog` | threads with a runtime each, and the thread that ends the process | P7, P16 |
//! | `stdio` | one line to standard error, without waiting for its reader | P7, P15 |
//! | `notify` | the datagram socket of a service manager | P15 |
//! | `preflight` | checks that threads and descriptors can be had before a runtime is built | P14 |
//! | `limits` | how much of the machine is ours | P15 |
//! | `meter` | how much of it we use, for the metrics | |
//!
//! Linux is what it is made for; other Unixes compile and get what they can: newcomers come until the end, no view of handshakes
//! and of what is unacknowledged. There is no unsafe code here: socket options go through socket2 and nix, system calls through rustix. Nothing
//! here decides anything: policy such as how long to back off after a failed accept belongs to the host.

mod clock;
mod exclusive;
#[cfg(target_os = "linux")]
mod handshakes;
mod limits;
mod listener;
#[cfg(target_os = "linux")]
mod lot;
#[cfg(all(feature = "metrics", target_os = "linux"))]
mod meter;
mod network;
#[cfg(all(feature = "systemd", target_os = "linux"))]
mod notify;
pub(crate) mod preflight;
mod quiesce;
mod reserve;
mod rooms;
#[cfg(target_os = "linux")]
mod shunt;
mod signals;
#[cfg(target_os = "linux")]
mod sock_diag;
pub mod stdio;
mod transport;
#[cfg(target_os = "linux")]
mod unacknowledged;
mod unix_path;
mod watchdog;

pub use clock::TokioClock;
pub(crate) use limits::with_limit;
pub use limits::{connections_max, cores, descriptors_max};
pub use listener::OsListener;
#[cfg(target_os = "linux")]
pub use lot::{DeepSocket, EpollLot};
#[cfg(all(feature = "metrics", target_os = "linux"))]
pub(crate) use meter::ProcMeter;
pub use network::{OsNetwork, OsReservation, ReusePort, SocketOptions};
#[cfg(all(feature = "systemd", target_os = "linux"))]
pub(crate) use notify::NotifySocket;
pub use reserve::DescriptorReserve;
pub use rooms::{Tasks, Threads};
pub use signals::{UnixSignals, hold_signals};
pub use transport::Socket;
pub use watchdog::WATCHDOG_EXIT_CODE;
