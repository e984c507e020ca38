//! Human-readable log lines: the report as one sentence instead of all its fields and its JSON.

use serde_json::Value;
use std::fmt;
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{
        FormatFields,
        format::{DefaultFields, Writer},
    },
};

/// Formats the fields of an event as `tracing_subscriber` does, except for the report.
#[derive(Debug, Default)]
pub(super) struct Readable(DefaultFields);

impl<'writer> FormatFields<'writer> for Readable {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        let mut report = FindReport(None);
        fields.record(&mut report);
        match report.0 {
            Some(report) => write!(writer, "{}", sentence(&report)),
            None => self.0.format_fields(writer, fields),
        }
    }
}

/// Extracts the JSON of the field `report`, if there is one.
struct FindReport(Option<Value>);

impl Visit for FindReport {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "report" {
            self.0 = serde_json::from_str(&format!("{value:?}")).ok();
        }
    }

    fn record_str(&mut self, _: &Field, _: &str) {}
}

fn sentence(report: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let span = |name: &str| {
        let ms = std::time::Duration::from_millis(report[name].as_u64().unwrap_or(0));
        humantime::format_duration(ms).to_string()
    };
    let mut told =
        format!("report: exit code {} ({})", report["exit_code"], text(&report["verdict"]));
    told += &match report["reason"].as_str() {
        Some(reason) => format!(
            ", {reason}, stopped in {} of at most {}",
            span("shutdown_ms"),
            span("worst_case_ms")
        ),
        None => ", never started".to_owned(),
    };
    let requests = &report["requests"];
    told += &format!("; {} requests", requests["started"]);
    for name in ["finished", "timed_out", "aborted", "gone", "panicked"] {
        if requests[name] != 0 {
            told += &format!(", {} {}", requests[name], name.replace('_', " "));
        }
    }
    if report["work_dropped"].as_u64().unwrap_or(0) > 0 {
        told += &format!("; work dropped: {}", report["work_dropped"]);
    }
    for hook in report["hooks"].as_array().into_iter().flatten() {
        let end = text(&hook["end"]);
        if !end.ends_with("done") {
            told += &format!("; hook {}: {end}", text(&hook["name"]));
        }
    }
    if let Some(error) = report["error"].as_str() {
        told += &format!("; error: {error}");
    }
    told
}
