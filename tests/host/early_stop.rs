//! P1: a stop that is requested before Serving ends the start.

use crate::support::{App, app::Workers, builder};
use axum::Router;
use lameduck::{
    BackgroundTask, Builder, Hook, Report,
    lifecycle::{Phase, StopReason},
};
use std::{
    io,
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
