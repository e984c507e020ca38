//! P14: a start that fails is loud, from every entry point, and names the whole chain of causes.
//! The victims are this test binary, started again with a role.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

mod losses;

use crate::support::{
    App, app::Workers, block, builder, quick_plan, run_to_end, scratch_path, service::Ended,
    settings, until,
};
use anyhow::Context;
use axum::{Router, routing::get};
use lameduck::{
    BackgroundTask, Builder, Hook, Host, HostError, Limits, ReadinessCheck, Report, Settings,
    TaskError,
    cli::logging::{self, LogFormat},
    lifecycle::{Plan, Verdict},
    runtime::ListenAddress,
};
use std::{
    io,
    net::TcpListener,
    os::unix::net::UnixListener,
    process::{Command, ExitCode, Stdio, Termination},
    time::Duration,
};

const ROLE: &str = "LAMEDUCK_TEST_ROLE";

fn run(role: &str) -> Ended {
    run_victim("loud::victim", role)
}

/// Runs the victim in its own process.
fn run_victim(victim: &str, role: &str) -> Ended {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", victim, "--nocapture"])
        .env(ROLE, role)
        .env("APP_PORT", "tcp://10.0.0.1:80");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    run_to_end(&mut command)
}

fn exit(code: u8) -> ! {
    #[expect(clippy::disallowed_methods, reason = "the victim ends as a user's main does")]
    std::process::exit(code.into())
}

/// An error of a database that is down, with three layers of context.
fn dead_database() -> anyhow::Result<()> {
    let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "refused by 10.0.0.7:5432");
    Err(refused).context("cannot connect").context("cannot prepare the database")
}

const DEAD_DATABASE: &str = "cannot prepare the database: cannot connect: refused by 10.0.0.7:5432";

/// Runs a host with `Host::run` in a user's runtime, on a port that is in use.
fn port_in_use() -> Report {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string().parse().unwrap();
    let host = Host::builder(
        Settings::default().main_address(address).internal_address("127.0.0.1:0".parse().unwrap()),
    )
    .serve(Router::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(host.run())
}

fn settings_of_env() -> anyhow::Result<Settings> {
    Ok(Settings::from_env()?)
}

/// Runs an entry point whose build closure fails with `error`.
fn never_built(error: anyhow::Error) -> ! {
    fn build(
        error: anyhow::Error,
    ) -> Result<Host<impl lameduck::HttpService>, Box<dyn std::error::Error + Send + Sync>> {
        if now_and_then() { Ok(builder().serve(Router::new())) } else { Err(error.into()) }
    }
    fn now_and_then() -> bool {
        crate::support::now().elapsed() > Duration::from_secs(60)
    }
    lameduck::run(move || build(error))
}

/// A response body whose first chunk is an error.
fn broken_body() -> axum::response::Response {
    let pieces = futures_util::stream::iter([Err::<&str, _>(dead_database().unwrap_err())]);
    axum::response::Response::new(axum::body::Body::from_stream(pieces))
}

/// Serves a body and a handler that fail, and requests each once.
fn serves_errors() -> Report {
    let service = tower::service_fn(|request: http::Request<lameduck::Body>| async move {
        if request.uri().path() == "/body" {
            Ok(broken_body())
        } else {
            dead_database().map(|()| broken_body())
        }
    });
    let app = App::start(builder().serve(service));
    let mut client = crate::support::Client::connect(app.main);
    client.send_get("/body");
    let _ = client.try_answer();
    assert_eq!(app.get("/handler").status, 500);
    app.end()
}

/// The process under test. Does nothing without a role; with one it does not return.
#[test]
fn victim() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let subscriber = || tracing_subscriber::fmt().with_writer(io::stderr);
    match &*role {
        "no_subscriber" => {}
        "subscriber" => subscriber().json().init(),
        "subscriber_that_is_off" => {
            subscriber().with_max_level(tracing::level_filters::LevelFilter::OFF).init();
        }
        "build_would_block" => {
            let error = io::Error::from(rustix::io::Errno::AGAIN);
            never_built(anyhow::Error::from(error).context("cannot take the lock"))
        }
        "bad_setting" => never_built(settings_of_env().unwrap_err()),
        "bad_setting_with_context" => {
            never_built(settings_of_env().context("cannot read the settings").unwrap_err())
        }
        "bad_plan_in_build" => {
            let check = Plan::default().check_grace_period(Duration::from_secs(1));
            never_built(anyhow::Error::from(check.unwrap_err()))
        }
        "state_that_panics" => lameduck::run(|| {
            // A runtime is also in a `reqwest::blocking::Client`.
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            let state = std::sync::Arc::new((Bomb, runtime));
            let routes = Router::new().route("/", get(async || "hello")).with_state(());
            let routes = routes.layer(axum::Extension(state));
            let builder = builder();
            let stop = builder.shutdown_handle();
            let task = move |_| async move {
                stop.stop();
                Ok::<(), io::Error>(())
            };
            Ok(builder.background_task(BackgroundTask::new("stopper", task)).serve(routes))
        }),
        "errors_served" => {
            subscriber().json().init();
            exit(serves_errors().code());
        }
        "dead_database" => never_built(dead_database().unwrap_err()),
        "bad_filter" => {
            let installed = logging::install(LogFormat::Auto, Some("inof"));
            never_built(installed.map(drop).unwrap_err().into())
        }
        _ => panic!("no role {role}"),
    }
    exit(port_in_use().code())
}

#[test]
fn a_failed_run_in_a_users_runtime_prints_the_reason_with_and_without_a_log() {
    // The port was in use. Nothing was printed, with a subscriber or without, and
    // `host.run().await; Ok(())` exited with 0. One line must say why (P14).
    for role in ["no_subscriber", "subscriber_that_is_off"] {
        let ended = run(role);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{role}: {}", ended.stderr);
        assert!(
            ended.stderr.starts_with("error: cannot bind the main address 127.0.0.1:"),
            "{role}: {}",
            ended.stderr
        );
        assert!(ended.stderr.contains("in use"), "{role}: {}", ended.stderr);
    }
    let ended = run("subscriber");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let line: serde_json::Value = serde_json::from_str(ended.stderr.trim_end()).unwrap();
    assert_eq!(
        (&line["level"], &line["fields"]["message"]),
        (&"ERROR".into(), &"the host failed".into()),
        "{line}"
    );
    assert!(line["fields"]["error"].as_str().unwrap().contains("in use"), "{line}");
    assert_eq!(line["fields"]["exit_code"], 1, "{line}");
}

#[test]
fn a_main_may_return_the_report_and_may_not_drop_it() {
    #[expect(
        unused_must_use,
        reason = "a report that is dropped must be warned of, and that is tested here"
    )]
    fn forgets() {
        port_in_use();
    }
    forgets();
    let code = |code: u8| format!("{:?}", ExitCode::from(code));
    assert_eq!(format!("{:?}", port_in_use().report()), code(1), "its exit code");
    let clean = App::start(builder().serve(Router::new())).end();
    assert_eq!(format!("{:?}", clean.report()), code(0));
}

#[test]
fn a_host_names_only_flags_and_variables_that_its_program_has() {
    // An error advised the user of a service without flags to lower `--lame-duck`. An error may
    // name only what the program has.
    let alien =
        |error: &str| error.contains("--") || error.contains("APP_") || error.contains("SHUTDOWN_");
    let in_use = port_in_use().error.unwrap().with_causes().to_owned();
    assert!(!alien(&in_use), "{in_use}");
    let told = |builder: Builder| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let report = runtime.block_on(builder.serve(Router::new()).run());
        assert_eq!(report.verdict, Verdict::BadPlan, "{report:?}");
        report.error.unwrap().with_causes().to_owned()
    };
    let plan =
        told(Host::builder(settings().plan(Plan::default()).grace_period(Duration::from_secs(3))));
    assert!(plan.contains("lower lame_duck, drain") && !alien(&plan), "{plan}");
    let long = || {
        Hook::on_stop("long", || async { Ok::<(), io::Error>(()) })
            .stop_timeout(Duration::from_secs(60))
    };
    let hooks = told(builder().hook(long()));
    assert!(hooks.contains("raise cleanup") && !alien(&hooks), "{hooks}");
    let least = told(Host::builder(settings().limits(Limits::default().headers_max(0))));
    assert_eq!(least, "limits.headers_max=0: must be at least 1");
    // A host that reads its environment names variables, and no flag.
    let from_env = Settings::default().with_env().unwrap();
    let plan = told(Host::builder(from_env.grace_period(Duration::from_secs(3))));
    assert!(plan.contains("SHUTDOWN_LAME_DUCK") && !plan.contains("--"), "{plan}");
    let slow = Hook::on_start("slow", std::future::pending::<Result<(), io::Error>>);
    let late = quick_plan().start(Duration::from_millis(50));
    let late = App::spawn(
        Host::builder(settings().plan(late)).hook(slow).serve(Router::new()),
        Workers::Task,
    )
    .report();
    assert_eq!(
        late.error.as_ref().map(HostError::with_causes),
        Some("the start took longer than its limit plan.start=50ms")
    );
}

/// An operator whose internal socket was replaced during the start got an error with the address,
/// and had to guess the variable that sets it.
#[test]
fn an_internal_address_that_does_not_listen_is_named_with_its_variable() {
    let path = scratch_path("internal.sock");
    let rival = path.clone();
    let settings = settings().with_env().unwrap();
    let host = Host::builder(settings.internal_address(ListenAddress::Unix(path.clone())))
        .on_bound(move |_| {
            std::fs::remove_file(&rival).unwrap();
            drop(UnixListener::bind(&rival).unwrap());
        })
        .serve(Router::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(host.run());
    std::fs::remove_file(path).unwrap();
    let error = report.error.unwrap().with_causes().to_owned();
    let told = error.contains("listen on the internal address") && error.contains("INTERNAL_ADDR");
    assert!(told, "{error}");
}

#[test]
fn default_limits_fit_the_descriptor_limit() {
    // `Limits::default()` promised the descriptor limit less a reserve, and gave 10,000. Under the
    // usual limit of 1,024, a host with one changed limit did not start. The default must fit the
    // descriptor limit.
    assert_eq!(Limits::default(), Settings::default().limits);
    assert_eq!(Limits::default().connections_max, lameduck::os::connections_max());
    let script =
        "ulimit -n 1024; exec \"$0\" --exact loud::starts_with_limits_of_its_own --nocapture";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(std::env::current_exe().unwrap()).env(ROLE, "limits");
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let ended = run_to_end(&mut shell);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// A host in a user's runtime that stops at once.
#[test]
fn starts_with_limits_of_its_own() {
    let limits = Limits::default().headers_max(55);
    let builder = Host::builder(settings().limits(limits));
    let stop = builder.shutdown_handle();
    let task = move |_| async move {
        stop.stop();
        Ok::<(), io::Error>(())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(
        builder.background_task(BackgroundTask::new("stopper", task)).serve(Router::new()).run(),
    );
    assert_eq!((report.code(), report.error.as_ref().map(HostError::with_causes)), (0, None));
}

#[test]
fn a_build_error_is_printed_with_its_causes_and_a_nested_bad_setting_exits_with_2() {
    // A `SettingsError` with a context exited with 1. Of an error with causes only the outermost
    // sentence was printed. The exit code must be 2, and every cause printed (P14).
    for (role, code, told) in [
        ("bad_setting", 2, "error: APP_PORT=tcp://10.0.0.1:80: expected a port"),
        (
            "bad_setting_with_context",
            2,
            "error: cannot read the settings: APP_PORT=tcp://10.0.0.1:80: expected a port",
        ),
        ("bad_plan_in_build", 2, "error: worst-case shutdown 24s exceeds the grace period 1s"),
        ("dead_database", 1, &format!("error: {DEAD_DATABASE}")),
        // An app installed its log in `build`, and its bad filter exited with 1.
        ("bad_filter", 2, "error: --log-level=inof: expected off, error"),
    ] {
        let ended = run(role);
        assert_eq!(ended.code, Some(code), "{role}: {ended:?}");
        assert!(
            ended.stderr.starts_with(told) && ended.stderr.lines().count() == 1,
            "{role}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_hook_a_check_and_a_task_are_reported_with_the_causes_of_their_errors() {
    // Each error was reported by its outermost sentence: "cannot prepare the database", without the
    // reason. Every cause must be reported (P14).
    let start = Hook::on_start("pool", || async { dead_database() });
    let report = App::spawn(builder().hook(start).serve(Router::new()), Workers::Task).report();
    assert_eq!(
        report.error.as_ref().map(HostError::with_causes),
        Some(&*format!("start hook pool failed: {DEAD_DATABASE}"))
    );
    assert_eq!(report.hooks[0].error.as_ref().map(TaskError::with_causes), Some(DEAD_DATABASE));

    let stop = Hook::on_stop("pool", || async { dead_database() });
    let check = ReadinessCheck::new("database", || async { dead_database() });
    let app = App::start(builder().hook(stop).readiness_check(check).serve(Router::new()));
    until("the check", || app.probe("/readiness").body().contains(DEAD_DATABASE).then_some(()));
    let report = app.end();
    assert_eq!(
        (report.code(), report.hooks.last().unwrap().error.as_ref().map(TaskError::with_causes)),
        (4, Some(DEAD_DATABASE))
    );

    let task = |_| async { dead_database() };
    let report = App::spawn(
        builder().background_task(BackgroundTask::new("consumer", task)).serve(Router::new()),
        Workers::Task,
    )
    .report();
    let told = format!("background task consumer failed: {DEAD_DATABASE}");
    assert_eq!(
        (report.code(), report.error.as_ref().map(HostError::with_causes)),
        (1, Some(&*told))
    );

    // A start hook that reads settings finds a bad one. No service ran, and the exit code must be 2
    // (P13).
    let bad = || async {
        Settings::default()
            .resolve(|_| Vec::new(), |_| Some("x".into()))
            .map(drop)
            .context("settings")
    };
    let app = App::spawn(
        builder().hook(Hook::on_start("settings", bad)).serve(Router::new()),
        Workers::Task,
    );
    let report = app.report();
    assert_eq!((report.code(), report.verdict), (2, Verdict::BadPlan), "{report:?}");
}

#[test]
fn a_body_and_a_handler_are_logged_with_the_causes_of_their_errors() {
    let ended = run("errors_served");
    for event in ["response body failed", "handler failed"] {
        let line = ended
            .stderr
            .lines()
            .find(|line| line.contains(event))
            .unwrap_or_else(|| panic!("{event}: {ended:?}"));
        assert!(line.contains(DEAD_DATABASE), "{line}");
    }
}

#[test]
fn one_stop_signal_during_a_slow_start_is_no_further_stop_request() {
    // One SIGTERM during a start hook was logged as `further stop request`. Only a second one may
    // be.
    let run = |signals: usize| {
        let mut victim = Command::new(std::env::current_exe().unwrap());
        victim
            .args(["--exact", "loud::stopped_in_its_start", "--nocapture"])
            .env(ROLE, signals.to_string());
        victim.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        run_to_end(&mut victim).stderr
    };
    assert_eq!(run(1).matches("further stop request").count(), 0);
    assert_eq!(run(2).matches("further stop request").count(), 1);
}

/// A host that is stopped while its start hook waits. The role is the number of signals.
#[test]
fn stopped_in_its_start() {
    use lameduck::lifecycle::Signal::Terminate;
    let Ok(signals) = std::env::var(ROLE).map(|role| role.parse::<usize>().unwrap_or(0)) else {
        return;
    };
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    let slow = Hook::on_start("slow", std::future::pending::<Result<(), io::Error>>);
    // The second signal arrives while a stop hook runs.
    let (let_go, held) = tokio::sync::oneshot::channel::<()>();
    let stop = Hook::on_stop("stop", || async {
        let _ = held.await;
        Ok::<(), io::Error>(())
    });
    let router = Router::new().route("/", get(|| async { "hello" }));
    let app = App::spawn(builder().hook(stop).hook(slow).serve(router), Workers::Task);
    until("the internal server", || crate::support::Client::try_connect(app.internal).ok());
    until("the hook", || (app.status()["hook"]["name"] == "slow").then_some(()));
    app.signal(Terminate);
    until("the stop hook", || (app.status()["hook"]["stage"] == "stop").then_some(()));
    for _ in 1..signals {
        app.signal(Terminate);
        block(Duration::from_millis(300));
    }
    drop(let_go);
    assert_eq!(app.report().code(), 0);
}

/// Panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a destructor, on purpose");
    }
}

// The state of a service panicked where the host dropped it. The report was lost, and the exit code
// was 101 (P13). It was a runtime, which panics only if it is dropped in async code.
#[test]
fn a_service_that_panics_when_it_is_dropped_does_not_change_the_exit_code() {
    let ended = run("state_that_panics");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("a destructor, on purpose"), "{ended:?}");
    assert!(!ended.stderr.contains("Cannot drop a runtime"), "{ended:?}");
}

/// The lock of an app was held, so its build closure failed with EAGAIN. The error line added that
/// no more threads were allowed, and the operator raised the wrong limit.
#[test]
fn an_error_of_the_app_that_would_block_is_no_limit_of_threads() {
    let ended = run("build_would_block");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.starts_with("error: cannot take the lock: "), "{}", ended.stderr);
    assert!(!ended.stderr.contains("threads"), "{}", ended.stderr);
}
