//! The ports: what a life needs from the world, as traits.
//!
//! Production implements them in [`os`](crate::os) with TCP, Unix sockets, signals and threads; a simulation implements them
//! with a paused clock and a pretended network. The rest of the crate asks for time, connections, signals and threads only
//! through these, which is why a whole shutdown can be replayed by seed (P17).

mod address;
mod clock;
mod lot;
#[cfg(feature = "metrics")]
mod meter;
mod network;
mod rooms;
mod seed;
mod signals;
mod transport;

pub use address::{Address, ListenAddress};
pub use clock::{Clock, Sleep};
pub use lot::{Lot, NoLot, Nobody};
#[cfg(feature = "metrics")]
pub(crate) use meter::{Meter, Usage};
pub use network::{Audience, Backlog, Listener, Network, Reservation};
pub use rooms::{Job, JobEnd, Room, Rooms};
pub use seed::Seed;
pub use signals::SignalSource;
pub use transport::{Look, Peer, Transport};

use std::sync::Arc;

/// A world to live in.
#[derive(Debug)]
pub struct Env<N, S, R> {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where listeners come from.
    pub network: N,
    /// Where stop signals come from.
    pub signals: S,
    /// Where the internal server, the workers and the watchdog run.
    pub rooms: R,
    /// Where chance comes from.
    pub seed: Seed,
}
