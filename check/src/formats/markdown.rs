//! A table for a page or the summary of a CI job.

use super::{counts, summary, verdict};
use crate::grading::{Report, Verdict};
use std::fmt::Write;

pub(super) fn format(report: &Report, strict: bool) -> String {
    let mut out = format!("`{}`: {}\n\n", report.command.join(" "), summary(report, strict));
    out.push_str("| scenario | grade | result | found |\n|---|---|---|---|\n");
    for graded in &report.graded {
        let first = graded.findings.stories.first().filter(|_| graded.verdict == Verdict::Fail);
        let story = first.map(|story| format!("; {story}")).unwrap_or_default();
        let found = format!("{}{story}", counts(graded)).replace('\n', " ").replace('|', "\\|");
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {} | {found} |",
            graded.scenario.name,
            graded.grade,
            verdict(graded)
        );
    }
    out
}
