//! The change of a connection to another protocol.

use crate::http::server::tracked::{TrackedWork, WorkOrigin};
use std::sync::{
    Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{
        AtomicBool,
        Ordering::{Acquire, Relaxed, Release},
    },
};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Updated by the service, the connection and the io.
#[derive(Debug, Default)]
pub(crate) struct UpgradeState {
    /// A handler agreed to another protocol. Its response waits until hyper is polled with upgrades
    /// enabled.
    switching: AtomicBool,
    upgraded: AtomicBool,
    /// The new protocol is a long stream.
    is_stream: AtomicBool,
    /// Present while the connection speaks another protocol. Keeps the drain waiting for it.
    upgrade: Mutex<Option<(TaskTrackerToken, TrackedWork)>>,
    /// The request that asked for the upgrade.
    upgrade_origin: OnceLock<WorkOrigin>,
}

impl UpgradeState {
    pub(super) fn set_switching(&self) {
        self.switching.store(true, Relaxed);
    }

    pub(crate) fn take_switching(&self) -> bool {
        self.switching.load(Relaxed) && self.switching.swap(false, Relaxed)
    }

    /// Sets the request that is named as the origin of an upgrade that may follow.
    pub(super) fn set_upgrade_origin(&self, origin: WorkOrigin) {
        let _ = self.upgrade_origin.set(origin);
    }

    /// Makes the new protocol a long stream.
    pub(super) fn begin_stream(&self) {
        self.is_stream.store(true, Relaxed);
    }

    pub(super) fn is_stream(&self) -> bool {
        self.is_stream.load(Relaxed)
    }

    /// Ends the upgrade. Returns true only to the first caller.
    pub(crate) fn end_upgrade(&self) -> bool {
        self.is_upgraded() && self.lock_upgrade().take().is_some()
    }

    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded.load(Acquire)
    }

    /// Whether the connection speaks another protocol, and is still open.
    pub(super) fn is_open(&self) -> bool {
        self.is_upgraded() && self.lock_upgrade().is_some()
    }

    pub(super) fn origin(&self) -> WorkOrigin {
        self.upgrade_origin.get().cloned().unwrap_or(WorkOrigin::Unknown)
    }

    pub(super) fn begin(&self, token: TaskTrackerToken, tracked: TrackedWork) {
        *self.lock_upgrade() = Some((token, tracked));
        self.upgraded.store(true, Release);
    }

    fn lock_upgrade(&self) -> MutexGuard<'_, Option<(TaskTrackerToken, TrackedWork)>> {
        self.upgrade.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
