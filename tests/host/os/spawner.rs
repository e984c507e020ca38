//! Spawners: a thread and a runtime for each task, released without waiting for blocked calls.

use crate::support::os::bounded;
use lameduck::{
    os::{CurrentRuntime, ThreadPerWorker, TokioClock},
    runtime::{Spawner, TaskKind},
};
use std::{
    num::NonZeroUsize,
    sync::{Arc, mpsc},
};

fn threads() -> ThreadPerWorker {
    ThreadPerWorker::new(Arc::new(TokioClock::new()), NonZeroUsize::new(2).unwrap())
}

#[tokio::test]
async fn every_task_kind_has_a_thread_and_a_runtime_of_its_own() {
    let spawner = threads();
    assert_eq!(spawner.workers().get(), 2);
    let (names, named) = mpsc::channel();
    let mut ends = Vec::new();
    for room in [TaskKind::InternalServer, TaskKind::Worker(0), TaskKind::Worker(1)] {
        let names = names.clone();
        let job = Box::pin(async move {
            tokio::task::yield_now().await;
            tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            names.send(std::thread::current().name().map(str::to_owned).unwrap()).unwrap();
        });
        ends.push(spawner.spawn(room, job).unwrap());
    }
    for end in ends {
        bounded(end).await;
    }
    let mut names: Vec<_> = named.try_iter().collect();
    names.sort();
    assert_eq!(names, ["lameduck-internal", "lameduck-worker-0", "lameduck-worker-1"]);
}

#[tokio::test]
async fn a_worker_thread_whose_job_panics_ends_and_the_others_go_on() {
    let spawner = threads();
    bounded(
        spawner
            .spawn(TaskKind::Worker(0), Box::pin(async { panic!("a bug in a worker, on purpose") }))
            .unwrap(),
    )
    .await;
    bounded(spawner.spawn(TaskKind::Worker(1), Box::pin(async {})).unwrap()).await;
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "this is what users do")]
async fn a_stuck_blocking_call_does_not_delay_the_end_of_its_thread() {
    let (release, stuck) = mpsc::channel::<()>();
    let job = Box::pin(async move {
        tokio::task::spawn_blocking(move || stuck.recv());
    });
    bounded(threads().spawn(TaskKind::Worker(0), job).unwrap()).await;
    release.send(()).unwrap();
}

#[tokio::test]
async fn tasks_run_on_the_callers_runtime_and_the_internal_server_does_not() {
    let spawner = CurrentRuntime::new(tokio::runtime::Handle::current());
    assert_eq!(spawner.workers().get(), 1);
    let here = std::thread::current().id();
    let worker = Box::pin(async move { assert_eq!(std::thread::current().id(), here) });
    let (say, said) = mpsc::channel();
    let internal = Box::pin(async move { say.send(std::thread::current().id()).unwrap() });
    bounded(spawner.spawn(TaskKind::Worker(0), worker).unwrap()).await;
    bounded(spawner.spawn(TaskKind::InternalServer, internal).unwrap()).await;
    assert_ne!(said.recv().unwrap(), here);
}
