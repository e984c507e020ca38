//! Oracles for a user's service: those promises of the host that need no knowledge of the app, and
//! the service's own part.

use super::{
    assertions::BROKEN,
    downstream::{EFFECT, is_slow},
    proof::UPGRADED,
    runner::{FAILURE, TasksLeft},
};
use crate::{
    host_run::MAIN_PORT,
    oracle::{
        Exercise, HOST_ORACLES, Judgement, ObservedRequest, Oracle, REFUSED, RESPONDS,
        RequestResult, RunHistory,
    },
    scenario::{Reads, Request, RequestKind},
    trace::Record,
};
use lameduck::{
    HookReport, TaskError,
    lifecycle::{HookResult, HookVerdict, Phase},
};
use std::{collections::BTreeSet, time::Duration};

/// The host's promises, then the service's.
pub(super) const JUDGES: &[Oracle] = &[
    Oracle::new("S6", "each request succeeds", host_is_of_the_world),
    HOST_ORACLES[0],
    HOST_ORACLES[1],
    HOST_ORACLES[2],
    HOST_ORACLES[3],
    HOST_ORACLES[4],
    Oracle::new("S1", "all requests and work finish", all_work_finishes),
    Oracle::new("S2", "no task is left", no_task_is_left),
    Oracle::new("S3", "the exit is clean", exit_is_clean),
    Oracle::new("S4", "the exit condition holds", exit_condition_holds),
    Oracle::new("S5", "responses are as expected", responses_are_as_expected),
    Oracle::new("S7", "assertions hold", assertions_hold),
];

/// A host of another builder listens elsewhere, and has another plan.
fn host_is_of_the_world(history: &RunHistory<'_>) -> Judgement {
    let mut bound = history.server("log").filter(|log| log.text("message") == Some("bound"));
    let main = bound.find_map(|log| log.text("main")).unwrap_or_default();
    let port = main.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(port) if port != MAIN_PORT => Err(format!(
            "the service listens on {main}, where no client connects; build its host by \
             world.host(), which has the addresses and the plan of the simulation"
        )),
        Some(_) | None => Ok(Exercise::No),
    }
}

fn all_work_finishes(history: &RunHistory<'_>) -> Judgement {
    let Some(report) = &history.outcome.report else { return Ok(Exercise::No) };
    let aborted: Vec<String> = report
        .aborts
        .iter()
        .filter(|abort| abort.by_shutdown)
        .map(|abort| {
            format!(
                "{} {}, {:?} after it arrived, in {}",
                abort.method, abort.path, abort.age, abort.phase
            )
        })
        .collect();
    if !aborted.is_empty() {
        return Err(format!("the shutdown aborted {}", aborted.join("; ")));
    }
    if report.work_dropped > 0 {
        return Err(format!(
            "tracked work was dropped because it did not end when its context was cancelled: {}{}",
            report.work_dropped,
            work_of(history)
        ));
    }
    Ok(Exercise::Yes)
}

/// Names the requests and tasks whose work was dropped.
fn work_of(history: &RunHistory<'_>) -> String {
    let dropped = history.server("log").filter(|log| {
        log.text("message").is_some_and(|message| message.starts_with("background work dropped"))
    });
    let names: BTreeSet<&str> = dropped.filter_map(|log| log.text("work")).collect();
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() { String::new() } else { format!(", of {}", names.join(" and ")) }
}

fn no_task_is_left(history: &RunHistory<'_>) -> Judgement {
    let (count, excepted) = match TasksLeft::of(&history.outcome.trace) {
        Some(TasksLeft::None) => return Ok(Exercise::Yes),
        Some(TasksLeft::Unclear) | None => return Ok(Exercise::No),
        Some(TasksLeft::More { count, excepted }) => (count, excepted),
    };
    let allowed =
        if excepted > 0 { format!(", {excepted} more than excepted") } else { String::new() };
    Err(format!(
        "untracked tasks were still running at the exit and ended with the process: \
         {count}{allowed}; spawn them with RequestContext::spawn or TaskContext::spawn, or except \
         a pool's own tasks by Trial::except_tasks"
    ))
}

fn exit_is_clean(history: &RunHistory<'_>) -> Judgement {
    if let Some(panic) = first_unsupported(history).or_else(|| first_panic(history)) {
        return Err(panic);
    }
    let error = first_error(history, "handler failed", "the handler", "failed")
        .or_else(|| first_error(history, "response body failed", "the response body", "failed"))
        .or_else(|| first_error(history, REFUSED, "the response", "is invalid"));
    if let Some(error) = error {
        return Err(error);
    }
    let Some(report) = &history.outcome.report else { return Ok(Exercise::No) };
    let fails = |verdict| match verdict {
        HookVerdict::Started(result) | HookVerdict::Stopped(result) => result != HookResult::Done,
        HookVerdict::GivenUp(_) => true,
        HookVerdict::StartDropped => false,
    };
    // A hook may fail because of a downstream, but must not wait for it for ever. One that waits
    // for a slow downstream may take longer than its time.
    let failing_downstream = has_failing_downstream(history, Duration::MAX);
    let excused = |hook: &HookReport| match hook.verdict {
        HookVerdict::Started(HookResult::Failed) | HookVerdict::Stopped(HookResult::Failed) => {
            failing_downstream
        }
        HookVerdict::GivenUp(_) => was_slow_in_clean_up(history, &hook.name),
        HookVerdict::Started(_) | HookVerdict::Stopped(_) | HookVerdict::StartDropped => false,
    };
    let hook = report.hooks.iter().find(|hook| fails(hook.verdict) && !excused(hook));
    if let Some(hook) = hook {
        let message = hook.error.as_ref().map_or("", TaskError::with_causes);
        return Err(format!("the hook {} ended with {:?}: {message}", hook.name, hook.verdict));
    }
    if let Some(error) = report.error.as_ref().filter(|_| !failing_downstream) {
        return Err(format!("the process failed: {error:#}"));
    }
    Ok(Exercise::Yes)
}

/// Whether a downstream was slow in the clean-up, until a stop hook was given up.
fn was_slow_in_clean_up(history: &RunHistory<'_>, hook: &str) -> bool {
    let Some(begin) = history.began(Phase::CleaningUp) else { return false };
    let mut logs = history.server("log");
    let given_up = logs
        .find(|log| log.text("message") == Some("hook given up") && log.text("hook") == Some(hook));
    let end = given_up.map_or(Duration::MAX, |log| log.at);
    history.records.iter().any(|record| is_slow(record) && (begin..=end).contains(&record.at))
}

/// Whether a fault of a downstream had an effect on the service until `at`.
fn has_failing_downstream(history: &RunHistory<'_>, at: Duration) -> bool {
    history.records.iter().any(|record| record.event == EFFECT && record.at <= at)
}

/// Returns the first error that the host logged with `message`, unless the service may be free of
/// blame.
fn first_error(history: &RunHistory<'_>, message: &str, what: &str, fails: &str) -> Option<String> {
    let mut logs = history.server("log").filter(|log| log.text("message") == Some(message));
    let log = logs.find(|log| !is_excused(history, log))?;
    Some(format!(
        "{what} of {} {} {fails}: {}",
        log.text("method").unwrap_or_default(),
        log.text("path").unwrap_or_default(),
        log.text("error").unwrap_or_default()
    ))
}

/// Whether a request may fail for a reason outside of the service: a downstream failed, the request
/// was cancelled, or its client may have left before it had sent its body.
fn is_excused(history: &RunHistory<'_>, log: &Record) -> bool {
    let cancelled = history.began(Phase::Cancelling).is_some_and(|at| log.at >= at);
    let left = |observed: &ObservedRequest| {
        observed.observed <= log.at
            && observed.target.split('?').next() == log.text("path")
            && history.client(observed).is_some_and(|client| client.traffic.leaves())
    };
    cancelled || has_failing_downstream(history, log.at) || history.requests.iter().any(left)
}

/// Returns the first panic that the host contained: what panicked, where, and the message.
fn first_panic(history: &RunHistory<'_>) -> Option<String> {
    let (place, log) = history
        .records
        .iter()
        .enumerate()
        .find(|(_, record)| record.event == "log" && record.text("panic").is_some())?;
    let message = log.text("panic").unwrap_or_default();
    let at = history.records[..place]
        .iter()
        .rev()
        .find(|record| record.event == "panic" && record.text("message") == Some(message))
        .and_then(|record| record.text("at"));
    Some(format!(
        "{} panicked{}: {message}{}",
        what_panicked(log),
        at.map_or_else(String::new, |at| format!(" at {at}")),
        hint(message)
    ))
}

fn what_panicked(log: &Record) -> String {
    let request = || {
        format!(
            "{} {}",
            log.text("method").unwrap_or_default(),
            log.text("path").unwrap_or_default()
        )
    };
    match log.text("message") {
        Some("handler panicked") => format!("the handler of {}", request()),
        Some("response body panicked") => format!("the response body of {}", request()),
        Some("tracked work panicked") => {
            format!("tracked work of {}", log.text("work").unwrap_or_default())
        }
        _ => "code of the service".to_owned(),
    }
}

/// Returns the first panic that only the simulation causes, contained by the host or not: a client
/// may contain it, too.
fn first_unsupported(history: &RunHistory<'_>) -> Option<String> {
    let mut panics = history.records.iter().filter(|record| record.event == "panic");
    panics.find_map(|panic| {
        let message = panic.text("message").unwrap_or_default();
        let hint = Some(hint(message)).filter(|hint| !hint.is_empty())?;
        let at = panic.text("at").unwrap_or_default();
        Some(format!("code of the service panicked at {at}: {message}{hint}"))
    })
}

/// Explains a panic that only the simulation causes.
pub(super) fn hint(message: &str) -> &'static str {
    HINTS.iter().find(|(part, _)| message.contains(part)).map_or("", |(_, hint)| hint)
}

/// Parts of tokio's panics, each with what it means in the simulation.
const HINTS: [(&str, &str); 6] = [
    ("IO is disabled", NO_SOCKETS),
    ("no reactor running", NO_SOCKETS),
    (
        "no signal driver running",
        "; the simulation has no process signals: its stop requests reach the service through the \
         host (RequestContext::draining, TaskContext::stopping)",
    ),
    (
        "can call blocking only when running on the multi-threaded runtime",
        "; the simulation runs on one thread, so use spawn_blocking instead of block_in_place",
    ),
    ("Cannot start a runtime from within a runtime", NO_RUNTIME),
    ("Cannot drop a runtime in a context where blocking is not allowed", NO_RUNTIME),
];

const NO_SOCKETS: &str = "; the simulation has no real sockets, so let the service connect to a \
                          simulated downstream";
const NO_RUNTIME: &str = "; a blocking client waits for a runtime of its own, whose time is not \
                          simulated, so use its asynchronous form";

fn exit_condition_holds(history: &RunHistory<'_>) -> Judgement {
    match history.server(FAILURE).next() {
        Some(failure) => Err(failure.text("why").unwrap_or_default().to_owned()),
        None => Ok(Exercise::Yes),
    }
}

fn assertions_hold(history: &RunHistory<'_>) -> Judgement {
    match history.server(BROKEN).next() {
        Some(record) => Err(format!(
            "always: {} does not hold at {}, {:?} after the begin",
            record.text("what").unwrap_or_default(),
            record.text("at").unwrap_or_default(),
            record.at
        )),
        None => Ok(Exercise::Yes),
    }
}

fn responses_are_as_expected(history: &RunHistory<'_>) -> Judgement {
    let mut judged = Exercise::No;
    for observed in &history.requests {
        let Some(RequestKind::User(first)) = history.request_kind(observed) else { continue };
        let Some(request) = first.steps().nth(observed.step) else { continue };
        if let Some(upgraded) = upgraded(history, request, observed) {
            judged = Exercise::Yes;
            is_as_expected(history, request, observed, (upgraded, UPGRADED))?;
        } else if observed.is_all_by_service() {
            judged = Exercise::Yes;
            let Some((at, RequestResult::Completed(status, _))) = observed.end else { continue };
            let status = request.status_of(observed.grpc_status(), status);
            is_as_expected(history, request, observed, (at, status))?;
        }
    }
    Ok(judged)
}

/// Returns when the service upgraded a connection to WebSocket.
fn upgraded(
    history: &RunHistory<'_>,
    request: &Request,
    observed: &ObservedRequest,
) -> Option<Duration> {
    let is_handshake = matches!(request.reads(), Reads::WebSocket(_));
    if !is_handshake || observed.service_status != Some(UPGRADED) {
        return None;
    }
    let client = format!("client-{}", observed.client);
    let its = history.server(RESPONDS).find(|record| {
        record.text("client") == Some(&client) && record.number("request") == Some(observed.number)
    });
    its.map(|record| record.at)
}

fn is_as_expected(
    history: &RunHistory<'_>,
    request: &Request,
    observed: &ObservedRequest,
    (at, status): (Duration, u64),
) -> Result<(), String> {
    // A handler may refuse what it can no longer finish.
    let cancelled = history.began(Phase::Cancelling).is_some_and(|cancelling| at >= cancelling);
    if (cancelled && status == 503) || has_failing_downstream(history, at) {
        return Ok(());
    }
    let body = observed.body.as_deref().unwrap_or_default();
    let phase = history.phases.iter().rev().find(|(_, _, began)| *began <= at);
    let when = phase.map_or_else(String::new, |(phase, _, _)| format!(" in {}", phase.name()));
    let name = request.name();
    if request.refuses(status) {
        return Err(format!(
            "{name} got {status}{when} at {at:?} instead of {}: {:?}",
            request.expected(),
            body.trim()
        ));
    }
    match request.misses(body).filter(|_| *request.reads() == Reads::Whole) {
        Some(text) if request.expects(status) => Err(format!(
            "the response to {name}{when} at {at:?} does not contain {text:?}: {:?}",
            body.trim()
        )),
        Some(_) | None => Ok(()),
    }
}
