//! Hooks: what is opened at the start and closed at the stop, in pairs (P11).

use crate::{
    errors::{chain, is_bad_setting},
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
                let stop: StopHook = Box::new(move || {
                    Box::pin(async move { stop(started).await.map_err(Into::into) })
                });
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
        f.debug_struct("Hook")
            .field("name", &self.name)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

/// Where a pair is in its own little life.
pub(crate) enum HookState {
    Waiting(StartHook),
    Running,
    Started(StopHook),
    /// Its start was given up, but may be busy until it sees that.
    Dropped,
    Over,
}

/// What a hook's task returns.
pub(crate) struct HookEnd {
    pub(crate) result: HookResult,
    /// Its error with all causes, or its panic.
    pub(crate) message: Option<String>,
    /// From a start hook that is done: its other half.
    pub(crate) stop: Option<StopHook>,
}

impl HookEnd {
    /// Runs half of a hook; a panic is its result, not ours.
    async fn of<T>(
        half: impl Future<Output = Result<T, BoxError>>,
        stop: impl FnOnce(T) -> Option<StopHook>,
    ) -> Self {
        // To put an error into words is to run user code.
        let told = async {
            half.await.map_err(|error| {
                let result = if is_bad_setting(&*error) {
                    HookResult::BadSetting
                } else {
                    HookResult::Failed
                };
                (result, chain(&*error))
            })
        };
        let (result, message, stop) = match unwind(told).await {
            Ok(Ok(done)) => (HookResult::Done, None, stop(done)),
            Ok(Err((result, error))) => (result, Some(error), None),
            Err(panic) => (HookResult::Panicked, Some(panic), None),
        };
        Self { result, message, stop }
    }
}

/// Runs a start hook.
pub(crate) async fn run_start(start: StartHook) -> HookEnd {
    HookEnd::of(async move { start().await }, Some).await
}

/// Runs a stop hook.
pub(crate) async fn run_stop(stop: StopHook) -> HookEnd {
    HookEnd::of(async move { stop().await }, |()| None).await
}
