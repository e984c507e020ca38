//! P13: what log and phases name as waited for is still under way.

use super::{ObservedRequest, RequestResult, RunHistory};
use crate::trace::Record;
use std::time::Duration;

/// Time in which the host learns of the end of what it sent.
const SOON: Duration = Duration::from_millis(300);
/// The most names in one line.
const NAMED_MAX: u32 = 10;

/// Checks that no request is named whose client has long had its whole response, if all requests
/// with its path have ended so.
pub(super) fn only_what_goes_on_is_waited_for(history: &RunHistory<'_>) -> Result<(), String> {
    if history.uses_another_app() || !history.delivers() {
        return Ok(());
    }
    for record in history.server("phase").chain(history.server("log")) {
        all_are_named(history, record)?;
        for WaitedFor { method, path, kind, age } in requests_named(record) {
            is_of_a_handler(history, record, path, age)?;
            let may_go_on = |observed: &&ObservedRequest| {
                let own = observed.target.split('?').next() == Some(path);
                let over = matches!(&observed.end, Some((at, RequestResult::Completed(..)))
                    if *at + SOON + history.tolerance() < record.at);
                own && !over && observed.observed <= record.at
            };
            let is_known = !is_upgrade(method, path);
            if is_known && !history.requests.iter().any(|observed| may_go_on(&observed)) {
                return Err(format!(
                    "{method} {path} was named as waited for at {:?}, and had ended",
                    record.at
                ));
            }
            let has_head = |observed: &ObservedRequest| {
                let since = |at: Duration| at + SOON + history.tolerance() < record.at;
                observed.head.is_some_and(|(at, ..)| since(at))
            };
            let mut going_on = history.requests.iter().filter(may_go_on).peekable();
            if kind == "request" && going_on.peek().is_some() && going_on.all(has_head) {
                return Err(format!(
                    "{method} {path} was named as a request without a head at {:?}, and had one",
                    record.at
                ));
            }
        }
    }
    Ok(())
}

/// Checks that a line about a wait names all that it counts, or as many as it may. Each request
/// waits by then: for its handler, its body or its client.
fn all_are_named(history: &RunHistory<'_>, record: &Record) -> Result<(), String> {
    if record.text("message") != Some("still waiting") || !history.tolerance().is_zero() {
        return Ok(());
    }
    let text = record.text("waiting_for").unwrap_or_default();
    let named = text.matches("ms)").count();
    let unnamed = text
        .rsplit_once(" and ")
        .map_or_else(|| text.strip_suffix(" requests"), |(_, more)| more.strip_suffix(" more"));
    let unnamed = unnamed.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
    let most = history.scenario.cap("named_max").unwrap_or(NAMED_MAX);
    if unnamed > 0 && named < most as usize {
        return Err(format!("{unnamed} requests were waited for, and not named: {record}"));
    }
    let running = handlers_that_run(history, record.at) + tasks_that_run(history, record.at);
    if (named as u64 + unnamed) < running {
        return Err(format!("{running} handlers and tasks ran, and fewer are counted: {record}"));
    }
    Ok(())
}

/// The number of handlers that surely run at this time.
fn handlers_that_run(history: &RunHistory<'_>, at: Duration) -> u64 {
    running(history, at, "handler begins", "handler ends")
}

/// The number of background tasks and of other work that surely run at this time.
fn tasks_that_run(history: &RunHistory<'_>, at: Duration) -> u64 {
    running(history, at, "task begins", "task ends")
}

fn running(
    history: &RunHistory<'_>,
    at: Duration,
    begins: &'static str,
    ends: &'static str,
) -> u64 {
    let near = Duration::from_millis(1) + history.rounding();
    let begun = history.server(begins).filter(|record| record.at + near < at).count();
    let ended = history.server(ends).filter(|record| record.at <= at + near).count();
    begun.saturating_sub(ended) as u64
}

fn is_upgrade(method: &str, path: &str) -> bool {
    method == "GET" && path == "/upgrade"
}

/// Checks that a handler of this path began at that time.
fn is_of_a_handler(
    history: &RunHistory<'_>,
    record: &Record,
    path: &str,
    age: Duration,
) -> Result<(), String> {
    let is_it = |begins: &Record| {
        let lasts = history.host(record.at).saturating_sub(history.host(begins.at));
        begins.text("target").and_then(|target| target.split('?').next()) == Some(path)
            && lasts.abs_diff(age) <= Duration::from_millis(1) + history.rounding()
    };
    if history.server("handler begins").any(is_it) {
        return Ok(());
    }
    Err(format!(
        "{path} was named as waited for since {age:?} at {:?}, and no handler of it was that old",
        record.at
    ))
}

/// A request or a stream that a log line names.
struct WaitedFor<'a> {
    method: &'a str,
    path: &'a str,
    kind: &'a str,
    age: Duration,
}

/// Returns the requests in a list such as `GET /slow (request, 20ms)`.
fn requests_named(record: &Record) -> impl Iterator<Item = WaitedFor<'_>> {
    let named = record.text("waiting_for").unwrap_or_default();
    named.split("), ").filter_map(|entry| {
        let (request, of_kind) = entry.split_once(" (")?;
        // A long list is cut.
        let (method, path) = request.split_once(' ').filter(|(_, path)| !path.contains('…'))?;
        let (kind, age) = of_kind.split_once(", ")?;
        let age = age.split_once("ms")?.0.parse().map(Duration::from_millis).ok()?;
        matches!(kind, "request" | "stream").then_some(WaitedFor { method, path, kind, age })
    })
}
