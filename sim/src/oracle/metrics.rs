//! P13: the metrics count what the report counts.

use super::{Exercise, Judgement, RunHistory};
use lameduck::{Report, lifecycle::Phase};
use std::{collections::BTreeMap, time::Duration};

/// No counter shows more than the report, and once all requests have ended, none shows less.
pub(super) fn scrapes_agree(history: &RunHistory<'_>) -> Judgement {
    let Some(report) = &history.outcome.report else { return Ok(Exercise::No) };
    // The cut that ends the cancel wait reaches other threads a moment later.
    let settled = history.began(Phase::CleaningUp).map(|began| began + history.tolerance());
    let settled = settled.unwrap_or(Duration::MAX);
    let mut judged = 0;
    for record in history.events("metrics page") {
        let asked = record.number("asked_us").map(Duration::from_micros).unwrap_or_default();
        let page = shown(record.text("counters").unwrap_or_default());
        let value = |name: &str| page.get(name).copied().unwrap_or(0);
        // The list of the report has a limit.
        let is_listed = report.requests.aborted == report.aborts.len() as u64;
        let is_known = |name: &str| is_listed || name != BY_STOP;
        for (name, reported) in counters(report).into_iter().filter(|(name, _)| is_known(name)) {
            let shown = value(name);
            if shown > reported || (asked > settled && shown < reported) {
                return Err(format!(
                    "{name} was {shown} at {asked:?}, and the report has {reported}"
                ));
            }
        }
        let least = requests_before(history, asked);
        let started = value("lameduck_requests_started_total");
        if started < least {
            return Err(format!("{started} requests were started at {asked:?}, but {least} ran"));
        }
        judged += usize::from(asked > settled);
    }
    Ok(Exercise::of(judged))
}

/// The number of requests whose handlers surely began before this time.
fn requests_before(history: &RunHistory<'_>, at: Duration) -> u64 {
    let near = history.tolerance() + history.rounding();
    let before = history.server("handler begins").filter(|begins| begins.at + near < at);
    before.count() as u64
}

/// Returns the counters of a record, in which zeros are left out.
fn shown(counters: &str) -> BTreeMap<&str, u64> {
    let counters = counters.lines().filter_map(|line| line.rsplit_once(' '));
    counters.map(|(name, value)| (name, value.parse().unwrap_or(u64::MAX))).collect()
}

const BY_STOP: &str = "lameduck_requests_aborted_by_stop_total";

/// Returns the counters of the page, with the numbers of the report.
fn counters(report: &Report) -> [(&'static str, u64); 26] {
    let by_stop = report.aborts.iter().filter(|abort| abort.by_shutdown).count() as u64;
    let (requests, connections) = (&report.requests, &report.connections);
    [
        ("lameduck_requests_started_total", requests.started),
        (r#"lameduck_requests_total{outcome="finished"}"#, requests.finished),
        (r#"lameduck_requests_total{outcome="timed_out"}"#, requests.timed_out),
        (r#"lameduck_requests_total{outcome="aborted"}"#, requests.aborted),
        (r#"lameduck_requests_total{outcome="gone"}"#, requests.gone),
        ("lameduck_request_duration_seconds_count", requests.finished),
        (BY_STOP, by_stop),
        ("lameduck_panics_total", requests.panicked),
        ("lameduck_streams_ended_total", report.streams_ended),
        ("lameduck_work_dropped_total", report.work_dropped),
        ("lameduck_work_panicked_total", report.work_panicked),
        ("lameduck_connections_accepted_total", connections.accepted),
        ("lameduck_connections_drained_total", connections.drained),
        ("lameduck_connections_reset_total", connections.reset),
        ("lameduck_connections_unannounced_total", connections.unannounced),
        ("lameduck_connections_upgraded_total", connections.upgraded),
        ("lameduck_connections_evicted_total", connections.evicted),
        ("lameduck_close_races_total", connections.close_races),
        (
            r#"lameduck_client_timeouts_total{timeout="first_byte"}"#,
            connections.first_byte_timeouts,
        ),
        (r#"lameduck_client_timeouts_total{timeout="handshake"}"#, connections.handshake_timeouts),
        (r#"lameduck_client_timeouts_total{timeout="send"}"#, connections.send_timeouts),
        (r#"lameduck_client_timeouts_total{timeout="body"}"#, connections.body_timeouts),
        ("lameduck_proxy_headers_refused_total", connections.proxy_headers_refused),
        (r#"lameduck_tls_handshakes_total{outcome="completed"}"#, connections.handshakes),
        (r#"lameduck_tls_handshakes_total{outcome="failed"}"#, connections.handshakes_failed),
        ("lameduck_accept_errors_total", connections.accept_errors),
    ]
}
