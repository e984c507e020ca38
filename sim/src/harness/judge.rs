//! Oracles for a user's service: those promises of the host that need no knowledge of the app, and
//! the service's own part.

use super::runner::{FLAW, TASKS_LEFT};
use crate::oracle::{Exercise, HOST_ORACLES, Judgement, Oracle, RunHistory};
use lameduck::{
    HostError, TaskError,
    lifecycle::{HookResult, HookVerdict},
};

/// The host's promises, then the service's.
pub(super) const JUDGES: &[Oracle] = &[
    HOST_ORACLES[0],
    HOST_ORACLES[1],
    HOST_ORACLES[2],
    HOST_ORACLES[3],
    HOST_ORACLES[4],
    Oracle::new("S1", "all requests and work finish", all_work_finishes),
    Oracle::new("S2", "no task is left", no_task_is_left),
    Oracle::new("S3", "the exit is clean", exit_is_clean),
    Oracle::new("S4", "the exit condition holds", exit_condition_holds),
];

fn all_work_finishes(history: &RunHistory<'_>) -> Judgement {
    let Some(report) = &history.outcome.report else { return Ok(Exercise::No) };
    let aborted: Vec<String> = report
        .aborts
        .iter()
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
    if report.requests.aborted > 0 {
        return Err(format!("the shutdown aborted {} requests", report.requests.aborted));
    }
    if report.work_panicked > 0 {
        return Err(format!(
            "tracked work or background tasks panicked: {}",
            report.error.as_ref().map_or("", HostError::with_causes)
        ));
    }
    if report.work_dropped > 0 {
        let work = report.work_dropped;
        return Err(format!(
            "tracked work was dropped because it did not end when its context was cancelled: {work}"
        ));
    }
    Ok(Exercise::Yes)
}

fn no_task_is_left(history: &RunHistory<'_>) -> Judgement {
    let Some(left) = history.server(TASKS_LEFT).next() else { return Ok(Exercise::No) };
    match left.number("count") {
        Some(0) => Ok(Exercise::Yes),
        count => Err(format!(
            "untracked tasks were still running at the exit and ended with the process: {}; \
             spawn them with RequestContext::spawn or TaskContext::spawn",
            count.unwrap_or(0)
        )),
    }
}

fn exit_is_clean(history: &RunHistory<'_>) -> Judgement {
    let Some(report) = &history.outcome.report else { return Ok(Exercise::No) };
    let fails = |verdict| match verdict {
        HookVerdict::Started(result) | HookVerdict::Stopped(result) => result != HookResult::Done,
        HookVerdict::GivenUp(_) => true,
        HookVerdict::StartDropped => false,
    };
    if let Some(hook) = report.hooks.iter().find(|hook| fails(hook.verdict)) {
        let message = hook.error.as_ref().map_or("", TaskError::with_causes);
        return Err(format!("the hook {} ended with {:?}: {message}", hook.name, hook.verdict));
    }
    if report.requests.panicked > 0 {
        return Err(format!("handlers that panicked: {}", report.requests.panicked));
    }
    if let Some(error) = &report.error {
        return Err(format!("the process failed: {error:#}"));
    }
    Ok(Exercise::Yes)
}

fn exit_condition_holds(history: &RunHistory<'_>) -> Judgement {
    match history.server(FLAW).next() {
        Some(flaw) => Err(flaw.text("why").unwrap_or_default().to_owned()),
        None => Ok(Exercise::Yes),
    }
}
