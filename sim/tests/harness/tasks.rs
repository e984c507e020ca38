//! S2: no task is left, in every run and on both networks.

use crate::failure_of;
use axum::{Router, routing::get};
use lameduck_sim::{Trial, explore};
use std::{future::pending, time::Duration};

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
