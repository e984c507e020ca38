//! P11, P13: results that are there when the driver is late, and work that never returns one.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{App, app::Workers, block, builder, settings, until_holds};
use axum::Router;
use lameduck::{
    BackgroundTask, Builder, Hook, Host, Report, TaskContext,
    lifecycle::{Moment, Plan, Signal, StopReason},
    os::{CurrentRuntime, OsNetwork, TokioClock},
    runtime::{BoxFuture, JoinHandle, Runtime, Seed, SignalSource, Spawner, TaskKind},
};
use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

type Done = Result<(), io::Error>;

/// A stop whose waits are all shorter than a second.
const SHORT: Plan = Plan::new()
    .start(Duration::from_secs(10))
    .lame_duck(Duration::ZERO)
    .drain(Duration::from_millis(300))
    .cancel(Duration::from_millis(300))
    .cleanup(Duration::from_millis(300))
    .internal_close(Duration::from_millis(300));

/// Blocks this thread once the current task has ended. The driver has the same thread, and runs
/// again only after that.
fn block_afterwards(span: Duration, begun: Arc<AtomicBool>) {
    #[expect(clippy::disallowed_methods, reason = "what an app does")]
    drop(tokio::spawn(async move {
        begun.store(true, SeqCst);
        block(span);
    }));
}

/// Starts a host whose task fails as the drain begins, and whose driver is then late by `span`.
fn failing_before_a_block(plan: Plan, span: Duration) -> (App, Arc<AtomicBool>) {
    let begun = Arc::new(AtomicBool::new(false));
    let noted = begun.clone();
    let failing = move |context: TaskContext| async move {
        context.draining().await;
        block_afterwards(span, noted);
        Done::Err(io::Error::other("the queue is gone"))
    };
    let host = Host::builder(settings().plan(plan))
        .background_task(BackgroundTask::new("queue", failing))
        .serve(Router::new());
    (App::start_on(host, Workers::OneThread), begun)
}

/// A background task failed in the drain, and the host saw that only after the limit of the drain.
/// The failure counted as an effect of the cancellation, and the exit code was 0.
#[test]
fn a_task_that_failed_before_the_limit_of_the_drain_exits_with_1() {
    let (app, _) = failing_before_a_block(SHORT, Duration::from_millis(500));
    assert_eq!(app.end().code(), 1);
}

/// The same with a Ctrl-C that ended the drain before the host saw the failure.
#[test]
fn a_task_that_failed_before_a_second_signal_exits_with_1() {
    let plan = SHORT.drain(Duration::from_secs(10));
    let (app, begun) = failing_before_a_block(plan, Duration::from_millis(500));
    app.stop();
    until_holds("the block", || begun.load(SeqCst));
    app.signal(Signal::Interrupt);
    assert_eq!(app.report().code(), 1);
}

/// A stop hook returned in its budget, and the host saw that only later. The report said that the
/// hook had exceeded its budget, and the exit code was 4.
#[test]
fn a_stop_hook_that_returned_in_its_budget_is_done() {
    let quick = Hook::on_stop("quick", || async {
        block_afterwards(Duration::from_millis(500), Arc::default());
        Done::Ok(())
    });
    let host = Host::builder(settings().plan(SHORT)).hook(quick).serve(Router::new());
    let report = App::start_on(host, Workers::OneThread).end();
    assert_eq!(report.code(), 0, "{report:?}");
}

/// A task that the abort dropped was counted twice, because its destructor blocked until the exit.
#[test]
fn work_whose_destructor_blocks_is_counted_once() {
    struct BlocksOnDrop;
    impl Drop for BlocksOnDrop {
        fn drop(&mut self) {
            block(Duration::from_secs(3));
        }
    }
    let task = BackgroundTask::new("queue", |_| async {
        let _held = BlocksOnDrop;
        std::future::pending::<Done>().await
    });
    let host = Host::builder(settings().plan(SHORT)).background_task(task).serve(Router::new());
    let report = App::start_on(host, Workers::Threads(1)).end();
    assert_eq!((report.code(), report.work_dropped), (3, 1), "{report:?}");
}

/// The metric of the shutdown's deadline was never in the past, so that no alert could tell by how
/// much a stuck process had missed it.
#[cfg(feature = "metrics")]
#[test]
fn the_deadline_on_the_metrics_page_may_be_in_the_past() {
    let begun = Arc::new(AtomicBool::new(false));
    let noted = begun.clone();
    let stuck = Hook::on_stop("stuck", move || async move {
        noted.store(true, SeqCst);
        block(Duration::from_secs(3));
        Done::Ok(())
    });
    let host = Host::builder(settings().plan(SHORT)).hook(stuck).serve(Router::new());
    let app = App::start_on(host, Workers::OneThread);
    app.stop();
    until_holds("the hook", || begun.load(SeqCst));
    block(SHORT.worst_case() + Duration::from_millis(500));
    let page = app.probe("/metrics").body();
    let name = "lameduck_shutdown_deadline_timestamp_seconds ";
    let deadline: f64 =
        page.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap();
    #[expect(clippy::disallowed_methods, reason = "these tests live in real time")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(deadline < now.as_secs_f64() - 0.1, "{deadline} {now:?}");
    let _ = app.report();
}

/// A spawner that spawns no user's future after this number.
#[derive(Debug)]
struct Refusing(CurrentRuntime, AtomicUsize);

impl Spawner for Refusing {
    fn workers(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn spawn(&self, kind: TaskKind, job: BoxFuture) -> io::Result<JoinHandle> {
        let left = |left: usize| left.checked_sub(1);
        if matches!(kind, TaskKind::User) && self.1.fetch_update(SeqCst, SeqCst, left).is_err() {
            return Err(io::Error::other("no room"));
        }
        self.0.spawn(kind, job)
    }

    fn arm_watchdog(&self, _: Moment) {}
}

#[derive(Debug)]
struct NoSignals;

impl SignalSource for NoSignals {
    async fn recv(&mut self) -> Signal {
        std::future::pending().await
    }
}

/// Runs a host whose spawner refuses users' futures after some. A task that begins stops it.
fn refused_after(count: usize, builder: Builder) -> Report {
    let stop = builder.shutdown_handle();
    let stopping = BackgroundTask::new("stopping", move |_| async move {
        stop.stop();
        Done::Ok(())
    });
    let host = builder.background_task(stopping).serve(Router::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let runtime = tokio::runtime::Handle::current();
        let spawner = Refusing(CurrentRuntime::new(runtime), AtomicUsize::new(count));
        let (clock, network) = (Arc::new(TokioClock::new()), OsNetwork::default());
        host.run_in(Runtime { clock, network, signals: NoSignals, spawner, seed: Seed(7) }).await
    })
}

/// A spawner of the app refused a hook or a task. The start waited for the whole limit of the
/// start, a stop hook for its whole budget, and a missing task was no failure at all.
#[test]
fn a_hook_or_task_that_the_spawner_refuses_has_failed() {
    let hook = || Hook::pair("pool", || async { Done::Ok(()) }, |()| async { Done::Ok(()) });
    for (count, code, reason) in [
        (0, 1, StopReason::StartFailed),
        (1, 1, StopReason::TaskFailed),
        (2, 4, StopReason::Requested),
    ] {
        let report = refused_after(count, builder().hook(hook()));
        assert_eq!((report.code(), report.reason), (code, Some(reason)), "{count}: {report:?}");
        assert!(report.shutdown < Duration::from_secs(1), "{count}: {report:?}");
    }
}
