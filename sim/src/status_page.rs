//! Reads the status page of a host. Each page becomes one record of the prober: `status page`, with
//! the state that the page shows.

use crate::trace::{Trace, Value};
use serde_json::Value as Json;

/// Records the page that was requested at `asked_us` of the world's time.
pub(crate) fn record(trace: &Trace, asked_us: u64, page: &str) {
    let Ok(page) = serde_json::from_str::<Json>(page) else { return };
    let mut fields = vec![("asked_us", asked_us.into())];
    state(&page, &mut fields);
    counts(&page, &mut fields);
    trace.record("prober", "status page", &fields);
}

fn number(of: &Json) -> u64 {
    of.as_u64().unwrap_or(u64::MAX)
}

fn text(of: &Json) -> &str {
    of.as_str().unwrap_or_default()
}

const fn yes(holds: bool) -> &'static str {
    if holds { "yes" } else { "no" }
}

/// The phases, the probes, the running hook and the checks.
fn state(page: &Json, fields: &mut Vec<(&'static str, Value)>) {
    let list = |of: &Json, entry: fn(&Json) -> String| {
        let all: Vec<String> = of.as_array().into_iter().flatten().map(entry).collect();
        all.join(",")
    };
    let phase = |phase: &Json| {
        let [after, lasted] = [&phase["after_ms"], &phase["lasted_ms"]].map(number);
        format!("{} {after} {lasted}", text(&phase["phase"]))
    };
    let check = |check: &Json| {
        format!("{} {}", text(&check["name"]), yes(check["passes"].as_bool() == Some(true)))
    };
    fields.push(("phase", text(&page["phase"]).into()));
    fields.push(("phase_for_ms", number(&page["phase_for_ms"]).into()));
    fields.push(("up_for_ms", number(&page["up_for_ms"]).into()));
    fields.push(("phases", list(&page["phases"], phase).into()));
    fields.push(("checks", list(&page["checks"], check).into()));
    for probe in ["ready", "serving", "live"] {
        fields.push((probe, yes(page[probe].as_bool() == Some(true)).into()));
    }
    fields.extend(page["blocked"]["worker"].as_u64().map(|worker| ("blocked", worker.into())));
    let left = page["must_exit_within_ms"].as_u64();
    fields.extend(left.map(|ms| ("must_exit_within_ms", ms.into())));
    let hook = &page["hook"];
    if let Some(name) = hook["name"].as_str() {
        fields.push(("hook", name.into()));
        fields.push(("stage", text(&hook["stage"]).into()));
        fields.push(("hook_for_ms", number(&hook["running_for_ms"]).into()));
    }
}

/// The counts of requests, connections and other work.
fn counts(page: &Json, fields: &mut Vec<(&'static str, Value)>) {
    let states = page["connections_by_state"].as_object().into_iter().flatten();
    let states: u64 = states.map(|(_, count)| count.as_u64().unwrap_or(0)).sum();
    let requests = &page["requests"];
    let ended = ["finished", "timed_out", "aborted", "gone"].map(|end| number(&requests[end]));
    let waiting = &page["waiting_for"]["by_kind"];
    let age = |kind: &str| number(&page["waiting_for"]["oldest_age_ms"][kind]);
    let requests_waited_for = ["request", "stream"].map(|kind| number(&waiting[kind]));
    fields.extend([
        ("open", number(&page["connections"]["open"]).into()),
        ("states", states.into()),
        ("upgraded", number(&page["connections_by_state"]["upgraded"]).into()),
        ("opening", number(&page["connections_by_state"]["opening"]).into()),
        ("started", number(&requests["started"]).into()),
        ("in_flight", number(&page["in_flight"]).into()),
        ("ended", ended.into_iter().fold(0, u64::saturating_add).into()),
        ("waiting", requests_waited_for.into_iter().fold(0, u64::saturating_add).into()),
        ("tasks", number(&waiting["task"]).into()),
        ("work", number(&waiting["work"]).into()),
        ("oldest_task_ms", age("task").into()),
        ("oldest_request_ms", age("request").max(age("stream")).into()),
    ]);
}
