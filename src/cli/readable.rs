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
            // An app may have a field of that name, too.
            let is_ours = |report: &Value| report["exit_code"].is_u64();
            self.0 = serde_json::from_str(&format!("{value:?}")).ok().filter(is_ours);
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

#[cfg(test)]
mod tests {
    use super::Readable;
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    // A line of the app lost its message and its fields, if it had a field `report`.
    #[test]
    fn a_field_of_the_app_with_the_name_of_the_report_is_a_field() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(Readable::default())
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(report = 5, "stored");
            tracing::info!(report = %r#"{"exit_code": 0, "verdict": "clean"}"#, "over");
        });
        let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = written.lines().collect();
        assert!(lines[0].contains("stored report=5"), "{written}");
        assert!(lines[1].contains("report: exit code 0 (clean)"), "{written}");
    }
}
