//! Networks behind one trait, so that a scenario runs on each of them: two simulated ones, and
//! Linux's own.
//!
//! On all of them, hosts have names, and links have a latency drawn from the seed and can be held.
//! A host's network is a [`runtime::Network`](lameduck::runtime::Network) for servers and a
//! `connect` for clients. [`TurmoilNetWorld`], [`TurmoilWorld`] and [`LinuxWorld`] document their
//! differences.

mod erased;
mod faulty;
mod idle_poller;
mod linux;
mod ports;
mod running;
mod spread;
mod stalls;
mod turmoil;
mod turmoil_net;

#[cfg(test)]
pub(crate) use self::erased::IoFuture;
pub(crate) use self::erased::{AnyHost, AnyListener, BoxStream};
pub use self::{
    faulty::{Faults, FaultyListener, FaultyNetwork, FaultyReservation, FaultyStream},
    idle_poller::{PolledIdlePoller, PolledStream},
    linux::{LinuxHost, LinuxSpawner, LinuxStream, LinuxWorld},
    ports::Lease,
    stalls::Stalls,
    turmoil::{TurmoilHost, TurmoilListener, TurmoilReservation, TurmoilStream, TurmoilWorld},
    turmoil_net::{
        TurmoilNetHost, TurmoilNetListener, TurmoilNetReservation, TurmoilNetStream,
        TurmoilNetWorld,
    },
};

use crate::{SimClock, SimSpawner, spawner::ProcessSpawner, trace::Trace};
use lameduck::runtime::{Clock, Network, Seed, Transport};
use std::{fmt, future::Future, io, num::NonZeroUsize, sync::Arc, time::Duration};

/// Hosts, a network between them, and one time.
///
/// In a simulated world the time stands still while any task can run, and everything runs on the
/// thread that calls [`run`](Self::run). Only one such world may run on a thread at a time.
pub trait World: Sized {
    /// One host's end of the network.
    type Host: HostNetwork;

    /// How much later than its latency a packet may arrive, in worlds where packets move in ticks.
    const GRAIN: Duration;

    /// Whether a connection can be reset, and waits in an accept queue.
    const RESETS: bool;

    /// How late anything may happen because the machine is busy; zero in simulated time.
    const TOLERANCE: Duration = Duration::ZERO;

    /// How long the world continues after the exit of the host under test, if it does not wait for
    /// the clients to return.
    const LINGER: Option<Duration> = None;

    /// Whether the hosts share a runtime.
    const RUNTIMES: Runtimes = Runtimes::OnePerHost;

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
pub trait HostNetwork: Network + Clone {
    /// Type of a client's end of a connection.
    type Stream: Transport + fmt::Debug;
    /// The network of the host under test, with its faults.
    type Faulty: Network;
    /// Where the tasks of a process run.
    type Spawner: ProcessSpawner;

    /// Returns the network of the host under test, with these faults.
    fn with_faults(&self, faults: Arc<Faults>) -> Self::Faulty;

    /// Starts a process: its clock, which may run at a different rate than the world, and the
    /// threads or tasks that it runs on.
    ///
    /// # Panics
    /// If the system refuses a thread.
    fn process(
        &self,
        name: &str,
        trace: &Trace,
        clock_skew_ppm: i64,
        workers: NonZeroUsize,
    ) -> Process<Self::Spawner>;

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

/// What a process runs on.
#[derive(Debug)]
pub struct Process<S> {
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// Where its tasks run.
    pub spawner: S,
}

impl Process<SimSpawner> {
    /// A process in simulated time.
    fn simulated(name: &str, trace: &Trace, clock_skew_ppm: i64, workers: NonZeroUsize) -> Self {
        let clock = Arc::new(SimClock::with_skew(clock_skew_ppm));
        let spawner = SimSpawner::with_workers(name, trace.clone(), clock.clone(), workers);
        Self { clock, spawner }
    }
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

/// Whether the hosts of a world share a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtimes {
    /// All tasks of all hosts are on one runtime.
    Shared,
    /// Each host has its own runtime.
    OnePerHost,
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
