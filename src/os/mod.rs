//! The operating system's implementation of the [runtime traits](crate::runtime), used in
//! production.
//!
//! | file | what it does | promises |
//! |---|---|---|
//! | `clock` | time: tokio's clock and the system clock | P9 |
//! | `network`, `port_lock`, `unix_path` | binds ports exclusively; stale Unix paths | P2, P14 |
//! | `listener`, `accept`, `quiesce`, `decoy`, `handshakes` | accepts; seals a port | P5, P8 |
//! | `transport`, `unacknowledged`, `sock_diag` | bytes, peek, unacknowledged, reset | P5, P6 |
//! | `idle_poller` | idle connections in one epoll | |
//! | `spare_fds` | descriptors kept back for the internal server | P15, P16 |
//! | `signals` | the four stop signals | P12 |
//! | `spawner`, `watchdog` | threads with a runtime each; the process's end | P7, P16 |
//! | `stdio` | one line to standard error, without waiting for its reader | P7, P15 |
//! | `notify` | the datagram socket of a service manager | P15 |
//! | `preflight` | starts what panics without threads and descriptors | P14 |
//! | `limits` | how much of the machine this process may use | P15 |
//! | `process_stats` | how much of it this process uses, for the metrics | |
//! | `profiler`, `flame_graph` | samples the stacks of all threads | |
//!
//! Linux is the main target. Other Unixes compile with less: new connections arrive until the
//! listener closes, and neither handshakes nor unacknowledged bytes can be counted. There is no
//! unsafe code here: socket options go through socket2 and nix, system calls through rustix.
//! Nothing here decides anything. Policy, such as how long to back off after a failed accept,
//! belongs to the host.

mod accept;
mod clock;
#[cfg(target_os = "linux")]
mod decoy;
#[cfg(all(feature = "profiles", target_os = "linux"))]
mod flame_graph;
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
#[cfg(all(feature = "profiles", target_os = "linux"))]
mod profiler;
mod quiesce;
mod signals;
#[cfg(target_os = "linux")]
mod sock_diag;
mod socket_options;
mod spare_fds;
mod spawner;
#[doc(hidden)]
pub mod stdio;
mod transport;
#[cfg(target_os = "linux")]
mod unacknowledged;
mod unix_path;
mod watchdog;

pub use clock::TokioClock;
pub use limits::cores;
pub use network::OsNetwork;
pub use signals::{UnixSignals, block_signals};
pub use socket_options::{ReusePort, SocketOptions};
pub use spawner::{CurrentRuntime, ThreadPerWorker};

// Associated types of the items above, and what only the binary and tests of this workspace use.
// Not part of the public API.
#[cfg(target_os = "linux")]
#[doc(hidden)]
pub use idle_poller::{EpollPoller, IdleSocket};
#[doc(hidden)]
pub use limits::{connections_max, descriptors_max};
#[doc(hidden)]
pub use listener::OsListener;
#[doc(hidden)]
pub use network::OsReservation;
#[doc(hidden)]
pub use spare_fds::SpareFds;
#[doc(hidden)]
pub use transport::Socket;
#[doc(hidden)]
pub use watchdog::WATCHDOG_EXIT_CODE;

pub(crate) use limits::{connections_max_beside, reached_limit, with_limit};
#[cfg(all(feature = "systemd", target_os = "linux"))]
pub(crate) use notify::{NotifySocket, monotonic_usec};
#[cfg(all(feature = "metrics", target_os = "linux"))]
pub(crate) use process_stats::ProcStats;
#[cfg(all(feature = "profiles", target_os = "linux"))]
pub(crate) use profiler::SamplingProfiler;
