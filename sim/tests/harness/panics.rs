//! A panic is reported with its message, its place and what panicked.

use crate::failure_of;
use axum::{Router, routing::get};
use lameduck::RequestContext;
use lameduck_sim::explore;

// A panic in a handler was reported as `handlers that panicked: 1`. The simulation installs its own
// panic hook and subscriber, so nothing else said which handler, where and why.
#[test]
fn a_panic_in_a_handler_is_reported_with_its_message_its_path_and_its_place() {
    let router = || {
        Router::new().route(
            "/orders",
            get(|| async { "seven".parse::<u64>().expect("an order has a number").to_string() }),
        )
    };
    let failed =
        explore(move |world| world.host().serve(router())).get("/orders").seeds(0..25).run();
    let failure = failure_of(failed);
    assert_eq!(failure.broken.promise, "S3", "{failure}");
    let why = &failure.broken.why;
    assert!(why.starts_with("the handler of GET /orders panicked at "), "{why}");
    assert!(why.contains("tests/harness/panics.rs:"), "{why}");
    assert!(why.contains(": an order has a number: ParseIntError"), "{why}");
}

#[test]
fn tracked_work_that_panics_every_time_is_reported_with_the_request_that_spawned_it() {
    let order = |context: axum::Extension<RequestContext>| async move {
        context.spawn(async { panic!("the disk is full") });
    };
    let router = move || Router::new().route("/orders", get(order));
    let failure = failure_of(
        explore(move |world| world.host().serve(router())).get("/orders").seeds(0..25).run(),
    );
    assert_eq!(failure.broken.promise, "S3", "{failure}");
    let why = &failure.broken.why;
    assert!(why.contains("tracked work of GET /orders panicked at "), "{why}");
    assert!(why.contains("panics.rs:") && why.contains("the disk is full"), "{why}");
}

// Real sockets do not exist in the simulation. tokio's "IO is disabled" does not say so.
#[test]
fn a_real_socket_is_named_and_explained() {
    let router = || {
        Router::new().route(
            "/",
            get(|| async {
                tokio::net::TcpStream::connect("127.0.0.1:1").await.is_ok().to_string()
            }),
        )
    };
    let failure =
        failure_of(explore(move |world| world.host().serve(router())).get("/").seeds(0..5).run());
    assert!(failure.broken.why.contains("the simulation has no real sockets"), "{failure}");
}
