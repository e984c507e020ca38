//! P2: readiness checks run on time.

use super::RunHistory;
use crate::{checks::CheckScript, trace::Record};
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// The precision of two timers, one after the other.
const SLACK: Duration = Duration::from_millis(2);

/// Checks that each run of a check begins one interval after the end of the one before, and at once
/// when Serving begins. A run ends with its result, or at its time limit. Returns the number of
/// runs.
pub(super) fn checks_run_on_time(history: &RunHistory<'_>) -> Result<usize, String> {
    let mut judged = 0;
    for script in &history.scenario.checks {
        judged += runs_on_time(history, script)?;
    }
    Ok(judged)
}

fn runs_on_time(history: &RunHistory<'_>, script: &CheckScript) -> Result<usize, String> {
    let of = |event: &str| {
        let mine = move |(_, record): &(usize, &Record)| {
            record.text("check") == Some(script.name.as_str())
        };
        history
            .places(event)
            .filter(mine)
            .map(|(place, record)| (place, record.at))
            .collect::<Vec<_>>()
    };
    let (begun, ended) = (of("check begins"), of("checked"));
    let late = SLACK + history.rounding();
    let limit = history.world(script.timeout());
    let every = history.world(Duration::from_millis(script.every_ms));
    // When the run that begins here is followed by the next one.
    let next = |place: usize, began: Duration| {
        let by = began + limit;
        let ended = ended.iter().find(|(ended, _)| *ended > place).map(|(_, at)| *at);
        ended.filter(|at| *at <= by).unwrap_or(by) + every
    };
    let serving = history.began(Phase::Serving).unwrap_or(Duration::MAX);
    let exit = history.exit().map(|(at, _)| at);
    let edges = [history.began(Phase::Draining), history.began(Phase::CleaningUp), exit];
    let over = edges.into_iter().flatten().min().unwrap_or_default();
    for (n, (place, began)) in begun.iter().enumerate() {
        let (due, follows) = (next(*place, *began), begun.get(n + 1).map(|(_, at)| *at));
        let is_restarted = |at: Duration| at.abs_diff(serving) <= late;
        match follows {
            // Serving restarts the check.
            Some(at) if at.abs_diff(due) <= late || is_restarted(at) => {}
            None if due + late >= over => {}
            _ => {
                return Err(format!(
                    "the check {} began at {began:?}, and had to run again at {due:?}: {follows:?}",
                    script.name
                ));
            }
        }
    }
    let restarts = begun.iter().any(|(_, at)| at.abs_diff(serving) <= late);
    if serving.saturating_add(late) < over && !restarts {
        return Err(format!("the check {} did not run when Serving began", script.name));
    }
    match begun.last() {
        Some((_, last)) if *last > over + late => {
            Err(format!("the check {} began at {last:?}, in the drain", script.name))
        }
        _ => Ok(begun.len()),
    }
}
