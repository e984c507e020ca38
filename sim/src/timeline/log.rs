//! Builds the picture of a real process from its JSON log. It uses the lines about phases, stop
//! requests, aborts and hooks, and the report.

use super::{Bar, Kind, Mark, Picture, Row, Sign, band};
use lameduck::lifecycle::Phase;
use serde_json::Value;
use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// Error for a log without any phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPhases;

impl fmt::Display for NoPhases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the log contains no phase; a JSON log with level info is required (--log-format json)",
        )
    }
}

impl std::error::Error for NoPhases {}

/// Builds a picture from the log of one process. Lines that are not JSON, or come from other
/// code, are ignored.
///
/// # Errors
/// Returns [`NoPhases`] if no line names a phase.
pub fn of_log(log: &str) -> Result<Picture, NoPhases> {
    let lines: Vec<(SystemTime, Value)> = log.lines().filter_map(line).collect();
    let epoch = lines.first().ok_or(NoPhases)?.0;
    let at = |time: SystemTime| time.duration_since(epoch).unwrap_or_default();
    let last = at(lines.last().ok_or(NoPhases)?.0);

    let entered: Vec<(Phase, Duration)> =
        lines.iter().filter_map(|(time, line)| Some((phase(line)?, at(*time)))).collect();
    let began =
        |wanted: Phase| entered.iter().find(|(phase, _)| *phase >= wanted).map(|(_, at)| *at);
    if entered.is_empty() {
        return Err(NoPhases);
    }
    let ends = entered.iter().skip(1).map(|(_, at)| *at).chain([last]);
    let bands =
        entered.iter().zip(ends).map(|((phase, from), to)| band(*phase, *from, to)).collect();

    let mut stops = Vec::new();
    let mut rows = Vec::new();
    let mut outcome = String::from("the process has not exited");
    let mut deadlines = Vec::new();
    for (time, line) in &lines {
        let at = at(*time);
        let is_first = phase(line).is_some() && began(Phase::LameDuck) == Some(at);
        if (is_first || said(line) == "further stop request")
            && let Some(reason) = line["reason"].as_str()
        {
            stops.push(Mark { at, what: reason.to_owned() });
        }
        match said(line) {
            "request aborted" => rows.push(abort(line, at)),
            "hook done" | "hook failed" | "hook given up" => {
                rows.push(hook(line, at, began(Phase::CleaningUp)));
            }
            "report" => {
                outcome = report(line);
                let shutdown = span(line, "shutdown_ms");
                deadlines.push(Mark {
                    at: at.saturating_sub(shutdown) + span(line, "worst_case_ms"),
                    what: "worst case".to_owned(),
                });
            }
            _ => {}
        }
    }
    let stop = began(Phase::LameDuck).unwrap_or_default();
    let shutdown = last.saturating_sub(stop).max(Duration::from_millis(10));
    let (from, to) = (stop.saturating_sub(shutdown.mul_f64(0.25)), last + shutdown.mul_f64(0.04));
    Ok(Picture {
        title: "A shutdown, from its log".to_owned(),
        outcome,
        from,
        to,
        bands,
        stops,
        deadlines,
        rows,
    })
}

/// Parses a line. Its fields are either next to the timestamp or nested in `fields`, as
/// `tracing_subscriber::fmt().json()` writes them without `flatten_event(true)`.
fn line(text: &str) -> Option<(SystemTime, Value)> {
    let mut line: Value = serde_json::from_str(text).ok()?;
    let time = humantime::parse_rfc3339(line["timestamp"].as_str()?).ok()?;
    if let fields @ Value::Object(_) = line["fields"].take() {
        line = fields;
    }
    Some((time, line))
}

fn said(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

/// Returns the phase of a phase change. Such a line has `in_flight`; other lines may have a phase,
/// too.
fn phase(line: &Value) -> Option<Phase> {
    line["in_flight"].as_u64()?;
    let name = line["phase"].as_str()?;
    Phase::ALL.into_iter().find(|phase| phase.name() == name)
}

fn span(line: &Value, name: &str) -> Duration {
    Duration::from_millis(line[name].as_u64().unwrap_or(0))
}

fn abort(line: &Value, at: Duration) -> Row {
    let label = line["path"].as_str().unwrap_or_default().to_owned();
    let told = line["head_sent"].as_bool() == Some(false);
    let from = at.saturating_sub(span(line, "age_ms"));
    let (kind, marks) =
        if told { (Kind::Refused, Vec::new()) } else { (Kind::Broken, vec![(at, Sign::Reset)]) };
    Row { bars: vec![Bar { from, to: at, kind, label: label.clone() }], label, marks }
}

fn hook(line: &Value, at: Duration, cleaning_up: Option<Duration>) -> Row {
    let stage = line["stage"].as_str().unwrap_or("stop");
    let from = if stage == "stop" { cleaning_up.unwrap_or(at) } else { Duration::ZERO };
    let kind = if said(line) == "hook done" { Kind::Hook } else { Kind::HookBroken };
    let label = format!("hook {}", line["hook"].as_str().unwrap_or_default());
    Row {
        label,
        bars: vec![Bar { from, to: at, kind, label: stage.to_owned() }],
        marks: Vec::new(),
    }
}

fn report(line: &Value) -> String {
    let number = |name: &str| line[name].as_u64().unwrap_or(0);
    format!(
        "{} requests: {} finished, {} timed out, {} aborted, {} gone · shutdown {:?} of at most \
         {:?} · exit code {}",
        number("started"),
        number("finished"),
        number("timed_out"),
        number("aborted"),
        number("gone"),
        span(line, "shutdown_ms"),
        span(line, "worst_case_ms"),
        number("exit_code"),
    )
}

#[cfg(test)]
mod tests {
    use super::{NoPhases, of_log};
    use crate::timeline::Kind;
    use serde_json::{Value, json};
    use std::time::Duration;

    const LOG: &str = r#"
{"timestamp":"2026-01-01T00:00:00.000000Z","level":"INFO","message":"starting","phase":"starting","in_flight":0}
{"timestamp":"2026-01-01T00:00:00.010000Z","level":"INFO","message":"serving: ready","phase":"serving","in_flight":0}
not a line of ours
{"timestamp":"2026-01-01T00:00:01.000000Z","level":"INFO","message":"lame duck","phase":"lame_duck","in_flight":1,"reason":"SIGINT"}
{"timestamp":"2026-01-01T00:00:01.500000Z","level":"INFO","message":"further stop request","effect":"ends the current wait","phase":"draining","reason":"SIGINT"}
{"timestamp":"2026-01-01T00:00:01.500000Z","level":"INFO","message":"draining","phase":"draining","in_flight":1,"reason":"SIGINT"}
{"timestamp":"2026-01-01T00:00:02.000000Z","level":"INFO","message":"cancelling","phase":"cancelling","in_flight":1}
{"timestamp":"2026-01-01T00:00:02.750000Z","level":"WARN","message":"request aborted","path":"/stuck","age_ms":2000,"phase":"cancelling","head_sent":false}
{"timestamp":"2026-01-01T00:00:02.760000Z","level":"INFO","message":"report","started":1,"aborted":1,"shutdown_ms":1760,"worst_case_ms":4000,"exit_code":3}
"#;

    #[test]
    fn a_process_is_drawn_from_its_log() {
        let picture = of_log(LOG).unwrap();
        let phases: Vec<_> = picture.bands.iter().map(|band| band.name.as_str()).collect();
        assert_eq!(phases, ["starting", "serving", "lame duck", "draining", "cancelling"]);
        assert_eq!(picture.stops.len(), 2);
        assert_eq!((picture.rows.len(), picture.rows[0].bars[0].kind), (1, Kind::Refused));
        assert_eq!(picture.rows[0].bars[0].from, Duration::from_millis(750));
        assert!(picture.outcome.ends_with("exit code 3"), "{}", picture.outcome);
        assert!(picture.svg().contains("/stuck") && picture.to_string().contains("▒"));
    }

    #[test]
    fn a_log_with_nested_fields_is_drawn_the_same() {
        // An app with its own log set-up used `tracing_subscriber::fmt().json()`, and the picture
        // of its log was empty. Nested fields must give the same picture as flat ones.
        let nested = LOG.lines().map(|line| {
            let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else {
                return line.to_owned();
            };
            let (timestamp, level) = (fields.remove("timestamp"), fields.remove("level"));
            json!({"timestamp": timestamp, "level": level, "fields": fields, "target": "lameduck"})
                .to_string()
        });
        let nested = of_log(&nested.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!(nested.svg(), of_log(LOG).unwrap().svg());
    }

    #[test]
    fn a_text_without_a_phase_is_no_log() {
        assert_eq!(of_log("hello\n"), Err(NoPhases));
    }
}
