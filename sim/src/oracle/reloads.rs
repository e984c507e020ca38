//! P12: SIGHUP reloads a service that can reload, and changes nothing else.

use super::{Exercise, Judgement, RunHistory};
use crate::hooks::ActEnd;
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// Two events that are this close may have either order.
const CLOSE: Duration = Duration::from_millis(2);

/// P12: while the process serves, each SIGHUP is followed by a reload: at once, or after the one
/// that runs. Several during one reload are followed by one. Otherwise none begins.
pub(super) fn hangups_are_followed_by_reloads(history: &RunHistory<'_>) -> Judgement {
    let begun: Vec<Duration> = history.server("reload begins").map(|record| record.at).collect();
    let Some(due) = due(history) else { return Ok(Exercise::No) };
    if begun != due {
        return Err(format!("reloads had to begin at {due:?}, but began at {begun:?}"));
    }
    Ok(Exercise::of(due.len()))
}

/// When reloads have to begin; `None` if that depends on the order of two events at one time.
fn due(history: &RunHistory<'_>) -> Option<Vec<Duration>> {
    let script = history.scenario.reloads.as_ref().filter(|_| history.tolerance().is_zero())?;
    let takes = Duration::from_millis(script.takes_ms);
    let end_of = |n: usize, begins: Duration| match script.end(n) {
        ActEnd::Hangs => Duration::MAX,
        ActEnd::Done | ActEnd::Fails | ActEnd::Panics => begins + takes,
    };
    let exit = history.exit().map_or(Duration::MAX, |(at, _)| at);
    let serving = history.began(Phase::Serving).unwrap_or(exit);
    let left = history.left_serving().unwrap_or(exit);
    // Whether the process serves then.
    let serves = |at: Duration| {
        let is_clear = at.abs_diff(serving) > CLOSE && at.abs_diff(left) > CLOSE;
        is_clear.then_some(serving < at && at < left)
    };
    let (mut due, mut free, mut again) = (Vec::new(), Duration::ZERO, false);
    for record in history.server("reload requested").filter(|record| record.at <= exit) {
        let at = record.at;
        if !due.is_empty() && at.abs_diff(free) <= CLOSE {
            return None;
        }
        while again && free <= at {
            again = false;
            if serves(free)? {
                due.push(free);
                free = end_of(due.len() - 1, free);
            }
        }
        if !serves(at)? {
            continue;
        }
        if at < free {
            again = true;
        } else {
            due.push(at);
            free = end_of(due.len() - 1, at);
        }
    }
    if again && free < exit && serves(free)? {
        due.push(free);
    }
    Some(due)
}
