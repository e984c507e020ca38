//! Lists of what a shutdown waits for: slow requests, tracked work, background tasks.

use super::caps::Cap;
use crate::lifecycle::Moment;
use http::Method;
use slab::Slab;
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

/// Maximum number of characters of a method and of a path in a log line or a report. A client may
/// send as many as its head has, and up to a thousand aborted requests are kept.
const LOGGED_CHARS_MAX: usize = 1_024;

/// The kinds of things that a shutdown waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request without a response head.
    Request,
    /// A response whose body is being sent.
    Stream,
    /// Work that a handler or a background task spawned on its context.
    Work,
    /// A background task of the host.
    Task,
    /// A connection that was upgraded to another protocol.
    Upgrade,
}

impl Kind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Request, Self::Stream, Self::Work, Self::Task, Self::Upgrade];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Stream => "stream",
            Self::Work => "work",
            Self::Task => "task",
            Self::Upgrade => "upgrade",
        }
    }
}

/// A list of entries, each removed by its key.
#[derive(Debug)]
pub(crate) struct Listed<T>(Mutex<Slab<T>>);

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self(Mutex::new(Slab::new()))
    }
}

impl<T: Clone> Listed<T> {
    /// Returns the key that removes the entry.
    pub(crate) fn insert(&self, entry: T) -> u32 {
        u32::try_from(self.lock().insert(entry)).unwrap_or(u32::MAX)
    }

    pub(crate) fn remove(&self, key: u32) {
        let removed = self.lock().try_remove(key as usize);
        drop(removed);
    }

    pub(crate) fn entries(&self) -> Vec<T> {
        self.entries_with(|_| true)
    }

    /// Returns the entries that `which` selects.
    pub(super) fn entries_with(&self, which: impl Fn(&T) -> bool) -> Vec<T> {
        let list = self.lock();
        list.iter().map(|(_, entry)| entry).filter(|entry| which(entry)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Slab<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tracked work of a server.
pub(super) type WorkList = Listed<Arc<Work>>;

/// Tracked work and its name.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) kind: Kind,
    pub(super) origin: WorkOrigin,
    pub(crate) since: Moment,
}

/// Keeps tracked work in the list of its server.
#[derive(Debug)]
pub(crate) struct TrackedWork {
    list: Arc<WorkList>,
    key: u32,
    pub(super) work: Arc<Work>,
}

impl TrackedWork {
    pub(super) fn new(list: &Arc<WorkList>, kind: Kind, origin: WorkOrigin, now: Moment) -> Self {
        let work = Arc::new(Work { kind, origin, since: now });
        Self { list: list.clone(), key: list.insert(work.clone()), work }
    }
}

impl Drop for TrackedWork {
    fn drop(&mut self) {
        self.list.remove(self.key);
    }
}

/// The part of a request's state that other threads read. A worker that does not run is busy with
/// one of its known requests (P3), and a shutdown names those for which it waits (P13).
#[derive(Debug, Default)]
pub(crate) struct KnownRequest {
    /// Whether the handler is being called or polled now.
    is_running: AtomicBool,
    /// Whether the request is in flight and was not served at once.
    is_slow: AtomicBool,
    /// Whether the head of its response counts as sent.
    is_head_sent: AtomicBool,
    arrived: AtomicU64,
    /// The method, and the path without the query.
    name: Mutex<(Method, String)>,
}

impl KnownRequest {
    /// Begins another request, whose handler is called next. The memory of the last path is kept
    /// if it has at most `kept_max` bytes.
    pub(crate) fn begin(&self, arrived: Moment, method: &Method, path: &str, kept_max: Cap) {
        let mut name = self.name();
        if name.0 != *method {
            name.0 = method.clone();
        }
        if kept_max.is_exceeded_by(name.1.capacity()) {
            name.1 = String::new();
        }
        name.1.clear();
        name.1.push_str(path);
        self.arrived.store(arrived.as_nanos(), Relaxed);
        self.is_head_sent.store(false, Relaxed);
        self.is_running.store(true, Relaxed);
    }

    pub(crate) fn set_running(&self, is_running: bool) {
        self.is_running.store(is_running, Relaxed);
    }

    pub(crate) fn set_slow(&self, is_slow: bool) {
        self.is_slow.store(is_slow, Relaxed);
    }

    pub(super) fn is_slow(&self) -> bool {
        self.is_slow.load(Relaxed)
    }

    pub(crate) fn set_head_sent(&self, is_sent: bool) {
        self.is_head_sent.store(is_sent, Relaxed);
    }

    pub(crate) fn is_head_sent(&self) -> bool {
        self.is_head_sent.load(Relaxed)
    }

    pub(super) fn arrived(&self) -> Moment {
        Moment::from_nanos(self.arrived.load(Relaxed))
    }

    /// Locks the method and the path.
    pub(crate) fn name(&self) -> MutexGuard<'_, (Method, String)> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the method and the path for logs and reports, each truncated to
    /// [`LOGGED_CHARS_MAX`].
    pub(crate) fn method_and_path(&self) -> (String, String) {
        logged(&self.name())
    }

    /// Returns the same, unless a request began since the one that arrived then.
    pub(super) fn name_of(&self, arrived: Moment) -> Option<(String, String)> {
        let name = self.name();
        (self.arrived() == arrived).then(|| logged(&name))
    }

    /// Returns the request if its handler is being called or polled now.
    pub(super) fn running(&self) -> Option<RunningRequest> {
        let (method, path) = self.is_running.load(Relaxed).then(|| self.method_and_path())?;
        Some(RunningRequest { method, path, arrived: self.arrived() })
    }
}

fn logged((method, path): &(Method, String)) -> (String, String) {
    (truncated(method.as_str(), LOGGED_CHARS_MAX), truncated(path, LOGGED_CHARS_MAX))
}

/// Returns `text`, of a longer one the first `most` characters and an ellipsis.
pub(super) fn truncated(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A request whose handler is being called or polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunningRequest {
    pub(crate) method: String,
    /// The path without the query.
    pub(crate) path: String,
    pub(crate) arrived: Moment,
}

/// The origin of tracked work, which is its name in the log and in the report.
#[derive(Clone, Debug)]
pub(crate) enum WorkOrigin {
    /// The request whose context spawned it, by method and path.
    Request { method: String, path: String },
    /// A background task, or work that it spawned.
    Task(Arc<str>),
    /// Unknown origin.
    Unknown,
}

impl WorkOrigin {
    pub(crate) fn of_request((method, path): (String, String)) -> Self {
        Self::Request { method, path }
    }

    /// Returns the name of a task without its kind.
    #[cfg(feature = "metrics")]
    pub(super) fn short_name(&self) -> String {
        match self {
            Self::Task(name) => (**name).to_owned(),
            Self::Request { .. } | Self::Unknown => self.to_string(),
        }
    }
}

impl fmt::Display for WorkOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { method, path } => write!(f, "{method} {path}"),
            Self::Task(name) => write!(f, "task {name}"),
            Self::Unknown => f.write_str("(unknown)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Work that had ended was named as what the shutdown waits for, in the log, in `/status` and in
    // the report, and its entry was never freed (P13, P15).
    #[test]
    fn tracked_work_is_listed_until_it_ends() {
        let list = Arc::<WorkList>::default();
        let track = || TrackedWork::new(&list, Kind::Work, WorkOrigin::Unknown, Moment::EPOCH);
        let [first, second] = [track(), track()];
        assert_eq!(list.entries().len(), 2);
        drop(first);
        let [left] = &list.entries()[..] else { panic!("one is left") };
        assert!(Arc::ptr_eq(left, &second.work));
        drop(second);
        assert!(list.entries().is_empty());
    }
}
