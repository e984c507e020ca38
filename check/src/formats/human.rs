//! For a terminal: a line per scenario, the first descriptions of those that failed, and a summary.

use super::{counts, summary};
use crate::grading::{Graded, Report, Verdict};
use std::fmt::Write;

pub(super) fn format(report: &Report, strict: bool) -> String {
    let mut out = String::new();
    for family in report.families() {
        let score = report.score(|graded| graded.scenario.family() == family);
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{family} {}/{}", score.passed, score.tried);
        for graded in report.graded.iter().filter(|graded| graded.scenario.family() == family) {
            line(&mut out, graded);
        }
    }
    let _ = writeln!(out, "{}", summary(report, strict));
    out
}

fn line(out: &mut String, graded: &Graded) {
    let mark = match graded.verdict {
        Verdict::Pass => "ok   ",
        Verdict::Fail => "FAIL ",
        Verdict::Skip(_) => "skip ",
        Verdict::Broken(_) => "ERROR",
    };
    let name = graded.scenario.name;
    let _ = writeln!(out, "  {mark} {:6} {name:26} {}", graded.grade, counts(graded));
    if graded.verdict == Verdict::Fail {
        for story in graded.findings.stories.iter().take(3) {
            let _ = writeln!(out, "           {}", story.replace('\n', "\n           "));
        }
        let _ = writeln!(out, "           usual repair: {}", graded.scenario.repair);
    }
}
