//! Queue of idle connections, from their tasks into the worker's [idle set](super::idle_set).

use super::{lingering::Race, transition::ReceivedAny};
use crate::{
    http::server::{
        announcement::Announcement,
        idle_policy::{Awaited, Idle},
    },
    lifecycle::Moment,
    runtime::Address,
};
use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};
use tokio::sync::Notify;

/// State kept of a connection in the idle set, in addition to its socket.
#[derive(Debug)]
pub(super) struct IdleInfo {
    /// When its wait began: the accept, if the client has not sent a request yet.
    pub(crate) since: Moment,
    pub(crate) peer: Address,
    pub(crate) local: Arc<Address>,
    pub(super) received_any: ReceivedAny,
    pub(crate) announcement: Announcement,
    /// Whether a response began since the stop request.
    pub(super) responded: bool,
    // The rest is here, where it takes no more memory.
    /// Whether the client has acknowledged the last response; it may have, if not.
    pub(super) delivered: bool,
    pub(super) state: IdleState,
    /// Bytes that were written since the connection began, at most `u32::MAX`.
    pub(super) sent: u32,
}

/// The state of a connection in the idle set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdleState {
    Waiting,
    /// Our side is shut since `IdleInfo::since`; a request that crossed the FIN is looked for.
    Closing(Race),
}

/// Returns a number of bytes as [`IdleInfo`] keeps it.
pub(super) fn saturated(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl IdleInfo {
    pub(super) const fn idle(&self) -> Idle {
        let awaited = match self.received_any {
            ReceivedAny::No | ReceivedAny::Handshake => Awaited::FirstByte,
            ReceivedAny::Yes => Awaited::NextRequest,
        };
        Idle { awaited, since: self.since }
    }

    /// Whether our side is shut, and the client may not have acknowledged all of the last response.
    pub(super) fn awaits_acknowledgement(&self) -> bool {
        matches!(self.state, IdleState::Closing(_))
            && !self.delivered
            && self.received_any != ReceivedAny::No
    }
}

/// Queue from the connections' tasks into the idle set.
#[derive(Debug)]
pub(crate) struct IdleHandoff<T> {
    open: AtomicBool,
    waiting: Mutex<Vec<(T, IdleInfo)>>,
    arrived: Notify,
}

impl<T> IdleHandoff<T> {
    pub(super) fn new(open: bool) -> Self {
        Self { open: AtomicBool::new(open), waiting: Mutex::default(), arrived: Notify::new() }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Relaxed)
    }

    /// Adds a connection. From now on the idle set is responsible for it.
    ///
    /// # Errors
    /// The connection, if the queue is closed.
    pub(super) fn push(&self, io: T, info: IdleInfo) -> Result<(), T> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_open() {
            return Err(io);
        }
        waiting.push((io, info));
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// Ready when connections were added.
    pub(crate) async fn ready(&self) {
        self.arrived.notified().await;
    }

    pub(super) fn take(&self) -> Vec<(T, IdleInfo)> {
        mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes the queue. Returns the connections in it.
    pub(super) fn close(&self) -> Vec<(T, IdleInfo)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.open.store(false, Relaxed);
        mem::take(&mut *waiting)
    }
}
