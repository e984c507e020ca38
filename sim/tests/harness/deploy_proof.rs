//! Deploys that must not pass without having proved something, and what their failures show.

use axum::{
    Router,
    http::StatusCode,
    response::IntoResponse,
    routing::{get, post},
};
use lameduck::{Hook, lifecycle::Plan};
use lameduck_sim::{
    Deploy, DeployTrials, Request, TestWorld, Trials, explore, explore_server,
    harness::deploy::{Kubernetes, Platform, ProbingBalancer},
};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::deploys::{order, pays};

type Service = lameduck::TowerService<Router>;

fn page(text: &'static str) -> impl Fn(TestWorld) -> lameduck::Host<Service> {
    move |world| world.host().serve(Router::new().route("/", get(move || async move { text })))
}

#[expect(clippy::disallowed_methods, reason = "a service that sleeps sleeps by the world's time")]
async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// A plan for a quick platform, so that a deploy is short.
fn plan() -> Plan {
    Plan::new().lame_duck(Duration::from_millis(1_200))
}

fn tea() -> Trials<Service> {
    explore(page("tea")).plan(plan()).seeds(0..2)
}

fn quick() -> Kubernetes {
    let (probe_period, propagation) = (Duration::from_millis(500), Duration::from_secs(1));
    Kubernetes { probe_period, propagation, ..Kubernetes::default() }
}

fn deploys(trials: Trials<Service>) -> DeployTrials<Service> {
    trials.deploy(Deploy::rolling(2).on(quick()))
}

fn panic_of<T>(run: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(run)).err().expect("it proves nothing, and passed");
    let said = payload.downcast_ref::<String>().map(String::as_str);
    said.or(payload.downcast_ref::<&str>().copied()).unwrap_or_default().to_owned()
}

// A deploy passed in which the platform killed every old process, since each of them was gone.
#[test]
fn a_process_that_is_killed_after_its_grace_period_breaks_d6() {
    let flushes = |world: TestWorld| {
        let flush = Hook::on_stop("flush", || async {
            sleep(4_500).await;
            Ok::<_, io::Error>(())
        });
        world.host().hook(flush).serve(Router::new().route("/", get(|| async { "tea" })))
    };
    let hasty = Kubernetes { grace_period: Duration::from_secs(4), ..quick() };
    let trials = explore(flushes).get("/").plan(plan()).seeds(0..2);
    let failure = trials.deploy(Deploy::rolling(2).on(hasty)).run().unwrap_err();
    assert_eq!(failure.broken.promise, "D6", "{failure}");
    let why = "old-0 was still running 4s after its SIGTERM, and was killed";
    assert_eq!(failure.broken.why, why, "{failure}");
}

// A deploy compared no body with what its client expects. A new version that responded with
// another page passed.
#[test]
fn a_new_version_with_another_body_breaks_d5() {
    let request = || Request::get("/").expect_body("tea");
    let failure = deploys(tea().request(request())).to(page("coffee")).run().unwrap_err();
    assert_eq!(failure.broken.promise, "D5", "{failure}");
    let why = "GET / got 200 \"coffee\" in place of a body that contains \"tea\"";
    assert!(failure.broken.why.starts_with(why), "{failure}");
    deploys(tea().request(request())).to(page("green tea")).run().unwrap();
}

// A scenario of another test was replayed, passed, and proved nothing about the requests of this
// one.
#[test]
fn a_deploy_refuses_to_replay_the_scenario_of_another_test() {
    let failure = deploys(tea().get("/")).to(|world: TestWorld| {
        world.host().serve(Router::new().route("/", get(|| async { StatusCode::BAD_GATEWAY })))
    });
    let replay = failure.run().unwrap_err().replay();
    let other = || drop(deploys(tea().get("/other")).replay(replay.clone()).run());
    assert!(panic_of(other).starts_with("the scenario to replay sends requests that this test"));
    assert_eq!(deploys(tea()).replay(replay).run().unwrap().scenarios, 1);
}

// One response was enough for all requests that follow each other: those after it were never sent.
#[test]
fn each_request_that_follows_another_must_succeed() {
    let pages = |path: &'static str| {
        explore_server(move |listener, stop| async move {
            let router = Router::new().route(path, get(|| async { "tea" }));
            let _ = axum::serve(listener, router).with_graceful_shutdown(stop).await;
        })
        .deploy(Deploy::rolling(1).on(quick()))
        .plays(0..2)
    };
    let both = || Request::get("/tea").expect([200, 404]).then(Request::get("/milk").expect(200));
    let said = panic_of(|| pages("/tea").request(both()).run());
    assert!(said.starts_with("GET /milk never succeeded"), "{said}");
    assert!(pages("/milk").request(both()).run().requests > 0);
}

// The losses of a service that was never reached, or never built, were counted: all requests were
// lost, whatever the delay.
#[test]
fn the_losses_of_a_service_that_does_not_work_are_not_counted() {
    let said = panic_of(|| deploys(tea().get("/mistyped")).losses());
    assert!(said.starts_with("GET /mistyped never succeeded"), "{said}");
    let panics = |world: TestWorld| {
        let port = "http".parse::<u16>().expect("PORT is a number");
        page("tea")(world).map_service(move |service| (service, port).0)
    };
    let said = panic_of(|| deploys(tea().get("/")).to(panics).losses());
    assert!(said.starts_with("the deploys prove nothing: the setup of the service"), "{said}");
    assert!(said.contains("PORT is a number"), "{said}");
    assert!(deploys(tea().get("/")).losses().requests > 0);
}

// The scenario to replay was ignored: the losses of all seeds were counted.
#[test]
fn the_losses_of_one_scenario_are_not_counted() {
    let said = panic_of(|| deploys(tea().get("/")).replay("{}").losses());
    assert!(said.starts_with("losses are counted over the seeds"), "{said}");
}

/// A service whose tenth request panics.
fn panics() -> Trials<Service> {
    let count = || Arc::new(AtomicUsize::new(0));
    explore(move |world: TestWorld| {
        let count = count();
        let order = move || async move {
            assert!(count.fetch_add(1, Relaxed) != 9, "the tenth order is too much");
            "tea".into_response()
        };
        world.host().serve(Router::new().route("/", get(order)))
    })
    .get("/")
    .seeds(0..2)
}

// The failure of a deploy had neither the panic that was its cause, nor a line of the host.
#[test]
fn the_failure_of_a_deploy_shows_the_panic_and_the_log_of_the_host() {
    let failure = deploys(panics()).run().unwrap_err();
    let replayed = deploys(panics()).replay(failure.replay()).run().unwrap_err();
    for failure in [failure, replayed] {
        assert_eq!(failure.broken.promise, "D5", "{failure}");
        let text = failure.to_string();
        assert!(text.contains("panic at sim/tests/harness/deploy_proof.rs:"), "{text}");
        assert!(text.contains("host: handler panicked"), "{text}");
    }
}

// The next server was stopped before the balancer sent requests to the one before it. For a moment
// there was no server, and the service was blamed.
#[test]
fn a_balancer_uses_a_server_again_before_the_next_one_is_stopped() {
    let balancer = ProbingBalancer {
        interval: Duration::from_millis(10),
        rise: 20,
        restart_delay: Duration::ZERO,
        ..ProbingBalancer::default()
    };
    tea().get("/").seeds(0..6).deploy(Deploy::rolling(2).on(balancer)).run().unwrap();
}

/// A deploy whose database refuses connections for nine seconds.
const REFUSES: &str = r#"{"seed":1,"latency_ms":[1,1],"begins_ms":500,"clients":[
    {"at_ms":0,"every_ms":200,"request":{"method":"GET","target":"/"},"keeps_connection":true,
    "retries":"Never"}],
    "faults":[{"Downstream":{"downstream":0,"at_ms":1,"for_ms":9000,"how":"Refuses"}}]}"#;

/// Connects to its database before it is ready, and fails to start if that fails.
fn connects(world: TestWorld) -> lameduck::Host<Service> {
    let database = world.tcp_downstream("db", |socket| async move { drop(socket) });
    let connect = Hook::on_start("db", move || async move { database.connect().await.map(drop) });
    let (pool, used) = (world.resource("pool"), world.resource("pool"));
    // Runs after a start that failed, too.
    let close = Hook::on_stop("pool", move || async move {
        pool.closed();
        Ok::<_, io::Error>(())
    });
    let page = move || async move { used.used() };
    world.host().hook(close).hook(connect).serve(Router::new().route("/", get(page)))
}

// A new process whose database refused its connection failed to start, as it should. No platform
// started it again, and the service was blamed: "did not become ready".
#[test]
fn a_process_that_exits_before_it_is_ready_is_started_again() {
    let trials = || explore(connects).get("/").plan(plan());
    deploys(trials().seeds(0..24)).run().unwrap();
    deploys(trials()).replay(REFUSES).run().unwrap();
    let fails = |world: TestWorld| {
        let fail = Hook::on_start("db", || async { Err(io::Error::other("no such host")) });
        world.host().hook(fail).serve(Router::new())
    };
    let failure = deploys(trials().seeds(0..1)).to(fails).run().unwrap_err();
    assert_eq!(failure.broken.promise, "D6", "{failure}");
    assert!(failure.broken.why.contains("did not become ready within"), "{failure}");
    let starts = failure.to_string().matches("new-0     process begins").count();
    assert!((3..9).contains(&starts), "with a pause that doubles: {failure}");
}

// A task that a failed start had left used its pool, while the next start of the same process had
// closed its own: the service was blamed (D4).
#[test]
fn what_a_failed_start_has_left_uses_nothing() {
    #[expect(clippy::disallowed_methods, reason = "a task that outlives its process")]
    let leaves = |world: TestWorld| {
        let database = world.tcp_downstream("db", |socket| async move { drop(socket) });
        let (pool, used) = (world.resource("pool"), world.resource("pool"));
        let connect = Hook::on_start("db", move || async move {
            let connected = database.connect().await.map(drop);
            if connected.is_err() {
                tokio::spawn(async move {
                    // By then the start has ended.
                    sleep(900).await;
                    loop {
                        used.used();
                        sleep(100).await;
                    }
                });
            }
            connected
        });
        let close = Hook::on_stop("pool", move || async move {
            pool.closed();
            sleep(500).await;
            Ok::<_, io::Error>(())
        });
        let router = Router::new().route("/", get(|| async { "tea" }));
        world.host().hook(close).hook(connect).serve(router)
    };
    let trials = explore(leaves).get("/").plan(plan());
    deploys(trials).replay(REFUSES).run().unwrap();
}

// A service that repeats a payment passed on a slow platform: every fault of its bank was over
// before the first request.
#[test]
fn faults_of_downstreams_meet_requests_also_on_a_slow_platform() {
    let secs = Duration::from_secs;
    let kubernetes = Kubernetes { propagation: secs(15), ..quick() };
    let balancer = ProbingBalancer { interval: secs(5), ..ProbingBalancer::default() };
    let probed = Kubernetes { probe_period: secs(10), ..Kubernetes::default() };
    for platform in [Platform::from(kubernetes), balancer.into(), probed.into()] {
        let deploy = Deploy::rolling(2).on(platform);
        let trials = explore(pays(false)).request(order()).plan(Plan::new().lame_duck(secs(16)));
        let failure = trials.seeds(0..24).deploy(deploy).run().unwrap_err();
        assert_eq!(failure.broken.promise, "D2", "{deploy:?}: {failure}");
    }
}

// A client whose order was refused by 429 requested the literal target "{location}". The service
// was blamed for its 404 (D5).
#[test]
fn a_request_without_its_value_is_not_sent_in_a_deploy() {
    let orders = |world: TestWorld| {
        let count = AtomicUsize::new(0);
        let count = Arc::new(count);
        let order = move || async move {
            match count.fetch_add(1, Relaxed) % 2 {
                0 => (StatusCode::CREATED, [("location", "/orders/1")]).into_response(),
                _ => StatusCode::TOO_MANY_REQUESTS.into_response(),
            }
        };
        let router = Router::new().route("/orders", post(order));
        world.host().serve(router.route("/orders/1", get(|| async { "tea" })))
    };
    let order = Request::post("/orders", "tea").expect([201, 429]);
    let followed = order.then(Request::get("{location}").expect(200));
    let trials = || explore(orders).plan(plan()).seeds(0..2);
    deploys(trials().request(followed)).run().unwrap();
    let no_id = || Request::post("/orders", "tea").expect([201, 429]).then(Request::get("/{/id}"));
    let failure = deploys(trials().request(no_id())).run().unwrap_err();
    let why = "GET /{/id} never got the response that it expects in 2 deploys; the response of the \
               request before it had no value for {/id}";
    assert_eq!((failure.broken.promise, &*failure.broken.why), ("S6", why), "{failure}");
    let said = panic_of(|| deploys(trials().request(no_id())).losses());
    assert!(said.contains("had no value for {/id}"), "{said}");
    // A request that was sent, and got 404 each time, was reported as one that lacked its value.
    let lost = Request::post("/orders", "tea").expect([201, 429]);
    let lost = lost.then(Request::get("{location}/bill").expect(200));
    let said = panic_of(|| deploys(trials().request(lost)).losses());
    assert!(said.starts_with("GET {location}/bill never succeeded"), "{said}");
    assert!(!said.contains("had no value"), "{said}");
}
