//! Lists of what a shutdown waits for: slow requests, tracked work, background tasks.

use crate::lifecycle::Moment;
use slab::Slab;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

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
        self.lock().iter().map(|(_, entry)| entry.clone()).collect()
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

/// A request whose state exists. A worker that does not run is busy with one of them (P3).
pub(crate) trait KnownRequest: fmt::Debug + Send + Sync {
    /// The request, if its handler is being called or polled now.
    fn running(&self) -> Option<RunningRequest>;

    /// Cancels the context of the request, unless it is a long stream.
    fn cancel_ordinary(&self);
}

/// A request whose handler is being called or polled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunningRequest {
    pub(crate) method: String,
    /// The path without the query.
    pub(crate) path: String,
    pub(crate) arrived: Moment,
}

/// A request that is not served at once.
pub(crate) trait SlowRequest: fmt::Debug + Send + Sync {
    fn arrived(&self) -> Moment;

    fn is_head_sent(&self) -> bool;

    /// The method, and the path without the query.
    fn method_and_path(&self) -> (&str, &str);
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
    pub(crate) fn of_request((method, path): (&str, &str)) -> Self {
        Self::Request { method: method.to_owned(), path: path.to_owned() }
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
