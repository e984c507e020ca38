//! The request bodies of a connection that handlers hold.

use crate::lifecycle::Moment;
use std::{
    fmt::Debug,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
};

/// A request whose body may be read after the response has ended.
pub(crate) trait LateBody: Debug + Send + Sync {
    /// Checks the wait for more of the body. Its time began at `since`: the response has ended, or
    /// bytes have arrived. Returns the next check; `None` if the client has delayed its body for
    /// too long.
    fn next_check(&self, since: Moment, now: Moment) -> Option<Moment>;
}

/// Updated by the bodies as handlers read and drop them.
#[derive(Debug, Default)]
pub(crate) struct RequestBodies {
    /// Request bodies that were not dropped yet, on HTTP/2 without those that were read whole.
    pub(super) bodies_held: AtomicU32,
    /// Request bodies of which handlers wait for more bytes.
    pub(super) bodies_awaited: AtomicU32,
    /// HTTP/2: the number of such waits that have begun.
    waits_begun: AtomicU32,
    /// HTTP/2: the bytes of data that had arrived when the last of them began.
    data_at_wait: AtomicU64,
    /// HTTP/1: the request with such a body. Weak, since the request refers to the connection.
    awaited: Mutex<Option<Weak<dyn LateBody>>>,
    /// HTTP/2: the bytes of data that had arrived when the receive windows were last known to be
    /// open.
    pub(super) window_open_at: AtomicU64,
    /// HTTP/2: body bytes that handlers have read since then.
    pub(super) body_bytes_read: AtomicU64,
    /// A request body was dropped before its end was read.
    pub(super) body_unread: AtomicBool,
    /// The number of such bodies.
    bodies_abandoned: AtomicU32,
}

impl RequestBodies {
    pub(super) fn on_body_held(&self) {
        self.bodies_held.fetch_add(1, Relaxed);
    }

    pub(super) fn on_body_dropped(&self, unread: bool) {
        if unread {
            self.body_unread.store(true, Relaxed);
            self.bodies_abandoned.fetch_add(1, Relaxed);
        }
        self.bodies_held.fetch_sub(1, Relaxed);
    }

    /// Whether handlers have read all that has arrived: they wait for more of each body.
    pub(super) fn are_all_awaited(&self) -> bool {
        self.bodies_awaited.load(Relaxed) >= self.bodies_held.load(Relaxed)
    }

    pub(crate) fn are_bodies_held(&self) -> bool {
        self.bodies_held.load(Relaxed) > 0
    }

    pub(crate) fn abandoned(&self) -> u32 {
        self.bodies_abandoned.load(Relaxed)
    }

    /// Whether a handler, or a task of the app, waits for more of a body.
    pub(crate) fn is_any_awaited(&self) -> bool {
        self.bodies_awaited.load(Relaxed) > 0
    }

    /// HTTP/2: records that such a wait begins, and the bytes of data that have arrived.
    pub(super) fn on_wait_begun(&self, data: u64) {
        self.waits_begun.fetch_add(1, Relaxed);
        self.data_at_wait.store(data, Relaxed);
    }

    /// HTTP/2: returns the number of the last wait, if there is one now, and the bytes of data that
    /// had arrived when it began.
    pub(crate) fn last_wait(&self) -> Option<(u32, u64)> {
        let last = || (self.waits_begun.load(Relaxed), self.data_at_wait.load(Relaxed));
        self.is_any_awaited().then(last)
    }

    /// HTTP/1: records the request whose body is awaited, if any.
    pub(super) fn set_awaited(&self, request: Option<Weak<dyn LateBody>>) {
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = request;
    }

    /// HTTP/1: returns the request whose body is awaited.
    pub(crate) fn awaited(&self) -> Option<Arc<dyn LateBody>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.upgrade()
    }

    pub(crate) fn is_body_unread(&self) -> bool {
        self.body_unread.load(Relaxed)
    }
}
