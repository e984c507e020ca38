//! Compares each number in the report with what the trace shows (P5, P11, P13).
//!
//! Nothing here uses the host's own code to decide what a failure is, how long a plan may take at
//! worst, or how much time a hook has. All of this is computed again, so that a mistake in the host
//! is not repeated here.

use super::{ErrorKind, INTERNAL_PATH, ObservedRequest, RequestResult, RunHistory};
use crate::{
    client::UNREAD_WINDOW,
    hooks::ActEnd,
    scenario::{Client, RequestKind, Traffic},
    trace::Record,
};
use lameduck::{
    Report,
    lifecycle::{GiveUp, HookResult, HookVerdict, Phase, StopReason},
};
use std::{collections::BTreeSet, time::Duration};

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
    connections_are_counted(history, report)?;
    hook_verdicts_match_the_trace(history, report)
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
    let stop = history.left_serving().or(history.began(Phase::CleaningUp)).unwrap_or(exit);
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

fn connections_are_counted(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let connections = &report.connections;
    if connections.open() > 0 {
        return Err(format!("{} connections were open at the exit", connections.open()));
    }
    let is_conversation = history.server("conversation begins").count() as u64;
    if is_conversation > connections.upgraded {
        return Err(format!(
            "{is_conversation} connections were upgraded, but the host counts {}",
            connections.upgraded
        ));
    }
    let failed = history
        .server("accept failed")
        .filter(|record| record.text("how") == Some("descriptors"))
        .count() as u64;
    if connections.accept_errors != failed {
        return Err(format!(
            "{failed} accepts failed, but the host counts {}",
            connections.accept_errors
        ));
    }
    let answered: BTreeSet<(usize, u64)> = history
        .requests
        .iter()
        .filter(|observed| observed.head.is_some())
        .map(|observed| (observed.client, observed.connection))
        .collect();
    if connections.accepted < answered.len() as u64 {
        return Err(format!(
            "{} connections were served, but the host accepted {}",
            answered.len(),
            connections.accepted
        ));
    }
    // Without network faults only the host resets a connection, so it must have counted a response
    // that was cut in its body.
    let torn: BTreeSet<(usize, u64)> = history
        .requests
        .iter()
        .filter(|observed| matches!(&observed.end, Some((_, RequestResult::Failed(how))) if how == "reset-in-body"))
        .filter(|observed| !history.is_http2(observed))
        .map(|observed| (observed.client, observed.connection))
        .collect();
    if history.delivers() && connections.reset < torn.len() as u64 {
        return Err(format!(
            "{} clients received a reset, but the host counts {}",
            torn.len(),
            connections.reset
        ));
    }
    Ok(())
}

/// Checks that requests that crossed the close of an idle connection are counted. Applies only
/// where the latency is so short that the host must have seen them.
pub(super) fn races_are_counted(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let cut = history.began(Phase::CleaningUp).unwrap_or_default();
    let crossed = history.requests.iter().filter(|observed| {
        let keeps = history.client(observed).is_some_and(|client| matches!(client.traffic, Traffic::KeepAlive { .. }) && !client.has_failing_body());
        let lost =
            matches!(&observed.end, Some((_, RequestResult::Failed(how))) if how == "end-before-head" || how == "reset-before-head");
        keeps
            && lost
            && observed.earlier > 0
            && observed.head.is_none()
            && observed.sent.is_some_and(|sent| sent + history.under_way() + history.tolerance() < cut)
    });
    let crossed = crossed.count() as u64;
    // At most one a connection, and only where a request was not answered.
    let unanswered: BTreeSet<(usize, u64)> = history
        .requests
        .iter()
        .filter(|observed| !matches!(observed.end, Some((_, RequestResult::Completed(..)))))
        .map(|observed| (observed.client, observed.connection))
        .collect();
    let is_raw = |client: &&Client| !client.traffic.is_simple() || client.has_failing_body();
    let raw = history.scenario.clients.iter().filter(is_raw).count() as u64;
    let most = unanswered.len() as u64 + raw;
    if report.connections.close_races > most {
        return Err(format!(
            "the host counts {} requests that raced with a close, but {most} can have done so",
            report.connections.close_races
        ));
    }
    let near = history.scenario.latency_ms.1 <= 4
        && history.outcome.grain.is_zero()
        && history.scenario.clock_skew_ppm <= 0;
    if near
        && history.delivers()
        && !history.is_impatient()
        && crossed > report.connections.close_races
    {
        return Err(format!(
            "{crossed} requests raced with a close, but the host counts {}",
            report.connections.close_races
        ));
    }
    Ok(())
}

/// Checks that connections which the drain closed without an announcement are counted, and no
/// others.
pub(super) fn unannounced_closes_are_counted(
    history: &RunHistory<'_>,
    report: &Report,
) -> Result<(), String> {
    let connections = &report.connections;
    let announced = |observed: &&ObservedRequest| matches!(observed.head, Some((_, _, true)));
    let key = |observed: &ObservedRequest| (observed.client, observed.connection);
    let mut told: BTreeSet<(usize, u64)> =
        history.requests.iter().filter(announced).map(key).collect();
    let number = |record: &Record| {
        let client = record.actor.strip_prefix("client-").and_then(|n| n.parse().ok());
        client.zip(record.number("connection"))
    };
    told.extend(
        history.records.iter().filter(|record| record.event == "goaway").filter_map(number),
    );
    if connections.unannounced + told.len() as u64 > connections.accepted {
        return Err(format!(
            "{} of {} connections received an announcement, but the host counts {} unannounced",
            told.len(),
            connections.accepted,
            connections.unannounced
        ));
    }
    let (Some(draining), Some(exit)) = (history.began(Phase::Draining), history.exit()) else {
        return if connections.unannounced == 0 {
            Ok(())
        } else {
            Err(unannounced_without_drain(connections.unannounced))
        };
    };
    // One whose keep-alive time was over may have been closed a moment before the drain.
    let expires = history.scenario.limits.keep_alive.is_some();
    let since = draining + history.tolerance();
    let since = if expires { since + history.under_way() } else { since };
    // A connection that is closed because of an unread body was never idle.
    let keeps = |client: &Client| {
        let tears = |request_kind: &RequestKind| {
            matches!(
                request_kind,
                RequestKind::Unread(_)
                    | RequestKind::Breaks
                    | RequestKind::Odd(_)
                    | RequestKind::Mismatch(_)
                    | RequestKind::Rare(_)
                    | RequestKind::User(_)
            )
        };
        matches!(client.traffic, Traffic::KeepAlive { .. })
            && !tears(&client.request_kind)
            && !client.then.as_ref().is_some_and(tears)
    };
    let closed = history.records.iter().filter(|record| {
        let client = number(record).and_then(|(n, _)| history.scenario.clients.get(n));
        record.event == "closed idle"
            && record.text("how") == Some("fin")
            && record.at >= since
            && record.at < exit.0
            && client.is_some_and(keeps)
    });
    let closed = closed.filter_map(number).filter(|key| !told.contains(key)).count() as u64;
    if history.delivers() && closed > connections.unannounced {
        return Err(format!(
            "{closed} idle connections were closed without an announcement, but the host counts {}",
            connections.unannounced
        ));
    }
    Ok(())
}

fn unannounced_without_drain(unannounced: u64) -> String {
    format!("there was no drain, but the host counts {unannounced} unannounced closes")
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
    if !history.all_clients_stay() || history.requests.iter().any(|observed| observed.end.is_none())
    {
        return Ok(());
    }
    let torn = |observed: &&ObservedRequest| {
        // The host's own 503 to an aborted request may be cut, too.
        observed.head.is_some_and(|(_, status, _)| status != 503)
            && matches!(&observed.end, Some((_, RequestResult::Failed(how))) if how != "timed-out" && how != "not-sent")
    };
    // A client whose response was cut right after the head may not have received the head.
    let torn = history.requests.iter().filter(torn).count() as u64;
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
                    | Traffic::BadHeader(_)
            )
    };
    if all_answered && history.scenario.clients.iter().all(asks) {
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
            observed.grpc_status() == Some(14) && observed.target.contains("&end=")
        };
        let either = history.requests.iter().filter(is_unavailable).count() as u64;
        let aborted = (cut.saturating_sub(either)..=cut + either).contains(&tally.aborted);
        let all = tally.aborted + tally.finished == cut + others;
        if tally.timed_out != timed_out || !aborted || !all {
            return Err(format!(
                "clients got {timed_out} timeouts, {cut} aborts and {others} other responses: {tally:?}"
            ));
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
        // The internal server's own routes have no handler in the trace.
        if path == INTERNAL_PATH {
            continue;
        }
        let is_it = |begins: &Record| {
            let target = begins.text("target").unwrap_or_default();
            let lived = history.host(record.at) - history.host(begins.at.min(record.at));
            target.split('?').next() == Some(path)
                && lived.abs_diff(age) <= Duration::from_millis(1) + history.rounding()
        };
        if !history.server("handler begins").any(is_it) {
            return Err(format!(
                "{path} was logged as aborted at {:?} after {age:?}, but no handler of it was that old",
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
        !is_ours
            && !history.is_http2(observed)
            && matches!(&observed.end, Some((_, RequestResult::Failed(how))) if how == "body-cut")
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
        let large = |request_kind: &RequestKind| matches!(request_kind, RequestKind::Bytes(bytes) if *bytes > UNREAD_WINDOW as usize);
        history.client(observed).is_some_and(|client| matches!(client.traffic, Traffic::Http2Leaves { .. }))
            && history.request_kind(observed).is_some_and(large)
            && observed.head.is_some_and(|(_, status, _)| status == 200)
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

/// Checks that each hook's verdict matches the trace, and that no hook is given up too early or too
/// late.
fn hook_verdicts_match_the_trace(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let shares = shares(history);
    let began = history.began(Phase::CleaningUp).map(|at| history.host(at)).unwrap_or_default();
    let plan = &history.scenario.plan;
    let cleanup = Duration::from_millis(plan.cleanup);
    // If a phase itself was too long, P7 reports it.
    let common = began + cleanup;
    for hook in &report.hooks {
        let Some(n) = history.scenario.hooks.iter().position(|script| script.name == hook.name)
        else {
            continue;
        };
        let script = &history.scenario.hooks[n];
        let half = match hook.verdict {
            HookVerdict::Started(_) | HookVerdict::StartDropped => "start",
            HookVerdict::Stopped(_) | HookVerdict::GivenUp(_) => "stop",
        };
        let when = |event: &'static str| {
            let mine = |record: &&Record| {
                record.text("stage") == Some(half) && record.text("hook") == Some(&script.name)
            };
            history.server(event).find(mine).map(|record| record.at)
        };
        let (begins, ends) = (when("hook begins"), when("hook ends"));
        let act = if half == "start" { script.start } else { script.stop };
        let result = match act.end {
            ActEnd::Done => Some(HookResult::Done),
            ActEnd::Fails => Some(HookResult::Failed),
            ActEnd::Panics => Some(HookResult::Panicked),
            ActEnd::Hangs => None,
        };
        match hook.verdict {
            HookVerdict::Started(said) | HookVerdict::Stopped(said) => {
                if Some(said) != result {
                    return Err(format!(
                        "the {half} of {} is reported as {said:?}, but it was {result:?}",
                        hook.name
                    ));
                }
            }
            HookVerdict::StartDropped | HookVerdict::GivenUp(_) => {
                // A hook that returns in the moment in which its time expires was too late.
                if let (Some(ends), Some(begins)) = (ends, begins)
                    && history.host(ends) + history.rounding() < history.host(begins) + hook.took
                {
                    return Err(format!(
                        "the {half} of {} ended at {ends:?}, but is reported as given up",
                        hook.name
                    ));
                }
            }
        }
        let (HookVerdict::GivenUp(_) | HookVerdict::Stopped(_), Some(begins)) =
            (hook.verdict, begins)
        else {
            continue;
        };
        // A late hook runs after all others and gets the time that they left.
        let below = if history.was_dropped(&hook.name) { 0 } else { n };
        let reserved: Duration = shares[..below].iter().sum();
        let until = common.saturating_sub(reserved);
        let until = script
            .budget_ms
            .map_or(until, |own| until.min(history.host(begins) + Duration::from_millis(own)));
        let over = history.host(begins) + hook.took;
        // A third of the budget is not a whole number of milliseconds.
        let late = until + Duration::from_millis(1) + history.rounding();
        if over > late {
            return Err(format!(
                "{} had time until {until:?} by the host's clock, but its stop ended at {over:?}",
                hook.name
            ));
        }
        if hook.verdict == HookVerdict::GivenUp(GiveUp::Overran)
            && over + Duration::from_micros(1) + history.rounding() < until
        {
            return Err(format!(
                "{} had time until {until:?} by the host's clock, but was given up at {over:?}",
                hook.name
            ));
        }
        if hook.verdict == HookVerdict::GivenUp(GiveUp::Impatience) {
            let heard = history
                .impatient()
                .any(|(_, signal)| history.host(signal.at).abs_diff(over) <= history.rounding());
            if !heard {
                return Err(format!(
                    "{} was given up at {over:?} because of a further signal, but there was none then",
                    hook.name
                ));
            }
        }
    }
    Ok(())
}

/// Time guaranteed to each hook: its own budget, or an equal share of the rest.
fn shares(history: &RunHistory<'_>) -> Vec<Duration> {
    let hooks = &history.scenario.hooks;
    let own: u64 = hooks.iter().filter_map(|hook| hook.budget_ms).sum();
    let open = hooks.iter().filter(|hook| hook.budget_ms.is_none()).count();
    let left = Duration::from_millis(history.scenario.plan.cleanup.saturating_sub(own));
    let share = u32::try_from(open)
        .ok()
        .filter(|open| *open > 0)
        .map_or(Duration::ZERO, |open| left / open);
    hooks.iter().map(|hook| hook.budget_ms.map_or(share, Duration::from_millis)).collect()
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
