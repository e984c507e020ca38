//! For programs. Times are milliseconds.

use super::verdict;
use crate::grading::{Graded, Report, Verdict, interval};
use serde_json::{Map, Value, json};

pub(super) fn format(report: &Report, strict: bool) -> String {
    let scenarios: Vec<Value> = report.graded.iter().map(scenario).collect();
    let families: Map<String, Value> = report
        .families()
        .into_iter()
        .map(|family| {
            let score = report.score(|graded| graded.scenario.family() == family);
            (family.to_owned(), json!({"passed": score.passed, "tried": score.tried}))
        })
        .collect();
    let all = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "command": report.command,
        "profile": report.profile.name(),
        "took_ms": ms(report.took),
        "exit_code": report.exit_code(strict),
        "families": families,
        "scenarios": scenarios,
    });
    format!("{all:#}\n")
}

fn scenario(graded: &Graded) -> Value {
    let findings = &graded.findings;
    let (low, high) = interval(findings.failures, findings.tries);
    let reason = match &graded.verdict {
        Verdict::Skip(why) | Verdict::Broken(why) => Some(why),
        Verdict::Pass | Verdict::Fail => graded.broken.first(),
    };
    let times: Map<String, Value> = graded
        .medians()
        .into_iter()
        .map(|(name, time)| (name.to_owned(), json!(ms(time))))
        .collect();
    json!({
        "name": graded.scenario.name,
        "grade": graded.grade.name(),
        "verdict": verdict(graded),
        "reason": reason,
        "played": graded.played,
        "broken": graded.broken.len(),
        "tries": findings.tries,
        "failures": findings.failures,
        "rate_low": low,
        "rate_high": high,
        "stories": findings.stories,
        "median_ms": times,
        "rule": graded.scenario.rule,
        "repair": graded.scenario.repair,
    })
}

fn ms(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
