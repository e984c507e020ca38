//! One run of the real host in a simulated world, from its start to its exit code.
//!
//! Records under the process's name: log events of the host (`phase`, `log`); `request ended`, the
//! outcome of a request; after the run `report`, `phase span` (by the host's clock), `tally`,
//! `connections`, `abort`, `hook report`; `cap` for each cap that was reached; and last `exit`. The
//! prober records `probe`.

use crate::{
    app::Actor,
    checks::CheckScript,
    client::{
        self, ClientId, ExchangePacing, Http1Client, RequestFailure, RequestSpec, ResponseSummary,
        Route,
    },
    hooks::HookScript,
    metrics_page,
    network::{HostNetwork, Process, Stalls},
    observe,
    reloads::ReloadScript,
    signals::ScriptedSignals,
    spawner::ProcessSpawner,
    spins, status_page,
    tasks::TaskScript,
    trace::Trace,
};
use http::Method;
use lameduck::{
    BackgroundTask, Builder, Caps, Host, HttpService, Limits, Report, Settings, ShutdownHandle,
    lifecycle::Plan,
    runtime::{ListenAddress, Network, Runtime, Seed},
};
use std::{num::NonZeroUsize, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;

/// The port of the main server.
pub const MAIN_PORT: u16 = 80;
/// The second port of the main server, if it has one.
pub const SECOND_PORT: u16 = 82;
/// The port of the main server on which each connection begins with a PROXY header, if it has one.
pub const PROXIED_PORT: u16 = 83;
/// The port of the internal server.
pub const INTERNAL_PORT: u16 = 81;
/// The exit code of a process that the watchdog ended (P13).
const WATCHDOG_CODE: u8 = 5;

/// Settings of one run.
#[derive(Clone, Debug)]
pub struct HostRun {
    /// Name of the process in the trace.
    pub name: String,
    /// The time limit of each step.
    pub plan: Plan,
    /// The deadline of every request; `None` for no deadline.
    pub request_timeout: Option<Duration>,
    /// Limits on what clients may take.
    pub limits: Limits,
    /// The hooks, in order.
    pub hooks: Vec<HookScript>,
    /// The background tasks.
    pub tasks: Vec<TaskScript>,
    /// The readiness checks.
    pub checks: Vec<CheckScript>,
    /// Its reloads, by SIGHUP. Without them, SIGHUP stops the host.
    pub reloads: Option<ReloadScript>,
    /// How much faster than the world the host's clock runs, in parts per million.
    pub clock_skew_ppm: i64,
    /// Whether the main server speaks TLS.
    pub tls: bool,
    /// Number of workers.
    pub workers: NonZeroUsize,
    /// Seed of the host's own randomness.
    pub seed: Seed,
    /// Seed of the order of its tasks; `None` for the order of their wake-ups.
    pub order: Option<Seed>,
    /// Whether it listens on [`SECOND_PORT`], too.
    pub second_address: bool,
    /// Whether it listens on [`PROXIED_PORT`], too.
    pub expects_headers: bool,
    /// Stalls of its workers.
    pub stalls: Option<Arc<Stalls>>,
}

impl HostRun {
    /// Runs the host that `build` creates with these settings on `machine`, with the network
    /// `network`. Returns its report, or `None` if the watchdog ended the process.
    ///
    /// Before the start, `asks` receives a handle that can request a stop.
    pub async fn live<H, N, S>(
        self,
        machine: H,
        network: N,
        build: impl FnOnce(Builder, Actor) -> Host<S> + Send,
        signals: ScriptedSignals,
        trace: Trace,
        asks: impl FnOnce(ShutdownHandle) + Send,
    ) -> Option<Report>
    where
        H: HostNetwork,
        N: Network,
        S: HttpService,
    {
        let subscriber = observe::observer(&self.name, trace.clone());
        self.live_with(machine, network, build, signals, trace, asks, subscriber).await
    }

    /// Does the same as [`live`](Self::live) with another subscriber for the events of the process.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the run")]
    pub(crate) async fn live_with<H, N, S>(
        self,
        machine: H,
        network: N,
        build: impl FnOnce(Builder, Actor) -> Host<S> + Send,
        signals: ScriptedSignals,
        trace: Trace,
        asks: impl FnOnce(ShutdownHandle) + Send,
        subscriber: tracing::Dispatch,
    ) -> Option<Report>
    where
        H: HostNetwork,
        N: Network,
        S: HttpService,
    {
        // A run before this one on the same thread may have panicked.
        drop(Caps::take_seen());
        let spins = spins::found();
        let actor = Actor { name: self.name.clone(), trace: trace.clone() };
        let Process { clock, spawner } =
            machine.process(&self.name, &trace, self.clock_skew_ppm, self.workers);
        let spawner = spawner.disturbed(self.order, self.stalls.clone());
        let watchdog_fired = CancellationToken::new();
        spawner.on_watchdog({
            let watchdog_fired = watchdog_fired.clone();
            move || watchdog_fired.cancel()
        });
        let mut settings = Settings::default().main_address(ListenAddress::Port(MAIN_PORT));
        if self.second_address {
            settings = settings.main_address(ListenAddress::Port(SECOND_PORT));
        }
        if self.expects_headers {
            settings = settings.proxy_protocol_address(ListenAddress::Port(PROXIED_PORT));
        }
        let mut builder = Host::builder(
            settings
                .internal_address(ListenAddress::Port(INTERNAL_PORT))
                .app_version("simulated")
                .request_timeout(self.request_timeout)
                .limits(self.limits)
                .plan(self.plan)
                .grace_period(Duration::ZERO),
        );
        if self.tls {
            builder = builder.tls(client::server_config());
        }
        for hook in &self.hooks {
            builder = builder.hook(hook.hook(&actor));
        }
        for task in self.tasks {
            let actor = actor.clone();
            builder = builder
                .background_task(BackgroundTask::new(task.name.clone(), move |context| {
                    task.run(actor, context)
                }));
        }
        for check in &self.checks {
            builder = builder.readiness_check(check.check(&actor));
        }
        if let Some(reloads) = self.reloads {
            builder = reloads.reload(&actor, builder);
        }
        builder = record_outcomes(builder, &actor);
        asks(builder.shutdown_handle());
        let process = build(builder, actor);
        let runtime =
            Runtime { clock, network, signals, spawner: spawner.clone(), seed: self.seed };
        let running = process.run_in(runtime).with_subscriber(subscriber);
        let report = tokio::select! {
            biased;
            () = spins.cancelled() => panic!("{}", spins::message(&self.name)),
            report = running => Some(report),
            () = watchdog_fired.cancelled() => None,
        };
        spawner.process_exited();
        if let Some(report) = &report {
            record_report(&self.name, &trace, report);
        }
        for (cap, exceeded) in Caps::take_seen() {
            let exceeded = if exceeded { "yes" } else { "no" };
            trace.record(&self.name, "cap", &[("name", cap.into()), ("exceeded", exceeded.into())]);
        }
        let code = report.as_ref().map_or(WATCHDOG_CODE, Report::code);
        trace.record(&self.name, "exit", &[("code", u64::from(code).into())]);
        report
    }
}

/// Records the outcome of each request, unless the service observes them itself.
fn record_outcomes(builder: Builder, actor: &Actor) -> Builder {
    let actor = actor.clone();
    builder.on_outcome(move |ended| {
        let mut fields = vec![
            ("outcome", ended.outcome.name().into()),
            ("method", ended.method.as_str().into()),
            ("path", ended.path.into()),
            ("version", format!("{:?}", ended.version).into()),
            ("bytes", ended.body_bytes.into()),
            ("duration_us", micros(ended.duration).into()),
            ("phase", ended.phase.name().into()),
        ];
        fields.extend(ended.status.map(|status| ("status", u64::from(status.as_u16()).into())));
        actor.trace.record(&actor.name, "request ended", &fields);
    })
}

fn record_report(name: &str, trace: &Trace, report: &Report) {
    let mut fields = vec![
        ("verdict", format!("{:?}", report.verdict).into()),
        ("shutdown_us", micros(report.shutdown).into()),
        ("worst_case_us", micros(report.worst_case).into()),
    ];
    fields.extend(report.reason.map(|reason| ("reason", reason.to_string().into())));
    fields.extend(report.error.as_ref().map(|error| ("error", error.with_causes().into())));
    trace.record(name, "report", &fields);
    for (phase, span) in &report.phases {
        trace.record(
            name,
            "phase span",
            &[("phase", phase.name().into()), ("us", micros(*span).into())],
        );
    }
    let requests = &report.requests;
    trace.record(
        name,
        "tally",
        &[
            ("started", requests.started.into()),
            ("finished", requests.finished.into()),
            ("timed_out", requests.timed_out.into()),
            ("aborted", requests.aborted.into()),
            ("gone", requests.gone.into()),
            ("panicked", requests.panicked.into()),
        ],
    );
    let connections = &report.connections;
    trace.record(
        name,
        "connections",
        &[
            ("accepted", connections.accepted.into()),
            ("open", connections.open().into()),
            ("drained", connections.drained.into()),
            ("reset", connections.reset.into()),
            ("close_races", connections.close_races.into()),
            ("unannounced", connections.unannounced.into()),
            ("upgraded", connections.upgraded.into()),
            ("accept_errors", connections.accept_errors.into()),
        ],
    );
    for abort in &report.aborts {
        trace.record(
            name,
            "abort",
            &[
                ("path", abort.path.as_str().into()),
                ("age_us", micros(abort.age).into()),
                ("phase", abort.phase.name().into()),
                ("head_sent", if abort.head_sent { "yes" } else { "no" }.into()),
                ("by_shutdown", if abort.by_shutdown { "yes" } else { "no" }.into()),
            ],
        );
    }
    for hook in &report.hooks {
        trace.record(
            name,
            "hook report",
            &[
                ("hook", hook.name.as_str().into()),
                ("verdict", format!("{:?}", hook.verdict).into()),
            ],
        );
    }
}

/// Probes readiness, liveness and serving on the internal server of `process`, for ever, in every
/// fifth round by `HEAD`. Every fourth round also probes whether the process has started, and every
/// eighth reads the status page. Every eighth reads the metrics, as does the one after a change of
/// the phase or of a check.
///
/// After a change of the phase or of a check the probes are `pause` apart; while nothing changes,
/// the pause grows to two seconds, and after the exit it grows on. Each response is recorded: its
/// status and the hash of its body, or `none` with the failure. `asked_us` is the time of the
/// request, so a response is at most that old.
pub async fn probe<H: HostNetwork>(
    host: H,
    process: String,
    trace: Trace,
    pause: Duration,
    exited: CancellationToken,
) {
    let untraced_client =
        ClientId::new("prober", Trace::new()).with_max_wait(Duration::from_secs(1));
    let reader = untraced_client.clone().with_bodies(true);
    let mut lines = PROBED.map(|names| (names, None));
    let (mut status_page, mut metrics_page) = (None, None);
    let changed = trace.state_changed();
    let (mut round, mut quiet) = (0_u32, 0_u32);
    let route = Route::new(host, process, INTERNAL_PORT);
    loop {
        for ([path, alias], kept) in &mut lines {
            if *path == STARTUP && !round.is_multiple_of(4) {
                continue;
            }
            let asked = world_time(&trace);
            let target = if round.is_multiple_of(3) { *alias } else { *path };
            let is_head = round % 5 == 4;
            let method = if is_head { Method::HEAD } else { Method::GET };
            let ask = RequestSpec { method, ..RequestSpec::get(target) };
            let answer = probe_once(&untraced_client, &route, &ask, kept).await;
            let mut told = vec![("path", (*path).into()), ("asked_us", asked.into())];
            match answer {
                Ok(done) => {
                    told.push(("status", done.status.into()));
                    let body_hash = (!is_head).then_some(done.body_hash);
                    told.extend(body_hash.map(|hash| ("body_hash", hash.into())));
                }
                Err(failure) => told.push(("none", failure.how.name().into())),
            }
            trace.record("prober", "probe", &told);
        }
        if round % STATUS_ROUNDS == STATUS_ROUNDS - 1 {
            let ask = RequestSpec::get("/status");
            let asked = world_time(&trace);
            if probe_once(&reader, &route, &ask, &mut status_page).await.is_ok() {
                let page = status_page.as_mut().map(Http1Client::take_last);
                status_page::record(&trace, asked, &page.unwrap_or_default().body);
            }
        }
        if quiet == 0 || round % STATUS_ROUNDS == STATUS_ROUNDS / 2 {
            let ask = RequestSpec::get("/metrics");
            let asked = world_time(&trace);
            if probe_once(&reader, &route, &ask, &mut metrics_page).await.is_ok() {
                let page = metrics_page.as_mut().map(Http1Client::take_last);
                metrics_page::record(&trace, asked, &page.unwrap_or_default().body);
            }
        }
        round = round.wrapping_add(1);
        let pause = if exited.is_cancelled() {
            PAUSE_MAX.saturating_mul(1 << quiet.min(6))
        } else {
            pause.saturating_mul(1 << (quiet / 3).min(6)).min(PAUSE_MAX.max(pause))
        };
        tokio::select! {
            biased;
            () = changed.notified() => quiet = 0,
            () = client::pause(pause) => quiet = quiet.saturating_add(1),
        }
    }
}

/// Sends one probe on the kept connection. If that was closed meanwhile, sends it on a new one, as
/// every client of a pool does.
async fn probe_once<H: HostNetwork>(
    client_id: &ClientId,
    route: &Route<H>,
    ask: &RequestSpec,
    kept: &mut Option<Http1Client<H::Stream>>,
) -> Result<ResponseSummary, RequestFailure> {
    loop {
        let open = kept.take().and_then(|mut kept| kept.is_open().then_some(kept));
        let is_reused = open.is_some();
        let mut http1_client = match open {
            Some(http1_client) => http1_client,
            None => Http1Client::open(client_id, route).await?,
        };
        match http1_client.exchange(client_id, ask, ExchangePacing::PROMPT).await {
            Err(failure) if is_reused && failure.answer_bytes == 0 => {}
            Ok(done) if done.keeps_alive => {
                *kept = Some(http1_client);
                return Ok(done);
            }
            answer => return answer,
        }
    }
}

/// Longest pause between the probes while nothing changes, and the first one after the exit. A
/// process that has exited does not respond again.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Rounds of probes between two reads of the status page, and between two of the metrics.
const STATUS_ROUNDS: u32 = 8;

/// Path of the startup probe.
const STARTUP: &str = "/startupz";

/// The probed paths, each with an alias.
const PROBED: [[&str; 2]; 4] = [
    ["/readiness", "/readyz"],
    ["/liveness", "/livez"],
    ["/serving", "/serving"],
    [STARTUP, STARTUP],
];

fn world_time(trace: &Trace) -> u64 {
    trace.now().map_or(0, micros)
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
