//! Workers that are blocked for so long that the probes fail (P2b, P3).
//!
//! The host checks every 2.5 s whether a worker has run since the last check. It is blocked after
//! two checks without a run.

use super::RunHistory;
use crate::scenario::Fault;
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// The time between two checks, by the host's clock.
const CHECK: Duration = Duration::from_millis(2_500);
/// The longest time between two runs of a worker that has nothing to do, by the host's clock.
const RUNS: Duration = Duration::from_millis(250);
/// The precision of the checks.
const SLACK: Duration = Duration::from_millis(10);

/// Stalls of workers that exist: worker, begin, end.
fn stalls(history: &RunHistory<'_>) -> impl Iterator<Item = (usize, Duration, Duration)> {
    let workers = history.scenario.workers;
    let ms = Duration::from_millis;
    history.scenario.faults.iter().filter_map(move |fault| {
        let Fault::Stall { worker, at_ms, for_ms } = fault else { return None };
        (*worker < workers).then(|| (*worker, ms(*at_ms), ms(at_ms + for_ms)))
    })
}

/// Whether a blocked worker may be noticed at some moment between the two.
pub(super) fn may_be_noticed(history: &RunHistory<'_>, from: Duration, to: Duration) -> bool {
    let earliest = history.world(CHECK * 2 - RUNS).saturating_sub(SLACK);
    let over = history.world(CHECK + RUNS) + SLACK + history.tolerance();
    stalls(history).any(|(_, begin, end)| {
        let is_long = end.saturating_sub(begin) + history.tolerance() >= earliest;
        is_long && to >= begin + earliest && from <= end + over
    })
}

/// Whether a blocked worker is noticed all the time between the two, if the process may respond.
pub(super) fn is_noticed(history: &RunHistory<'_>, from: Duration, to: Duration) -> bool {
    noticed(history).any(|(_, begin, end)| from > begin && to < end)
}

/// The spans in which a blocked worker is surely noticed: worker, begin, end.
fn noticed(history: &RunHistory<'_>) -> impl Iterator<Item = (usize, Duration, Duration)> {
    let latest = history.world(CHECK * 3) + SLACK + history.tolerance();
    let serving = history.began(Phase::Serving).unwrap_or(Duration::MAX);
    let drain = history.left_lame_duck().unwrap_or(Duration::MAX);
    stalls(history)
        .map(move |(worker, begin, end)| {
            (worker, begin.max(serving).saturating_add(latest), end.min(drain))
        })
        .filter(|(_, begin, end)| begin < end)
}

/// Checks that each blocked worker is logged once when it is noticed.
pub(super) fn blocked_workers_are_logged(history: &RunHistory<'_>) -> Result<usize, String> {
    let logged = |worker: usize| {
        history.server("log").filter(move |record| {
            record.text("message") == Some("a worker is blocked")
                && record.number("worker") == Some(worker as u64)
        })
    };
    let mut judged = 0;
    for (worker, by, end) in noticed(history) {
        let lines = logged(worker).filter(|record| record.at <= end && record.at + CHECK * 2 >= by);
        let lines: Vec<Duration> = lines.map(|record| record.at).collect();
        if !matches!(lines.as_slice(), [at] if *at <= by) {
            return Err(format!(
                "worker {worker} was blocked, which had to be logged once, by {by:?}: {lines:?}"
            ));
        }
        judged += 1;
    }
    for worker in 0..history.scenario.workers {
        let odd = logged(worker).find(|record| !may_be_noticed(history, record.at, record.at));
        if let Some(odd) = odd {
            return Err(format!("worker {worker} was logged as blocked at {:?}", odd.at));
        }
    }
    Ok(judged)
}
