//! The oracles for the length of a shutdown: P7, P8.

use super::{
    Exercise, Judgement, RunHistory, accounting,
    stragglers::{self, GRACE, HEAD_GRACE, MOMENT, QUIESCE},
};
use crate::{
    scenario::{Pacing, Traffic},
    trace::Record,
};
use lameduck::{
    Report,
    lifecycle::{Phase, START_RESULT_WAIT, WATCHDOG_SLACK},
};
use std::time::Duration;

/// A sweep, plus the interval at which acknowledged bytes are checked.
const SWEEP_AND_ACK_CHECK: Duration = Duration::from_millis(20 + 50);

/// Longest pause between two checks for handshakes in progress.
const HANDSHAKE_CHECK: Duration = Duration::from_millis(20);

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
            "a stop was requested at {stop} ms, but the process exited at {exit:?}, later than \
             {by:?}"
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
            // A start hook that blocks is awaited for a moment after that.
            Phase::Starting if history.has_blocking_start() => plan.start + START_RESULT_WAIT,
            Phase::Starting => plan.start,
            Phase::Serving | Phase::LameDuck | Phase::Stopped => continue,
        };
        // The clean-up has two waits, one for the hooks and one for the internal server.
        let moments = if *phase == Phase::CleaningUp { MOMENT * 2 } else { MOMENT };
        if *span > most + moments + history.release() {
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
    } else if a_start_hook_was_running(history) {
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

/// Whether a start hook was running at the stop request: its result, or the end of the wait for it,
/// was logged after that. The hooks of a user's service are not in the scenario.
fn a_start_hook_was_running(history: &RunHistory<'_>) -> bool {
    let mut after = history.records.iter().skip_while(|record| record.event != "watchdog armed");
    after.any(|record| match record.text("message") {
        Some("hook done" | "hook failed") => record.text("stage") == Some("start"),
        Some("hook given up") => record.text("end") == Some("start dropped"),
        _ => false,
    })
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
            Phase::Draining if is_empty && !newcomers && history.delivers() => {
                let ends = given_up_handshakes_end(history).saturating_sub(*at);
                let quiet = if history.resets() { MOMENT } else { QUIESCE };
                quiet.max(history.host(ends)) + HANDSHAKE_CHECK + MOMENT
            }
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

/// Returns when the last handshake that its client gave up has ended, by the client's RST.
fn given_up_handshakes_end(history: &RunHistory<'_>) -> Duration {
    let clients = history.scenario.clients.iter();
    let begin = clients
        .filter(|client| matches!(client.traffic, Traffic::Abandons { .. }))
        .map(|client| Duration::from_millis(client.at_ms))
        .max();
    begin.map_or(Duration::ZERO, |begin| begin + history.under_way() * 3)
}

/// Checks that each stop hook begins when the one before it ended or was given up.
fn hooks_follow_each_other(history: &RunHistory<'_>) -> Result<(), String> {
    let is_stop = |record: &&Record| record.text("stage") == Some("stop") || is_given_up(record);
    let mut free = history.began(Phase::CleaningUp);
    let mut running = None;
    for record in history.records.iter().filter(is_stop) {
        match record.event {
            "hook begins" => {
                let ready = late_start(history, record);
                let since = free.take().map(|free| free.max(ready));
                if since.is_some_and(|since| record.at > since + MOMENT + history.tolerance()) {
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

/// Returns when the start hook of a stop hook that begins had finished, if it was dropped before.
fn late_start(history: &RunHistory<'_>, begins: &Record) -> Duration {
    let is_it = |record: &&Record| {
        record.text("stage") == Some("start") && record.text("hook") == begins.text("hook")
    };
    let was_dropped = begins.text("hook").is_some_and(|hook| history.was_dropped(hook));
    let ends = history.server("hook ends").find(is_it).filter(|_| was_dropped);
    ends.map_or(Duration::ZERO, |ends| ends.at)
}

pub(super) fn is_given_up(record: &Record) -> bool {
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
        (asks && !client.has_slow_header()) || stragglers::is_silent(client)
    });
    let (Some(draining), Some(cleaning_up)) =
        (history.began(Phase::Draining), history.began(Phase::CleaningUp))
    else {
        return Ok(());
    };
    // What waited for a descriptor is accepted late, and has its grace from then on.
    let Some(accepted) = history.accepts_all_by() else { return Ok(()) };
    let mut last = draining + history.world(QUIESCE);
    if !accepted.is_zero() {
        last = last.max(accepted + history.world(GRACE + HEAD_GRACE));
    }
    for record in &history.records {
        let client = record.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
        // A refused client was never connected. A silent client does not close its connection, and
        // its grace starts at its accept. A client that has sent a request has no grace.
        let (counts, grace) = match (client, record.event) {
            (None, event) => (event == "task ends", Duration::ZERO),
            (Some(n), event)
                if history.scenario.clients.get(n).is_some_and(stragglers::is_silent) =>
            {
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
    if simple && !unended && !hangs && cleaning_up > most {
        return Err(format!(
            "the last client event was at {last:?}, but cleaning up began at {cleaning_up:?}"
        ));
    }
    Ok(())
}
