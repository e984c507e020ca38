//! Long-lived tasks of the host. The drain waits for them.

use crate::{
    hook::BoxFuture,
    http::{BoxError, ServerState, WorkOrigin},
    lifecycle::Phase,
    unwind::AppValue,
};
use std::{fmt, future::Future, sync::Arc};

/// A long-lived task of the host: a consumer of a queue, a scheduler.
///
/// It starts with Serving. Its [`TaskContext`] notifies it when the stop was requested, and the
/// drain waits for it. If it returns an error or panics before its context is cancelled, the exit
/// code is 1, and while Serving the host then stops. A later error changes nothing. A later panic
/// makes the exit code 1, or 3 if the shutdown also cut requests or work. Returning `Ok` early
/// changes nothing.
///
/// ```
/// use lameduck::{BackgroundTask, TaskContext};
///
/// let consumer = BackgroundTask::new("consumer", |context: TaskContext| async move {
///     // Until here: take the next job and finish it.
///     context.stopping().await;
///     Ok::<(), std::io::Error>(())
/// });
/// ```
pub struct BackgroundTask {
    pub(crate) name: String,
    pub(crate) run: Box<dyn FnOnce(TaskContext) -> BoxFuture<Result<(), BoxError>> + Send>,
}

impl BackgroundTask {
    /// A task that runs until the future that `run` makes returns.
    pub fn new<F, Fut, E>(name: impl Into<String>, run: F) -> Self
    where
        F: FnOnce(TaskContext) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let run = AppValue::new(run);
        let run = move |context| -> BoxFuture<Result<(), BoxError>> {
            let running = run.into_inner()(context);
            Box::pin(async move { running.await.map_err(Into::into) })
        };
        Self { name: name.into(), run: Box::new(run) }
    }
}

impl fmt::Debug for BackgroundTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackgroundTask").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a background task can read of its host: the phase and the moments at which to stop.
#[derive(Clone, Debug)]
pub struct TaskContext {
    pub(crate) server: Arc<ServerState>,
    /// The name of the task.
    pub(crate) origin: WorkOrigin,
}

impl TaskContext {
    /// The version of the app, from the [settings](crate::Settings::app_version).
    #[must_use]
    pub fn app_version(&self) -> &str {
        &self.server.config.app_version
    }

    /// The current phase of the process.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.server.phase()
    }

    /// Ready from the stop request on: take no new work, finish what was begun.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn stopping(&self) {
        self.server.tokens.stopping.cancelled().await;
    }

    /// Ready once the drain begins: no new request arrives.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn draining(&self) {
        self.server.tokens.draining.cancelled().await;
    }

    /// Ready once the drain has ended: return now. A task that does not is dropped 250 ms before
    /// the cancel wait ends. The budget of long streams ([`Plan::streams`](crate::lifecycle::Plan))
    /// gives tasks no more time.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn cancelled(&self) {
        self.server.tokens.requests.cancelled().await;
    }

    /// Spawns work on the current runtime. The drain waits for it as it does for this task.
    ///
    /// # Panics
    /// If called outside a tokio runtime. A panic inside `work` ends only that work. It is logged
    /// with the task's name, and makes the exit code 1, or 3 if the shutdown also cut requests or
    /// work.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.server.spawn(self.origin.clone(), || false, work);
    }
}
