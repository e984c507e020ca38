//! Compares each number in the report with what the trace shows (P5, P13).
//!
//! Nothing here uses the host's own code to decide what a failure is, how long a plan may take at
//! worst, or how much time a hook has. All of this is computed again, so that a mistake in the host
//! is not repeated here.

use super::{
    ErrorKind, ObservedRequest, RequestResult, RunHistory, closes, hooks, log_lines, serving,
};
use crate::{
    client::UNREAD_WINDOW,
    scenario::{Client, RequestKind, Traffic},
    trace::Record,
};
use lameduck::{
    Report,
    lifecycle::{HookResult, HookVerdict, Phase, StopReason},
};
use std::time::Duration;

/// Time allowed between the last phase and the exit, in which the remaining work is aborted.
const CUT: Duration = Duration::from_millis(50);
/// Aborted requests that the report lists.
const ABORTS_LISTED_MAX: u32 = 1_000;

/// Checks that the report's numbers add up and match the trace.
pub(super) fn report_matches_the_trace(
    history: &RunHistory<'_>,
    report: &Report,
) -> Result<(), String> {
    spans_are_the_phases(history, report)?;
    the_bound_is_the_plans(history, report)?;
    failures_are_reported(history, report)?;
    log_lines::the_error_is_the_first(history, report)?;
    closes::connections_are_counted(history, report)?;
    hooks::hook_verdicts_match_the_trace(history, report)
}

/// Longest time that a shutdown may take by this scenario's plan.
pub(super) fn worst_case(history: &RunHistory<'_>) -> Duration {
    let plan = &history.scenario.plan;
    let drain = plan.drain.max(plan.streams);
    let all = plan.lame_duck + drain + plan.cancel + plan.cleanup + plan.internal_close;
    Duration::from_millis(all)
}

/// Whether the stop reason means that the service itself failed.
pub(super) const fn is_failure(reason: StopReason) -> bool {
    match reason {
        StopReason::Signal(_) | StopReason::Requested => false,
        StopReason::TaskFailed | StopReason::StartFailed | StopReason::StartTimedOut => true,
    }
}

fn spans_are_the_phases(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let Some((exit, _)) = history.exit() else { return Ok(()) };
    // A phase of zero length is recorded too.
    let seen: Vec<(Phase, Duration)> =
        history.phases.iter().map(|(phase, _, at)| (*phase, *at)).collect();
    let said: Vec<Phase> = report.phases.iter().map(|(phase, _)| *phase).collect();
    if said != seen.iter().map(|(phase, _)| *phase).collect::<Vec<_>>() {
        return Err(format!("the report lists the phases {said:?}, but the trace has {seen:?}"));
    }
    for (n, (phase, span)) in report.phases.iter().enumerate() {
        let (_, from) = seen[n];
        let to = seen.get(n + 1).map_or(exit, |(_, at)| *at);
        let lasted = history.host(to) - history.host(from);
        if span.abs_diff(lasted) > history.rounding() {
            return Err(format!(
                "the report says that {phase} lasted {span:?}, but it lasted {lasted:?}"
            ));
        }
    }
    // The result of a start hook that blocks is awaited before the clean-up begins.
    let armed = history.server("watchdog armed").next().map(|armed| armed.at);
    let armed = armed.filter(|_| history.has_blocking_start());
    let stop = armed.or(history.left_serving()).unwrap_or(exit);
    let lasted = history.host(exit) - history.host(stop);
    if report.shutdown.abs_diff(lasted) > history.rounding() {
        return Err(format!(
            "the report says that the shutdown took {:?}, but it took {lasted:?}",
            report.shutdown
        ));
    }
    Ok(())
}

fn the_bound_is_the_plans(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let worst = worst_case(history);
    if report.worst_case != worst {
        return Err(format!(
            "the worst case is {:?} in the report, but {worst:?} in the plan",
            report.worst_case
        ));
    }
    Ok(())
}

/// Whether the first hook failure came after the stop request. A cancelled start hook has a short
/// time to return, and may still fail in it.
fn a_cancelled_start_failed(history: &RunHistory<'_>, report: &Report) -> bool {
    let exit = report.phases.iter().map(|(_, span)| *span).sum::<Duration>();
    let stop = exit.saturating_sub(report.shutdown);
    let failed = history.server("log").find(|record| record.text("message") == Some("hook failed"));
    failed.is_some_and(|record| history.host(record.at) + history.rounding() >= stop)
}

/// Checks the reason and the error of the report against the failures in the trace.
fn failures_are_reported(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let start_failed = report.hooks.iter().any(is_failed_start);
    let limit = Duration::from_millis(history.scenario.plan.start);
    let timed_out = history.began(Phase::Serving).is_none()
        && history.span(Phase::Starting).is_some_and(|span| span >= limit);
    let reason_holds = match report.reason {
        Some(StopReason::StartFailed) => start_failed,
        Some(StopReason::StartTimedOut) => timed_out,
        Some(StopReason::TaskFailed) => history.server("task ends").any(has_failed),
        Some(StopReason::Signal(_) | StopReason::Requested) => {
            !start_failed
                || timed_out
                || limit.is_zero()
                || a_cancelled_start_failed(history, report)
        }
        None => false,
    };
    if !reason_holds {
        return Err(format!(
            "the report's reason is {:?}, but no such event happened",
            report.reason
        ));
    }
    let Some(task_failed) = history.a_task_failed() else { return Ok(()) };
    let failed = task_failed
        || start_failed
        || report.work_panicked > 0
        || report.reason.is_none_or(is_failure);
    if failed != report.error.is_some() {
        return Err(format!(
            "the service {}failed, but the error is {:?}",
            if failed { "" } else { "never " },
            report.error
        ));
    }
    Ok(())
}

pub(super) const fn is_failed_start(hook: &lameduck::HookReport) -> bool {
    matches!(
        hook.verdict,
        HookVerdict::Started(HookResult::Failed | HookResult::BadSetting | HookResult::Panicked)
    )
}

fn has_failed(record: &Record) -> bool {
    matches!(record.text("how"), Some("failed" | "panicked"))
}

pub(super) fn is_http2(client: Option<&Client>) -> bool {
    client.is_some_and(|client| client.traffic.is_http2())
}

/// Checks that each outcome is counted for the requests that had it.
pub(super) fn outcomes_are_counted(
    history: &RunHistory<'_>,
    report: &Report,
) -> Result<(), String> {
    let tally = &report.requests;
    let listed_max = history.scenario.cap("aborts_listed_max").unwrap_or(ABORTS_LISTED_MAX);
    if tally.aborted.min(listed_max.into()) != report.aborts.len() as u64 {
        return Err(format!(
            "{} requests were aborted, but the report lists {}",
            tally.aborted,
            report.aborts.len()
        ));
    }
    let said = |said: ErrorKind| {
        history.requests.iter().filter(|observed| observed.said == said).count() as u64
    };
    if said(ErrorKind::TimedOut) > tally.timed_out {
        return Err(format!(
            "{} clients got a timeout response, but the host counts {}",
            said(ErrorKind::TimedOut),
            tally.timed_out
        ));
    }
    if tally.aborted > report.aborts.len() as u64 {
        return Ok(());
    }
    let aborts = |head_sent: bool| {
        report.aborts.iter().filter(|abort| abort.head_sent == head_sent).count() as u64
    };
    let cut = said(ErrorKind::Aborted) + said(ErrorKind::Stalled);
    if cut > aborts(false) {
        return Err(format!(
            "{cut} requests were aborted before their response head, but the report has {}",
            aborts(false)
        ));
    }
    unread_is_not_finished(history, report)?;
    cut_short_is_reset(history)?;
    abort_ages_match_the_handlers(history)?;
    abort_phases_are_current(history)?;
    if !history.all_clients_stay() || history.requests.iter().any(|observed| observed.end.is_none())
    {
        return Ok(());
    }
    let torn = |observed: &&ObservedRequest| {
        // The host's own 503 to an aborted request may be cut, too.
        observed.head.is_some_and(|(_, status, _)| status != 503)
            && observed.failure().is_some_and(|how| how != "timed-out" && how != "not-sent")
    };
    // A client whose response was cut right after the head may not have received the head.
    let torn = history.requests.iter().filter(torn).count() as u64;
    let torn = torn - serving::late_readers(history, report);
    if torn > aborts(true) {
        return Err(format!(
            "{torn} responses were reset after their head, but the report has {}",
            aborts(true)
        ));
    }
    let all_answered = history
        .requests
        .iter()
        .all(|observed| matches!(&observed.end, Some((_, RequestResult::Completed(..)))));
    let asks = |client: &Client| {
        !client.has_failing_body()
            && !matches!(
                client.traffic,
                Traffic::Upgraded { .. }
                    | Traffic::HalfHead
                    | Traffic::SilentHttp2
                    | Traffic::SlowHttp2 { .. }
                    | Traffic::SlowHello { .. }
                    | Traffic::BadHeader(_)
            )
    };
    // In place of a response whose body failed at once, the host responds with a 500.
    let is_clear = said(ErrorKind::Bodyless) == 0
        && !history.requests.iter().any(|observed| history.failed_in_its_body(observed));
    if all_answered && is_clear && history.scenario.clients.iter().all(asks) {
        let refused = |observed: &&ObservedRequest| {
            matches!(&observed.end, Some((_, RequestResult::Completed(400 | 408 | 431, _))))
                && !history.is_refused(observed)
                && !observed.is_by_service()
        };
        let refused = history.requests.iter().filter(refused).count() as u64;
        let answered = history.requests.len() as u64 - refused;
        let (timed_out, others) =
            (said(ErrorKind::TimedOut), answered - said(ErrorKind::TimedOut) - cut);
        // A call that ends at the drain has its status from there or from an abort at that moment.
        let is_unavailable = |observed: &&ObservedRequest| {
            observed.grpc_status() == Some(14)
                && (observed.target.contains("&end=") || observed.ends_regularly)
        };
        let either = history.requests.iter().filter(is_unavailable).count() as u64;
        // A response that a handler makes as everything is cut may leave, and counts as aborted.
        let cut_at = history.began(Phase::CleaningUp).unwrap_or(Duration::MAX);
        let is_last = |observed: &&ObservedRequest| {
            let Some((at, RequestResult::Completed(503, _))) = observed.end else { return false };
            observed.said == ErrorKind::Anything && at >= cut_at
        };
        let most = cut + either + history.requests.iter().filter(is_last).count() as u64;
        let aborted = (cut.saturating_sub(either)..=most).contains(&tally.aborted);
        let all = tally.aborted + tally.finished == cut + others;
        if tally.timed_out != timed_out || !aborted || !all {
            return Err(format!(
                "clients got {timed_out} timeouts, {cut} aborts and {others} other responses: \
                 {tally:?}"
            ));
        }
    }
    Ok(())
}

/// Checks that each logged abort has the current phase, or the one to which a late cut belongs, and
/// that the shutdown aborts nothing before the drain.
fn abort_phases_are_current(history: &RunHistory<'_>) -> Result<(), String> {
    let records = history.records.iter().enumerate();
    let aborts = records.filter(|(_, record)| record.text("message") == Some("request aborted"));
    for (place, record) in aborts.filter(|_| history.tolerance().is_zero()) {
        let entered = history.phases.iter().rfind(|(_, entered, _)| *entered < place);
        let Some((phase, ..)) = entered else { continue };
        let phase = *phase.min(&Phase::Cancelling);
        let is_early = phase < Phase::Draining && record.text("by_shutdown") == Some("true");
        if record.text("phase") != Some(phase.name()) || is_early {
            return Err(format!("the phase was {phase}, and the log has {record}"));
        }
    }
    Ok(())
}

/// Checks that each logged abort has the path and the age of a running handler.
fn abort_ages_match_the_handlers(history: &RunHistory<'_>) -> Result<(), String> {
    let others = |client: &Client| matches!(client.request_kind, RequestKind::User(_));
    if history.scenario.clients.iter().any(others) {
        // The handlers of another app record nothing.
        return Ok(());
    }
    for record in
        history.server("log").filter(|record| record.text("message") == Some("request aborted"))
    {
        let (Some(path), Some(age)) =
            (record.text("path"), record.number("age_ms").map(Duration::from_millis))
        else {
            continue;
        };
        let is_it = |begins: &Record| {
            let target = begins.text("target").unwrap_or_default();
            let ran_for = history.host(record.at) - history.host(begins.at.min(record.at));
            target.split('?').next() == Some(path)
                && ran_for.abs_diff(age) <= Duration::from_millis(1) + history.rounding()
        };
        if !history.server("handler begins").any(is_it) {
            return Err(format!(
                "{path} was logged as aborted at {:?} after {age:?}, but no handler of it was that \
                 old",
                record.at
            ));
        }
    }
    Ok(())
}

/// Checks that an HTTP/1 response which is cut in its body is reset: a FIN could be taken for the
/// regular end of the body.
fn cut_short_is_reset(history: &RunHistory<'_>) -> Result<(), String> {
    // Only one of the two worlds has RST.
    if !history.resets() {
        return Ok(());
    }
    let ended = history.requests.iter().find(|observed| {
        // A 503 has a Content-Length, so the client sees that it is incomplete.
        let is_ours =
            observed.head.is_some_and(|(_, status, _)| status == 503) && !observed.is_by_service();
        !is_ours && !history.is_http2(observed) && observed.failure() == Some("body-cut")
    });
    match ended {
        Some(observed) => Err(format!(
            "a response to {} was cut in its body, but ended like a complete one",
            observed.target
        )),
        None => Ok(()),
    }
}

/// Checks that a response larger than the window of a client that reads nothing is not counted as
/// finished.
fn unread_is_not_finished(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let unread = history.requests.iter().filter(|observed| {
        let max = UNREAD_WINDOW as usize;
        let large = |kind: &RequestKind| matches!(kind, RequestKind::Bytes(bytes) if *bytes > max);
        let leaves = |client: &Client| {
            // After them it sends one more, of which it may read all.
            let Traffic::Http2Leaves { requests, .. } = client.traffic else { return false };
            observed.earlier < requests
        };
        history.client(observed).is_some_and(leaves)
            && history.request_kind(observed).is_some_and(large)
            && observed.head.is_some_and(|(_, status, _)| status == 200)
            && !matches!(observed.end, Some((_, RequestResult::Completed(..))))
    });
    let unread = unread.count() as u64;
    if report.requests.finished + unread > report.requests.started {
        return Err(format!(
            "{unread} responses were never read, but {} of {} are counted as finished",
            report.requests.finished, report.requests.started
        ));
    }
    Ok(())
}

/// Checks that the exit follows soon after the last phase.
pub(super) fn the_exit_follows(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(stopped), Some((exit, _))) = (history.began(Phase::Stopped), history.exit()) else {
        return Ok(());
    };
    if exit > stopped + history.world(CUT) + history.rounding() {
        return Err(format!(
            "the shutdown was complete at {stopped:?}, but the process exited at {exit:?}"
        ));
    }
    Ok(())
}
