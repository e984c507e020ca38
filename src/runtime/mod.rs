//! The ports: what a life needs from the world, as traits.
//!
//! Production implements them in [`os`](crate::os) with TCP, Unix sockets, signals and threads; a simulation implements them
//! with a paused clock and a pretended network. The rest of the crate asks for time, connections, signals and threads only
//! through these, which is why a whole shutdown can be replayed by seed (P17).

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

/// A world to live in.
#[derive(Debug)]
pub struct Runtime<N, S, R> {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where listeners come from.
    pub network: N,
    /// Where stop signals come from.
    pub signals: S,
    /// Where the internal server, the workers and the watchdog run.
    pub spawner: R,
    /// Where chance comes from.
    pub seed: Seed,
}
