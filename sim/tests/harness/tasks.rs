//! S2: no task is left, in every run and on both networks.

use crate::failure_of;
use axum::{Router, routing::get};
use lameduck_sim::{ServerConnection, TestWorld, Trial, explore};
use std::{future::pending, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[expect(clippy::disallowed_methods, reason = "this is the flaw")]
fn detached() -> Router {
    Router::new().route(
        "/",
        get(|| async {
            drop(tokio::spawn(pending::<()>()));
        }),
    )
}

// S2 was looked at in one seed of five, on the network that counts tasks for each host.
// `.seeds(1..5)` never looked at it, and passed.
#[test]
fn a_detached_task_is_found_in_every_seed() {
    for seed in 1..7 {
        let failed =
            explore(|world| world.host().serve(detached())).get("/").seeds(seed..seed + 1).run();
        assert_eq!(failure_of(failed).broken.promise, "S2", "seed {seed}");
    }
}

/// Begins the maintenance task that a pool of connections has.
#[expect(clippy::disallowed_methods, reason = "as the pool does")]
fn pool() {
    drop(tokio::spawn(async {
        loop {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
    }));
}

// A pool's maintenance task counted as left behind, and no service with such a pool could pass.
#[test]
fn the_maintenance_task_of_a_pool_can_be_excepted_and_no_other() {
    let start = || {
        lameduck::Hook::on_start("pool", || async {
            pool();
            Ok::<_, std::io::Error>(())
        })
    };
    let router = || Router::new().route("/", get(|| async { "tea" }));
    let counted =
        explore(move |world| world.host().hook(start()).serve(router())).get("/").seeds(0..2).run();
    assert_eq!(failure_of(counted).broken.promise, "S2");
    explore(move |world| {
        Trial::of(world.host().hook(start()).serve(router())).except_tasks(1, "the pool's reaper")
    })
    .get("/")
    .seeds(0..25)
    .run()
    .unwrap();
    // Another task is still found.
    let two = explore(move |world| {
        Trial::of(world.host().hook(start()).serve(detached())).except_tasks(1, "the pool's reaper")
    });
    let failure = failure_of(two.get("/").seeds(0..25).run());
    assert!(failure.broken.why.contains("more than excepted"), "{failure}");
    // A task that the setup spawns was there before the service.
    explore(move |world| {
        pool();
        world.host().serve(router())
    })
    .get("/")
    .seeds(0..6)
    .run()
    .unwrap();
}

/// A downstream that serves each connection in two tasks.
#[expect(clippy::disallowed_methods, reason = "as a test of a user does")]
async fn clock(connection: ServerConnection) {
    let (mut read, mut write) = tokio::io::split(connection);
    drop(tokio::spawn(async move { drop(read.read_u8().await) }));
    drop(tokio::spawn(async move {
        let _ = write.write_all(b"tea time").await;
        pending::<()>().await;
    }));
}

// The tasks of a downstream counted as those of the service, if both were on one runtime.
#[test]
fn tasks_of_a_downstream_are_none_of_the_service() {
    let trials = |leaves: bool| {
        explore(move |world: TestWorld| {
            let clock = world.tcp_downstream("clock", clock);
            let time = move || async move {
                if let Ok(mut clock) = clock.connect().await {
                    drop(clock.read_u8().await);
                }
            };
            let router = if leaves { detached() } else { Router::new() };
            world.host().serve(router.route("/time", get(time)))
        })
        .get("/time")
        .seeds(0..25)
    };
    trials(false).run().unwrap();
    assert_eq!(failure_of(trials(true).get("/").run()).broken.promise, "S2");
}

/// A downstream that spawns a task for each connection. The task closes it and ends at once.
#[expect(clippy::disallowed_methods, reason = "as a test of a user does")]
async fn closer(connection: ServerConnection) {
    drop(tokio::spawn(async move { drop(connection) }));
}

// A service that left a task with each request passed: the tasks of its downstream had ended, and
// were still subtracted from those that were alive.
#[test]
fn tasks_of_a_downstream_that_have_ended_hide_none_of_the_service() {
    #[expect(clippy::disallowed_methods, reason = "this is the flaw")]
    fn detach() {
        drop(tokio::spawn(pending::<()>()));
    }
    let trials = |leaves: bool| {
        explore(move |world: TestWorld| {
            let closer = world.tcp_downstream("closer", closer);
            let connect = move || async move {
                drop(closer.connect().await);
                if leaves {
                    detach();
                }
            };
            world.host().serve(Router::new().route("/", get(connect)))
        })
        .get("/")
        .seeds(1..5)
    };
    trials(false).run().unwrap();
    assert_eq!(failure_of(trials(true).run()).broken.promise, "S2");
}
