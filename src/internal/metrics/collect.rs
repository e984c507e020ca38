//! The metrics of the page, read from their sources. `docs/metrics.md` lists them, with advice for
//! operators.

use super::page::{Family, Measure, Page};
use crate::{
    http::{BOUNDS, Kind, LatencySum, Outstanding, RequestStats, ServerState},
    internal::{HostStatus, connections_by_state},
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

pub(super) const fn things(name: &'static str, help: &'static str) -> Family {
    Family { name, unit: Measure::Things, help }
}

pub(super) const fn seconds(name: &'static str, help: &'static str) -> Family {
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
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

impl Collector for OfHost {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result {
        let mut page = Page(encoder);
        let status = &*self.0;
        let now = status.clock.now();
        phases(&mut page, status, now)?;
        requests(&mut page, &status.main)?;
        connections(&mut page, &status.main)?;
        certificate(&mut page, status)?;
        shutdown(&mut page, status, now)?;
        waiting(&mut page, &status.main)?;
        hooks(&mut page, status, now)
    }
}

fn phases(page: &mut Page<'_>, status: &HostStatus, now: Moment) -> Result {
    let versions =
        [("app_version", &*status.main.config.app_version), ("version", env!("CARGO_PKG_VERSION"))];
    page.info(things("build", "Versions of the app and of lameduck; the value is 1"), versions)?;
    let spans = status.phase_spans(now);
    let current = status.main.phase();
    let phases =
        spans.iter().map(|(phase, _)| ([("phase", phase.name())], flag(*phase == current)));
    page.gauges(things("phase", "1 for the current phase, 0 for the others"), phases)?;
    let lasted = spans.iter().map(|(phase, span)| (("phase", phase.name()), span.as_secs_f64()));
    page.counters(seconds("phase", "Time spent in each phase"), lasted)?;
    let ready = flag(status.readiness_failures_in(current).is_empty());
    page.gauge(things("ready", "1 if /readiness returns 200"), ready)?;
    let serving = flag(status.serving_failures_in(current).is_empty());
    let help = "1 if /serving returns 200, also in the lame duck delay of a stop from outside";
    page.gauge(things("serving", help), serving)?;
    let live = flag(status.liveness_failure_in(current).is_none());
    page.gauge(things("live", "1 if /liveness returns 200"), live)?;
    let names: Vec<_> = status.checks.iter().map(|check| check.name.as_str()).collect();
    let names = make_unique(&names);
    let checked_at = status.checked_at();
    let checks = status.checks.iter().zip(&names).map(|(check, name)| {
        ([("check", name.as_str())], flag(check.failure(checked_at).is_none()))
    });
    page.gauges(things("check_passing", "1 if the last run of the readiness check passed"), checks)
}

fn requests(page: &mut Page<'_>, main: &ServerState) -> Result {
    let aborted_by_stop = main.aborted_by_stop.get();
    let requests = main.metrics.requests();
    let RequestStats { started, finished, timed_out, aborted, gone, panicked } = requests;
    page.counter(things("requests_started", "Requests whose complete head was read"), started)?;
    let outcomes =
        [("finished", finished), ("timed_out", timed_out), ("aborted", aborted), ("gone", gone)];
    let outcomes = outcomes.map(|(outcome, count)| (("outcome", outcome), count));
    page.counters(things("requests", "Completed requests by outcome"), outcomes)?;
    let by_stop = "Requests that the shutdown aborted; exit code 3, unless a failure outranks it";
    page.counter(things("requests_aborted_by_stop", by_stop), aborted_by_stop)?;
    page.gauge(
        things("requests_in_flight", "Requests without an outcome yet"),
        float(requests.in_flight()),
    )?;
    page.counter(
        things(
            "panics",
            "Panics in handlers and response bodies; each request also has an outcome",
        ),
        panicked,
    )?;
    page.counter(
        things(
            "streams_ended",
            "Long streams that the shutdown ended, each at a random time within --streams",
        ),
        main.metrics.streams_ended.get(),
    )?;
    page.counter(
        things("work_dropped", "Background work that was dropped at the abort; exit code 3"),
        main.work_dropped.get(),
    )?;
    let panicked = "Panics in background tasks and tracked work; exit code 1, or 3 if the shutdown \
                    also aborted something";
    page.counter(things("work_panicked", panicked), main.work_panicked.get())?;
    let mut latency = LatencySum::default();
    for worker in main.metrics.workers() {
        latency.add(&worker.latency);
    }
    let in_seconds = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64();
    let bounds = BOUNDS.iter().map(|bound| in_seconds(*bound)).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(latency.buckets).collect();
    let family = seconds(
        "request_duration",
        "Time from the complete request head until the kernel had the whole response, for \
         finished requests",
    );
    page.histogram(family, in_seconds(latency.sum_nanos), latency.count(), &buckets)
}

fn connections(page: &mut Page<'_>, main: &ServerState) -> Result {
    let connections = main.metrics.connections();
    let states = connections_by_state(main, &connections)
        .map(|(state, count)| ([("state", state)], float(count)));
    page.gauges(things("connections", "Open connections by state"), states)?;
    let limit = u64::try_from(main.config.limits.connections_max).unwrap_or(u64::MAX);
    page.gauge(things("connections_max", "Maximum number of open connections"), float(limit))?;
    page.counter(things("connections_accepted", "Accepted connections"), connections.accepted)?;
    page.counter(
        things("connections_drained", "Connections closed by the shutdown without a reset"),
        connections.drained,
    )?;
    let reset = "Connections reset by the server: a response was cut, or its client did not \
                 acknowledge all of it";
    page.counter(things("connections_reset", reset), connections.reset)?;
    let close_races = "Connections closed while a further request was arriving; no byte of a \
                       response to it was sent, so a retry is safe";
    page.counter(things("close_races", close_races), connections.close_races)?;
    let unannounced = "Idle connections that the shutdown closed without an announcement";
    page.counter(things("connections_unannounced", unannounced), connections.unannounced)?;
    page.counter(
        things("connections_upgraded", "Connections upgraded to another protocol"),
        connections.upgraded,
    )?;
    let evicted = "Idle connections closed at the connection limit to accept new ones";
    page.counter(things("connections_evicted", evicted), connections.evicted)?;
    let timeouts = [
        ("first_byte", connections.first_byte_timeouts),
        ("handshake", connections.handshake_timeouts),
        ("send", connections.send_timeouts),
        ("body", connections.body_timeouts),
    ];
    let timeouts = timeouts.map(|(timeout, count)| (("timeout", timeout), count));
    page.counters(
        things("client_timeouts", "Client timeouts by the setting that expired"),
        timeouts,
    )?;
    let refused = "Connections to an address of --proxy-protocol that were closed because their \
                   PROXY header was missing, invalid, or incomplete after --header-timeout";
    page.counter(things("proxy_headers_refused", refused), connections.proxy_headers_refused)?;
    let handshakes =
        [("completed", connections.handshakes), ("failed", connections.handshakes_failed)];
    let handshakes = handshakes.map(|(outcome, count)| (("outcome", outcome), count));
    page.counters(things("tls_handshakes", "TLS handshakes by outcome"), handshakes)?;
    page.counter(things("accept_errors", "Failed accepts"), connections.accept_errors)
}

/// Absent unless the certificate was read from files.
#[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "nothing to show"))]
fn certificate(page: &mut Page<'_>, status: &HostStatus) -> Result {
    #[cfg(feature = "tls")]
    if let Some(certificate) = &status.certificate {
        let expiry = "Time at which the TLS certificate expires; absent if it cannot be read";
        let expires = certificate.expires().map(float);
        page.gauge(seconds("tls_certificate_expiry_timestamp", expiry), expires)?;
        let reloads = certificate.reloads().map(|(outcome, count)| (("outcome", outcome), count));
        let family = things(
            "tls_certificate_reloads",
            "Changed certificate files by outcome; a refused one leaves the current in place",
        );
        page.counters(family, reloads)?;
        let last = "Time of the last replacement of the TLS certificate; absent before it";
        let reloaded_at = certificate.last_reload().map(float);
        page.gauge(seconds("tls_certificate_reload_timestamp", last), reloaded_at)?;
    }
    Ok(())
}

fn shutdown(page: &mut Page<'_>, status: &HostStatus, now: Moment) -> Result {
    let worst_case = status.plan.worst_case().as_secs_f64();
    page.gauge(
        seconds("shutdown_worst_case", "Maximum duration of a shutdown according to the plan"),
        worst_case,
    )?;
    // Before a stop request that moment is `NEVER`, and the elapsed time is zero.
    let elapsed = now.since(status.main.stopping_since()).as_secs_f64();
    page.gauge(seconds("shutdown_elapsed", "Time since the stop request; 0 before it"), elapsed)?;
    let deadline = status.deadline().and_then(|deadline| {
        // One of the two spans is zero.
        let (left, late) = (deadline.since(now), now.since(deadline));
        let at = status.clock.wall().checked_add(left)?.checked_sub(late)?;
        Some(at.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
    });
    page.gauge(
        seconds(
            "shutdown_deadline_timestamp",
            "Time by which the process must have exited; absent before a stop request",
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
    page.gauges(things("waiting_for", "What a shutdown waits for, or would wait for"), counts)?;
    let ages = Kind::ALL.iter().zip(outstanding.oldest_ages);
    let ages = ages.map(|(kind, age)| ([("kind", kind.name())], age.as_secs_f64()));
    page.gauges(
        seconds("waiting_for_oldest", "Age of the oldest entry of each kind; 0 if there is none"),
        ages,
    )?;
    let tasks = Outstanding::tasks_of(main);
    let names: Vec<_> = tasks.iter().map(|(name, _)| name.as_str()).collect();
    let names = make_unique(&names);
    let tasks = tasks
        .iter()
        .zip(&names)
        .map(|((_, age), name)| ([("task", name.as_str())], age.as_secs_f64()));
    page.gauges(
        seconds("background_task_running", "Run time of each running background task"),
        tasks,
    )
}

fn hooks(page: &mut Page<'_>, status: &HostStatus, now: Moment) -> Result {
    let (ended, running) = status.hook_stages();
    let ended = ended.iter().map(|(pair, hook)| {
        let (stage, outcome) = stage_and_outcome(hook.verdict);
        (*pair, hook.name.as_str(), stage, outcome, hook.took)
    });
    let running = running
        .iter()
        .map(|hook| (hook.pair, hook.name.as_str(), hook.stage, "running", now.since(hook.since)));
    let stages: Vec<_> = ended.chain(running).collect();
    // Both stages of a pair have its number. Stop hooks run in the reverse order, after the start
    // of each earlier pair.
    let number = |pair: usize, name: &str| {
        let is_before = |(other, its_name, stage, ..): &&(usize, &str, &str, &str, Duration)| {
            *other < pair && *its_name == name && *stage == "start"
        };
        stages.iter().filter(is_before).count() + 1
    };
    let names = stages.iter().map(|(pair, name, ..)| numbered(name, number(*pair, name)));
    let names: Vec<_> = names.collect();
    let rows = stages.iter().zip(&names).map(|((_, _, stage, outcome, took), name)| {
        ([("hook", name.as_str()), ("stage", *stage), ("outcome", *outcome)], took.as_secs_f64())
    });
    page.gauges(
        seconds("hook_duration", "Duration of each hook stage, up to now if it is running"),
        rows,
    )
}

/// Makes the names of rows unique. Names come from users, and two may be equal: the second `db`
/// becomes `db#2`.
fn make_unique(names: &[&str]) -> Vec<String> {
    let before = |n: usize| names[..n].iter().filter(|earlier| **earlier == names[n]).count();
    names.iter().enumerate().map(|(n, name)| numbered(name, before(n) + 1)).collect()
}

fn numbered(name: &str, number: usize) -> String {
    if number == 1 { name.to_owned() } else { format!("{name}#{number}") }
}

const fn stage_and_outcome(verdict: HookVerdict) -> (&'static str, &'static str) {
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
        page.counter(seconds("cpu", "Total user and system CPU time"), usage.cpu.as_secs_f64())?;
        page.gauge(bytes("resident_memory", "Resident memory size"), float(usage.resident_bytes))?;
        page.gauge(bytes("virtual_memory", "Virtual memory size"), float(usage.virtual_bytes))?;
        page.gauge(
            things("open_fds", "Number of open file descriptors"),
            usage.descriptors.map(float),
        )?;
        page.gauge(
            things(
                "max_fds",
                "Maximum number of open file descriptors; absent if there is no limit",
            ),
            usage.descriptors_max.map(float),
        )?;
        page.gauge(
            seconds("start_time", "Start time of the process since the Unix epoch"),
            started_at.map(|started_at| started_at.as_secs_f64()),
        )
    }
}
