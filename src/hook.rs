//! Hooks: what is opened at the start and closed at the stop, in pairs (P11).

use crate::{
    http::BoxError,
    lifecycle::{HookBudget, HookResult},
    unwind::unwind,
};
use std::{fmt, future::Future, pin::Pin, time::Duration};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(crate) type StopHook = Box<dyn FnOnce() -> BoxFuture<Result<(), BoxError>> + Send>;
pub(crate) type StartHook = Box<dyn FnOnce() -> BoxFuture<Result<StopHook, BoxError>> + Send>;

/// A pair of a start and a stop hook.
///
/// Start hooks run one after the other in the order of registration, before anything is served; stop hooks in the reverse
/// order, after every handler has returned or its time was up. A stop hook runs if and only if its start finished. One that
/// fails, hangs or panics is reported and stops no other.
///
/// ```
/// # struct Pool;
/// # impl Pool {
/// #     async fn connect(_: &str) -> std::io::Result<Self> { Ok(Self) }
/// #     async fn close(self) {}
/// # }
/// use lameduck::Hook;
///
/// let pool = Hook::pair(
///     "database",
///     || async { Pool::connect("db:5432").await },
///     |pool| async move { Ok::<(), std::io::Error>(pool.close().await) },
/// );
/// ```
pub struct Hook {
    pub(crate) name: String,
    pub(crate) budget: HookBudget,
    pub(crate) start: StartHook,
}

impl Hook {
    /// A pair: what `start` returns, `stop` gets.
    pub fn pair<T, Start, Starting, StartError, Stop, Stopping, StopError>(
        name: impl Into<String>,
        start: Start,
        stop: Stop,
    ) -> Self
    where
        T: Send + 'static,
        Start: FnOnce() -> Starting + Send + 'static,
        Starting: Future<Output = Result<T, StartError>> + Send + 'static,
        StartError: Into<BoxError>,
        Stop: FnOnce(T) -> Stopping + Send + 'static,
        Stopping: Future<Output = Result<(), StopError>> + Send + 'static,
        StopError: Into<BoxError>,
    {
        let start: StartHook = Box::new(move || {
            Box::pin(async move {
                let started = start().await.map_err(Into::into)?;
                let stop: StopHook = Box::new(move || Box::pin(async move { stop(started).await.map_err(Into::into) }));
                Ok(stop)
            })
        });
        Self { name: name.into(), budget: HookBudget::Shared, start }
    }

    /// A start hook alone.
    pub fn on_start<Start, Starting, StartError>(name: impl Into<String>, start: Start) -> Self
    where
        Start: FnOnce() -> Starting + Send + 'static,
        Starting: Future<Output = Result<(), StartError>> + Send + 'static,
        StartError: Into<BoxError>,
    {
        Self::pair(name, start, |()| async { Ok::<(), BoxError>(()) })
    }

    /// A stop hook alone: close what was opened before the host was built.
    pub fn on_stop<Stop, Stopping, StopError>(name: impl Into<String>, stop: Stop) -> Self
    where
        Stop: FnOnce() -> Stopping + Send + 'static,
        Stopping: Future<Output = Result<(), StopError>> + Send + 'static,
        StopError: Into<BoxError>,
    {
        Self::pair(name, || async { Ok::<(), BoxError>(()) }, |()| stop())
    }

    /// Gives the stop hook a budget of its own. All such budgets together must fit into the plan's `cleanup`, or the host
    /// refuses to start. Without one it shares what the others leave.
    #[must_use]
    pub fn budget(mut self, budget: Duration) -> Self {
        self.budget = HookBudget::Own(budget);
        self
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("name", &self.name).field("budget", &self.budget).finish_non_exhaustive()
    }
}

/// Where a pair is in its own little life.
pub(crate) enum HookState {
    Waiting(StartHook),
    Running,
    Started(StopHook),
    /// Its start was given up, but may be busy until it sees that.
    Dropped,
    /// Its start finished although it was given up; its stop waits until all others are over.
    Late(StopHook),
    Over,
}

/// What a hook's task returns.
pub(crate) struct HookEnd {
    pub(crate) result: HookResult,
    /// What its error or panic said.
    pub(crate) message: Option<String>,
    /// From a start hook that is done: its other half.
    pub(crate) stop: Option<StopHook>,
}

/// Runs a start hook; a panic is its result, not ours.
pub(crate) async fn run_start(start: StartHook) -> HookEnd {
    match unwind(async move { start().await.map_err(|error| error.to_string()) }).await {
        Ok(Ok(stop)) => HookEnd { result: HookResult::Done, message: None, stop: Some(stop) },
        Ok(Err(error)) => HookEnd { result: HookResult::Failed, message: Some(error), stop: None },
        Err(panic) => HookEnd { result: HookResult::Panicked, message: Some(panic), stop: None },
    }
}

/// Runs a stop hook; a panic is its result, not ours.
pub(crate) async fn run_stop(stop: StopHook) -> HookEnd {
    match unwind(async move { stop().await.map_err(|error| error.to_string()) }).await {
        Ok(Ok(())) => HookEnd { result: HookResult::Done, message: None, stop: None },
        Ok(Err(error)) => HookEnd { result: HookResult::Failed, message: Some(error), stop: None },
        Err(panic) => HookEnd { result: HookResult::Panicked, message: Some(panic), stop: None },
    }
}
