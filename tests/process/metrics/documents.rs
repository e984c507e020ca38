//! The documents of the metrics are true: the table, and the alerts.

#![expect(clippy::unwrap_used, reason = "a document that cannot be read should fail the test")]

use super::{
    page::{OPENMETRICS, Page},
    tools::promtool,
};
use crate::support::Service;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

fn document(path: &str) -> String {
    fs::read_to_string(crate::support::repository(path)).unwrap()
}

/// Type, unit, and what the metric is.
type Row = (String, String, String);

/// Returns the rows of the table, by their names.
fn table() -> BTreeMap<String, Row> {
    let text = document("docs/metrics.md");
    let rows = text.lines().filter(|line| {
        ["lameduck_", "process_", "tokio_"]
            .iter()
            .any(|prefix| line.starts_with(&format!("| `{prefix}")))
    });
    let mut table = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "name, type, unit, meaning, what to do: {row}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "an empty cell: {row}");
        let name = cells[0].split('`').nth(1).unwrap().split('{').next().unwrap();
        let row = (cells[1].to_owned(), cells[2].to_owned(), cells[3].to_owned());
        let before = table.insert(name.to_owned(), row);
        assert_eq!(before, None, "{name} is there twice");
    }
    table
}

/// Returns the same columns for the metrics of the binary. What a metric is, is its help.
fn shown() -> BTreeMap<String, Row> {
    let page = Page::scrape(Service::start(&[]).internal, OPENMETRICS);
    let families = page.families().into_iter().map(|(name, family)| {
        let suffix = match family.kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let unit = family.unit.unwrap_or_else(|| "–".to_owned());
        (format!("{name}{suffix}"), (family.kind, unit, family.help))
    });
    families.collect()
}

#[test]
fn the_table_has_every_metric_of_the_binary_and_no_other() {
    let (mut table, shown) = (table(), shown());
    // `process::tls` scrapes these: they are absent without a certificate.
    table.retain(|name, _| !name.starts_with("lameduck_tls_certificate"));
    let names = |map: &BTreeMap<String, _>| map.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&table), names(&shown));
    for (name, (kind, unit, _)) in &shown {
        assert_eq!((kind, unit), (&table[name].0, &table[name].1), "{name}");
    }
}

// An operator read in the help of `work_panicked` that the exit code is 1, and it was 3: the
// shutdown had also aborted a request.
#[test]
fn each_help_text_is_the_beginning_of_what_the_table_says() {
    let table = table();
    for (name, (.., help)) in shown() {
        let help = help.trim_end_matches('.').to_lowercase();
        let what = table[&name].2.replace('`', "").to_lowercase();
        // Of whole clauses: what stands after a comma can turn the sense.
        let is_whole =
            |rest: &str| rest.is_empty() || rest.trim_start().starts_with(['.', ';', ':', '(']);
        let is_true = what.strip_prefix(&help).is_some_and(is_whole);
        assert!(is_true, "{name}: {what:?} does not begin with {help:?}");
    }
}

#[test]
fn the_alerts_are_well_formed_and_fire_as_expected() {
    promtool(
        &["check", "rules", "--lint=all", "--lint-fatal", "deploy/prometheus/alerts.yaml"],
        "",
    );
    promtool(&["test", "rules", "deploy/prometheus/alerts_test.yaml"], "");
}

#[test]
fn the_alerts_name_only_existing_metrics() {
    let table = table();
    for path in ["deploy/prometheus/alerts.yaml", "deploy/prometheus/alerts_test.yaml"] {
        let text = document(path);
        let words = text.split(|c: char| !(c.is_alphanumeric() || c == '_'));
        let named: BTreeSet<&str> = words.filter(|word| word.starts_with("lameduck_")).collect();
        assert!(!named.is_empty());
        for name in named {
            assert!(table.contains_key(name), "{path} names {name}");
        }
    }
}

#[test]
fn every_alert_has_a_test_a_summary_and_a_description() {
    let (alerts, tests) =
        (document("deploy/prometheus/alerts.yaml"), document("deploy/prometheus/alerts_test.yaml"));
    let named: Vec<&str> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(named.len() >= 3, "{named:?}");
    for alert in &named {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test");
    }
    for annotation in ["summary:", "description:"] {
        assert_eq!(
            alerts.matches(annotation).count(),
            named.len(),
            "each alert has one {annotation}"
        );
    }
}
