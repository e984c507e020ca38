//! The requests, streams, tracked work and background tasks that a shutdown waits for, by name
//! (P13).
//!
//! Only slow ones are listed: a handler from its first wait on, a body from its first chunk on. A
//! request that is served at once is counted only, and costs nothing here.

use super::{
    state::{ServerState, millis},
    tracked::{Kind, KnownRequest, Work, truncated},
};
use crate::lifecycle::Moment;
use serde_json::{Value, json};
use std::{fmt, sync::Arc, time::Duration};

/// One request, stream, work or task that a shutdown waits for.
#[derive(Clone, Debug)]
pub(super) struct OutstandingItem {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) age: Duration,
}

/// All that a shutdown waits for: the number of each kind, and the oldest by name.
#[derive(Clone, Debug)]
pub(crate) struct Outstanding {
    /// The number of each kind, in the order of [`Kind::ALL`].
    pub(crate) counts: [u64; Kind::ALL.len()],
    /// The age of the oldest listed entry of each kind.
    pub(crate) oldest_ages: [Duration; Kind::ALL.len()],
    /// At most `named_max` entries, the oldest first.
    pub(super) oldest: Vec<OutstandingItem>,
}

/// An entry whose name is not rendered yet. Only the oldest entries get one.
enum Entry {
    Request(Arc<KnownRequest>),
    Work(Arc<Work>),
}

impl Outstanding {
    pub(crate) fn of(server: &ServerState) -> Self {
        let now = server.clock.now();
        let mut entries: Vec<(Moment, Kind, Entry)> = Vec::new();
        for worker in server.metrics.workers() {
            entries.extend(worker.slow().into_iter().map(|request| {
                let kind = if request.is_head_sent() { Kind::Stream } else { Kind::Request };
                (request.arrived(), kind, Entry::Request(request))
            }));
        }
        entries.extend(
            server
                .work
                .entries()
                .into_iter()
                .map(|work| (work.since, work.kind, Entry::Work(work))),
        );
        let mut counts = [0; Kind::ALL.len()];
        let mut oldest_ages = [Duration::ZERO; Kind::ALL.len()];
        for (since, kind, _) in &entries {
            counts[*kind as usize] += 1;
            let oldest = &mut oldest_ages[*kind as usize];
            *oldest = now.since(*since).max(*oldest);
        }
        // Requests in flight that are not listed count as requests.
        let in_flight = server.metrics.requests().in_flight();
        counts[0] = in_flight.saturating_sub(counts[Kind::Stream as usize]).max(counts[0]);
        entries.sort_by_key(|(since, ..)| *since);
        let caps = server.caps();
        caps.named_max.note(entries.len());
        entries.truncate(caps.named_max.get());
        let truncated = |name: &str| {
            caps.name_chars_max.note(name.chars().count());
            truncated(name, caps.name_chars_max.get())
        };
        let named = |(since, kind, entry): (Moment, Kind, Entry)| {
            let name = match entry {
                Entry::Request(request) => {
                    // It may have ended in the meantime.
                    let (method, path) = request.name_of(since)?;
                    truncated(&format!("{method} {path}"))
                }
                Entry::Work(work) => truncated(&work.origin.to_string()),
            };
            Some(OutstandingItem { kind, name, age: now.since(since) })
        };
        Self { counts, oldest_ages, oldest: entries.into_iter().filter_map(named).collect() }
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the JSON form for the status.
    pub(crate) fn to_json(&self) -> Value {
        let by_kind: serde_json::Map<String, Value> = Kind::ALL
            .iter()
            .zip(self.counts)
            .map(|(kind, count)| (kind.name().to_owned(), count.into()))
            .collect();
        let oldest: Vec<Value> = self
            .oldest
            .iter()
            .map(|waited| {
                let age = millis(waited.age);
                json!({"kind": waited.kind.name(), "name": waited.name, "age_ms": age})
            })
            .collect();
        let ages: serde_json::Map<String, Value> = Kind::ALL
            .iter()
            .zip(self.oldest_ages)
            .map(|(kind, age)| (kind.name().to_owned(), millis(age).into()))
            .collect();
        json!({"total": self.total(), "by_kind": by_kind, "oldest_age_ms": ages, "oldest": oldest})
    }

    /// Returns the text for the log; `None` if nothing is outstanding.
    pub(crate) fn to_text(&self) -> Option<String> {
        (self.total() > 0).then(|| self.to_string())
    }

    /// Returns the names and ages of the running background tasks, oldest first.
    #[cfg(feature = "metrics")]
    pub(crate) fn tasks_of(server: &ServerState) -> Vec<(String, Duration)> {
        let now = server.clock.now();
        let mut tasks: Vec<_> =
            server.work.entries().into_iter().filter(|work| work.kind == Kind::Task).collect();
        tasks.sort_by_key(|work| work.since);
        let named = |work: &Arc<Work>| (work.origin.short_name(), now.since(work.since));
        tasks.iter().map(named).collect()
    }
}

impl fmt::Display for Outstanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, OutstandingItem { kind, name, age }) in self.oldest.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            write!(f, "{separator}{name} ({}, {}ms)", kind.name(), millis(*age))?;
        }
        match (self.oldest.len(), self.total().saturating_sub(self.oldest.len() as u64)) {
            (_, 0) => Ok(()),
            (0, unnamed) => write!(f, "{unnamed} requests"),
            (_, more) => write!(f, " and {more} more"),
        }
    }
}
