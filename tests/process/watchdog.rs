//! P7, P13: the bound holds, whatever hangs. The victims are this test binary, started again with a
//! role.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::{
    support::{Service, now, run_to_end, service::Ended, until_holds},
    tls::Files,
};
use lameduck::{
    BackgroundTask, Hook, Host, RunOptions, Settings,
    lifecycle::{Plan, StopReason},
    os::stdio::write_stderr_line,
    runtime::ListenAddress,
};
use rustix::process::{Resource, Rlimit};
use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::signal::unix;

const ROLE: &str = "LAMEDUCK_TEST_ROLE";
const FOR_EVER: Duration = Duration::from_secs(600);

const PLAN: Plan = Plan::new()
    .start(Duration::from_secs(10))
    .lame_duck(Duration::ZERO)
    .drain(Duration::from_millis(500))
    .cancel(Duration::from_millis(500))
    .cleanup(Duration::from_millis(500))
    .internal_close(Duration::from_millis(500));

/// Runs the victim in its own process.
fn run(role: &str) -> Ended {
    run_to_end(&mut command("watchdog::victim", role))
}

fn command(victim: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", victim, "--nocapture"]).env(ROLE, role);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Asserts the bound of the plan and its watchdog, with tolerance for a slow machine.
fn assert_bounded(ended: &Ended) {
    assert!(ended.took < PLAN.worst_case() + Duration::from_secs(5), "{:?}", ended.took);
}

/// Adds background tasks that block both threads of their runtime. The process gets SIGTERM once
/// they do and it serves at `internal`.
fn block_every_thread(
    mut builder: lameduck::Builder,
    internal: ListenAddress,
) -> lameduck::Builder {
    let blocking = Arc::new(AtomicUsize::new(0));
    for n in 0..8 {
        let blocking = blocking.clone();
        let task = BackgroundTask::new(format!("blocking {n}"), move |_| async move {
            blocking.fetch_add(1, SeqCst);
            crate::support::block(FOR_EVER);
            Ok::<(), io::Error>(())
        });
        builder = builder.background_task(task);
    }
    crate::support::aside(move || {
        until_holds("both threads", || blocking.load(SeqCst) == 2);
        until_holds("the start", || serves(&internal));
        terminate();
    });
    builder
}

fn serves(internal: &ListenAddress) -> bool {
    let ListenAddress::Unix(path) = internal else { return false };
    let Ok(mut stream) = UnixStream::connect(path) else { return false };
    let mut response = String::new();
    stream.write_all(b"GET /startupz HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_to_string(&mut response).is_ok()
        && response.starts_with("HTTP/1.0 200 ")
}

/// Returns a stop hook that says that it runs.
fn last_hook() -> Hook {
    Hook::on_stop("last", || async {
        write_stderr_line("the last hook runs");
        Ok::<(), io::Error>(())
    })
}

/// Sends SIGTERM to this process.
fn terminate() {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)
        .unwrap();
}

fn victim_of(role: &str) -> (Vec<Hook>, fn()) {
    let blocking = |name: &'static str| {
        Hook::on_stop(name, || async {
            crate::support::block(FOR_EVER);
            Ok::<(), io::Error>(())
        })
    };
    match role {
        "clean"
        | "tasks_block_every_thread"
        | "a_signal_while_it_is_built"
        | "the_app_listens_for_sigterm" => (Vec::new(), || {}),
        "one_hook_blocks" => (vec![blocking("blocking")], || {}),
        "hooks_block_every_thread" => (vec![blocking("first"), blocking("second")], || {}),
        "blocking_hooks_and_another" => {
            let budget = Duration::from_millis(100);
            let blocking = |name| blocking(name).stop_timeout(budget);
            (vec![last_hook(), blocking("first"), blocking("second"), blocking("third")], || {})
        }
        "the_end_blocks" => (Vec::new(), || crate::support::block(FOR_EVER)),
        "blocking_task" => (
            vec![Hook::on_start("blocking task", || async {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "it is the very thing that must not hold the exit"
                )]
                drop(tokio::task::spawn_blocking(|| crate::support::block(FOR_EVER)));
                Ok::<(), io::Error>(())
            })],
            || {},
        ),
        "the_start_fails_and_the_end_blocks" => (Vec::new(), || crate::support::block(FOR_EVER)),
        "a_hook_complains_at_length" => {
            let complaint = || async {
                Err::<(), _>(io::Error::other("no pool:\r\n  host unknown\n\n  is it 10.0.0.1?\n"))
            };
            (vec![Hook::on_start("pool", complaint)], || {})
        }
        _ => panic!("no role {role}"),
    }
}

/// The process under test. Does nothing without a role; with one it does not return.
#[test]
fn victim() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let path = |name: &str| ListenAddress::Unix(crate::support::scratch_path(name));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    lameduck::run_with(
        RunOptions::new().finish(|report| {
            let reason = match &*role {
                "a_signal_while_it_is_built" | "the_app_listens_for_sigterm" => {
                    let phases: Vec<&str> = report.phases.iter().map(|(at, _)| at.name()).collect();
                    write_stderr_line(&format!("{:?} {}", report.reason, phases.join(" ")));
                    report.reason
                }
                "tasks_block_every_thread" => report.reason,
                "the_start_fails_and_the_end_blocks" => None,
                "a_hook_complains_at_length" => Some(StopReason::StartFailed),
                _ => Some(StopReason::Requested),
            };
            assert_eq!(report.reason, reason);
            victim_of(&role).1();
        }),
        || {
            let internal = path("internal");
            let mut settings = Settings::default()
                .main_address(path("main"))
                .internal_address(internal.clone())
                .plan(PLAN);
            if role == "blocking_hooks_and_another" {
                // Only the hooks' own budgets may expire.
                settings = settings.plan(PLAN.cleanup(Duration::from_secs(5)));
            }
            if role == "the_start_fails_and_the_end_blocks" {
                let taken = ListenAddress::Tcp(taken.local_addr().unwrap());
                settings = settings.main_address(taken);
            }
            let mut builder = Host::builder(settings);
            let stop = builder.shutdown_handle();
            let (hooks, _) = victim_of(&role);
            for hook in hooks {
                builder = builder.hook(hook);
            }
            if role == "tasks_block_every_thread" {
                let builder = block_every_thread(builder, internal).hook(last_hook());
                return Ok(builder.serve(axum::Router::new()));
            }
            if role == "a_signal_while_it_is_built" {
                // To this thread: it has arrived when the call returns. One to the process may wait
                // until the test harness's main thread runs.
                nix::sys::signal::raise(nix::sys::signal::SIGTERM).unwrap();
                return Ok(builder.serve(axum::Router::new()));
            }
            let is_signalled = role == "the_app_listens_for_sigterm";
            let builder =
                builder.background_task(BackgroundTask::new("stopper", move |_| async move {
                    if is_signalled {
                        let mut signals = unix::signal(unix::SignalKind::terminate())?;
                        terminate();
                        signals.recv().await;
                    }
                    stop.stop();
                    Ok::<(), io::Error>(())
                }));
            Ok(builder.serve(axum::Router::new()))
        },
    )
}

#[test]
fn a_process_run_by_lameduck_exits_with_the_code_of_its_report() {
    let ended = run("clean");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_bounded(&ended);
}

#[test]
fn one_hook_that_blocks_its_thread_is_given_up_and_costs_only_the_exit_code() {
    let ended = run("one_hook_blocks");
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_bounded(&ended);
}

#[test]
fn hooks_that_block_every_thread_are_given_up_like_any_other() {
    // Blocked hooks also blocked the driver's timers, which ran on the same threads, and the
    // watchdog ended the process. The hooks must be given up on time (P11).
    let ended = run("hooks_block_every_thread");
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert_bounded(&ended);
}

#[test]
fn the_watchdog_ends_a_finish_closure_that_hangs() {
    let begin = now();
    let ended = run("the_end_blocks");
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(begin.elapsed() >= PLAN.worst_case());
    assert_bounded(&ended);
}

#[test]
fn the_watchdog_ends_a_finish_closure_that_hangs_after_a_failed_start() {
    // P14: the stop arms the watchdog, and a start that fails early had none. With the port in use
    // and a `finish` that hung, the process stayed for ever. It must be bounded, too.
    let begin = now();
    let ended = run("the_start_fails_and_the_end_blocks");
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stderr.contains("in use"), "{ended:?}");
    assert!((4..15).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
}

#[test]
fn an_error_of_several_lines_is_printed_in_one() {
    // P14: the error of a start hook was printed as it was, and log collectors took its second line
    // for another event. It must be one line.
    let ended = run("a_hook_complains_at_length");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let said = "error: start hook pool failed: no pool:; host unknown; is it 10.0.0.1?\n";
    assert!(ended.stderr.ends_with(said) && ended.stderr.lines().count() == 1, "{}", ended.stderr);
}

#[test]
fn a_stuck_blocking_task_does_not_delay_the_exit() {
    let ended = run("blocking_task");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_bounded(&ended);
}

#[test]
fn tasks_that_block_every_thread_of_their_runtime_do_not_delay_the_shutdown() {
    // P7, P13: tasks, hooks and checks of users shared two threads with the driver's timers. Two
    // consumers blocked them, as synchronous clients do, and no deadline of the shutdown expired
    // any more. The watchdog ended the process without a report. Users' code must not delay the
    // deadlines. Later no stop hook ran after them (P11).
    let ended = run("tasks_block_every_thread");
    assert_eq!(
        ended.code,
        Some(3),
        "P13: what blocks its thread cannot be dropped, and is counted: {ended:?}"
    );
    assert!(ended.stderr.contains("the last hook runs"), "{ended:?}");
    assert_bounded(&ended);
}

/// SIGTERM arrived while a service was built, which took seconds. The service began to serve all
/// the same, for the whole lame duck delay (P1).
#[test]
fn a_signal_while_the_host_is_built_ends_the_start() {
    let ended = run("a_signal_while_it_is_built");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "Some(Signal(Terminate)) starting cleaning_up stopped\n";
    assert!(ended.stderr.ends_with(said), "{ended:?}");
}

/// An app listened for SIGTERM, too, and then requested the stop by its handle. The report had the
/// reason `requested`, and `/serving` failed before the balancer knew of the stop (P2b).
#[test]
fn a_sigterm_on_which_the_app_requests_the_stop_is_still_the_reason() {
    let ended = run("the_app_listens_for_sigterm");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("Some(Signal(Terminate)) starting serving"), "{ended:?}");
}

/// Two stop hooks blocked both threads of their runtime, and were given up. No other hook ran after
/// them, and the queue was not flushed (P11).
#[test]
fn hooks_that_block_their_threads_keep_no_other_from_running() {
    let ended = run("blocking_hooks_and_another");
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("the last hook runs"), "{ended:?}");
    assert_bounded(&ended);
}

/// Blocks its thread when it is dropped, as the state of a service that joins a thread.
struct BlocksOnDrop;

impl Drop for BlocksOnDrop {
    fn drop(&mut self) {
        crate::support::block(FOR_EVER);
    }
}

/// A path that cannot be read.
const CERTIFICATE: &str = "LAMEDUCK_TEST_CERTIFICATE";

/// The process under test, whose service holds a [`BlocksOnDrop`].
#[test]
fn victim_whose_app_blocks() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let path = |name: &str| ListenAddress::Unix(crate::support::scratch_path(name));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = ListenAddress::Tcp(taken.local_addr().unwrap());
    let settings = Settings::default()
        .main_address(path("main"))
        .internal_address(path("internal"))
        .plan(PLAN);
    let routes = axum::Router::new().layer(axum::Extension(Arc::new(BlocksOnDrop)));
    let in_use = settings.clone().main_address(taken);
    match &*role {
        "the_port_is_in_use" => lameduck::run(|| Ok(Host::builder(in_use).serve(routes))),
        "a_stop_while_the_certificate_is_read" => lameduck::run(|| {
            nix::sys::signal::raise(nix::sys::signal::SIGTERM)?;
            let pipe = std::env::var_os(CERTIFICATE).unwrap();
            Ok(Host::builder(settings.tls_files(&pipe, &pipe)).serve(routes))
        }),
        "a_start_hook_fails" => lameduck::run(|| {
            let hook = Hook::on_start("pool", || async { Err(io::Error::other("no route")) });
            Ok(Host::builder(settings).hook(hook).serve(routes))
        }),
        "no_descriptor_is_free" => {
            let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
            let none = Rlimit { current: Some(0), maximum };
            rustix::process::setrlimit(Resource::Nofile, none).unwrap();
            lameduck::run(move || Ok(Host::builder(settings).serve(routes)))
        }
        "in_a_runtime" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            drop(runtime.unwrap().block_on(Host::builder(in_use).serve(routes).run()));
        }
        _ => panic!("no role {role}"),
    }
}

fn run_with_app_that_blocks(role: &str) -> Command {
    command("watchdog::victim_whose_app_blocks", role)
}

/// The port of a service was in use, and the state of the service joined a thread when it was
/// dropped. The process stayed for ever, without a line (P7, P14).
#[test]
fn the_watchdog_ends_a_failed_start_whose_app_blocks_as_it_is_dropped() {
    let ended = run_to_end(&mut run_with_app_that_blocks("the_port_is_in_use"));
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stderr.starts_with("error: ") && ended.stderr.contains("in use"), "{ended:?}");
    assert!((4..15).contains(&ended.took.as_secs()), "{ended:?}");
}

/// The system refused the first runtime, so `build` was not called. The state that it held blocked
/// as it was dropped, with the same effect.
#[test]
fn the_watchdog_ends_a_start_without_descriptors_whose_app_blocks_as_it_is_dropped() {
    let ended = run_to_end(&mut run_with_app_that_blocks("no_descriptor_is_free"));
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.stderr.starts_with("error: cannot start the driver's runtime: "), "{ended:?}");
    assert!((4..15).contains(&ended.took.as_secs()), "{ended:?}");
}

/// The same with `Host::run`, which has no watchdog: there was no line (P14).
#[test]
fn host_run_names_the_error_of_a_failed_start_before_the_app_is_dropped() {
    let service = Service::launch(&mut run_with_app_that_blocks("in_a_runtime"));
    service.wait_for_line("in use");
}

/// A certificate was read from a file system that hung, and the operator stopped the service. Its
/// state blocked as it was dropped, and the process stayed for ever (P7).
#[test]
fn the_watchdog_ends_a_stop_before_the_start_whose_app_blocks_as_it_is_dropped() {
    let files = Files::new("pipe-blocks");
    let mut command = run_with_app_that_blocks("a_stop_while_the_certificate_is_read");
    let ended = run_to_end(command.env(CERTIFICATE, files.pipe()));
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(ended.took >= PLAN.worst_case(), "{ended:?}");
    assert_bounded(&ended);
}

/// A start hook failed, and the state of the service blocked as it was dropped. The watchdog ended
/// the process, and no line named the hook (P14).
#[test]
fn a_failed_start_hook_is_named_before_the_app_is_dropped() {
    let ended = run_to_end(&mut run_with_app_that_blocks("a_start_hook_fails"));
    assert_eq!(ended.code, Some(5), "{ended:?}");
    let said = "error: start hook pool failed: no route\n";
    assert!(ended.stderr.starts_with(said), "{ended:?}");
    assert_bounded(&ended);
}
