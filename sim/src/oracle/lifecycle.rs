//! Oracles for the phases: P1, P4, P12.

use super::{Exercise, Judgement, RunHistory, announcements, client_times};
use crate::trace::Record;
use lameduck::lifecycle::{ABORT_FLUSH, GiveUp, HookVerdict, Phase};
use std::time::Duration;

/// Tolerance of a timer.
const MOMENT: Duration = Duration::from_millis(2);
/// How long the host waits at the end for workers that do not return.
const WORKER_RELEASE_MAX: Duration = Duration::from_millis(50);

/// P1: a process never goes back to an earlier phase, and skips only phases that may be skipped.
pub(super) fn forward_only(history: &RunHistory<'_>) -> Judgement {
    for pair in history.phases.windows(2) {
        let [(from, _, _), (to, _, at)] = pair else { continue };
        let may_follow = match from {
            Phase::Starting => matches!(to, Phase::Serving | Phase::CleaningUp),
            // A delay of zero has no LameDuck phase.
            Phase::Serving => matches!(to, Phase::LameDuck | Phase::Draining),
            Phase::LameDuck => *to == Phase::Draining,
            Phase::Draining => *to == Phase::Cancelling,
            Phase::Cancelling => *to == Phase::CleaningUp,
            Phase::CleaningUp => *to == Phase::Stopped,
            Phase::Stopped => false,
        };
        if !may_follow {
            return Err(format!("{to} followed {from} at {at:?}"));
        }
    }
    Ok(Exercise::of(history.phases.len()))
}

/// P4: the delay is neither cut short nor prolonged, every connection is accepted, and every close
/// is announced.
pub(super) fn a_lame_duck_serves(history: &RunHistory<'_>) -> Judgement {
    let Some(left) = history.left_serving() else { return Ok(Exercise::No) };
    if let Some(span) = history.span(Phase::LameDuck) {
        let delay = history.scenario.plan().lame_duck;
        if span < delay && !history.is_impatient() {
            return Err(format!("the lame duck delay lasted {span:?} instead of {delay:?}"));
        }
        if span > delay + history.rounding() {
            return Err(format!("the lame duck delay of {delay:?} lasted {span:?}"));
        }
    }
    announcements::closes_are_announced(history)?;
    if history.delivers() || (history.reaches() && history.resets()) {
        no_connection_is_refused(history)?;
    }
    let served = history
        .requests
        .iter()
        .filter(|observed| observed.head.is_some_and(|(at, _, _)| at > left));
    Ok(Exercise::of(served.count()))
}

fn no_connection_is_refused(history: &RunHistory<'_>) -> Result<(), String> {
    let Some(serving) = history.began(Phase::Serving) else { return Ok(()) };
    let open_until = history.began(Phase::Draining).unwrap_or(Duration::MAX);
    for record in history.events("connect failed") {
        // A client with a slow header may be refused for that.
        let client = record.actor.strip_prefix("client-").and_then(|n| n.parse::<usize>().ok());
        let client = client.and_then(|n| history.scenario.clients.get(n));
        if client.is_some_and(|client| !client.has_slow_header())
            && record.at > serving + history.under_way() * 2 + history.tolerance()
            && record.at + history.outcome.grain < open_until
        {
            return Err(format!(
                "{} could not connect at {:?}, before the drain",
                record.actor, record.at
            ));
        }
    }
    Ok(())
}

/// P12: a further SIGINT or SIGQUIT ends the current wait at once.
pub(super) fn an_interrupt_ends_the_wait(history: &RunHistory<'_>) -> Judgement {
    nothing_else_ends_a_wait(history)?;
    client_times::internal_heads_have_their_time(history)?;
    let mut judged = 0;
    let mut hurried = false;
    for (place, signal) in history.impatient() {
        let Some((phase, _, _)) = history.phases.iter().rfind(|(_, entered, _)| *entered < place)
        else {
            continue;
        };
        let wait_max = match phase {
            Phase::LameDuck | Phase::Draining => Duration::ZERO,
            // The 503s of aborted requests are still flushed.
            Phase::Cancelling if hurried || is_flushing(history, signal.at) => Duration::ZERO,
            Phase::Cancelling => history.world(ABORT_FLUSH),
            Phase::CleaningUp => {
                the_running_hook_is_given_up(history, place, signal.at)?;
                continue;
            }
            Phase::Starting | Phase::Serving | Phase::Stopped => continue,
        };
        hurried = *phase == Phase::Cancelling;
        let next = history.phases.iter().find(|(_, entered, _)| *entered > place);
        if next.is_none_or(|(_, _, at)| *at > signal.at + wait_max + MOMENT + history.release()) {
            return Err(format!("a further signal at {:?} did not end {phase}", signal.at));
        }
        judged += 1;
    }
    Ok(Exercise::of(judged))
}

/// Checks that, without a further SIGINT or SIGQUIT, a wait ends only when its time expires or when
/// nothing is left to wait for. A hook is then given up only because its time expired.
fn nothing_else_ends_a_wait(history: &RunHistory<'_>) -> Result<(), String> {
    if history.is_impatient() {
        return Ok(());
    }
    let plan = history.scenario.plan();
    let last = plan.cleanup + plan.internal_close;
    for (phase, limit, next) in [
        (Phase::Draining, history.budget(Phase::Draining, plan.cancel + last), Phase::Cancelling),
        (Phase::Cancelling, history.budget(Phase::Cancelling, last), Phase::CleaningUp),
    ] {
        let (Some(span), Some((_, place, at))) =
            (history.span(phase), history.phases.iter().find(|(entered, ..)| *entered == next))
        else {
            continue;
        };
        if span + MOMENT < limit && history.records[*place].number("in_flight") > Some(0) {
            return Err(format!(
                "{phase} ended at {at:?}, after {span:?} of {limit:?}, with requests in flight"
            ));
        }
    }
    let hooks = history.outcome.report.iter().flat_map(|report| &report.hooks);
    match hooks.into_iter().find(|hook| hook.verdict == HookVerdict::GivenUp(GiveUp::Impatience)) {
        Some(hook) => Err(format!(
            "the hook {} was given up because of a further signal, but there was none",
            hook.name
        )),
        None => Ok(()),
    }
}

/// Whether work that ignored the cancellation was already aborted at this time, so that only
/// responses are being flushed.
fn is_flushing(history: &RunHistory<'_>, at: Duration) -> bool {
    let observed = history.world(history.scenario.plan().cancel.saturating_sub(ABORT_FLUSH));
    history
        .began(Phase::Cancelling)
        .is_some_and(|cancelling| at > cancelling + observed + MOMENT + history.tolerance())
}

/// Checks that a further signal ends the close of the internal server when no stop hook is left.
fn the_internal_close_is_ended(
    history: &RunHistory<'_>,
    place: usize,
    at: Duration,
) -> Result<(), String> {
    let hook_follows = history.records[place..].iter().any(|record| record.event == "hook begins");
    let unbegun = history.records[place..]
        .iter()
        .any(|record| record.text("end").is_some_and(|end| end.starts_with("stop")));
    // What it ends then is the wait for the late result of a start hook.
    let starts = |event| {
        let is_start =
            |record: &&Record| record.event == event && record.text("stage") == Some("start");
        history.records[..place].iter().filter(is_start).count()
    };
    let is_start_late = history.scenario.hooks.iter().any(|hook| hook.start_blocks)
        && starts("hook begins") > starts("hook ends");
    let stopped =
        history.phases.iter().find(|(phase, _, _)| *phase == Phase::Stopped).map(|(_, _, at)| *at);
    if !is_start_late
        && !hook_follows
        && !unbegun
        && !may_wait_for_workers(history, at)
        && stopped.is_some_and(|stopped| stopped > at + MOMENT + history.release())
    {
        return Err(format!("a further signal at {at:?} did not end the internal server's close"));
    }
    Ok(())
}

/// Whether a further signal may have ended the wait for workers, which comes before the close of
/// the internal server. In simulated time they are released at once.
fn may_wait_for_workers(history: &RunHistory<'_>, at: Duration) -> bool {
    let hooks = history.server("hook ends").map(|record| record.at).filter(|end| *end <= at);
    let since = hooks.chain(history.began(Phase::CleaningUp)).max().unwrap_or_default();
    !history.tolerance().is_zero() && at <= since + WORKER_RELEASE_MAX
}

/// Checks that a further signal in CleaningUp gives up the running hook. If no hook is left, the
/// signal must end the close of the internal server.
fn the_running_hook_is_given_up(
    history: &RunHistory<'_>,
    place: usize,
    at: Duration,
) -> Result<(), String> {
    let of_a_stop = |record: &&Record| {
        record.text("stage") == Some("stop") && record.event.starts_with("hook ")
    };
    let (before, after) = history.records.split_at(place);
    let hook = before.iter().rfind(of_a_stop).filter(|last| last.event == "hook begins");
    let Some(hook) = hook.and_then(|hook| hook.text("hook")) else {
        return the_internal_close_is_ended(history, place, at);
    };
    // The end of the hook, or the host's record of one that panicked, failed or was given up.
    let is_over = |record: &&Record| {
        let said = record.text("end").is_some_and(|end| end.starts_with("stop"));
        record.text("hook") == Some(hook)
            && (said || (record.event == "hook ends" && record.text("stage") == Some("stop")))
    };
    let was_over = before.iter().any(|record| is_over(&record));
    let by = after.iter().find(is_over).map(|over| over.at);
    if was_over || by.is_some_and(|by| by <= at + MOMENT + history.tolerance()) {
        return Ok(());
    }
    Err(format!("a further signal at {at:?} did not give up the hook {hook}"))
}
