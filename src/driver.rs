//! The driver: it tells the machine what happens, and performs what the machine asks. It decides nothing.
//!
//! One task, one `select!`, one reading of the clock a turn. A turn is: wait for a fact or a deadline; let deadlines that have
//! passed act first; then the fact; then perform every action. Everything spawned is owned here, by [`Guests`] or by a side's
//! `TaskTracker`, so that "done" is a fact of ownership.

#[cfg(feature = "metrics")]
use crate::internal::Metrics;
use crate::{
    background::TaskContext,
    env::{Audience, Clock, Env, JobEnd, Network, Reservation, Room, Rooms, SignalSource},
    guests::Guests,
    hook::{BoxFuture, HookEnd, HookState, run_start, run_stop, unwind},
    host::{Bound, Parts},
    http::{
        ConnectionTally, Crew, HttpService, Limits, Order, RequestTally, Sealing, Side, SideConfig, WhenFull, millis, work,
    },
    internal::{Board, Heartbeats, InternalService, watch},
    lifecycle::{
        Action, Event, GiveUp, HookBudget, HookIndex, HookResult, HookVerdict, Lifecycle, Moment, Outcome, Phase, Signal,
        StopReason, Verdict,
    },
    report::{Report, ReportVerdict, hook_end},
};
use std::{
    future::{Future, pending},
    io,
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Lives a life, in a given world.
pub(crate) async fn run<S, N, G, R>(service: S, parts: Parts, env: Env<N, G, R>) -> Report
where
    S: HttpService,
    N: Network,
    G: SignalSource,
    R: Rooms,
{
    let began = env.clock.now();
    let worst_case = parts.settings.plan.worst_case();
    let budgets: Vec<HookBudget> = parts.hooks.iter().map(|hook| hook.budget).collect();
    let life = match parts.settings.check().and_then(|()| Lifecycle::new(parts.settings.plan, &budgets, began)) {
        Ok(life) => life,
        Err(error) => return bad_plan(error.to_string(), worst_case),
    };
    let reserved = match reserve(&parts, &env) {
        Ok(reserved) => reserved,
        Err(error) => return stillborn(Verdict::Failed, error, worst_case),
    };
    match Driver::new(life, service, parts, env, reserved).await {
        Ok(driver) => driver.live().await,
        Err(error) => stillborn(Verdict::Failed, error, worst_case),
    }
}

/// A life that could not begin. Whoever asked for it says so: there is no log line here, since there is one line to say.
pub(crate) fn stillborn(verdict: Verdict, error: String, worst_case: Duration) -> Report {
    Report { verdict: ReportVerdict::Lived(verdict), ..bad_plan(error, worst_case) }
}

/// A life that was not even tried.
pub(crate) fn bad_plan(error: String, worst_case: Duration) -> Report {
    Report {
        verdict: ReportVerdict::BadPlan,
        reason: None,
        error: Some(error),
        phases: Vec::new(),
        shutdown: Duration::ZERO,
        worst_case,
        requests: RequestTally::default(),
        connections: ConnectionTally::default(),
        aborts: Vec::new(),
        work_dropped: 0,
        hooks: Vec::new(),
    }
}

/// Ports that are ours and do not listen yet.
struct Reserved<N: Network> {
    main: Vec<N::Reservation>,
    internal: N::Reservation,
}

fn reserve<N: Network, G, R: Rooms>(parts: &Parts, env: &Env<N, G, R>) -> Result<Reserved<N>, String> {
    let settings = &parts.settings;
    if settings.main_addresses.is_empty() {
        return Err("no main address is set (--addr, --port, APP_ADDR, APP_PORT)".to_owned());
    }
    let workers = env.rooms.workers().get();
    let main = settings
        .main_addresses
        .iter()
        .map(|address| {
            env.network.reserve(address, Audience::World, workers).map_err(|error| {
                format!("cannot bind the main address {address} (--addr, --port, APP_ADDR, APP_PORT): {error}")
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let address = &settings.internal_address;
    let internal = env.network.reserve(address, Audience::Operators, 1).map_err(|error| {
        format!(
            "cannot bind the internal address {address} (--internal-addr, --internal-port, INTERNAL_ADDR, INTERNAL_PORT): \
             {error}"
        )
    })?;
    Ok(Reserved { main, internal })
}

/// What a turn of the driver begins with.
enum Wake<L> {
    /// A deadline has come.
    Time,
    Signal(Signal),
    StopAsked,
    HookEnded(Half, HookIndex, Option<HookEnd>),
    Listening(Result<Vec<Vec<L>>, String>),
    BackgroundEnded(String, Result<(), String>),
    MainEmpty,
    InternalClosed,
}

impl<L> Wake<L> {
    /// Whether the start is further than the machine knows.
    const fn is_deed(&self) -> bool {
        matches!(self, Self::HookEnded(Half::Start, ..) | Self::Listening(_))
    }

    /// Whether it would end a start that is under way.
    const fn ends_the_start(&self) -> bool {
        matches!(self, Self::Time | Self::Signal(_) | Self::StopAsked)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Start,
    Stop,
}

/// The listeners of each address, one a worker.
type Listeners<N> = Vec<Vec<<N as Network>::Listener>>;

/// How a hook's task ended: `None` if it was given up.
type HookTask = (Half, HookIndex, Option<HookEnd>);

struct Driver<S, N: Network, G, R> {
    /// Dropped first: a driver that is dropped before its life is over takes everything with it.
    _guard: CutOnDrop,
    life: Lifecycle,
    clock: Arc<dyn Clock>,
    signals: G,
    rooms: R,
    parts: Parts,
    main: Arc<Side>,
    internal: Arc<Side>,
    board: Arc<Board>,
    heartbeats: Arc<Heartbeats>,
    service: Arc<S>,
    /// Until they listen, or are given up.
    reservations: Vec<N::Reservation>,
    hooks: Vec<Slot>,
    hook_tasks: Guests<HookTask>,
    listening: Option<BoxFuture<Result<Listeners<N>, String>>>,
    background: Guests<(String, Result<(), String>)>,
    checks: Guests<()>,
    workers: Vec<Worker>,
    /// Present while the main side is on its way to being empty.
    emptying: Option<BoxFuture<()>>,
    internal_orders: mpsc::UnboundedSender<Order>,
    internal_end: Option<JobEnd>,
    stop_asked: bool,
    failure: Option<String>,
}

/// A hook pair at the driver.
struct Slot {
    name: String,
    state: HookState,
    /// Gives up the half that runs.
    give_up: CancellationToken,
}

/// A worker at the driver.
struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    end: Option<JobEnd>,
}

impl<S, N, G, R> Driver<S, N, G, R>
where
    S: HttpService,
    N: Network,
    G: SignalSource,
    R: Rooms,
{
    /// Everything is in place before the first turn, and the internal server answers.
    async fn new(
        life: Lifecycle,
        service: S,
        mut parts: Parts,
        env: Env<N, G, R>,
        reserved: Reserved<N>,
    ) -> Result<Self, String> {
        let Env { clock, network: _, signals, rooms, seed } = env;
        let settings = &parts.settings;
        let main = Arc::new(Side::new(
            clock.clone(),
            SideConfig {
                app_version: settings.app_version.as_str().into(),
                request_timeout: settings.request_timeout,
                lame_duck: settings.plan.lame_duck,
                limits: settings.limits,
                when_full: WhenFull::Wait,
                seed,
            },
        ));
        let internal = Arc::new(Side::new(
            clock.clone(),
            SideConfig {
                app_version: settings.app_version.as_str().into(),
                request_timeout: None,
                lame_duck: Duration::ZERO,
                limits: Limits {
                    connections_max: INTERNAL_CONNECTIONS_MAX,
                    header_timeout: settings.limits.header_timeout.min(INTERNAL_HEADER_TIMEOUT),
                    ..settings.limits
                },
                when_full: WhenFull::MakeRoom,
                seed,
            },
        ));
        let heartbeats = Arc::new(Heartbeats::new(rooms.workers().get()));
        let checks = std::mem::take(&mut parts.checks);
        let boards: Vec<_> = checks.iter().map(crate::check::Check::result_board).collect();
        let board = Arc::new(Board::new(
            main.clone(),
            heartbeats.clone(),
            boards.clone(),
            parts.settings.plan,
            reserved.internal.local(),
            reserved.main.iter().map(Reservation::local).collect(),
        ));
        if let Some(tell) = parts.on_bound.take() {
            let bound = Bound { main: board.main_addresses.clone(), internal: board.internal_address.clone() };
            unwind(async move { tell(&bound) }).await.map_err(|panic| format!("on_bound panicked: {panic}"))?;
        }
        let address = reserved.internal.local();
        let listeners = reserved
            .internal
            .listen()
            .await
            .map_err(|error| format!("cannot listen on the internal address {address}: {error}"))?;
        let routes = InternalService {
            board: board.clone(),
            routes: std::mem::take(&mut parts.routes),
            #[cfg(feature = "metrics")]
            metrics: Metrics::new(board.clone(), parts.meter.take()),
        };
        internal.publish(Phase::Serving, clock.now());
        let (internal_orders, orders) = mpsc::unbounded_channel();
        let crew = Arc::new(Crew::new(internal.clone(), Arc::new(routes), Arc::default()));
        let serving = work(crew, listeners, orders, Arc::new(Sealing::new(1)));
        let watching = watch(clock.clone(), main.clone(), heartbeats.clone());
        let observing = parts.observer.take().map(|observe| observe(board.clone()));
        // Whether it ends is its own affair: the internal server goes on.
        let observing = async move {
            if let Some(observing) = observing {
                observing.await;
            }
            pending::<()>().await;
        };
        let internal_end = rooms
            .enter(
                Room::Internal,
                Box::pin(async move {
                    tokio::select! {
                        biased;
                        // Before the end, so that the last phase is told, too.
                        () = observing => {}
                        () = serving => {}
                        () = watching => {}
                    }
                }),
            )
            .map_err(|error| format!("cannot start the internal server: {error}"))?;
        let check_tasks = Guests::new();
        for (check, board) in checks.into_iter().zip(boards) {
            check_tasks
                .admit(&rooms, check.run(clock.clone(), board))
                .map_err(|error| format!("cannot run the checks: {error}"))?;
        }
        let hooks = std::mem::take(&mut parts.hooks);
        Ok(Self {
            _guard: CutOnDrop([main.clone(), internal.clone()]),
            life,
            clock,
            signals,
            rooms,
            main,
            internal,
            board,
            heartbeats,
            service: Arc::new(service),
            reservations: reserved.main,
            hooks: hooks
                .into_iter()
                .map(|hook| Slot {
                    name: hook.name,
                    state: HookState::Waiting(hook.start),
                    give_up: CancellationToken::new(),
                })
                .collect(),
            hook_tasks: Guests::new(),
            listening: None,
            background: Guests::new(),
            checks: check_tasks,
            workers: Vec::new(),
            emptying: None,
            internal_orders,
            internal_end: Some(internal_end),
            stop_asked: false,
            failure: None,
            parts,
        })
    }

    async fn live(mut self) -> Report {
        self.announce();
        let now = self.clock.now();
        let mut exiting = self.perform_all(now);
        while exiting == Exiting::No {
            let wake = self.next_wake().await;
            let now = self.clock.now();
            if wake.ends_the_start() {
                exiting = self.hear_out_start_hooks(now).await;
            }
            // What is done was done before the deadline was looked at; what is asked for comes after it.
            if !wake.is_deed() && exiting == Exiting::No {
                self.life.handle_timeout(now);
                exiting = self.perform_all(now);
            }
            if let Some(event) = self.event_of(wake, now)
                && exiting == Exiting::No
            {
                let outcome = self.life.handle_event(now, event);
                self.remark(event, outcome);
                exiting = self.perform_all(now);
            }
        }
        self.wait_for_the_cut().await;
        self.wait_for_late_hooks().await;
        self.report()
    }

    /// Before the start is given up, so is the hook that runs, and it is heard out: one that finishes in this very moment is started
    /// for the machine, too, and its stop hook has its turn, before those of the hooks that it may need (P11). One that is in the
    /// midst of its work and does not yield is late.
    async fn hear_out_start_hooks(&mut self, now: Moment) -> Exiting {
        let until = now + HEAR_OUT_MAX;
        while self.life.phase() == Phase::Starting
            && let Some(running) = self.running_hook()
        {
            self.hooks[running].give_up.cancel();
            let (half, hook, end) = tokio::select! {
                biased;
                ended = self.hook_tasks.next_end() => ended,
                () = sleep_until(&*self.clock, Some(until)) => break,
            };
            if let Some(event) = self.on_hook_ended(half, hook, end, now) {
                let _ = self.life.handle_event(now, event);
                if self.perform_all(now) == Exiting::Yes {
                    return Exiting::Yes;
                }
            }
        }
        Exiting::No
    }

    /// A cut is an order to other threads. Until they have carried it out its requests have no line in the report; and if the
    /// process ended before, the kernel would close their connections with a FIN, after which a cut answer may look whole (P5c).
    /// A worker that is blocked does not hold the exit for longer than this, and never beyond the bound (P7).
    async fn wait_for_the_cut(&mut self) {
        let Some(stop) = self.life.history().stop else { return };
        let until = (self.clock.now() + CUT_MAX).min(stop.deadline);
        if self.emptying.is_some() {
            tokio::select! {
                biased;
                () = ready(&mut self.emptying) => {}
                () = sleep_until(&*self.clock, Some(until)) => {}
            }
        }
    }

    /// A start hook that does not yield cannot be dropped. If it finishes after it was given up, it owes its stop hook all the same
    /// (P11), after all others, since theirs have begun. The exit waits for both, but never beyond the bound (P7), nor for somebody
    /// impatient (P12).
    async fn wait_for_late_hooks(&mut self) {
        let Some(stop) = self.life.history().stop else { return };
        loop {
            self.run_late_hook();
            let is_awaited = |slot: &Slot| matches!(slot.state, HookState::Dropped | HookState::Running);
            if !self.hooks.iter().any(is_awaited) {
                return;
            }
            tokio::select! {
                biased;
                (half, hook, end) = self.hook_tasks.next_end() => {
                    let now = self.clock.now();
                    let _ = self.on_hook_ended(half, hook, end, now);
                }
                () = sleep_until(&*self.clock, Some(stop.deadline)) => return self.give_up_late_hook(GiveUp::Overran),
                signal = self.signals.recv() => {
                    if signal.is_impatient() {
                        return self.give_up_late_hook(GiveUp::Impatience);
                    }
                }
            }
        }
    }

    /// There is one at most: only one start hook runs at a time.
    fn run_late_hook(&mut self) {
        let late = |slot: &mut Slot| matches!(slot.state, HookState::Late(_));
        let Some(late) = self.hooks.iter_mut().position(late) else { return };
        if let HookState::Late(stop) = std::mem::replace(&mut self.hooks[late].state, HookState::Running) {
            self.spawn_hook(HookIndex(late), Half::Stop, run_stop(stop));
        }
    }

    fn running_hook(&self) -> Option<usize> {
        self.hooks.iter().position(|slot| matches!(slot.state, HookState::Running))
    }

    fn give_up_late_hook(&mut self, why: GiveUp) {
        if let Some(late) = self.running_hook() {
            let now = self.clock.now();
            self.drop_hook(HookIndex(late), HookVerdict::GivenUp(why), now);
        }
    }

    /// The next fact or deadline. Whatever is not waited for now is not polled. What is done already goes before what asks for
    /// an end: a start hook that has finished owes its stop hook (P11), and a listener that listens may hold connections (P5).
    async fn next_wake(&mut self) -> Wake<N::Listener> {
        let deadline = self.life.poll_timeout().map(|(at, _)| at);
        tokio::select! {
            biased;
            (half, hook, end) = self.hook_tasks.next_end() => Wake::HookEnded(half, hook, end),
            listening = ready(&mut self.listening) => {
                self.listening = None;
                Wake::Listening(listening)
            }
            () = sleep_until(&*self.clock, deadline) => Wake::Time,
            signal = self.signals.recv() => Wake::Signal(signal),
            () = self.parts.stop.asked(), if !self.stop_asked => Wake::StopAsked,
            (name, result) = self.background.next_end() => Wake::BackgroundEnded(name, result),
            () = ready(&mut self.emptying) => {
                self.emptying = None;
                Wake::MainEmpty
            }
            () = ready(&mut self.internal_end), if self.life.phase() >= Phase::CleaningUp => {
                self.internal_end = None;
                Wake::InternalClosed
            }
        }
    }

    /// What a wake means to the machine; nothing, if it is only for the log.
    fn event_of(&mut self, wake: Wake<N::Listener>, now: Moment) -> Option<Event> {
        match wake {
            Wake::Time => None,
            Wake::Signal(signal) => Some(Event::StopRequested(StopReason::Signal(signal))),
            Wake::StopAsked => {
                self.stop_asked = true;
                Some(Event::StopRequested(StopReason::Requested))
            }
            Wake::HookEnded(half, hook, end) => self.on_hook_ended(half, hook, end, now),
            Wake::Listening(Ok(listeners)) => match self.staff(listeners) {
                Ok(()) => Some(Event::Listening),
                Err(error) => {
                    self.fail(format!("cannot start a worker: {error}"));
                    Some(Event::ListenFailed)
                }
            },
            Wake::Listening(Err(error)) => {
                self.fail(error);
                Some(Event::ListenFailed)
            }
            Wake::BackgroundEnded(name, result) => self.on_background_ended(&name, result),
            Wake::MainEmpty => Some(Event::MainEmpty),
            Wake::InternalClosed => Some(Event::InternalClosed),
        }
    }

    fn on_hook_ended(&mut self, half: Half, hook: HookIndex, end: Option<HookEnd>, now: Moment) -> Option<Event> {
        let slot = self.hooks.get_mut(hook.0)?;
        let name = slot.name.clone();
        let before = std::mem::replace(&mut slot.state, HookState::Over);
        let end = match (before, end) {
            (HookState::Dropped, Some(HookEnd { stop: Some(stop), .. })) => {
                // It finished all the same. The machine has moved on, but what was started is stopped (P11).
                slot.state = HookState::Late(stop);
                return None;
            }
            (HookState::Running, Some(end)) => end,
            (
                HookState::Waiting(_) | HookState::Started(_) | HookState::Dropped | HookState::Late(_) | HookState::Over,
                Some(_),
            )
            | (_, None) => return None,
        };
        if let Some(stop) = end.stop {
            slot.state = HookState::Started(stop);
        }
        let verdict = match half {
            Half::Start => HookVerdict::Started(end.result),
            Half::Stop => HookVerdict::Stopped(end.result),
        };
        if end.result == HookResult::Done {
            tracing::info!(hook = name, half = half.name(), "hook done");
        } else {
            let message = end.message.clone().unwrap_or_default();
            tracing::error!(hook = name, half = half.name(), end = hook_end(verdict), error = message, "hook failed");
            if half == Half::Start {
                self.fail(format!("start hook {name} failed: {message}"));
            }
        }
        self.board.note_hook_ended(name, verdict, end.message, now);
        Some(match half {
            Half::Start => Event::StartHookEnded(hook, end.result),
            Half::Stop => Event::StopHookEnded(hook, end.result),
        })
    }

    fn on_background_ended(&mut self, name: &str, result: Result<(), String>) -> Option<Event> {
        match result {
            Ok(()) => {
                tracing::info!(task = name, "background task ended");
                None
            }
            Err(error) => {
                tracing::error!(task = name, error, "background task failed");
                if self.life.phase() > Phase::Draining {
                    return None;
                }
                self.fail(format!("background task {name} failed: {error}"));
                Some(Event::StopRequested(StopReason::TaskFailed))
            }
        }
    }

    // Actions.

    fn perform_all(&mut self, now: Moment) -> Exiting {
        while let Some(action) = self.life.poll_action() {
            if self.perform(action, now) == Exiting::Yes {
                return Exiting::Yes;
            }
        }
        Exiting::No
    }

    fn perform(&mut self, action: Action, now: Moment) -> Exiting {
        match action {
            Action::Publish(phase) => self.publish(phase, now),
            Action::RunStartHook(hook) => self.run_hook(hook, Half::Start, now),
            Action::DropStartHook(hook) => self.drop_hook(hook, HookVerdict::StartDropped, now),
            Action::Listen => self.listen(),
            Action::Abandon => self.abandon(),
            Action::ArmWatchdog(at) => self.rooms.arm_watchdog(at),
            Action::Quiesce => self.quiesce(),
            Action::CancelRoot => self.main.cancel_root(),
            Action::Abort => {
                self.main.abort();
                self.order(Order::Look);
            }
            Action::Cut => {
                self.main.cut();
                self.order(Order::Abandon);
            }
            Action::RunStopHook(hook) => self.run_hook(hook, Half::Stop, now),
            Action::GiveUpStopHook(hook, why) => self.drop_hook(hook, HookVerdict::GivenUp(why), now),
            Action::CloseInternal => {
                self.internal.publish(Phase::Draining, now);
                let _ = self.internal_orders.send(Order::Close);
            }
            Action::CutInternal => {
                self.internal.cut();
                let _ = self.internal_orders.send(Order::Abandon);
            }
            Action::Exit => return Exiting::Yes,
        }
        Exiting::No
    }

    fn publish(&mut self, phase: Phase, now: Moment) {
        self.main.publish(phase, now);
        let stop = self.life.history().stop;
        self.board.note_phase(phase, now, stop.map(|stop| stop.deadline));
        if phase == Phase::Serving {
            self.start_background();
        }
        if phase >= Phase::LameDuck {
            self.checks.dismiss();
            self.order(Order::Look);
        }
        if phase == Phase::LameDuck
            && let Some(StopReason::Signal(Signal::Interrupt)) = stop.map(|stop| stop.reason)
        {
            tracing::info!("press Ctrl-C again to skip the wait");
        }
        tracing::info!(
            phase = phase.name(),
            in_flight = self.main.tally.requests().in_flight(),
            connections = self.main.tally.connections().open(),
            since_stop_ms = stop.map(|stop| millis(now.since(stop.at))),
            reason = stop.map(|stop| stop.reason.to_string()),
            "{}",
            meaning(phase)
        );
    }

    fn run_hook(&mut self, hook: HookIndex, half: Half, now: Moment) {
        let Some(slot) = self.hooks.get_mut(hook.0) else { return };
        self.board.note_hook_running(&slot.name, half.name(), now);
        match std::mem::replace(&mut slot.state, HookState::Running) {
            HookState::Waiting(start) if half == Half::Start => self.spawn_hook(hook, half, run_start(start)),
            HookState::Started(stop) if half == Half::Stop => self.spawn_hook(hook, half, run_stop(stop)),
            HookState::Waiting(_)
            | HookState::Started(_)
            | HookState::Running
            | HookState::Dropped
            | HookState::Late(_)
            | HookState::Over => unreachable!("P11: {half:?} of {hook:?} is not its next half"),
        }
    }

    fn spawn_hook(&mut self, hook: HookIndex, half: Half, work: impl Future<Output = HookEnd> + Send + 'static) {
        let Some(slot) = self.hooks.get_mut(hook.0) else { return };
        slot.give_up = CancellationToken::new();
        let give_up = slot.give_up.clone();
        // What it held is dropped in here too, and may panic.
        let running = unwind(async move {
            // What was given up before it began does not begin.
            if give_up.is_cancelled() { None } else { give_up.run_until_cancelled(work).await }
        });
        let work = async move { (half, hook, running.await.ok().flatten()) };
        if let Err(error) = self.hook_tasks.admit(&self.rooms, work) {
            tracing::error!(%error, "cannot run a hook");
        }
    }

    fn drop_hook(&mut self, hook: HookIndex, verdict: HookVerdict, now: Moment) {
        let Some(slot) = self.hooks.get_mut(hook.0) else { return };
        slot.give_up.cancel();
        let may_finish = verdict == HookVerdict::StartDropped && matches!(slot.state, HookState::Running);
        slot.state = if may_finish { HookState::Dropped } else { HookState::Over };
        let name = slot.name.clone();
        tracing::error!(hook = name, end = hook_end(verdict), "hook given up");
        self.board.note_hook_ended(name, verdict, None, now);
    }

    fn listen(&mut self) {
        let reservations = std::mem::take(&mut self.reservations);
        self.listening = Some(Box::pin(async move {
            let mut all = Vec::new();
            for reservation in reservations {
                let address = reservation.local();
                let listeners = reservation.listen().await.map_err(|error| {
                    format!("cannot listen on the main address {address} (--addr, --port, APP_ADDR, APP_PORT): {error}")
                })?;
                all.push(listeners);
            }
            Ok(all)
        }));
    }

    /// Gives each worker one listener of each address.
    fn staff(&mut self, addresses: Vec<Vec<N::Listener>>) -> io::Result<()> {
        let count = self.rooms.workers().get();
        let sealing = Arc::new(Sealing::new(count));
        let mut shares: Vec<Vec<N::Listener>> = (0..count).map(|_| Vec::new()).collect();
        for listeners in addresses {
            for (share, listener) in shares.iter_mut().zip(listeners) {
                share.push(listener);
            }
        }
        for (n, listeners) in shares.into_iter().enumerate() {
            let beats = self.heartbeats.of_worker(n).unwrap_or_default();
            let crew = Arc::new(Crew::new(self.main.clone(), self.service.clone(), beats));
            let (orders, received) = mpsc::unbounded_channel();
            let working = work(crew, listeners, received, sealing.clone());
            let end = self.rooms.enter(Room::Worker(n), Box::pin(working))?;
            self.workers.push(Worker { orders, end: Some(end) });
        }
        Ok(())
    }

    fn start_background(&mut self) {
        for task in std::mem::take(&mut self.parts.background) {
            let name = task.name;
            let side = self.main.clone();
            let counted = self.main.tasks.track_future(async move {
                let context = TaskContext(side.clone());
                // All of it is users' code: making the future, running it, and putting its error into words.
                let running = unwind(async move { (task.run)(context).await.map_err(|error| error.to_string()) });
                match side.moments.abort.run_until_cancelled(running).await {
                    Some(Ok(Ok(()))) => Ok(()),
                    Some(Ok(Err(error))) => Err(error),
                    Some(Err(panic)) => Err(format!("panicked: {panic}")),
                    None => {
                        side.note_work_dropped();
                        Err("dropped: it did not return when its context was cancelled".to_owned())
                    }
                }
            });
            if let Err(error) = self.background.admit(&self.rooms, async move { (name, counted.await) }) {
                tracing::error!(%error, "cannot run a background task");
            }
        }
    }

    fn quiesce(&mut self) {
        self.order(Order::Quiesce);
        let ends: Vec<JobEnd> = self.workers.iter_mut().filter_map(|worker| worker.end.take()).collect();
        let main = self.main.clone();
        self.emptying = Some(Box::pin(async move {
            for end in ends {
                end.await;
            }
            // Only now can no more work be tracked: whoever could spawn some is gone.
            main.tasks.close();
            main.tasks.wait().await;
        }));
    }

    fn abandon(&mut self) {
        self.reservations.clear();
        self.listening = None;
        self.main.cut();
        self.order(Order::Abandon);
    }

    fn order(&self, order: Order) {
        for worker in &self.workers {
            // A worker that is done does not listen any more.
            let _ = worker.orders.send(order);
        }
    }

    fn fail(&mut self, failure: String) {
        self.failure.get_or_insert(failure);
    }

    // Words.

    fn announce(&self) {
        let addresses: Vec<String> = self.board.main_addresses.iter().map(ToString::to_string).collect();
        let settings = &self.parts.settings;
        tracing::info!(
            main = addresses.join(", "),
            internal = %self.board.internal_address,
            app_version = settings.app_version,
            workers = self.rooms.workers().get(),
            worst_case = %humantime::format_duration(settings.plan.worst_case()),
            grace_period = %humantime::format_duration(settings.grace_period),
            "bound"
        );
    }

    /// What a person at the log should know beyond the phases.
    fn remark(&self, event: Event, outcome: Outcome) {
        if let Event::StopRequested(reason) = event
            && let Some(stop) = self.life.history().stop
            && (outcome == Outcome::Ignored || stop.reason != reason || self.life.phase() > Phase::LameDuck)
        {
            let effect = match outcome {
                Outcome::Applied => "it ends the current wait",
                Outcome::Ignored => "it changes nothing: the stop is under way",
            };
            tracing::info!(%reason, phase = self.life.phase().name(), effect, "further stop request");
        }
    }

    fn report(self) -> Report {
        let history = self.life.history();
        let now = self.clock.now();
        let mut requests = self.main.tally.requests();
        // A handler that blocks its worker cannot even be dropped: whatever has no fate by now is cut by the exit.
        let stuck = requests.in_flight();
        requests.aborted += stuck;
        if stuck > 0 {
            tracing::error!(requests = stuck, "requests cut by the exit: their handlers block their worker");
        }
        // The same goes for work that blocks its thread.
        let work_dropped = self.main.work_dropped.get() + self.main.tasks.len() as u64;
        let mut verdict = Verdict::of(history, self.main.aborted_by_stop.get() + stuck + work_dropped);
        if verdict == Verdict::Clean && self.board.hooks().iter().any(|hook| hook.verdict.is_stop_failure()) {
            // The machine knows nothing of a stop hook that came late.
            verdict = Verdict::HookFailed;
        }
        let stop = history.stop;
        let error = self.failure.or_else(|| match stop.map(|stop| stop.reason) {
            Some(StopReason::StartTimedOut) => {
                let limit = humantime::format_duration(self.parts.settings.plan.start);
                Some(format!("the start took longer than its limit of {limit} (--start, STARTUP_LIMIT)"))
            }
            Some(StopReason::Signal(_) | StopReason::Requested | StopReason::TaskFailed | StopReason::StartFailed)
            | None => None,
        });
        let report = Report {
            verdict: ReportVerdict::Lived(verdict),
            reason: stop.map(|stop| stop.reason),
            error,
            phases: history.phases.iter().map(|span| (span.phase, span.to.unwrap_or(now).since(span.from))).collect(),
            shutdown: stop.map(|stop| now.since(stop.at)).unwrap_or_default(),
            worst_case: self.parts.settings.plan.worst_case(),
            requests,
            connections: self.main.tally.connections(),
            aborts: self.main.aborts(),
            work_dropped,
            hooks: self.board.hooks(),
        };
        report.log();
        report
    }
}

/// Ends both sides when it is dropped; after a whole life there is nothing left to end.
struct CutOnDrop([Arc<Side>; 2]);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        for side in &self.0 {
            side.cut();
        }
    }
}

/// How long a start hook that is given up gets to see it, or to finish.
const HEAR_OUT_MAX: Duration = Duration::from_millis(50);

/// How long workers get to carry out the cut before the report is made.
const CUT_MAX: Duration = Duration::from_millis(50);

/// Connections that the internal server takes at one time: probes, scrapers and a few people.
const INTERNAL_CONNECTIONS_MAX: usize = 128;

/// How long a request head may take there: its clients are near, and few.
const INTERNAL_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exiting {
    Yes,
    No,
}

impl Half {
    const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
        }
    }
}

/// What a phase means, for the log.
const fn meaning(phase: Phase) -> &'static str {
    match phase {
        Phase::Starting => "starting: not ready yet",
        Phase::Serving => "serving: ready",
        Phase::LameDuck => "lame duck: not ready any more, all is still served",
        Phase::Draining => "draining: listeners close, requests in flight finish",
        Phase::Cancelling => "cancelling: what still runs is asked to return",
        Phase::CleaningUp => "cleaning up: stop hooks run",
        Phase::Stopped => "stopped: nothing is left",
    }
}

async fn sleep_until(clock: &dyn Clock, at: Option<Moment>) {
    match at {
        Some(at) => {
            let mut sleep = clock.sleep_until(at);
            // The clock decides, not the sleep.
            while clock.now() < at {
                sleep.as_mut().await;
                sleep.as_mut().reset(at);
            }
        }
        None => pending().await,
    }
}

/// What an optional future yields; never, if there is none. It is polled where it lies, so dropping this loses nothing.
async fn ready<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
