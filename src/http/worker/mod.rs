//! A worker: accepts connections, keeps them, wakes those that are due, and ends when the last is gone and no work is left.

mod handshake_wait;

pub(crate) use self::handshake_wait::SealBarrier;
use self::handshake_wait::{Done, HandshakeWait};
use crate::http::{
    connection::{
        idle_handoff::IdleHandoff,
        idle_set::{Evicted, IdleSet},
        task::Connection,
        worker_context::WorkerContext,
    },
    exchange::service::HttpService,
    server::{
        connection_slot::ConnectionSlot,
        idle_policy::{Idle, evictable},
        state::ServerState,
        worker_runtime::WorkerRuntime,
    },
};
use crate::{
    lifecycle::{Moment, Phase},
    runtime::{Address, Listener, QuiesceOutcome},
};
use std::{
    future::poll_fn,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};

/// What the driver asks of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerCommand {
    /// The phase changed: every connection shall look.
    Wake,
    /// Stop the listeners without losing what they completed.
    Quiesce,
    /// Accept what the listeners hold, then close them at once: for a side whose clients may retry.
    Close,
    /// Stop the listeners, whatever they hold.
    Abort,
}

/// The pause after an accept that failed for want of something that others may give back, such as descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Connections accepted in one turn of the loop, which has others to serve.
const ACCEPT_BATCH_MAX: usize = 16;
/// So many berths of connections that have left are let be.
const STALE_SLOTS_MAX: usize = 64;
/// How often connections that are due are woken while serving. Once a stop was asked for, they are when they are due.
const SWEEP: Duration = Duration::from_millis(250);
/// The longest time between two sweeps then, and the shortest: whoever asks for a moment that has passed must not keep us spinning.
const SWEEP_STOPPING: Duration = Duration::from_millis(100);
const SWEEP_STOPPING_LEAST: Duration = Duration::from_millis(1);
/// The shortest time between two looks for connections that may make evictable.
const LOOK_LEAST: Duration = Duration::from_millis(10);

/// Works, then stays until nobody gives orders any more, and its runtime with it: what a handler spawned there, untracked, say the
/// connection of a client that all share, may be what a handler elsewhere or a stop hook is waiting for (P10). `all_closed` is dropped
/// when the work is done.
pub(crate) async fn run_until_released<L, S>(
    parts: CrewParts<S>,
    listeners: Vec<L>,
    mut commands: mpsc::UnboundedReceiver<WorkerCommand>,
    seal_barrier: Arc<SealBarrier>,
    all_closed: oneshot::Sender<()>,
) where
    L: Listener,
    S: HttpService,
{
    let runtime = WorkerRuntime::of_tasks();
    let CrewParts { server, service, heartbeat } = parts;
    let context = Arc::new(WorkerContext::new(server, service, heartbeat, runtime.clone()));
    let working = async move {
        run(context, listeners, &mut commands, seal_barrier).await;
        drop(all_closed);
        while commands.recv().await.is_some() {}
    };
    runtime.run(working).await;
}

/// What a worker's crew is made of, once its runtime is known.
pub(crate) struct CrewParts<S> {
    pub(crate) server: Arc<ServerState>,
    pub(crate) service: Arc<S>,
    pub(crate) heartbeat: Arc<AtomicU64>,
}

/// Works until the listeners are closed, and the last connection and all tracked work are gone.
pub(crate) async fn run<L, S>(
    context: Arc<WorkerContext<S>>,
    listeners: Vec<L>,
    commands: &mut mpsc::UnboundedReceiver<WorkerCommand>,
    seal_barrier: Arc<SealBarrier>,
) where
    L: Listener,
    S: HttpService,
{
    // Beside all else, so that no wait of the worker's makes a deadline late.
    tokio::select! {
        biased;
        () = context.shared.deadlines.watch(&*context.server().clock, &context.server().tokens.abort) => {}
        () = run_loop(context.clone(), listeners, commands, seal_barrier) => {}
    }
}

async fn run_loop<L, S>(
    context: Arc<WorkerContext<S>>,
    listeners: Vec<L>,
    commands: &mut mpsc::UnboundedReceiver<WorkerCommand>,
    seal_barrier: Arc<SealBarrier>,
) where
    L: Listener,
    S: HttpService,
{
    let clock = context.server().clock.clone();
    let mut idle_set =
        IdleSet::new(context.clone(), listeners.iter().find_map(Listener::idle_poller));
    let idle_handoff = idle_set.handoff().clone();
    let mut worker = Worker {
        context: context.clone(),
        idle_handoff: idle_handoff.clone(),
        slots: Vec::new(),
        evictable: EvictionQueue::default(),
        listeners: Listeners::new(listeners),
        last_accept: Accepted::Yes,
        swept: Moment::EPOCH,
    };
    let mut sweep_mode = SweepMode::Periodic;
    let mut sweep = clock.sleep_until(clock.now() + SWEEP);
    let mut pause = clock.sleep_until(clock.now());
    let mut check_again = clock.sleep_until(clock.now());
    let mut accepting = Accepting::Yes;
    let mut handshake_wait = None;
    loop {
        let is_full = context.server().is_full();
        if is_full && accepting == Accepting::Yes {
            context.wait_for_capacity();
            worker.find_evictable(&idle_set);
            check_again.as_mut().reset(worker.evictable.check_again);
        } else {
            worker.evictable = EvictionQueue::default();
        }
        let may_accept = accepting == Accepting::Yes && (!is_full || worker.may_exceed());
        // The last sweep arranged the next for a quarter of a second after it, which a stop cannot spare.
        if sweep_mode == SweepMode::Periodic && context.server().phase() >= Phase::LameDuck {
            sweep_mode = SweepMode::OnDemand;
            sweep.as_mut().reset(worker.sweep(sweep_mode, &mut idle_set));
        }
        worker.slots.extend(idle_set.drain_resumed());
        worker.compact_slots();
        tokio::select! {
            biased;
            command = commands.recv() => match command {
                Some(WorkerCommand::Wake) => worker.wake_all(&mut idle_set),
                Some(WorkerCommand::Quiesce) => {
                    worker.quiesce();
                    seal_barrier.seal_one();
                    handshake_wait = Some(HandshakeWait::new(clock.clone(), seal_barrier.clone()));
                    worker.wake_all(&mut idle_set);
                }
                Some(WorkerCommand::Close) => {
                    accepting = worker.empty_backlogs().await;
                    pause.as_mut().reset(clock.now() + ACCEPT_PAUSE);
                    worker.wake_all(&mut idle_set);
                }
                Some(WorkerCommand::Abort) | None => {
                    worker.listeners.close();
                    context.close();
                    worker.wake_all(&mut idle_set);
                    accepting = Accepting::Never;
                    if command.is_none() {
                        // Nobody is left to give orders: the host is gone, and so are we.
                        return;
                    }
                }
            },
            () = sweep.as_mut() => sweep.as_mut().reset(worker.sweep(sweep_mode, &mut idle_set)),
            () = context.sweep_changed() => sweep.as_mut().reset(worker.next_sweep()),
            () = HandshakeWait::is_due(handshake_wait.as_mut()) => {
                let checked = handshake_wait.as_mut().map(|handshake_wait| handshake_wait.check(context.server().phase(), worker.listeners.handshakes()));
                if checked == Some(Done::Yes) {
                    handshake_wait = None;
                    accepting = worker.empty_backlogs().await;
                    pause.as_mut().reset(clock.now() + ACCEPT_PAUSE);
                }
            }
            () = pause.as_mut(), if matches!(accepting, Accepting::Paused | Accepting::Emptying) => {
                accepting = if accepting == Accepting::Paused { Accepting::Yes } else { worker.empty_backlogs().await };
                pause.as_mut().reset(clock.now() + ACCEPT_PAUSE);
            }
            () = context.capacity_freed(), if is_full => {}
            () = check_again.as_mut(), if is_full && accepting == Accepting::Yes && worker.evictable.is_empty() => {}
            () = idle_handoff.ready() => idle_set.drain_handoff(),
            accepted = worker.accept(), if may_accept => {
                if context.server().is_full() && accepted.result.is_ok() {
                    worker.evict_idle(&mut idle_set);
                }
                if worker.accept_batch(accepted).await == Accepted::OutOfResources {
                    accepting = Accepting::Paused;
                    pause.as_mut().reset(clock.now() + ACCEPT_PAUSE);
                }
                // A crowd of newcomers must not keep those waiting who were here before, nor pile up before any of them had a turn.
                idle_set.serve_ready_now().await;
                if context.has_many_tasks() {
                    yield_now().await;
                }
            }
            () = idle_set.ready() => {
                idle_set.serve().await;
                // Whoever has a task has a turn, too.
                yield_now().await;
            }
            () = yield_now(), if idle_set.has_expired_left() => context.schedule_sweep(idle_set.close_expired(clock.now())),
            () = all_closed(&context), if accepting == Accepting::Never && idle_set.is_empty() => return,
        }
    }
}

/// When the next sweep is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SweepMode {
    /// A quarter of a second after the last: nobody is in a hurry.
    Periodic,
    /// When the first connection is due: the exit may wait for it (P8).
    OnDemand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    Yes,
    Paused,
    /// The queues are being emptied, and what that takes has run out for now.
    Emptying,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepted {
    Yes,
    OutOfResources,
}

/// Ready when the last connection is gone, and the work that handlers spawned after it (P10).
async fn all_closed<S: HttpService>(context: &WorkerContext<S>) {
    context.tasks.wait().await;
    // It may be another worker's work: then this one stays a little longer than it must. Not the other way round: without a
    // connection, only work can spawn more work here.
    context.server().tasks.wait().await;
}

/// What a worker has at hand.
struct Worker<L: Listener, S> {
    context: Arc<WorkerContext<S>>,
    idle_handoff: Arc<IdleHandoff<L::Io>>,
    slots: Vec<Arc<ConnectionSlot>>,
    /// At the connection limit: the connections that make evictable for new ones.
    evictable: EvictionQueue,
    listeners: Listeners<L>,
    /// So that a want of descriptors is logged once, and not at every try.
    last_accept: Accepted,
    /// When the last sweep was, once a stop was asked for.
    swept: Moment,
}

impl<L: Listener, S: HttpService> Worker<L, S> {
    /// Registers a connection, then spawns it: there is no moment in which it is nobody's.
    fn register(&mut self, accepted: AcceptedSocket<L::Io>) -> Accepted {
        let before = std::mem::replace(&mut self.last_accept, Accepted::Yes);
        match accepted.result {
            Ok((io, peer)) => {
                let (server, now) = (&self.context.server(), self.context.server().clock.now());
                let announcement = server.announcement(now, || self.context.next_connection_id());
                let slot = Arc::new(ConnectionSlot::new(now, peer, accepted.local, announcement));
                self.slots.push(slot.clone());
                self.context.spawn(Connection::new(
                    self.context.clone(),
                    slot,
                    self.idle_handoff.clone(),
                    io,
                ));
                Accepted::Yes
            }
            Err(error) if concerns_one_connection(&error) => Accepted::Yes,
            Err(error) => {
                self.context.server().metrics.accept_errors.add_one();
                if before == Accepted::Yes {
                    crate::log::warn!(%error, address = %accepted.local, "cannot accept; trying again every 20 ms");
                }
                self.last_accept = Accepted::OutOfResources;
                Accepted::OutOfResources
            }
        }
    }

    /// The next connection of any, unless the limit is reached and none makes evictable: other workers may have done that since this one last
    /// looked. The next sweep finds it out. Cancel safe: what was accepted is returned by the very poll that accepted it.
    async fn accept(&mut self) -> AcceptedSocket<L::Io> {
        poll_fn(|cx| {
            if self.context.server().is_full() && !self.may_exceed() {
                Poll::Pending
            } else {
                self.listeners.poll_accept(cx)
            }
        })
        .await
    }

    /// Whether one connection more may be accepted at the limit, since another one makes evictable for it.
    fn may_exceed(&self) -> bool {
        !self.evictable.is_empty() && !self.context.server().is_over_full()
    }

    /// Looks which connections may make evictable, if it is time to.
    fn find_evictable(&mut self, idle_set: &IdleSet<L::IdlePoller, S>) {
        let server = &self.context.server();
        let now = server.clock.now();
        if now < self.evictable.check_again {
            return;
        }
        let tasks = self.slots.iter().filter(|slot| !slot.has_left());
        let tasks = tasks.filter_map(|slot| Some((slot.evictable()?, Place::Task(slot.clone()))));
        let idle_due = idle_set.idle().map(|(idle, key)| (idle, Place::IdleSet(key)));
        let found = evictable(tasks.chain(idle_due), server.config.eviction_grace, now);
        // Where also busy connections make evictable, one that was not polled yet soon may.
        let latest = if server.evicts_busy() { LOOK_LEAST } else { SWEEP };
        let check_again = found.look_again.clamp(now + LOOK_LEAST, now + latest);
        self.evictable = EvictionQueue { order: found.order, checked: now, check_again };
    }

    /// Closes an idle connection, the first in the order of [`idle_policy`](crate::http::server::idle_policy).
    fn evict_idle(&mut self, idle_set: &mut IdleSet<L::IdlePoller, S>) {
        while let Some((idle, place)) = self.evictable.order.pop() {
            let evicted = match place {
                Place::IdleSet(key) => idle_set.evict(key, idle),
                Place::Task(slot) if slot.evictable() == Some(idle) => {
                    slot.evict();
                    Evicted::Yes
                }
                Place::Task(_) => Evicted::No,
            };
            if evicted == Evicted::Yes {
                break;
            }
        }
        if self.evictable.is_empty() {
            self.evictable.check_again = self.evictable.checked + LOOK_LEAST;
        }
    }

    /// Admits this one and those that wait behind it, up to a number: in a crowd the turns of the worker's loop are not for one alone.
    async fn accept_batch(&mut self, first: AcceptedSocket<L::Io>) -> Accepted {
        let mut accepted = self.register(first);
        for _ in 1..ACCEPT_BATCH_MAX {
            if accepted == Accepted::OutOfResources || self.context.server().is_full() {
                break;
            }
            let Some(next) = self.listeners.accept_if_any().await else { break };
            accepted = self.register(next);
        }
        accepted
    }

    fn quiesce(&mut self) {
        for socket in &mut self.listeners.sockets {
            match socket.listener.quiesce() {
                QuiesceOutcome::Sealed => {}
                QuiesceOutcome::Open(reason) => {
                    let reason = reason
                        .map_or_else(|| "not supported".to_owned(), |error| error.to_string());
                    crate::log::warn!(
                        address = %socket.local,
                        reason,
                        "newcomers cannot be kept out while the queue is emptied; a few may be refused late"
                    );
                }
                QuiesceOutcome::Inherited => socket.queue_owner = QueueOwner::Successor,
            }
        }
        self.listeners.sockets.retain(|socket| socket.queue_owner == QueueOwner::Host);
    }

    /// Accepts what the kernel completed, then closes. It never waits for what has run out: meanwhile the sweep must go on, or those
    /// that only time can end would keep their descriptors.
    async fn empty_backlogs(&mut self) -> Accepting {
        while let Some(accepted) = self.listeners.accept_if_any().await {
            if self.register(accepted) == Accepted::OutOfResources {
                if self.context.server().is_aborting() {
                    break;
                }
                return Accepting::Emptying;
            }
        }
        self.listeners.close();
        self.context.close();
        Accepting::Never
    }

    /// A berth keeps the memory of its task: in a crowd of those that come, are answered and go on waiting without one, the next
    /// sweep is far away.
    fn compact_slots(&mut self) {
        if self.slots.len() > 2 * self.context.tasks.len() + STALE_SLOTS_MAX {
            self.slots.retain(|slot| !slot.has_left());
        }
    }

    fn wake_all(&mut self, idle_set: &mut IdleSet<L::IdlePoller, S>) {
        self.context.schedule_sweep(idle_set.sweep(self.context.server().clock.now()));
        self.slots.retain(|slot| !slot.has_left());
        for slot in &self.slots {
            slot.wake();
        }
    }

    /// Wakes who is due; when to do so again.
    fn sweep(&mut self, sweep_mode: SweepMode, idle_set: &mut IdleSet<L::IdlePoller, S>) -> Moment {
        self.context.heartbeat.fetch_add(1, Ordering::Relaxed);
        self.slots.retain(|slot| !slot.has_left());
        let now = self.context.server().clock.now();
        let idle_due = idle_set.sweep(now);
        if sweep_mode == SweepMode::Periodic {
            for slot in &self.slots {
                slot.wake_if_due(now);
            }
            return now + SWEEP;
        }
        self.context.begin_sweep();
        let first = self.slots.iter().map(|slot| slot.wake_if_due(now)).min();
        self.context
            .end_sweep(first.unwrap_or(Moment::NEVER).min(idle_due).min(now + SWEEP_STOPPING));
        self.swept = now;
        self.next_sweep()
    }

    fn next_sweep(&self) -> Moment {
        self.context.sweep_at().max(self.swept + SWEEP_STOPPING_LEAST)
    }
}

/// The connections of this worker that make evictable, once the connection limit is reached.
#[derive(Default)]
struct EvictionQueue {
    order: Vec<(Idle, Place)>,
    checked: Moment,
    /// When to look for others.
    check_again: Moment,
}

enum Place {
    Task(Arc<ConnectionSlot>),
    IdleSet(usize),
}

impl EvictionQueue {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// A failed accept says something about one connection that is gone already, or about us.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

/// A worker's listeners. Each in turn may go first, so that a flood on one does not starve another.
struct Listeners<L> {
    sockets: Vec<Socket<L>>,
    first: usize,
}

struct Socket<L> {
    listener: L,
    local: Arc<Address>,
    queue_owner: QueueOwner,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueOwner {
    Host,
    Successor,
}

struct AcceptedSocket<T> {
    result: io::Result<(T, Address)>,
    local: Arc<Address>,
}

impl<L: Listener> Listeners<L> {
    fn new(listeners: Vec<L>) -> Self {
        let sockets = listeners
            .into_iter()
            .map(|listener| Socket {
                local: Arc::new(listener.local()),
                listener,
                queue_owner: QueueOwner::Host,
            })
            .collect();
        Self { sockets, first: 0 }
    }

    /// The next connection of any, or `None` if none waits.
    async fn accept_if_any(&mut self) -> Option<AcceptedSocket<L::Io>> {
        poll_fn(|cx| match self.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll_accept(&mut self, cx: &mut std::task::Context<'_>) -> Poll<AcceptedSocket<L::Io>> {
        let count = self.sockets.len();
        for n in 0..count {
            let index = (self.first + n) % count;
            let socket = &mut self.sockets[index];
            if let Poll::Ready(result) = socket.listener.poll_accept(cx) {
                self.first = (index + 1) % count;
                return Poll::Ready(AcceptedSocket { result, local: socket.local.clone() });
            }
        }
        Poll::Pending
    }

    /// What each says of its handshakes under way, asked one after the other.
    fn handshakes(&self) -> impl Iterator<Item = Option<usize>> {
        self.sockets.iter().map(|socket| socket.listener.handshakes())
    }

    fn close(&mut self) {
        self.sockets.clear();
    }
}
