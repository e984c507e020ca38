//! A run that proves nothing fails, and says why.

use crate::failure_of;
use axum::{Json, Router, http::StatusCode, routing::get, routing::post};
use lameduck::{Hook, Host, Settings, TowerService, lifecycle::Plan};
use lameduck_sim::{Request, TestWorld, Trial, Trials, explore};
use std::{
    future::pending,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
    time::Duration,
};

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

fn tea() -> Router {
    Router::new().route("/", get(|| async { "tea" }))
}

fn serve(router: impl Fn() -> Router + Send + Sync + 'static) -> Trials<TowerService<Router>> {
    explore(move |world: TestWorld| world.host().serve(router())).seeds(0..6)
}

/// Returns the panic message of a test that would prove nothing.
#[track_caller]
fn refused<T>(test: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(test)).err().expect("it proves nothing");
    let said = panic.downcast_ref::<String>().map(String::as_str);
    said.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
}

// Each of these expectations is met by any response, or by none.
#[test]
fn an_expectation_that_means_nothing_is_refused() {
    let every = "each status is expected, which proves nothing";
    assert!(refused(|| Request::get("/").expect(0..=999)).starts_with(every));
    assert!(refused(|| Request::grpc("/tea.Tea/Get", [""]).expect(0..=16)).starts_with(every));
    assert!(refused(|| serve(tea).get("/").expect(100..=599)).starts_with(every));
    assert!(refused(|| Request::get("/").expect([])).starts_with("no status is expected"));
    let turned = std::ops::RangeInclusive::new(299, 200);
    assert!(refused(|| Request::get("/").expect(turned)).starts_with("no status is expected"));
    assert!(refused(|| Request::get("/").expect_body("")).contains("the empty text"));
    assert!(refused(|| Request::events("/", 0)).contains("expect at least one"));
    let call = || Request::grpc_stream("/tea.Tea/Get", [""], 0);
    assert!(refused(call).contains("expect at least one"));
    // These were accepted, and compared with nothing.
    for no_body in [Request::websocket("/", ["tea"]), Request::grpc("/tea.Tea/Get", [""])] {
        assert!(refused(|| no_body.expect_body("tea")).contains("has no text to compare"));
    }
    assert!(refused(|| serve(tea).expect(200)).starts_with("there is no request yet"));
    assert!(refused(|| serve(tea).may_diverge(" ")).contains("an exception needs a reason"));
}

// A handler that never responds gets a 503 of the host. That is no 503 of the service.
#[test]
fn a_response_of_the_host_is_no_success_of_the_service() {
    let never = || Router::new().route("/", get(pending::<()>));
    let failure = failure_of(serve(never).get("/").expect(503).run());
    assert_eq!(failure.broken.promise, "S6", "{failure}");
    assert!(failure.broken.why.contains("× 503 by the host"), "{failure}");
}

// The second was "never sent".
#[test]
fn a_request_that_is_added_twice_is_counted_for_both() {
    serve(tea).get("/").get("/").run().unwrap();
}

// The text stayed in the request that followed, and a handler that takes anything accepted it.
#[test]
fn a_value_that_no_response_has_is_named() {
    let anything =
        || Router::new().route("/", post(|| async { "{}" })).route("/used", post(tea_of));
    async fn tea_of(body: String) -> String {
        body
    }
    for (value, next) in [
        ("{/id}", Request::post("/used", "{/id}")),
        ("{location}", Request::post("/used", "").header("x-order", "{location}")),
    ] {
        let follows = Request::post("/", "tea").then(next);
        let failure = failure_of(serve(anything).request(follows).run());
        assert_eq!(failure.broken.promise, "S6", "{failure}");
        let why = format!("had a value for {value}");
        assert!(failure.broken.why.ends_with(&why), "{failure}");
    }
    let json = Request::post("/", "tea").then(Request::post("/used", r#"{"a":{"b":1}}"#));
    serve(anything).request(json).run().unwrap();
}

#[test]
fn a_handshake_that_is_refused_is_right_only_where_that_is_expected() {
    let guarded = || Router::new().route("/chat", get(|| async { StatusCode::FORBIDDEN }));
    let chat = || Request::websocket("/chat", ["tea"]);
    serve(guarded).request(chat().expect(403)).run().unwrap();
    assert_eq!(failure_of(serve(guarded).request(chat()).run()).broken.promise, "S6");
    let silent = Request::websocket("/chat", [""; 0]);
    assert_eq!(failure_of(serve(guarded).request(silent).run()).broken.promise, "S6");
}

// The condition counted the responses to a target that no client requests, and always held.
#[test]
fn a_condition_on_a_mistyped_target_fails_the_run() {
    let counts = |target: &'static str| {
        explore(move |world: TestWorld| {
            Trial::of(world.host().serve(tea())).at_exit(move |received| {
                let count = received.succeeded(target);
                if count < 1_000 { Ok(()) } else { Err("so much tea".to_owned()) }
            })
        })
        .get("/")
        .seeds(0..6)
    };
    counts("/").run().unwrap();
    let failure = failure_of(counts("/tee").run());
    assert_eq!(failure.broken.promise, "S4", "{failure}");
    let why = "the condition counts the responses to \"/tee\", which no client ever requested";
    assert!(failure.broken.why.starts_with(why), "{failure}");
}

// The host was blamed: "P15 (contained) is broken".
#[test]
fn a_condition_and_a_setup_that_panic_are_the_tests_own() {
    let asserts = explore(|world: TestWorld| {
        Trial::of(world.host().serve(tea())).at_exit(|_| {
            assert_eq!(1 + 1, 3, "arithmetic");
            Ok(())
        })
    });
    let failure = failure_of(asserts.get("/").seeds(0..6).run());
    assert_eq!(failure.broken.promise, "S4", "{failure}");
    let why = &failure.broken.why;
    assert!(why.starts_with("the condition panicked at ") && why.contains("arithmetic"), "{why}");
    assert!(why.contains("harness/proof.rs:"), "{why}");

    let setup = explore(|world: TestWorld| {
        let port: u16 = "eighty".parse().expect("a port is a number");
        world.host().serve(tea().route("/port", get(move || async move { port.to_string() })))
    });
    let failure = failure_of(setup.get("/").seeds(0..6).run());
    assert_eq!(failure.broken.promise, "S3", "{failure}");
    let why = &failure.broken.why;
    assert!(why.starts_with("the setup of the service panicked at "), "{why}");
    assert!(why.contains("a port is a number"), "{why}");
}

#[test]
fn a_downstream_that_the_service_never_uses_fails_the_run() {
    let unused = explore(|world: TestWorld| {
        let _bank = world.downstream("bank", tea());
        world.host().serve(tea())
    });
    let failure = failure_of(unused.get("/").seeds(0..6).run());
    assert_eq!(failure.broken.promise, "S6", "{failure}");
    assert!(failure.broken.why.contains("never connected to its downstream \"bank\""), "{failure}");
}

// The host was blamed, whose probes got no response: "P3 (alive to the last) is broken".
#[test]
fn a_host_of_another_builder_fails_the_run() {
    let own = explore(|_: TestWorld| Host::builder(Settings::default()).serve(tea()));
    let failure = failure_of(own.get("/").seeds(0..6).run());
    assert_eq!(failure.broken.promise, "S6", "{failure}");
    assert!(failure.broken.why.contains("build its host by world.host()"), "{failure}");
}

#[test]
fn a_service_that_ends_at_once_fails_the_run() {
    let ends = explore(|world: TestWorld| {
        let builder = world.host();
        let handle = builder.shutdown_handle();
        let stop = Hook::on_start("stop", move || async move {
            handle.stop();
            Ok::<_, io::Error>(())
        });
        builder.hook(stop).serve(tea())
    });
    // With a lame duck delay it serves in that.
    let mut plan = Plan::default();
    plan.lame_duck = Duration::ZERO;
    let failure = failure_of(ends.get("/").plan(plan).seeds(0..6).run());
    assert_eq!(failure.broken.promise, "S6", "{failure}");
}

#[test]
fn a_start_that_always_fails_fails_the_run() {
    let fails = explore(|world: TestWorld| {
        let start = Hook::on_start("pool", || async { Err(io::Error::other("no database")) });
        world.host().hook(start).serve(tea())
    });
    let failure = failure_of(fails.get("/").seeds(0..6).run());
    assert_eq!(failure.broken.promise, "S3", "{failure}");
    assert!(failure.broken.why.contains("no database"), "{failure}");
}

// The old scenario was replayed, with requests that the test no longer has, and passed.
#[test]
fn a_replay_of_other_requests_is_refused() {
    let missing = failure_of(serve(tea).get("/none").run());
    let said = refused(|| serve(tea).get("/").replay(missing.replay()).run());
    assert!(said.starts_with("the scenario to replay sends requests that this test does not have"));
    assert!(missing.to_string().contains("to see one of the runs, replace the seeds by"));
    let said = refused(|| serve(tea).get("/").replay("seed 7").run());
    assert!(said.starts_with("the scenario to replay must be one that a failure printed"));
}

// The run was blamed on the host: "Cannot start a runtime from within a runtime".
#[tokio::test]
async fn a_test_in_a_runtime_is_like_any_other() {
    serve(tea).get("/").run().unwrap();
    let failing = || {
        let down = || async { (StatusCode::INTERNAL_SERVER_ERROR, "no tea") };
        Router::new().route("/", get(down))
    };
    let failure = failure_of(serve(failing).get("/").run());
    assert_eq!(failure.broken.promise, "S5", "{failure}");
    let text = failure.to_string();
    assert!(!text.contains("note: ") && text.contains("── draining ──"), "{text}");
    let again = failure_of(serve(failing).get("/").replay(failure.replay()).run());
    assert_eq!(again.broken, failure.broken);
}

/// Runs this test binary again, with a variable of the environment.
fn run_again(variable: &str, value: &str) -> String {
    let test = "proof::a_run_with_the_environment";
    let mut command = Command::new(std::env::current_exe().expect("a test binary"));
    let run = command.args(["--exact", test, "--nocapture"]).env(variable, value).output();
    let run = run.expect("it can be started again");
    format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr))
}

#[test]
fn a_run_with_the_environment() {
    let passed = serve(tea).get("/").run().unwrap();
    let _ = io::stdout().write_all(format!("{} shutdowns\n", passed.scenarios).as_bytes());
}

#[test]
fn a_mistyped_environment_fails_the_run() {
    assert!(run_again("LAMEDUCK_SEEDS", "3..7").contains("4 shutdowns"));
    assert!(run_again("LAMEDUCK_SEED", "7").contains("1 shutdowns"));
    for (variable, value, said) in [
        ("LAMEDUCK_SEEDS", "7..7", "the range 7..7 is empty"),
        ("LAMEDUCK_SEEDS", "7..3", "the range 7..3 is empty"),
        ("LAMEDUCK_SEEDS", "", "must be a range, like 0..1000"),
        ("LAMEDUCK_SEED", "", "must be a number, like 7"),
        ("LAMEDUCK_REPLAY", "/no/such/file", "LAMEDUCK_REPLAY=/no/such/file"),
    ] {
        let ran = run_again(variable, value);
        assert!(ran.contains(said) && ran.contains("1 failed"), "{variable}={value}: {ran}");
    }
}
