//! P13: the gauges of `/metrics` show the state of the host in one moment.
//!
//! The time spent in each phase is on the page, and so is its moment. What the status page shows,
//! too, is judged as on that page, at that moment. In real time no page is judged.

use super::{
    Exercise, Judgement, ObservedRequest, RunHistory, accounting, open_connections,
    status::{Page, running_at},
};
use crate::{
    scenario::{Client, RequestKind, StuckResponse, Traffic},
    trace::{Record, Value},
};
use lameduck::lifecycle::{HookVerdict, Phase, StopReason};
use std::time::Duration;

/// 2030-01-01T00:00:00Z, the wall time at which every clock begins.
const WALL_AT_EPOCH: Duration = Duration::from_secs(1_893_456_000);
/// Precision of a wall time as a number with a point.
const PRECISION: Duration = Duration::from_micros(1);
/// Time for the host's part of a response.
const SOON: Duration = Duration::from_millis(20);

/// P13: the gauges of each page are true.
pub(super) fn gauges_are_true(history: &RunHistory<'_>) -> Judgement {
    let Some((_, _, begin)) = history.phases.first() else { return Ok(Exercise::No) };
    if !history.tolerance().is_zero() {
        return Ok(Exercise::No);
    }
    let begin = history.host(*begin);
    let mut judged = 0;
    for record in history.events("metrics page") {
        let scrape = Scrape::read(history, record, begin);
        let at = scrape.at;
        scrape.judge().map_err(|why| format!("the metrics of {at:?} were not true: {why}"))?;
        judged += 1;
    }
    Ok(Exercise::of(judged))
}

/// The gauges of one page, and what is needed to judge them.
struct Scrape<'a> {
    history: &'a RunHistory<'a>,
    record: &'a Record,
    begin: Duration,
    /// The time of the page, by the host's clock.
    at: Duration,
    /// The name of each row without its prefix, its labels and its value. Most rows that are 0 are
    /// left out.
    rows: Vec<(&'a str, &'a str, &'a str)>,
    /// The handlers that surely run.
    handlers: Vec<&'a Record>,
}

impl<'a> Scrape<'a> {
    fn read(history: &'a RunHistory<'a>, record: &'a Record, begin: Duration) -> Self {
        let lines = ["counters", "gauges"].map(|part| record.text(part).unwrap_or_default());
        let rows = lines.into_iter().flat_map(str::lines);
        let rows = rows.filter_map(row).collect();
        let mut scrape = Self { history, record, begin, at: begin, rows, handlers: Vec::new() };
        let spans = scrape.family("phase_seconds_total");
        scrape.at = begin + spans.map(|(_, value)| seconds(value)).sum::<Duration>();
        scrape.handlers = scrape.running("handler begins", "handler ends");
        scrape
    }

    /// Returns the labels and the value of each row of a family.
    fn family(&self, name: &'static str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a, '_> {
        let rows = self.rows.iter().filter(move |(family, ..)| *family == name);
        rows.map(|(_, labels, value)| (*labels, *value))
    }

    /// Returns the value of a row with one label or none; 0 if there is none.
    fn value(&self, name: &'static str, label: &str) -> &'a str {
        let row = |(labels, _): &(&str, &str)| label.is_empty() || labels.contains(label);
        self.family(name).find(row).map_or("0", |(_, value)| value)
    }

    fn count(&self, name: &'static str, label: &str) -> u64 {
        self.value(name, label).parse().unwrap_or(u64::MAX)
    }

    fn is_set(&self, name: &'static str) -> &'static str {
        if self.value(name, "") == "1" { "yes" } else { "no" }
    }

    const fn slack(&self) -> Duration {
        self.history.rounding().saturating_add(PRECISION)
    }

    fn judge(&self) -> Result<(), String> {
        self.phases_are_true()?;
        self.constants_are_true()?;
        self.the_stop_is_true()?;
        self.connections_are_true()?;
        self.requests_are_true()?;
        self.tasks_are_true()?;
        self.hooks_are_true()?;
        let (record, shows_workers) = self.as_status_page();
        let page =
            Page { history: self.history, record: &record, begin: self.begin, shows_workers };
        page.judge_state()
    }

    /// Each phase has lasted for as long as the trace says, and the last one is the current one.
    fn phases_are_true(&self) -> Result<(), String> {
        let phases = &self.history.phases;
        for (n, (phase, _, from)) in phases.iter().enumerate() {
            let from = self.history.host(*from);
            let to = phases.get(n + 1).map_or(self.at, |(_, _, at)| self.history.host(*at));
            let lasted = to.min(self.at).saturating_sub(from);
            let label = format!("phase=\"{}\"", phase.name());
            let said = seconds(self.value("phase_seconds_total", &label));
            if said.abs_diff(lasted) > self.slack() * 2 {
                return Err(format!("{} lasted {lasted:?}, not {said:?}", phase.name()));
            }
        }
        let current: Vec<&str> = self.family("phase").map(|(labels, _)| labels).collect();
        let is_current = |phase: &Phase| current == [format!("{{phase=\"{}\"}}", phase.name())];
        let begun =
            phases.iter().rfind(|(_, _, at)| self.history.host(*at) + self.slack() < self.at);
        let mut may_be = phases.iter().filter(|(phase, _, at)| {
            let is_later = begun.is_none_or(|(begun, ..)| phase >= begun);
            is_later && self.history.host(*at) <= self.at + self.slack()
        });
        if may_be.any(|(phase, ..)| is_current(phase)) {
            return Ok(());
        }
        Err(format!("the phase is not {current:?}"))
    }

    /// What the settings say.
    fn constants_are_true(&self) -> Result<(), String> {
        let version = concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"");
        let build: Vec<_> = self.family("build_info").collect();
        let is_build =
            |labels: &str| labels.contains(version) && labels.contains("app_version=\"simulated\"");
        if !matches!(build[..], [(labels, "1")] if is_build(labels)) {
            return Err(format!("the build is {build:?}"));
        }
        let most = self.history.scenario.limits.limits().connections_max as u64;
        if self.count("connections_max", "") != most {
            return Err(format!("connections_max is not {most}"));
        }
        let worst = accounting::worst_case(self.history);
        if seconds(self.value("shutdown_worst_case_seconds", "")) != worst {
            return Err(format!("the worst case is not {worst:?}"));
        }
        Ok(())
    }

    /// The time since the stop request. A cancelled start hook has a short time, in which the phase
    /// stays the same.
    fn the_stop_is_true(&self) -> Result<(), String> {
        let said = seconds(self.value("shutdown_elapsed_seconds", ""));
        let since = |at: Option<Duration>| {
            at.map_or(Duration::ZERO, |at| self.at.saturating_sub(self.history.host(at)))
        };
        let armed = self.history.server("watchdog armed").next().map(|armed| armed.at);
        let left = self.history.left_serving().or(self.history.began(Phase::CleaningUp));
        let (least, most) = (since(left), since(armed.or(left)));
        if said + self.slack() * 2 < least || said > most + self.slack() * 2 {
            return Err(format!("{said:?} have passed since the stop, not {least:?} to {most:?}"));
        }
        Ok(())
    }

    /// Each open connection is in one state, and connections that serve a request are open.
    fn connections_are_true(&self) -> Result<(), String> {
        let state = |state: &str| self.count("connections", &format!("state=\"{state}\""));
        let states = ["opening", "parked", "http1", "http2", "lingering", "upgraded"].map(state);
        let [.., http2, lingering, upgraded] = states;
        let open: u64 = states.iter().sum();
        let world = self.history.world(self.at);
        if let Some((least, most)) = open_connections::bounds(self.history, world)
            && !(least..=most).contains(&open)
        {
            return Err(format!("{open} connections are open, not {least} to {most}"));
        }
        if self.history.uses_another_app() {
            return Ok(());
        }
        let handlers = &self.handlers;
        let of = |is_http2: bool| {
            let mut on: Vec<_> = handlers
                .iter()
                .filter_map(|begins| request_of(self.history, begins))
                .filter(|observed| self.history.is_http2(observed) == is_http2)
                .map(|observed| (observed.client, observed.connection))
                .collect();
            on.sort_unstable();
            on.dedup();
            on.len() as u64
        };
        let (least, ones) = (of(true), of(false));
        if http2 < least {
            return Err(format!("{http2} connections speak HTTP/2, and {least} serve a request"));
        }
        // One whose response is in the kernel may linger until its client has it.
        if states[1] + states[2] + lingering < ones {
            return Err(format!("of the connections of HTTP/1, {ones} serve a request"));
        }
        let begins = |traffic| matches!(traffic, Traffic::SilentHttp2 | Traffic::SlowHttp2 { .. });
        let is_http2 = |client: &Client| client.traffic.is_http2() || begins(client.traffic);
        if http2 > 0 && !self.history.scenario.clients.iter().any(is_http2) {
            return Err(format!("{http2} connections speak HTTP/2, and no client does"));
        }
        let conversations = self.history.server("conversation begins").count() as u64;
        let untaken = self.begun(|target| target.contains("taken=no"));
        if upgraded > conversations + untaken {
            return Err(format!("{upgraded} connections are upgraded"));
        }
        Ok(())
    }

    /// The number of handlers of a target that have begun by now.
    fn begun(&self, is: impl Fn(&str) -> bool) -> u64 {
        let by = self.at + self.slack();
        let begun = self.history.server("handler begins");
        let begun = begun.filter(|begins| self.history.host(begins.at) <= by);
        begun.filter(|begins| begins.text("target").is_some_and(&is)).count() as u64
    }

    /// What surely runs at the time of the page.
    fn running(&self, begins: &'static str, ends: &'static str) -> Vec<&'a Record> {
        let is_before = |at: Duration| {
            let at = self.history.host(at);
            (at.abs_diff(self.at) > self.slack()).then_some(at < self.at)
        };
        running_at(self.history, begins, ends, is_before)
    }

    /// Requests in flight are those that have begun and not ended, and each waits for its response
    /// head, or for the end of its body.
    fn requests_are_true(&self) -> Result<(), String> {
        let in_flight = self.count("requests_in_flight", "");
        let kind = |kind: &str| self.count("waiting_for", &format!("kind=\"{kind}\""));
        let (requests, streams) = (kind("request"), kind("stream"));
        if requests + streams != in_flight {
            return Err(format!(
                "{in_flight} requests are in flight, {requests} without a head and {streams} with \
                 one"
            ));
        }
        let age = |kind: &str| {
            seconds(self.value("waiting_for_oldest_seconds", &format!("kind=\"{kind}\"")))
        };
        for name in ["request", "stream", "work", "task", "upgrade"] {
            if kind(name) == 0 && !age(name).is_zero() {
                return Err(format!("there is no {name}, and the oldest is {:?} old", age(name)));
            }
        }
        if self.history.uses_another_app() {
            return Ok(());
        }
        let most = self.requests_that_may_run();
        if in_flight > most {
            return Err(format!("{in_flight} requests are in flight, and at most {most} are"));
        }
        let running = &self.handlers;
        let of = |such: fn(&Self, &Record, &ObservedRequest) -> bool| {
            let such = |begins: &&&Record| {
                let observed = request_of(self.history, begins);
                observed.is_some_and(|observed| such(self, begins, observed))
            };
            running.iter().filter(such).count() as u64
        };
        let (heads, waits) = (of(Self::has_sent_its_head), of(Self::waits_for_its_handler));
        if streams < heads || requests < waits {
            return Err(format!(
                "{heads} requests have a head and are not over, and {waits} have none, but the page \
                 has {streams} and {requests}"
            ));
        }
        Ok(())
    }

    /// Whether the client has the head of the response by now.
    fn has_sent_its_head(&self, _: &Record, observed: &ObservedRequest) -> bool {
        let head = observed.head.map(|(at, ..)| self.history.host(at) + self.slack());
        head.is_some_and(|head| head < self.at)
            && observed
                .end
                .as_ref()
                .is_none_or(|(at, _)| self.history.host(*at) > self.at + self.slack())
    }

    /// Whether the handler surely waits before its response, and nothing has ended it.
    fn waits_for_its_handler(&self, begins: &Record, observed: &ObservedRequest) -> bool {
        let kind = self.history.request_kind(observed).map(RequestKind::as_get);
        let Some(RequestKind::Stuck(ms, StuckResponse::Nothing) | RequestKind::Unlimited(ms)) =
            kind
        else {
            return false;
        };
        let due = begins.at + Duration::from_millis(*ms);
        let ends = self.history.of_its_handler(begins, "handler ends").map(|ends| ends.at);
        let cancelled =
            self.history.of_its_handler(begins, "handler cancelled").map(|cancelled| cancelled.at);
        let until = [Some(due), ends, cancelled].into_iter().flatten().min();
        until.is_some_and(|until| self.history.host(until.saturating_sub(SOON)) > self.at)
    }

    /// The number of requests that may be in flight.
    fn requests_that_may_run(&self) -> u64 {
        let is_before = |record: &&Record| self.history.host(record.at) + self.slack() < self.at;
        let begun = self.begun(|_| true);
        // Those that are refused have no handler.
        let refused = |observed: &&ObservedRequest| self.history.is_refused(observed);
        let refused = self.history.requests.iter().filter(refused).count() as u64;
        let ended = self.history.server("request ended").filter(is_before);
        let ended = ended.filter(|record| record.number("status") != Some(400)).count() as u64;
        (begun + refused).saturating_sub(ended)
    }

    /// Each background task that runs has a row with its age, and no other.
    fn tasks_are_true(&self) -> Result<(), String> {
        const ROWS: &str = "background_task_running_seconds";
        let rows = self.family(ROWS).count() as u64;
        let tasks = self.count("waiting_for", "kind=\"task\"");
        if rows != tasks {
            return Err(format!("{rows} background tasks have a row, and {tasks} run"));
        }
        for begins in self.running("task begins", "task ends") {
            let Some(task) = begins.text("task").filter(|task| !task.starts_with("left")) else {
                continue;
            };
            let label = format!("task=\"{task}\"");
            let said = self.family(ROWS).find(|(labels, _)| labels.contains(&label));
            let age = self.at.saturating_sub(self.history.host(begins.at));
            if said.is_none_or(|(_, said)| seconds(said).abs_diff(age) > self.slack() * 2) {
                return Err(format!("{task} has run for {age:?}, not {said:?}"));
            }
        }
        Ok(())
    }

    /// Each stage of a hook pair that has begun has a row, which is the report's once it has ended.
    fn hooks_are_true(&self) -> Result<(), String> {
        const ROWS: &str = "hook_duration_seconds";
        let Some(report) = &self.history.outcome.report else { return Ok(()) };
        let is_before = |record: &&Record| self.history.host(record.at) + self.slack() < self.at;
        let begun = self.history.server("hook begins").filter(is_before).count();
        if self.family(ROWS).count() < begun {
            return Err(format!("{begun} stages of hooks have begun, and not all have a row"));
        }
        for (labels, value) in self.family(ROWS) {
            let took = seconds(value);
            let is_running = labels.contains("outcome=\"running\"");
            let is_it = |hook: &&lameduck::HookReport| {
                let (stage, outcome) = stage_and_outcome(hook.verdict);
                let row =
                    format!("{{hook=\"{}\",stage=\"{stage}\",outcome=\"{outcome}\"}}", hook.name);
                labels == row && took.abs_diff(hook.took) <= PRECISION
            };
            if !is_running && !report.hooks.iter().any(|hook| is_it(&hook)) {
                return Err(format!("no stage of a hook is {labels} {value}"));
            }
        }
        Ok(())
    }

    /// Returns the same as a record of the status page, and whether it shows blocked workers.
    fn as_status_page(&self) -> (Record, bool) {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let kind = |name: &'static str, kind: &str| self.value(name, &format!("kind=\"{kind}\""));
        let count = |of: &str| self.count("waiting_for", &format!("kind=\"{of}\""));
        let age = |of: &str| ms(seconds(kind("waiting_for_oldest_seconds", of)));
        let checks: Vec<String> = self
            .family("check_passing")
            .map(|(labels, value)| {
                let passes = if value == "1" { "yes" } else { "no" };
                format!("{} {passes}", label(labels, "check"))
            })
            .collect();
        let phase = self.family("phase").next().map_or("", |(labels, _)| labels);
        let phase = label(phase, "phase");
        let state = |state: &str| self.count("connections", &format!("\"{state}\""));
        let mut fields: Vec<(&'static str, Value)> = vec![
            ("up_for_ms", ms(self.at - self.begin).into()),
            ("phase", phase.into()),
            ("ready", self.is_set("ready").into()),
            ("serving", self.is_set("serving").into()),
            ("live", self.is_set("live").into()),
            ("in_flight", self.count("requests_in_flight", "").into()),
            ("upgraded", state("upgraded").into()),
            ("opening", state("opening").into()),
            ("tasks", count("task").into()),
            ("work", count("work").into()),
            ("oldest_task_ms", age("task").into()),
            ("oldest_request_ms", age("request").max(age("stream")).into()),
        ];
        let all_pass = checks.iter().all(|check| check.ends_with(" yes"));
        let shows_workers = self.shows_workers(phase, all_pass);
        let is_serving = phase == Phase::Serving.name();
        let probe = if is_serving { "live" } else { "serving" };
        if shows_workers && self.is_set(probe) == "no" {
            fields.push(("blocked", 0_u64.into()));
        }
        fields.push(("checks", checks.join(",").into()));
        let deadline = self.family("shutdown_deadline_timestamp_seconds").next();
        fields.extend(deadline.map(|(_, value)| {
            let left = seconds(value).saturating_sub(WALL_AT_EPOCH).saturating_sub(self.at);
            ("must_exit_within_ms", ms(left).into())
        }));
        let mut hooks = self.family("hook_duration_seconds");
        if let Some((labels, value)) = hooks.find(|(labels, _)| labels.contains("=\"running\"")) {
            fields.push(("hook", label(labels, "hook").into()));
            fields.push(("stage", label(labels, "stage").into()));
            fields.push(("hook_for_ms", ms(seconds(value)).into()));
        }
        let fields = fields.into();
        let Record { at, actor, .. } = self.record;
        (Record { at: *at, actor: actor.clone(), event: "gauges", fields }, shows_workers)
    }

    /// Whether the probes on the page show whether a worker is blocked, and nothing else.
    fn shows_workers(&self, phase: &str, all_pass: bool) -> bool {
        let report = self.history.outcome.report.as_ref();
        let reason = report.and_then(|report| report.reason);
        let is_external = reason.is_some_and(StopReason::is_external);
        phase == Phase::Serving.name() || phase == Phase::LameDuck.name() && is_external && all_pass
    }
}

/// Splits a line of the page into the name without its prefix, the labels and the value.
fn row(line: &str) -> Option<(&str, &str, &str)> {
    let (row, value) = line.strip_prefix("lameduck_")?.rsplit_once(' ')?;
    let (name, labels) = row.split_at(row.find('{').unwrap_or(row.len()));
    Some((name, labels, value))
}

/// Returns the request of a handler as its client saw it.
fn request_of<'a>(history: &'a RunHistory<'_>, begins: &Record) -> Option<&'a ObservedRequest> {
    let (client, number) = begins.text("of")?.split_once('/')?;
    let client = client.strip_prefix("client-")?.parse().ok()?;
    history.request(client, number.parse().ok()?)
}

/// Returns the value of a label.
fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let begin = labels.find(&format!("{name}=\"")).map(|at| at + name.len() + 2);
    let value = begin.map_or("", |begin| &labels[begin..]);
    value.split('"').next().unwrap_or_default()
}

fn seconds(value: &str) -> Duration {
    let seconds = value.parse().ok();
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(Duration::MAX)
}

const fn stage_and_outcome(verdict: HookVerdict) -> (&'static str, &'static str) {
    match verdict {
        HookVerdict::Started(result) => ("start", result.name()),
        HookVerdict::StartDropped => ("start", "dropped"),
        HookVerdict::Stopped(result) => ("stop", result.name()),
        HookVerdict::GivenUp(_) => ("stop", "given_up"),
    }
}
