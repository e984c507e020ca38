//! Faults at a server's end of any simulated network: reads and writes that move only a part of the
//! bytes, accepts that fail, connections that are reset on the way.
//!
//! Only the main server is faulty. The internal server has reserved descriptors (P16), and the
//! prober needs it to judge a shutdown.

mod stream;

pub use stream::FaultyStream;

use super::{idle_poller::PolledIdlePoller, spread::SpreadListener, stalls::Stalls};
use crate::trace::Trace;
use lameduck::runtime::{
    Address, ListenAddress, Listener, Network, QuiesceOutcome, Reservation, Seed, ServerRole,
};
use std::{
    collections::VecDeque,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

/// Accept errors allowed in one instant. More of them mean a retry loop without a pause.
const ERRORS_AN_INSTANT: u64 = 1_000;

/// Partial reads, and partial writes, per connection. The limit keeps large transfers short.
const PARTIAL_IO_MAX: u32 = 48;

/// The faults of one host.
#[derive(Debug)]
pub struct Faults {
    name: String,
    trace: Trace,
    seed: Seed,
    draws: AtomicU64,
    /// The most bytes that a read or a write moves; `None` for no limit.
    part_max: Option<usize>,
    /// Spans in which accepts fail because descriptors have run out: from, until.
    out_of_descriptors: Vec<(Duration, Duration)>,
    /// Each accept fails once before it succeeds, as if a client had aborted its connection first.
    accepts_aborted: bool,
    /// Time of the last failed accept, and the number of failures at that time.
    failed: Mutex<(Duration, u64)>,
    stalls: Arc<Stalls>,
    /// Whether each listener of an address can be sealed alone.
    seals_apart: bool,
    breakable: Mutex<Vec<Weak<dyn Break>>>,
    /// Connections that were accepted and not dropped yet.
    open: AtomicUsize,
    connections_max: Option<usize>,
}

impl Faults {
    /// Creates the state without faults, for the host called `name`.
    #[must_use]
    pub fn new(name: impl Into<String>, trace: Trace, seed: Seed) -> Self {
        Self {
            name: name.into(),
            stalls: Arc::new(Stalls::new(trace.clone(), Vec::new())),
            seals_apart: true,
            trace,
            seed,
            draws: AtomicU64::new(0),
            part_max: None,
            out_of_descriptors: Vec::new(),
            accepts_aborted: false,
            failed: Mutex::default(),
            breakable: Mutex::default(),
            open: AtomicUsize::new(0),
            connections_max: None,
        }
    }

    /// Makes the first reads and writes of each connection move at most `bytes_max` bytes, and
    /// sometimes none.
    pub const fn partial_io(&mut self, bytes_max: usize) {
        self.part_max = Some(bytes_max);
    }

    /// Makes accepts fail from `from` until `until`, in the world's time.
    pub fn fail_accepts(&mut self, from: Duration, until: Duration) {
        self.out_of_descriptors.push((from, until));
    }

    /// Makes each accept fail once before it succeeds.
    pub const fn abort_accepts(&mut self) {
        self.accepts_aborted = true;
    }

    /// Stalls workers.
    pub fn stall(&mut self, stalls: Arc<Stalls>) {
        self.stalls = stalls;
    }

    /// Makes accepts that exceed the host's limit be recorded.
    pub const fn record_above(&mut self, connections_max: usize) {
        self.connections_max = Some(connections_max);
    }

    /// Makes listeners report that they cannot be sealed.
    pub const fn without_seals(&mut self) {
        self.seals_apart = false;
    }

    /// Resets every open connection, at both ends. The host finds every second one out by its next
    /// write, as if the reset had come between a read and that write.
    pub fn reset_all(&self) {
        let all = std::mem::take(&mut *lock(&self.breakable));
        let all = all.iter().filter_map(Weak::upgrade).enumerate();
        let broken = all
            .filter(|(n, io)| if n.is_multiple_of(2) { io.reset() } else { io.reset_at_a_write() });
        let broken = broken.count();
        self.trace.record(&self.name, "all reset", &[("connections", broken.into())]);
    }

    /// Returns how many of `bytes` are moved now; `None` if the call must return `Pending`.
    pub(super) fn part_of(&self, bytes: usize, part_max: &mut u32) -> Option<usize> {
        let Some(most) = self.part_max.filter(|_| *part_max < PARTIAL_IO_MAX) else {
            return Some(bytes);
        };
        *part_max += 1;
        let chance = self.seed.nth(self.draws.fetch_add(1, Relaxed)) >> 8;
        if chance.is_multiple_of(5) {
            return None;
        }
        let part = 1 + usize::try_from(chance / 5).unwrap_or(0) % most.max(1);
        Some(part.min(bytes))
    }

    /// Makes [`reset_all`](Self::reset_all) reset this connection, too.
    pub(super) fn watch(&self, connection: Weak<dyn Break>) {
        lock(&self.breakable).push(connection);
    }

    fn is_out_of_descriptors(&self) -> bool {
        let Some(now) = self.trace.now() else { return false };
        self.out_of_descriptors.iter().any(|(from, until)| *from <= now && now < *until)
    }

    /// Records a failed accept.
    ///
    /// # Panics
    /// If accepts are retried without a pause (P15), in which case the world's time would not
    /// advance.
    fn note_failed(&self, how: &'static str) {
        let now = self.trace.now().unwrap_or_default();
        let mut failed = lock(&self.failed);
        *failed = if failed.0 == now { (now, failed.1 + 1) } else { (now, 1) };
        assert!(
            failed.1 < ERRORS_AN_INSTANT,
            "P15: accepts that fail are tried again without a pause"
        );
        drop(failed);
        self.trace.record(&self.name, "accept failed", &[("how", how.into())]);
    }

    fn note_accepted(&self) {
        let open = self.open.fetch_add(1, Relaxed) + 1;
        if self.connections_max.is_some_and(|most| open > most) {
            let open = [("open", open.into())];
            self.trace.record(&self.name, "accepted above the limit", &open);
        }
    }

    fn note_closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }
}

/// A connection that can be reset by [`Faults::reset_all`].
pub(super) trait Break: fmt::Debug + Send + Sync {
    /// Resets the connection. Returns false if that has already happened.
    fn reset(&self) -> bool;
    /// The same at the next write of the host, where a network can delay it.
    fn reset_at_a_write(&self) -> bool {
        self.reset()
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A network with faults at the main server.
#[derive(Clone, Debug)]
pub struct FaultyNetwork<N> {
    inner: N,
    faults: Arc<Faults>,
}

impl<N> FaultyNetwork<N> {
    /// Wraps `inner`.
    pub const fn new(inner: N, faults: Arc<Faults>) -> Self {
        Self { inner, faults }
    }
}

impl<N: Network> Network for FaultyNetwork<N> {
    type Listener = FaultyListener<N::Listener>;
    type Reservation = FaultyReservation<N::Reservation>;

    fn reserve(
        &self,
        address: &ListenAddress,
        role: ServerRole,
        listeners: usize,
    ) -> io::Result<Self::Reservation> {
        let inner = self.inner.reserve(address, role, 1)?;
        let faults = (role == ServerRole::Main).then(|| Arc::clone(&self.faults));
        Ok(FaultyReservation { inner, listeners, faults })
    }
}

/// A port of a [`FaultyNetwork`].
#[derive(Debug)]
pub struct FaultyReservation<R> {
    inner: R,
    listeners: usize,
    faults: Option<Arc<Faults>>,
}

impl<R: Reservation> Reservation for FaultyReservation<R> {
    type Listener = FaultyListener<R::Listener>;

    fn local(&self) -> Address {
        self.inner.local()
    }

    async fn listen(self) -> io::Result<Vec<Self::Listener>> {
        let faults = self.faults;
        let Some(inner) = self.inner.listen().await?.pop() else { return Ok(Vec::new()) };
        let seed = faults.as_ref().map_or(Seed(0), |faults| Seed(faults.seed.nth(0x59_2ead)));
        let seals_apart = faults.as_ref().is_none_or(|faults| faults.seals_apart);
        let listeners = SpreadListener::share(inner, self.listeners, seed, seals_apart);
        Ok(listeners
            .into_iter()
            .enumerate()
            .map(|(worker, inner)| FaultyListener {
                inner,
                worker,
                faults: faults.clone(),
                waiting: VecDeque::new(),
            })
            .collect())
    }
}

/// A listener of a [`FaultyNetwork`].
pub struct FaultyListener<L: Listener> {
    inner: SpreadListener<L>,
    /// Index of the worker that accepts from it.
    worker: usize,
    faults: Option<Arc<Faults>>,
    /// Connections taken from the inner listener and held back because an accept failed.
    waiting: VecDeque<(FaultyStream<L::Io>, Address)>,
}

impl<L: Listener> FaultyListener<L> {
    /// Records what becomes of this listener, if its address has several.
    fn record(&self, event: &'static str) {
        if let Some(faults) = self.faults.as_ref().filter(|_| self.inner.is_one_of_several()) {
            let fields = [
                ("worker", self.worker.into()),
                ("address", self.inner.local().to_string().into()),
            ];
            faults.trace.record(&faults.name, event, &fields);
        }
    }
}

impl<L: Listener> Drop for FaultyListener<L> {
    fn drop(&mut self) {
        self.record("listener closed");
    }
}

impl<L: Listener> fmt::Debug for FaultyListener<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyListener")
            .field("inner", &self.inner)
            .field("faults", &self.faults)
            .finish_non_exhaustive()
    }
}

impl<L: Listener> Listener for FaultyListener<L> {
    type Io = FaultyStream<L::Io>;
    type IdlePoller = PolledIdlePoller<FaultyStream<L::Io>>;

    /// Only on the main server, as in production.
    fn idle_poller(&self) -> Option<Self::IdlePoller> {
        self.faults.as_ref().map(|_| PolledIdlePoller::new())
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Io, Address)>> {
        if let Some(faults) = &self.faults {
            ready!(faults.stalls.poll_runs(self.worker, cx));
        }
        let fresh = self.waiting.is_empty();
        if fresh {
            match self.inner.poll_accept(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Ready(Ok((io, peer))) => {
                    let io = FaultyStream::new(io, self.worker, self.faults.clone());
                    self.waiting.push_back((io, peer));
                }
            }
        }
        if let Some(faults) = &self.faults {
            // `io::ErrorKind` has no variant for EMFILE.
            if faults.is_out_of_descriptors() {
                faults.note_failed("descriptors");
                return Poll::Ready(Err(io::Error::other("too many open files")));
            }
            if fresh && faults.accepts_aborted {
                faults.note_failed("aborted");
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        }
        match self.waiting.pop_front() {
            Some((mut io, peer)) => {
                io.note_accepted();
                if let Some(faults) =
                    self.faults.as_ref().filter(|_| self.inner.is_one_of_several())
                {
                    let worker = [("worker", self.worker.into())];
                    faults.trace.record(&faults.name, "accepted", &worker);
                }
                Poll::Ready(Ok((io, peer)))
            }
            None => Poll::Pending,
        }
    }

    fn local(&self) -> Address {
        self.inner.local()
    }

    fn quiesce(&mut self) -> QuiesceOutcome {
        self.record("listener sealed");
        self.inner.quiesce()
    }

    fn handshakes(&self) -> Option<usize> {
        self.inner.handshakes()
    }
}
