//! The oracle for P13: exit code and report are accurate.

use super::{
    Exercise, Judgement, ObservedRequest, RunHistory, accounting, closes, open_connections,
    outstanding, stragglers::MOMENT,
};
use crate::{hooks::ActEnd, trace::Record};
use lameduck::{
    Report,
    lifecycle::{HookResult, HookVerdict, Phase, START_RESULT_WAIT, StopReason},
};
use std::time::Duration;

/// P13: the exit code follows from what happened.
pub(super) fn the_exit_code_is_accurate(history: &RunHistory<'_>) -> Judgement {
    let (Some((_, code)), Some(report)) = (history.exit(), &history.outcome.report) else {
        return Ok(Exercise::No);
    };
    the_reason_is_the_first(history, report)?;
    outstanding::only_what_goes_on_is_waited_for(history)?;
    accounting::report_matches_the_trace(history, report)?;
    closes::races_are_counted(history, report)?;
    open_connections::open_ones_are_counted(history)?;
    closes::unannounced_closes_are_counted(history, report)?;
    accounting::the_exit_follows(history)?;
    let Some(task_failed) = history.a_task_failed() else { return Ok(Exercise::No) };
    let start_failed = report.hooks.iter().any(accounting::is_failed_start);
    let failed = report.reason.is_some_and(accounting::is_failure) || task_failed || start_failed;
    // Work that a worker could not drop before the exit is counted, but not listed.
    let unlisted = report.requests.aborted > report.aborts.len() as u64;
    let dropped =
        history.server("task ends").filter(|record| record.text("how") == Some("dropped")).count()
            as u64;
    // A background task may be dropped before it begins.
    let begun = history
        .server("task begins")
        .filter(|record| !record.text("task").is_some_and(|task| task.starts_with("left")));
    let unbegun = (history.scenario.tasks.len() as u64).saturating_sub(begun.count() as u64);
    if dropped > report.work_dropped || report.work_dropped > dropped + unbegun {
        return Err(format!(
            "{dropped} tasks were dropped, but the report has {}",
            report.work_dropped
        ));
    }
    let panicked =
        history.server("task ends").filter(|record| record.text("how") == Some("panicked")).count()
            as u64;
    if panicked != report.work_panicked {
        return Err(format!(
            "{panicked} tasks panicked, but the report has {}",
            report.work_panicked
        ));
    }
    let cut =
        unlisted || report.work_dropped > 0 || report.aborts.iter().any(|abort| abort.by_shutdown);
    let hook_failed = report.hooks.iter().any(|hook| match hook.verdict {
        HookVerdict::Stopped(
            HookResult::Failed | HookResult::BadSetting | HookResult::Panicked,
        )
        | HookVerdict::GivenUp(_) => true,
        HookVerdict::Stopped(HookResult::Done)
        | HookVerdict::Started(_)
        | HookVerdict::StartDropped => false,
    });
    let truth = if failed {
        1
    } else if cut {
        3
    } else if report.work_panicked > 0 {
        1
    } else if hook_failed {
        4
    } else {
        0
    };
    // An abort that is not listed may have been the body's own failure.
    let is_known = history.scenario.cap("aborts_listed_max").is_none() || !unlisted;
    if code != truth && is_known {
        return Err(format!(
            "the exit code is {code}, but the details of the report imply {truth}"
        ));
    }
    // A client that the host gives up counts as gone.
    let stays = |observed: &&ObservedRequest| {
        history.client(observed).is_some_and(|client| !client.traffic.leaves())
    };
    let torn = history
        .requests
        .iter()
        .filter(stays)
        .filter(|observed| matches!(observed.failure(), Some("reset-in-body" | "body-cut")));
    if history.delivers() && torn.count() > 0 && report.requests.aborted == 0 {
        return Err("a client's response was cut, but the report has no abort".to_owned());
    }
    let broke = history.scenario.hooks.iter().find(|hook| {
        hook.stop.end != ActEnd::Done
            && history.server("hook begins").any(|record| {
                record.text("stage") == Some("stop")
                    && record.text("hook") == Some(hook.name.as_str())
            })
    });
    if let Some(hook) = broke
        && code == 0
    {
        return Err(format!("the stop hook {} failed, but the exit code is 0", hook.name));
    }
    Ok(Exercise::Yes)
}

/// Checks that the report's reason is the first stop request, and that the phases add up.
fn the_reason_is_the_first(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let spans =
        report.phases.iter().filter(|(phase, _)| *phase > Phase::Serving).map(|(_, span)| *span);
    let sum: Duration = spans.sum();
    // A stop in the start may have to wait for the hook that runs.
    let late = match history.began(Phase::Serving) {
        None if history.has_blocking_start() => history.tolerance() + START_RESULT_WAIT,
        None => history.tolerance(),
        Some(_) => Duration::ZERO,
    };
    if sum.abs_diff(report.shutdown) > MOMENT + late {
        return Err(format!(
            "the phases of the shutdown add up to {sum:?}, but the report has {:?}",
            report.shutdown
        ));
    }
    let asks = |record: &&Record| {
        matches!(record.event, "signal" | "shutdown handle")
            && record.text("delivery") != Some("no receiver")
    };
    let mut observed = history.records.iter().filter(asks);
    let (Some(first), Some(reason)) = (observed.next(), report.reason) else { return Ok(()) };
    let named = match reason {
        StopReason::Signal(signal) => Some(signal.name()),
        StopReason::Requested => None,
        StopReason::TaskFailed | StopReason::StartFailed | StopReason::StartTimedOut => {
            return Ok(());
        }
    };
    // The host orders stop requests of the same instant itself.
    let ties = observed.next().is_some_and(|second| second.at <= first.at + history.tolerance());
    if !ties && first.text("signal") != named {
        return Err(format!(
            "the stop was requested by {:?}, but the report has {reason}",
            first.text("signal")
        ));
    }
    Ok(())
}
