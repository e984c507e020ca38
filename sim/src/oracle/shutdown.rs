//! Oracles for the shutdown: P6, P7, P8, P11, P13.

use super::{Exercise, Judgement, RequestResult, RunHistory, accounting, outstanding, timing};
use crate::{
    hooks::ActEnd,
    scenario::{Client, HeaderFault, Pacing, RequestKind, Traffic, client_name},
    trace::Record,
};
use lameduck::{
    Report,
    lifecycle::{HookResult, HookVerdict, Phase, START_RESULT_WAIT, StopReason, WATCHDOG_SLACK},
};
use std::time::Duration;

/// First-byte grace of a silent connection, plus the sweep that detects its end.
const GRACE: Duration = Duration::from_millis(250 + 20);
/// Time limit of a partial head or an HTTP/2 handshake in the drain, plus the sweep that detects
/// it.
const HEAD_GRACE: Duration = Duration::from_millis(1_000 + 20);
/// Time to seal the listeners and to wait for handshakes if it is unknown whether any is pending,
/// plus a sweep.
const QUIESCE: Duration = Duration::from_millis(70);
/// A sweep, plus the interval at which acknowledged bytes are checked.
const SWEEP_AND_ACK_CHECK: Duration = Duration::from_millis(20 + 50);
/// Tolerance of a timer.
const MOMENT: Duration = Duration::from_millis(2);

/// P6: with no request left, silent connections delay the exit by the first-byte grace at most.
pub(super) fn no_straggler_holds_the_exit(history: &RunHistory<'_>) -> Judgement {
    let (Some(draining), Some(span)) =
        (history.began(Phase::Draining), history.span(Phase::Draining))
    else {
        return Ok(Exercise::No);
    };
    let is_simple = |client: &Client| client.traffic.is_simple() && !client.has_slow_header();
    let simple = history.scenario.clients.iter().all(is_simple);
    // A connection that waits for another to close has its grace from its accept.
    if !history.may_wait_for_room() {
        silent_clients_are_bounded(history, span)?;
        each_silent_client_is_disconnected(history, draining)?;
    }
    timing::silent_connections_have_their_grace(history)?;
    timing::silent_connections_are_closed(history)?;
    timing::half_heads_are_refused(history)?;
    idle_connections_are_closed_at_once(history, draining)?;
    let since = draining.saturating_sub(history.under_way() * 2);
    let busy = history
        .requests
        .iter()
        .any(|observed| observed.end.as_ref().is_none_or(|(at, _)| *at > since));
    let excused = history.has_long_running_work() || history.may_wait_for_room();
    if !simple || busy || excused || !history.delivers() {
        return Ok(Exercise::No);
    }
    // The host waits for a connection that is being established when the listeners close. The grace
    // of such a connection starts at its accept.
    // Over TLS it starts a round trip later, at the end of the handshake.
    let trips = if history.scenario.tls { 4 } else { 2 };
    let most = GRACE + QUIESCE + history.under_way() * trips + history.tolerance();
    if span > most {
        return Err(format!("with no request left the drain took {span:?}, more than {most:?}"));
    }
    Ok(Exercise::of(usize::from(
        history.scenario.clients.iter().any(|client| client.traffic == Traffic::ByteLess),
    )))
}

/// Checks that the drain closes each connection that is idle when it begins.
fn idle_connections_are_closed_at_once(
    history: &RunHistory<'_>,
    draining: Duration,
) -> Result<(), String> {
    let (far, slack) = (history.under_way(), MOMENT + history.tolerance());
    let by = draining + far + slack;
    let exit = history.exit().map_or(Duration::MAX, |(at, _)| at);
    if !history.delivers() || history.has_partial_io() || by >= exit {
        return Ok(());
    }
    for observed in &history.requests {
        let small = matches!(
            history.request_kind(observed),
            Some(RequestKind::Fast | RequestKind::Slow(_) | RequestKind::Head)
        );
        let keeps = history.client(observed).is_some_and(|client| {
            matches!(client.traffic, Traffic::KeepAlive { .. }) && !client.has_failing_body()
        });
        let (Some((ended, RequestResult::Completed(..))), Some((_, _, false)), true, true) =
            (&observed.end, observed.head, small, keeps)
        else {
            continue;
        };
        let actor = client_name(observed.client);
        // After its last request it has closed the connection itself.
        let next = history.records.iter().find(|record| {
            matches!(record.event, "closed idle" | "asks")
                && *record.actor == *actor
                && record.at >= *ended
        });
        if *ended + far + slack < draining && next.is_some_and(|next| next.at > by) {
            return Err(format!(
                "{actor} was idle since {ended:?}, and was not closed by {by:?}, at the beginning \
                 of the drain"
            ));
        }
    }
    Ok(())
}

/// Checks that, if no client ever completes a request, the drain lasts no longer than the slowest
/// kind of client may take.
fn silent_clients_are_bounded(history: &RunHistory<'_>, span: Duration) -> Result<(), String> {
    let of_its_own = |client: &Client| match client.traffic {
        // The drain does not wait for it.
        Traffic::InternalHalfHead | Traffic::InternalStrangers { .. } => Some(Duration::ZERO),
        Traffic::ByteLess => Some(GRACE),
        Traffic::HalfHead | Traffic::SilentHttp2 | Traffic::BadHeader(_) => {
            Some(GRACE + HEAD_GRACE)
        }
        Traffic::Once(_)
        | Traffic::KeepAlive { .. }
        | Traffic::PerRequest { .. }
        | Traffic::Http2 { .. }
        | Traffic::Http2Leaves { .. }
        | Traffic::Pipelined { .. }
        | Traffic::Session { .. }
        | Traffic::Late { .. }
        | Traffic::Leaves { .. }
        | Traffic::Http2Windowless { .. }
        | Traffic::Http2Resets { .. }
        | Traffic::Http2Upload { .. }
        | Traffic::Stalls { .. }
        | Traffic::Upgraded { .. } => None,
    };
    let all: Option<Vec<Duration>> = history.scenario.clients.iter().map(of_its_own).collect();
    let Some(longest) = all.and_then(|all| all.into_iter().max()) else { return Ok(()) };
    // Includes the response, and the client's close after it.
    let most = longest + QUIESCE + history.under_way() * 4 + history.tolerance();
    let outside = history.scenario.clients.iter().all(|client| client.traffic.is_internal());
    if !outside && history.delivers() && history.scenario.tasks.is_empty() && span > most {
        return Err(format!(
            "with only silent clients the drain took {span:?}, more than {most:?}"
        ));
    }
    Ok(())
}

/// Checks that a client which never completes a request is disconnected in its own time, whatever
/// other clients do.
fn each_silent_client_is_disconnected(
    history: &RunHistory<'_>,
    draining: Duration,
) -> Result<(), String> {
    let exit = history.exit().map_or(Duration::MAX, |(at, _)| at);
    for (n, client) in
        history.scenario.clients.iter().enumerate().filter(|(_, client)| is_silent(client))
    {
        let when = |event: &str| {
            let is_its =
                |record: &&Record| record.event == event && *record.actor == *client_name(n);
            history.records.iter().find(is_its).map(|record| record.at)
        };
        let Some(connected) = when("connected") else { continue };
        let by = if client.traffic == Traffic::ByteLess {
            (connected + history.world(GRACE)).max(draining + history.world(QUIESCE))
        } else {
            // A client that has just begun an HTTP/2 handshake had the first-byte grace before it.
            (connected + history.world(GRACE)).max(draining) + history.world(HEAD_GRACE)
        };
        let by = by + history.under_way() * 3 + history.tolerance();
        if history.delivers() && by < exit && when("ended").is_none_or(|ended| ended > by) {
            return Err(format!(
                "{}, which sent no complete request, was not closed by {by:?}",
                client_name(n)
            ));
        }
    }
    Ok(())
}

/// Whether a client never completes a request.
const fn is_silent(client: &Client) -> bool {
    matches!(
        client.traffic,
        Traffic::ByteLess
            | Traffic::HalfHead
            | Traffic::SilentHttp2
            | Traffic::BadHeader(HeaderFault::Half)
    )
}

/// P7: the time from the stop request to the exit is within the plan.
pub(super) fn bounded(history: &RunHistory<'_>) -> Judgement {
    if let Some(bite) = history.server("watchdog bites").next() {
        return Err(format!("the watchdog had to end the process at {:?}", bite.at));
    }
    if let Err(overrun) = &history.outcome.ended {
        return Err(overrun.to_string());
    }
    let (Some(report), Some(stop), Some((exit, _))) =
        (&history.outcome.report, history.scenario.first_stop_ms(), history.exit())
    else {
        return Ok(Exercise::No);
    };
    if report.shutdown > report.worst_case + MOMENT + history.release() {
        return Err(format!(
            "the shutdown took {:?} of at most {:?}",
            report.shutdown, report.worst_case
        ));
    }
    each_phase_is_bounded(history, report)?;
    the_watchdog_is_armed(history, report)?;
    let by =
        Duration::from_millis(stop) + history.world(report.worst_case) + MOMENT + history.release();
    if exit > by {
        return Err(format!(
            "a stop was requested at {stop} ms, but the process exited at {exit:?}, later than {by:?}"
        ));
    }
    Ok(Exercise::Yes)
}

/// Checks that no phase exceeds its own budget.
fn each_phase_is_bounded(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let plan = history.scenario.plan();
    for (phase, span) in &report.phases {
        let most = match phase {
            Phase::Draining => plan.drain.max(plan.streams),
            Phase::Cancelling => plan.cancel,
            Phase::CleaningUp => plan.cleanup + plan.internal_close,
            Phase::Starting => plan.start,
            Phase::Serving | Phase::LameDuck | Phase::Stopped => continue,
        };
        if *span > most + MOMENT + history.release() {
            return Err(format!("{phase} lasted {span:?} of at most {most:?}"));
        }
    }
    Ok(())
}

/// Checks that the watchdog is armed once, for 500 ms after the bound, by the host's clock (which
/// starts with the simulation). A stop before Serving skips the first waits, except for the short
/// time in which a running start hook may return.
fn the_watchdog_is_armed(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let plan = history.scenario.plan();
    let bound = if history.began(Phase::Serving).is_some() {
        accounting::worst_case(history)
    } else if started_hook_at_the_stop(history) {
        (plan.cleanup + plan.internal_close + START_RESULT_WAIT).min(plan.worst_case())
    } else {
        plan.cleanup + plan.internal_close
    };
    let exit = report.phases.iter().map(|(_, span)| *span).sum::<Duration>();
    let due = exit.saturating_sub(report.shutdown) + bound + WATCHDOG_SLACK;
    let armed: Vec<Duration> = history
        .server("watchdog armed")
        .filter_map(|record| record.number("at_us"))
        .map(Duration::from_micros)
        .collect();
    match armed.as_slice() {
        [at] if at.abs_diff(due) <= MOMENT + history.tolerance() => Ok(()),
        _ => Err(format!(
            "the watchdog had to be armed once, for {due:?}, but was armed for {armed:?}"
        )),
    }
}

/// Whether a start hook was running at the stop request: none had failed, and not all had finished.
fn started_hook_at_the_stop(history: &RunHistory<'_>) -> bool {
    let armed =
        history.records.iter().position(|record| record.event == "watchdog armed").unwrap_or(0);
    let logged = |message| {
        history.records[..armed]
            .iter()
            .filter(move |record| record.text("message") == Some(message))
    };
    logged("hook failed").next().is_none()
        && logged("hook done").count() < history.scenario.hooks.len()
}

/// P8: no phase waits for a timer when nothing is left to wait for.
pub(super) fn prompt(history: &RunHistory<'_>) -> Judgement {
    let mut judged = 0;
    for (phase, place, at) in &history.phases {
        let Some(span) = history.span(*phase) else { continue };
        let record = &history.records[*place];
        let is_empty =
            record.number("in_flight") == Some(0) && record.number("connections") == Some(0);
        let newcomers = history.records.iter().any(|record| {
            matches!(record.event, "connected" | "connect failed" | "header begins")
                && record.actor.starts_with("client-")
                && record.at + history.under_way() * 2 + history.tolerance() > *at
                && record.at < *at + span + history.under_way() * 2
        });
        let most = match phase {
            Phase::Draining | Phase::Cancelling if history.has_long_running_work() => continue,
            Phase::Draining if is_empty && !newcomers && history.delivers() => QUIESCE,
            // After a further SIGINT or SIGQUIT the drain does not wait for pending handshakes; the
            // cancel wait then does.
            Phase::Cancelling
                if is_empty
                    && !newcomers
                    && history.delivers()
                    && history.scenario.plan().drain > QUIESCE * 10 =>
            {
                MOMENT + QUIESCE.saturating_sub(history.span(Phase::Draining).unwrap_or_default())
            }
            Phase::CleaningUp
                if history.scenario.hooks.is_empty() && !history.has_slow_internal_client() =>
            {
                GRACE + QUIESCE
            }
            Phase::Starting
            | Phase::Serving
            | Phase::LameDuck
            | Phase::Draining
            | Phase::Cancelling
            | Phase::CleaningUp
            | Phase::Stopped => continue,
        };
        if span > most + history.tolerance() {
            return Err(format!("with nothing left to wait for, {phase} lasted {span:?}"));
        }
        judged += 1;
    }
    hooks_follow_each_other(history)?;
    phases_end_with_the_last_request(history)?;
    Ok(Exercise::of(judged))
}

/// Checks that each stop hook begins when the one before it ended or was given up.
fn hooks_follow_each_other(history: &RunHistory<'_>) -> Result<(), String> {
    let is_stop = |record: &&Record| record.text("stage") == Some("stop") || is_given_up(record);
    let mut free = history.began(Phase::CleaningUp);
    let mut running = None;
    for record in history.records.iter().filter(is_stop) {
        match record.event {
            "hook begins" => {
                if free.take().is_some_and(|free| record.at > free + MOMENT + history.tolerance()) {
                    return Err(format!(
                        "{} was kept waiting until {:?}",
                        record.text("hook").unwrap_or("a hook"),
                        record.at
                    ));
                }
                running = record.text("hook");
            }
            // One that was given up may end in that instant, while the next one runs.
            "hook ends" | "log" if record.text("hook") == running => free = Some(record.at),
            _ => {}
        }
    }
    Ok(())
}

fn is_given_up(record: &Record) -> bool {
    record.text("end").is_some_and(|end| end.starts_with("stop given up"))
}

/// Checks that the drain and the cancel wait end soon after the last request has ended and no
/// client connects any more.
fn phases_end_with_the_last_request(history: &RunHistory<'_>) -> Result<(), String> {
    // A connection that waited in the kernel's queue has its grace from its accept.
    if history.may_wait_for_room() {
        return Ok(());
    }
    let simple = history.scenario.clients.iter().all(|client| {
        let asks = matches!(
            client.traffic,
            Traffic::Once(Pacing::Prompt) | Traffic::KeepAlive { .. } | Traffic::PerRequest { .. }
        );
        (asks && !client.has_slow_header()) || is_silent(client)
    });
    let (Some(draining), Some(cleaning_up)) =
        (history.began(Phase::Draining), history.began(Phase::CleaningUp))
    else {
        return Ok(());
    };
    let mut last = draining + history.world(QUIESCE);
    for record in &history.records {
        let client = record.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
        // A refused client was never connected. A silent client does not close its connection, and
        // its grace starts at its accept. A client that has sent a request has no grace.
        let (counts, grace) = match (client, record.event) {
            (None, event) => (event == "task ends", Duration::ZERO),
            (Some(n), event) if history.scenario.clients.get(n).is_some_and(is_silent) => {
                let grace = if history.scenario.clients[n].traffic == Traffic::ByteLess {
                    history.world(GRACE)
                } else {
                    // A connection from before the drain has its grace from the start of the drain.
                    draining.saturating_sub(record.at) + history.world(GRACE + HEAD_GRACE)
                };
                (event == "connected", grace)
            }
            (Some(_), "connect failed" | "retries") => (false, Duration::ZERO),
            (Some(_), _) => (true, Duration::ZERO),
        };
        if counts && record.at <= cleaning_up {
            last = last.max(record.at + grace);
        }
    }
    let unended = history
        .requests
        .iter()
        .any(|observed| observed.end.as_ref().is_none_or(|(at, _)| *at > cleaning_up));
    // Includes packets under way, a sweep, and the check for acknowledged bytes.
    let most =
        last + history.under_way() * 3 + history.world(SWEEP_AND_ACK_CHECK) + history.tolerance();
    let hangs = history.server("task ends").any(|record| record.text("how") == Some("dropped"));
    if simple && !unended && !hangs && history.delivers() && cleaning_up > most {
        return Err(format!(
            "the last client event was at {last:?}, but cleaning up began at {cleaning_up:?}"
        ));
    }
    Ok(())
}

/// P11: a stop hook runs once if its start hook finished, in reverse order.
pub(super) fn hooks_in_pairs(history: &RunHistory<'_>) -> Judgement {
    let of = |event: &'static str, half: &'static str| -> Vec<&str> {
        let records =
            history.server(event).filter(move |record| record.text("stage") == Some(half));
        records.filter_map(|record: &Record| record.text("hook")).collect()
    };
    let started: Vec<&str> = {
        let fails = |name: &str| {
            history
                .scenario
                .hooks
                .iter()
                .any(|hook| hook.name == name && hook.start.end != ActEnd::Done)
        };
        of("hook ends", "start").into_iter().filter(|name| !fails(name)).collect()
    };
    let mut expected = started.clone();
    expected.reverse();
    // A start hook that was dropped and still finished is stopped after all others.
    expected.sort_by_key(|name| history.was_dropped(name));
    let stopped = of("hook begins", "stop");
    // A stop hook whose time expired before its turn is reported as given up, and does not begin.
    let late = |name: &str| {
        history.outcome.report.as_ref().is_some_and(|report| {
            let given_up = |hook: &lameduck::HookReport| {
                hook.name == name && matches!(hook.verdict, HookVerdict::GivenUp(_))
            };
            report.hooks.iter().any(given_up)
                && (history.is_impatient() || history.has_no_time(name))
        })
    };
    // One that was dropped, and finished after the time of all stop hooks, is not stopped.
    let over = history
        .began(Phase::CleaningUp)
        .map(|at| at + history.world(history.scenario.plan().cleanup));
    let too_late = |name: &str| {
        let ends = |record: &&Record| {
            record.text("stage") == Some("start") && record.text("hook") == Some(name)
        };
        let ends = history.server("hook ends").find(ends).map(|record| record.at);
        history.was_dropped(name)
            && ends.zip(over).is_some_and(|(ends, over)| ends + history.rounding() >= over)
    };
    expected.retain(|name| stopped.contains(name) || !late(name) && !too_late(name));
    if history.exit().is_some_and(|(_, code)| code != 5) && stopped != expected {
        return Err(format!(
            "start hooks that finished: {started:?}; stop hooks that ran: {stopped:?}"
        ));
    }
    if !expected.starts_with(&stopped) {
        return Err(format!(
            "start hooks that finished: {started:?}; stop hooks that ran: {stopped:?}"
        ));
    }
    given_up_hooks_do_not_go_on(history)?;
    Ok(Exercise::of(stopped.len()))
}

/// Checks that a stop hook which was given up does not continue while the next one runs.
fn given_up_hooks_do_not_go_on(history: &RunHistory<'_>) -> Result<(), String> {
    let records = history.records.iter().enumerate();
    for (place, record) in records.filter(|(_, record)| is_given_up(record)) {
        let hook = record.text("hook");
        let ends = |later: &&Record| {
            later.event == "hook ends"
                && later.text("stage") == Some("stop")
                && later.text("hook") == hook
                && later.at > record.at + history.tolerance()
        };
        if let Some(later) = history.records[place..].iter().find(ends) {
            return Err(format!(
                "{} was given up at {:?} and ended at {:?}",
                hook.unwrap_or_default(),
                record.at,
                later.at
            ));
        }
    }
    Ok(())
}

/// P13: the exit code follows from what happened.
pub(super) fn the_exit_code_is_accurate(history: &RunHistory<'_>) -> Judgement {
    let (Some((_, code)), Some(report)) = (history.exit(), &history.outcome.report) else {
        return Ok(Exercise::No);
    };
    the_reason_is_the_first(history, report)?;
    outstanding::only_what_goes_on_is_waited_for(history)?;
    accounting::report_matches_the_trace(history, report)?;
    accounting::races_are_counted(history, report)?;
    accounting::unannounced_closes_are_counted(history, report)?;
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
    let torn = history
        .requests
        .iter()
        .filter(|observed| matches!(&observed.end, Some((_, RequestResult::Failed(how))) if how == "reset-in-body" || how == "body-cut"));
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
    let late =
        if history.began(Phase::Serving).is_none() { history.tolerance() } else { Duration::ZERO };
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
