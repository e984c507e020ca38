//! Exact checks of handlers and tasks: what their context shows, when they are notified, and how
//! much time they have (P9, P10, P12).

use super::{ErrorKind, RunHistory, streams::is_work_of_a_stream};
use crate::{
    app::has_failing_body,
    scenario::{RequestKind, StuckResponse},
    tasks::Until,
    trace::Record,
};
use lameduck::lifecycle::{ABORT_FLUSH, Phase};
use std::time::Duration;

/// Longer than any handler runs.
const NO_DEADLINE: Duration = Duration::from_secs(86_400);

/// Checks the context that a handler gets: it shows the current phase and the whole deadline, and
/// is not cancelled.
pub(super) fn contexts_are_true(history: &RunHistory<'_>) -> Result<(), String> {
    let own = history.scenario.request_timeout_ms.map(|ms| ms * 1_000);
    let slack = u64::try_from(history.rounding().as_micros()).unwrap_or(u64::MAX);
    for (place, record) in history.places("handler begins") {
        let Some(phase) = record.text("phase") else { continue };
        let entered = history
            .phases
            .iter()
            .rfind(|(_, entered, _)| *entered < place)
            .map(|(phase, _, _)| *phase);
        let near = |(_, _, at): &(Phase, usize, Duration)| {
            !history.tolerance().is_zero() && at.abs_diff(record.at) <= history.tolerance()
        };
        let changes = history.phases.iter().any(near);
        if !changes && entered.is_some_and(|entered| entered.name() != phase) {
            return Err(format!(
                "a handler at {:?} got the phase {phase}, but it was {entered:?}",
                record.at
            ));
        }
        let left = record.number("left_us");
        // The timeout of a gRPC call, if that is shorter.
        let call = record.text("target").and_then(|target| target.split_once("&grpc="));
        let call = call.and_then(|(_, ms)| ms.parse::<u64>().ok()).map(|ms| ms * 1_000);
        let own = own.into_iter().chain(call).min();
        if left.zip(own).map_or(left != own, |(left, own)| left.abs_diff(own) > slack) {
            return Err(format!(
                "a handler at {:?} had {left:?} µs left instead of {own:?}",
                record.at
            ));
        }
        let cause = record.text("cause").filter(|cause| match *cause {
            "ClientHalfClosed" => false,
            "Shutdown" => entered.is_some_and(|entered| entered < Phase::Draining),
            _ => left != Some(0),
        });
        if let Some(cause) = cause {
            return Err(format!("a handler at {:?} began as cancelled by {cause}", record.at));
        }
    }
    Ok(())
}

/// Checks that a handler is polled when what it waits for has come, unless its thread is stalled.
pub(super) fn handlers_are_polled_when_woken(history: &RunHistory<'_>) -> Result<(), String> {
    for record in history.server("handler woken late") {
        let late = Duration::from_micros(record.number("late_us").unwrap_or(0));
        let due = record.at.saturating_sub(late);
        if late > history.tolerance() && !history.is_disturbed((due, record.at)) {
            return Err(format!("a handler was woken at {due:?}, and polled {late:?} later"));
        }
    }
    Ok(())
}

/// Checks that a deadline cancels the context, for all holders of it.
pub(super) fn cancelled_at_the_deadline(history: &RunHistory<'_>) -> Result<(), String> {
    let exit = history.exit().map_or(Duration::MAX, |(at, _)| at);
    for record in history.server("handler begins") {
        let target = record.text("target").unwrap_or_default();
        let within = target.split_once("within=").and_then(|(_, within)| within.parse().ok());
        let Some(due) = within.map(|ms| record.at + history.world(Duration::from_millis(ms)))
        else {
            continue;
        };
        let of_it = |event| history.of_its_handler(record, event).map(|told| told.at);
        // The handler ended at its deadline, and therefore because of it.
        let met = of_it("handler ends").is_some_and(|ends| ends >= due)
            && of_it("handler cancelled").is_none();
        let late = of_it("context cancelled")
            .is_none_or(|at| at > due + Duration::from_millis(10) + history.rounding());
        let worked =
            target.split_once("ms=").and_then(|(_, ms)| ms.split('&').next()?.parse().ok());
        let is_longer = worked
            .is_some_and(|ms| record.at + Duration::from_millis(ms) > due + history.rounding());
        let is_stalled = history.is_disturbed((due, due));
        if met && late && is_longer && due + history.rounding() < exit && !is_stalled {
            return Err(format!(
                "{target} reached its deadline at {due:?}, but its context was not cancelled then"
            ));
        }
    }
    Ok(())
}

/// Checks that the context of a handler that is dropped before its response is cancelled in that
/// moment, for all holders of it, and that the one of a long stream is not cancelled with the
/// other requests.
pub(super) fn contexts_end_with_their_handlers(history: &RunHistory<'_>) -> Result<(), String> {
    let cut = history.began(Phase::CleaningUp).or(history.exit().map(|(at, _)| at));
    let cut = cut.unwrap_or(Duration::MAX);
    let streams_until = history.phases.iter().find(|(phase, ..)| *phase == Phase::Cancelling);
    for begins in history.server("handler begins") {
        let target = begins.text("target").unwrap_or_default();
        let of_it = |event| history.of_its_handler(begins, event).map(|record| record.at);
        let (ends, cancelled) = (of_it("handler ends"), of_it("context cancelled"));
        let slack = history.rounding() + history.tolerance();
        // A request that begins after the cancel is no long stream.
        if target.starts_with("/events?work=")
            && begins.text("cause").is_none()
            && let Some(cancelled) = cancelled
            && ends.is_none_or(|ends| cancelled + slack < ends)
            && streams_until.is_none_or(|(_, _, at)| cancelled + slack < *at)
        {
            return Err(format!(
                "the context of {target} was cancelled at {cancelled:?}, and its stream went on \
                 until {ends:?}"
            ));
        }
        if let Some(query) = target.strip_prefix("/ignores?watch=")
            && let Some((after, ms)) = query.split_once("&ms=")
            && let (Ok(after), Ok(ms)) = (after.parse(), ms.parse())
        {
            let times = (Duration::from_millis(after), Duration::from_millis(ms));
            late_watchers_are_notified(history, begins, times, (ends, cancelled))?;
        }
        let work = target.strip_prefix("/ignores?watch=yes&ms=").and_then(|ms| ms.parse().ok());
        let (Some(work), Some(ends)) = (work.map(Duration::from_millis), ends) else { continue };
        let is_dropped = ends + slack < begins.at + work;
        let late = cancelled.is_none_or(|at| at > ends + slack);
        if is_dropped && late && ends + slack < cut && !history.is_disturbed((ends, ends)) {
            return Err(format!(
                "{target} was dropped at {ends:?}, but its context was cancelled at {cancelled:?}"
            ));
        }
    }
    Ok(())
}

/// Checks that a context that is watched only `after` its handler began is cancelled with the
/// handlers, or when its own handler is dropped, whichever is earlier, and not before.
fn late_watchers_are_notified(
    history: &RunHistory<'_>,
    begins: &Record,
    (after, work): (Duration, Duration),
    (ends, cancelled): (Option<Duration>, Option<Duration>),
) -> Result<(), String> {
    let slack = history.rounding() + history.tolerance();
    let dropped = ends.filter(|ends| *ends + slack < begins.at + work);
    let may_be_dropped = ends.is_some_and(|ends| ends < begins.at + work);
    if may_be_dropped && dropped.is_none() {
        return Ok(());
    }
    let cancelling = history.began(Phase::Cancelling);
    let cause = dropped.into_iter().chain(cancelling).min();
    // A response that could not be sent cancels it, too.
    let early = history.delivers()
        && cancelled.is_some_and(|at| cause.is_none_or(|cause| at + slack < cause));
    let Some(due) = cause.map(|cause| cause.max(begins.at + after)) else {
        return if early {
            Err(format!("{begins} was cancelled at {cancelled:?}"))
        } else {
            Ok(())
        };
    };
    // The workers end with the stop hooks.
    let cleaning_up = history.began(Phase::CleaningUp).or(history.exit().map(|(at, _)| at));
    let is_judged =
        due + slack < cleaning_up.unwrap_or(Duration::MAX) && !history.is_disturbed((due, due));
    let late = cancelled.is_none_or(|at| at > due + slack);
    if early || late && is_judged {
        return Err(format!(
            "the context of {} was watched from {:?} on and had to be cancelled at {due:?}, and \
             was at {cancelled:?}",
            begins.text("target").unwrap_or_default(),
            begins.at + after
        ));
    }
    Ok(())
}

/// Checks that a handler that ignores everything ends at the timeout that it set itself, or that
/// its route has.
pub(super) fn own_timeouts_are_kept(history: &RunHistory<'_>) -> Result<(), String> {
    if !history.delivers() {
        return Ok(());
    }
    let until = history.began(Phase::Cancelling).or(history.exit().map(|(at, _)| at));
    let until = until.unwrap_or(Duration::MAX);
    let ms = Duration::from_millis;
    for begins in history.server("handler begins") {
        let target = begins.text("target").unwrap_or_default();
        let Some((_, query)) = target.split_once("/ignores?") else { continue };
        let number = |name: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).find_map(|(_, value)| value.parse::<u64>().ok())
        };
        let host = history.scenario.request_timeout_ms.map(|host| history.world(ms(host)));
        let due = match (number("route"), number("after"), number("timeout")) {
            (Some(route), ..) => Some(history.world(ms(route))),
            (None, None, _) if query.contains("route=none") => Some(NO_DEADLINE),
            (None, Some(after), timeout) => {
                // A timer of the host's clock and one of the world's may meet.
                if host.is_some_and(|host| host.abs_diff(ms(after)) <= ms(2)) {
                    continue;
                }
                let late = timeout
                    .map_or(NO_DEADLINE, |timeout| history.world(ms(timeout)).max(ms(after)));
                Some(host.filter(|host| *host < ms(after)).unwrap_or(late))
            }
            (None, None, _) => host,
        };
        let Some(due) = due.map(|due| begins.at + due) else { continue };
        let done = begins.at + ms(number("ms").unwrap_or(60_000) + number("after").unwrap_or(0));
        let ends = history.of_its_handler(begins, "handler ends").map(|record| record.at);
        let slack = history.rounding() + ms(1) + history.tolerance();
        // The client of a watched one may leave.
        let early = !query.contains("watch=")
            && ends.is_some_and(|ends| ends + slack < due.min(done).min(until));
        let late = ends.is_none_or(|ends| ends > due.min(done) + slack);
        if early || late && due.min(done) + slack < until {
            return Err(format!(
                "{target} began at {:?} and had time until {due:?}, but ended at {ends:?}",
                begins.at
            ));
        }
    }
    Ok(())
}

/// Checks that a handler which watches its context is notified when the drain ends. One that does
/// not is dropped when its time expires.
pub(super) fn cancelled_on_time(history: &RunHistory<'_>) -> Result<(), String> {
    let Some(cancelling) = history.began(Phase::Cancelling) else { return Ok(()) };
    let Some(cleaning_up) = history.began(Phase::CleaningUp) else { return Ok(()) };
    let flush = ABORT_FLUSH.min(history.scenario.plan().cancel);
    let impatient = history.impatient().map(|(_, signal)| signal.at).find(|at| *at > cancelling);
    let abort = cancelling + history.world(history.scenario.plan().cancel - flush);
    let abort = impatient.map_or(abort, |at| abort.min(at)) + history.rounding();
    for record in history.server("handler begins") {
        let target = record.text("target").unwrap_or_default();
        let of_it = |event| history.of_its_handler(record, event).map(|told| told.at);
        let ends = of_it("handler ends").unwrap_or(Duration::MAX);
        let heeds = target.starts_with("/slow?");
        let waits = heeds
            || target.starts_with("/ignores?")
            || target.starts_with("/call?")
            || (target.starts_with("/stuck?") && !target.contains('&'));
        // A call whose head was sent is a long stream.
        let is_stream = target.contains("&end=spread") && !target.contains("&messages=0");
        if !waits || is_stream || record.at >= cancelling {
            continue;
        }
        if heeds && ends > cancelling + history.rounding() && cleaning_up > cancelling {
            // It sends a response. On HTTP/1 the `HandlerGuard` lives in the response until that is
            // written.
            let told = of_it("handler cancelled");
            if told.is_none_or(|told| told > cancelling + history.rounding()) {
                return Err(format!(
                    "the context of {target}, running since {:?}, was not cancelled at \
                     {cancelling:?}",
                    record.at
                ));
            }
        }
        if !heeds && ends > abort && cleaning_up > abort {
            return Err(format!(
                "{target}, running since {:?}, had to be aborted by {abort:?}, but was at {ends:?}",
                record.at
            ));
        }
    }
    // A response that cannot be flushed is aborted at the end of the flush, and logged then.
    let cut = |record: &&Record| {
        record.text("message") == Some("request aborted")
            && record.text("phase") != Some("draining")
            && !record.text("path").is_some_and(has_failing_body)
    };
    let late = |record: &&Record| record.at > abort && record.at < cleaning_up;
    for record in history.server("log").filter(cut).filter(late) {
        let fresh = history.server("handler begins").any(|begins| begins.at >= abort);
        if record.text("head_sent") == Some("false") && !fresh && history.delivers() {
            return Err(format!(
                "a request was aborted at {:?}, but had to be at {abort:?}",
                record.at
            ));
        }
    }
    for record in history.server("task ends").filter(|record| record.text("how") == Some("dropped"))
    {
        if is_work_of_a_stream(history, record) {
            continue;
        }
        if record.at > abort && record.at > cancelling {
            let begun = history
                .server("task begins")
                .filter(|begun| begun.text("task") == record.text("task"));
            if begun.map(|begun| begun.at).max().is_some_and(|begun| begun < abort) {
                return Err(format!(
                    "a task was dropped at {:?}, but had to be at {abort:?}",
                    record.at
                ));
            }
        }
    }
    Ok(())
}

/// Checks that background tasks begin with Serving, and that each is notified of the step that it
/// waits for.
pub(super) fn tasks_are_notified(history: &RunHistory<'_>) -> Result<(), String> {
    let serving = history.began(Phase::Serving);
    for task in &history.scenario.tasks {
        let of_it = |event: &'static str| {
            let mine = |record: &&Record| record.text("task") == Some(task.name.as_str());
            history.server(event).find(mine).map(|record| record.at)
        };
        let (begins, ends) = (of_it("task begins"), of_it("task ends"));
        let begins_late = begins.zip(serving).is_none_or(|(begins, serving)| {
            begins < serving || begins - serving > history.tolerance()
        });
        if begins_late && (begins.is_some() || ends.is_some()) {
            return Err(format!("{} began at {begins:?}, but Serving at {serving:?}", task.name));
        }
        let due = match task.until {
            Until::Begun => None,
            Until::Stopping => history.left_serving(),
            Until::Draining => history.began(Phase::Draining),
            Until::Cancelled => history.began(Phase::Cancelling),
        };
        if let (Some(due), Some(_), Some(ends)) = (due, begins, ends)
            && ends > due + history.tolerance()
            && of_it("task notified").is_none()
        {
            return Err(format!(
                "{} was not notified of {} at {due:?}",
                task.name,
                task.until.name()
            ));
        }
    }
    Ok(())
}

/// Checks that a handler whose deadline coincides with the abort gets the timeout response.
pub(super) fn the_deadline_goes_first(history: &RunHistory<'_>) -> Result<(), String> {
    let Some(cancelling) = history.began(Phase::Cancelling) else { return Ok(()) };
    for observed in history.requests.iter().filter(|observed| observed.said == ErrorKind::Aborted) {
        let Some(RequestKind::Stuck(_, StuckResponse::Nothing)) = history.request_kind(observed)
        else {
            continue;
        };
        let Some(timeout) = history.scenario.request_timeout_ms.map(Duration::from_millis) else {
            continue;
        };
        let begins = history
            .server("handler begins")
            .filter(|record| record.text("target") == Some(observed.target.as_str()));
        let [begins] = begins.collect::<Vec<_>>()[..] else { continue };
        let due = begins.at + history.world(timeout);
        let ends = history.of_its_handler(begins, "handler ends");
        if ends.is_some_and(|ends| ends.at >= due + history.rounding() && ends.at > cancelling) {
            return Err(format!(
                "{} reached its deadline at {due:?}, but its response says that it was aborted",
                observed.target
            ));
        }
    }
    Ok(())
}

/// Checks that nothing of a request is left in the process when it cleans up early.
pub(super) fn no_work_is_left(history: &RunHistory<'_>) -> Result<(), String> {
    let Some((_, place, at)) =
        history.phases.iter().find(|(phase, _, _)| *phase == Phase::CleaningUp)
    else {
        return Ok(());
    };
    let time_was_up = history.is_impatient()
        || history
            .span(Phase::Cancelling)
            .is_none_or(|span| span + history.rounding() >= history.scenario.plan().cancel);
    if time_was_up {
        return Ok(());
    }
    for what in [
        ["handler begins", "handler ends"],
        ["task begins", "task ends"],
        ["conversation begins", "conversation ends"],
    ] {
        let [begun, ended] = what.map(|event| {
            let said = history.places(event);
            // An end in the same instant may be recorded slightly later.
            said.filter(|(n, record)| {
                n < place || (event.ends_with("ends") && record.at <= *at + history.tolerance())
            })
            .count()
        });
        if begun > ended {
            return Err(format!(
                "cleaning up began at {at:?}, but {} of {begun} had not ended: {}",
                begun - ended,
                what[0]
            ));
        }
    }
    Ok(())
}
