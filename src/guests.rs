//! Users' code at work: hooks, background tasks and readiness checks.
//!
//! It runs in a room of its own, so that code which blocks its thread does not hold the host's timers and signals (P7). Dropping the
//! [`Guests`] drops their code, at its next await at the latest.

use crate::env::{Room, Rooms};
use std::{future::Future, io};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Futures that run elsewhere and yield a `T` each.
#[derive(Debug)]
pub(crate) struct Guests<T> {
    ends: mpsc::UnboundedReceiver<T>,
    tell: mpsc::UnboundedSender<T>,
    leave: CancellationToken,
    _leave_on_drop: DropGuard,
}

impl<T: Send + 'static> Guests<T> {
    pub(crate) fn new() -> Self {
        let (tell, ends) = mpsc::unbounded_channel();
        let leave = CancellationToken::new();
        Self { ends, tell, _leave_on_drop: leave.clone().drop_guard(), leave }
    }

    /// Spawns `work`, which must not panic: a panic would send no result. Drops `held` once the result was sent.
    pub(crate) fn admit<F>(&self, rooms: &impl Rooms, held: impl Send + 'static, work: F) -> io::Result<()>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let (tell, leave) = (self.tell.clone(), self.leave.clone());
        let job = async move {
            let _held = held;
            if let Some(end) = leave.run_until_cancelled_owned(work).await {
                // Nobody listens any more: nobody misses it.
                let _ = tell.send(end);
            }
        };
        rooms.enter(Room::Guest, Box::pin(job)).map(drop)
    }

    /// A result that was sent already.
    pub(crate) fn take_end(&mut self) -> Option<T> {
        self.ends.try_recv().ok()
    }

    /// What the next one yields. Ready only if one ends.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn next_end(&mut self) -> T {
        match self.ends.recv().await {
            Some(end) => end,
            // We hold a sender ourselves.
            None => std::future::pending().await,
        }
    }

    /// Drops them all.
    pub(crate) fn dismiss(&self) {
        self.leave.cancel();
    }
}
