//! Tests of the harness: services that survive a shutdown, and services that do not. Each flaw must
//! be found and described.

mod advice;
mod deploy_proof;
mod deploys;
mod doctor;
mod downstreams;
mod errors;
mod grpc;
mod panics;
mod proof;
mod replay;
mod requests;
mod responses;
mod servers;
mod tasks;
mod tutorial;
mod well_behaved;

use axum::{
    Router,
    extract::State,
    routing::{get, post},
};
use lameduck::{Hook, RequestContext, RouteTimeout};
use lameduck_sim::{
    explore,
    harness::{Failure, TestWorld, Trial},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

const SEEDS: std::ops::Range<u64> = 0..25;

/// Number of orders that a store has on its disk.
#[derive(Clone, Debug, Default)]
struct Store(Arc<AtomicUsize>);

impl Store {
    /// Stores an order, which takes 300 ms.
    #[expect(
        clippy::disallowed_methods,
        reason = "a service that sleeps sleeps by the world's time"
    )]
    async fn keep(&self) {
        tokio::time::sleep(Duration::from_millis(300)).await;
        self.0.fetch_add(1, Relaxed);
    }

    fn kept(&self) -> usize {
        self.0.load(Relaxed)
    }
}

fn orders<H, T>(order: H) -> Router<Store>
where
    H: axum::handler::Handler<T, Store>,
    T: 'static,
{
    Router::new().route("/orders", post(order)).route("/hello", get(|| async { "hello" }))
}

/// Builds a service whose acknowledged orders must all be stored at the exit.
fn trial<H, T>(order: H) -> impl Fn(TestWorld) -> Trial<lameduck::TowerService<Router>>
where
    H: axum::handler::Handler<T, Store> + Sync,
    T: 'static,
{
    move |world| {
        let store = Store::default();
        let router = orders(order.clone()).with_state(store.clone());
        Trial::of(world.host().serve(router)).at_exit(move |told| {
            let (acknowledged, kept) = (told.succeeded("/orders"), store.kept());
            if acknowledged <= kept {
                Ok(())
            } else {
                Err(format!("{acknowledged} orders acknowledged, {kept} kept"))
            }
        })
    }
}

#[test]
fn a_service_that_finishes_what_it_acknowledges_survives() {
    let closed = Hook::on_stop("pool", || async { Ok::<_, io::Error>(()) });
    drop(closed);
    let survived = explore(trial(async |State(store): State<Store>| store.keep().await))
        .post("/orders", "tea")
        .get("/hello");
    assert_eq!(survived.seeds(SEEDS).run().unwrap().scenarios, 25);
}

// Each would be in the catalog of each user, whose runs cannot reach it.
#[test]
fn the_crates_of_this_repository_contain_no_assertion_of_users() {
    assert_eq!(lameduck::assertions::all().count(), 0);
}

#[test]
fn work_that_is_tracked_is_waited_for() {
    let order = async |State(store): State<Store>, context: axum::Extension<RequestContext>| {
        // The response does not wait for this work, but the drain does.
        context.spawn(async move { store.keep().await });
    };
    explore(move |world| {
        let store = Store::default();
        world.host().serve(orders(order).with_state(store))
    })
    .post("/orders", "tea")
    .seeds(SEEDS)
    .run()
    .unwrap();
}

fn failure_of<T>(run: Result<T, Failure>) -> Failure {
    run.err().expect("it is flawed, and was found sound")
}

#[test]
fn detached_work_is_found_and_the_order_that_it_loses() {
    #[expect(clippy::disallowed_methods, reason = "this is the flaw")]
    async fn order(State(store): State<Store>) {
        drop(tokio::spawn(async move { store.keep().await }));
    }
    let lost = failure_of(explore(trial(order)).post("/orders", "tea").seeds(SEEDS).run());
    assert!(matches!(lost.broken.promise, "S2" | "S4"), "{lost}");
    let replay = serde_json::to_string(&lost.scenario).unwrap();
    assert!(lost.to_string().contains(&format!(".replay(r#\"{replay}\"#)")), "{lost}");
    let again = failure_of(explore(trial(order)).replay(replay).run());
    assert_eq!(again.broken, lost.broken, "what is printed shows it again");
    assert!(lost.scenario.clients.len() == 1, "shrunk: {lost}");

    let left = explore(|world| world.host().serve(orders(order).with_state(Store::default())))
        .post("/orders", "tea")
        .seeds(SEEDS);
    assert_eq!(
        failure_of(left.run()).broken.promise,
        "S2",
        "without a look at its state, the task itself is seen"
    );
}

#[test]
fn a_handler_that_outlasts_the_drain_and_heeds_nothing_is_found() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a service that sleeps sleeps by the world's time"
    )]
    async fn report() -> &'static str {
        tokio::time::sleep(Duration::from_secs(20)).await;
        "done"
    }
    let router = || Router::new().route("/report", get(report)).layer(RouteTimeout::none());
    let cut = failure_of(
        explore(move |world| world.host().serve(router())).get("/report").seeds(SEEDS).run(),
    );
    assert_eq!(cut.broken.promise, "S1", "{cut}");
    assert!(cut.broken.why.contains("GET /report"), "{cut}");
}

#[test]
fn a_handler_that_heeds_its_cancellation_survives() {
    #[expect(
        clippy::disallowed_methods,
        reason = "a service that sleeps sleeps by the world's time"
    )]
    async fn report(context: axum::Extension<RequestContext>) -> &'static str {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(20)) => "done",
            () = context.cancelled() => "ask somebody else",
        }
    }
    let router = || Router::new().route("/report", get(report)).layer(RouteTimeout::none());
    explore(move |world| world.host().serve(router())).get("/report").seeds(SEEDS).run().unwrap();
}

#[test]
fn a_pool_that_does_not_close_is_found() {
    let failing = || {
        Hook::on_stop("pool", || async { Err(io::Error::other("connections are still in use")) })
    };
    let found = explore(move |world| world.host().hook(failing()).serve(Router::new()))
        .get("/")
        .seeds(SEEDS)
        .run();
    let flaw = failure_of(found);
    assert_eq!(flaw.broken.promise, "S3", "{flaw}");
    assert!(flaw.to_string().contains("connections are still in use"), "{flaw}");
}
