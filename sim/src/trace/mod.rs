//! What happened, in order: records for oracles and people, and one hash over them and every byte on the wire (P17).

mod hash;
mod io;
mod record;

pub use hash::Fnv64;
pub use io::TracedIo;
pub use record::{Record, Value};

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// Which way bytes went, seen from the actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The actor got them.
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

/// Tells the virtual time since the world began; `None` while no host runs.
pub(crate) type Now = Box<dyn Fn() -> Option<Duration> + Send>;

/// A trace. Clones are handles to the same one.
///
/// It takes records only while its world runs: what hosts say while they are torn down is not part of the story.
#[derive(Clone)]
pub struct Trace {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    now: Option<Now>,
    last: Duration,
    records: Vec<Record>,
    hash: Fnv64,
    wire_bytes: u64,
    phase_changed: Arc<Notify>,
}

impl Trace {
    /// An empty trace. Its time begins when a world begins to run with it.
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                now: None,
                last: Duration::ZERO,
                records: Vec::new(),
                hash: Fnv64::new(),
                wire_bytes: 0,
                phase_changed: Arc::default(),
            })),
        }
    }

    /// From now on it takes records, stamped by `now`.
    pub(crate) fn begin(&self, now: Now) {
        self.lock().now = Some(now);
    }

    /// From now on it takes none.
    pub(crate) fn end(&self) {
        let now = self.lock().now.take();
        drop(now);
    }

    /// Records that `actor` did or saw `event`.
    pub fn record(&self, actor: &str, event: &'static str, fields: &[(&'static str, Value)]) {
        let mut inner = self.lock();
        let Some(at) = inner.stamp() else { return };
        let record = Record { at, actor: actor.into(), event, fields: fields.to_vec() };
        record.feed(&mut inner.hash);
        inner.records.push(record);
        if event == "phase" {
            inner.phase_changed.notify_one();
        }
    }

    /// Rung when a phase was recorded, for one who waits for it.
    pub(crate) fn phase_changed(&self) -> Arc<Notify> {
        Arc::clone(&self.lock().phase_changed)
    }

    /// The time since the world began; `None` before that and once it is over.
    #[must_use]
    pub fn now(&self) -> Option<Duration> {
        self.lock().stamp()
    }

    /// Adds bytes on the wire to the hash.
    pub fn wire(&self, actor: &str, direction: Direction, bytes: &[u8]) {
        let mut inner = self.lock();
        let Some(at) = inner.stamp() else { return };
        inner.hash.feed_number(micros(at));
        inner.hash.feed_text(actor);
        inner.hash.feed_number(direction.number());
        inner.hash.feed_number(bytes.len() as u64);
        inner.hash.feed(bytes);
        inner.wire_bytes += bytes.len() as u64;
    }

    /// The same, for what has no name but numbers: a packet's addresses and flags, say.
    pub(crate) fn packet(&self, label: &[u64], direction: Direction, bytes: &[u8]) {
        let mut inner = self.lock();
        let Some(at) = inner.stamp() else { return };
        inner.hash.feed_number(micros(at));
        label.iter().for_each(|number| inner.hash.feed_number(*number));
        inner.hash.feed_number(direction.number());
        inner.hash.feed_bulk(bytes);
        inner.wire_bytes += bytes.len() as u64;
    }

    /// The hash of all that was recorded so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lock().hash.value()
    }

    /// How many bytes on the wire went into the hash.
    #[must_use]
    pub fn wire_bytes(&self) -> u64 {
        self.lock().wire_bytes
    }

    /// All records so far, in order.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// The records of one kind of event, in order.
    #[must_use]
    pub fn events(&self, event: &str) -> Vec<Record> {
        self.lock().records.iter().filter(|record| record.event == event).cloned().collect()
    }

    /// One line a record. The same trace gives the same text.
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
