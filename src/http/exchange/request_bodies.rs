//! The request bodies of a connection that handlers hold.

use crate::lifecycle::Moment;
use std::{
    fmt::Debug,
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicU32, AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::Waker,
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
    /// The requests with such bodies. Weak, since the requests refer to the connection.
    awaited: Mutex<Vec<Weak<dyn LateBody>>>,
    /// HTTP/2: the bytes of data that had arrived when the receive windows were last known to be
    /// open.
    pub(super) window_open_at: AtomicU64,
    /// HTTP/2: body bytes that handlers have read since then.
    pub(super) body_bytes_read: AtomicU64,
    /// The body of the last request: [`READ`], [`DROPPED`], or the address of the request while the
    /// body is held and was not read whole. Not used on HTTP/2.
    last: AtomicUsize,
    /// The task of a connection that waits until no body is held.
    waker: Mutex<Option<Waker>>,
    /// The number of times that hyper had to skip such a body in its next poll.
    skips: AtomicU32,
}

/// Value of `last` for a body that was read whole, or for none.
const READ: usize = 0;

/// Value of `last` for a body that was dropped before its end was read.
const DROPPED: usize = 1;

impl RequestBodies {
    /// Records that a request begins. On HTTP/1 hyper has read past the body of the last one.
    pub(super) fn on_request(&self) {
        self.last.store(READ, Relaxed);
    }

    /// Records the body of the request at this address.
    pub(super) fn on_body_held<T>(&self, request: *const T) {
        self.last.store(request.addr(), Relaxed);
        self.bodies_held.fetch_add(1, Relaxed);
    }

    /// Records that the body of the request at this address was read whole.
    pub(super) fn on_body_whole<T>(&self, request: *const T) {
        self.set_last(request, READ);
    }

    /// Records that the body of the request at this address was dropped before its end was read.
    pub(super) fn on_body_unread<T>(&self, request: *const T) {
        self.set_last(request, DROPPED);
        self.on_skip();
    }

    /// A task may hold the body of an earlier request, of which nothing is left to be read.
    fn set_last<T>(&self, request: *const T, body: usize) {
        let _ = self.last.compare_exchange(request.addr(), body, Relaxed, Relaxed);
    }

    /// Records that a body is no longer held.
    pub(super) fn on_body_dropped(&self) {
        if self.bodies_held.fetch_sub(1, Release) == 1 {
            let waker = self.lock_waker().take();
            waker.into_iter().for_each(Waker::wake);
        }
    }

    /// Wakes the task of the connection once no body is held, or at once if that is so.
    pub(crate) fn wake_when_unheld(&self, waker: &Waker) {
        *self.lock_waker() = Some(waker.clone());
        // The last one may have been dropped before.
        if !self.are_bodies_held() {
            waker.wake_by_ref();
        }
    }

    fn lock_waker(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether handlers have read all that has arrived: they wait for more of each body.
    pub(crate) fn are_all_awaited(&self) -> bool {
        self.bodies_awaited.load(Relaxed) >= self.bodies_held.load(Relaxed)
    }

    pub(crate) fn are_bodies_held(&self) -> bool {
        self.bodies_held.load(Acquire) > 0
    }

    /// Records that hyper must be polled again, to skip the rest of a body.
    pub(super) fn on_skip(&self) {
        self.skips.fetch_add(1, Relaxed);
    }

    pub(crate) fn skips(&self) -> u32 {
        self.skips.load(Relaxed)
    }

    /// Whether a handler, or a task of the app, waits for more of a body.
    pub(crate) fn is_any_awaited(&self) -> bool {
        self.bodies_awaited.load(Relaxed) > 0
    }

    fn lock_awaited(&self) -> MutexGuard<'_, Vec<Weak<dyn LateBody>>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request whose body is awaited from now on.
    pub(super) fn on_wait_begun(&self, request: Weak<dyn LateBody>) {
        self.lock_awaited().push(request);
    }

    /// Records that the body of the request at this address is no longer awaited, or that its
    /// client was given up.
    pub(crate) fn on_wait_ended<T: ?Sized>(&self, request: *const T) {
        self.lock_awaited().retain(|known| !ptr::addr_eq(known.as_ptr(), request));
    }

    /// Returns the requests whose bodies are awaited and whose clients were not given up, the last
    /// wait last.
    pub(crate) fn awaited(&self) -> Vec<Arc<dyn LateBody>> {
        self.lock_awaited().iter().filter_map(Weak::upgrade).collect()
    }

    /// HTTP/1: whether the body of the last request was dropped before its end was read.
    pub(super) fn is_last_dropped(&self) -> bool {
        self.last.load(Relaxed) == DROPPED
    }

    /// HTTP/1: whether the body of the last request was not read whole.
    pub(crate) fn is_last_unread(&self) -> bool {
        self.last.load(Relaxed) != READ
    }
}
