//! What only production has: the ports of [`env`](crate::runtime), implemented with the operating system.
//!
//! | file | what it does | promises |
//! |---|---|---|
//! | `clock` | time, by tokio's clock and the system's calendar | P9 |
//! | `network`, `exclusive`, `unix_path` | binds ports exclusively, and Unix sockets with their stale leftovers | P2, P14 |
//! | `listener`, `quiesce`, `decoy`, `handshakes` | accepts; keeps newcomers out at the end without losing who came | P5, P8 |
//! | `transport`, `unacknowledged`, `sock_diag` | bytes, the last look, what the peer has not acknowledged, the reset | P5, P6 |
//! | `reserve` | descriptors kept back for the internal side | P15, P16 |
//! | `signals` | the four stop signals | P12 |
//! | `spawner`, `watchdog` | threads with a runtime each, and the thread that ends the process | P7, P16 |
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
#[cfg(target_os = "linux")]
mod decoy;
#[cfg(target_os = "linux")]
mod handshakes;
#[cfg(target_os = "linux")]
mod idle_poller;
mod limits;
mod listener;
mod network;
#[cfg(all(feature = "systemd", target_os = "linux"))]
mod notify;
mod port_lock;
pub(crate) mod preflight;
#[cfg(all(feature = "metrics", target_os = "linux"))]
mod process_stats;
mod quiesce;
mod signals;
#[cfg(target_os = "linux")]
mod sock_diag;
mod spare_fds;
mod spawner;
pub mod stdio;
mod transport;
#[cfg(target_os = "linux")]
mod unacknowledged;
mod unix_path;
mod watchdog;

pub use clock::TokioClock;
#[cfg(target_os = "linux")]
pub use idle_poller::{EpollPoller, IdleSocket};
pub(crate) use limits::with_limit;
pub use limits::{connections_max, cores, descriptors_max};
pub use listener::OsListener;
pub use network::{OsNetwork, OsReservation, ReusePort, SocketOptions};
#[cfg(all(feature = "systemd", target_os = "linux"))]
pub(crate) use notify::NotifySocket;
#[cfg(all(feature = "metrics", target_os = "linux"))]
pub(crate) use process_stats::ProcStats;
pub use signals::{UnixSignals, block_signals};
pub use spare_fds::SpareFds;
pub use spawner::{CurrentRuntime, ThreadPerWorker};
pub use transport::Socket;
pub use watchdog::WATCHDOG_EXIT_CODE;
