//! Hooks: pairs of functions that run at the start and at the stop (P11).

use crate::{
    errors::is_bad_setting,
    host_error::TaskError,
    http::BoxError,
    lifecycle::{HookBudget, HookResult},
    unwind::{AppValue, catch, unwind},
};
use std::{fmt, future::Future, pin::Pin, time::Duration};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(crate) type StopHook = Box<dyn FnOnce() -> BoxFuture<Result<(), BoxError>> + Send>;
pub(crate) type StartHook = Box<dyn FnOnce() -> BoxFuture<Result<StopHook, BoxError>> + Send>;

/// A pair of a start hook and a stop hook.
///
/// Start hooks run one after the other in the order of registration, before the main server
/// listens. Together they have [`Plan::start`](crate::lifecycle::Plan::start), 60 s by default.
/// Stop hooks run in the reverse order, after every handler has returned or was dropped. A stop
/// hook runs exactly once if its start hook finished, and never otherwise. A hook that fails, hangs
/// or panics is reported and stops no other.
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
    /// A pair: `stop` gets the value that `start` returns.
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
        let (start, stop) = (AppValue::new(start), AppValue::new(stop));
        let start: StartHook = Box::new(move || {
            Box::pin(async move {
                let started = start.into_inner()().await.map_err(Into::into)?;
                let started = AppValue::new(started);
                let stop: StopHook = Box::new(move || {
                    Box::pin(async move {
                        stop.into_inner()(started.into_inner()).await.map_err(Into::into)
                    })
                });
                Ok(stop)
            })
        });
        Self { name: name.into(), budget: HookBudget::Shared, start }
    }

    /// A start hook without a stop hook.
    pub fn on_start<Start, Starting, StartError>(name: impl Into<String>, start: Start) -> Self
    where
        Start: FnOnce() -> Starting + Send + 'static,
        Starting: Future<Output = Result<(), StartError>> + Send + 'static,
        StartError: Into<BoxError>,
    {
        Self::pair(name, start, |()| async { Ok::<(), BoxError>(()) })
    }

    /// A stop hook without a start hook, for what was opened before the host was built.
    pub fn on_stop<Stop, Stopping, StopError>(name: impl Into<String>, stop: Stop) -> Self
    where
        Stop: FnOnce() -> Stopping + Send + 'static,
        Stopping: Future<Output = Result<(), StopError>> + Send + 'static,
        StopError: Into<BoxError>,
    {
        Self::pair(name, || async { Ok::<(), BoxError>(()) }, |()| stop())
    }

    /// The time limit of the stop hook. All such limits together must fit into
    /// [`Plan::cleanup`](crate::lifecycle::Plan::cleanup), and leave some of it for hooks without
    /// their own, or the host refuses to start. Default: an equal share of the rest of `cleanup`,
    /// plus what earlier hooks did not use.
    #[must_use]
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.budget = HookBudget::Own(timeout);
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

/// The state of a hook pair.
pub(crate) enum HookState {
    Waiting(StartHook),
    Running,
    Started(StopHook),
    /// Its start was given up, but may still return a result.
    Dropped,
    Over,
}

/// The result of a hook's task.
pub(crate) struct HookEnd {
    pub(crate) result: HookResult,
    pub(crate) error: Option<TaskError>,
    /// The stop hook, if this is a start hook that finished.
    pub(crate) stop: Option<StopHook>,
}

impl HookEnd {
    /// Runs one stage of a hook pair. A panic in it is its result.
    async fn of<T>(
        stage: impl Future<Output = Result<T, BoxError>>,
        stop: impl FnOnce(T) -> Option<StopHook>,
    ) -> Self {
        let failed = |result, error| Self { result, error: Some(error), stop: None };
        match unwind(stage).await {
            Ok(Ok(done)) => Self { result: HookResult::Done, error: None, stop: stop(done) },
            Ok(Err(error)) => {
                let error = TaskError::returned(error);
                failed(Self::result_of(&error), error)
            }
            Err(panic) => failed(HookResult::Panicked, TaskError::without_cause(panic)),
        }
    }

    /// The end of a stage that could not run.
    pub(crate) fn failed(error: BoxError) -> Self {
        Self { result: HookResult::Failed, error: Some(TaskError::returned(error)), stop: None }
    }

    fn result_of(error: &TaskError) -> HookResult {
        match error.get_ref().map(|error| catch(|| is_bad_setting(error))) {
            Some(Ok(true)) => HookResult::BadSetting,
            Some(Ok(false)) => HookResult::Failed,
            // The error panicked when it was formatted or asked for its causes.
            Some(Err(_)) | None => HookResult::Panicked,
        }
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
