//! P13: each failure that the report counts is in the log, once.

use super::{Exercise, Judgement, RunHistory};
use crate::trace::Record;
use lameduck::{
    HookReport, Report,
    lifecycle::{HookResult, HookVerdict},
};

/// Dropped work that has a line each.
const WORK_LISTED_MAX: u32 = 1_000;

/// P13: aborted requests, panics, dropped work and the ends of hooks are in the log.
pub(super) fn failures_are_logged(history: &RunHistory<'_>) -> Judgement {
    let Some(report) = &history.outcome.report else { return Ok(Exercise::No) };
    let mut judged = hooks_are_logged(history, report)?;
    let lines = |message: &str| -> u64 { sum_of(history, message, None) };
    let stuck = sum_of(
        history,
        "requests aborted at exit: their handlers block a worker thread",
        Some("requests"),
    );
    let stuck_work = sum_of(history, "work dropped at exit: it blocks its thread", Some("work"));
    let listed_max = history.scenario.cap("aborts_listed_max").unwrap_or(WORK_LISTED_MAX);
    let dropped = report.work_dropped.saturating_sub(stuck_work).min(listed_max.into());
    let panics = [
        "handler panicked",
        "response body panicked",
        "a response body panicked; its connection ends",
    ];
    for (what, logged, counted) in [
        ("aborted requests", lines("request aborted") + stuck, report.requests.aborted),
        ("panics of requests", panics.into_iter().map(lines).sum(), report.requests.panicked),
        ("panics of work", lines("tracked work panicked"), report.work_panicked),
        (
            "dropped work",
            lines("background work dropped: it did not end when its context was cancelled"),
            dropped,
        ),
    ] {
        if logged != counted {
            return Err(format!("the report counts {counted} {what}, and the log has {logged}"));
        }
        judged += usize::from(counted > 0);
    }
    Ok(Exercise::of(judged))
}

/// Returns the number of lines with this message, or the sum of a number in them.
fn sum_of(history: &RunHistory<'_>, message: &str, number: Option<&str>) -> u64 {
    let is_it = |record: &&Record| record.text("message") == Some(message);
    let lines = history.server("log").filter(is_it);
    lines.map(|line| number.map_or(1, |name| line.number(name).unwrap_or_default())).sum()
}

/// Checks that the log has the end of each hook of the report once. Returns the number of failures.
fn hooks_are_logged(history: &RunHistory<'_>, report: &Report) -> Result<usize, String> {
    let mut failures = 0;
    for HookReport { name, verdict, .. } in &report.hooks {
        let (stage, messages) = match verdict {
            HookVerdict::Started(HookResult::Done) => ("start", ["hook done", RETURNED]),
            HookVerdict::Started(_) => ("start", ["hook failed", RETURNED]),
            HookVerdict::Stopped(HookResult::Done) => ("stop", ["hook done"; 2]),
            HookVerdict::Stopped(_) => ("stop", ["hook failed"; 2]),
            HookVerdict::GivenUp(_) | HookVerdict::StartDropped => ("", ["hook given up"; 2]),
        };
        let is_it = |record: &&Record| {
            record.text("hook") == Some(name)
                && record.text("message").is_some_and(|said| messages.contains(&said))
                && record.text("stage").is_none_or(|said| said == stage)
                && record.text("end").is_none_or(|said| said == verdict.to_string())
        };
        let lines = history.server("log").filter(is_it).count();
        if lines != 1 {
            return Err(format!("hook {name} is \"{verdict}\", and {lines} lines say so"));
        }
        failures += usize::from(!messages.contains(&"hook done"));
    }
    Ok(failures)
}

/// The message of a start hook that was dropped, and returned later.
const RETURNED: &str = "a dropped start hook returned";
