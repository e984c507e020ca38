//! Judges of the shutdown: P6, P7, P8, P11, P13.

use super::{End, Exercise, Judgement, Story};
use crate::{
    hooks::ActEnd,
    scenario::{Pacing, Traffic},
    trace::Record,
};
use lameduck::lifecycle::{HookResult, HookVerdict, Phase};
use std::time::Duration;

/// How long a connection may be silent, and the sweep that sees it.
const GRACE: Duration = Duration::from_millis(250 + 20);
/// Sealing the listeners, settling where nobody knows whether a handshake is under way, a sweep.
const QUIESCE: Duration = Duration::from_millis(70);
/// Timers are exact to this.
const MOMENT: Duration = Duration::from_millis(2);

/// P6: with no request left, silent connections delay the exit by the first-byte grace at most.
pub(super) fn no_straggler_holds_the_exit(story: &Story<'_>) -> Judgement {
    let (Some(draining), Some(span)) = (story.began(Phase::Draining), story.span(Phase::Draining)) else {
        return Ok(Exercise::No);
    };
    let simple = story.scenario.clients.iter().all(|client| match client.traffic {
        Traffic::Once(Pacing::Prompt) | Traffic::KeepAlive { .. } | Traffic::PerRequest { .. } | Traffic::ByteLess => true,
        Traffic::Once(_)
        | Traffic::Http2 { .. }
        | Traffic::Pipelined { .. }
        | Traffic::Late { .. }
        | Traffic::Leaves { .. }
        | Traffic::HalfHead => false,
    });
    let since = draining.saturating_sub(story.under_way() * 2);
    let busy = story.requests.iter().any(|asked| asked.end.as_ref().is_none_or(|(at, _)| *at > since));
    if !simple || busy || !story.delivers() {
        return Ok(Exercise::No);
    }
    // A connection that is on its way when the listeners settle is waited for, and has its grace from its accept.
    let most = GRACE + QUIESCE + story.under_way() * 2;
    if span > most {
        return Err(format!("with no request left the drain took {span:?}, more than {most:?}"));
    }
    Ok(Exercise::of(usize::from(story.scenario.clients.iter().any(|client| client.traffic == Traffic::ByteLess))))
}

/// P7: from the stop request to the exit it takes no longer than the plan says.
pub(super) fn bounded(story: &Story<'_>) -> Judgement {
    if let Some(bite) = story.server("watchdog bites").next() {
        return Err(format!("the watchdog had to end the process at {:?}", bite.at));
    }
    if let Err(overrun) = &story.outcome.ended {
        return Err(overrun.to_string());
    }
    let (Some(report), Some(stop), Some((exit, _))) = (&story.outcome.report, story.scenario.first_stop_ms(), story.exit())
    else {
        return Ok(Exercise::No);
    };
    if report.shutdown > report.worst_case + MOMENT {
        return Err(format!("the shutdown took {:?} of at most {:?}", report.shutdown, report.worst_case));
    }
    let by = Duration::from_millis(stop) + story.world(report.worst_case) + MOMENT;
    if exit > by {
        return Err(format!("a stop was asked for at {stop} ms and the process exited at {exit:?}, later than {by:?}"));
    }
    Ok(Exercise::Yes)
}

/// P8: nothing is slept that can be waited for.
pub(super) fn prompt(story: &Story<'_>) -> Judgement {
    let mut judged = 0;
    for (phase, place, at) in &story.phases {
        let Some(span) = story.span(*phase) else { continue };
        let record = &story.records[*place];
        let is_empty = record.number("in_flight") == Some(0) && record.number("connections") == Some(0);
        let newcomers = story.records.iter().any(|record| {
            matches!(record.event, "connected" | "connect failed")
                && record.actor.starts_with("client-")
                && record.at + story.under_way() * 2 > *at
                && record.at < *at + span + story.under_way() * 2
        });
        let most = match phase {
            Phase::Draining if is_empty && !newcomers && story.delivers() => QUIESCE,
            // Whoever is impatient does not wait for the listeners to settle; the cancel wait then does.
            Phase::Cancelling if is_empty && !newcomers && story.scenario.plan().drain > QUIESCE * 10 => {
                MOMENT + QUIESCE.saturating_sub(story.span(Phase::Draining).unwrap_or_default())
            }
            Phase::CleaningUp if story.scenario.hooks.is_empty() => GRACE + QUIESCE,
            Phase::Starting
            | Phase::Serving
            | Phase::LameDuck
            | Phase::Draining
            | Phase::Cancelling
            | Phase::CleaningUp
            | Phase::Stopped => continue,
        };
        if span > most {
            return Err(format!("with nothing left to wait for, {phase} lasted {span:?}"));
        }
        judged += 1;
    }
    hooks_follow_each_other(story)?;
    nobody_waits_for_what_is_over(story)?;
    Ok(Exercise::of(judged))
}

/// The next stop hook begins when the one before it ended.
fn hooks_follow_each_other(story: &Story<'_>) -> Result<(), String> {
    let is_stop = |record: &&Record| record.text("half") == Some("stop");
    let mut free = story.began(Phase::CleaningUp);
    for record in story.records.iter().filter(|record| matches!(record.event, "hook begins" | "hook ends")).filter(is_stop) {
        if record.event == "hook ends" {
            free = Some(record.at);
        } else if free.take().is_some_and(|free| record.at > free + MOMENT) {
            return Err(format!("{} was kept waiting until {:?}", record.text("hook").unwrap_or("a hook"), record.at));
        }
    }
    Ok(())
}

/// Once the last request ended and nobody comes any more, the drain is over, and so is the cancel wait.
fn nobody_waits_for_what_is_over(story: &Story<'_>) -> Result<(), String> {
    let silent = |n: usize| story.scenario.clients.get(n).is_some_and(|client| client.traffic == Traffic::ByteLess);
    let simple = story.scenario.clients.iter().all(|client| {
        matches!(
            client.traffic,
            Traffic::Once(Pacing::Prompt) | Traffic::KeepAlive { .. } | Traffic::PerRequest { .. } | Traffic::ByteLess
        )
    });
    let (Some(draining), Some(cleaning_up)) = (story.began(Phase::Draining), story.began(Phase::CleaningUp)) else {
        return Ok(());
    };
    let mut last = draining + story.world(QUIESCE);
    for record in &story.records {
        let Some(client) = record.actor.strip_prefix("client-").and_then(|n| n.parse().ok()) else { continue };
        // Whoever is refused was not there, and whoever is silent does not end anything by himself.
        let counts = match record.event {
            "connected" => true,
            "connect failed" | "retries" => false,
            _ => !silent(client),
        };
        if counts && record.at <= cleaning_up {
            last = last.max(record.at);
        }
    }
    let unended = story.requests.iter().any(|asked| asked.end.as_ref().is_none_or(|(at, _)| *at > cleaning_up));
    // Packets under way, a grace for who came and said nothing, a look at what the peer has acknowledged.
    let most = last + story.under_way() * 3 + story.world(GRACE);
    if simple && !unended && story.delivers() && cleaning_up > most {
        return Err(format!("the last of all clients was heard of at {last:?}, and cleaning up began at {cleaning_up:?}"));
    }
    Ok(())
}

/// P11: a stop hook runs if its start finished, once, in reverse order.
pub(super) fn hooks_in_pairs(story: &Story<'_>) -> Judgement {
    let of = |event: &'static str, half: &'static str| -> Vec<&str> {
        let records = story.server(event).filter(move |record| record.text("half") == Some(half));
        records.filter_map(|record: &Record| record.text("hook")).collect()
    };
    let started: Vec<&str> = {
        let fails = |name: &str| story.scenario.hooks.iter().any(|hook| hook.name == name && hook.start.end != ActEnd::Done);
        of("hook ends", "start").into_iter().filter(|name| !fails(name)).collect()
    };
    let mut expected = started.clone();
    expected.reverse();
    let stopped = of("hook begins", "stop");
    // One whose time was over before its turn came is reported as given up, and does not begin.
    let late = |name: &str| {
        story.outcome.report.as_ref().is_some_and(|report| {
            let given_up =
                |hook: &lameduck::HookReport| hook.name == name && matches!(hook.verdict, HookVerdict::GivenUp(_));
            report.hooks.iter().any(given_up) && (story.is_impatient() || story.has_no_time(name))
        })
    };
    expected.retain(|name| stopped.contains(name) || !late(name));
    if story.exit().is_some_and(|(_, code)| code != 5) && stopped != expected {
        return Err(format!("start hooks that finished: {started:?}; stop hooks that ran: {stopped:?}"));
    }
    if !expected.starts_with(&stopped) {
        return Err(format!("start hooks that finished: {started:?}; stop hooks that ran: {stopped:?}"));
    }
    Ok(Exercise::of(stopped.len()))
}

/// P13: the exit code follows from what happened.
pub(super) fn the_exit_tells_the_truth(story: &Story<'_>) -> Judgement {
    let (Some((_, code)), Some(report)) = (story.exit(), &story.outcome.report) else { return Ok(Exercise::No) };
    let failed = report.reason.is_some_and(lameduck::lifecycle::StopReason::is_failure);
    // What a worker could not even drop by the exit is counted, and has no particulars.
    let unlisted = report.requests.aborted > report.aborts.len() as u64;
    let cut = unlisted || report.aborts.iter().any(|abort| abort.phase >= Phase::Draining);
    let hook_failed = report.hooks.iter().any(|hook| match hook.verdict {
        HookVerdict::Stopped(HookResult::Failed | HookResult::Panicked) | HookVerdict::GivenUp(_) => true,
        HookVerdict::Stopped(HookResult::Done) | HookVerdict::Started(_) | HookVerdict::StartDropped => false,
    });
    let truth = if failed {
        1
    } else if cut {
        3
    } else if hook_failed {
        4
    } else {
        0
    };
    if code != truth {
        return Err(format!("the exit code is {code}, and the report's particulars make it {truth}"));
    }
    let torn = story
        .requests
        .iter()
        .filter(|asked| matches!(&asked.end, Some((_, End::Failed(how))) if how == "reset-in-body" || how == "body-cut"));
    if torn.count() > 0 && report.requests.aborted == 0 {
        return Err("a client's answer was cut, and the report knows of no abort".to_owned());
    }
    let broke = story.scenario.hooks.iter().find(|hook| {
        hook.stop.end != ActEnd::Done
            && story
                .server("hook begins")
                .any(|record| record.text("half") == Some("stop") && record.text("hook") == Some(hook.name.as_str()))
    });
    if let Some(hook) = broke
        && code == 0
    {
        return Err(format!("the stop hook {} did not end well, and the exit code is 0", hook.name));
    }
    Ok(Exercise::Yes)
}
