//! Records the log events of a host, with the world's time.
//!
//! The host logs one line per phase change, with stable fields. These become `phase` records; every
//! other event becomes a `log` record. The host needs no test hook for this, and the trace holds
//! only what an operator could see.

use crate::trace::{Trace, Value};
use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};
use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer, layer::SubscriberExt, registry::LookupSpan};

/// Returns a subscriber that records the events of one process, called `actor` in the trace. Attach
/// it to the process's future with [`WithSubscriber`](tracing::instrument::WithSubscriber).
#[must_use]
pub(crate) fn observer(actor: &str, trace: Trace) -> Dispatch {
    keep_enabled();
    Dispatch::new(Observer { actor: actor.to_owned(), trace, spans: AtomicU64::new(1) })
}

/// Returns a subscriber that records the events of a process with a user's service: those of the
/// host, as [`observer`] does, and those of the service as `service log`, with their spans.
#[must_use]
pub(crate) fn service_observer(actor: &str, trace: Trace) -> Dispatch {
    keep_enabled();
    let log = ServiceLog { actor: actor.to_owned(), trace };
    Dispatch::new(tracing_subscriber::registry().with(log))
}

fn keep_enabled() {
    static KEEP_ENABLED: OnceLock<[Dispatch; 2]> = OnceLock::new();
    // While exactly one subscriber exists, tracing caches a call site's interest from the thread
    // that reaches the site first. A thread without this subscriber would thereby disable the site
    // for this one too. Two permanent subscribers that are interested in everything prevent that.
    KEEP_ENABLED.get_or_init(|| [Dispatch::new(NullSubscriber), Dispatch::new(NullSubscriber)]);
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
        record_host_event(&self.actor, &self.trace, event);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn record_host_event(actor: &str, trace: &Trace, event: &Event<'_>) {
    let mut said = ErrorKind::default();
    event.record(&mut said);
    match said.fields.iter().find(|(name, _)| *name == "phase") {
        // The log line about the effect of a signal has a `phase` too; only phase changes have
        // `in_flight`.
        Some(_) if said.fields.iter().any(|(name, _)| *name == "in_flight") => {
            trace.record(actor, "phase", &said.fields);
        }
        Some(_) | None => {
            said.fields.push(("message", said.message.into()));
            trace.record(actor, "log", &said.fields);
        }
    }
}

/// Records the events of a process with a user's service.
struct ServiceLog {
    actor: String,
    trace: Trace,
}

/// The fields of a span, as text.
struct SpanFields(String);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for ServiceLog {
    fn enabled(&self, metadata: &Metadata<'_>, _: layer::Context<'_, S>) -> bool {
        // The simulated network logs its sockets.
        let from = metadata.target().split("::").next();
        *metadata.level() <= tracing::Level::INFO && from != Some("turmoil")
    }

    fn on_new_span(
        &self,
        attributes: &span::Attributes<'_>,
        id: &span::Id,
        context: layer::Context<'_, S>,
    ) {
        let mut said = ErrorKind::default();
        attributes.record(&mut said);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(SpanFields(said.text()));
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: layer::Context<'_, S>) {
        let mut said = ErrorKind::default();
        values.record(&mut said);
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            let space = if fields.0.is_empty() { "" } else { " " };
            fields.0 += space;
            fields.0 += &said.text();
        }
    }

    fn on_event(&self, event: &Event<'_>, context: layer::Context<'_, S>) {
        if event.metadata().target().split("::").next() == Some("lameduck") {
            return record_host_event(&self.actor, &self.trace, event);
        }
        let mut said = ErrorKind::default();
        event.record(&mut said);
        let spans = context.event_scope(event).map_or_else(String::new, |scope| {
            let spans = scope.from_root().map(|span| {
                let extensions = span.extensions();
                let fields = extensions.get::<SpanFields>().map_or("", |fields| &fields.0);
                if fields.is_empty() {
                    span.name().to_owned()
                } else {
                    format!("{}{{{fields}}}", span.name())
                }
            });
            spans.collect::<Vec<_>>().join(":")
        });
        let fields = [
            ("level", event.metadata().level().as_str().into()),
            ("target", event.metadata().target().into()),
            ("spans", spans.into()),
            ("message", said.message.clone().into()),
            ("fields", said.text().into()),
        ];
        self.trace.record(&self.actor, "service log", &fields);
    }
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
    message: Arc<str>,
    fields: Vec<(&'static str, Value)>,
}

impl ErrorKind {
    /// Returns the fields as `name=value`, without the message.
    fn text(&self) -> String {
        let fields = self.fields.iter().map(|(name, value)| format!("{name}={value}"));
        fields.collect::<Vec<_>>().join(" ")
    }

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
