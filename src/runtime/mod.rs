//! The runtime traits: everything that a host needs from its environment.
//!
//! Production implements them in [`os`](crate::os) with TCP, Unix sockets, signals and threads. A
//! simulation implements them with a paused clock and a simulated network. The rest of the crate
//! uses time, connections, signals and threads only through these traits. A whole shutdown can
//! therefore be replayed by seed (P17).

mod address;
mod clock;
mod idle_poller;
mod network;
#[cfg(feature = "metrics")]
mod process_stats;
mod seed;
mod signals;
mod spawner;
mod transport;

pub use address::{Address, ListenAddress};
pub use clock::{Clock, Sleep};
pub use idle_poller::{IdlePoller, Never, NoIdlePoller};
pub use network::{Listener, Network, QuiesceOutcome, Reservation, ServerRole};
#[cfg(feature = "metrics")]
pub(crate) use process_stats::{ProcessStats, ProcessUsage};
pub use seed::Seed;
pub use signals::SignalSource;
pub use spawner::{BoxFuture, JoinHandle, Spawner, TaskKind};
pub use transport::{Peek, Peer, Transport};

use std::sync::Arc;

/// The environment that a host runs in.
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
