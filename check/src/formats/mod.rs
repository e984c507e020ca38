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

/// Returns the counts in words: `3 of 20 failed (5–36 %)`, and the repetitions that could not be
/// tried.
fn counts(graded: &Graded) -> String {
    let counts = tried(graded);
    match (graded.broken.first(), &graded.verdict) {
        (Some(why), Verdict::Pass | Verdict::Fail) => {
            let (broken, semicolon) =
                (graded.broken.len(), if counts.is_empty() { "" } else { "; " });
            let all = broken + usize::try_from(graded.played).unwrap_or(usize::MAX);
            format!("{counts}{semicolon}{broken} of {all} repetitions could not be tried: {why}")
        }
        (Some(_) | None, _) => counts,
    }
}

/// Returns the counts of what was tried.
fn tried(graded: &Graded) -> String {
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
    let broken: usize = report.graded.iter().map(|graded| graded.broken.len()).sum();
    let broken = match broken {
        0 => String::new(),
        1 => ", 1 repetition could not be tried".to_owned(),
        _ => format!(", {broken} repetitions could not be tried"),
    };
    let verdict = match report.exit_code(strict) {
        0 => "passed",
        1 => "failed",
        _ => "could not try everything",
    };
    format!(
        "{verdict}: {}, {}, {}, {} skipped{broken}, profile {}, {:.0} s",
        of(Grade::Must),
        of(Grade::Should),
        of(Grade::Info),
        report.graded.iter().filter(skipped).count(),
        report.profile.name(),
        report.took.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::{Format, format};
    use crate::{
        grading::{Graded, Report, Verdict},
        scenario::{Grade, all},
        target::Profile,
        trial::Findings,
    };
    use std::time::Duration;

    #[test]
    fn every_form_has_the_repetitions_that_could_not_be_tried() {
        let graded = Graded {
            scenario: all().next().unwrap(),
            grade: Grade::Must,
            verdict: Verdict::Pass,
            played: 2,
            broken: vec!["no port is free".to_owned()],
            findings: Findings { tries: 2, ..Findings::default() },
            evidence: None,
        };
        let report = Report {
            command: vec!["server".to_owned()],
            profile: Profile::Kubernetes,
            graded: vec![graded],
            took: Duration::from_secs(1),
        };
        assert_eq!(report.exit_code(true), 0);
        let words = "1 of 3 repetitions could not be tried: no port is free";
        for form in [Format::Human, Format::Junit, Format::Tap, Format::Markdown] {
            let text = format(&report, form, false);
            assert!(text.contains(words), "{form:?}\n{text}");
        }
        let json: serde_json::Value =
            serde_json::from_str(&format(&report, Format::Json, false)).unwrap();
        let scenario = &json["scenarios"][0];
        assert_eq!((&scenario["played"], &scenario["broken"]), (&2.into(), &1.into()));
        assert_eq!(scenario["reason"], "no port is free");
    }
}
