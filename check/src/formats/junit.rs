//! JUnit's XML, as CI systems read it: one suite per family. An INFO that failed is a passed case.

use super::counts;
use crate::{
    grading::{Graded, Report, Verdict},
    scenario::Grade,
};
use std::fmt::Write;

pub(super) fn format(report: &Report) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for family in report.families() {
        let cases: Vec<&Graded> =
            report.graded.iter().filter(|graded| graded.scenario.family() == family).collect();
        let count = |such: fn(&Graded) -> bool| cases.iter().filter(|graded| such(graded)).count();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "  <testsuite name=\"{family}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" \
             skipped=\"{}\">",
            cases.len(),
            count(is_failure),
            count(|graded| matches!(graded.verdict, Verdict::Broken(_))),
            count(|graded| matches!(graded.verdict, Verdict::Skip(_)))
        );
        for graded in cases {
            case(&mut out, graded);
        }
        out.push_str("  </testsuite>\n");
    }
    out.push_str("</testsuites>\n");
    out
}

fn is_failure(graded: &Graded) -> bool {
    graded.verdict == Verdict::Fail && graded.grade != Grade::Info
}

fn case(out: &mut String, graded: &Graded) {
    let scenario = graded.scenario;
    let name = scenario.name.split('/').nth(1).unwrap_or(scenario.name);
    let _ = write!(out, "    <testcase classname=\"{}\" name=\"{name}\"", scenario.family());
    let why = escape(&counts(graded));
    let _ = match &graded.verdict {
        Verdict::Fail if graded.grade != Grade::Info => writeln!(
            out,
            "><failure type=\"{}\" message=\"{why}\">{}</failure></testcase>",
            graded.grade,
            escape(&graded.findings.stories.join("\n"))
        ),
        Verdict::Pass | Verdict::Fail if graded.broken.is_empty() => writeln!(out, "/>"),
        Verdict::Pass | Verdict::Fail => {
            writeln!(out, "><system-out>{why}</system-out></testcase>")
        }
        Verdict::Skip(_) => writeln!(out, "><skipped message=\"{why}\"/></testcase>"),
        Verdict::Broken(_) => writeln!(out, "><error message=\"{why}\"/></testcase>"),
    };
}

/// Escapes text for XML, which has no control characters.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            char if char.is_control() => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}
