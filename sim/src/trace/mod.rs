//! The trace of a run: records in order, for oracles and for people, and one hash over them and
//! every byte on the wire (P17).

mod hash;
mod io;
mod record;

pub use hash::Fnv64;
pub use io::TracedIo;
pub use record::{Record, Value};

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Direction of bytes, from the view of the actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The actor received them.
    Received,
    /// The actor sent them.
    Sent,
}

impl Direction {
    const fn number(self) -> u64 {
        match self {
            Self::Received => 1,
            Self::Sent => 2,
        }
    }
}

/// Returns the simulated time since the start of the world; `None` while no host runs.
pub(crate) type Now = Box<dyn Fn() -> Option<Duration> + Send>;

/// A trace. Clones are handles to the same one.
///
/// It takes records only while its world runs: events from the teardown of the hosts are not part
/// of the run.
#[derive(Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    now: Option<Now>,
    last: Duration,
    records: Vec<Record>,
    actors: BTreeSet<Arc<str>>,
    hash: Fnv64,
    wire_bytes: u64,
    is_payload_hidden: bool,
    state_changed: Arc<Notify>,
    stalled: Duration,
    has_threads: bool,
}

impl Trace {
    /// Creates an empty trace. Its time starts when a world begins to run with it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                now: None,
                last: Duration::ZERO,
                records: Vec::new(),
                actors: BTreeSet::new(),
                hash: Fnv64::new(),
                wire_bytes: 0,
                is_payload_hidden: false,
                state_changed: Arc::default(),
                stalled: Duration::ZERO,
                has_threads: false,
            })),
        }
    }

    /// Starts to take records, with timestamps from `now`.
    pub(crate) fn begin(&self, now: Now) {
        self.lock().now = Some(now);
    }

    /// Ceases to take records.
    pub(crate) fn end(&self) {
        let now = self.lock().now.take();
        drop(now);
    }

    /// Whether events are recorded now.
    pub(crate) fn takes_records(&self) -> bool {
        self.lock().now.is_some()
    }

    /// Records an event that `actor` caused or saw.
    pub fn record(&self, actor: &str, event: &'static str, fields: &[(&'static str, Value)]) {
        let mut inner = self.lock();
        let Some(at) = inner.stamp() else { return };
        let actor = inner.name(actor);
        let record = Record { at, actor, event, fields: fields.into() };
        record.feed(&mut inner.hash);
        inner.records.push(record);
        if event == "phase" {
            inner.state_changed.notify_one();
        }
    }

    /// Returns the `Notify` that is triggered when a phase is recorded, or a check changes or
    /// hangs. It wakes one waiting task.
    pub(crate) fn state_changed(&self) -> Arc<Notify> {
        Arc::clone(&self.lock().state_changed)
    }

    /// Returns the time since the start of the world. Returns `None` before the start and after the
    /// end.
    #[must_use]
    pub fn now(&self) -> Option<Duration> {
        self.lock().stamp()
    }

    /// Notes that the machine let the world wait for `span`. Of several, the longest counts.
    pub(crate) fn note_stall(&self, span: Duration) {
        let mut inner = self.lock();
        inner.stalled = inner.stalled.max(span);
    }

    /// Returns the longest time for which the machine let the world wait.
    pub(crate) fn stalled(&self) -> Duration {
        self.lock().stalled
    }

    /// Notes that a thread of `spawn_blocking` ran.
    pub(crate) fn note_thread(&self) {
        self.lock().has_threads = true;
    }

    /// Whether a thread of `spawn_blocking` ran: what happened may then have another order in
    /// another run. Known only on turmoil-net.
    pub(crate) fn has_threads(&self) -> bool {
        self.lock().has_threads
    }

    /// From now on the hash contains the lengths of what is on the wire, and no bytes: those of a
    /// run with TLS differ from run to run.
    pub fn hide_payload(&self) {
        self.lock().is_payload_hidden = true;
    }

    /// Adds bytes on the wire to the hash.
    pub fn wire(&self, actor: &str, direction: Direction, bytes: &[u8]) {
        let mut inner = self.lock();
        let Some(at) = inner.stamp() else { return };
        inner.hash.feed_number(micros(at));
        inner.hash.feed_text(actor);
        inner.note_payload(direction, bytes);
    }

    /// The same for traffic of the time `at` that is labelled by numbers, such as a packet with its
    /// addresses and flags.
    pub(crate) fn packet(&self, at: Duration, label: &[u64], direction: Direction, bytes: &[u8]) {
        let mut inner = self.lock();
        if inner.now.is_none() {
            return;
        }
        inner.last = at;
        inner.hash.feed_number(micros(at));
        label.iter().for_each(|number| inner.hash.feed_number(*number));
        inner.note_payload(direction, bytes);
    }

    /// Returns the hash of everything recorded until now.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hash.value()
    }

    /// Returns the number of wire bytes in the hash.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        self.lock().wire_bytes
    }

    /// Returns all records until now, in order.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// Returns the records of one kind of event, in order.
    #[must_use]
    pub fn events(&self, event: &str) -> Vec<Record> {
        self.lock().records.iter().filter(|record| record.event == event).cloned().collect()
    }

    /// Returns the records as text, one per line. Equal traces give equal text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for record in &self.lock().records {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{record}");
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Trace")
            .field("records", &inner.records.len())
            .field("hash", &format_args!("{:016x}", inner.hash.value()))
            .finish()
    }
}

impl Inner {
    /// Returns the name of an actor, as all its records share it.
    fn name(&mut self, actor: &str) -> Arc<str> {
        if let Some(known) = self.actors.get(actor) {
            return Arc::clone(known);
        }
        let name: Arc<str> = actor.into();
        self.actors.insert(Arc::clone(&name));
        name
    }

    /// Adds bytes on the wire to the hash, or only their length.
    fn note_payload(&mut self, direction: Direction, bytes: &[u8]) {
        self.hash.feed_number(direction.number());
        if self.is_payload_hidden {
            self.hash.feed_number(bytes.len() as u64);
        } else {
            self.hash.feed_bulk(bytes);
        }
        self.wire_bytes += bytes.len() as u64;
    }

    fn stamp(&mut self) -> Option<Duration> {
        let now = self.now.as_ref()?;
        if let Some(now) = now() {
            self.last = now;
        }
        Some(self.last)
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
