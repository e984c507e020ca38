//! The driver: it tells the machine what happens, and performs what the machine asks. It decides nothing.
//!
//! One task, one `select!`, one reading of the clock a turn. A turn is: wait for a fact or a deadline; let deadlines that have
//! passed act first; then the fact; then perform every action. Everything spawned is owned here, by [`Guests`] or by a side's
//! `TaskTracker`, so that "done" is a fact of ownership.

mod hooks;
mod perform;
mod start;
mod words;

pub(crate) use words::{bad_plan, stillborn};

use crate::{
    env::{Clock, Env, JobEnd, Network, Rooms, SignalSource},
    errors::chain,
    guests::Guests,
    hook::{BoxFuture, HookEnd},
    host::Parts,
    http::{HttpService, Order, Side},
    internal::{Board, Heartbeats},
    lifecycle::{Event, HookBudget, HookIndex, Lifecycle, Moment, Phase, Signal, StopReason, Verdict},
    report::Report,
};
use hooks::{Half, HookTask, Slot};
use start::reserve;
use std::{
    future::{Future, pending},
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot};

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
        Err(error) => return bad_plan(parts.settings.explain(&error), worst_case),
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
    WorkersReleased,
    InternalClosed,
}

impl<L> Wake<L> {
    /// Whether the start is further than the machine knows.
    const fn is_deed(&self) -> bool {
        matches!(self, Self::HookEnded(Half::Start, ..) | Self::Listening(_))
    }
}

/// The listeners of each address, one a worker.
type Listeners<N> = Vec<Vec<<N as Network>::Listener>>;

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
    /// Present while the workers end.
    releasing: Option<BoxFuture<()>>,
    internal_orders: mpsc::UnboundedSender<Order>,
    internal_end: Option<JobEnd>,
    stop_asked: bool,
    failure: Option<String>,
}

/// A worker at the driver.
struct Worker {
    /// It stays as long as this is not dropped.
    orders: mpsc::UnboundedSender<Order>,
    /// Dropped at the other end when its last connection is gone.
    empty: Option<oneshot::Receiver<()>>,
    end: JobEnd,
}

impl<S, N, G, R> Driver<S, N, G, R>
where
    S: HttpService,
    N: Network,
    G: SignalSource,
    R: Rooms,
{
    async fn live(mut self) -> Report {
        self.announce();
        let now = self.clock.now();
        let mut exiting = self.perform_all(now);
        while exiting == Exiting::No {
            let wake = self.next_wake().await;
            let now = self.clock.now();
            // What is done was done before the deadline was looked at; what is asked for comes after it.
            if !wake.is_deed() {
                self.life.handle_timeout(now);
                exiting = self.perform_all(now);
            }
            if let Some(event) = self.event_of(wake, now)
                && exiting == Exiting::No
            {
                let is_stopping = self.life.history().stop.is_some();
                let outcome = self.life.handle_event(now, event);
                if is_stopping {
                    self.log_further_stop(event, outcome);
                }
                exiting = self.perform_all(now);
            }
        }
        self.report()
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
            () = ready(&mut self.releasing) => {
                self.releasing = None;
                Wake::WorkersReleased
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
                    self.fail(format!("cannot start a worker: {}", chain(&error)));
                    Some(Event::ListenFailed)
                }
            },
            Wake::Listening(Err(error)) => {
                self.fail(error);
                Some(Event::ListenFailed)
            }
            Wake::BackgroundEnded(name, result) => self.on_background_ended(&name, result),
            Wake::MainEmpty => {
                // A task sends its result before the drain may end. Without this a failure could be read after the drain.
                while let Some((name, result)) = self.background.take_end() {
                    if let Some(event) = self.on_background_ended(&name, result) {
                        let _ = self.life.handle_event(now, event);
                    }
                }
                Some(Event::MainEmpty)
            }
            Wake::WorkersReleased => Some(Event::WorkersReleased),
            Wake::InternalClosed => Some(Event::InternalClosed),
        }
    }

    fn on_background_ended(&mut self, name: &str, result: Result<(), String>) -> Option<Event> {
        match result {
            Ok(()) => {
                crate::log::info!(task = name, "background task ended");
                None
            }
            Err(error) => {
                crate::log::error!(task = name, error, "background task failed");
                if self.life.phase() > Phase::Draining {
                    return None;
                }
                self.fail(format!("background task {name} failed: {error}"));
                Some(Event::StopRequested(StopReason::TaskFailed))
            }
        }
    }

    fn fail(&mut self, failure: String) {
        self.failure.get_or_insert(failure);
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exiting {
    Yes,
    No,
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
