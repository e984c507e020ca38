//! The driver: sends events to the lifecycle machine and performs its actions. It decides nothing.
//!
//! One task, one `select!`, one reading of the clock per turn. A turn waits for a wake or a
//! deadline, handles expired deadlines, handles the wake's event, and performs every action.
//! Results of hooks and tasks that are there come before expired deadlines, which may be late.
//!
//! The driver owns everything that is spawned, through [`UserTasks`] or a server's `TaskTracker`.
//! "Done" therefore follows from ownership.

mod actions;
mod app_reload;
mod hooks;
mod reporting;
mod start;

use crate::{
    hook::{BoxFuture, HookEnd},
    host_config::{HostConfig, ShutdownHandle},
    host_error::{HostError, HostErrorKind, TaskError},
    http::{HttpService, ServerState, WorkerCommand},
    internal::{Heartbeats, HostStatus},
    lifecycle::{Event, HookIndex, Lifecycle, Moment, Phase, Signal, StopReason},
    report::{Ended, Report},
    runtime::{
        Clock, JoinHandle, Network, ProxyHeader, Reservation, Runtime, SignalSource, Spawner,
    },
    user_tasks::UserTasks,
};
use hooks::{HookSlot, HookStage, HookTask};
use reporting::WaitLog;
use std::{
    future::{Future, pending},
    sync::Arc,
};
use tokio::sync::{mpsc, oneshot};

/// Runs a host from start to report, on the given runtime. Its start began at `begin`. The main
/// server has what `wrap` makes of each of its addresses.
pub(crate) async fn run<S, N, M, G, R>(
    service: Arc<S>,
    mut config: HostConfig,
    runtime: Runtime<N, G, R>,
    begin: Moment,
    wrap: impl Fn(N::Reservation, ProxyHeader) -> M + Send,
) -> Ended
where
    S: HttpService,
    N: Network,
    M: Reservation,
    G: SignalSource,
    R: Spawner,
{
    let worst_case = config.settings.plan.worst_case();
    match Driver::new(service, &mut config, runtime, begin, wrap).await {
        Ok(driver) => driver.run().await,
        Err(error) => Ended::new(Report::failed_to_start(error, worst_case), config),
    }
}

/// The reason why a turn of the driver begins.
enum Wake<L> {
    /// A deadline has expired.
    Time,
    Signal(Signal),
    StopAsked,
    HookEnded(HookStage, HookIndex, Option<HookEnd>),
    Listening(Result<Vec<Vec<L>>, HostError>),
    /// Nothing else is to be done, and the internal server has not started yet.
    InternalDue,
    BackgroundEnded(String, Result<(), TaskError>),
    Reloaded(Result<(), TaskError>),
    MainClosed,
    WorkersReleased,
    InternalClosed,
}

impl<L> Wake<L> {
    /// Whether this wake is a result. It comes before expired deadlines, because they may be late.
    const fn is_result(&self) -> bool {
        matches!(self, Self::HookEnded(..) | Self::Listening(_) | Self::BackgroundEnded(..))
    }
}

/// The listeners of each address: one per worker.
type Listeners<M> = Vec<Vec<<M as Reservation>::Listener>>;

struct Driver<S, M: Reservation, G, R> {
    /// The first field, so it is dropped first: a driver dropped before its end cuts both servers.
    _guard: CutOnDrop,
    lifecycle: Lifecycle,
    clock: Arc<dyn Clock>,
    signals: G,
    spawner: R,
    config: HostConfig,
    main: Arc<ServerState>,
    internal: Arc<ServerState>,
    status: Arc<HostStatus>,
    heartbeats: Arc<Heartbeats>,
    service: Arc<S>,
    /// Kept until they listen or the start is abandoned.
    reservations: Vec<M>,
    hooks: Vec<HookSlot>,
    hook_tasks: UserTasks<HookTask>,
    listening: Option<BoxFuture<Result<Listeners<M>, HostError>>>,
    /// The listeners are to open, unless a stop was requested before.
    is_listen_due: bool,
    background: UserTasks<(String, Result<(), TaskError>)>,
    checks: UserTasks<()>,
    reloads: UserTasks<Result<(), TaskError>>,
    /// When the running reload began.
    reload_since: Option<Moment>,
    /// Another reload was requested during the running one.
    reload_again: bool,
    workers: Vec<Worker>,
    /// Present while the main server closes.
    main_closing: Option<BoxFuture<()>>,
    /// Present while the workers end.
    releasing: Option<BoxFuture<()>>,
    internal_commands: mpsc::UnboundedSender<WorkerCommand>,
    /// The internal server, until it starts: after the workers, or once the start must wait.
    internal_server: Option<BoxFuture<()>>,
    internal_end: Option<JoinHandle>,
    /// The internal server was told to close.
    is_internal_closing: bool,
    /// Present while a drain or a cancel wait lasts.
    wait_log: Option<WaitLog>,
    stop_asked: bool,
    failure: Option<HostError>,
}

/// The driver's handles of one worker.
struct Worker {
    /// Dropping this sender lets the worker end.
    commands: mpsc::UnboundedSender<WorkerCommand>,
    /// The worker drops its sender when its last connection has closed.
    all_closed: Option<oneshot::Receiver<()>>,
    end: JoinHandle,
}

impl<S: HttpService, M: Reservation, G: SignalSource, R: Spawner> Driver<S, M, G, R> {
    async fn run(mut self) -> Ended {
        // Start hooks may take long, and the internal server serves meanwhile.
        if !self.hooks.is_empty()
            && let Err(error) = self.start_internal()
        {
            let worst_case = self.config.settings.plan.worst_case();
            return Ended::new(Report::failed_to_start(error, worst_case), self);
        }
        self.announce();
        let now = self.clock.now();
        let mut exiting = self.perform_all(now);
        while exiting == Exiting::No {
            let wake = self.next_wake().await;
            let now = self.clock.now();
            // Apply results that are there first, then expired timers, then stop requests.
            if !wake.is_result() {
                self.apply_ended_tasks(now);
                self.lifecycle.handle_timeout(now);
                exiting = self.perform_all(now);
            }
            if let Some(event) = self.event_of(wake, now)
                && exiting == Exiting::No
            {
                let is_stopping = self.lifecycle.history().stop.is_some();
                let outcome = self.lifecycle.handle_event(now, event);
                if is_stopping {
                    self.log_further_stop(event, outcome);
                }
                exiting = self.perform_all(now);
            }
            if exiting == Exiting::No {
                self.log_wait(now);
            }
        }
        self.report()
    }

    /// Waits for the next wake or deadline. Polls only what is awaited now. Completed start steps
    /// come before stop requests: a start hook that has finished needs its stop hook (P11), and a
    /// new listener may already hold connections (P5). Before the listeners open, stop requests
    /// come first.
    async fn next_wake(&mut self) -> Wake<M::Listener> {
        if self.is_listen_due {
            if let Some(wake) = self.earlier_stop().await {
                return wake;
            }
            self.is_listen_due = false;
        }
        let deadline = self.lifecycle.poll_timeout().map(|(at, _)| at);
        let deadline = deadline.into_iter().chain(self.wait_log.as_ref().map(WaitLog::next)).min();
        let stop = (!self.stop_asked).then_some(&self.config.stop);
        tokio::select! {
            biased;
            (stage, hook, end) = self.hook_tasks.join_next() => Wake::HookEnded(stage, hook, end),
            listening = ready(&mut self.listening) => {
                self.listening = None;
                Wake::Listening(listening)
            }
            () = sleep_until(&*self.clock, deadline) => Wake::Time,
            wake = stop_request(&mut self.signals, stop) => wake,
            (name, result) = self.background.join_next() => Wake::BackgroundEnded(name, result),
            result = self.reloads.join_next() => Wake::Reloaded(result),
            () = ready(&mut self.main_closing) => {
                self.main_closing = None;
                Wake::MainClosed
            }
            () = ready(&mut self.releasing) => {
                self.releasing = None;
                Wake::WorkersReleased
            }
            // Its end is no event before.
            () = ready(&mut self.internal_end), if self.is_internal_closing => {
                self.internal_end = None;
                Wake::InternalClosed
            }
            () = std::future::ready(()), if self.internal_server.is_some() => Wake::InternalDue,
        }
    }

    /// Returns a stop request that arrived before the listeners open, such as while the host was
    /// built. It ends the start (P1).
    async fn earlier_stop(&mut self) -> Option<Wake<M::Listener>> {
        // A runtime of one thread receives signals only between two polls.
        tokio::task::yield_now().await;
        let stop = (!self.stop_asked).then_some(&self.config.stop);
        tokio::select! {
            biased;
            wake = stop_request(&mut self.signals, stop) => return Some(wake),
            () = std::future::ready(()) => {}
        }
        if self.signals.is_holding() {
            return Some(Wake::Signal(self.signals.recv().await));
        }
        None
    }

    /// Returns the machine's event for a wake, or `None` if the wake is only logged.
    fn event_of(&mut self, wake: Wake<M::Listener>, now: Moment) -> Option<Event> {
        match wake {
            Wake::Time => None,
            Wake::Signal(signal) => self.on_signal(signal, now),
            Wake::Reloaded(result) => {
                self.on_reloaded(&result, now);
                None
            }
            Wake::StopAsked => {
                self.stop_asked = true;
                Some(Event::StopRequested(StopReason::Requested))
            }
            Wake::HookEnded(stage, hook, end) => self.on_hook_ended(stage, hook, end, now),
            Wake::Listening(listeners) => {
                let started = listeners
                    .and_then(|listeners| self.spawn_workers(listeners))
                    .and_then(|()| self.start_internal());
                match started {
                    Ok(()) => Some(Event::Listening),
                    Err(error) => {
                        self.fail(error);
                        Some(Event::ListenFailed)
                    }
                }
            }
            Wake::InternalDue => {
                let failure = self.start_internal().err()?;
                if self.lifecycle.history().stop.is_some() {
                    // The start has ended, and nothing needs the server any more.
                    return None;
                }
                self.fail(failure);
                Some(Event::ListenFailed)
            }
            Wake::BackgroundEnded(name, result) => self.on_background_ended(&name, result),
            Wake::MainClosed => Some(Event::MainClosed),
            Wake::WorkersReleased => Some(Event::WorkersReleased),
            Wake::InternalClosed => Some(Event::InternalClosed),
        }
    }

    /// Applies the results of background tasks that are there, during a stop. Otherwise the failure
    /// of a task would be handled after an expired deadline, a further signal or the end of the
    /// drain, and count as an effect of the cancellation (P13).
    fn apply_ended_tasks(&mut self, now: Moment) {
        if self.lifecycle.history().stop.is_none() {
            return;
        }
        while let Some((name, result)) = self.background.try_join_next() {
            if let Some(event) = self.on_background_ended(&name, result) {
                // It changes only the verdict.
                let _ = self.lifecycle.handle_event(now, event);
            }
        }
    }

    fn on_background_ended(&mut self, name: &str, result: Result<(), TaskError>) -> Option<Event> {
        match result {
            Ok(()) => {
                crate::log::info!(task = name, "background task ended");
                None
            }
            Err(error) => {
                let text = error.with_causes();
                crate::log::error!(task = name, error = text, "background task failed");
                // In a drain that goes on for long streams, tasks are cancelled earlier.
                let is_cancelled = self.main.tokens.requests.is_cancelled();
                if is_cancelled || self.lifecycle.phase() > Phase::Draining {
                    return None;
                }
                let message = format!("background task {name} failed");
                self.fail(HostError::of_task(HostErrorKind::BackgroundTask, message, error));
                Some(Event::StopRequested(StopReason::TaskFailed))
            }
        }
    }

    fn fail(&mut self, failure: HostError) {
        self.failure.get_or_insert(failure);
    }
}

/// Cuts both servers when it is dropped. After a regular end nothing is left to cut.
struct CutOnDrop([Arc<ServerState>; 2]);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        for server in &self.0 {
            server.cut();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exiting {
    Yes,
    No,
}

/// Waits for a stop request: a signal, or the handle's, if there is one.
async fn stop_request<L>(
    signals: &mut impl SignalSource,
    handle: Option<&ShutdownHandle>,
) -> Wake<L> {
    let signal = match handle {
        Some(handle) => handle.signal_or_requested(signals).await,
        None => Some(signals.recv().await),
    };
    signal.map_or(Wake::StopAsked, Wake::Signal)
}

async fn sleep_until(clock: &dyn Clock, at: Option<Moment>) {
    match at {
        Some(at) => {
            let mut sleep = clock.sleep_until(at);
            // The clock decides, not the sleep, which may be ready early.
            while clock.now() < at {
                sleep.as_mut().await;
                sleep.as_mut().reset(at);
            }
        }
        None => pending().await,
    }
}

/// Waits for an optional future; pending forever if there is none. Polls the future in place, so
/// that dropping this loses nothing.
async fn ready<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}
