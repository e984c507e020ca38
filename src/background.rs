//! Long-lived tasks of the host: told at the stop, awaited by the drain.

use crate::{
    hook::BoxFuture,
    http::{BoxError, ServerState, WorkOrigin},
    lifecycle::Phase,
};
use std::{fmt, future::Future, sync::Arc};

/// What a background task knows of the life it is part of.
#[derive(Clone, Debug)]
pub struct TaskContext {
    pub(crate) server: Arc<ServerState>,
    /// The name of the task.
    pub(crate) origin: WorkOrigin,
}

impl TaskContext {
    /// The version of the app, as the host was told it.
    #[must_use]
    pub fn app_version(&self) -> &str {
        &self.server.config.app_version
    }

    /// The phase of the process, now.
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

    /// Ready once the drain begins: no new request will come.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn draining(&self) {
        self.server.tokens.draining.cancelled().await;
    }

    /// Ready once the drain is over: return now. What does not is dropped shortly before the cancel wait ends.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn cancelled(&self) {
        self.server.tokens.root.cancelled().await;
    }

    /// Runs work that the drain waits for, like this task, on the runtime of whoever calls it.
    ///
    /// # Panics
    /// If called outside a tokio runtime. A panic inside `work` ends that work alone; it is logged with the task's name, and makes
    /// the exit code 1.
    pub fn spawn<F>(&self, work: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.server.spawn(self.origin.clone(), work);
    }
}

/// A named task, not yet begun.
pub(crate) struct Background {
    pub(crate) name: String,
    pub(crate) run: Box<dyn FnOnce(TaskContext) -> BoxFuture<Result<(), BoxError>> + Send>,
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background").field("name", &self.name).finish_non_exhaustive()
    }
}
