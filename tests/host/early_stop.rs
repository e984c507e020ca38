//! P1: a stop that is requested before Serving ends the start.

use crate::support::{App, app::Workers, builder};
use axum::Router;
use lameduck::{
    BackgroundTask, Builder, Hook, Report,
    lifecycle::{Moment, Phase, Signal, StopReason},
    os::{CurrentRuntime, OsNetwork, TokioClock},
    runtime::{BoxFuture, JoinHandle, Runtime, Seed, SignalSource, Spawner, TaskKind},
};
use std::{
    future::pending,
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

/// Runs the host to its end. Returns the report, and whether a background task began.
fn run(builder: Builder) -> (Report, bool) {
    let began = Arc::new(AtomicBool::new(false));
    let noted = began.clone();
    let task = BackgroundTask::new("consumer", move |_| async move {
        noted.store(true, Relaxed);
        Ok::<(), io::Error>(())
    });
    let host = builder.background_task(task).serve(Router::new());
    let report = App::spawn(host, Workers::OneThread).report();
    (report, began.load(Relaxed))
}

#[track_caller]
fn assert_ended_the_start((report, began): &(Report, bool)) {
    let phases: Vec<Phase> = report.phases.iter().map(|(phase, _)| *phase).collect();
    assert_eq!(phases, [Phase::Starting, Phase::CleaningUp, Phase::Stopped]);
    assert!(!began, "the background task began");
    assert_eq!((report.code(), report.reason), (0, Some(StopReason::Requested)));
}

/// The app requested the stop before the host ran. The host began to serve all the same, and the
/// operator waited for the whole lame duck delay.
#[test]
fn a_stop_before_the_run_ends_the_start() {
    let builder = builder();
    builder.shutdown_handle().stop();
    assert_ended_the_start(&run(builder));
}

/// The app requested the stop in `on_bound`, with the same effect.
#[test]
fn a_stop_in_on_bound_ends_the_start() {
    let builder = builder();
    let stop = builder.shutdown_handle();
    assert_ended_the_start(&run(builder.on_bound(move |_| stop.stop())));
}

/// A start hook requested the stop and returned at once, with the same effect.
#[test]
fn a_stop_in_the_last_start_hook_ends_the_start() {
    let builder = builder();
    let stop = builder.shutdown_handle();
    let hook = Hook::on_start("stopping", move || async move {
        stop.stop();
        Ok::<(), io::Error>(())
    });
    assert_ended_the_start(&run(builder.hook(hook)));
}

/// A SIGTERM that arrived before the run, or no signal.
#[derive(Debug)]
pub(crate) struct Terminated(pub(crate) bool);

impl SignalSource for Terminated {
    async fn recv(&mut self) -> Signal {
        if std::mem::replace(&mut self.0, false) { Signal::Terminate } else { pending().await }
    }
}

/// A system that refuses the thread of the internal server.
#[derive(Debug)]
pub(crate) struct OutOfThreads(pub(crate) CurrentRuntime);

impl Spawner for OutOfThreads {
    fn workers(&self) -> NonZeroUsize {
        NonZeroUsize::MIN
    }

    fn spawn(&self, kind: TaskKind, job: BoxFuture) -> io::Result<JoinHandle> {
        match kind {
            TaskKind::InternalServer => Err(io::Error::other("no thread is left")),
            TaskKind::Worker(_) | TaskKind::User => self.0.spawn(kind, job),
        }
    }

    fn arm_watchdog(&self, _: Moment) {}
}

/// An operator who stopped a process before its start, on a system without a thread for the
/// internal server, got the exit code 0 with a line `error: cannot start the internal server`.
#[test]
fn a_stop_before_the_start_does_not_fail_for_lack_of_an_internal_server() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let report = runtime.block_on(async {
        let spawner = OutOfThreads(CurrentRuntime::new(tokio::runtime::Handle::current()));
        let (clock, network) = (Arc::new(TokioClock::new()), OsNetwork::default());
        let signals = Terminated(true);
        let host = builder().serve(Router::new());
        host.run_in(Runtime { clock, network, signals, spawner, seed: Seed(7) }).await
    });
    assert_eq!(report.reason, Some(StopReason::Signal(Signal::Terminate)));
    assert_eq!((report.code(), report.error.map(|error| error.to_string())), (0, None));
}
