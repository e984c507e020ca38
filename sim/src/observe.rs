//! What a host says while it lives, as records: its log events, with the world's time instead of a clock's.
//!
//! The host logs one line a phase change, with stable fields. Here these become `phase` records; everything else it says
//! becomes a `log` record. The product needs no seam for it, and nothing is seen that an operator could not see.

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

/// Listens to one process, called `actor` in the trace. Give it to the process's future with
/// [`WithSubscriber`](tracing::instrument::WithSubscriber).
#[must_use]
pub(crate) fn observer(actor: &str, trace: Trace) -> Dispatch {
    static COMPANY: OnceLock<[Dispatch; 2]> = OnceLock::new();
    // While exactly one subscriber lives, tracing decides whether a call site is of interest by asking the thread that comes to
    // it first, and remembers the answer: a thread that does not listen would make this one deaf. Two that live for ever
    // and are interested in everything keep it from doing so.
    COMPANY.get_or_init(|| [Dispatch::new(NullSubscriber), Dispatch::new(NullSubscriber)]);
    Dispatch::new(Observer { actor: actor.to_owned(), trace, spans: AtomicU64::new(1) })
}

struct Observer {
    actor: String,
    trace: Trace,
    spans: AtomicU64,
}

impl Subscriber for Observer {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_of_interest(metadata)
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
            // One that names an effect of a signal has a phase too, and a message that a phase change does not have.
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

/// Keeps others company, and hears nothing.
struct NullSubscriber;

impl Subscriber for NullSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_of_interest(metadata)
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

/// What lameduck says, and not its libraries.
fn is_of_interest(metadata: &Metadata<'_>) -> bool {
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
            // All of it is told as records of its own.
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
