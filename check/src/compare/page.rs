//! The page: scores, settings, and what failed, in Markdown.

use super::{Graded, scenarios};
use serde_json::Value;
use std::{
    fmt::Write,
    fs, thread,
    time::{Duration, SystemTime},
};

const INTRODUCTION: &str = "\
# Conformance

What [`lameduck-check`](grade-your-server.md) finds in the shutdown of other servers. `just
conformance` builds, grades and writes this page: do not edit it. The servers are in
[`check/servers`](../check/servers/README.md).

";

const READING: &str = "\
## How to read it

- **MUST**: an RFC requires it, or the platform kills what does not comply. **SHOULD**: the profile
  `kubernetes` expects it. **INFO** is only reported. `lameduck-check explain accept/backlog` has
  the rule of a scenario, and why it matters.
- A scenario is *failed* if one of its requests, connections or exits failed in any repetition. The
  tables below have the counts.
- A scenario is *not tried* if the server has nothing to try: no HTTP/2 with prior knowledge, no
  WebSocket, no readiness of its own.
- Each server has the settings that its own documentation recommends for a graceful shutdown. All
  limits are scaled, so that a shutdown fits into a grace period of 20 s.
- `lame-duck/*` and `request/first-byte` expect a server that continues to serve for 100 ms
  after the stop request. A server without such a setting can have the same from outside: a \
  `preStop`
  hook that sleeps before the signal is sent.
- `log/*` is about what a server writes to standard output and standard error by itself. One that
  writes nothing passes.

";

/// Returns the page.
pub(super) fn format(graded: &[Graded<'_>], picture: &str) -> String {
    let mut out = INTRODUCTION.to_owned();
    out += &conditions(graded);
    // Writing to a string cannot fail.
    let _ = writeln!(out, "![One row per server, one column per scenario]({picture})\n");
    let tried = || graded.iter().filter(|(_, result)| !scenarios(result).is_empty());
    out += "| server | version | MUST | SHOULD | INFO |\n|---|---|---:|---:|---:|\n";
    for (entry, result) in tried() {
        let version = result["version"].as_str().unwrap_or("–");
        let [must, should, info] = ["MUST", "SHOULD", "INFO"].map(|grade| score(result, grade));
        let _ = writeln!(out, "| {} | {version} | {must} | {should} | {info} |", entry.name);
    }
    out += "\nPassed scenarios of those that were tried.\n\n";
    out += READING;
    out += "## Settings\n\n| server | settings | recommended by |\n|---|---|---|\n";
    for (entry, _) in tried() {
        let _ = writeln!(out, "| {} | {} | <{}> |", entry.name, entry.settings, entry.source);
    }
    out += "\n## What failed\n";
    for (entry, result) in tried() {
        let _ = writeln!(out, "\n### {}\n", entry.name);
        out += &failures(result);
        for note in &entry.notes {
            let _ = writeln!(out, "\n{note}");
        }
    }
    let missing: Vec<_> = graded
        .iter()
        .filter_map(|(entry, result)| Some((&entry.name, result["not_graded"].as_str()?)))
        .collect();
    if !missing.is_empty() {
        out += "\n## Not graded\n\n";
        for (name, why) in missing {
            let _ = writeln!(out, "- {name}: {why}");
        }
    }
    out
}

/// Returns a sentence on when and where the results were found.
fn conditions(graded: &[Graded<'_>]) -> String {
    let date = humantime::format_rfc3339(SystemTime::now()).to_string();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let took: u64 =
        graded.iter().filter_map(|(_, result)| result["report"]["took_ms"].as_u64()).sum();
    let took = humantime::format_duration(Duration::from_secs(took / 1000));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    format!(
        "Made on {} in {took} with `lameduck-check` {}, Linux {}, {cores} cores.\n\n",
        &date[..10],
        env!("CARGO_PKG_VERSION"),
        kernel.split('-').next().unwrap_or_default().trim(),
    )
}

/// Returns the passed scenarios of those of a grade that were tried.
fn score(result: &Value, grade: &str) -> String {
    let of_grade = || scenarios(result).iter().filter(|scenario| scenario["grade"] == grade);
    let passed = of_grade().filter(|scenario| scenario["verdict"] == "pass").count();
    let failed = of_grade().filter(|scenario| scenario["verdict"] == "fail").count();
    match passed + failed {
        0 => "–".to_owned(),
        tried => format!("{passed} of {tried}"),
    }
}

/// Returns the table of what failed and of what could not be tried.
fn failures(result: &Value) -> String {
    let mut out = String::new();
    for scenario in scenarios(result) {
        let found = match scenario["verdict"].as_str() {
            Some("fail") => format!("{} of {}", scenario["failures"], scenario["tries"]),
            Some("error") => "could not be tried".to_owned(),
            _ => continue,
        };
        let story = scenario["stories"][0].as_str().or(scenario["reason"].as_str());
        let story = story.unwrap_or_default().lines().next().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {found} | {} |",
            scenario["name"].as_str().unwrap_or_default(),
            scenario["grade"].as_str().unwrap_or_default(),
            story.replace('|', "\\|")
        );
    }
    if out.is_empty() {
        return "Nothing.\n".to_owned();
    }
    format!("| scenario | grade | failed | for example |\n|---|---|---:|---|\n{out}")
}
