//! P13: checks `docs/operations.md` against the binary: its settings, exit codes, log events and
//! their fields. The log alone must show an operator what was lost.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its subject should fail")]

use crate::support::{Client, End, Service, aside, run_to_end, service::command};
use lameduck::lifecycle::Verdict;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

fn document() -> String {
    fs::read_to_string(crate::support::repository("docs/operations.md")).unwrap()
}

/// Returns the rows of the table under this heading, without its header: the trimmed cells.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let document = document();
    let section =
        document.split(&format!("\n## {heading}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let cells = |line: &str| {
        line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()
    };
    lines.map(cells).collect()
}

/// Returns the texts between backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_setting_is_documented_with_its_flag_variable_and_default() {
    let rows = rows("Settings");
    for setting in lameduck::SETTINGS {
        let row =
            rows.iter().find(|row| row[0] == format!("`--{}`", setting.flag)).expect(setting.flag);
        assert_eq!(
            (row[1].as_str(), row[2].as_str()),
            (format!("`{}`", setting.variable).as_str(), setting.default)
        );
    }
    let help = run_to_end(command().arg("--help")).stdout;
    let flags: BTreeSet<String> = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .filter_map(|line| line.split([' ', '[', '=']).next())
        .map(|flag| format!("`--{flag}`"))
        .collect();
    let documented: BTreeSet<String> = rows.iter().map(|row| row[0].clone()).collect();
    assert_eq!(documented, flags, "the table has the flags of `--help`, each of them");
}

#[test]
fn every_exit_code_is_documented_with_its_verdict() {
    let documented: Vec<(String, String)> = rows("Exit codes")
        .into_iter()
        .map(|row| (row[0].clone(), quoted(&row[1])[0].clone()))
        .collect();
    let verdicts =
        [Verdict::Clean, Verdict::Failed, Verdict::Aborted, Verdict::HookFailed, Verdict::Watchdog];
    let mut known: Vec<(String, String)> = verdicts
        .map(|verdict| (verdict.exit_code().to_string(), verdict.name().to_owned()))
        .to_vec();
    known.push(("2".to_owned(), "bad_plan".to_owned()));
    known.sort();
    assert_eq!(documented, known);
}

/// Returns the documented events with their fields.
fn documented_events() -> BTreeMap<String, BTreeSet<String>> {
    let mut events = BTreeMap::new();
    let mut before = BTreeSet::new();
    for row in rows("Log events") {
        let fields =
            if row[2] == "the same" { before } else { quoted(&row[2]).into_iter().collect() };
        before = fields.clone();
        events.insert(quoted(&row[0])[0].clone(), fields);
    }
    events
}

/// Returns every event that the sources log, with its fields. The message of a phase comes from a
/// table.
fn events_of_the_sources() -> BTreeMap<String, BTreeSet<String>> {
    let mut events = BTreeMap::new();
    let mut folders = vec![crate::support::repository("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let code = fs::read_to_string(path).unwrap();
                for level in ["error", "warn", "info"] {
                    for rest in code.split(&format!("log::{level}!(")).skip(1) {
                        let mut parts = arguments(rest);
                        let message =
                            parts.iter().position(|part| part.starts_with('"')).expect("a message");
                        let messages = match parts[message].trim_matches('"') {
                            "{}" => phases(),
                            message => vec![message.to_owned()],
                        };
                        parts.truncate(message);
                        let fields: BTreeSet<String> =
                            parts.iter().map(|part| field(part)).collect();
                        events
                            .extend(messages.into_iter().map(|message| (message, fields.clone())));
                    }
                }
            }
        }
    }
    events
}

/// Returns the arguments of a call, up to its closing parenthesis.
fn arguments(rest: &str) -> Vec<String> {
    let (mut parts, mut part, mut depth, mut is_text) = (Vec::new(), String::new(), 0, false);
    for c in rest.chars() {
        match c {
            '"' => is_text = !is_text,
            '(' | '{' | '[' if !is_text => depth += 1,
            ')' if !is_text && depth == 0 => break,
            ')' | '}' | ']' if !is_text => depth -= 1,
            ',' if !is_text && depth == 0 => {
                parts.push(std::mem::take(&mut part).trim().to_owned());
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part.trim().to_owned());
    parts.retain(|part| !part.is_empty());
    parts
}

/// Returns the name of a field: `age_ms = …`, `%error` or `path`.
fn field(argument: &str) -> String {
    argument.split('=').next().unwrap().trim().trim_start_matches(['%', '?']).to_owned()
}

fn phases() -> Vec<String> {
    let code = include_str!("../../src/driver/reporting.rs");
    let table = code.split("const fn phase_message(").nth(1).unwrap().split("\n}").next().unwrap();
    table.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_log_event_is_documented_with_its_fields_and_no_other_is() {
    let (documented, known) = (documented_events(), events_of_the_sources());
    for (event, fields) in &known {
        assert_eq!(
            documented.get(event),
            Some(fields),
            "{event:?}, documented and as the sources have it"
        );
    }
    let names = |events: &BTreeMap<String, _>| events.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&documented), names(&known));
    assert!(
        known.len() > 20 && known.contains_key("serving: ready"),
        "the reader of sources reads: {known:?}"
    );
}

/// A run that exits with 3. One request finishes, and two are cut: one before its head and one
/// after.
fn a_life_with_losses() -> Vec<Value> {
    let mut service = Service::start(&[
        "--lame-duck=200ms",
        "--drain=1s",
        "--cancel=500ms",
        "--request-timeout=30s",
        "--app-version=1.4.2",
    ]);
    let address = service.main;
    let ask = |target: &'static str| {
        aside(move || {
            let mut client = Client::connect(address);
            client.send(format!("GET {target} HTTP/1.1\r\nhost: t\r\n\r\n"));
            client.try_answer()
        })
    };
    let slow = ask("/slow?ms=700");
    let stuck = ask("/stuck?ms=60000");
    let torn = ask("/stuck?head=1&ms=60000");
    service.wait_for_started(3);
    service.terminate();
    assert_eq!(slow.join().unwrap().unwrap().status, 200);
    assert_eq!(stuck.join().unwrap().unwrap().status, 503);
    assert_eq!(torn.join().unwrap().unwrap_err(), End::Reset);
    assert_eq!(service.exit_code(), 3);
    service.lines()
}

#[test]
fn the_log_alone_shows_what_was_lost() {
    let log = a_life_with_losses();
    let event = |name: &'static str| log.iter().filter(move |line| line["message"] == name);
    let report = event("report").next().unwrap();
    assert_eq!((&report["exit_code"], &report["verdict"]), (&3.into(), &"aborted".into()));
    let lost: Vec<&Value> = event("request aborted").collect();
    assert_eq!(report["aborted"], lost.len(), "each has a line of its own");
    for head_sent in [false, true] {
        let lost = lost.iter().filter(|line| line["head_sent"] == head_sent).collect::<Vec<_>>();
        assert_eq!(lost.len(), 1, "one with head_sent {head_sent}");
        assert_eq!(
            (&lost[0]["method"], &lost[0]["path"]),
            (&"GET".into(), &"/stuck".into()),
            "no query"
        );
        assert_eq!(lost[0]["phase"], "cancelling");
        let age = lost[0]["age_ms"].as_u64().unwrap();
        assert!((1_400..20_000).contains(&age), "delay, drain and half the cancel wait: {age}");
    }
}

#[test]
fn each_phase_and_the_report_are_one_line_and_every_line_is_documented() {
    let log = a_life_with_losses();
    let documented = documented_events();
    for line in &log {
        let line = line.as_object().expect("every line is JSON");
        let message = line["message"].as_str().unwrap();
        let fields =
            &documented.get(message).unwrap_or_else(|| panic!("{message:?} is not documented"));
        for name in
            line.keys().filter(|name| !["timestamp", "level", "message"].contains(&name.as_str()))
        {
            assert!(fields.contains(name), "{message}: {name} is not documented");
        }
    }
    let phases: Vec<&str> = log
        .iter()
        .filter(|line| line.get("in_flight").is_some())
        .map(|line| line["phase"].as_str().unwrap())
        .collect();
    assert_eq!(
        phases,
        ["starting", "serving", "lame_duck", "draining", "cancelling", "cleaning_up", "stopped"]
    );
    assert_eq!(log.iter().filter(|line| line["message"] == "report").count(), 1);
    assert_eq!(log.last().unwrap()["message"], "report", "the last word");
}
