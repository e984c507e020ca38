//! P13: the status page shows the state of the host in one moment.
//!
//! The page has its own time, `up_for_ms`. All else on it must be true at that time. In real time
//! the page is not judged.

use super::{Exercise, Judgement, RunHistory, blocked, probes};
use crate::{checks::CheckScript, trace::Record};
use lameduck::lifecycle::{Phase, StopReason, WATCHDOG_SLACK};
use std::{collections::BTreeMap, time::Duration};

/// Spans on the page are whole milliseconds.
const WHOLE: Duration = Duration::from_millis(1);

/// P13: each status page is true.
pub(super) fn pages_are_true(history: &RunHistory<'_>) -> Judgement {
    let mut judged = 0;
    let Some((_, _, begin)) = history.phases.first() else { return Ok(Exercise::No) };
    if !history.tolerance().is_zero() {
        return Ok(Exercise::No);
    }
    for record in history.events("status page") {
        let page = Page { history, record, begin: history.host(*begin), shows_workers: true };
        page.judge().map_err(|why| format!("a status page was not true: {why}: {record}"))?;
        judged += 1;
    }
    Ok(Exercise::of(judged))
}

/// A status page, and what is needed to judge it.
pub(super) struct Page<'a> {
    pub(super) history: &'a RunHistory<'a>,
    pub(super) record: &'a Record,
    /// When the host began, by its clock.
    pub(super) begin: Duration,
    /// Whether the page shows that a worker is blocked.
    pub(super) shows_workers: bool,
}

impl Page<'_> {
    fn judge(&self) -> Result<(), String> {
        let asked = self.record.number("asked_us").map(Duration::from_micros).unwrap_or_default();
        let [from, to] = [asked, self.record.at].map(|at| self.history.host(at));
        let at = self.at();
        if at + self.slack() < from || at > to + self.slack() {
            return Err("its time is not between the request and the response".to_owned());
        }
        self.phases_are_true()?;
        self.judge_state()
    }

    /// Judges what the metrics show, too.
    pub(super) fn judge_state(&self) -> Result<(), String> {
        self.the_bound_is_true()?;
        self.the_hook_is_true()?;
        self.probes_follow()?;
        self.nothing_opens_without_a_cause()?;
        self.work_is_counted()
    }

    fn ms(&self, name: &str) -> Option<Duration> {
        self.record.number(name).map(Duration::from_millis)
    }

    fn is(&self, name: &str) -> bool {
        self.record.text(name) == Some("yes")
    }

    /// The time of the page, by the host's clock.
    fn at(&self) -> Duration {
        self.begin + self.ms("up_for_ms").unwrap_or_default()
    }

    const fn slack(&self) -> Duration {
        WHOLE.saturating_add(self.history.rounding())
    }

    /// Whether a moment of the world was before the page; `None` if it was near.
    fn is_before(&self, moment: Duration) -> Option<bool> {
        let moment = self.history.host(moment);
        (moment.abs_diff(self.at()) > self.slack()).then_some(moment < self.at())
    }

    /// Each phase until now is listed, with its begin and its length.
    fn phases_are_true(&self) -> Result<(), String> {
        let listed = self.record.text("phases").unwrap_or_default().split(',');
        let listed: Vec<(&str, Duration, Duration)> = listed
            .filter_map(|phase| {
                let mut words = phase.split(' ');
                let name = words.next()?;
                let mut ms = || Some(Duration::from_millis(words.next()?.parse().ok()?));
                Some((name, ms()?, ms()?))
            })
            .collect();
        let begun = |(_, _, at): &&(Phase, usize, Duration)| self.is_before(*at) != Some(false);
        let phases: Vec<_> = self.history.phases.iter().take_while(begun).collect();
        let surely = phases.iter().filter(|(_, _, at)| self.is_before(*at) == Some(true)).count();
        if listed.len() < surely || listed.len() > phases.len() {
            return Err(format!(
                "it lists {} phases of {surely} to {}",
                listed.len(),
                phases.len()
            ));
        }
        for (n, ((name, after, lasted), (phase, _, at))) in listed.iter().zip(&phases).enumerate() {
            let at = self.history.host(*at);
            let next = phases.get(n + 1).filter(|_| n + 1 < listed.len());
            let ends = next.map_or(self.at(), |(_, _, next)| self.history.host(*next));
            let is_true = *name == phase.name()
                && after.abs_diff(at.saturating_sub(self.begin)) <= self.slack()
                && lasted.abs_diff(ends.saturating_sub(at)) <= self.slack() * 2;
            if !is_true {
                return Err(format!("{name} began {after:?} after the start and took {lasted:?}"));
            }
        }
        let (name, _, lasted) = listed.last().copied().unwrap_or_default();
        let is_last = self.record.text("phase") == Some(name);
        match self.ms("phase_for_ms") {
            Some(span) if is_last && span.abs_diff(lasted) <= WHOLE => Ok(()),
            _ => Err("its phase is not the last of its phases".to_owned()),
        }
    }

    /// The time until the process must exit is there from the first phase of the shutdown on.
    fn the_bound_is_true(&self) -> Result<(), String> {
        let armed = self.history.server("watchdog armed").next();
        let due = armed.and_then(|armed| armed.number("at_us")).map(Duration::from_micros);
        let left = due.map(|due| due.saturating_sub(WATCHDOG_SLACK).saturating_sub(self.at()));
        let said = self.ms("must_exit_within_ms");
        // A cancelled start hook has a short time, in which the phase stays the same.
        let armed = armed.map(|armed| armed.at);
        let next = self.history.left_serving().or(self.history.began(Phase::CleaningUp));
        let is_armed = armed.and_then(|at| self.is_before(at));
        let is_published = next.and_then(|at| self.is_before(at));
        match (said, left) {
            (Some(said), Some(left)) if said.abs_diff(left) <= self.slack() * 2 => {}
            (Some(said), _) => return Err(format!("the exit is due in {said:?}, not in {left:?}")),
            (None, _) => {}
        }
        if said.is_some() && (armed.is_none() || is_armed == Some(false)) {
            return Err("the exit is due, but no stop was requested".to_owned());
        }
        if said.is_none() && is_published == Some(true) {
            return Err("a stop was requested, but the exit is not due".to_owned());
        }
        Ok(())
    }

    /// The hook is the one that runs.
    fn the_hook_is_true(&self) -> Result<(), String> {
        let said = self.record.text("hook").zip(self.record.text("stage"));
        let since = self.ms("hook_for_ms").map(|span| self.at().saturating_sub(span));
        let mut begins = self.history.places("hook begins");
        let Some(said) = said else {
            let runs = begins.find(|(place, begins)| self.hook_runs(*place, begins));
            return match runs {
                Some((_, record)) => Err(format!("it has no hook, but one runs: {record}")),
                None => Ok(()),
            };
        };
        let is_it = |record: &Record| {
            let began = self.history.host(record.at);
            record.text("hook").zip(record.text("stage")) == Some(said)
                && since.is_some_and(|since| since.abs_diff(began) <= self.slack() * 2)
        };
        // One that is given up at once does not begin.
        let is_new = since.is_some_and(|since| self.at() - since <= self.slack());
        let Some((place, begins)) = begins.find(|(_, record)| is_it(record)) else {
            let what = format!("the hook {said:?} did not begin at {since:?}");
            return if is_new { Ok(()) } else { Err(what) };
        };
        let ended = self.end_of_hook(place, begins);
        match ended.and_then(|at| self.is_before(at)) {
            Some(true) => Err(format!("the hook {said:?} had ended at {ended:?}")),
            Some(false) | None => Ok(()),
        }
    }

    /// Returns when the hook that begins here ended, or was given up.
    fn end_of_hook(&self, place: usize, begins: &Record) -> Option<Duration> {
        let hook = begins.text("hook");
        let is_state = |record: &Record| matches!(record.event, "hook begins" | "status page");
        let over = |record: &&Record| !is_state(record) && record.text("hook") == hook;
        self.history.records[place + 1..].iter().find(over).map(|record| record.at)
    }

    /// Whether the hook that begins here surely runs at the time of the page.
    fn hook_runs(&self, place: usize, begins: &Record) -> bool {
        let exit = self.history.exit().map(|(at, _)| at);
        self.is_before(begins.at) == Some(true)
            && self
                .end_of_hook(place, begins)
                .or(exit)
                .is_some_and(|at| self.is_before(at) == Some(false))
    }

    /// The probes follow from phase, checks and workers.
    fn probes_follow(&self) -> Result<(), String> {
        let checks = self.record.text("checks").unwrap_or_default();
        let checks: Vec<&str> = checks.split(',').filter(|check| !check.is_empty()).collect();
        let all_pass = checks.iter().all(|check| check.ends_with(" yes"));
        let phase = self.record.text("phase").unwrap_or_default();
        let [serving, lame_duck] = [Phase::Serving, Phase::LameDuck].map(|is| phase == is.name());
        let report = self.history.outcome.report.as_ref();
        let reason = report.and_then(|report| report.reason);
        let is_external = reason.is_some_and(StopReason::is_external);
        let is_wedged = self.record.number("blocked").is_some();
        let responds = all_pass && !is_wedged;
        for (probe, due) in [
            ("ready", serving && all_pass),
            ("serving", responds && (serving || lame_duck && is_external)),
            ("live", !(serving && is_wedged)),
        ] {
            if self.is(probe) != due && (report.is_some() || probe != "serving") {
                return Err(format!("{probe} does not follow from the rest"));
            }
        }
        if checks.len() != self.history.scenario.checks.len() {
            return Err("it has not all checks".to_owned());
        }
        let world = self.history.world(self.at());
        let (from, to) = (world.saturating_sub(self.slack()), world + self.slack());
        let is_judged = serving || lame_duck;
        let is_true = if is_wedged {
            blocked::may_be_noticed(self.history, from, to)
        } else {
            !blocked::is_noticed(self.history, from, to)
        };
        // From the drain on no worker is checked, and none is shown for long.
        if self.shows_workers && (is_judged || is_wedged) && !is_true {
            return Err("a blocked worker is not shown, or one that runs".to_owned());
        }
        for (script, said) in self.history.scenario.checks.iter().zip(checks) {
            let passes = said == format!("{} yes", script.name);
            let due = if is_judged {
                probes::check_passes(self.history, script, from, to)
            } else {
                self.passed_at_the_drain(script)
            };
            if due.is_some_and(|due| due != passes) {
                return Err(format!("the check {} is wrong", script.name));
            }
        }
        Ok(())
    }

    /// Whether a check had passed when the drain began, in which none runs; `None` if that is
    /// unknown, or if the drain has not surely begun.
    fn passed_at_the_drain(&self, script: &CheckScript) -> Option<bool> {
        let serving = self.history.began(Phase::Serving)?;
        let drain = self.history.left_lame_duck().filter(|at| *at > serving)?;
        let (from, to) = (drain.saturating_sub(self.slack()), drain + self.slack());
        let runs_on = self
            .history
            .server("checked")
            .any(|record| record.at >= from && record.text("check") == Some(script.name.as_str()));
        if runs_on || self.is_before(drain) != Some(true) {
            return None;
        }
        probes::check_passes(self.history, script, from, to)
    }

    /// No connection is opening if none has a handshake or a header.
    fn nothing_opens_without_a_cause(&self) -> Result<(), String> {
        let history = self.history;
        let may_open = history.scenario.tls || history.scenario.expects_headers();
        if self.record.number("opening") > Some(0) && !may_open {
            return Err("a connection is opening, but none has a handshake".to_owned());
        }
        Ok(())
    }

    /// What surely runs at the time of the page is counted, and no task or work that has ended.
    fn work_is_counted(&self) -> Result<(), String> {
        if self.history.uses_another_app() {
            return Ok(());
        }
        let is_task =
            |record: &Record| !record.text("task").is_some_and(|of| of.starts_with("left"));
        let tasks = self.running("task", |record| record.text("task").is_some() && is_task(record));
        let work = self.running("task", |record| !is_task(record));
        let handlers = self.running("handler", |_| true);
        let upgraded = self.running("conversation", |_| true);
        for (what, least) in
            [("tasks", tasks), ("work", work), ("in_flight", handlers), ("upgraded", upgraded)]
        {
            if self.record.number(what) < Some(least) {
                return Err(format!("it has fewer {what} than the {least} that run"));
            }
        }
        let tasks = self.may_run(|record| record.text("task").is_some() && is_task(record));
        let work = self.may_run(|record| !is_task(record));
        for (what, most) in [("tasks", tasks), ("work", work)] {
            if self.record.number(what) > Some(most) {
                return Err(format!("it has more {what} than the {most} that may run"));
            }
        }
        self.ages_are_true()
    }

    /// What is shown as the oldest has run for as long as the oldest that surely runs.
    fn ages_are_true(&self) -> Result<(), String> {
        let is_task =
            |record: &Record| record.text("task").is_some_and(|of| !of.starts_with("left"));
        for (what, since) in [
            ("oldest_task_ms", self.oldest("task begins", "task ends", is_task)),
            ("oldest_request_ms", self.oldest("handler begins", "handler ends", |_| true)),
        ] {
            let age = since.map(|at| self.at().saturating_sub(self.history.host(at)));
            let said = self.ms(what).unwrap_or_default();
            if let Some(age) = age.filter(|age| said + self.slack() * 2 < *age) {
                return Err(format!("{what} is {said:?}, but one has run for {age:?}"));
            }
        }
        let oldest = self.oldest_task_that_may_run();
        let most =
            oldest.map_or(Duration::ZERO, |at| self.at().saturating_sub(self.history.host(at)));
        match self.ms("oldest_task_ms") {
            Some(said) if said > most + self.slack() * 2 => {
                Err(format!("oldest_task_ms is {said:?}, but none has run for more than {most:?}"))
            }
            _ => Ok(()),
        }
    }

    /// When the oldest background task began that may run at the time of the page.
    fn oldest_task_that_may_run(&self) -> Option<Duration> {
        let is_task =
            |record: &Record| record.text("task").is_some_and(|of| !of.starts_with("left"));
        let ended = |begins: &Record| {
            self.history.server("task ends").any(|ends| {
                name_of(ends) == name_of(begins) && self.is_before(ends.at) == Some(true)
            })
        };
        let begun = self.history.server("task begins").filter(|record| is_task(record));
        begun.filter(|begins| !ended(begins)).map(|begins| begins.at).min()
    }

    /// When the oldest began of those that surely run at the time of the page.
    fn oldest(
        &self,
        begins: &'static str,
        ends: &'static str,
        which: impl Fn(&Record) -> bool,
    ) -> Option<Duration> {
        let running = running_at(self.history, begins, ends, |at| self.is_before(at));
        running.into_iter().filter(|record| which(record)).map(|record| record.at).min()
    }

    /// The number of tasks that may run at the time of the page.
    fn may_run(&self, which: impl Fn(&Record) -> bool) -> u64 {
        let may_have_begun =
            |record: &&Record| which(record) && self.is_before(record.at) != Some(false);
        let ended = |record: &&Record| which(record) && self.is_before(record.at) == Some(true);
        let begun = self.history.server("task begins").filter(may_have_begun).count() as u64;
        begun.saturating_sub(self.history.server("task ends").filter(ended).count() as u64)
    }

    /// The number of tasks, handlers or conversations that surely run at the time of the page.
    fn running(&self, of: &'static str, which: impl Fn(&Record) -> bool) -> u64 {
        let (begins, ends) = match of {
            "task" => ("task begins", "task ends"),
            "handler" => ("handler begins", "handler ends"),
            _ => ("conversation begins", "conversation ends"),
        };
        let began = |record: &&Record| which(record) && self.is_before(record.at) == Some(true);
        let may_have_ended =
            |record: &&Record| which(record) && self.is_before(record.at) != Some(false);
        let begun = self.history.server(begins).filter(began).count() as u64;
        begun.saturating_sub(self.history.server(ends).filter(may_have_ended).count() as u64)
    }
}

/// Returns the beginnings of what surely runs at a moment. `is_before`: whether a time of the world
/// was before it, `None` if it was near.
pub(super) fn running_at<'a>(
    history: &'a RunHistory<'_>,
    begins: &'static str,
    ends: &'static str,
    is_before: impl Fn(Duration) -> Option<bool>,
) -> Vec<&'a Record> {
    let begun = history.server(begins).filter(|record| is_before(record.at) == Some(true));
    let mut running: BTreeMap<_, _> = begun.map(|record| (name_of(record), record)).collect();
    for ended in history.server(ends).filter(|record| is_before(record.at) != Some(false)) {
        running.remove(&name_of(ended));
    }
    running.into_values().collect()
}

/// The name of a task, or the number of a handler.
fn name_of(record: &Record) -> (Option<u64>, Option<&str>) {
    (record.number("handler"), record.text("task"))
}
