//! The loop of a worker: one method per event.

use super::{
    command::WorkerCommand,
    eviction::EvictionQueue,
    handshake_wait::{Done, HandshakeWait, SealBarrier, WorkerSeal},
    listeners::{AcceptedSocket, Listeners, concerns_one_connection},
};
use crate::http::{
    connection::{
        idle_handoff::IdleHandoff,
        idle_set::{Evicted, IdleSet},
        task::Connection,
        worker_context::WorkerContext,
    },
    exchange::http_service::HttpService,
    server::{connection_slot::ConnectionSlot, state::ServerState},
};
use crate::{
    lifecycle::{Moment, Phase},
    runtime::{Listener, Sleep},
};
use std::{
    future::poll_fn,
    mem,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};
use tokio::{sync::mpsc, task::yield_now};

/// The pause after an accept that failed because the process has no descriptor or no memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// The time between two sweeps while serving.
const SWEEP: Duration = Duration::from_millis(250);
/// The longest time between two sweeps once a stop was requested.
const SWEEP_STOPPING: Duration = Duration::from_millis(100);
/// The shortest one: it prevents a busy loop when a connection sets a deadline in the past.
const SWEEP_STOPPING_LEAST: Duration = Duration::from_millis(1);

/// A worker's connections, its listeners, and what it waits for.
pub(super) struct Worker<L: Listener, S: HttpService> {
    context: Arc<WorkerContext<S>>,
    listeners: Listeners<L>,
    // After the listeners: its drop counts as their seal.
    seal: WorkerSeal,
    accepting: Accepting,
    /// The result of the last accept, so that a lack of descriptors is logged when it begins only.
    last_accept: Accepted,
    slots: Vec<Arc<ConnectionSlot>>,
    idle_set: IdleSet<L::IdlePoller, S>,
    idle_handoff: Arc<IdleHandoff<L::Io>>,
    evictable: EvictionQueue,
    handshake_wait: Option<HandshakeWait>,
    sweep_mode: SweepMode,
    /// The last sweep since the stop request.
    swept: Moment,
    sweep: Timer,
    accept_pause: Timer,
    next_search: Timer,
}

type Timer = Pin<Box<dyn Sleep>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepting {
    Yes,
    /// An accept failed for lack of resources.
    Paused,
    /// The listeners are to be closed once their queues are empty, and an accept failed for lack of
    /// resources.
    Emptying,
    /// The listeners are closed.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Accepted {
    Yes,
    OutOfResources,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SweepMode {
    /// While serving: every 250 ms.
    Periodic,
    /// Once a stop was requested: at the first deadline of a connection, since the exit may wait
    /// for it (P8).
    OnDemand,
}

enum Event<T> {
    Command(Option<WorkerCommand>),
    SweepDue,
    SweepChanged,
    HandshakeCheckDue,
    AcceptPauseOver,
    CapacityChanged,
    SearchDue,
    ConnectionsIdle,
    Accepted(AcceptedSocket<T>),
    IdleSetReady,
    ExpiredLeft,
    NothingLeft,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl<L: Listener, S: HttpService> Worker<L, S> {
    pub(super) fn new(
        context: Arc<WorkerContext<S>>,
        listeners: Vec<L>,
        seal_barrier: Arc<SealBarrier>,
    ) -> Self {
        let clock = context.server().clock.clone();
        let now = clock.now();
        let poller = listeners.iter().find_map(Listener::idle_poller);
        let idle_set = IdleSet::new(context.clone(), poller);
        Self {
            context,
            listeners: Listeners::new(listeners),
            seal: WorkerSeal::new(seal_barrier),
            accepting: Accepting::Yes,
            last_accept: Accepted::Yes,
            slots: Vec::new(),
            idle_handoff: idle_set.handoff().clone(),
            idle_set,
            evictable: EvictionQueue::default(),
            handshake_wait: None,
            sweep_mode: SweepMode::Periodic,
            swept: Moment::EPOCH,
            sweep: clock.sleep_until(now + SWEEP),
            accept_pause: clock.sleep_until(now),
            next_search: clock.sleep_until(now),
        }
    }

    /// Runs until the listeners are closed and the last connection and all tracked work are gone.
    pub(super) async fn run(mut self, commands: &mut mpsc::UnboundedReceiver<WorkerCommand>) {
        loop {
            let is_full = self.prepare();
            let event = self.next_event(commands, is_full).await;
            if self.on_event(event).await == Flow::Stop {
                return;
            }
        }
    }

    /// Does what precedes each wait. Returns whether the server is at its connection limit.
    fn prepare(&mut self) -> bool {
        // The last periodic sweep set the timer up to 250 ms ahead, which is too late during a
        // stop.
        if self.sweep_mode == SweepMode::Periodic && self.server().phase() >= Phase::LameDuck {
            self.sweep_mode = SweepMode::OnDemand;
            self.on_sweep();
        }
        let is_full = self.server().is_full();
        let makes_room = is_full && self.accepting == Accepting::Yes;
        if makes_room {
            self.drain_idle_handoff();
        }
        self.slots.extend(self.idle_set.drain_resumed());
        self.compact_slots();
        if makes_room {
            self.context.capacity.wait();
            self.evictable.search(self.context.server(), &self.slots, &self.idle_set);
            self.evict_requested();
            self.next_search.as_mut().reset(self.evictable.next_search());
        } else {
            self.evictable = EvictionQueue::default();
        }
        self.context.capacity.set_evictable(self.evictable.len());
        is_full
    }

    /// Evicts connections in place of others: those of workers that had none to evict, and those
    /// that were chosen and stay.
    fn evict_requested(&mut self) {
        let context = self.context.clone();
        let server = context.server();
        let capacity = &server.capacity;
        while !self.evictable.is_empty() && capacity.take_request(|| server.connections_in_excess())
        {
            if self.evictable.evict_one(&mut self.idle_set) == Evicted::No {
                capacity.request_eviction();
            }
        }
    }

    /// Cancel safe: an accepted connection is returned by the poll that accepted it.
    async fn next_event(
        &mut self,
        commands: &mut mpsc::UnboundedReceiver<WorkerCommand>,
        is_full: bool,
    ) -> Event<L::Io> {
        let Self { context, listeners, idle_set, evictable, accepting, .. } = self;
        let accepting = *accepting;
        let may_accept = || {
            let server = context.server();
            let makes_room = || !evictable.is_empty() || server.capacity.has_evictable();
            !server.is_full() || !server.is_over_full() && makes_room()
        };
        let restored = poll_fn(|_| {
            context.restore_runtime();
            Poll::Pending
        });
        tokio::select! {
            biased;
            // Never ready: before each poll of the others.
            () = restored => Event::SweepChanged,
            command = commands.recv() => Event::Command(command),
            () = self.sweep.as_mut() => Event::SweepDue,
            () = context.sweep_changed() => Event::SweepChanged,
            () = HandshakeWait::is_due(self.handshake_wait.as_mut()) => Event::HandshakeCheckDue,
            () = self.accept_pause.as_mut(),
                if matches!(accepting, Accepting::Paused | Accepting::Emptying) =>
            {
                Event::AcceptPauseOver
            }
            () = context.capacity.changed(), if is_full => Event::CapacityChanged,
            () = self.next_search.as_mut(),
                if is_full && accepting == Accepting::Yes && evictable.is_empty() =>
            {
                Event::SearchDue
            }
            () = self.idle_handoff.ready() => Event::ConnectionsIdle,
            // Another worker may reach the connection limit in the meantime. The next sweep
            // notices.
            accepted = poll_fn(|cx| {
                if may_accept() { listeners.poll_accept(cx) } else { Poll::Pending }
            }), if accepting == Accepting::Yes && may_accept() => Event::Accepted(accepted),
            () = idle_set.ready() => Event::IdleSetReady,
            () = yield_now(), if idle_set.has_more_expired() => Event::ExpiredLeft,
            () = nothing_left(context),
                if accepting == Accepting::Closed && idle_set.is_empty() => Event::NothingLeft,
        }
    }

    async fn on_event(&mut self, event: Event<L::Io>) -> Flow {
        match event {
            Event::Command(command) => return self.on_command(command).await,
            Event::SweepDue => self.on_sweep(),
            Event::SweepChanged => {
                let next = self.next_sweep();
                self.sweep.as_mut().reset(next);
            }
            Event::HandshakeCheckDue => self.on_handshake_check().await,
            Event::AcceptPauseOver => self.on_accept_pause_over().await,
            Event::CapacityChanged | Event::SearchDue => {}
            Event::ConnectionsIdle => self.drain_idle_handoff(),
            Event::Accepted(accepted) => self.on_accepted(accepted).await,
            Event::IdleSetReady => {
                self.idle_set.serve().await;
                // Connections with a task must have a turn, too.
                yield_now().await;
            }
            Event::ExpiredLeft => {
                let next = self.idle_set.handle_expired(self.server().clock.now());
                self.context.schedule_sweep(next);
            }
            Event::NothingLeft => return Flow::Stop,
        }
        Flow::Continue
    }

    async fn on_command(&mut self, command: Option<WorkerCommand>) -> Flow {
        match command {
            // A new phase may end the wait for handshakes.
            Some(WorkerCommand::Wake) if self.server().phase() > Phase::Draining => {
                self.on_handshake_check().await;
            }
            Some(WorkerCommand::Wake) => {}
            Some(WorkerCommand::Quiesce) => {
                self.listeners.leave_inherited();
                let is_port_shared = self.listeners.have_shared_port();
                self.listeners.quiesce();
                self.seal.set();
                let clock = self.server().clock.clone();
                self.handshake_wait = Some(HandshakeWait::new(clock, &self.seal, is_port_shared));
            }
            Some(WorkerCommand::Close) => {
                self.listeners.leave_inherited();
                self.empty_backlogs().await;
            }
            Some(WorkerCommand::Abort) | None => self.close_listeners(),
        }
        self.wake_all();
        // Without a sender the host is gone, and nothing can end this worker later.
        if command.is_none() { Flow::Stop } else { Flow::Continue }
    }

    /// Moves connections into the idle set. The list of those that may make room has them where
    /// they were, and would pass over them, so it is made again.
    fn drain_idle_handoff(&mut self) {
        if self.idle_set.drain_handoff() {
            self.evictable.forget();
        }
    }

    async fn on_handshake_check(&mut self) {
        let Some(wait) = &mut self.handshake_wait else { return };
        let phase = self.context.server().phase();
        if wait.check(phase, self.listeners.handshakes()) == Done::Yes {
            self.handshake_wait = None;
            self.empty_backlogs().await;
        }
    }

    async fn on_accept_pause_over(&mut self) {
        if self.accepting == Accepting::Paused {
            self.accepting = Accepting::Yes;
        } else {
            self.empty_backlogs().await;
        }
    }

    async fn on_accepted(&mut self, accepted: AcceptedSocket<L::Io>) {
        let is_new = accepted.result.is_ok();
        let needs_room = is_new && self.server().is_full();
        let has_evicted =
            needs_room && self.evictable.evict_one(&mut self.idle_set) == Evicted::Yes;
        if self.accept_batch(accepted).await == Accepted::OutOfResources {
            self.free_descriptor();
            self.pause_accepting(Accepting::Paused);
        }
        let excess = self.server().connections_in_excess();
        if needs_room && !has_evicted {
            self.server().capacity.request_eviction();
        } else if is_new && !needs_room && excess > 0 {
            // Other workers have reached the limit since it was queried.
            self.server().capacity.request_evictions(excess);
        }
        // A burst of new connections must neither starve existing ones nor pile up unpolled.
        self.idle_set.serve_ready_now().await;
        if self.context.has_many_tasks() {
            yield_now().await;
        }
    }

    /// On the internal server, evicts a connection although the limit is not reached: strangers may
    /// hold all descriptors of the process, and a probe needs one (P16).
    fn free_descriptor(&mut self) {
        if self.server().evicts_busy() {
            self.drain_idle_handoff();
            self.evictable.search(self.context.server(), &self.slots, &self.idle_set);
            let _ = self.evictable.evict_one(&mut self.idle_set);
        }
    }

    /// Accepts connections that are ready, up to a limit.
    async fn accept_batch(&mut self, first: AcceptedSocket<L::Io>) -> Accepted {
        let mut accepted = self.register(first);
        let batch = self.server().caps().accept_batch;
        for count in 1.. {
            if batch.is_reached_by(count) {
                break;
            }
            if accepted == Accepted::OutOfResources || self.server().is_full() {
                break;
            }
            let Some(next) = self.listeners.accept_ready().await else { break };
            accepted = self.register(next);
        }
        accepted
    }

    /// Adds a connection to the table, then spawns it, so that a shutdown always finds it in the
    /// table.
    fn register(&mut self, accepted: AcceptedSocket<L::Io>) -> Accepted {
        let before = mem::replace(&mut self.last_accept, Accepted::Yes);
        let context = &self.context;
        match accepted.result {
            Ok((io, peer)) => {
                let now = context.server().clock.now();
                let announcement =
                    context.server().announcement(now, || context.next_connection_id());
                let slot = Arc::new(ConnectionSlot::new(now, peer, accepted.local, announcement));
                self.slots.push(slot.clone());
                let handoff = self.idle_handoff.clone();
                context.spawn(Connection::new(context.clone(), slot, handoff, io));
                Accepted::Yes
            }
            Err(error) if concerns_one_connection(&error) => Accepted::Yes,
            Err(error) => {
                let is_first = before == Accepted::Yes;
                context.server().note_accept_error(&accepted.local, &error, is_first);
                self.last_accept = Accepted::OutOfResources;
                Accepted::OutOfResources
            }
        }
    }

    /// Accepts all connections that the kernel completed, then closes the listeners. It does not
    /// wait for resources: the sweep must continue, since connections that only a timer closes hold
    /// descriptors.
    async fn empty_backlogs(&mut self) {
        while let Some(accepted) = self.listeners.accept_ready().await {
            if self.register(accepted) == Accepted::OutOfResources {
                if self.server().is_aborting() {
                    break;
                }
                return self.pause_accepting(Accepting::Emptying);
            }
        }
        self.close_listeners();
    }

    fn pause_accepting(&mut self, accepting: Accepting) {
        self.accepting = accepting;
        let until = self.server().clock.now() + ACCEPT_PAUSE;
        self.accept_pause.as_mut().reset(until);
    }

    fn close_listeners(&mut self) {
        self.listeners.close();
        self.context.close_trackers();
        self.accepting = Accepting::Closed;
    }

    /// Removes stale slots, since a slot keeps the memory of its task. Between two sweeps many
    /// connections may be accepted, be served, and move into the idle set.
    fn compact_slots(&mut self) {
        let stale = self.slots.len().saturating_sub(2 * self.context.connection_tasks.len());
        if self.server().caps().stale_slots_max.is_exceeded_by(stale) {
            self.slots.retain(|slot| !slot.is_closed());
        }
    }

    fn wake_all(&mut self) {
        let next = self.idle_set.sweep(self.server().clock.now());
        self.context.schedule_sweep(next);
        self.slots.retain(|slot| !slot.is_closed());
        for slot in &self.slots {
            slot.wake();
        }
    }

    /// Wakes the connections whose deadlines have expired, and arranges the next sweep.
    fn on_sweep(&mut self) {
        self.context.shared.metrics.heartbeat.fetch_add(1, Ordering::Relaxed);
        self.slots.retain(|slot| !slot.is_closed());
        let now = self.server().clock.now();
        let idle_next = self.idle_set.sweep(now);
        if self.sweep_mode == SweepMode::Periodic {
            for slot in &self.slots {
                slot.wake_if_due(now);
            }
            return self.sweep.as_mut().reset(now + SWEEP);
        }
        self.context.begin_sweep();
        let first = self.slots.iter().map(|slot| slot.wake_if_due(now)).min();
        let next = first.unwrap_or(Moment::NEVER).min(idle_next).min(now + SWEEP_STOPPING);
        self.context.end_sweep(next);
        self.swept = now;
        let next = self.next_sweep();
        self.sweep.as_mut().reset(next);
    }

    fn next_sweep(&self) -> Moment {
        self.context.sweep_at().max(self.swept + SWEEP_STOPPING_LEAST)
    }

    fn server(&self) -> &ServerState {
        self.context.server()
    }
}

/// Ready when the last connection is gone, and then the work that handlers spawned (P10).
async fn nothing_left<S: HttpService>(context: &WorkerContext<S>) {
    context.connection_tasks.wait().await;
    // Work that handlers of other workers spawned counts, too, so a worker may stay a little longer
    // than it must. The order matters: without a connection, only work can spawn more work here.
    context.server().tracked_work.wait().await;
}
