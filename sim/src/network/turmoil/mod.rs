//! The network for scenarios with several hosts that crash and restart: `turmoil`, with a runtime
//! per host and fixed ticks.

mod socket;

pub use socket::{TurmoilListener, TurmoilReservation, TurmoilStream};

use super::{
    Attendance, Faults, FaultyNetwork, HostNetwork, LinkChange, Overrun, Process, World,
    WorldConfig, ports::Ports,
};
use crate::{
    SimSpawner,
    trace::{Trace, TracedIo},
};
use lameduck::runtime::{ListenAddress, Network, ServerRole};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    fmt,
    future::{self, Future},
    io,
    num::NonZeroUsize,
    panic,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::task::JoinSet;

/// Interval at which packets move. Timers inside a host are exact to a millisecond; only deliveries
/// are rounded up to this.
const TICK: Duration = Duration::from_millis(5);

/// More than any scenario fills. A full accept queue would end the simulation.
const TCP_CAPACITY: usize = 4096;

/// `turmoil` ends the simulation at this time. The limit given to `run` is always earlier.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

type HostFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
type BoxFuture = Rc<dyn Fn(TurmoilHost) -> Option<HostFuture>>;

/// Hosts with a runtime each, which can crash and be bounced.
///
/// Known differences from Linux: a connect waits until the other side accepts; a listener that
/// closes refuses the connections in its queue; a window counts writes, not bytes; a blocked writer
/// is not woken when the peer resets.
#[derive(Debug)]
pub struct TurmoilWorld {
    config: WorldConfig,
    trace: Trace,
    /// In the order in which the hosts were first named.
    hosts: Vec<(String, Vec<Task>)>,
    changes: Vec<Change>,
}

#[derive(Clone)]
struct Task {
    attendance: Attendance,
    job: BoxFuture,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("attendance", &self.attendance).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Change {
    at: Duration,
    what: What,
}

#[derive(Debug)]
enum What {
    Link((String, String), LinkChange),
    Crash(String),
    Bounce(String),
}

impl TurmoilWorld {
    /// Runs `run` on the host called `host`, from the beginning of time and again after each
    /// [`bounce_at`](Self::bounce_at). The world does not wait for it.
    pub fn spawn_restarting<F, J>(&mut self, host: &str, run: F)
    where
        F: Fn(TurmoilHost) -> J + 'static,
        J: Future<Output = ()> + Send + 'static,
    {
        self.add(host, Attendance::Background, Rc::new(move |host| Some(Box::pin(run(host)))));
    }

    /// Crashes a host: all its tasks end and its connections are closed.
    pub fn crash_at(&mut self, at: Duration, host: &str) {
        self.changes.push(Change { at, what: What::Crash(host.to_owned()) });
    }

    /// Restarts a host. Only the jobs of [`spawn_restarting`](Self::spawn_restarting) run again.
    pub fn bounce_at(&mut self, at: Duration, host: &str) {
        self.changes.push(Change { at, what: What::Bounce(host.to_owned()) });
    }

    fn add(&mut self, host: &str, attendance: Attendance, job: BoxFuture) {
        let task = Task { attendance, job };
        match self.hosts.iter_mut().find(|(name, _)| name == host) {
            Some((_, tasks)) => tasks.push(task),
            None => self.hosts.push((host.to_owned(), vec![task])),
        }
    }
}

/// State shared by the hosts and the loop that drives them.
#[derive(Default)]
struct Progress {
    /// Number of awaited jobs that have not returned, by host.
    awaited: BTreeMap<String, usize>,
    panic: Option<Box<dyn std::any::Any + Send>>,
}

impl World for TurmoilWorld {
    type Host = TurmoilHost;
    const GRAIN: Duration = Duration::from_millis(10);
    const RESETS: bool = false;

    fn new(config: WorldConfig, trace: Trace) -> Self {
        Self { config, trace, hosts: Vec::new(), changes: Vec::new() }
    }

    fn spawn<F, J>(&mut self, host: &str, attendance: Attendance, job: F)
    where
        F: FnOnce(Self::Host) -> J + 'static,
        J: Future<Output = ()> + Send + 'static,
    {
        let job = RefCell::new(Some(job));
        self.add(
            host,
            attendance,
            Rc::new(move |host| {
                let job = job.borrow_mut().take()?;
                Some(Box::pin(job(host)))
            }),
        );
    }

    fn change_link_at(&mut self, at: Duration, link: (&str, &str), change: LinkChange) {
        self.changes
            .push(Change { at, what: What::Link((link.0.to_owned(), link.1.to_owned()), change) });
    }

    fn run(mut self, limit: Duration) -> Result<Duration, Overrun> {
        let mut sim = turmoil::Builder::new()
            .rng_seed(self.config.seed.0)
            .epoch(SystemTime::UNIX_EPOCH)
            .tick_duration(TICK)
            .simulation_duration(FOREVER)
            .min_message_latency(self.config.latency_min)
            .max_message_latency(self.config.latency_max)
            .tcp_capacity(TCP_CAPACITY)
            .build();
        let progress = Rc::new(RefCell::new(Progress::default()));
        for (name, tasks) in std::mem::take(&mut self.hosts) {
            let awaited =
                tasks.iter().filter(|task| task.attendance == Attendance::Awaited).count();
            progress.borrow_mut().awaited.insert(name.clone(), awaited);
            let network = TurmoilHost {
                name: name.as_str().into(),
                ports: Ports::default(),
                trace: self.trace.clone(),
            };
            let progress = Rc::clone(&progress);
            sim.host(name, move || live(network.clone(), tasks.clone(), Rc::clone(&progress)));
        }
        self.changes.sort_by_key(|change| change.at);
        self.trace.begin(Box::new(turmoil::sim_elapsed));
        let result = drive(&mut sim, self.changes, &progress, limit);
        self.trace.end();
        drop(sim);
        let panic = progress.borrow_mut().panic.take();
        if let Some(payload) = panic {
            panic::resume_unwind(payload);
        }
        result
    }
}

/// Runs all jobs of one host, then stays pending: a host whose future returns would swallow
/// packets.
async fn live(
    network: TurmoilHost,
    tasks: Vec<Task>,
    progress: Rc<RefCell<Progress>>,
) -> turmoil::Result {
    let mut jobs = JoinSet::new();
    for task in tasks {
        if let Some(job) = (task.job)(network.clone()) {
            jobs.spawn(async move {
                job.await;
                task.attendance
            });
        }
    }
    while let Some(ended) = jobs.join_next().await {
        let mut progress = progress.borrow_mut();
        match ended {
            Ok(Attendance::Awaited) => {
                if let Some(awaited) = progress.awaited.get_mut(&*network.name) {
                    *awaited -= 1;
                }
            }
            Ok(Attendance::Background) => {}
            Err(lost) => progress.panic = lost.try_into_panic().ok(),
        }
    }
    future::pending().await
}

fn drive(
    sim: &mut turmoil::Sim<'_>,
    changes: Vec<Change>,
    progress: &RefCell<Progress>,
    limit: Duration,
) -> Result<Duration, Overrun> {
    let mut changes = changes.into_iter().peekable();
    loop {
        {
            let progress = progress.borrow();
            if progress.panic.is_some() || progress.awaited.values().all(|awaited| *awaited == 0) {
                return Ok(sim.elapsed());
            }
            if sim.elapsed() >= limit {
                let late = progress.awaited.iter().filter(|(_, awaited)| **awaited > 0);
                return Err(Overrun { limit, hosts: late.map(|(name, _)| name.clone()).collect() });
            }
        }
        while let Some(change) = changes.next_if(|change| change.at <= sim.elapsed()) {
            match change.what {
                What::Link((a, b), LinkChange::Hold) => sim.hold(a, b),
                What::Link((a, b), LinkChange::Release) => sim.release(a, b),
                What::Crash(host) => sim.crash(host),
                What::Bounce(host) => sim.bounce(host),
            }
        }
        // No host ever returns, so a step neither ends the simulation nor reports an error.
        sim.step().expect("hosts never return");
    }
}

/// A host of a [`TurmoilWorld`].
#[derive(Clone, Debug)]
pub struct TurmoilHost {
    name: Arc<str>,
    ports: Ports,
    trace: Trace,
}

impl TurmoilHost {
    fn traced(&self, stream: turmoil::net::TcpStream) -> TurmoilStream {
        TurmoilStream::new(TracedIo::new(stream, Arc::clone(&self.name), self.trace.clone()))
    }
}

impl Network for TurmoilHost {
    type Listener = TurmoilListener;
    type Reservation = TurmoilReservation;

    fn reserve(
        &self,
        address: &ListenAddress,
        _: ServerRole,
        listeners: usize,
    ) -> io::Result<Self::Reservation> {
        Ok(TurmoilReservation::new(self.clone(), self.ports.take(address)?, listeners))
    }
}

impl HostNetwork for TurmoilHost {
    type Stream = TurmoilStream;
    type Faulty = FaultyNetwork<Self>;
    type Spawner = SimSpawner;

    fn with_faults(&self, faults: Arc<Faults>) -> FaultyNetwork<Self> {
        FaultyNetwork::new(self.clone(), faults)
    }

    fn process(
        &self,
        name: &str,
        trace: &Trace,
        clock_skew_ppm: i64,
        workers: NonZeroUsize,
    ) -> Process<SimSpawner> {
        Process::simulated(name, trace, clock_skew_ppm, workers)
    }

    fn name(&self) -> &str {
        &self.name
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<Self::Stream> {
        Ok(self.traced(turmoil::net::TcpStream::connect((host, port)).await?))
    }
}
