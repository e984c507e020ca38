//! Oracles for the probes: P2, P2b, P3.

use super::{Exercise, Judgement, RunHistory, blocked, checks};
use crate::{
    checks::CheckScript,
    scenario::Traffic,
    trace::{Fnv64, Record},
};
use lameduck::lifecycle::{Phase, StopReason};
use std::time::Duration;

/// P2: readiness is 200 only while Serving, and always while Serving if the checks pass.
pub(super) fn ready_means_ready(history: &RunHistory<'_>) -> Judgement {
    let serving = history.began(Phase::Serving);
    let left = history.left_serving();
    let late = history.tolerance();
    let mut judged = checks::checks_run_on_time(history)?;
    for probe in probes(history, "/readiness") {
        let (observed, answered) = (observed(probe), probe.at);
        // The host made the response at some moment between the two times.
        let may_be_ready = serving.is_some_and(|serving| answered >= serving)
            && left.is_none_or(|left| observed <= left + late);
        let must_be_ready = serving.is_some_and(|serving| observed > serving + late)
            && left.is_none_or(|left| answered < left);
        match probe.number("status") {
            Some(200)
                if may_be_ready && checks_pass(history, observed, answered) == Some(false) =>
            {
                return Err(format!(
                    "/readiness, requested at {observed:?}, was 200 while a check failed"
                ));
            }
            Some(200) if !may_be_ready => {
                return Err(format!(
                    "/readiness, requested at {observed:?}, was 200 outside Serving"
                ));
            }
            Some(status)
                if status != 200
                    && must_be_ready
                    && checks_pass(history, observed, answered) == Some(true) =>
            {
                return Err(format!(
                    "/readiness, requested at {observed:?}, was {status} while Serving"
                ));
            }
            Some(_) => judged += 1,
            None => {}
        }
        says_why(history, probe)?;
    }
    startup_is_reported(history)?;
    Ok(Exercise::of(judged))
}

/// Checks the body of the readiness response.
fn says_why(history: &RunHistory<'_>, probe: &Record) -> Result<(), String> {
    let (observed, answered) = (observed(probe), probe.at);
    let (Some(status), Some(hash)) = (probe.number("status"), probe.number("body_hash")) else {
        return Ok(());
    };
    if status == 200 && hash != hash_of("ready\n") {
        return Err(format!(
            "/readiness, requested at {observed:?}, was 200, but the body does not say `ready`"
        ));
    }
    let mut phases = vec![Phase::Starting];
    phases.extend(
        history.phases.iter().filter(|(_, _, at)| *at <= answered).map(|(phase, _, _)| *phase),
    );
    let since = |phase: Phase| {
        history
            .phases
            .iter()
            .find(|(_, _, at)| *at + history.tolerance() >= observed)
            .is_none_or(|(next, _, _)| phase <= *next)
    };
    let last = history
        .phases
        .iter()
        .rfind(|(_, _, at)| *at + history.tolerance() < observed)
        .map_or(Phase::Starting, |(phase, _, _)| *phase);
    let mut may_be =
        phases.into_iter().filter(|phase| *phase >= last && (since(*phase) || *phase > last));
    let serving = last <= Phase::Serving
        && history.left_serving().is_none_or(|left| observed <= left + history.tolerance());
    let checked = serving && !history.scenario.checks.is_empty();
    if status == 503
        && !checked
        && !may_be.any(|phase| hash == hash_of(&format!("not ready: phase is {phase}\n")))
    {
        return Err(format!(
            "/readiness, requested at {observed:?}, named another phase than {last}"
        ));
    }
    if status != 200 && status != 503 {
        return Err(format!("/readiness, requested at {observed:?}, was {status}"));
    }
    Ok(())
}

/// P2b: `/serving` is 200 from Serving until the listeners start to close. After a stop that the
/// process began itself it is no longer 200.
pub(super) fn serving_means_responding(history: &RunHistory<'_>) -> Judgement {
    let serving = history.began(Phase::Serving);
    let is_external = history
        .outcome
        .report
        .as_ref()
        .and_then(|report| report.reason)
        .is_none_or(StopReason::is_external);
    let ends = if is_external { history.left_lame_duck() } else { history.left_serving() };
    let late = history.tolerance();
    let mut judged = 0;
    for probe in probes(history, "/serving") {
        let (observed, answered) = (observed(probe), probe.at);
        let (Some(status), Some(hash)) = (probe.number("status"), probe.number("body_hash")) else {
            continue;
        };
        // The host made the response at some moment between the two times.
        let may_serve = serving.is_some_and(|serving| answered >= serving)
            && ends.is_none_or(|ends| observed <= ends + late);
        let must_serve = serving.is_some_and(|serving| observed > serving + late)
            && ends.is_none_or(|ends| answered < ends);
        let checks = checks_pass(history, observed, answered);
        if status == 200 && hash != hash_of("serving\n") {
            return Err(format!(
                "/serving, requested at {observed:?}, was 200, but the body does not say `serving`"
            ));
        }
        match status {
            200 if !may_serve => {
                return Err(format!(
                    "/serving, requested at {observed:?}, was 200 when the service did not have to \
                     respond"
                ));
            }
            200 if checks == Some(false) => {
                return Err(format!(
                    "/serving, requested at {observed:?}, was 200 while a check failed"
                ));
            }
            200 if must_serve && blocked::is_noticed(history, observed, answered) => {
                return Err(format!(
                    "/serving, requested at {observed:?}, was 200 while a worker was blocked"
                ));
            }
            200 => {}
            503 if blocked::may_be_noticed(history, observed, answered) => {}
            503 if must_serve && checks == Some(true) => {
                return Err(format!(
                    "/serving, requested at {observed:?}, was 503 before the listeners closed"
                ));
            }
            503 => {}
            _ => return Err(format!("/serving, requested at {observed:?}, was {status}")),
        }
        judged += 1;
    }
    Ok(Exercise::of(judged))
}

/// Checks that `/startupz` shows whether the start has finished.
fn startup_is_reported(history: &RunHistory<'_>) -> Result<(), String> {
    // A start that failed never becomes complete.
    let serving = history.began(Phase::Serving).unwrap_or(Duration::MAX);
    let left = history.left_serving().unwrap_or(Duration::MAX);
    for probe in probes(history, "/startupz") {
        let (observed, answered) = (observed(probe), probe.at);
        let due = if answered < serving { 503 } else { 200 };
        let is_clear = answered < serving
            || (observed > serving.saturating_add(history.tolerance()) && answered < left);
        if is_clear && probe.number("status").is_some_and(|status| status != due) {
            return Err(format!(
                "/startupz, requested at {observed:?}, was {:?} instead of {due}",
                probe.number("status")
            ));
        }
    }
    Ok(())
}

fn hash_of(text: &str) -> u64 {
    let mut hash = Fnv64::new();
    hash.feed(text.as_bytes());
    hash.value()
}

/// Whether all checks passed in their last run. Returns `None` if a check ran between the request
/// and the response.
fn checks_pass(history: &RunHistory<'_>, observed: Duration, answered: Duration) -> Option<bool> {
    let mut checks = history.scenario.checks.iter();
    checks
        .try_fold(true, |all, check| Some(all & check_passes(history, check, observed, answered)?))
}

/// Whether a check passed in its last run. Returns `None` if it ran between the two times.
pub(super) fn check_passes(
    history: &RunHistory<'_>,
    check: &CheckScript,
    observed: Duration,
    answered: Duration,
) -> Option<bool> {
    let late = history.tolerance();
    let takes = history.host(Duration::from_millis(check.takes_ms));
    if takes > check.timeout() + history.rounding() {
        return Some(false);
    }
    if takes + history.rounding() >= check.timeout() {
        return None;
    }
    let mut runs = history
        .server("checked")
        .filter(|record| record.text("check") == Some(check.name.as_str()));
    if runs.clone().any(|record| record.at + late >= observed && record.at <= answered + late) {
        return None;
    }
    let last = runs.rfind(|record| record.at < observed);
    // The runs begin again with Serving. One that hung before has a result only if its time ended.
    let serving = history.began(Phase::Serving).unwrap_or(Duration::MAX);
    let hangs = history
        .server("check hangs")
        .filter(|record| record.text("check") == Some(check.name.as_str()) && record.at <= answered)
        .map(|record| (record.at, record.at + history.world(check.timeout())));
    let meets_serving = |fails: Duration| fails.abs_diff(serving) <= history.rounding() + late;
    if hangs.clone().any(|(at, fails)| at < serving && meets_serving(fails)) {
        return None;
    }
    let mut hangs = hangs.filter(|(at, fails)| *at >= serving || *fails < serving);
    let mut passes = true;
    if let Some((_, fails)) = hangs.next() {
        if answered + history.rounding() >= fails && observed <= fails + history.rounding() {
            return None;
        }
        passes = observed < fails;
    }
    Some(passes && last.is_some_and(|record| record.text("passes") == Some("yes")))
}

/// P3: liveness is 200 until the internal server closes, which is last.
pub(super) fn alive_to_the_last(history: &RunHistory<'_>) -> Judgement {
    // The internal server closes when the last hook has finished.
    let hooks = history
        .records
        .iter()
        .filter(|record| record.event.starts_with("hook ") || record.text("hook").is_some());
    let last_hook =
        hooks.filter(|record| record.event != "hook report").map(|record| record.at).max();
    let cleaning_up = history
        .began(Phase::CleaningUp)
        .or(history.exit().map(|(at, _)| at))
        .unwrap_or(Duration::MAX);
    let closes = last_hook.map_or(cleaning_up, |last| last.max(cleaning_up));
    let bound = history.server("log").next().map_or(Duration::ZERO, |record| record.at);
    let mut judged = blocked::blocked_workers_are_logged(history)?;
    for probe in probes(history, "/liveness") {
        match (probe.number("status"), probe.text("none")) {
            (Some(200), _)
                if probe.number("body_hash").is_some_and(|hash| hash != hash_of("alive\n")) =>
            {
                return Err(format!(
                    "/liveness, requested at {:?}, was 200, but the body does not say `alive`",
                    observed(probe)
                ));
            }
            (Some(200), _) if must_fail(history, probe) => {
                return Err(format!(
                    "/liveness, requested at {:?}, was 200 while a worker was blocked",
                    observed(probe)
                ));
            }
            (Some(200), _) => judged += 1,
            (Some(503), _) if may_fail(history, probe) => judged += 1,
            (Some(status), _) => {
                return Err(format!("/liveness, requested at {:?}, was {status}", observed(probe)));
            }
            (None, how) if observed(probe) > bound + history.tolerance() && probe.at < closes => {
                return Err(format!(
                    "/liveness, requested at {:?}, got no response: {}",
                    observed(probe),
                    how.unwrap_or_default()
                ));
            }
            (None, _) => {}
        }
    }
    Ok(Exercise::of(judged))
}

/// Whether a worker is blocked, all the time between request and response, while the process
/// serves.
fn must_fail(history: &RunHistory<'_>, probe: &Record) -> bool {
    let left = history.left_serving().unwrap_or(Duration::MAX);
    probe.at < left && blocked::is_noticed(history, observed(probe), probe.at)
}

/// Whether a worker may be blocked at some moment between request and response, while the process
/// serves.
fn may_fail(history: &RunHistory<'_>, probe: &Record) -> bool {
    let left = history.left_serving().unwrap_or(Duration::MAX);
    observed(probe) <= left + history.tolerance()
        && blocked::may_be_noticed(history, observed(probe), probe.at)
}

/// Checks that the counts of a status page add up: each open connection is in one state, each
/// request that was started is in flight or has one outcome, and each one in flight is waited for
/// as a request or as a stream.
fn counts_add_up(history: &RunHistory<'_>) -> Result<(), String> {
    // Threads count while the page is written.
    if !history.tolerance().is_zero() {
        return Ok(());
    }
    let adds_up = |page: &&Record| {
        let number = |name| page.number(name).unwrap_or(0);
        number("open") == number("states")
            && number("started") == number("in_flight") + number("ended")
            && number("in_flight") == number("waiting")
    };
    let mut pages = history.events("status page");
    match pages.find(|page| !adds_up(page)) {
        Some(page) => Err(format!("the counts of a status page do not add up: {page}")),
        None => Ok(()),
    }
}

/// Longest time for a probe that strangers delay (P16), without the network's.
const PROBE_WITHIN: Duration = Duration::from_millis(100);

/// P16: every probe has its response soon, whatever connections strangers hold.
pub(super) fn probes_have_a_response(history: &RunHistory<'_>) -> Judgement {
    let has_strangers = history
        .scenario
        .clients
        .iter()
        .any(|client| matches!(client.traffic, Traffic::InternalStrangers { .. }));
    counts_add_up(history)?;
    // A connection that was closed meanwhile costs a second attempt.
    let most = history.world(PROBE_WITHIN) + history.under_way() * 8 + history.tolerance();
    let mut judged = 0;
    for probe in history.events("probe") {
        let took = probe.at.saturating_sub(observed(probe));
        if probe.number("status").is_some() && took > most {
            return Err(format!(
                "{}, requested at {:?}, got its response after {took:?}",
                probe.text("path").unwrap_or_default(),
                observed(probe)
            ));
        }
        judged += usize::from(has_strangers);
    }
    Ok(Exercise::of(judged))
}

fn probes<'a>(history: &'a RunHistory<'_>, path: &'static str) -> impl Iterator<Item = &'a Record> {
    history.events("probe").filter(move |record| record.text("path") == Some(path))
}

fn observed(probe: &Record) -> Duration {
    Duration::from_micros(probe.number("asked_us").unwrap_or(0))
}
