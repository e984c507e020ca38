//! The oracle for P11: hooks in pairs; and the verdicts on hooks in the report.

use super::{Exercise, Judgement, RunHistory, shutdown};
use crate::{hooks::ActEnd, trace::Record};
use lameduck::{
    HookReport, Report,
    lifecycle::{GiveUp, HookResult, HookVerdict, Phase, START_RESULT_WAIT},
};
use std::time::Duration;

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
            let given_up = |hook: &HookReport| {
                hook.name == name && matches!(hook.verdict, HookVerdict::GivenUp(_))
            };
            report.hooks.iter().any(given_up)
                && (history.is_impatient()
                    || history.has_no_time(name)
                    || history.has_blocking_start()
                    // The others may have used up the common time.
                    || history.was_dropped(name))
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
        // So is one that finished in the moment of an exit that a signal hurried.
        let exit = history.exit().map(|(at, _)| at).filter(|_| history.is_impatient());
        let over = over.into_iter().chain(exit).min();
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
    cancelled_starts_are_awaited(history)?;
    Ok(Exercise::of(stopped.len()))
}

/// Checks that the result of a cancelled start hook is awaited: one that returns in time was not
/// dropped.
fn cancelled_starts_are_awaited(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(report), Some(clean_up)) = (
        &history.outcome.report,
        history.began(Phase::CleaningUp).filter(|_| !history.is_impatient()),
    ) else {
        return Ok(());
    };
    let cleans_up = |(phase, _): &&(Phase, Duration)| *phase == Phase::CleaningUp;
    let cleaned_up = report.phases.iter().find(cleans_up).map_or(Duration::ZERO, |(_, span)| *span);
    let stop = clean_up.saturating_sub(history.world(report.shutdown.saturating_sub(cleaned_up)));
    let left = report.worst_case.saturating_sub(history.scenario.plan().internal_close);
    let by = stop + history.world(START_RESULT_WAIT.min(left));
    for record in history.server("hook ends").filter(|record| record.text("stage") == Some("start"))
    {
        let hook = record.text("hook").unwrap_or_default();
        if history.was_dropped(hook) && record.at + history.rounding() < by {
            return Err(format!(
                "{hook} was dropped although its start ended at {:?}, {:?} after the stop request",
                record.at,
                record.at.saturating_sub(stop)
            ));
        }
    }
    Ok(())
}

/// Checks that a stop hook which was given up does not continue while the next one runs.
fn given_up_hooks_do_not_go_on(history: &RunHistory<'_>) -> Result<(), String> {
    let records = history.records.iter().enumerate();
    for (place, record) in records.filter(|(_, record)| shutdown::is_given_up(record)) {
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

/// Checks that each hook's verdict matches the trace, and that no hook is given up too early or too
/// late.
pub(super) fn hook_verdicts_match_the_trace(
    history: &RunHistory<'_>,
    report: &Report,
) -> Result<(), String> {
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
                the_length_is_true(history, hook, begins, ends)?;
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
        // While a start hook blocked, the time of the whole shutdown went on.
        if hook.verdict == HookVerdict::GivenUp(GiveUp::Overran)
            && !history.has_blocking_start()
            && over + Duration::from_micros(1) + history.rounding() < until
        {
            return Err(format!(
                "{} had time until {until:?} by the host's clock, but was given up at {over:?}",
                hook.name
            ));
        }
        if hook.verdict == HookVerdict::GivenUp(GiveUp::Impatience) {
            let is_followed = history
                .impatient()
                .any(|(_, signal)| history.host(signal.at).abs_diff(over) <= history.rounding());
            if !is_followed {
                return Err(format!(
                    "{} was given up at {over:?} because of a further signal, but there was none \
                     then",
                    hook.name
                ));
            }
        }
    }
    Ok(())
}

/// Checks the time that the report gives for a hook that ended by itself.
fn the_length_is_true(
    history: &RunHistory<'_>,
    hook: &HookReport,
    begins: Option<Duration>,
    ends: Option<Duration>,
) -> Result<(), String> {
    let (Some(begins), Some(ends)) = (begins, ends) else { return Ok(()) };
    let ran = history.host(ends) - history.host(begins);
    if ran.abs_diff(hook.took) > history.rounding() {
        return Err(format!(
            "a stage of {} ran {ran:?}, but the report has {:?}",
            hook.name, hook.took
        ));
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
