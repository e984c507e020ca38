//! The runtime traits: everything that a host needs from its environment.
//!
//! Production implements them in [`os`](crate::os) with TCP, Unix sockets, signals and threads. A
//! simulation implements them with a paused clock and a simulated network. The rest of the crate
//! uses time, connections, signals and threads only through these traits. A whole shutdown can
//! therefore be replayed by seed (P17).
//!
//! To run a host in an environment of your own, implement these and pass a [`Runtime`] of them to
//! [`Host::run_in`](crate::Host::run_in). Any of them can be taken from [`os`](crate::os).
//!
//! | trait | provides | by |
//! |---|---|---|
//! | [`Clock`], [`Sleep`] | time and timers | `os::TokioClock` |
//! | [`Network`], [`Reservation`], [`Listener`], [`Transport`] | addresses, connections, their bytes | `os::OsNetwork` |
//! | [`IdlePoller`] | idle connections without a task; [`NoIdlePoller`] if there is none | `os::OsNetwork`, on Linux |
//! | [`SignalSource`] | stop signals | `os::UnixSignals` |
//! | [`Spawner`] | where futures run, and the watchdog | `os::ThreadPerWorker`, `os::CurrentRuntime` |
//!
//! `lameduck-sim` implements all of them.

mod address;
mod clock;
mod idle_poller;
mod network;
#[cfg(feature = "metrics")]
mod process_stats;
#[cfg(feature = "profiles")]
mod profiler;
mod seed;
mod signals;
mod spawner;
mod transport;

pub use address::{Address, ListenAddress};
pub use clock::{Clock, Sleep};
#[doc(hidden)]
pub use idle_poller::Never;
pub use idle_poller::{IdlePoller, NoIdlePoller};
pub(crate) use network::ProxyHeader;
pub use network::{Listener, Network, QuiesceOutcome, Reservation, ServerRole};
#[cfg(feature = "metrics")]
pub(crate) use process_stats::{ProcessStats, ProcessUsage};
#[cfg(feature = "profiles")]
pub(crate) use profiler::{
    HeapProfile, Profile, ProfileError, ProfileFormat, ProfileResult, Profiler,
};
pub use seed::Seed;
pub use signals::SignalSource;
pub use spawner::{BoxFuture, JoinHandle, Spawner, TaskKind, WrapTask};
pub use transport::{Negotiated, Opening, Peek, Peer, Transport};

use std::sync::Arc;

/// The environment that a host runs in.
///
/// Exhaustive on purpose: if a host comes to need another source of facts, every environment must
/// provide it, or runs would no longer be replayed (P17).
#[derive(Debug)]
pub struct Runtime<N, S, R> {
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// The source of listeners.
    pub network: N,
    /// The source of stop signals.
    pub signals: S,
    /// Runs the internal server, the workers, users' code and the watchdog.
    pub spawner: R,
    /// The source of random choices.
    pub seed: Seed,
}
