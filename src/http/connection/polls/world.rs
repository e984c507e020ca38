//! One connection over a scripted transport, polled by the test.

use super::{
    clock::ManualClock,
    routes::Routes,
    script::{End, Script, Wire, lock, script},
};
use crate::http::{
    connection::{idle_handoff::IdleHandoff, task::Connection, worker_context::WorkerContext},
    server::{
        announcement::Announcement,
        connection_slot::ConnectionSlot,
        idle_policy::{Awaited, EvictionGrace},
        limits::Limits,
        outcome::{EndedRequest, OutcomeObserver},
        server_metrics::{ConnectionStats, RequestStats},
        state::{CloseRaces, ServerConfig, ServerState},
        worker_runtime::WorkerRuntime,
    },
};
use crate::{
    lifecycle::Phase,
    runtime::{Address, Clock, Seed},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
    time::Duration,
};
use tokio::task::{JoinSet, yield_now};
use tokio_test::task::Spawn;

/// The phases of the table, and the abort and the cut, which are not phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Serving,
    LameDuck,
    Draining,
    Cancelling,
    Abort,
    Cut,
}

impl Stage {
    pub(super) const ALL: [Self; 6] =
        [Self::Serving, Self::LameDuck, Self::Draining, Self::Cancelling, Self::Abort, Self::Cut];
}

/// A worker of a server that serves.
pub(super) fn worker_context(clock: &Arc<ManualClock>) -> Arc<WorkerContext<Routes>> {
    worker_with(clock, Limits::default(), EvictionGrace::MAIN, Routes::default(), None)
}

pub(super) fn worker_with(
    clock: &Arc<ManualClock>,
    limits: Limits,
    eviction_grace: EvictionGrace,
    routes: Routes,
    outcome_observer: Option<OutcomeObserver>,
) -> Arc<WorkerContext<Routes>> {
    let config = ServerConfig {
        app_version: "1".into(),
        request_timeout: Some(Duration::from_secs(5)),
        lame_duck: Duration::from_secs(3),
        streams: Duration::ZERO,
        limits,
        close_races: CloseRaces::Counted,
        eviction_grace,
        seed: Seed(1),
        outcome_observer,
        process: None,
    };
    let server = Arc::new(ServerState::new(clock.clone(), config));
    server.publish(Phase::Serving, clock.now());
    let heartbeat = Arc::<AtomicU64>::default();
    Arc::new(WorkerContext::new(server, Arc::new(routes), heartbeat, WorkerRuntime::of_tasks()))
}

/// One connection, and all that the test does to it.
pub(super) struct World {
    clock: Arc<ManualClock>,
    server: Arc<ServerState>,
    worker: Arc<WorkerContext<Routes>>,
    slot: Arc<ConnectionSlot>,
    task: Option<Spawn<Connection<Script, Routes>>>,
    wire: Arc<Mutex<Wire>>,
    routes: Routes,
    stage: Stage,
    observed: Observed,
    _timers: JoinSet<()>,
}

/// The status and the bytes of the body of each ended request, as the app's observer gets them.
type Observed = Arc<Mutex<Vec<(Option<u16>, u64)>>>;

/// All that a poll may change.
type Fingerprint = (usize, usize, usize, bool, End, RequestStats, ConnectionStats);

impl World {
    /// Accepts a connection while serving.
    pub(super) fn new() -> Self {
        Self::with_limits(Limits::default().keep_alive(Duration::from_secs(50)))
    }

    /// Like [`Self::new`], with these limits.
    pub(super) fn with_limits(limits: Limits) -> Self {
        Self::with(limits, EvictionGrace::MAIN)
    }

    /// Accepts a connection of the internal server, on which busy connections make room, too.
    pub(super) fn internal() -> Self {
        Self::with(Limits::default(), EvictionGrace::INTERNAL)
    }

    /// Accepts a connection that begins with a PROXY header of `header` bytes.
    pub(super) fn with_header(header: usize) -> Self {
        Self::with_script(Limits::default(), EvictionGrace::MAIN, header)
    }

    fn with(limits: Limits, eviction_grace: EvictionGrace) -> Self {
        Self::with_script(limits, eviction_grace, 0)
    }

    fn with_script(limits: Limits, eviction_grace: EvictionGrace, header: usize) -> Self {
        let clock = Arc::new(ManualClock::new());
        let routes = Routes::default();
        let observed = Observed::default();
        let seen = observed.clone();
        let observer = OutcomeObserver::new(move |request: &EndedRequest<'_>| {
            let status = request.status.map(|status| status.as_u16());
            lock(&seen).push((status, request.body_bytes));
        });
        let worker = worker_with(&clock, limits, eviction_grace, routes.clone(), Some(observer));
        let server = worker.shared.server.clone();
        let mut timers = JoinSet::new();
        timers.spawn(watch_deadlines(worker.clone()));
        let slot = Arc::new(ConnectionSlot::new(
            clock.now(),
            Address::Unix(None),
            Arc::new(Address::Unix(None)),
            Announcement::OPENED_BEFORE,
        ));
        let (io, wire) = script();
        lock(&wire).header = header;
        let handoff = Arc::new(IdleHandoff::new(false));
        let connection = Connection::new(worker.clone(), slot.clone(), handoff, io);
        let task = Some(tokio_test::task::spawn(connection));
        let (stage, _timers) = (Stage::Serving, timers);
        Self { clock, server, worker, slot, task, wire, routes, stage, observed, _timers }
    }

    pub(super) fn wire(&self) -> MutexGuard<'_, Wire> {
        lock(&self.wire)
    }

    /// Polls the connection for the first time.
    pub(super) async fn start(&mut self) {
        self.poll();
        self.settle().await;
    }

    /// The client sends bytes, and the connection handles them.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.wire().send(bytes);
        self.settle().await;
    }

    /// Time passes, and the client sends bytes before the worker sweeps.
    pub(super) async fn send_after(&mut self, span: Duration, bytes: &[u8]) {
        self.clock.advance(span);
        self.send(bytes).await;
    }

    pub(super) fn release_handler(&self) {
        self.routes.release();
    }

    /// Releases the handler. While it or its body is polled, another thread aborts all requests.
    pub(super) async fn abort_meanwhile(&mut self) {
        let server = self.server.clone();
        self.release_meanwhile(move || server.abort()).await;
    }

    /// Releases the handler. While it or its body is polled, this time passes.
    pub(super) async fn pass_meanwhile(&mut self, span: Duration) {
        let clock = self.clock.clone();
        self.release_meanwhile(move || clock.advance(span)).await;
    }

    /// Releases the handler. While it is polled, another thread chooses the connection to make
    /// room.
    pub(super) async fn evict_meanwhile(&mut self) {
        let slot = self.slot.clone();
        self.release_meanwhile(move || slot.evict()).await;
    }

    /// Ordinary requests are aborted, and connections without a long stream are cut.
    pub(super) async fn cut_requests(&mut self) {
        self.server.abort_requests();
        self.slot.wake();
        self.settle().await;
        self.server.cut_requests();
        self.slot.wake();
        self.settle().await;
    }

    async fn release_meanwhile(&mut self, action: impl FnOnce() + Send + 'static) {
        self.routes.release_with(action);
        self.settle().await;
    }

    /// Chooses the connection to make room, after it was idle for long enough.
    pub(super) fn evict(&self) {
        self.clock.advance(Duration::from_millis(300));
        self.slot.evict();
    }

    /// Whether another connection is to make room in place of this one.
    pub(super) fn is_another_to_make_room(&self) -> bool {
        self.server.capacity.take_request(|| 1)
    }

    /// Whether the connection may make room for another.
    pub(super) fn is_idle(&self) -> bool {
        self.slot.idle().is_some()
    }

    /// What the connection waits for, if it may make room for another.
    pub(super) fn awaited(&self) -> Option<Awaited> {
        self.slot.evictable().map(|idle| idle.awaited)
    }

    /// The path of the request with which the worker is busy.
    pub(super) fn running(&self) -> Option<String> {
        self.worker.shared.metrics.running().map(|request| request.path)
    }

    pub(super) fn is_woken(&self) -> bool {
        self.task.as_ref().is_some_and(Spawn::is_woken)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_none()
    }

    pub(super) fn requests(&self) -> RequestStats {
        self.server.metrics.requests()
    }

    pub(super) fn connections(&self) -> ConnectionStats {
        self.server.metrics.connections()
    }

    pub(super) fn observed(&self) -> Vec<(Option<u16>, u64)> {
        lock(&self.observed).clone()
    }

    /// What the task has read that reads a request body after the response, once it has ended.
    pub(super) fn uploaded(&self) -> Option<Result<usize, usize>> {
        self.routes.uploaded()
    }

    fn poll(&mut self) {
        if let Some(task) = &mut self.task
            && task.poll().is_ready()
        {
            self.task = None;
        }
    }

    /// Polls the connection as long as it is woken. It must come to rest.
    pub(super) async fn settle(&mut self) {
        for _ in 0..200 {
            // The streams of HTTP/2 are tasks of the runtime.
            for _ in 0..8 {
                yield_now().await;
            }
            if !self.is_woken() {
                return;
            }
            self.poll();
        }
        panic!("the connection is woken for ever: {}", self.text());
    }

    /// Polls the connection although it was not woken. If that changes anything, a wake-up was
    /// lost. Each poll of a cut counts, so there it is left out.
    pub(super) async fn nothing_was_left(&mut self, place: &str) {
        if self.stage == Stage::Cut {
            return;
        }
        let before = self.fingerprint();
        self.poll();
        self.settle().await;
        let after = self.fingerprint();
        assert_eq!(before, after, "a wake-up was lost: {place}: {}", self.text());
    }

    fn fingerprint(&self) -> Fingerprint {
        let wire = self.wire();
        (
            wire.written.len(),
            wire.unread(),
            wire.calls,
            wire.shut,
            wire.how_it_ended(),
            self.requests(),
            self.connections(),
        )
    }

    /// Goes forward to a stage, and through all between, as a worker does.
    pub(super) async fn enter(&mut self, stage: Stage) {
        for next in Stage::ALL {
            if self.stage < next && next <= stage {
                self.stage = next;
                let now = self.server.clock.now();
                match next {
                    Stage::Serving => {}
                    Stage::LameDuck => self.server.publish(Phase::LameDuck, now),
                    Stage::Draining => self.server.publish(Phase::Draining, now),
                    Stage::Cancelling => {
                        self.server.publish(Phase::Cancelling, now);
                        self.server.cancel_root();
                    }
                    Stage::Abort => self.server.abort(),
                    Stage::Cut => self.server.cut(),
                }
                self.slot.wake();
                self.settle().await;
            }
        }
    }

    /// The drain begins. Before each poll the thread is blocked for a time.
    pub(super) async fn drain_with_pauses(&mut self, pause: Duration) {
        self.stage = Stage::Draining;
        self.server.publish(Phase::Draining, self.server.clock.now());
        self.slot.wake();
        while self.is_woken() {
            self.clock.advance(pause);
            self.poll();
            yield_now().await;
        }
    }

    /// The cut follows the abort before the connection was polled.
    pub(super) async fn abort_and_cut(&mut self) {
        self.enter(Stage::Cancelling).await;
        self.server.abort();
        self.server.cut();
        self.stage = Stage::Cut;
        self.slot.wake();
        self.poll();
        self.settle().await;
    }

    /// Time passes, and the worker sweeps each second.
    pub(super) async fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.pass(Duration::from_secs(1)).await;
        }
    }

    /// Like [`Self::flood`]. At each poll the client has just sent a frame that requests nothing.
    pub(super) async fn tease(&mut self, span: Duration) {
        self.flood_by(span, |wire| wire.teases = 1).await;
    }

    /// Time passes in small steps, in each of which the connection is polled a few times: what its
    /// client sends wakes it for ever.
    pub(super) async fn flood(&mut self, span: Duration) {
        self.flood_by(span, |_| ()).await;
    }

    async fn flood_by(&mut self, span: Duration, before_poll: impl Fn(&mut Wire)) {
        const STEPS: u32 = 50;
        for _ in 0..STEPS {
            self.clock.advance(span / STEPS);
            self.slot.wake_if_due(self.server.clock.now());
            for _ in 0..4 {
                before_poll(&mut self.wire());
                yield_now().await;
                if self.is_woken() {
                    self.poll();
                }
            }
        }
    }

    /// Time passes, and the worker sweeps at its end.
    pub(super) async fn pass(&mut self, span: Duration) {
        self.clock.advance(span);
        self.slot.wake_if_due(self.server.clock.now());
        self.settle().await;
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.wire().written).into_owned()
    }
}

/// Fires the deadlines of handlers, as a worker does.
async fn watch_deadlines(worker: Arc<WorkerContext<Routes>>) {
    let server = worker.server();
    worker.shared.deadlines.watch(&*server.clock, &server.tokens).await;
}
