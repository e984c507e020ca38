//! Assertions of the user's own.

use crate::failure_of;
use axum::{Router, routing::get};
use lameduck::{RequestContext, lifecycle::Phase};
use lameduck_sim::{TestWorld, always, explore, sometimes};

async fn order(context: axum::Extension<RequestContext>) {
    always!(context.phase() < Phase::Draining, "orders come before the drain");
}

#[test]
fn an_assertion_that_does_not_hold_is_named_with_its_place() {
    let router = || Router::new().route("/", get(order));
    let run = explore(move |world: TestWorld| world.host().serve(router())).get("/").seeds(0..200);
    let failure = failure_of(run.run());
    assert_eq!(failure.broken.promise, "S7", "{failure}");
    assert!(failure.broken.why.contains("always: orders come before the drain"), "{failure}");
    assert!(failure.broken.why.contains("assertions.rs:"), "{failure}");
}

#[test]
fn a_state_that_no_run_reaches_fails_the_run() {
    async fn handler(context: axum::Extension<RequestContext>) {
        sometimes!(context.phase() == Phase::LameDuck, "a request in the lame duck delay");
        sometimes!(context.phase() == Phase::Starting, "a request in the start");
    }
    let run = || {
        let router = || Router::new().route("/", get(handler));
        explore(move |world: TestWorld| world.host().serve(router())).get("/").seeds(0..20)
    };
    let failure = failure_of(run().run());
    assert!(failure.broken.why.contains("\"a request in the start\" was not reached"), "{failure}");
    let named = failure_of(run().sometimes("a request at night").run());
    assert!(named.broken.why.contains("\"a request at night\""), "{named}");
}

// An `always!` that nothing reached held, and one on a thread of `spawn_blocking` always did.
#[test]
fn an_always_that_is_named_must_be_reached_and_one_in_blocking_work_is_seen() {
    #[expect(clippy::disallowed_methods, reason = "as users' handlers do")]
    async fn blocking() {
        let hashed = tokio::task::spawn_blocking(|| {
            sometimes!("blocking work ran");
            always!(std::hint::black_box(1) > 2, "one is more than two");
        });
        hashed.await.expect("it does not panic");
    }
    async fn handler() {
        always!(std::hint::black_box(1) > 0, "one is positive");
    }
    let run = || {
        let router = || Router::new().route("/", get(handler)).route("/blocking", get(blocking));
        explore(move |world: TestWorld| world.host().serve(router())).get("/").seeds(0..6)
    };
    run().sometimes("one is positive").run().unwrap();
    let named = failure_of(run().sometimes("one is more than two").run());
    assert!(named.broken.why.contains("\"one is more than two\" was not reached"), "{named}");
    let failure = failure_of(run().get("/blocking").sometimes("blocking work ran").run());
    assert_eq!(failure.broken.promise, "S7", "{failure}");
    assert!(failure.broken.why.starts_with("always: one is more than two does not"), "{failure}");
}
