//! One listener of a simulated network as several, each with its own queue and its own waker, as
//! sockets of one `SO_REUSEPORT` group have them.
//!
//! The seed decides which listener gets a connection. A listener that is dropped resets the
//! connections in its queue, as the kernel does.

use lameduck::runtime::{Address, Listener, QuiesceOutcome, Seed, Transport};
use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::task::AbortHandle;

/// One of several listeners on an address.
pub(super) struct SpreadListener<L: Listener> {
    group: Arc<Group<L>>,
    index: usize,
}

/// The listeners on one address.
struct Group<L: Listener> {
    state: Mutex<State<L>>,
    distributor: Mutex<Option<AbortHandle>>,
}

struct State<L: Listener> {
    inner: L,
    seed: Seed,
    accepted: u64,
    /// The waker of the task that distributes connections.
    distributor: Waker,
    queues: Vec<Queue<L::Io>>,
    /// Whether each of the listeners can be sealed alone.
    seals_apart: bool,
}

struct Queue<T> {
    waiting: VecDeque<io::Result<(T, Address)>>,
    waker: Option<Waker>,
    state: QueueState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum QueueState {
    Open,
    Sealed,
    Closed,
}

impl<L: Listener> State<L> {
    /// Moves the connections that are complete into the queues.
    fn distribute(&mut self) {
        let distributor = self.distributor.clone();
        let cx = &mut Context::from_waker(&distributor);
        while let Poll::Ready(accepted) = self.inner.poll_accept(cx) {
            // A sealed listener gets no new connection while another one is open.
            let least = self.queues.iter().map(|queue| queue.state).min();
            let among: Vec<usize> = (0..self.queues.len())
                .filter(|index| Some(self.queues[*index].state) == least)
                .collect();
            let number = self.seed.nth(self.accepted) as usize % among.len().max(1);
            self.accepted += 1;
            let queue = &mut self.queues[among[number]];
            queue.waiting.push_back(accepted);
            if let Some(waker) = queue.waker.take() {
                waker.wake();
            }
        }
    }
}

impl<L: Listener> Group<L> {
    fn lock(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L: Listener> SpreadListener<L> {
    /// Shares `inner` among `count` listeners. `seals_apart`: whether they can be sealed. Must be
    /// called in the runtime of the world.
    pub(super) fn share(inner: L, count: usize, seed: Seed, seals_apart: bool) -> Vec<Self> {
        let queue = |_| Queue { waiting: VecDeque::new(), waker: None, state: QueueState::Open };
        let queues = (0..count.max(1)).map(queue).collect();
        let distributor = Waker::noop().clone();
        let state =
            Mutex::new(State { inner, seed, accepted: 0, distributor, queues, seals_apart });
        let group = Arc::new(Group { state, distributor: Mutex::new(None) });
        if count > 1 {
            let handle = distribute(&group);
            *group.distributor.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        }
        (0..count.max(1)).map(|index| Self { group: Arc::clone(&group), index }).collect()
    }

    pub(super) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(L::Io, Address)>> {
        let mut state = self.group.lock();
        if state.queues.len() == 1 {
            return state.inner.poll_accept(cx);
        }
        // The distributor may not have had its turn since the kernel completed a connection.
        state.distribute();
        let queue = &mut state.queues[self.index];
        match queue.waiting.pop_front() {
            Some(accepted) => Poll::Ready(accepted),
            None => {
                queue.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(super) fn local(&self) -> Address {
        self.group.lock().inner.local()
    }

    pub(super) fn is_one_of_several(&self) -> bool {
        self.group.lock().queues.len() > 1
    }

    /// Seals this listener. The address is sealed with the last one.
    pub(super) fn quiesce(&self) -> QuiesceOutcome {
        let mut state = self.group.lock();
        state.queues[self.index].state = QueueState::Sealed;
        if !state.seals_apart || state.queues.iter().all(|queue| queue.state >= QueueState::Sealed)
        {
            return state.inner.quiesce();
        }
        QuiesceOutcome::Sealed
    }

    pub(super) fn handshakes(&self) -> Option<usize> {
        self.group.lock().inner.handshakes()
    }
}

#[expect(clippy::disallowed_methods, reason = "the kernel of the world, not the host under test")]
fn distribute<L: Listener>(group: &Arc<Group<L>>) -> AbortHandle {
    let weak = Arc::downgrade(group);
    tokio::spawn(poll_fn(move |cx| {
        let Some(group) = weak.upgrade() else { return Poll::Ready(()) };
        let mut state = group.lock();
        state.distributor = cx.waker().clone();
        state.distribute();
        Poll::Pending
    }))
    .abort_handle()
}

impl<L: Listener> Drop for SpreadListener<L> {
    fn drop(&mut self) {
        let mut state = self.group.lock();
        let queue = &mut state.queues[self.index];
        queue.state = QueueState::Closed;
        let waiting = mem::take(&mut queue.waiting);
        drop(state);
        for (mut io, _) in waiting.into_iter().flatten() {
            io.reset_on_drop();
        }
    }
}

impl<L: Listener> Drop for Group<L> {
    fn drop(&mut self) {
        let handle = self.distributor.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = handle.take() {
            handle.abort();
        }
    }
}

impl<L: Listener> fmt::Debug for SpreadListener<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpreadListener").field("index", &self.index).finish_non_exhaustive()
    }
}
