//! A worker: accepts connections, keeps them, wakes those that are due, and ends when the last is gone and no work is left.

use super::{
    berth::Berth,
    connection::Connection,
    crew::Crew,
    deep::{Deep, Evicted, Gate},
    idle_policy::{Idle, evictable},
    runtime::WorkerRuntime,
    service::HttpService,
    settling::{Sealing, Settled, Settling},
    side::Side,
};
use crate::{
    env::{Address, Backlog, Listener},
    lifecycle::{Moment, Phase},
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
pub(crate) enum Order {
    /// The phase changed: every connection shall look.
    Look,
    /// Stop the listeners without losing what they completed.
    Quiesce,
    /// Accept what the listeners hold, then close them at once: for a side whose clients may retry.
    Close,
    /// Stop the listeners, whatever they hold.
    Abandon,
}

/// The pause after an accept that failed for want of something that others may give back, such as descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// Connections accepted in one turn of the loop, which has others to serve.
const ACCEPTS_AT_ONCE: usize = 16;
/// So many berths of connections that have left are let be.
const BERTHS_LEFT_MAX: usize = 64;
/// How often connections that are due are woken while serving. Once a stop was asked for, they are when they are due.
const SWEEP: Duration = Duration::from_millis(250);
/// The longest time between two sweeps then, and the shortest: whoever asks for a moment that has passed must not keep us spinning.
const SWEEP_STOPPING: Duration = Duration::from_millis(100);
const SWEEP_LEAST: Duration = Duration::from_millis(1);
/// The shortest time between two looks for connections that may make room.
const LOOK_LEAST: Duration = Duration::from_millis(10);

/// Works, then stays until nobody gives orders any more, and its runtime with it: what a handler spawned there, untracked, say the
/// connection of a client that all share, may be what a handler elsewhere or a stop hook is waiting for (P10). `emptied` is dropped
/// when the work is done.
pub(crate) async fn work_and_stay<L, S>(
    parts: CrewParts<S>,
    listeners: Vec<L>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    sealing: Arc<Sealing>,
    emptied: oneshot::Sender<()>,
) where
    L: Listener,
    S: HttpService,
{
    let runtime = WorkerRuntime::of_tasks();
    let CrewParts { side, service, beats } = parts;
    let crew = Arc::new(Crew::new(side, service, beats, runtime.clone()));
    let working = async move {
        work(crew, listeners, &mut orders, sealing).await;
        drop(emptied);
        while orders.recv().await.is_some() {}
    };
    runtime.run(working).await;
}

/// What a worker's crew is made of, once its runtime is known.
pub(crate) struct CrewParts<S> {
    pub(crate) side: Arc<Side>,
    pub(crate) service: Arc<S>,
    pub(crate) beats: Arc<AtomicU64>,
}

/// Works until the listeners are closed, and the last connection and all tracked work are gone.
pub(crate) async fn work<L, S>(
    crew: Arc<Crew<S>>,
    listeners: Vec<L>,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    sealing: Arc<Sealing>,
) where
    L: Listener,
    S: HttpService,
{
    // Beside all else, so that no wait of the worker's makes a deadline late.
    tokio::select! {
        biased;
        () = crew.deadlines.watch(&crew.side) => {}
        () = keep(crew.clone(), listeners, orders, sealing) => {}
    }
}

async fn keep<L, S>(
    crew: Arc<Crew<S>>,
    listeners: Vec<L>,
    orders: &mut mpsc::UnboundedReceiver<Order>,
    sealing: Arc<Sealing>,
) where
    L: Listener,
    S: HttpService,
{
    let clock = crew.side.clock.clone();
    let mut deep = Deep::new(crew.clone(), listeners.iter().find_map(Listener::lot));
    let gate = deep.gate().clone();
    let mut desk = Desk {
        crew: crew.clone(),
        gate: gate.clone(),
        berths: Vec::new(),
        room: Room::default(),
        listeners: Listeners::new(listeners),
        last_accept: Admitted::Yes,
        swept: Moment::EPOCH,
    };
    let mut pace = Pace::Even;
    let mut sweep = clock.sleep_until(clock.now() + SWEEP);
    let mut pause = clock.sleep_until(clock.now());
    let mut look_again = clock.sleep_until(clock.now());
    let mut accepting = Accepting::Yes;
    let mut settling = None;
    loop {
        let is_full = crew.side.is_full();
        if is_full && accepting == Accepting::Yes {
            crew.on_full();
            desk.look_for_room(&deep);
            look_again.as_mut().reset(desk.room.look_again);
        } else {
            desk.room = Room::default();
        }
        let may_accept = accepting == Accepting::Yes && (!is_full || desk.may_exceed());
        // The last sweep arranged the next for a quarter of a second after it, which a stop cannot spare.
        if pace == Pace::Even && crew.side.phase() >= Phase::LameDuck {
            pace = Pace::AsDue;
            sweep.as_mut().reset(desk.sweep(pace, &mut deep));
        }
        desk.berths.extend(deep.awakened());
        desk.tidy();
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Look) => desk.wake_all(&mut deep),
                Some(Order::Quiesce) => {
                    desk.quiesce();
                    sealing.seal_one();
                    settling = Some(Settling::new(clock.clone(), sealing.clone()));
                    desk.wake_all(&mut deep);
                }
                Some(Order::Close) => {
                    accepting = desk.empty_backlogs().await;
                    pause.as_mut().reset(clock.now() + ACCEPT_PAUSE);
                    desk.wake_all(&mut deep);
                }
                Some(Order::Abandon) | None => {
                    desk.listeners.close();
                    crew.close();
                    desk.wake_all(&mut deep);
                    accepting = Accepting::Never;
                    if order.is_none() {
                        // Nobody is left to give orders: the host is gone, and so are we.
                        return;
                    }
                }
            },
            () = sweep.as_mut() => sweep.as_mut().reset(desk.sweep(pace, &mut deep)),
            () = crew.sooner() => sweep.as_mut().reset(desk.next_sweep()),
            () = Settling::is_due(settling.as_mut()) => {
                let looked = settling.as_mut().map(|settling| settling.look(crew.side.phase(), desk.listeners.handshakes()));
                if looked == Some(Settled::Yes) {
                    settling = None;
                    accepting = desk.empty_backlogs().await;
                    pause.as_mut().reset(clock.now() + ACCEPT_PAUSE);
                }
            }
            () = pause.as_mut(), if matches!(accepting, Accepting::Paused | Accepting::Emptying) => {
                accepting = if accepting == Accepting::Paused { Accepting::Yes } else { desk.empty_backlogs().await };
                pause.as_mut().reset(clock.now() + ACCEPT_PAUSE);
            }
            () = crew.freed(), if is_full => {}
            () = look_again.as_mut(), if is_full && accepting == Accepting::Yes && desk.room.is_empty() => {}
            () = gate.come() => deep.take_in(),
            accepted = desk.accept(), if may_accept => {
                if crew.side.is_full() && accepted.result.is_ok() {
                    desk.make_room(&mut deep);
                }
                if desk.admit_at_hand(accepted).await == Admitted::No {
                    accepting = Accepting::Paused;
                    pause.as_mut().reset(clock.now() + ACCEPT_PAUSE);
                }
                // A crowd of newcomers must not keep those waiting who were here before, nor pile up before any of them had a turn.
                deep.serve_if_any().await;
                if crew.has_many_tasks() {
                    yield_now().await;
                }
            }
            () = deep.ready() => {
                deep.serve().await;
                // Whoever has a task has a turn, too.
                yield_now().await;
            }
            () = yield_now(), if deep.is_behind() => crew.sweep_by(deep.end_due(clock.now())),
            () = emptied(&crew), if accepting == Accepting::Never && deep.is_empty() => return,
        }
    }
}

/// When the next sweep is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// A quarter of a second after the last: nobody is in a hurry.
    Even,
    /// When the first connection is due: the exit may wait for it (P8).
    AsDue,
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
enum Admitted {
    Yes,
    No,
}

/// Ready when the last connection is gone, and the work that handlers spawned after it (P10).
async fn emptied<S: HttpService>(crew: &Crew<S>) {
    crew.tasks.wait().await;
    // It may be another worker's work: then this one stays a little longer than it must. Not the other way round: without a
    // connection, only work can spawn more work here.
    crew.side.tasks.wait().await;
}

/// What a worker has at hand.
struct Desk<L: Listener, S> {
    crew: Arc<Crew<S>>,
    gate: Arc<Gate<L::Io>>,
    berths: Vec<Arc<Berth>>,
    /// At the connection limit: the connections that make room for new ones.
    room: Room,
    listeners: Listeners<L>,
    /// So that a want of descriptors is logged once, and not at every try.
    last_accept: Admitted,
    /// When the last sweep was, once a stop was asked for.
    swept: Moment,
}

impl<L: Listener, S: HttpService> Desk<L, S> {
    /// Registers a connection, then spawns it: there is no moment in which it is nobody's.
    fn admit(&mut self, accepted: Accepted<L::Io>) -> Admitted {
        let before = std::mem::replace(&mut self.last_accept, Admitted::Yes);
        match accepted.result {
            Ok((io, peer)) => {
                let (side, now) = (&self.crew.side, self.crew.side.clock.now());
                let announcement = side.announcement(now, || self.crew.next_number());
                let berth = Arc::new(Berth::new(now, peer, accepted.local, announcement));
                self.berths.push(berth.clone());
                self.crew.spawn(Connection::new(self.crew.clone(), berth, self.gate.clone(), io));
                Admitted::Yes
            }
            Err(error) if concerns_one_connection(&error) => Admitted::Yes,
            Err(error) => {
                self.crew.side.tally.accept_errors.add_one();
                if before == Admitted::Yes {
                    crate::log::warn!(%error, address = %accepted.local, "cannot accept; trying again every 20 ms");
                }
                self.last_accept = Admitted::No;
                Admitted::No
            }
        }
    }

    /// The next connection of any, unless the limit is reached and none makes room: other workers may have done that since this one last
    /// looked. The next sweep finds it out. Cancel safe: what was accepted is returned by the very poll that accepted it.
    async fn accept(&mut self) -> Accepted<L::Io> {
        poll_fn(
            |cx| {
                if self.crew.side.is_full() && !self.may_exceed() { Poll::Pending } else { self.listeners.poll_accept(cx) }
            },
        )
        .await
    }

    /// Whether one connection more may be accepted at the limit, since another one makes room for it.
    fn may_exceed(&self) -> bool {
        !self.room.is_empty() && !self.crew.side.is_over_full()
    }

    /// Looks which connections may make room, if it is time to.
    fn look_for_room(&mut self, deep: &Deep<L::Lot, S>) {
        let side = &self.crew.side;
        let now = side.clock.now();
        if now < self.room.look_again {
            return;
        }
        let tasks = self.berths.iter().filter(|berth| !berth.has_left());
        let tasks = tasks.filter_map(|berth| Some((berth.evictable()?, Place::Task(berth.clone()))));
        let sleepers = deep.idle().map(|(idle, key)| (idle, Place::IdleSet(key)));
        let found = evictable(tasks.chain(sleepers), side.config.eviction_grace, now);
        // Where also busy connections make room, one that was not polled yet soon may.
        let latest = if side.evicts_busy() { LOOK_LEAST } else { SWEEP };
        let look_again = found.look_again.clamp(now + LOOK_LEAST, now + latest);
        self.room = Room { order: found.order, looked: now, look_again };
    }

    /// Closes an idle connection, the first in the order of [`idle_policy`](super::idle_policy).
    fn make_room(&mut self, deep: &mut Deep<L::Lot, S>) {
        while let Some((idle, place)) = self.room.order.pop() {
            let evicted = match place {
                Place::IdleSet(key) => deep.evict(key, idle),
                Place::Task(berth) if berth.evictable() == Some(idle) => {
                    berth.evict();
                    Evicted::Yes
                }
                Place::Task(_) => Evicted::No,
            };
            if evicted == Evicted::Yes {
                break;
            }
        }
        if self.room.is_empty() {
            self.room.look_again = self.room.looked + LOOK_LEAST;
        }
    }

    /// Admits this one and those that wait behind it, up to a number: in a crowd the turns of the worker's loop are not for one alone.
    async fn admit_at_hand(&mut self, first: Accepted<L::Io>) -> Admitted {
        let mut admitted = self.admit(first);
        for _ in 1..ACCEPTS_AT_ONCE {
            if admitted == Admitted::No || self.crew.side.is_full() {
                break;
            }
            let Some(next) = self.listeners.accept_if_any().await else { break };
            admitted = self.admit(next);
        }
        admitted
    }

    fn quiesce(&mut self) {
        for socket in &mut self.listeners.sockets {
            match socket.listener.quiesce() {
                Backlog::Sealed => {}
                Backlog::Open(reason) => {
                    let reason = reason.map_or_else(|| "not supported".to_owned(), |error| error.to_string());
                    crate::log::warn!(
                        address = %socket.local,
                        reason,
                        "newcomers cannot be kept out while the queue is emptied; a few may be refused late"
                    );
                }
                Backlog::Inherited => socket.queue = Queue::Successors,
            }
        }
        self.listeners.sockets.retain(|socket| socket.queue == Queue::Ours);
    }

    /// Accepts what the kernel completed, then closes. It never waits for what has run out: meanwhile the sweep must go on, or those
    /// that only time can end would keep their descriptors.
    async fn empty_backlogs(&mut self) -> Accepting {
        while let Some(accepted) = self.listeners.accept_if_any().await {
            if self.admit(accepted) == Admitted::No {
                if self.crew.side.is_aborting() {
                    break;
                }
                return Accepting::Emptying;
            }
        }
        self.listeners.close();
        self.crew.close();
        Accepting::Never
    }

    /// A berth keeps the memory of its task: in a crowd of those that come, are answered and go on waiting without one, the next
    /// sweep is far away.
    fn tidy(&mut self) {
        if self.berths.len() > 2 * self.crew.tasks.len() + BERTHS_LEFT_MAX {
            self.berths.retain(|berth| !berth.has_left());
        }
    }

    fn wake_all(&mut self, deep: &mut Deep<L::Lot, S>) {
        self.crew.sweep_by(deep.sweep(self.crew.side.clock.now()));
        self.berths.retain(|berth| !berth.has_left());
        for berth in &self.berths {
            berth.wake();
        }
    }

    /// Wakes who is due; when to do so again.
    fn sweep(&mut self, pace: Pace, deep: &mut Deep<L::Lot, S>) -> Moment {
        self.crew.beats.fetch_add(1, Ordering::Relaxed);
        self.berths.retain(|berth| !berth.has_left());
        let now = self.crew.side.clock.now();
        let sleepers = deep.sweep(now);
        if pace == Pace::Even {
            for berth in &self.berths {
                berth.wake_if_due(now);
            }
            return now + SWEEP;
        }
        self.crew.begin_sweep();
        let first = self.berths.iter().map(|berth| berth.wake_if_due(now)).min();
        self.crew.end_sweep(first.unwrap_or(Moment::NEVER).min(sleepers).min(now + SWEEP_STOPPING));
        self.swept = now;
        self.next_sweep()
    }

    fn next_sweep(&self) -> Moment {
        self.crew.sweep_at().max(self.swept + SWEEP_LEAST)
    }
}

/// The connections of this worker that make room, once the connection limit is reached.
#[derive(Default)]
struct Room {
    order: Vec<(Idle, Place)>,
    looked: Moment,
    /// When to look for others.
    look_again: Moment,
}

enum Place {
    Task(Arc<Berth>),
    IdleSet(usize),
}

impl Room {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

/// A failed accept says something about one connection that is gone already, or about us.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted)
}

/// A worker's listeners. Each in turn may go first, so that a flood on one does not starve another.
struct Listeners<L> {
    sockets: Vec<Socket<L>>,
    first: usize,
}

struct Socket<L> {
    listener: L,
    local: Arc<Address>,
    queue: Queue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Queue {
    Ours,
    Successors,
}

struct Accepted<T> {
    result: io::Result<(T, Address)>,
    local: Arc<Address>,
}

impl<L: Listener> Listeners<L> {
    fn new(listeners: Vec<L>) -> Self {
        let sockets = listeners
            .into_iter()
            .map(|listener| Socket { local: Arc::new(listener.local()), listener, queue: Queue::Ours })
            .collect();
        Self { sockets, first: 0 }
    }

    /// The next connection of any, or `None` if none waits.
    async fn accept_if_any(&mut self) -> Option<Accepted<L::Io>> {
        poll_fn(|cx| match self.poll_accept(cx) {
            Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    fn poll_accept(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Accepted<L::Io>> {
        let count = self.sockets.len();
        for n in 0..count {
            let index = (self.first + n) % count;
            let socket = &mut self.sockets[index];
            if let Poll::Ready(result) = socket.listener.poll_accept(cx) {
                self.first = (index + 1) % count;
                return Poll::Ready(Accepted { result, local: socket.local.clone() });
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
