//! Users' tasks: hooks, background tasks and readiness checks.
//!
//! They run apart from the host ([`TaskKind::User`]), so that code which blocks its thread does not
//! block the host's timers and signals (P7). Dropping [`UserTasks`] cancels the tasks: their
//! futures are dropped, at the next await at the latest.

use crate::runtime::{BoxFuture, Spawner, TaskKind};
use std::{future::Future, io};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A set of spawned futures that return a `T` each.
#[derive(Debug)]
pub(crate) struct UserTasks<T> {
    results: mpsc::UnboundedReceiver<T>,
    sender: mpsc::UnboundedSender<T>,
    cancel: CancellationToken,
    _cancel_on_drop: DropGuard,
}

impl<T: Send + 'static> UserTasks<T> {
    pub(crate) fn new() -> Self {
        let (sender, results) = mpsc::unbounded_channel();
        let cancel = CancellationToken::new();
        Self { results, sender, _cancel_on_drop: cancel.clone().drop_guard(), cancel }
    }

    /// Spawns `future`, which must not panic: a panic would send no result. Drops `held` after the
    /// result was sent.
    pub(crate) fn spawn<F>(
        &self,
        spawner: &impl Spawner,
        held: impl Send + 'static,
        future: F,
    ) -> io::Result<()>
    where
        F: Future<Output = T> + Send + 'static,
    {
        spawner.spawn(TaskKind::User, self.task(held, future)).map(drop)
    }

    /// Spawns the future of a hook in the same way.
    pub(crate) fn spawn_hook<F>(&self, spawner: &impl Spawner, future: F) -> io::Result<()>
    where
        F: Future<Output = T> + Send + 'static,
    {
        spawner.spawn_hook(self.task((), future)).map(drop)
    }

    fn task<F>(&self, held: impl Send + 'static, future: F) -> BoxFuture
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (sender, cancel) = (self.sender.clone(), self.cancel.clone());
        Box::pin(async move {
            let _held = held;
            if let Some(result) = cancel.run_until_cancelled_owned(future).await {
                // The receiver may be gone; then the result is not needed.
                let _ = sender.send(result);
            }
        })
    }

    /// Adds the result of a task that could not be spawned.
    pub(crate) fn push(&self, result: T) {
        // Cannot fail, since `self` holds the receiver.
        let _ = self.sender.send(result);
    }

    /// Returns a result that was already sent, if any.
    pub(crate) fn try_join_next(&mut self) -> Option<T> {
        self.results.try_recv().ok()
    }

    /// Waits for the next result. Never ready if no task ends.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn join_next(&mut self) -> T {
        match self.results.recv().await {
            Some(result) => result,
            // Cannot happen, since `self` holds a sender.
            None => std::future::pending().await,
        }
    }

    /// Cancels all tasks.
    pub(crate) fn cancel_all(&self) {
        self.cancel.cancel();
    }
}
