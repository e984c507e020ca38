//! A run that proves nothing fails, and says why.

use crate::failure_of;
use axum::{Json, Router, http::StatusCode, routing::get, routing::post};
use lameduck_sim::{Request, explore};

// 277 JSON posts without a content type, all 415: "survived". A mistyped path, all 404: "survived".
#[test]
fn a_request_that_never_succeeds_fails_the_run() {
    let router = || Router::new().route("/orders", post(|Json(_): Json<u64>| async {}));
    let untyped =
        explore(move |world| world.host().serve(router())).post("/orders", "7").seeds(0..25);
    let failure = failure_of(untyped.run());
    assert_eq!(failure.broken.promise, "S6", "{failure}");
    let why = &failure.broken.why;
    assert!(why.contains("POST /orders never got the response that it expects"), "{why}");
    assert!(
        why.contains("× 415 (\"Expected request with `Content-Type: application/json`\")"),
        "{why}"
    );

    let mistyped = explore(move |world| world.host().serve(router())).get("/order").seeds(0..25);
    let failure = failure_of(mistyped.run());
    assert!(failure.broken.why.contains("GET /order never got"), "{failure}");
    assert!(failure.broken.why.contains("× 404"), "{failure}");

    let typed = Request::post("/orders", "").json(&7).expect(200);
    explore(move |world| world.host().serve(router())).request(typed).seeds(0..25).run().unwrap();
}

#[test]
fn each_of_several_requests_must_succeed_and_so_must_those_that_follow() {
    let router = || Router::new().route("/", get(|| async { "tea" }));
    let one = explore(move |world| world.host().serve(router())).get("/").get("/none").seeds(0..10);
    assert!(failure_of(one.run()).broken.why.starts_with("GET /none never got"));
    let follows = Request::get("/").then(Request::get("/{body}"));
    let failure = failure_of(
        explore(move |world| world.host().serve(router())).request(follows).seeds(0..10).run(),
    );
    assert!(failure.broken.why.starts_with("GET /{body} never got"), "{failure}");
    let coffee = Request::get("/").expect_body("coffee");
    let failure = failure_of(
        explore(move |world| world.host().serve(router())).request(coffee).seeds(0..10).run(),
    );
    assert_eq!(failure.broken.promise, "S5", "{failure}");
    assert!(failure.broken.why.contains("does not contain \"coffee\""), "{failure}");
}

#[test]
fn every_request_is_sent_in_every_run_so_that_one_seed_proves_something() {
    let router = || {
        let unavailable = || async { StatusCode::SERVICE_UNAVAILABLE };
        Router::new().route("/", get(|| async {})).route("/down", get(unavailable))
    };
    for seed in 0..10 {
        explore(move |world| world.host().serve(router()))
            .get("/")
            .get("/down")
            .expect(503)
            .seeds(seed..seed + 1)
            .run()
            .unwrap();
    }
    let unexpected =
        explore(move |world| world.host().serve(router())).get("/down").seeds(0..1).run();
    let failure = failure_of(unexpected);
    assert_eq!(failure.broken.promise, "S5", "{failure}");
    assert!(failure.broken.why.contains("instead of a status below 500"), "{failure}");
}
