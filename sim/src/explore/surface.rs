//! The declared surface: each public item that users' code calls, and how a scenario exercises it.
//!
//! `sim/tests/surface.rs` reads the public items from the sources, and fails for one without an
//! entry. Each entry that a scenario can exercise is a state that exploration must reach.

/// How a scenario exercises an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// In every scenario.
    Always,
    /// By a handler of the default app whose target contains this.
    Target(&'static str),
    /// By a task, a hook or a check, which records this event.
    Event(&'static str),
    /// By a setting of the scenario, which has its own states.
    Setting,
    /// In no world, for this reason.
    Nowhere(&'static str),
}

/// The items, with their types.
pub const SURFACE: &[(&str, Seen)] = &[
    ("RequestContext::app_version", Seen::Nowhere("a constant of the settings")),
    ("RequestContext::phase", Seen::Always),
    ("RequestContext::peer", Seen::Always),
    ("RequestContext::local", Seen::Nowhere("tests/host reads it")),
    ("RequestContext::deadline", Seen::Always),
    ("RequestContext::remaining", Seen::Always),
    ("RequestContext::set_timeout", Seen::Target("/ignores?after=")),
    ("RequestContext::cancelled", Seen::Event("half-close noticed")),
    ("RequestContext::is_cancelled", Seen::Nowhere("tests/host reads it")),
    ("RequestContext::cancel_cause", Seen::Event("half-close noticed")),
    ("RequestContext::cancellation_token", Seen::Event("context cancelled")),
    ("RequestContext::stopping", Seen::Nowhere("the token of `TaskContext::stopping`")),
    ("RequestContext::draining", Seen::Target("/upgrade?heeds=yes")),
    ("RequestContext::spawn", Seen::Target("/work?")),
    ("RequestContext::stream_end", Seen::Target("/upgrade?heeds=yes&class=spread")),
    ("RequestContext::root_cancelled", Seen::Target("heeds=yes")),
    ("TaskContext::app_version", Seen::Nowhere("a constant of the settings")),
    ("TaskContext::phase", Seen::Nowhere("the same as `RequestContext::phase`")),
    ("TaskContext::stopping", Seen::Event("task notified")),
    ("TaskContext::draining", Seen::Event("task notified")),
    ("TaskContext::cancelled", Seen::Event("task notified")),
    ("TaskContext::spawn", Seen::Event("task spawns")),
    ("BackgroundTask::new", Seen::Event("task begins")),
    ("ReadinessCheck::new", Seen::Event("checked")),
    ("ReadinessCheck::interval", Seen::Event("checked")),
    ("ReadinessCheck::timeout", Seen::Nowhere("the default applies; tests/process sets it")),
    ("Hook::pair", Seen::Event("hook begins")),
    ("Hook::on_start", Seen::Nowhere("half of a pair")),
    ("Hook::on_stop", Seen::Nowhere("half of a pair")),
    ("Hook::stop_timeout", Seen::Event("hook begins")),
    ("ShutdownHandle::stop", Seen::Event("shutdown handle")),
    ("RouteTimeout::after", Seen::Target("/ignores?route=")),
    ("RouteTimeout::none", Seen::Target("/ignores?route=none")),
    ("StreamShutdown::Finish", Seen::Target("/stream?")),
    ("StreamShutdown::EndAtDraining", Seen::Target("/events")),
    ("StreamShutdown::EndAtCancel", Seen::Target("/events?end=cancel")),
    ("StreamShutdown::EndSpread", Seen::Target("/events?end=spread")),
    ("HalfClose::Serve", Seen::Event("half-close noticed")),
    ("HalfClose::Drop", Seen::Nowhere("tests/host sets it")),
    ("HalfClose::Ignore", Seen::Nowhere("tests/host sets it")),
    ("Limits::connections_max", Seen::Setting),
    ("Limits::header_bytes_max", Seen::Setting),
    ("Limits::headers_max", Seen::Setting),
    ("Limits::first_byte_timeout", Seen::Setting),
    ("Limits::header_timeout", Seen::Setting),
    ("Limits::send_timeout", Seen::Setting),
    ("Limits::body_timeout", Seen::Setting),
    ("Limits::keep_alive", Seen::Setting),
    ("Limits::http2_streams_max", Seen::Setting),
    ("Limits::half_close", Seen::Nowhere("tests/host sets it")),
    ("Limits::tls_handshake_timeout", Seen::Setting),
    ("Limits::connection_age_max", Seen::Setting),
    ("Limits::caps", Seen::Setting),
    ("Body::context", Seen::Always),
];
