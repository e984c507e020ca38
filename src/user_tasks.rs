//! Users' code at work: hooks, background tasks and readiness checks.
//!
//! It runs in a room of its own, so that code which blocks its thread does not hold the host's timers and signals (P7). Dropping the
//! [`UserTasks`] drops their code, at its next await at the latest.

use crate::runtime::{Spawner, TaskKind};
use std::{future::Future, io};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Futures that run elsewhere and yield a `T` each.
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

    /// Spawns `future`, which must not panic: a panic would send no result. Drops `held` once the result was sent.
    pub(crate) fn spawn<F>(
        &self,
        spawner: &impl Spawner,
        held: impl Send + 'static,
        future: F,
    ) -> io::Result<()>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (sender, cancel) = (self.sender.clone(), self.cancel.clone());
        let task = async move {
            let _held = held;
            if let Some(result) = cancel.run_until_cancelled_owned(future).await {
                // Nobody listens any more: nobody misses it.
                let _ = sender.send(result);
            }
        };
        spawner.spawn(TaskKind::User, Box::pin(task)).map(drop)
    }

    /// A result that was sent already.
    pub(crate) fn take_end(&mut self) -> Option<T> {
        self.results.try_recv().ok()
    }

    /// What the next one yields. Ready only if one ends.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn join_next(&mut self) -> T {
        match self.results.recv().await {
            Some(result) => result,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Drops them all.
    pub(crate) fn cancel_all(&self) {
        self.cancel.cancel();
    }
}
