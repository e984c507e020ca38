//! P10, P13: background tasks of the host, work that outlives its request, and stops that are
//! requested by code.

use crate::support::{App, app::Workers, builder, now, pause, quick_plan, settings, until_holds};
use axum::{Extension, Router, routing::get};
use lameduck::{
    BackgroundTask, Host, RequestContext, Settings, TaskContext,
    lifecycle::{Phase, Signal, StopReason},
    runtime::ListenAddress,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

fn hello() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[test]
fn a_background_task_begins_with_serving_sees_each_phase_and_is_awaited() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = seen.clone();
    let task = move |context: TaskContext| async move {
        let note = |phase: Phase| noted.lock().unwrap().push(phase);
        note(context.phase());
        context.stopping().await;
        note(context.phase());
        context.draining().await;
        note(context.phase());
        // The drain waits for the task and, by P8, for nothing else.
        pause(400).await;
        note(context.phase());
        Ok::<(), io::Error>(())
    };
    let settings = settings().plan(quick_plan().drain(Duration::from_secs(10)));
    let task = BackgroundTask::new("worker", task);
    let app = App::start(Host::builder(settings).background_task(task).serve(hello()));
    until_holds("its begin", || !seen.lock().unwrap().is_empty());
    let report = app.end();
    assert_eq!(
        *seen.lock().unwrap(),
        [Phase::Serving, Phase::LameDuck, Phase::Draining, Phase::Draining]
    );
    assert_eq!(report.code(), 0, "{report:?}");
    let drain = report.phases.iter().find(|(phase, _)| *phase == Phase::Draining).unwrap().1;
    assert!(drain >= Duration::from_millis(400) && drain < Duration::from_secs(5), "{drain:?}");
}

#[test]
fn a_task_sees_its_cancellation_and_is_dropped_if_it_ignores_it() {
    let cancelled = Arc::new(AtomicBool::new(false));
    let noted = cancelled.clone();
    let polite = move |context: TaskContext| async move {
        context.cancelled().await;
        noted.store(true, Relaxed);
        Ok::<(), io::Error>(())
    };
    let deaf = |_: TaskContext| std::future::pending::<Result<(), io::Error>>();
    let app = App::start(
        builder()
            .background_task(BackgroundTask::new("polite", polite))
            .background_task(BackgroundTask::new("deaf", deaf))
            .serve(hello()),
    );
    let asked = now();
    let report = app.end();
    assert!(cancelled.load(Relaxed));
    assert_eq!(
        (report.code(), report.work_dropped),
        (3, 1),
        "P13: what was cut is told, request or not"
    );
    assert!(asked.elapsed() >= Duration::from_millis(1_000), "P10: not before the drain ran out");
    assert!(
        asked.elapsed() < quick_plan().worst_case() + Duration::from_secs(2),
        "P7: {:?}",
        asked.elapsed()
    );
}

#[test]
fn a_task_that_fails_or_panics_while_serving_stops_the_host_with_exit_code_1() {
    let failing = |_: TaskContext| async { Err::<(), _>(io::Error::other("the queue is gone")) };
    let panicking = |_: TaskContext| async {
        assert!(now().elapsed() > Duration::MAX, "the queue is gone");
        Ok::<(), io::Error>(())
    };
    let first = App::spawn(
        builder().background_task(BackgroundTask::new("consumer", failing)).serve(hello()),
        Workers::Task,
    );
    let second = App::spawn(
        builder().background_task(BackgroundTask::new("consumer", panicking)).serve(hello()),
        Workers::Task,
    );
    for app in [first, second] {
        let report = app.report();
        assert_eq!((report.code(), report.reason), (1, Some(StopReason::TaskFailed)));
        let error = format!("{:#}", report.error.unwrap());
        assert!(error.contains("consumer") && error.contains("the queue is gone"), "{error}");
        let phases: Vec<Phase> = report.phases.iter().map(|(phase, _)| *phase).collect();
        assert!(
            phases.contains(&Phase::LameDuck) && phases.contains(&Phase::Draining),
            "a whole stop: {phases:?}"
        );
    }
}

#[test]
fn a_task_may_return_early_and_one_that_fails_in_the_lame_duck_phase_exits_with_1() {
    let early = |_: TaskContext| async { Ok::<(), io::Error>(()) };
    let late = |context: TaskContext| async move {
        context.stopping().await;
        Err::<(), _>(io::Error::other("the queue is gone"))
    };
    let app = App::start(
        builder()
            .background_task(BackgroundTask::new("early", early))
            .background_task(BackgroundTask::new("late", late))
            .serve(hello()),
    );
    assert_eq!(app.get("/").body(), "hello");
    let report = app.end();
    assert_eq!((report.code(), report.reason), (1, Some(StopReason::Requested)), "P13: {report:?}");
}

#[test]
fn spawned_work_outlives_its_handler_or_task_and_the_drain_waits_for_it() {
    let done = Arc::new(AtomicU32::new(0));
    let (of_handler, of_task) = (done.clone(), done.clone());
    let handler = move |Extension(context): Extension<RequestContext>| {
        let done = of_handler.clone();
        async move {
            context.spawn(async move {
                pause(500).await;
                done.fetch_add(1, Relaxed);
            });
            "accepted"
        }
    };
    let task = |context: TaskContext| async move {
        let inner = context.clone();
        context.spawn(async move {
            inner.draining().await;
            pause(300).await;
            of_task.fetch_add(1, Relaxed);
        });
        Ok::<(), io::Error>(())
    };
    let app = App::start(
        builder()
            .background_task(BackgroundTask::new("parent", task))
            .serve(Router::new().route("/", get(handler))),
    );
    assert_eq!(app.get("/").body(), "accepted");
    assert_eq!(app.end().code(), 0);
    assert_eq!(done.load(Relaxed), 2);
}

#[test]
fn spawned_work_that_panics_ends_alone_and_work_that_hangs_is_dropped() {
    let handler = |Extension(context): Extension<RequestContext>| async move {
        context.spawn(async { assert!(now().elapsed() > Duration::MAX, "on purpose") });
        context.spawn(std::future::pending());
        "accepted"
    };
    let app = App::start(builder().serve(Router::new().route("/", get(handler))));
    assert_eq!(app.get("/").body(), "accepted");
    assert_eq!(app.get("/").body(), "accepted");
    let asked = now();
    let report = app.end();
    assert_eq!(
        (report.code(), report.work_dropped),
        (3, 2),
        "P13: what was cut is told, request or not"
    );
    assert!(
        asked.elapsed() < quick_plan().worst_case() + Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
}

#[test]
fn a_shutdown_handle_stops_once_and_a_later_signal_takes_effect() {
    let plan = quick_plan().lame_duck(Duration::from_secs(300));
    let app = App::start(
        Host::builder(settings().plan(plan).grace_period(Duration::ZERO)).serve(hello()),
    );
    app.stop();
    app.stop();
    app.wait_for_phase("lame_duck");
    app.stop();
    assert_eq!(app.get("/").body(), "hello", "asking again does not skip the delay");
    app.signal(Signal::Interrupt);
    let report = app.report();
    assert_eq!((report.code(), report.reason), (0, Some(StopReason::Requested)));
}

// With a capital letter, which RFC 9110 §8.3.1 allows, an event stream was cut at the end of the
// cancel wait: exit code 3.
#[test]
fn an_event_stream_ends_complete_when_the_drain_begins_and_not_before() {
    async fn events() -> axum::response::Response {
        let pieces = futures_util::stream::unfold((), |()| async {
            pause(20).await;
            Some((Ok::<_, io::Error>("data: tick\n\n"), ()))
        });
        let mut response = axum::response::Response::new(axum::body::Body::from_stream(pieces));
        response
            .headers_mut()
            .insert("content-type", http::HeaderValue::from_static("Text/Event-Stream"));
        response
    }
    let plan = quick_plan().lame_duck(Duration::from_millis(500)).drain(Duration::from_secs(10));
    let app = App::start(
        Host::builder(settings().plan(plan)).serve(Router::new().route("/", get(events))),
    );
    let mut client = crate::support::Client::connect(app.main);
    client.send_get("/");
    client.head().unwrap();
    let asked = now();
    app.stop();
    while !client.chunk().unwrap().is_empty() {}
    assert!(
        asked.elapsed() >= Duration::from_millis(500),
        "ended earlier, its client comes back to the same lame duck"
    );
    let report = app.report();
    assert_eq!((report.code(), report.requests.finished), (0, 1), "{report:?}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
}

#[test]
fn a_host_runs_in_the_users_own_runtime_and_leaves_its_sockets_clean() {
    let (main, internal) =
        (crate::support::scratch_path("main"), crate::support::scratch_path("internal"));
    let host = Host::builder(
        Settings::default()
            .main_address(ListenAddress::Unix(main.clone()))
            .internal_address(ListenAddress::Unix(internal.clone()))
            .plan(quick_plan()),
    )
    .serve(hello());
    let stop = host.shutdown_handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let ask = async {
            while tokio::net::UnixStream::connect(&main).await.is_err() {
                pause(5).await;
            }
            stop.stop();
        };
        tokio::join!(host.run(), ask).0
    });
    assert_eq!(report.code(), 0, "{report:?}");
    assert!(!main.exists() && !internal.exists());
}

#[test]
fn a_dropped_host_drops_its_tasks_and_closes_its_listener() {
    let dropped = Arc::new(AtomicBool::new(false));
    struct Tells(Arc<AtomicBool>);
    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let tells = Tells(dropped.clone());
    let main = crate::support::scratch_path("main");
    let host = Host::builder(
        Settings::default()
            .main_address(ListenAddress::Unix(main.clone()))
            .internal_address(ListenAddress::Unix(crate::support::scratch_path("internal"))),
    )
    .background_task(BackgroundTask::new("holder", move |_| async move {
        let _tells = tells;
        std::future::pending::<Result<(), io::Error>>().await
    }))
    .serve(hello());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let connected = async {
            while tokio::net::UnixStream::connect(&main).await.is_err() {
                pause(5).await;
            }
        };
        tokio::select! {
            report = host.run() => panic!("it ended: {report:?}"),
            () = connected => {}
        }
    });
    until_holds("the drop of its task", || dropped.load(Relaxed));
    until_holds("the close of its listener", || {
        std::os::unix::net::UnixStream::connect(&main).is_err()
    });
}

#[test]
fn a_task_that_panics_before_it_returns_a_future_stops_the_host() {
    // The closure ran on the driver, outside of the code that catches panics of users. The host
    // ended without a drain. The panic must stop the host like a failed task (P13).
    let panicking = |context: TaskContext| {
        assert!(context.phase() > Phase::Stopped, "no queue to consume");
        async { Ok::<(), io::Error>(()) }
    };
    let report = App::spawn(
        builder().background_task(BackgroundTask::new("consumer", panicking)).serve(hello()),
        Workers::Task,
    )
    .report();
    assert_eq!((report.code(), report.reason), (1, Some(StopReason::TaskFailed)));
    let error = format!("{:#}", report.error.unwrap());
    assert!(error.contains("consumer") && error.contains("no queue to consume"), "{error}");
}

/// An error whose `Display` panics.
#[derive(Debug)]
struct Unspeakable;

impl std::fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("unspeakable")
    }
}

impl std::error::Error for Unspeakable {}

#[test]
fn an_error_that_panics_when_it_is_formatted_is_still_a_failure() {
    // The error was formatted outside of the code that catches panics. The task was lost, and its
    // failure was not reported. It must count as a failed task (P13).
    let failing = |_: TaskContext| async { Err::<(), _>(Unspeakable) };
    let report = App::spawn(
        builder().background_task(BackgroundTask::new("consumer", failing)).serve(hello()),
        Workers::Task,
    )
    .report();
    assert_eq!((report.code(), report.reason), (1, Some(StopReason::TaskFailed)));

    let hook = lameduck::Hook::on_start("broken", || async { Err::<(), _>(Unspeakable) });
    let begin = now();
    let report = App::spawn(builder().hook(hook).serve(hello()), Workers::Task).report();
    assert_eq!((report.code(), report.reason), (1, Some(StopReason::StartFailed)));
    assert!(
        begin.elapsed() < Duration::from_secs(5),
        "P14: at once, not at the limit of the start"
    );
}

/// Panics when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("dropped, on purpose");
    }
}

// A service lost the e-mails that it sent after its responses, because their task panicked. The
// exit code was 0, the verdict `clean`, and no log line named the panic. Tracked work that panics
// must be counted, named, and exit with 1 (P13).
#[test]
fn tracked_work_that_panics_is_counted_and_named_and_exits_with_1() {
    let handler = |Extension(context): Extension<RequestContext>| async move {
        context.spawn(async { panic!("no mail server") });
        "accepted"
    };
    let task = |context: TaskContext| async move {
        context.clone().spawn(async move {
            context.draining().await;
            panic!("no queue");
        });
        Ok::<(), io::Error>(())
    };
    for workers in [Workers::Task, Workers::Threads(2)] {
        let host = builder()
            .background_task(BackgroundTask::new("queue", task))
            .serve(Router::new().route("/mail", get(handler)));
        let app = App::start_on(host, workers);
        assert_eq!(app.get("/mail?to=x").body(), "accepted");
        let report = app.end();
        assert_eq!(
            (report.code(), report.work_panicked, report.work_dropped),
            (1, 2, 0),
            "{report:?}"
        );
        let error = format!("{:#}", report.error.unwrap());
        assert!(
            error.contains("panicked 2 times") && error.contains("GET /mail: no mail server"),
            "{error}"
        );
    }
}

// The driver could see the end of the drain before the result of the task that ended it, and exited
// with 0. The failure of the last task must set the exit code (P13).
#[test]
fn a_task_that_fails_or_panics_at_the_end_of_the_drain_exits_with_1() {
    for _ in 0..20 {
        let failing = |context: TaskContext| async move {
            context.draining().await;
            Err::<(), _>(io::Error::other("the queue is gone"))
        };
        let panicking = |context: TaskContext| async move {
            context.draining().await;
            assert!(context.phase() < Phase::Draining, "the queue is gone");
            Ok::<(), io::Error>(())
        };
        let plan = quick_plan().lame_duck(Duration::ZERO);
        let first = App::start_on(
            Host::builder(settings().plan(plan))
                .background_task(BackgroundTask::new("queue", failing))
                .serve(hello()),
            Workers::Threads(1),
        );
        let second = App::start_on(
            Host::builder(settings().plan(plan))
                .background_task(BackgroundTask::new("queue", panicking))
                .serve(hello()),
            Workers::Threads(1),
        );
        for (app, panicked) in [(first, 0), (second, 1)] {
            let report = app.end();
            assert_eq!((report.code(), report.work_panicked), (1, panicked), "{report:?}");
            assert!(report.error.as_ref().unwrap().with_causes().contains("queue"), "{report:?}");
        }
    }
}

// After the cancellation an error of a task is no failure. A panic was treated in the same way, and
// the exit code was 0. A panic is always a failure (P13).
#[test]
fn a_task_that_panics_when_it_is_cancelled_exits_with_1() {
    let panicking = |context: TaskContext| async move {
        context.cancelled().await;
        assert!(context.phase() < Phase::Draining, "no flush");
        Ok::<(), io::Error>(())
    };
    let failing = |context: TaskContext| async move {
        context.cancelled().await;
        Err::<(), _>(io::Error::other("cancelled"))
    };
    let host = builder()
        .background_task(BackgroundTask::new("panicking", panicking))
        .background_task(BackgroundTask::new("failing", failing))
        .serve(hello());
    let report = App::start(host).end();
    assert_eq!((report.code(), report.work_panicked, report.work_dropped), (1, 1, 0), "{report:?}");
    assert!(
        report.error.as_ref().unwrap().with_causes().contains("task panicking: no flush"),
        "{report:?}"
    );
}

// The panic of a destructor hid that the work had been dropped: the exit code was 0. Such work must
// be counted both as dropped and as panicked (P13).
#[test]
fn work_that_panics_as_the_abort_drops_it_is_counted_as_dropped_and_as_panicked() {
    let handler = |Extension(context): Extension<RequestContext>| async move {
        context.spawn(async {
            let _held = PanicsOnDrop;
            std::future::pending::<()>().await;
        });
        "accepted"
    };
    let task = |_: TaskContext| async {
        let _held = PanicsOnDrop;
        std::future::pending::<Result<(), io::Error>>().await
    };
    let app = App::start(
        builder()
            .background_task(BackgroundTask::new("queue", task))
            .serve(Router::new().route("/", get(handler))),
    );
    assert_eq!(app.get("/").body(), "accepted");
    let report = app.end();
    assert_eq!((report.code(), report.work_panicked, report.work_dropped), (3, 2, 2), "{report:?}");
}
