//! The books: what the report says, held against what was seen of it, number by number (P5, P11, P13).
//!
//! Nothing here asks the host's own code what is a failure, how long a plan is at worst, or what a hook may take: it is worked out
//! again, so that a mistake there is not made twice.

use super::{Asked, End, Said, Story};
use crate::{
    client::UNREAD_WINDOW,
    hooks::ActEnd,
    scenario::{Client, Deed, Traffic},
    trace::Record,
};
use lameduck::{
    Report,
    lifecycle::{GiveUp, HookResult, HookVerdict, Phase, StopReason},
};
use std::{collections::BTreeSet, time::Duration};

/// How long the cut has to be carried out after the last phase.
const CUT: Duration = Duration::from_millis(50);

/// The report's numbers add up, and are those of the trace.
pub(super) fn the_books_agree(story: &Story<'_>, report: &Report) -> Result<(), String> {
    spans_are_the_phases(story, report)?;
    the_bound_is_the_plans(story, report)?;
    failures_are_said(story, report)?;
    connections_are_counted(story, report)?;
    hooks_are_told_as_they_were(story, report)
}

/// What a shutdown may take at worst, of this plan.
pub(super) fn worst_case(story: &Story<'_>) -> Duration {
    let plan = &story.scenario.plan;
    let all = plan.lame_duck + plan.drain + plan.cancel + plan.cleanup + plan.internal_close;
    Duration::from_millis(all)
}

/// Whether the service itself failed, as the report has it.
pub(super) const fn is_failure(reason: StopReason) -> bool {
    match reason {
        StopReason::Signal(_) | StopReason::Requested => false,
        StopReason::TaskFailed | StopReason::StartFailed | StopReason::StartTimedOut => true,
    }
}

fn spans_are_the_phases(story: &Story<'_>, report: &Report) -> Result<(), String> {
    let Some((exit, _)) = story.exit() else { return Ok(()) };
    // A phase of no time is told when it is entered, as all others.
    let seen: Vec<(Phase, Duration)> = story.phases.iter().map(|(phase, _, at)| (*phase, *at)).collect();
    let said: Vec<Phase> = report.phases.iter().map(|(phase, _)| *phase).collect();
    if said != seen.iter().map(|(phase, _)| *phase).collect::<Vec<_>>() {
        return Err(format!("the report's phases are {said:?}, and those that were entered {seen:?}"));
    }
    for (n, (phase, span)) in report.phases.iter().enumerate() {
        let (_, from) = seen[n];
        let to = seen.get(n + 1).map_or(exit, |(_, at)| *at);
        let lasted = story.host(to) - story.host(from);
        if span.abs_diff(lasted) > story.rounding() {
            return Err(format!("the report says that {phase} lasted {span:?}, and it lasted {lasted:?}"));
        }
    }
    let stop = story.left_serving().or(story.began(Phase::CleaningUp)).unwrap_or(exit);
    let lasted = story.host(exit) - story.host(stop);
    if report.shutdown.abs_diff(lasted) > story.rounding() {
        return Err(format!("the report says that the shutdown took {:?}, and it took {lasted:?}", report.shutdown));
    }
    Ok(())
}

fn the_bound_is_the_plans(story: &Story<'_>, report: &Report) -> Result<(), String> {
    let worst = worst_case(story);
    if report.worst_case != worst {
        return Err(format!("the report's worst case is {:?}, and the plan's {worst:?}", report.worst_case));
    }
    Ok(())
}

/// Whether the first hook that failed did so after the stop request: a start hook that was cancelled has a moment to return.
fn a_cancelled_start_failed(story: &Story<'_>, report: &Report) -> bool {
    let exit = report.phases.iter().map(|(_, span)| *span).sum::<Duration>();
    let stop = exit.saturating_sub(report.shutdown);
    let failed = story.server("log").find(|record| record.text("message") == Some("hook failed"));
    failed.is_some_and(|record| story.host(record.at) + story.rounding() >= stop)
}

/// Why a life failed, and that it did.
fn failures_are_said(story: &Story<'_>, report: &Report) -> Result<(), String> {
    let start_failed = report.hooks.iter().any(is_failed_start);
    let limit = Duration::from_millis(story.scenario.plan.start);
    let timed_out = story.began(Phase::Serving).is_none() && story.span(Phase::Starting).is_some_and(|span| span >= limit);
    let reason_holds = match report.reason {
        Some(StopReason::StartFailed) => start_failed,
        Some(StopReason::StartTimedOut) => timed_out,
        Some(StopReason::TaskFailed) => story.server("task ends").any(has_failed),
        Some(StopReason::Signal(_) | StopReason::Requested) => {
            !start_failed || timed_out || limit.is_zero() || a_cancelled_start_failed(story, report)
        }
        None => false,
    };
    if !reason_holds {
        return Err(format!("the report's reason is {:?}, and nothing of that kind happened", report.reason));
    }
    let Some(task_failed) = story.a_task_failed() else { return Ok(()) };
    let failed = task_failed || start_failed || report.work_panicked > 0 || report.reason.is_none_or(is_failure);
    if failed != report.error.is_some() {
        return Err(format!(
            "the service {}failed, and the error is {:?}",
            if failed { "" } else { "never " },
            report.error
        ));
    }
    Ok(())
}

pub(super) const fn is_failed_start(hook: &lameduck::HookReport) -> bool {
    matches!(hook.verdict, HookVerdict::Started(HookResult::Failed | HookResult::BadSetting | HookResult::Panicked))
}

fn has_failed(record: &Record) -> bool {
    matches!(record.text("how"), Some("failed" | "panicked"))
}

fn connections_are_counted(story: &Story<'_>, report: &Report) -> Result<(), String> {
    let connections = &report.connections;
    if connections.open() > 0 {
        return Err(format!("{} connections were open at the exit", connections.open()));
    }
    let is_conversation = story.server("conversation begins").count() as u64;
    if is_conversation > connections.upgraded {
        return Err(format!("{is_conversation} connections were upgraded, and the host counts {}", connections.upgraded));
    }
    let failed = story.server("accept failed").filter(|record| record.text("how") == Some("descriptors")).count() as u64;
    if connections.accept_errors != failed {
        return Err(format!("{failed} accepts failed, and the host counts {}", connections.accept_errors));
    }
    let answered: BTreeSet<(usize, u64)> =
        story.requests.iter().filter(|asked| asked.head.is_some()).map(|asked| (asked.client, asked.connection)).collect();
    if connections.accepted < answered.len() as u64 {
        return Err(format!("{} connections were served, and the host accepted {}", answered.len(), connections.accepted));
    }
    // An answer that was cut in its body was reset by us, where nobody else resets anything.
    let torn: BTreeSet<(usize, u64)> = story
        .requests
        .iter()
        .filter(|asked| matches!(&asked.end, Some((_, End::Failed(how))) if how == "reset-in-body"))
        .filter(|asked| !is_http2(story.client(asked)))
        .map(|asked| (asked.client, asked.connection))
        .collect();
    if story.delivers() && connections.reset < torn.len() as u64 {
        return Err(format!("{} clients saw a reset, and the host counts {}", torn.len(), connections.reset));
    }
    Ok(())
}

/// What crossed the close of an idle connection is counted, where the network is so near that it must have been seen.
pub(super) fn races_are_counted(story: &Story<'_>, report: &Report) -> Result<(), String> {
    let cut = story.began(Phase::CleaningUp).unwrap_or_default();
    let crossed = story.requests.iter().filter(|asked| {
        let keeps = story.client(asked).is_some_and(|client| matches!(client.traffic, Traffic::KeepAlive { .. }));
        let lost =
            matches!(&asked.end, Some((_, End::Failed(how))) if how == "end-before-head" || how == "reset-before-head");
        keeps
            && lost
            && asked.earlier > 0
            && asked.head.is_none()
            && asked.sent.is_some_and(|sent| sent + story.under_way() < cut)
    });
    let crossed = crossed.count() as u64;
    let near = story.scenario.latency_ms.1 <= 4 && story.outcome.grain.is_zero() && story.scenario.clock_skew_ppm <= 0;
    if near && story.delivers() && !story.is_impatient() && crossed > report.connections.raced {
        return Err(format!("{crossed} requests crossed a close, and the host counts {}", report.connections.raced));
    }
    Ok(())
}

/// Connections that the drain closed without an announcement are counted, and no others.
pub(super) fn untold_are_counted(story: &Story<'_>, report: &Report) -> Result<(), String> {
    let connections = &report.connections;
    let announced = |asked: &&Asked| matches!(asked.head, Some((_, _, true)));
    let key = |asked: &Asked| (asked.client, asked.connection);
    let mut told: BTreeSet<(usize, u64)> = story.requests.iter().filter(announced).map(key).collect();
    let number = |record: &Record| {
        let client = record.actor.strip_prefix("client-").and_then(|n| n.parse().ok());
        client.zip(record.number("connection"))
    };
    told.extend(story.records.iter().filter(|record| record.event == "goaway").filter_map(number));
    if connections.untold + told.len() as u64 > connections.accepted {
        return Err(format!(
            "{} of {} connections saw an announcement, and the host counts {} untold",
            told.len(),
            connections.accepted,
            connections.untold
        ));
    }
    let (Some(draining), Some(exit)) = (story.began(Phase::Draining), story.exit()) else {
        return if connections.untold == 0 { Ok(()) } else { Err(untold_without_drain(connections.untold)) };
    };
    // What a body that was left unread closes was never idle.
    let keeps = |client: &Client| {
        let tears = |deed: &Deed| matches!(deed, Deed::Unread(_) | Deed::Breaks | Deed::Get(_) | Deed::Post(..));
        matches!(client.traffic, Traffic::KeepAlive { .. })
            && !tears(&client.deed)
            && !client.then.as_ref().is_some_and(tears)
    };
    let closed = story.records.iter().filter(|record| {
        let client = number(record).and_then(|(n, _)| story.scenario.clients.get(n));
        record.event == "closed idle"
            && record.text("how") == Some("fin")
            && record.at >= draining
            && record.at < exit.0
            && client.is_some_and(keeps)
    });
    let closed = closed.filter_map(number).filter(|key| !told.contains(key)).count() as u64;
    if story.delivers() && closed > connections.untold {
        return Err(format!(
            "{closed} idle connections were closed without an announcement, and the host counts {}",
            connections.untold
        ));
    }
    Ok(())
}

fn untold_without_drain(untold: u64) -> String {
    format!("nothing was drained, and the host counts {untold} connections that it closed untold")
}

pub(super) fn is_http2(client: Option<&Client>) -> bool {
    client.is_some_and(|client| matches!(client.traffic, Traffic::Http2 { .. } | Traffic::Http2Leaves { .. }))
}

/// Each fate is counted for whom it befell.
pub(super) fn fates_are_counted(story: &Story<'_>, report: &Report) -> Result<(), String> {
    let tally = &report.requests;
    if tally.aborted != report.aborts.len() as u64 {
        return Err(format!("{} requests were aborted, and {} have particulars", tally.aborted, report.aborts.len()));
    }
    let said = |said: Said| story.requests.iter().filter(|asked| asked.said == said).count() as u64;
    if said(Said::TimedOut) > tally.timed_out {
        return Err(format!(
            "{} clients were told of a deadline, and the host counts {}",
            said(Said::TimedOut),
            tally.timed_out
        ));
    }
    let aborts = |head_sent: bool| report.aborts.iter().filter(|abort| abort.head_sent == head_sent).count() as u64;
    let cut = said(Said::Aborted) + said(Said::Stalled);
    if cut > aborts(false) {
        return Err(format!("{cut} requests were cut before their head, and the report has {}", aborts(false)));
    }
    unread_is_not_finished(story, report)?;
    cut_short_is_reset(story)?;
    aborts_are_as_old_as_they_were(story)?;
    if !story.everybody_stays() || story.requests.iter().any(|asked| asked.end.is_none()) {
        return Ok(());
    }
    let torn = |asked: &&Asked| {
        asked.head.is_some() && matches!(&asked.end, Some((_, End::Failed(how))) if how != "timed-out" && how != "not-sent")
    };
    // Whoever is cut in the very moment of its head may not have seen it.
    let torn = story.requests.iter().filter(torn).count() as u64;
    if torn > aborts(true) {
        return Err(format!("{torn} answers broke off after their head, and the report has {} of those", aborts(true)));
    }
    let all_answered = story.requests.iter().all(|asked| matches!(&asked.end, Some((_, End::Completed(..)))));
    let asks =
        |client: &Client| !matches!(client.traffic, Traffic::Upgraded { .. } | Traffic::HalfHead | Traffic::SilentHttp2);
    if all_answered && story.scenario.clients.iter().all(asks) {
        let refused = |asked: &&Asked| matches!(&asked.end, Some((_, End::Completed(400 | 408 | 431, _))));
        let refused = story.requests.iter().filter(refused).count() as u64;
        let answered = story.requests.len() as u64 - refused;
        let (timed_out, others) = (said(Said::TimedOut), answered - said(Said::TimedOut) - cut);
        if (tally.timed_out, tally.aborted, tally.finished) != (timed_out, cut, others) {
            return Err(format!("clients were told of {timed_out} deadlines, {cut} cuts and {others} answers: {tally:?}"));
        }
    }
    Ok(())
}

/// Each abort is told with the path and the age of a handler that was at work.
fn aborts_are_as_old_as_they_were(story: &Story<'_>) -> Result<(), String> {
    let others = |client: &Client| matches!(client.deed, Deed::Get(_) | Deed::Post(..));
    if story.scenario.clients.iter().any(others) {
        // Another app's handlers do not tell.
        return Ok(());
    }
    for record in story.server("log").filter(|record| record.text("message") == Some("request aborted")) {
        let (Some(path), Some(age)) = (record.text("path"), record.number("age_ms").map(Duration::from_millis)) else {
            continue;
        };
        let is_it = |begins: &Record| {
            let target = begins.text("target").unwrap_or_default();
            let lived = story.host(record.at) - story.host(begins.at.min(record.at));
            target.split('?').next() == Some(path) && lived.abs_diff(age) <= Duration::from_millis(1) + story.rounding()
        };
        if !story.server("handler begins").any(is_it) {
            return Err(format!(
                "{path} is said to be cut at {:?} after {age:?}, and no handler of it was that old",
                record.at
            ));
        }
    }
    Ok(())
}

/// With HTTP/1 an answer that is cut in its body is reset: an end could be taken for its own.
fn cut_short_is_reset(story: &Story<'_>) -> Result<(), String> {
    // One of the worlds knows no reset.
    if !story.resets() {
        return Ok(());
    }
    let ended = story.requests.iter().find(|asked| {
        // The length of a 503 tells that it is not whole.
        let is_ours = asked.head.is_some_and(|(_, status, _)| status == 503);
        !is_ours && !is_http2(story.client(asked)) && matches!(&asked.end, Some((_, End::Failed(how))) if how == "body-cut")
    });
    match ended {
        Some(asked) => Err(format!("an answer to {} was cut in its body, and ended as if it were whole", asked.target)),
        None => Ok(()),
    }
}

/// An answer that is larger than the window of a client that reads nothing is never handed over whole.
fn unread_is_not_finished(story: &Story<'_>, report: &Report) -> Result<(), String> {
    let unread = story.requests.iter().filter(|asked| {
        let large = |deed: &Deed| matches!(deed, Deed::Bytes(bytes) if *bytes > UNREAD_WINDOW as usize);
        story.client(asked).is_some_and(|client| matches!(client.traffic, Traffic::Http2Leaves { .. }))
            && story.deed(asked).is_some_and(large)
            && asked.head.is_some_and(|(_, status, _)| status == 200)
    });
    let unread = unread.count() as u64;
    if report.requests.finished + unread > report.requests.started {
        return Err(format!(
            "{unread} answers were never read, and {} of {} are said to be finished",
            report.requests.finished, report.requests.started
        ));
    }
    Ok(())
}

/// A hook's verdict is what became of it, and it was given up neither before its time nor after it.
fn hooks_are_told_as_they_were(story: &Story<'_>, report: &Report) -> Result<(), String> {
    let shares = shares(story);
    let began = story.began(Phase::CleaningUp).map(|at| story.host(at)).unwrap_or_default();
    let plan = &story.scenario.plan;
    let cleanup = Duration::from_millis(plan.cleanup);
    // Where phases are too long, that is another promise's matter.
    let common = began + cleanup;
    for hook in &report.hooks {
        let Some(n) = story.scenario.hooks.iter().position(|script| script.name == hook.name) else { continue };
        let script = &story.scenario.hooks[n];
        let half = match hook.verdict {
            HookVerdict::Started(_) | HookVerdict::StartDropped => "start",
            HookVerdict::Stopped(_) | HookVerdict::GivenUp(_) => "stop",
        };
        let when = |event: &'static str| {
            let mine = |record: &&Record| record.text("half") == Some(half) && record.text("hook") == Some(&script.name);
            story.server(event).find(mine).map(|record| record.at)
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
                    return Err(format!("the {half} of {} is said to be {said:?}, and it was {result:?}", hook.name));
                }
            }
            HookVerdict::StartDropped | HookVerdict::GivenUp(_) => {
                // What ends with its time was out of time.
                if let (Some(ends), Some(begins)) = (ends, begins)
                    && story.host(ends) + story.rounding() < story.host(begins) + hook.took
                {
                    return Err(format!("the {half} of {} ended at {ends:?}, and is said to be given up", hook.name));
                }
            }
        }
        let (HookVerdict::GivenUp(_) | HookVerdict::Stopped(_), Some(begins)) = (hook.verdict, begins) else { continue };
        // A late one runs after all others, and gets what they left.
        let below = if story.was_dropped(&hook.name) { 0 } else { n };
        let reserved: Duration = shares[..below].iter().sum();
        let until = common.saturating_sub(reserved);
        let until = script.budget_ms.map_or(until, |own| until.min(story.host(begins) + Duration::from_millis(own)));
        let over = story.host(begins) + hook.took;
        // A share of a third is no whole millisecond.
        let late = until + Duration::from_millis(1) + story.rounding();
        if over > late {
            return Err(format!("{} had until {until:?} by the host's clock, and its stop was over at {over:?}", hook.name));
        }
        if hook.verdict == HookVerdict::GivenUp(GiveUp::Overran)
            && over + Duration::from_micros(1) + story.rounding() < until
        {
            return Err(format!("{} had until {until:?} by the host's clock, and was given up at {over:?}", hook.name));
        }
        if hook.verdict == HookVerdict::GivenUp(GiveUp::Impatience) {
            let heard = story.impatient().any(|(_, signal)| story.host(signal.at).abs_diff(over) <= story.rounding());
            if !heard {
                return Err(format!("{} was given up at {over:?} for impatience, and nobody was impatient then", hook.name));
            }
        }
    }
    Ok(())
}

/// What each hook is sure to get: its own budget, or an equal share of what those leave.
fn shares(story: &Story<'_>) -> Vec<Duration> {
    let hooks = &story.scenario.hooks;
    let own: u64 = hooks.iter().filter_map(|hook| hook.budget_ms).sum();
    let open = hooks.iter().filter(|hook| hook.budget_ms.is_none()).count();
    let left = Duration::from_millis(story.scenario.plan.cleanup.saturating_sub(own));
    let share = u32::try_from(open).ok().filter(|open| *open > 0).map_or(Duration::ZERO, |open| left / open);
    hooks.iter().map(|hook| hook.budget_ms.map_or(share, Duration::from_millis)).collect()
}

/// The exit follows the last phase.
pub(super) fn the_exit_follows(story: &Story<'_>) -> Result<(), String> {
    let (Some(stopped), Some((exit, _))) = (story.began(Phase::Stopped), story.exit()) else { return Ok(()) };
    if exit > stopped + story.world(CUT) + story.rounding() {
        return Err(format!("nothing was left at {stopped:?}, and the process exited at {exit:?}"));
    }
    Ok(())
}
