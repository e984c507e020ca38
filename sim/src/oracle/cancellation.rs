//! The oracle for P10: cancel after drain, clean up after cancel.

use super::{Exercise, Judgement, RunHistory, handler_times, request_deadline::EARLY};
use crate::{
    app::{PUSH_INTERVAL, has_failing_body},
    scenario::Client,
    trace::Record,
};
use lameduck::lifecycle::{ABORT_FLUSH, Phase};
use std::time::Duration;

/// How long an upload may make no progress in the drain, by the host's clock.
const PROGRESS_WAIT_US: u64 = 5_000_000;

/// P10: the root context is cancelled after the drain, and stop hooks run after the handlers.
pub(super) fn cancel_after_drain(history: &RunHistory<'_>) -> Judgement {
    let cancelling = history.began(Phase::Cancelling);
    let slack = history.tolerance().min(history.early());
    let mut judged = 0;
    for record in
        history.server("handler cancelled").filter(|record| record.text("by") == Some("root"))
    {
        if cancelling.is_none_or(|cancelling| record.at + slack < cancelling) {
            return Err(format!(
                "a handler was cancelled at {:?}, before the drain ended",
                record.at
            ));
        }
        judged += 1;
    }
    for record in history.server("abort") {
        let phase = record.text("phase").unwrap_or_default();
        // An upload that makes no progress is given up in the drain (P6).
        let stalled = phase == "draining" && record.number("age_us") >= Some(PROGRESS_WAIT_US);
        // A body that fails is not aborted by the host. On HTTP/1 its connection is reset, and
        // responses that had not been sent are lost with it.
        let breaks = record.text("by_shutdown") == Some("no");
        if breaks && !history.requests.iter().any(|observed| has_failing_body(&observed.target)) {
            return Err(format!(
                "{} failed without a cause",
                record.text("path").unwrap_or_default()
            ));
        }
        let early = history.requests_cancelled().is_some_and(|at| record.at >= at);
        // The cut belongs to the cancel wait, also if a worker carries it out later.
        let late = phase == "cancelling";
        if !stalled && !breaks && !early && !late {
            return Err(format!(
                "{} was aborted in {phase}",
                record.text("path").unwrap_or_default()
            ));
        }
    }
    tasks_are_notified_on_time(history)?;
    aborted_in_time(history)?;
    conversations_end_at_the_abort(history)?;
    handler_times::cancelled_on_time(history)?;
    handler_times::tasks_are_notified(history)?;
    handler_times::no_work_is_left(history)?;
    let first_hook = history
        .records
        .iter()
        .position(|record| record.event == "hook begins" && record.text("stage") == Some("stop"));
    let time_was_up = history.is_impatient()
        || history
            .span(Phase::Cancelling)
            .is_none_or(|span| span + history.rounding() >= history.scenario.plan().cancel);
    if let Some(place) = first_hook
        && !time_was_up
    {
        let count =
            |event| history.records[..place].iter().filter(|record| record.event == event).count();
        let (begun, ended) = (count("handler begins"), count("handler ends"));
        if begun != ended {
            return Err(format!("stop hooks began while {} handlers were running", begun - ended));
        }
        let (begun, ended) = (count("task begins"), count("task ends"));
        if begun != ended {
            return Err(format!("stop hooks began while {} tasks were running", begun - ended));
        }
        let hook_began = history.records[place].at;
        let begun = history.server("conversation begins").count();
        let ended =
            history.server("conversation ends").filter(|record| record.at <= hook_began).count();
        if begun > ended {
            return Err(format!(
                "stop hooks began while {} upgraded connections were open",
                begun - ended
            ));
        }
        judged += 1;
    }
    Ok(Exercise::of(judged))
}

/// Checks that tasks are notified of each shutdown step when it begins, and not before.
fn tasks_are_notified_on_time(history: &RunHistory<'_>) -> Result<(), String> {
    let moments = [
        ("stopping", history.left_serving()),
        ("draining", history.began(Phase::Draining)),
        ("cancelled", history.began(Phase::Cancelling)),
    ];
    for record in history.server("task notified") {
        let of = record.text("of").unwrap_or_default();
        let Some((_, came)) = moments.iter().find(|(moment, _)| *moment == of) else { continue };
        // A task that begins later is notified at once.
        let task = record.text("task");
        let begun = history
            .server("task begins")
            .filter(|begun| begun.text("task") == task)
            .map(|begun| begun.at)
            .max();
        let due = came.map(|came| came.max(begun.unwrap_or_default()));
        let on_time = due.is_some_and(|due| {
            let early = history.tolerance().min(history.early());
            record.at + early >= due && record.at <= due + history.tolerance()
        });
        if !on_time {
            return Err(format!(
                "{} was notified of {of} at {:?} instead of {due:?}",
                task.unwrap_or_default(),
                record.at
            ));
        }
    }
    Ok(())
}

/// Checks that no upgraded connection is open after the abort, whether its handler reads or writes.
fn conversations_end_at_the_abort(history: &RunHistory<'_>) -> Result<(), String> {
    let plan = history.scenario.plan();
    let wait = history.world(plan.cancel.saturating_sub(ABORT_FLUSH));
    let phase = history.phases.iter().find(|(phase, ..)| *phase == Phase::Cancelling);
    let streams = phase.map(|(_, _, at)| *at + wait);
    let requests = history.began(Phase::Cancelling).map(|at| at + wait);
    let exit = history.exit().map_or(Duration::MAX, |(at, _)| at);
    for begins in history.server("conversation begins") {
        let abort = if begins.text("long") == Some("yes") { streams } else { requests };
        let Some(abort) = abort.filter(|abort| begins.at < *abort) else { continue };
        let ends = history.of_its_handler(begins, "conversation ends");
        let by = abort + PUSH_INTERVAL + history.rounding() * 2 + history.tolerance();
        let is_open = ends.is_none_or(|ends| ends.at > by);
        if is_open && by < exit && !history.is_disturbed((abort, by)) {
            return Err(format!(
                "an upgraded connection since {:?} had to end by {by:?}, but was open until {:?}",
                begins.at,
                ends.map(|ends| ends.at)
            ));
        }
    }
    Ok(())
}

/// Checks that work which ignores the cancellation has the whole cancel wait except for the flush.
fn aborted_in_time(history: &RunHistory<'_>) -> Result<(), String> {
    let (Some(cancelling), false) = (history.began(Phase::Cancelling), history.is_impatient())
    else {
        return Ok(());
    };
    let plan = history.scenario.plan();
    let budget = history.budget(Phase::Cancelling, plan.cleanup + plan.internal_close);
    let until = cancelling + history.world(budget.saturating_sub(ABORT_FLUSH));
    let tasks = history.server("task ends").filter(|record| record.text("how") == Some("dropped"));
    // Uploads that make no progress are cut in the drain, and a failing body ends without the host.
    let cut = |record: &&Record| {
        record.text("message") == Some("request aborted")
            && !record.text("path").is_some_and(has_failing_body)
    };
    let requests = history.server("log").filter(cut);
    let requests = requests.filter(|record| record.text("phase") != Some("draining"));
    // Such an upload gets no extra time when the cancel wait begins meanwhile.
    let uploads = |client: &Client| client.traffic.upload_pause().is_some();
    let uploads = history.scenario.clients.iter().any(uploads);
    let requests = requests
        .filter(move |record| !uploads || record.number("age_ms") < Some(PROGRESS_WAIT_US / 1_000));
    for cut in tasks.chain(requests) {
        if cut.at + EARLY + history.early() < until {
            return Err(format!(
                "running work was aborted at {:?}, but had time until {until:?}",
                cut.at
            ));
        }
    }
    Ok(())
}
