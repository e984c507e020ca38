//! Records the log events of a host, with the world's time.
//!
//! The host logs one line per phase change, with stable fields. These become `phase` records; every
//! other event becomes a `log` record. The host needs no test hook for this, and the trace holds
//! only what an operator could see.

use crate::trace::{Trace, Value};
use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Returns a subscriber that records the events of one process, called `actor` in the trace. Attach
/// it to the process's future with [`WithSubscriber`](tracing::instrument::WithSubscriber).
#[must_use]
pub(crate) fn observer(actor: &str, trace: Trace) -> Dispatch {
    static KEEP_ENABLED: OnceLock<[Dispatch; 2]> = OnceLock::new();
    // While exactly one subscriber exists, tracing caches a call site's interest from the thread
    // that reaches the site first. A thread without this subscriber would thereby disable the site
    // for this one too. Two permanent subscribers that are interested in everything prevent that.
    KEEP_ENABLED.get_or_init(|| [Dispatch::new(NullSubscriber), Dispatch::new(NullSubscriber)]);
    Dispatch::new(Observer { actor: actor.to_owned(), trace, spans: AtomicU64::new(1) })
}

struct Observer {
    actor: String,
    trace: Trace,
    spans: AtomicU64,
}

impl Subscriber for Observer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_enabled(metadata)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(self.spans.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut said = ErrorKind::default();
        event.record(&mut said);
        match said.fields.iter().find(|(name, _)| *name == "phase") {
            // The log line about the effect of a signal has a `phase` too; only phase changes have
            // `in_flight`.
            Some(_) if said.fields.iter().any(|(name, _)| *name == "in_flight") => {
                self.trace.record(&self.actor, "phase", &said.fields);
            }
            Some(_) | None => {
                said.fields.push(("message", said.message.into()));
                self.trace.record(&self.actor, "log", &said.fields);
            }
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Keeps call sites enabled and discards their events.
struct NullSubscriber;

impl Subscriber for NullSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_enabled(metadata)
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Selects lameduck's own events, not those of its libraries.
fn is_enabled(metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
        && metadata.target().starts_with("lameduck")
        && *metadata.level() <= tracing::Level::INFO
}

#[derive(Default)]
struct ErrorKind {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl ErrorKind {
    fn note(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::Text(message)) => self.message = message,
            // The whole report is recorded separately.
            ("report", _) => {}
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for ErrorKind {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.note(field, value.into());
    }
}
