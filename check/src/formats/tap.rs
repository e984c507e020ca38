//! Test Anything Protocol. An INFO that failed is a `TODO`, which harnesses do not count.

use super::{counts, verdict};
use crate::{
    grading::{Report, Verdict},
    scenario::Grade,
};
use std::fmt::Write;

pub(super) fn format(report: &Report) -> String {
    let mut out = format!("TAP version 14\n1..{}\n", report.graded.len());
    for (n, graded) in report.graded.iter().enumerate() {
        let is_ok = matches!(graded.verdict, Verdict::Pass | Verdict::Skip(_));
        let ok = if is_ok { "ok" } else { "not ok" };
        // Writing to a string cannot fail.
        let _ = write!(out, "{ok} {} - {}", n + 1, graded.scenario.name);
        let text = counts(graded).replace(['\n', '#'], " ");
        let _ = match (&graded.verdict, graded.grade) {
            (Verdict::Skip(_), _) => writeln!(out, " # SKIP {text}"),
            (Verdict::Fail, Grade::Info) => writeln!(out, " # TODO INFO: {text}"),
            _ => writeln!(out),
        };
        if !is_ok {
            let _ =
                writeln!(out, "  ---\n  grade: {}\n  verdict: {}", graded.grade, verdict(graded));
            let _ = writeln!(out, "  counts: {}", serde_json::Value::from(text.as_str()));
            for story in &graded.findings.stories {
                let _ = writeln!(out, "  # {}", story.replace('\n', " "));
            }
            out.push_str("  ...\n");
        } else if graded.verdict == Verdict::Pass && !graded.broken.is_empty() {
            let _ = writeln!(out, "# {text}");
        }
    }
    out
}
