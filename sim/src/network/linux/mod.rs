//! The operating system itself: real sockets on the loopback interface, real threads, real time.
//!
//! ```text
//!  client ─▶ its end ═▶ forwarding tasks ═▶ socket ──▶ kernel ──▶ the host's listener
//!           in memory    after the latency   127.0.0.1, ports that the kernel chose
//! ```
//! The host runs on production's network, clock and threads ([`lameduck::os`]). Only signals, the
//! end by the watchdog and the latency are ours: several worlds share a process, and the loopback
//! interface has no latency.

mod host;
mod spawner;
mod stream;

pub use host::LinuxHost;
pub use spawner::LinuxSpawner;
pub use stream::LinuxStream;

use super::{Attendance, LinkChange, Overrun, World, WorldConfig};
use crate::trace::Trace;
use host::Shared;
use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    panic,
    pin::Pin,
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::{runtime::Builder, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Dispatch;

/// How late anything may happen on a busy machine. A run whose machine let it wait for longer than
/// half of this proves nothing.
const TOLERANCE: Duration = Duration::from_millis(200);

/// Time after the exit of the host in which its last bytes reach the clients.
const LINGER: Duration = Duration::from_millis(300);

/// Interval at which a world measures how late the machine wakes it.
const PROBE: Duration = Duration::from_millis(20);

/// The least stack of a thread. A world has some ten.
const STACK_BYTES: usize = 1024 * 1024;

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
type Job = Box<dyn FnOnce(LinuxHost) -> BoxFuture>;

/// Hosts on the loopback interface, with a thread each, in real time.
///
/// Known differences from the simulated networks: the handshake takes no time in the kernel, so a
/// connection is in the accept queue one latency after its SYN; a clock has no skew; accepts do not
/// fail. Any number of these worlds may run at once.
#[derive(Debug)]
pub struct LinuxWorld {
    shared: Arc<Shared>,
    jobs: Vec<Task>,
    changes: Vec<(Duration, (String, String), LinkChange)>,
}

struct Task {
    host: String,
    attendance: Attendance,
    job: Job,
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task").field("host", &self.host).finish_non_exhaustive()
    }
}

impl World for LinuxWorld {
    type Host = LinuxHost;
    const GRAIN: Duration = Duration::ZERO;
    const RESETS: bool = true;
    const TOLERANCE: Duration = TOLERANCE;
    const LINGER: Option<Duration> = Some(LINGER);

    fn new(config: WorldConfig, trace: Trace) -> Self {
        Self { shared: Arc::new(Shared::new(config, trace)), jobs: Vec::new(), changes: Vec::new() }
    }

    fn spawn<F, J>(&mut self, host: &str, attendance: Attendance, job: F)
    where
        F: FnOnce(Self::Host) -> J + 'static,
        J: Future<Output = ()> + Send + 'static,
    {
        let job: Job = Box::new(move |host| Box::pin(job(host)));
        self.jobs.push(Task { host: host.to_owned(), attendance, job });
    }

    fn change_link_at(&mut self, at: Duration, link: (&str, &str), change: LinkChange) {
        self.changes.push((at, (link.0.to_owned(), link.1.to_owned()), change));
    }

    fn run(self, limit: Duration) -> Result<Duration, Overrun> {
        let Self { shared, jobs, mut changes } = self;
        changes.sort_by_key(|(at, ..)| *at);
        let epoch = shared.begin(changes);
        let (ended, ends) = mpsc::channel();
        let mut hosts: BTreeMap<String, HostThread> = BTreeMap::new();
        let mut awaited = Vec::new();
        for Task { host, attendance, job } in jobs {
            let thread = hosts.entry(host.clone()).or_insert_with(|| HostThread::new(&shared));
            match attendance {
                Attendance::Awaited => awaited.push(host.clone()),
                Attendance::Background => thread.is_probed = true,
            }
            thread.jobs.push((attendance, job(LinuxHost::new(&host, &shared))));
        }
        let over = CancellationToken::new();
        let default = tracing::dispatcher::get_default(Clone::clone);
        let threads: Vec<_> = hosts
            .into_iter()
            .map(|(name, host)| {
                host.start(name, epoch, over.clone(), ended.clone(), default.clone())
            })
            .collect();
        drop(ended);
        let result = await_jobs(&shared.trace, &ends, awaited, epoch, limit);
        shared.trace.end();
        over.cancel();
        threads.into_iter().for_each(|thread| drop(thread.join()));
        result.unwrap_or_else(|panic| panic::resume_unwind(panic))
    }
}

/// The end of a job: which host it ran on, whether it was awaited, and its panic.
struct EndedHost {
    host: String,
    attendance: Attendance,
    panic: Option<Panic>,
}

type Panic = Box<dyn std::any::Any + Send>;

/// Waits until the jobs on the `awaited` hosts have returned. Measures how late the machine wakes
/// this thread.
#[expect(clippy::disallowed_methods, reason = "this world has real time")]
fn await_jobs(
    trace: &Trace,
    ends: &mpsc::Receiver<EndedHost>,
    mut awaited: Vec<String>,
    epoch: Instant,
    limit: Duration,
) -> Result<Result<Duration, Overrun>, Panic> {
    while !awaited.is_empty() {
        let asleep = Instant::now();
        match ends.recv_timeout(PROBE) {
            Ok(EndedHost { panic: Some(panic), .. }) => return Err(panic),
            Ok(EndedHost { host, attendance: Attendance::Awaited, .. }) => {
                if let Some(place) = awaited.iter().position(|name| *name == host) {
                    awaited.swap_remove(place);
                }
            }
            Ok(EndedHost { attendance: Attendance::Background, .. }) => {}
            Err(RecvTimeoutError::Timeout) => {
                trace.note_stall(asleep.elapsed().saturating_sub(PROBE));
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if epoch.elapsed() > limit {
            return Ok(Err(Overrun { limit, hosts: awaited }));
        }
    }
    Ok(Ok(epoch.elapsed()))
}

/// The thread of one host, with its jobs.
struct HostThread {
    trace: Trace,
    jobs: Vec<(Attendance, BoxFuture)>,
    /// Whether the thread measures how late the machine wakes it. The thread of a process under
    /// test must not: what blocks it is not the machine.
    is_probed: bool,
}

impl HostThread {
    fn new(shared: &Shared) -> Self {
        Self { trace: shared.trace.clone(), jobs: Vec::new(), is_probed: false }
    }

    /// Starts the thread. The time until it runs, since `epoch`, counts as a stall of the machine.
    fn start(
        self,
        name: String,
        epoch: Instant,
        over: CancellationToken,
        ended: mpsc::Sender<EndedHost>,
        default: Dispatch,
    ) -> thread::JoinHandle<()> {
        let thread = thread::Builder::new().name(format!("world-{name}")).stack_size(STACK_BYTES);
        let run = move || {
            let _recording = tracing::dispatcher::set_default(&default);
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("the system has descriptors left for another world");
            self.trace.note_stall(epoch.elapsed());
            runtime.block_on(self.live(&name, &over, &ended));
            runtime.shutdown_background();
        };
        thread.spawn(run).expect("the system has a thread left for another world")
    }

    async fn live(self, name: &str, over: &CancellationToken, ended: &mpsc::Sender<EndedHost>) {
        let mut attendances = BTreeMap::new();
        let mut jobs = JoinSet::new();
        for (attendance, job) in self.jobs {
            attendances.insert(jobs.spawn(job).id(), attendance);
        }
        let probing = async {
            if self.is_probed {
                probe(&self.trace).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::pin!(probing);
        loop {
            let end = tokio::select! {
                biased;
                () = over.cancelled() => return,
                Some(end) = jobs.join_next_with_id() => end,
                () = &mut probing => return,
            };
            let (id, panic) = match end {
                Ok((id, ())) => (id, None),
                Err(lost) => (lost.id(), lost.try_into_panic().ok()),
            };
            let attendance = attendances.remove(&id).unwrap_or(Attendance::Background);
            let _ = ended.send(EndedHost { host: name.to_owned(), attendance, panic });
        }
    }
}

/// Measures how late this runtime's timers are.
#[expect(clippy::disallowed_methods, reason = "this world has real time")]
async fn probe(trace: &Trace) {
    loop {
        let asleep = Instant::now();
        tokio::time::sleep(PROBE).await;
        trace.note_stall(asleep.elapsed().saturating_sub(PROBE));
    }
}
