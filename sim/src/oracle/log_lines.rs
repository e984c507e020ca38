//! P13: the log lines of the host about its shutdown, and the error of the report.

use super::{Exercise, Judgement, RunHistory};
use crate::{scenario::Fault, trace::Record};
use lameduck::{Report, lifecycle::Phase};
use std::time::Duration;

/// Times in whole milliseconds.
const WHOLE: Duration = Duration::from_millis(1);
/// Shortest time between two lines of a kind that clients can cause.
const LINES_APART: Duration = Duration::from_secs(1);

/// Longest time between two accepts of one outage: the pause after an accept that failed.
const OUTAGES_APART: Duration = Duration::from_millis(100);

/// P13: the log says when the shutdown waits, for how long, and why.
pub(super) fn lines_are_true(history: &RunHistory<'_>) -> Judgement {
    let mut judged = 0;
    for (phase, _, at) in &history.phases {
        if matches!(phase, Phase::Draining | Phase::Cancelling) {
            judged += a_wait_is_logged(history, *phase, *at)?;
        }
    }
    for (_, place, _) in &history.phases {
        let record = &history.records[*place];
        since_the_stop(history, record)?;
        let reason = history.outcome.report.as_ref().and_then(|report| report.reason);
        if let (Some(reason), Some(said)) = (reason, record.text("reason"))
            && said != reason.to_string()
        {
            return Err(format!("the reason is {reason}, but the log has: {record}"));
        }
    }
    judged += further_stops_are_logged(history)?;
    judged += checks_are_logged(history)?;
    judged += outages_are_logged(history)?;
    if let Some(report) = &history.outcome.report {
        the_report_is_logged(history, report)?;
        judged += limited_lines_are_counted(history, report)?;
    }
    Ok(Exercise::of(judged))
}

/// Checks that each signal after the stop request is logged once, with its effect. Returns their
/// number.
fn further_stops_are_logged(history: &RunHistory<'_>) -> Result<usize, String> {
    let (Some(stop), Some((exit, _))) =
        (history.server("watchdog armed").next().map(|armed| armed.at), history.exit())
    else {
        return Ok(0);
    };
    let late = history.tolerance();
    let is_further = |at: Duration| at > stop + late && at + WHOLE + late < exit;
    let logged = || {
        let lines = history.server("log");
        lines.filter(|record| record.text("message") == Some("further stop request"))
    };
    let sent = || history.server("signal").filter(|record| is_further(record.at));
    for signal in sent() {
        let same = |record: &Record| {
            record.at >= signal.at
                && record.at <= signal.at + late
                && record.text("reason") == signal.text("signal")
        };
        let also = sent()
            .filter(|other| other.at == signal.at && other.text("signal") == signal.text("signal"));
        if logged().filter(|record| same(record)).count() < also.count() {
            return Err(format!("this signal was not logged: {signal}"));
        }
    }
    for line in logged().filter(|record| is_further(record.at)) {
        let is_impatient = matches!(line.text("reason"), Some("SIGINT" | "SIGQUIT"));
        let effect = line.text("effect").unwrap_or_default();
        let in_a_wait = matches!(line.text("phase"), Some("draining" | "cancelling"));
        // The phase is that after the signal: a wait that it ended, or the next one.
        let is_true = match effect.split([' ', ',']).next() {
            Some("ends") => is_impatient,
            Some("ignored") => !is_impatient || !in_a_wait,
            _ => false,
        };
        if !is_true {
            return Err(format!("a line does not have the effect of the signal: {line}"));
        }
    }
    Ok(sent().count())
}

/// Checks that each time in which the host has no descriptors left for a connection is logged once,
/// at the first accept that fails, unless one was logged in the second before. Between two of them
/// the connection that waited is accepted. Returns the number of those that are logged.
fn outages_are_logged(history: &RunHistory<'_>) -> Result<usize, String> {
    // Each connection that waits is accepted in time, by the same worker.
    let stalls = |fault: &Fault| matches!(fault, Fault::Stall { .. });
    if history.scenario.workers > 1
        || history.scenario.limits.connections_max.is_some()
        || history.scenario.faults.iter().any(stalls)
        || !history.reaches()
    {
        return Ok(0);
    }
    let lines = history.server("log").filter(|record| {
        record.text("message").is_some_and(|said| said.starts_with("cannot accept connections"))
    });
    let lines: Vec<Duration> = lines.map(|record| record.at).collect();
    let failed = history.server("accept failed");
    let failed = failed.filter(|record| record.text("how") == Some("descriptors"));
    let mut due: Vec<Duration> = Vec::new();
    let mut last = None;
    for at in failed.map(|record| record.at) {
        let is_first = last.is_none_or(|last| at > last + OUTAGES_APART);
        last = Some(at);
        let next = due.last().map(|line| *line + history.world(LINES_APART));
        if !is_first || next.is_some_and(|next| at + history.rounding() < next) {
            continue;
        }
        if next.is_some_and(|next| at < next + history.rounding()) {
            return Ok(0);
        }
        due.push(at);
    }
    if lines == due {
        return Ok(due.len());
    }
    Err(format!("accepts failed from {due:?} on, which was logged at {lines:?}"))
}

/// Checks that a line follows each change of the result of a check. Returns their number.
fn checks_are_logged(history: &RunHistory<'_>) -> Result<usize, String> {
    let mut judged = 0;
    for script in &history.scenario.checks {
        let takes = history.host(Duration::from_millis(script.takes_ms));
        if takes + history.rounding() + WHOLE >= script.timeout() {
            continue;
        }
        let mine = |record: &&Record| record.text("check") == Some(script.name.as_str());
        let hangs = history.server("check hangs").find(mine).map(|record| record.at);
        let until = hangs.or(history.exit().map(|(at, _)| at)).unwrap_or_default();
        let (mut passed, mut lines) = (None, Vec::new());
        for run in history.server("checked").filter(mine).filter(|run| run.at < until) {
            let passes = run.text("passes") == Some("yes");
            match (passed, passes) {
                (Some(false), true) => lines.push((run.at, "readiness check passes again")),
                (Some(true) | None, false) => lines.push((run.at, "readiness check fails")),
                (Some(true) | None, true) | (Some(false), false) => {}
            }
            passed = Some(passes);
        }
        let logged: Vec<_> = history.server("log").filter(mine).collect();
        for (at, message) in &lines {
            let is_it = |record: &&&Record| {
                record.text("message") == Some(message)
                    && record.at >= *at
                    && record.at <= *at + history.tolerance()
            };
            if !logged.iter().any(|record| is_it(&record)) {
                return Err(format!("{message:?} of {} was not logged at {at:?}", script.name));
            }
        }
        judged += lines.len();
    }
    Ok(judged)
}

/// Checks that one line has the numbers of the report.
fn the_report_is_logged(history: &RunHistory<'_>, report: &Report) -> Result<(), String> {
    let mut lines = history.server("log").filter(|record| record.text("message") == Some("report"));
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Err("the report is not logged once".to_owned());
    };
    let (requests, connections) = (&report.requests, &report.connections);
    for (name, number) in [
        ("started", requests.started),
        ("finished", requests.finished),
        ("timed_out", requests.timed_out),
        ("aborted", requests.aborted),
        ("gone", requests.gone),
        ("panicked", requests.panicked),
        ("connections", connections.accepted),
        ("drained", connections.drained),
        ("reset", connections.reset),
        ("close_races", connections.close_races),
        ("unannounced", connections.unannounced),
        ("streams_ended", report.streams_ended),
        ("work_dropped", report.work_dropped),
        ("work_panicked", report.work_panicked),
        ("exit_code", report.code().into()),
    ] {
        if line.number(name) != Some(number) {
            return Err(format!("{name} is {number} in the report, but the log has: {line}"));
        }
    }
    Ok(())
}

/// Checks that of the lines that clients can cause at most one a second is logged, and that it says
/// how many were left out since the last one. Returns their number.
fn limited_lines_are_counted(history: &RunHistory<'_>, report: &Report) -> Result<usize, String> {
    let connections = &report.connections;
    let mut judged = 0;
    for (message, events) in [
        ("client timed out", connections.send_timeouts + connections.body_timeouts),
        ("PROXY header refused", connections.proxy_headers_refused),
    ] {
        let lines: Vec<_> =
            history.server("log").filter(|line| line.text("message") == Some(message)).collect();
        let left_out: Vec<u64> =
            lines.iter().map(|line| line.number("suppressed").unwrap_or(u64::MAX)).collect();
        if lines.is_empty() != (events == 0) || left_out.first().is_some_and(|first| *first > 0) {
            return Err(format!("{events} events: the first line of them is {:?}", lines.first()));
        }
        let told = left_out.iter().fold(lines.len() as u64, |sum, more| sum.saturating_add(*more));
        if told > events {
            return Err(format!(
                "{message:?} was logged {} times, and {left_out:?} were left out before them, of \
                 {events}",
                lines.len()
            ));
        }
        for pair in lines.windows(2) {
            let apart = history.host(pair[1].at).saturating_sub(history.host(pair[0].at));
            if apart + history.rounding() + WHOLE < LINES_APART {
                return Err(format!("{message:?} was logged again after {apart:?}"));
            }
        }
        judged += lines.len();
    }
    Ok(judged)
}

/// Checks that a line says how long the stop was ago.
fn since_the_stop(history: &RunHistory<'_>, record: &Record) -> Result<(), String> {
    let armed = history.server("watchdog armed").next();
    let stop = armed.map(|armed| armed.at).filter(|stop| *stop <= record.at);
    let due = stop.map(|stop| history.host(record.at) - history.host(stop));
    let said = record.number("since_stop_ms").map(Duration::from_millis);
    let is_true = match (due, said) {
        (Some(due), Some(said)) => due.abs_diff(said) <= WHOLE + history.rounding(),
        (None, None) => true,
        // In the instant of the stop.
        (Some(due), None) => due <= history.tolerance(),
        (None, Some(_)) => false,
    };
    if is_true {
        Ok(())
    } else {
        Err(format!("the stop was {due:?} ago, but the log has: {record}"))
    }
}

/// Checks that a wait is logged one second after its begin, and then each time after twice the
/// time, at most ten seconds. Returns the number of lines.
fn a_wait_is_logged(
    history: &RunHistory<'_>,
    phase: Phase,
    began: Duration,
) -> Result<usize, String> {
    let Some(left) = history.left(phase).or(history.exit().map(|(at, _)| at)) else {
        return Ok(0);
    };
    let late = WHOLE + history.rounding();
    let lines = history.server("log").filter(|record| {
        record.text("message") == Some("still waiting")
            && record.text("phase") == Some(phase.name())
    });
    let mut lines = lines.peekable();
    let (mut judged, mut due, mut pause) = (0, began, Duration::from_secs(1));
    loop {
        due += history.world(pause);
        pause = (pause * 2).min(Duration::from_secs(10));
        if due + late >= left {
            // In the instant in which the wait ends there may be one.
            let _ = lines.next_if(|record| record.at + late >= left);
            break;
        }
        let Some(line) = lines.next_if(|record| record.at.abs_diff(due) <= late) else {
            return Err(format!(
                "{phase} waited since {began:?}, and nothing was logged at {due:?}"
            ));
        };
        since_the_stop(history, line)?;
        // The next pause begins with this line.
        due = line.at;
        judged += 1;
    }
    match lines.next() {
        Some(line) => Err(format!("{phase} was logged as waiting at an odd time: {line}")),
        None => Ok(judged),
    }
}

/// Checks that the error of the report is the first failure of a start hook or a background task.
pub(super) fn the_error_is_the_first(
    history: &RunHistory<'_>,
    report: &Report,
) -> Result<(), String> {
    let cancelling = history.began(Phase::Cancelling).unwrap_or(Duration::MAX);
    let failure = |record: &Record| match record.text("message")? {
        "hook failed" if record.text("stage") == Some("start") => {
            Some(format!("start hook {} failed", record.text("hook")?))
        }
        "background task failed" => {
            Some(format!("background task {} failed", record.text("task")?))
        }
        _ => None,
    };
    let mut failures =
        history.server("log").filter_map(|record| Some((record.at, failure(record)?)));
    let Some((at, first)) = failures.next() else { return Ok(()) };
    let said = report.error.as_ref().map(lameduck::HostError::with_causes);
    let is_clear = at + history.tolerance() < cancelling;
    if is_clear && !said.is_some_and(|said| said.starts_with(&first)) {
        return Err(format!("at first the {first}, but the error of the report is {said:?}"));
    }
    Ok(())
}
