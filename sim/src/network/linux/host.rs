//! A host of a [`LinuxWorld`](super::LinuxWorld), and its links.

use super::{
    super::{Faults, HostNetwork, LinkChange, Process, WorldConfig},
    spawner::LinuxSpawner,
    stream::{self, LinuxStream},
};
use crate::trace::Trace;
use lameduck::{
    os::{OsListener, OsNetwork, OsReservation, SocketOptions, SpareFds, TokioClock},
    runtime::{Clock, ListenAddress, Network, Reservation, ServerRole},
};
use std::{
    collections::BTreeMap,
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Descriptors kept back for the internal server, as in production.
const SPARE_DESCRIPTORS: usize = 4;

/// What the hosts of a world share.
pub(super) struct Shared {
    pub(super) trace: Trace,
    config: WorldConfig,
    /// The loopback address of this world. Another world may get a port that this one has closed.
    ip: Ipv4Addr,
    draws: AtomicU64,
    /// The addresses that the kernel chose, by host and port.
    listening: Mutex<BTreeMap<(String, u16), SocketAddr>>,
    /// Spans in which a link is held: from, until.
    holds: OnceLock<Vec<(Link, Instant, Instant)>>,
    faults: OnceLock<Arc<Faults>>,
}

type Link = (String, String);

/// Returns a loopback address that no other world of this process has.
fn own_address() -> Ipv4Addr {
    static WORLDS: AtomicU32 = AtomicU32::new(0);
    let world = WORLDS.fetch_add(1, Relaxed);
    let [.., process] = std::process::id().to_be_bytes();
    // Not 127.0.0.1, and no broadcast address.
    let [.., low] = (world % 250 + 1).to_be_bytes();
    let [.., middle] = (world / 250).to_be_bytes();
    Ipv4Addr::new(127, process % 250 + 1, middle, low)
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(config: WorldConfig, trace: Trace) -> Self {
        Self {
            trace,
            config,
            ip: own_address(),
            draws: AtomicU64::new(0),
            listening: Mutex::default(),
            holds: OnceLock::new(),
            faults: OnceLock::new(),
        }
    }

    /// Starts the world's time, with these changes of links, in their order.
    #[expect(clippy::disallowed_methods, reason = "this world has real time")]
    pub(super) fn begin(&self, changes: Vec<(Duration, Link, LinkChange)>) -> Instant {
        let epoch = Instant::now();
        let mut holds = Vec::new();
        let mut held: BTreeMap<Link, Duration> = BTreeMap::new();
        for (at, link, change) in changes {
            match change {
                LinkChange::Hold => drop(held.entry(link).or_insert(at)),
                LinkChange::Release => {
                    if let Some(from) = held.remove(&link) {
                        holds.push((link, epoch + from, epoch + at));
                    }
                }
            }
        }
        let _ = self.holds.set(holds);
        self.trace.begin(Box::new(move || Some(epoch.elapsed())));
        epoch
    }

    fn listening(&self) -> MutexGuard<'_, BTreeMap<(String, u16), SocketAddr>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way of packets between two hosts, one direction of one connection.
#[derive(Clone, Debug)]
pub(super) struct Way {
    shared: Arc<Shared>,
    ends: (String, String),
    /// When the last packet arrives. None overtakes it.
    last: Instant,
}

impl Way {
    fn new(shared: &Arc<Shared>, from: &str, to: &str, now: Instant) -> Self {
        Self { shared: Arc::clone(shared), ends: (from.to_owned(), to.to_owned()), last: now }
    }

    /// Returns when a packet arrives that is sent at `now`.
    pub(super) fn arrives(&mut self, now: Instant) -> Instant {
        let WorldConfig { seed, latency_min, latency_max, .. } = self.shared.config;
        let spread = u64::try_from((latency_max - latency_min).as_millis()).unwrap_or(0);
        let draw = seed.nth(self.shared.draws.fetch_add(1, Relaxed)) % (spread + 1);
        let mut at = now + latency_min + Duration::from_millis(draw);
        for ((a, b), from, until) in self.shared.holds.get().into_iter().flatten() {
            let (from_host, to_host) = (&self.ends.0, &self.ends.1);
            let is_it = (a, b) == (from_host, to_host) || (b, a) == (from_host, to_host);
            if is_it && *from <= at && at < *until {
                at = *until;
            }
        }
        self.last = self.last.max(at);
        self.last
    }

    pub(super) fn faults(&self) -> Option<&Arc<Faults>> {
        self.shared.faults.get()
    }
}

/// A host of a [`LinuxWorld`](super::LinuxWorld).
#[derive(Clone, Debug)]
pub struct LinuxHost {
    name: Arc<str>,
    network: OsNetwork,
    shared: Arc<Shared>,
}

impl LinuxHost {
    pub(super) fn new(name: &str, shared: &Arc<Shared>) -> Self {
        let network = OsNetwork::new(SocketOptions::default());
        Self { name: name.into(), network, shared: Arc::clone(shared) }
    }
}

impl Network for LinuxHost {
    type Listener = OsListener;
    type Reservation = OsReservation;

    fn reserve(
        &self,
        address: &ListenAddress,
        role: ServerRole,
        listeners: usize,
    ) -> io::Result<OsReservation> {
        let port = match address {
            ListenAddress::Port(port) => *port,
            ListenAddress::Tcp(address) => address.port(),
            ListenAddress::Unix(_) => {
                let reason = "only TCP in a world";
                return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
            }
        };
        let any = ListenAddress::Tcp((self.shared.ip, 0).into());
        let reservation = self.network.reserve(&any, role, listeners)?;
        if let Some(local) = reservation.local().tcp() {
            self.shared.listening().insert((self.name.to_string(), port), local);
        }
        Ok(reservation)
    }
}

impl HostNetwork for LinuxHost {
    type Stream = LinuxStream;
    type Faulty = Self;
    type Spawner = LinuxSpawner;

    /// Of all faults only those on the way to the host exist here.
    ///
    /// # Panics
    /// If the process has no descriptors left.
    fn with_faults(&self, faults: Arc<Faults>) -> Self {
        let _ = self.shared.faults.set(faults);
        let spare_fds =
            SpareFds::new(SPARE_DESCRIPTORS).expect("the system has descriptors left for a host");
        Self { network: self.network.clone().with_spare_fds(spare_fds), ..self.clone() }
    }

    fn process(
        &self,
        name: &str,
        trace: &Trace,
        _: i64,
        workers: NonZeroUsize,
    ) -> Process<LinuxSpawner> {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::unpausable());
        let spawner = LinuxSpawner::start(name, trace, clock.clone(), workers)
            .expect("the system has threads left for a host");
        Process { clock, spawner }
    }

    fn name(&self) -> &str {
        &self.name
    }

    #[expect(clippy::disallowed_methods, reason = "this world has real time")]
    async fn connect(&self, host: &str, port: u16) -> io::Result<LinuxStream> {
        let mut up = Way::new(&self.shared, &self.name, host, Instant::now());
        let mut down = up.clone();
        tokio::time::sleep_until(up.arrives(Instant::now()).into()).await;
        let address = self.shared.listening().get(&(host.to_owned(), port)).copied();
        let connected = match address {
            Some(address) => stream::connect(address).await,
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        };
        tokio::time::sleep_until(down.arrives(Instant::now()).into()).await;
        Ok(LinuxStream::new(connected?, up, down))
    }
}
