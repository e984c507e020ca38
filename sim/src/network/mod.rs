//! Simulated networks behind one trait, so that a scenario is written once.
//!
//! What they share: hosts have names, links have a latency drawn from the seed and can be held, a host's network is an
//! [`runtime::Network`](lameduck::runtime::Network) for servers and a `connect` for clients. What they do not: see
//! [`TurmoilNetWorld`] and [`TurmoilWorld`].

mod faulty;
mod idle_poller;
mod ports;
mod running;
mod turmoil;
mod turmoil_net;

pub use self::{
    faulty::{Faults, FaultyListener, FaultyNetwork, FaultyReservation, FaultyStream},
    idle_poller::{PolledIdlePoller, PolledStream},
    ports::Lease,
    turmoil::{TurmoilHost, TurmoilListener, TurmoilReservation, TurmoilStream, TurmoilWorld},
    turmoil_net::{
        TurmoilNetHost, TurmoilNetListener, TurmoilNetReservation, TurmoilNetStream,
        TurmoilNetWorld,
    },
};

use crate::trace::Trace;
use lameduck::runtime::{Listener, Network, Seed};
use std::{fmt, future::Future, io, time::Duration};

/// Hosts, a network between them, and one virtual time.
///
/// Time stands still while anybody can do something, and everything runs on the thread that calls [`run`](Self::run). Only
/// one world may run on a thread at a time.
pub trait World: Sized {
    /// One host's end of the network.
    type Host: HostNetwork;

    /// How much later than its latency a packet may arrive, where packets move in ticks.
    const GRAIN: Duration;

    /// A world without hosts.
    fn new(config: WorldConfig, trace: Trace) -> Self;

    /// Lets `job` run on the host called `host`, from the beginning of time. A host exists once it was named here; it may
    /// have several jobs, and it stays alive when they returned: its closed ports refuse.
    ///
    /// What a job spawns with tokio runs on the same host and ends with the world.
    fn spawn<F, J>(&mut self, host: &str, attendance: Attendance, job: F)
    where
        F: FnOnce(Self::Host) -> J + 'static,
        J: Future<Output = ()> + Send + 'static;

    /// Changes the link between two hosts at a time.
    fn change_link_at(&mut self, at: Duration, link: (&str, &str), change: LinkChange);

    /// Runs until every awaited job returned, and says when that was.
    ///
    /// # Errors
    /// If they had not by `limit`.
    ///
    /// # Panics
    /// If a job panicked.
    fn run(self, limit: Duration) -> Result<Duration, Overrun>;
}

/// One host's end of the network. For a server it is a [`Network`]; for a client it connects.
pub trait HostNetwork:
    Network<Listener: Listener<Io = <Self as HostNetwork>::Stream>> + Clone
{
    /// A connection, the same type at both ends.
    type Stream: lameduck::runtime::Transport + fmt::Debug;

    /// The host's name, which is its actor in the trace.
    fn name(&self) -> &str;

    /// Connects to a port of a host.
    ///
    /// # Errors
    /// `ConnectionRefused` if nobody listens there, `NotFound` if there is no such host.
    ///
    /// # Cancel safety
    /// Dropped early, the attempt is given up.
    fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// How a world is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorldConfig {
    /// Where the latencies come from.
    pub seed: Seed,
    /// The least one-way latency, in whole milliseconds.
    pub latency_min: Duration,
    /// The greatest one-way latency, in whole milliseconds.
    pub latency_max: Duration,
    /// Whether a listener can keep newcomers out before it closes.
    pub syn_filter: SynFilter,
}

impl WorldConfig {
    /// One-way latencies of 1 to 3 ms, and a SYN filter.
    #[must_use]
    pub const fn new(seed: Seed) -> Self {
        Self {
            seed,
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(3),
            syn_filter: SynFilter::Available,
        }
    }

    /// With one-way latencies between `min` and `max`.
    #[must_use]
    pub const fn with_latency(mut self, min: Duration, max: Duration) -> Self {
        self.latency_min = min;
        self.latency_max = max;
        self
    }
}

/// Whether a listener can keep newcomers out before it closes, as the BPF filter on Linux does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynFilter {
    /// It can, where the network models it: [`TurmoilNetWorld`].
    Available,
    /// It cannot, as on a system without filters.
    Missing,
}

/// Whether a world waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attendance {
    /// The world runs until it returned.
    Awaited,
    /// The world ends without it.
    Background,
}

/// What happens to a link, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Nothing arrives any more; nothing is lost.
    Hold,
    /// All that was held back arrives.
    Release,
}

/// Some awaited jobs had not returned at the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overrun {
    /// The limit.
    pub limit: Duration,
    /// The hosts whose jobs had not returned.
    pub hosts: Vec<String>,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "still busy after {:?} of simulated time: {}", self.limit, self.hosts.join(", "))
    }
}

impl std::error::Error for Overrun {}
