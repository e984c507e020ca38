//! Simulated networks behind one trait, so that a scenario runs on each of them.
//!
//! On all of them, hosts have names, and links have a latency drawn from the seed and can be held.
//! A host's network is a [`runtime::Network`](lameduck::runtime::Network) for servers and a
//! `connect` for clients. [`TurmoilNetWorld`] and [`TurmoilWorld`] document their differences.

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
/// The time stands still while any task can run. Everything runs on the thread that calls
/// [`run`](Self::run). Only one world may run on a thread at a time.
pub trait World: Sized {
    /// One host's end of the network.
    type Host: HostNetwork;

    /// How much later than its latency a packet may arrive, in worlds where packets move in ticks.
    const GRAIN: Duration;

    /// Creates a world without hosts.
    fn new(config: WorldConfig, trace: Trace) -> Self;

    /// Runs `job` on the host called `host` from the beginning of time. The first job creates the
    /// host; a host may have several jobs. It stays alive when they have returned: its closed ports
    /// refuse connections.
    ///
    /// Tasks that a job spawns with tokio run on the same host and end with the world.
    fn spawn<F, J>(&mut self, host: &str, attendance: Attendance, job: F)
    where
        F: FnOnce(Self::Host) -> J + 'static,
        J: Future<Output = ()> + Send + 'static;

    /// Changes the link between two hosts at time `at`.
    fn change_link_at(&mut self, at: Duration, link: (&str, &str), change: LinkChange);

    /// Runs until every awaited job has returned. Returns the time at which the last one did.
    ///
    /// # Errors
    /// If some awaited jobs have not returned by `limit`.
    ///
    /// # Panics
    /// If a job panicked.
    fn run(self, limit: Duration) -> Result<Duration, Overrun>;
}

/// One host's end of the network. Servers use it as a [`Network`], clients call `connect`.
pub trait HostNetwork:
    Network<Listener: Listener<Io = <Self as HostNetwork>::Stream>> + Clone
{
    /// Type of a connection, the same at both ends.
    type Stream: lameduck::runtime::Transport + fmt::Debug;

    /// Returns the name of the host, which is its actor in the trace.
    fn name(&self) -> &str;

    /// Connects to a port of a host.
    ///
    /// # Errors
    /// `ConnectionRefused` if nothing listens on the port, `NotFound` if there is no such host.
    ///
    /// # Cancel safety
    /// If dropped early, the attempt is abandoned.
    fn connect(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Configuration of a world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorldConfig {
    /// Seed of the latencies.
    pub seed: Seed,
    /// Shortest one-way latency, in whole milliseconds.
    pub latency_min: Duration,
    /// Longest one-way latency, in whole milliseconds.
    pub latency_max: Duration,
    /// Whether a listener can drop the SYNs of new connections before it closes.
    pub syn_filter: SynFilter,
}

impl WorldConfig {
    /// Creates a configuration with one-way latencies of 1 to 3 ms and a SYN filter.
    #[must_use]
    pub const fn new(seed: Seed) -> Self {
        Self {
            seed,
            latency_min: Duration::from_millis(1),
            latency_max: Duration::from_millis(3),
            syn_filter: SynFilter::Available,
        }
    }

    /// Sets the one-way latencies to between `min` and `max`.
    #[must_use]
    pub const fn with_latency(mut self, min: Duration, max: Duration) -> Self {
        self.latency_min = min;
        self.latency_max = max;
        self
    }
}

/// Whether a listener can drop the SYNs of new connections before it closes, as the BPF filter does
/// on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SynFilter {
    /// It can, if the network models it: [`TurmoilNetWorld`] does.
    Available,
    /// It cannot, as on a system without such filters.
    Missing,
}

/// Whether a world waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attendance {
    /// The world runs until the job has returned.
    Awaited,
    /// The world ends without waiting for the job.
    Background,
}

/// A change of a link, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkChange {
    /// Packets are held back from now on; none is lost.
    Hold,
    /// All packets that were held back arrive.
    Release,
}

/// Error: some awaited jobs had not returned at the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overrun {
    /// The limit.
    pub limit: Duration,
    /// The hosts with jobs that had not returned.
    pub hosts: Vec<String>,
}

impl fmt::Display for Overrun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "still busy after {:?} of simulated time: {}", self.limit, self.hosts.join(", "))
    }
}

impl std::error::Error for Overrun {}
