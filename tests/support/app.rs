//! The host in the test's own process, on real sockets and a runtime of its own. The test sends the
//! signals. There is no watchdog, because it would end the test process.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use super::{MAX_WAIT, until, wire};
use lameduck::{
    Builder, Host, HttpService, Report, Settings, ShutdownHandle,
    lifecycle::{Moment, Plan, Signal},
    os::{CurrentRuntime, OsListener, OsNetwork, OsReservation, ThreadPerWorker, TokioClock},
    runtime::{
        Address, BoxFuture, Clock, JoinHandle, ListenAddress, Network, Reservation, Runtime, Seed,
        ServerRole, SignalSource, Spawner, TaskKind,
    },
};
use std::{
    io,
    net::SocketAddr,
    num::NonZeroUsize,
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::{runtime::Handle, sync::mpsc as tokio_mpsc};

/// A plan for tests: short, but with tolerance for a slow machine.
pub(crate) const fn quick_plan() -> Plan {
    Plan::new()
        .start(Duration::from_secs(10))
        .lame_duck(Duration::from_millis(50))
        .drain(Duration::from_secs(1))
        .cancel(Duration::from_millis(600))
        .cleanup(Duration::from_secs(2))
        .internal_close(Duration::from_secs(1))
}

/// Settings with ports that the system chooses and the quick plan.
pub(crate) fn settings() -> Settings {
    let anywhere = || "127.0.0.1:0".parse::<ListenAddress>().unwrap();
    Settings::default().main_address(anywhere()).internal_address(anywhere()).plan(quick_plan())
}

/// A builder with these settings.
pub(crate) fn builder() -> Builder {
    Host::builder(settings())
}

/// A running host.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) main: SocketAddr,
    pub(crate) internal: SocketAddr,
    signals: tokio_mpsc::UnboundedSender<Signal>,
    stop: ShutdownHandle,
    report: mpsc::Receiver<Report>,
}

/// The workers of a host.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Workers {
    /// One worker, a task on a runtime with two threads, as in `Host::run`.
    Task,
    /// One worker, a task on a runtime with one thread.
    OneThread,
    /// This number of workers, each on its own thread, as in `lameduck::run`.
    Threads(usize),
}

impl App {
    /// Starts a host and waits until it serves.
    pub(crate) fn start<S: HttpService>(host: Host<S>) -> Self {
        Self::start_on(host, Workers::Task)
    }

    pub(crate) fn start_on<S: HttpService>(host: Host<S>, workers: Workers) -> Self {
        let app = Self::spawn(host, workers);
        until("the start", || (wire::get(app.internal, "/startupz").status == 200).then_some(()));
        app
    }

    /// Starts a host and returns once the main address is bound and the internal server listens.
    pub(crate) fn spawn<S: HttpService>(host: Host<S>, workers: Workers) -> Self {
        Self::spawn_by(host, workers, |clock| clock)
    }

    /// Like `spawn`, with the clock that `clock` returns for the real one.
    pub(crate) fn spawn_by<S, C>(
        host: Host<S>,
        workers: Workers,
        clock: impl FnOnce(TokioClock) -> C + Send + 'static,
    ) -> Self
    where
        S: HttpService,
        C: Clock,
    {
        let stop = host.shutdown_handle();
        let (signals, heard) = tokio_mpsc::unbounded_channel();
        let (bound, addresses) = mpsc::channel();
        let (reported, report) = mpsc::channel();
        super::aside(move || {
            let mut runtime = match workers {
                Workers::OneThread => tokio::runtime::Builder::new_current_thread(),
                Workers::Task | Workers::Threads(_) => tokio::runtime::Builder::new_multi_thread(),
            };
            let runtime = runtime.worker_threads(2).enable_all().build().unwrap();
            let lived = runtime.block_on(async move {
                let clock = Arc::new(clock(TokioClock::new()));
                let spawner = match workers {
                    Workers::Task | Workers::OneThread => {
                        Quiet::Tasks(CurrentRuntime::new(Handle::current()))
                    }
                    Workers::Threads(count) => Quiet::Threads(ThreadPerWorker::new(
                        clock.clone(),
                        NonZeroUsize::new(count).unwrap(),
                    )),
                };
                let network = Telling { network: OsNetwork::default(), bound };
                host.run_in(Runtime {
                    clock,
                    network,
                    signals: ByHand(heard),
                    spawner,
                    seed: Seed(7),
                })
                .await
            });
            // A blocked hook must not delay the test.
            runtime.shutdown_background();
            let _ = reported.send(lived);
        });
        let mut addresses = addresses.into_iter();
        let (main, internal) = (addresses.next().unwrap(), addresses.next().unwrap());
        Self { main, internal, signals, stop, report }
    }

    pub(crate) fn get(&self, path: &str) -> wire::Answer {
        wire::get(self.main, path)
    }

    pub(crate) fn probe(&self, path: &str) -> wire::Answer {
        wire::get(self.internal, path)
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.probe("/status").body()).unwrap()
    }

    #[track_caller]
    pub(crate) fn wait_for_phase(&self, phase: &str) {
        until(&format!("phase {phase}"), || (self.status()["phase"] == phase).then_some(()));
    }

    /// Waits until `count` requests have started. Unlike the number in flight, it never falls.
    #[track_caller]
    pub(crate) fn wait_for_started(&self, count: u64) {
        until("started requests", || (self.status()["requests"]["started"] == count).then_some(()));
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.signals.send(signal).unwrap();
    }

    /// Requests the stop through the handle.
    pub(crate) fn stop(&self) {
        self.stop.stop();
    }

    /// Waits for the end of the run and returns its report.
    #[track_caller]
    pub(crate) fn report(&self) -> Report {
        self.report.recv_timeout(MAX_WAIT).expect("it does not end")
    }

    /// Requests the stop, waits for the end of the run and returns its report.
    #[track_caller]
    pub(crate) fn end(&self) -> Report {
        self.stop();
        self.report()
    }
}

/// The system's network, which also sends the addresses to the test: the main server's when it is
/// bound, the internal server's when it listens, so that a probe is never refused.
#[derive(Debug)]
struct Telling {
    network: OsNetwork,
    bound: mpsc::Sender<SocketAddr>,
}

impl Network for Telling {
    type Listener = OsListener;
    type Reservation = Announced;

    fn reserve(
        &self,
        address: &ListenAddress,
        role: ServerRole,
        listeners: usize,
    ) -> io::Result<Announced> {
        let reservation = self.network.reserve(address, role, listeners)?;
        let address = reservation.local().tcp();
        if role == ServerRole::Main
            && let Some(address) = address
        {
            let _ = self.bound.send(address);
        }
        let listening = (role == ServerRole::Internal).then(|| self.bound.clone());
        Ok(Announced { reservation, listening })
    }
}

/// A bound socket. `listening` receives its address when it listens.
#[derive(Debug)]
struct Announced {
    reservation: OsReservation,
    listening: Option<mpsc::Sender<SocketAddr>>,
}

impl Reservation for Announced {
    type Listener = OsListener;

    fn local(&self) -> Address {
        self.reservation.local()
    }

    async fn listen(self) -> io::Result<Vec<OsListener>> {
        let address = self.local().tcp();
        let listeners = self.reservation.listen().await?;
        if let (Some(listening), Some(address)) = (self.listening, address) {
            let _ = listening.send(address);
        }
        Ok(listeners)
    }
}

/// Signals that the test sends.
#[derive(Debug)]
struct ByHand(tokio_mpsc::UnboundedReceiver<Signal>);

impl SignalSource for ByHand {
    async fn recv(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }
}

/// A spawner that ignores the watchdog.
#[derive(Debug)]
enum Quiet {
    Tasks(CurrentRuntime),
    Threads(ThreadPerWorker),
}

impl Spawner for Quiet {
    fn workers(&self) -> NonZeroUsize {
        match self {
            Self::Tasks(spawner) => spawner.workers(),
            Self::Threads(spawner) => spawner.workers(),
        }
    }

    fn spawn(&self, kind: TaskKind, job: BoxFuture) -> io::Result<JoinHandle> {
        match self {
            Self::Tasks(spawner) => spawner.spawn(kind, job),
            Self::Threads(spawner) => spawner.spawn(kind, job),
        }
    }

    fn arm_watchdog(&self, _: Moment) {}
}
