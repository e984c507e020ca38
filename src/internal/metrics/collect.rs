//! The metrics of the page, read from their sources. `docs/metrics.md` lists them, with advice for
//! operators.

use super::page::{Family, Measure, Page};
use crate::{
    http::{BOUNDS, ConnectionStats, Kind, LatencySum, Outstanding, RequestStats, ServerState},
    internal::HostStatus,
    lifecycle::{HookVerdict, Moment},
    runtime::ProcessStats,
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};
use std::{
    fmt::Result,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

/// Collects the metrics of the host: its phase, requests, connections, shutdown and hooks.
#[derive(Debug)]
pub(super) struct OfHost(pub(super) Arc<HostStatus>);

/// Collects the metrics of the process, with the names that all exporters use.
#[derive(Debug)]
pub(super) struct OfProcess(pub(super) Box<dyn ProcessStats>);

const fn things(name: &'static str, help: &'static str) -> Family {
    Family { name, unit: Measure::Things, help }
}

const fn seconds(name: &'static str, help: &'static str) -> Family {
    Family { name, unit: Measure::Seconds, help }
}

const fn bytes(name: &'static str, help: &'static str) -> Family {
    Family { name, unit: Measure::Bytes, help }
}

const fn flag(holds: bool) -> f64 {
    if holds { 1.0 } else { 0.0 }
}

/// Converts a count to a gauge value. Rounded above 2^53.
#[expect(clippy::cast_precision_loss, reason = "no gauge of ours comes near 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

impl Collector for OfHost {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result {
        let mut page = Page(encoder);
        let status = &*self.0;
        let now = status.clock.now();
        life(&mut page, status, now)?;
        requests(&mut page, &status.main)?;
        connections(&mut page, &status.main)?;
        shutdown(&mut page, status, now)?;
        waiting(&mut page, &status.main)?;
        hooks(&mut page, status, now)
    }
}

fn life(page: &mut Page<'_>, status: &HostStatus, now: Moment) -> Result {
    let versions =
        [("app_version", &*status.main.config.app_version), ("version", env!("CARGO_PKG_VERSION"))];
    page.info(things("build", "What runs: the app's version and lameduck's"), versions)?;
    let spans = status.phase_spans(now);
    let current = status.main.phase();
    let phases =
        spans.iter().map(|(phase, _)| ([("phase", phase.name())], flag(*phase == current)));
    page.gauges(things("phase", "1 for the phase the process is in, 0 for the others"), phases)?;
    let lasted = spans.iter().map(|(phase, span)| (("phase", phase.name()), span.as_secs_f64()));
    page.counters(seconds("phase", "How long each phase has lasted"), lasted)?;
    let ready = flag(status.readiness_failures_in(current).is_empty());
    page.gauge(things("ready", "1 if the readiness probe answers 200"), ready)?;
    let serving = flag(status.serving_failures_in(current).is_empty());
    page.gauge(things("serving", "1 if the serving probe responds 200"), serving)?;
    let live = flag(status.liveness_failure_in(current).is_none());
    page.gauge(things("live", "1 if the liveness probe answers 200"), live)?;
    let names: Vec<_> = status.checks.iter().map(|check| (check.name.as_str(), "")).collect();
    let names = told_apart(&names);
    let checks = status.checks.iter().zip(&names);
    let checks = checks
        .map(|(check, name)| ([("check", name.as_str())], flag(check.failure(now).is_none())));
    page.gauges(things("check_passing", "1 if the readiness check passed when it last ran"), checks)
}

fn requests(page: &mut Page<'_>, main: &ServerState) -> Result {
    let aborted_by_stop = main.aborted_by_stop.get();
    let requests = main.metrics.requests();
    let RequestStats { started, finished, timed_out, aborted, gone, panicked } = requests;
    page.counter(things("requests_started", "Requests whose head was complete"), started)?;
    let outcomes =
        [("finished", finished), ("timed_out", timed_out), ("aborted", aborted), ("gone", gone)];
    let outcomes = outcomes.map(|(outcome, count)| (("outcome", outcome), count));
    page.counters(things("requests", "Requests that ended, by their one fate"), outcomes)?;
    let by_stop = things(
        "requests_aborted_by_stop",
        "Of the aborted, those that the shutdown cut: exit code 3",
    );
    page.counter(by_stop, aborted_by_stop)?;
    page.gauge(
        things("requests_in_flight", "Requests whose fate is open"),
        float(requests.in_flight()),
    )?;
    page.counter(
        things(
            "panics",
            "Handlers and bodies that panicked; their requests have a fate like all others",
        ),
        panicked,
    )?;
    page.counter(
        things("work_dropped", "Background work that the abort dropped: exit code 3"),
        main.work_dropped.get(),
    )?;
    page.counter(
        things("work_panicked", "Background tasks and tracked work that panicked"),
        main.work_panicked.get(),
    )?;
    let mut latency = LatencySum::default();
    for worker in main.metrics.workers() {
        latency.add(&worker.latency);
    }
    let in_seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
    let bounds = BOUNDS.iter().map(|bound| in_seconds(*bound)).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(latency.buckets).collect();
    let family = seconds(
        "request_duration",
        "From the complete head to the answer handed to the kernel, of the finished",
    );
    page.histogram(family, in_seconds(latency.sum_nanos), latency.count(), &buckets)
}

fn connections(page: &mut Page<'_>, main: &ServerState) -> Result {
    let connections = main.metrics.connections();
    let states =
        by_state(main, &connections).map(|(state, count)| ([("state", state)], float(count)));
    page.gauges(things("connections", "Connections that are open, by what they are at"), states)?;
    let limit = u64::try_from(main.config.limits.connections_max).unwrap_or(u64::MAX);
    page.gauge(things("connections_max", "How many may be open at a time"), float(limit))?;
    page.counter(things("connections_accepted", "Connections accepted"), connections.accepted)?;
    page.counter(
        things("connections_drained", "Closed by the shutdown with nothing cut"),
        connections.drained,
    )?;
    page.counter(
        things("connections_reset", "Reset by us, because an answer was cut"),
        connections.reset,
    )?;
    let close_races = "Closed when the client's next bytes were on their way; it got no byte of an answer and may retry";
    page.counter(things("connections_raced", close_races), connections.close_races)?;
    let untold = "Closed by the shutdown while idle, without an announcement of the close before";
    page.counter(things("connections_untold", untold), connections.untold)?;
    page.counter(
        things("connections_upgraded", "Upgraded to another protocol"),
        connections.upgraded,
    )?;
    let evicted = "Idle connections closed at the connection limit to make room";
    page.counter(things("connections_evicted", evicted), connections.evicted)?;
    let timeouts = [
        ("first_byte", connections.first_byte_timeouts),
        ("send", connections.send_timeouts),
        ("body", connections.body_timeouts),
    ];
    let timeouts = timeouts.map(|(timeout, count)| (("timeout", timeout), count));
    page.counters(
        things("client_timeouts", "Waits on a client that were ended, by the setting"),
        timeouts,
    )?;
    page.counter(
        things("accept_errors", "Accepts that failed, as for want of descriptors"),
        connections.accept_errors,
    )
}

/// Connections by state. All that are in no other state are parked.
fn by_state(main: &ServerState, connections: &ConnectionStats) -> [(&'static str, u64); 5] {
    let (mut http1, mut http2, mut lingering) = (0, 0, 0);
    for worker in main.metrics.workers() {
        http1 += worker.http1.get() as u64;
        http2 += worker.http2.get() as u64;
        lingering += worker.lingering.get() as u64;
    }
    let upgraded = connections.upgraded.saturating_sub(connections.upgraded_closed);
    let parked = connections.open().saturating_sub(http1 + http2 + lingering + upgraded);
    [
        ("parked", parked),
        ("http1", http1),
        ("http2", http2),
        ("lingering", lingering),
        ("upgraded", upgraded),
    ]
}

fn shutdown(page: &mut Page<'_>, status: &HostStatus, now: Moment) -> Result {
    let worst_case = status.plan.worst_case().as_secs_f64();
    page.gauge(
        seconds("shutdown_worst_case", "The longest that a stop may take, by the plan"),
        worst_case,
    )?;
    // Before a stop request that moment is `NEVER`, and the elapsed time is zero.
    let elapsed = now.since(status.main.stopping_since()).as_secs_f64();
    page.gauge(seconds("shutdown_elapsed", "Since the stop request; 0 before it"), elapsed)?;
    let deadline = status.deadline().and_then(|deadline| {
        let at = status.clock.wall().checked_add(deadline.since(now))?;
        Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
    });
    page.gauge(
        seconds(
            "shutdown_deadline_timestamp",
            "When the process must have exited; absent before a stop",
        ),
        deadline,
    )
}

/// Omits the names of requests, whose number has no bound. The names of background tasks come from
/// the builder.
fn waiting(page: &mut Page<'_>, main: &ServerState) -> Result {
    let outstanding = Outstanding::of(main);
    let counts = Kind::ALL
        .iter()
        .zip(outstanding.counts)
        .map(|(kind, count)| ([("kind", kind.name())], float(count)));
    page.gauges(things("waiting_for", "What a stop waits for, or would, by kind"), counts)?;
    let ages = Kind::ALL.iter().zip(outstanding.oldest_ages);
    let ages = ages.map(|(kind, age)| ([("kind", kind.name())], age.as_secs_f64()));
    page.gauges(
        seconds("waiting_for_oldest", "The age of the oldest of a kind; 0 if there is none"),
        ages,
    )?;
    let tasks = Outstanding::tasks_of(main);
    let names: Vec<_> = tasks.iter().map(|(name, _)| (name.as_str(), "")).collect();
    let names = told_apart(&names);
    let tasks = tasks
        .iter()
        .zip(&names)
        .map(|((_, age), name)| ([("task", name.as_str())], age.as_secs_f64()));
    page.gauges(
        seconds("background_task_running", "How long each background task that runs has run"),
        tasks,
    )
}

fn hooks(page: &mut Page<'_>, status: &HostStatus, now: Moment) -> Result {
    let (ended, running) = (status.hooks(), status.hook_running());
    let ended = ended.iter().map(|hook| {
        let (half, outcome) = half_and_outcome(hook.verdict);
        (hook.name.as_str(), half, outcome, hook.took)
    });
    let running = running
        .iter()
        .map(|hook| (hook.name.as_str(), hook.half, "running", now.since(hook.since)));
    let halves: Vec<_> = ended.chain(running).collect();
    let names: Vec<_> = halves.iter().map(|(name, half, ..)| (*name, *half)).collect();
    let names = told_apart(&names);
    let rows = halves.iter().zip(&names).map(|((_, half, outcome, took), name)| {
        ([("hook", name.as_str()), ("half", *half), ("outcome", *outcome)], took.as_secs_f64())
    });
    page.gauges(
        seconds("hook_duration", "How long each half of a hook pair took, or has run so far"),
        rows,
    )
}

/// Makes the names of rows unique. Names come from users, and two may be equal: the second `db`
/// becomes `db#2`.
fn told_apart(names: &[(&str, &str)]) -> Vec<String> {
    let before = |n: usize| names[..n].iter().filter(|earlier| **earlier == names[n]).count();
    let numbered = names.iter().enumerate().map(|(n, (name, _))| (name, before(n)));
    numbered
        .map(
            |(name, before)| {
                if before == 0 { (*name).to_owned() } else { format!("{name}#{}", before + 1) }
            },
        )
        .collect()
}

const fn half_and_outcome(verdict: HookVerdict) -> (&'static str, &'static str) {
    match verdict {
        HookVerdict::Started(result) => ("start", result.name()),
        HookVerdict::StartDropped => ("start", "dropped"),
        HookVerdict::Stopped(result) => ("stop", result.name()),
        HookVerdict::GivenUp(_) => ("stop", "given_up"),
    }
}

impl Collector for OfProcess {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result {
        let mut page = Page(encoder);
        let Some(usage) = self.0.read() else { return Ok(()) };
        let started_at =
            usage.started_at.and_then(|started_at| started_at.duration_since(UNIX_EPOCH).ok());
        page.counter(
            seconds("cpu", "Time that its threads ran, in user code and in the kernel"),
            usage.cpu.as_secs_f64(),
        )?;
        page.gauge(
            bytes("resident_memory", "Memory that lies in RAM"),
            float(usage.resident_bytes),
        )?;
        page.gauge(
            bytes("virtual_memory", "Memory that it has addresses for"),
            float(usage.virtual_bytes),
        )?;
        page.gauge(things("open_fds", "Descriptors that are open"), usage.descriptors.map(float))?;
        page.gauge(
            things("max_fds", "Descriptors that may be open; absent for no limit"),
            usage.descriptors_max.map(float),
        )?;
        page.gauge(
            seconds("start_time", "When it began, since 1970"),
            started_at.map(|started_at| started_at.as_secs_f64()),
        )
    }
}
