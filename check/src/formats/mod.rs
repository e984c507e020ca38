//! Forms of a report.

mod human;
mod json;
mod junit;
mod markdown;
mod tap;

use crate::grading::{Graded, Report, Verdict, interval};
use std::time::Duration;

/// A form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For a terminal.
    Human,
    /// For programs.
    Json,
    /// For CI systems.
    Junit,
    /// Test Anything Protocol, version 14.
    Tap,
    /// For a page or a job summary.
    Markdown,
}

/// Returns the report in a form. `strict` is part of the verdict at its end.
#[must_use]
pub fn format(report: &Report, format: Format, strict: bool) -> String {
    match format {
        Format::Human => human::format(report, strict),
        Format::Json => json::format(report, strict),
        Format::Junit => junit::format(report),
        Format::Tap => tap::format(report),
        Format::Markdown => markdown::format(report, strict),
    }
}

const fn verdict(graded: &Graded) -> &'static str {
    match graded.verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Skip(_) => "skip",
        Verdict::Broken(_) => "error",
    }
}

/// Returns the counts in words: `3 of 20 failed (5–36 %)`.
fn counts(graded: &Graded) -> String {
    let findings = &graded.findings;
    match &graded.verdict {
        Verdict::Skip(why) | Verdict::Broken(why) => why.clone(),
        Verdict::Pass if findings.tries == 0 => times(graded),
        Verdict::Pass => {
            let times = times(graded);
            let comma = if times.is_empty() { "" } else { ", " };
            format!("{} of {} failed{comma}{times}", findings.failures, findings.tries)
        }
        Verdict::Fail => {
            let (low, high) = interval(findings.failures, findings.tries);
            let percent = |rate: f64| (rate * 100.0).round();
            format!(
                "{} of {} failed ({}–{} %)",
                findings.failures,
                findings.tries,
                percent(low),
                percent(high)
            )
        }
    }
}

/// Returns the median of each measured time.
fn times(graded: &Graded) -> String {
    let median = |(name, time): (&str, Duration)| match time.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{name} {:.0} ms", 1000.0 * seconds),
        seconds => format!("{name} {seconds:.1} s"),
    };
    graded.medians().into_iter().map(median).collect::<Vec<_>>().join(", ")
}

/// Returns the last line of a report.
fn summary(report: &Report, strict: bool) -> String {
    use crate::scenario::Grade;
    let of = |grade| {
        let score = report.score(|graded| graded.grade == grade);
        format!("{grade} {}/{}", score.passed, score.tried)
    };
    let skipped = |graded: &&Graded| matches!(graded.verdict, Verdict::Skip(_));
    let verdict = match report.exit_code(strict) {
        0 => "passed",
        1 => "failed",
        _ => "could not try everything",
    };
    format!(
        "{verdict}: {}, {}, {}, {} skipped, profile {}, {:.0} s",
        of(Grade::Must),
        of(Grade::Should),
        of(Grade::Info),
        report.graded.iter().filter(skipped).count(),
        report.profile.name(),
        report.took.as_secs_f64()
    )
}
