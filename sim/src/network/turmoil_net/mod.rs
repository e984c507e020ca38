//! The network for most scenarios: a simulated TCP kernel per host, all on one paused runtime.

mod fabric;
mod socket;
mod wakeup;

pub use socket::{TurmoilNetListener, TurmoilNetStream};

use super::{
    Attendance, Faults, FaultyNetwork, HostNetwork, Lease, LinkChange, Overrun, Process, Runtimes,
    SynFilter, World, WorldConfig,
    ports::Ports,
    running::{self, WhenWoken},
};
use crate::{SimSpawner, task_count::counted, trace::Trace};
use fabric::{Fabric, Pump};
use lameduck::runtime::{Address, ListenAddress, Network, Reservation, ServerRole};
use socket::HostHandle;
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    task::{JoinSet, LocalSet},
    time::Instant,
};
use turmoil_net::{
    KernelConfig, Net,
    shim::tokio::net::{TcpListener, TcpStream},
};
use wakeup::ReadinessDelay;

type BoxFuture = Box<dyn FnOnce(TurmoilNetHost) -> Pin<Box<dyn Future<Output = ()> + Send>>>;

/// Hosts with a TCP stack each. It is close to Linux in what a shutdown depends on: handshakes and
/// the accept queue, half-close, windows, RST for unread bytes and for bytes that arrive after a
/// close, a SYN filter. Idle time costs no work.
///
/// Known differences from Linux: an RST discards the receiver's buffered bytes; no packet is lost;
/// latencies are whole milliseconds.
#[derive(Debug)]
pub struct TurmoilNetWorld {
    config: WorldConfig,
    trace: Trace,
    jobs: Vec<Task>,
    changes: Vec<Change>,
}

struct Task {
    host: String,
    attendance: Attendance,
    job: BoxFuture,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("host", &self.host)
            .field("attendance", &self.attendance)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Change {
    at: Duration,
    link: (String, String),
    change: LinkChange,
}

impl World for TurmoilNetWorld {
    type Host = TurmoilNetHost;
    const GRAIN: Duration = Duration::ZERO;
    const RESETS: bool = true;
    const RUNTIMES: Runtimes = Runtimes::Shared;

    fn new(config: WorldConfig, trace: Trace) -> Self {
        Self { config, trace, jobs: Vec::new(), changes: Vec::new() }
    }

    fn spawn<F, J>(&mut self, host: &str, attendance: Attendance, job: F)
    where
        F: FnOnce(Self::Host) -> J + 'static,
        J: Future<Output = ()> + Send + 'static,
    {
        let job: BoxFuture = Box::new(move |host| Box::pin(job(host)));
        self.jobs.push(Task { host: host.to_owned(), attendance, job });
    }

    fn change_link_at(&mut self, at: Duration, link: (&str, &str), change: LinkChange) {
        self.changes.push(Change { at, link: (link.0.to_owned(), link.1.to_owned()), change });
    }

    fn run(self, limit: Duration) -> Result<Duration, Overrun> {
        // The kernel counts rounds, not time, before it retransmits. No packet is lost here, so it
        // must never do so.
        let kernel =
            KernelConfig::default().retx_threshold(u32::MAX).recv_buf_cap(fabric::RECEIVE_BUFFER);
        let mut net = Net::with_config(kernel);
        let mut hosts = BTreeMap::new();
        for task in &self.jobs {
            if !hosts.contains_key(&task.host) {
                let id = net.add_host(task.host.as_str());
                hosts.insert(task.host.clone(), (id, net.lookup(&task.host), Ports::default()));
            }
        }
        let guard = Arc::new(net.enter());
        let readiness_delay = Arc::new(ReadinessDelay::new(self.config.seed));
        let fabric = Arc::new(Fabric::new(&guard, Arc::clone(&readiness_delay)));
        let _ending = FabricGuard(Arc::clone(&fabric));
        let syn_filter = self.config.syn_filter;
        let host = |name: &str| {
            let (id, ip, ports) = &hosts[name];
            let host = HostHandle { id: *id, ip: *ip, fabric: Arc::clone(&fabric) };
            TurmoilNetHost { name: name.into(), host, ports: ports.clone(), syn_filter }
        };
        let address = |name: &str| hosts.get(name).map(|(_, ip, _)| *ip);

        let runtime = running::paused_runtime(&self.trace);
        let local = LocalSet::new();
        let result = local.block_on(&runtime, async {
            let epoch = running::settle_time().await;
            self.trace.begin(Box::new(move || Some(epoch.elapsed())));
            let pump = Pump::new(
                Arc::clone(&guard),
                Arc::clone(&fabric),
                (self.trace.clone(), epoch),
                self.config.seed,
                (self.config.latency_min, self.config.latency_max),
            );
            let mut background = JoinSet::new();
            background.spawn_local(pump.run());
            background.spawn_local(readiness_delay.run());
            background.spawn_local(change_links(
                links_by_address(self.changes, address),
                Arc::clone(&fabric),
                epoch,
            ));
            let mut awaited = JoinSet::new();
            let mut names = BTreeMap::new();
            for task in self.jobs {
                let job = (task.job)(host(&task.host));
                match task.attendance {
                    Attendance::Background => drop(background.spawn(counted(job))),
                    Attendance::Awaited => {
                        drop(names.insert(awaited.spawn(counted(job)).id(), task.host));
                    }
                }
            }
            WhenWoken::new(running::await_jobs(awaited, background, names, epoch, limit)).await
        });
        self.trace.end();
        // The locals drop in reverse order: first the tasks, which close their sockets, then the
        // network.
        result
    }
}

/// Ends the fabric when dropped, also during a panic.
struct FabricGuard(Arc<Fabric>);

impl Drop for FabricGuard {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn links_by_address(
    changes: Vec<Change>,
    address: impl Fn(&str) -> Option<IpAddr>,
) -> Vec<(Duration, (IpAddr, IpAddr), LinkChange)> {
    let mut links: Vec<_> = changes
        .into_iter()
        .filter_map(|change| {
            Some((change.at, (address(&change.link.0)?, address(&change.link.1)?), change.change))
        })
        .collect();
    links.sort_by_key(|(at, _, _)| *at);
    links
}

#[expect(clippy::disallowed_methods, reason = "links change in the world's time")]
async fn change_links(
    changes: Vec<(Duration, (IpAddr, IpAddr), LinkChange)>,
    fabric: Arc<Fabric>,
    epoch: Instant,
) {
    for (at, (a, b), change) in changes {
        tokio::time::sleep_until(epoch + at).await;
        match change {
            LinkChange::Hold => fabric.hold(a, b),
            LinkChange::Release => fabric.release(a, b),
        }
    }
    std::future::pending::<()>().await;
}

/// A host of a [`TurmoilNetWorld`].
#[derive(Clone, Debug)]
pub struct TurmoilNetHost {
    name: Arc<str>,
    host: HostHandle,
    ports: Ports,
    syn_filter: SynFilter,
}

impl Network for TurmoilNetHost {
    type Listener = TurmoilNetListener;
    type Reservation = TurmoilNetReservation;

    fn reserve(
        &self,
        address: &ListenAddress,
        _: ServerRole,
        listeners: usize,
    ) -> io::Result<Self::Reservation> {
        Ok(TurmoilNetReservation {
            host: self.clone(),
            lease: self.ports.take(address)?,
            listeners,
        })
    }
}

impl HostNetwork for TurmoilNetHost {
    type Stream = TurmoilNetStream;
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
        let name = host.to_owned();
        let connecting =
            OnHost::new(self.host.clone(), async move { TcpStream::connect((name, port)).await });
        TurmoilNetStream::new(connecting.await??, self.host.clone())
    }
}

/// A port that does not listen yet. Nothing is bound in the kernel, so connects are refused.
#[derive(Debug)]
pub struct TurmoilNetReservation {
    host: TurmoilNetHost,
    lease: Lease,
    listeners: usize,
}

impl Reservation for TurmoilNetReservation {
    type Listener = TurmoilNetListener;

    fn local(&self) -> Address {
        Address::Tcp(self.lease.address())
    }

    async fn listen(self) -> io::Result<Vec<Self::Listener>> {
        let host = &self.host.host;
        let address = SocketAddr::new(host.ip, self.lease.address().port());
        let listener = match host.fabric.reinstate(address) {
            Some(listener) => listener,
            None => OnHost::new(host.clone(), TcpListener::bind(self.lease.address())).await??,
        };
        Ok(TurmoilNetListener::share(
            listener,
            self.host.host,
            self.lease,
            self.listeners,
            self.host.syn_filter,
        ))
    }
}

/// A future that is polled and dropped with its host as the kernel's current host.
struct OnHost<F> {
    host: HostHandle,
    /// `None` only during `Drop`.
    future: Option<Pin<Box<F>>>,
}

impl<F> OnHost<F> {
    fn new(host: HostHandle, future: F) -> Self {
        Self { host, future: Some(Box::pin(future)) }
    }
}

impl<F: Future> Future for OnHost<F> {
    type Output = io::Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(future) = this.future.as_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match this.host.act(|| future.as_mut().poll(cx)) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl<F> Drop for OnHost<F> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take() {
            socket::close(&self.host, future);
        }
    }
}
