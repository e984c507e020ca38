//! Deploys of services with a bug that only a deploy shows, and of their repaired versions.

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use lameduck::{BackgroundTask, Hook, RequestContext, TaskContext, lifecycle::Plan};
use lameduck_sim::{
    Connector, Deploy, DeployFailure, DeployTrials, Downstream, Ledger, Request, TestWorld, Trial,
    explore,
    harness::deploy::{BlueGreen, Kubernetes, ProbingBalancer, Systemd},
};
use std::{
    collections::{BTreeSet, VecDeque},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

type Service = lameduck::TowerService<Router>;
type Http = Client<Connector, Full<bytes::Bytes>>;

/// Deploys in which each bug must be found; of a repaired service, deploys that must survive.
const SEEDS: std::ops::Range<u64> = 0..24;
const SURVIVED: std::ops::Range<u64> = 0..8;

#[expect(clippy::disallowed_methods, reason = "a service that sleeps sleeps by the world's time")]
async fn sleep(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

fn client(of: &Downstream) -> Http {
    Client::builder(TokioExecutor::new()).build(of.connector())
}

/// Posts to a downstream, with a key if there is one. Returns the body of a 200.
async fn send(http: &Http, path: &str, body: &str, key: Option<&str>) -> Option<String> {
    let mut request = http::Request::post(format!("http://downstream{path}"));
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let request = request.body(body.to_owned().into()).expect("a valid request");
    let response = http.request(request).await.ok()?;
    let ok = response.status() == StatusCode::OK;
    let body = response.into_body().collect().await.ok()?.to_bytes();
    ok.then(|| String::from_utf8_lossy(&body).into_owned())
}

/// A plan for a quick platform, so that a deploy is short.
fn plan() -> Plan {
    Plan::new().lame_duck(Duration::from_millis(1_200))
}

fn quick() -> Kubernetes {
    let (probe_period, propagation) = (Duration::from_millis(500), Duration::from_secs(1));
    Kubernetes { probe_period, propagation, ..Kubernetes::default() }
}

fn deploys(trials: lameduck_sim::Trials<Service>) -> DeployTrials<Service> {
    trials.plan(plan()).seeds(SEEDS).deploy(Deploy::rolling(2).on(quick()))
}

fn found(trials: DeployTrials<Service>, promise: &str) -> DeployFailure {
    let failure = trials.run().expect_err("the bug was not found");
    assert_eq!(failure.broken.promise, promise, "{failure}");
    assert!(failure.to_string().contains("to reproduce it"), "{failure}");
    failure
}

pub(crate) fn order() -> Request {
    Request::post("/orders", "{key}").header("idempotency-key", "{key}").expect([201, 503])
}

/// A database that commits after 20 ms.
fn database(world: &TestWorld) -> Http {
    let ledger = world.ledger("orders");
    let written = Arc::new(Mutex::new(BTreeSet::new()));
    let commit = move |key: String| async move {
        sleep(20).await;
        if written.lock().expect("no handler panics").insert(key.clone()) {
            ledger.wrote(&key);
        }
    };
    client(&world.downstream("database", Router::new().route("/commit", post(commit))))
}

/// Acknowledges an order. The commit comes after 300 ms, when the process may be gone.
fn acknowledges_early(world: TestWorld) -> lameduck::Host<Service> {
    acknowledges_early_by(StatusCode::CREATED, world)
}

fn acknowledges_early_by(status: StatusCode, world: TestWorld) -> lameduck::Host<Service> {
    #[expect(clippy::disallowed_methods, reason = "this is the bug")]
    let order = move |State(database): State<Http>, key: String| async move {
        tokio::spawn(async move {
            sleep(300).await;
            send(&database, "/commit", &key, None).await
        });
        status
    };
    let database = database(&world);
    world.host().serve(Router::new().route("/orders", post(order)).with_state(database))
}

#[test]
fn d1_a_write_that_is_acknowledged_before_its_commit() {
    let failure = found(deploys(explore(acknowledges_early).request(order())), "D1");
    assert!(failure.broken.why.contains("POST /orders was acknowledged"), "{failure}");
    let replay = failure.replay();
    let again = deploys(explore(acknowledges_early).request(order())).replay(replay).run();
    assert_eq!(again.unwrap_err().broken, failure.broken, "what is printed shows it again");

    async fn order_after_commit(State(database): State<Http>, key: String) -> StatusCode {
        match send(&database, "/commit", &key, None).await {
            Some(_) => StatusCode::CREATED,
            None => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
    let repaired = explore(|world| {
        let database = database(&world);
        let router = Router::new().route("/orders", post(order_after_commit));
        world.host().serve(router.with_state(database))
    });
    deploys(repaired.request(order())).seeds(SURVIVED).run().unwrap();
}

// A write that a form had sent was acknowledged by a redirect to its page, and lost. D1 judged only
// a status from 200 to 299.
#[test]
fn d1_a_write_that_is_acknowledged_by_a_redirect() {
    let redirects = |world: TestWorld| acknowledges_early_by(StatusCode::SEE_OTHER, world);
    let form = Request::post("/orders", "{key}").expect([303, 503]);
    found(deploys(explore(redirects).request(form)), "D1");
}

// A redirect to send the same write elsewhere acknowledged it: D1 blamed a service for what it had
// not done.
#[test]
fn d1_a_redirect_of_the_write_itself_acknowledges_nothing() {
    let moves = |world: TestWorld| {
        let (ledger, count) = (world.ledger("orders"), AtomicUsize::new(0));
        let count = Arc::new(count);
        let order = move |key: String| async move {
            if count.fetch_add(1, Relaxed) % 2 == 1 {
                return StatusCode::PERMANENT_REDIRECT;
            }
            ledger.wrote(&key);
            StatusCode::CREATED
        };
        world.host().serve(Router::new().route("/orders", post(order)))
    };
    let order = Request::post("/orders", "{key}").expect([201, 308]);
    deploys(explore(moves).request(order)).seeds(SURVIVED).run().unwrap();
}

// The failing play was run again to describe it, on the thread of the test. Within a runtime that
// panics: "Cannot start a runtime from within a runtime". So the failure was lost.
#[tokio::test]
async fn a_test_in_a_runtime_has_its_failure() {
    let failure = found(deploys(explore(acknowledges_early).request(order())), "D1");
    let replay = failure.replay();
    let again = deploys(explore(acknowledges_early).request(order())).replay(replay).run();
    assert_eq!(again.unwrap_err().broken, failure.broken);
}

/// A bank that pays in 50 ms. It recognises a payment by its key, if it has one.
fn bank(world: &TestWorld) -> Http {
    let ledger = world.ledger("payments");
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let pay = move |headers: HeaderMap, order: String| async move {
        let key = headers.get("idempotency-key").cloned();
        let is_new = key.is_none_or(|key| seen.lock().expect("no panic").insert(key));
        if is_new {
            ledger.wrote(&order);
        }
        sleep(50).await;
    };
    client(&world.downstream("bank", Router::new().route("/pay", post(pay))))
}

/// Pays, and tries once more if that failed.
pub(crate) fn pays(with_key: bool) -> impl Fn(TestWorld) -> lameduck::Host<Service> {
    move |world| {
        let order = move |State(bank): State<Http>, order: String| async move {
            let key = with_key.then_some(&*order);
            for _ in 0..2 {
                if send(&bank, "/pay", &order, key).await.is_some() {
                    return StatusCode::CREATED;
                }
            }
            StatusCode::SERVICE_UNAVAILABLE
        };
        let bank = bank(&world);
        world.host().serve(Router::new().route("/orders", post(order)).with_state(bank))
    }
}

#[test]
fn d2_a_payment_that_is_repeated_without_a_key() {
    let failure = found(deploys(explore(pays(false)).request(order())), "D2");
    assert!(failure.broken.why.contains("payments applied client-"), "{failure}");
    // The only downstream was called "number 7", by the number that was drawn for the fault.
    assert!(failure.to_string().contains("ms the downstream bank "), "{failure}");
    deploys(explore(pays(true)).request(order())).seeds(SURVIVED).run().unwrap();
}

/// Writes an order and its payment to one journal, which recognises no repetition. If `forgets`, it
/// acknowledges the payment without a write.
fn journals(forgets: bool) -> impl Fn(TestWorld) -> lameduck::Host<Service> {
    move |world| {
        let ledger = world.ledger("journal");
        let write = move |key: String| async move { ledger.wrote(&key) };
        let journal =
            client(&world.downstream("journal", Router::new().route("/write", post(write))));
        let write = |State(journal): State<Http>, key: String| async move {
            match send(&journal, "/write", &key, None).await {
                Some(_) => StatusCode::CREATED,
                None => StatusCode::SERVICE_UNAVAILABLE,
            }
        };
        let forget = || async { StatusCode::CREATED };
        let payments = if forgets { post(forget) } else { post(write) };
        let router = Router::new().route("/orders", post(write)).route("/payments", payments);
        world.host().serve(router.with_state(journal))
    }
}

// Requests that follow each other had one key. The second write of a correct service was taken for
// a repetition of the first (D2), and a second write that was lost for the first (D1).
#[test]
fn requests_that_follow_each_other_have_different_keys() {
    let write = |path| Request::post(path, "{key}").expect([201, 503]);
    let both = || write("/orders").then(write("/payments"));
    deploys(explore(journals(false)).request(both())).seeds(SURVIVED).run().unwrap();
    let failure = found(deploys(explore(journals(true)).request(both())), "D1");
    assert!(failure.broken.why.starts_with("POST /payments was acknowledged"), "{failure}");
}

/// A queue that always has a message, and delivers again what was given back.
#[derive(Clone)]
struct Queue {
    ledger: Ledger,
    next: Arc<AtomicUsize>,
    again: Arc<Mutex<VecDeque<String>>>,
}

fn queue(world: &TestWorld) -> Http {
    let queue = Queue { ledger: world.ledger("jobs"), next: Arc::default(), again: Arc::default() };
    let take = |State(queue): State<Queue>| async move {
        let again = queue.again.lock().expect("no handler panics").pop_front();
        let job = again.unwrap_or_else(|| format!("job-{}", queue.next.fetch_add(1, Relaxed)));
        queue.ledger.delivered(&job);
        job
    };
    let done = |State(queue): State<Queue>, Path(job): Path<String>| async move {
        queue.ledger.acknowledged(&job);
    };
    let back = |State(queue): State<Queue>, Path(job): Path<String>| async move {
        queue.ledger.returned(&job);
        queue.again.lock().expect("no handler panics").push_back(job);
    };
    let router = Router::new()
        .route("/take", post(take))
        .route("/done/{job}", post(done))
        .route("/back/{job}", post(back))
        .with_state(queue);
    client(&world.downstream("queue", router).reliable())
}

/// What a consumer does with its current job when the drain begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AtDrain {
    GivesBack,
    GivesBackAndFinishes,
    Drops,
}

/// Consumes jobs of 200 ms each.
fn consumes(at_drain: AtDrain) -> impl Fn(TestWorld) -> lameduck::Host<Service> {
    move |world| {
        let queue = queue(&world);
        let consume = move |context: TaskContext| async move {
            while let Some(job) = send(&queue, "/take", "", None).await {
                let is_back = tokio::select! {
                    biased;
                    () = context.draining() => true,
                    () = sleep(200) => false,
                };
                if is_back {
                    if at_drain != AtDrain::Drops {
                        send(&queue, &format!("/back/{job}"), "", None).await;
                    }
                    if at_drain == AtDrain::GivesBackAndFinishes {
                        sleep(200).await;
                        send(&queue, &format!("/done/{job}"), "", None).await;
                    }
                    break;
                }
                send(&queue, &format!("/done/{job}"), "", None).await;
            }
            Ok::<_, io::Error>(())
        };
        let task = BackgroundTask::new("consumer", consume);
        let router = Router::new().route("/", get(|| async { "tea" }));
        world.host().background_task(task).serve(router)
    }
}

#[test]
fn d3_a_message_that_is_given_back_and_acknowledged() {
    let twice = consumes(AtDrain::GivesBackAndFinishes);
    let failure = found(deploys(explore(twice).get("/")), "D3");
    assert!(failure.broken.why.contains("was acknowledged at ["), "{failure}");
    deploys(explore(consumes(AtDrain::GivesBack)).get("/")).seeds(SURVIVED).run().unwrap();
}

// Only messages that were delivered before the first stop were looked at, and a consumer drops its
// message in the drain, which comes later. So the usual loss was not found.
#[test]
fn d3_a_message_that_is_dropped_in_the_drain() {
    let failure = found(deploys(explore(consumes(AtDrain::Drops)).get("/")).seeds(0..4), "D3");
    let why = &failure.broken.why;
    assert!(why.contains("was neither acknowledged nor delivered again"), "{failure}");
}

/// Uses its pool once more 200 ms after each response, in a task that the drain waits for or not.
fn audits(tracked: bool) -> impl Fn(TestWorld) -> lameduck::Host<Service> {
    move |world| {
        let pool = world.resource("pool");
        let closed = pool.clone();
        let close = Hook::on_stop("pool", move || async move {
            closed.closed();
            Ok::<_, io::Error>(())
        });
        // Stop hooks run in reverse order: this one runs after the pool is closed.
        let flush = Hook::on_stop("flush", || async {
            sleep(400).await;
            Ok::<_, io::Error>(())
        });
        #[expect(clippy::disallowed_methods, reason = "this is the bug")]
        let order = move |context: axum::Extension<RequestContext>| async move {
            pool.used();
            let audit = async move {
                sleep(200).await;
                pool.used();
            };
            if tracked {
                context.spawn(audit);
            } else {
                drop(tokio::spawn(audit));
            }
        };
        let router = Router::new().route("/orders", post(order));
        world.host().hook(flush).hook(close).serve(router)
    }
}

#[test]
fn d4_a_handler_that_uses_its_pool_after_the_stop_hook() {
    let failure = found(deploys(explore(audits(false)).post("/orders", "tea")), "D4");
    assert!(failure.broken.why.contains("used pool at"), "{failure}");
    deploys(explore(audits(true)).post("/orders", "tea")).seeds(SURVIVED).run().unwrap();
}

/// Fills its cache within 1.5 s, before or after it is ready.
fn caches(before_ready: bool) -> impl Fn(TestWorld) -> lameduck::Host<Service> {
    move |world| {
        let filled = Arc::new(AtomicBool::new(false));
        let page = {
            let filled = Arc::clone(&filled);
            move || async move {
                if filled.load(Relaxed) {
                    Ok("tea")
                } else {
                    Err(StatusCode::INTERNAL_SERVER_ERROR)
                }
            }
        };
        let fill = move || async move {
            sleep(1_500).await;
            filled.store(true, Relaxed);
            Ok::<_, io::Error>(())
        };
        let router = Router::new().route("/", get(page));
        if before_ready {
            return world.host().hook(Hook::on_start("cache", fill)).serve(router);
        }
        let task = BackgroundTask::new("cache", move |context: TaskContext| async move {
            fill().await?;
            context.draining().await;
            Ok::<_, io::Error>(())
        });
        world.host().background_task(task).serve(router)
    }
}

#[test]
fn d5_a_new_version_that_is_ready_before_its_cache() {
    let without_cache =
        |world: TestWorld| world.host().serve(Router::new().route("/", get(|| async { "tea" })));
    let failure = found(deploys(explore(without_cache).get("/")).to(caches(false)), "D5");
    assert!(failure.broken.why.contains("GET / got 500"), "{failure}");
    assert!(failure.broken.why.contains("from new-"), "{failure}");
    deploys(explore(without_cache).get("/")).to(caches(true)).seeds(SURVIVED).run().unwrap();
}

#[test]
fn a_service_without_a_bug_survives_on_every_platform() {
    let balancer = ProbingBalancer { interval: quick().probe_period, ..ProbingBalancer::default() };
    let blue_green = BlueGreen {
        probe_period: quick().probe_period,
        propagation: quick().propagation,
        ..BlueGreen::default()
    };
    let platforms = [
        Deploy::rolling(2).on(quick()),
        Deploy::rolling(2).on(balancer),
        Deploy::rolling(2).on(Systemd::default()),
        Deploy::rolling(2).on(blue_green),
        Deploy::rolling(1).on(quick()),
        Deploy::rolling(1).on(balancer),
    ];
    for deploy in platforms {
        let trials = explore(pays(true)).request(order()).plan(plan()).seeds(0..4).deploy(deploy);
        let survived = trials.run().unwrap_or_else(|failure| panic!("{deploy:?}: {failure}"));
        assert_eq!(survived.scenarios, 4);
    }
}

#[test]
fn a_delay_that_is_shorter_than_the_propagation_is_found_and_explained() {
    let service =
        |world: TestWorld| world.host().serve(Router::new().route("/", get(|| async { "tea" })));
    let hasty = Plan::new().lame_duck(Duration::from_millis(500));
    let slow = Kubernetes { propagation: Duration::from_secs(4), ..Kubernetes::default() };
    let trials =
        explore(service).get("/").plan(hasty).seeds(SEEDS).deploy(Deploy::rolling(2).on(slow));
    let failure = found(trials, "D5");
    let hint = "nodes may send requests for 4s after it, and the lame duck delay is 500ms";
    assert!(failure.broken.why.contains(hint), "{failure}");
    assert!(failure.to_string().contains("SIGTERM"), "{failure}");
}

#[test]
fn a_new_version_that_never_becomes_ready_is_found() {
    let router = || Router::new().route("/", get(|| async { "tea" }));
    let starts = move |world: TestWorld| world.host().serve(router());
    let never = move |world: TestWorld| {
        let waits = Hook::on_start("migration", || async {
            sleep(3_600_000).await;
            Ok::<_, io::Error>(())
        });
        world.host().hook(waits).serve(router())
    };
    let blue_green = Deploy::rolling(2).on(BlueGreen::default());
    let trials = explore(starts).get("/").plan(plan()).seeds(0..1).deploy(blue_green);
    let failure = found(trials.to(never), "D6");
    assert!(failure.broken.why.contains("did not become ready"), "{failure}");
}

// Both passed, although the condition was never checked: it proved nothing.
#[test]
fn a_condition_of_a_single_exit_is_refused() {
    let host =
        |world: TestWorld| world.host().serve(Router::new().route("/", get(|| async { "tea" })));
    let never = move |world| Trial::of(host(world)).at_exit(|_| Err("never".to_owned()));
    let excepts = move |world| Trial::of(host(world)).except_tasks(1, "the pool's reaper");
    let refused = |trials: DeployTrials<Service>| {
        let run = || drop(trials.seeds(0..1).run());
        let panic =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).expect_err("passed");
        let said = panic.downcast_ref::<&str>().copied().unwrap_or_default();
        assert!(said.contains("have no effect in a deploy"), "{said}");
    };
    refused(deploys(explore(never).get("/")));
    refused(deploys(explore(excepts).get("/")));
    refused(deploys(explore(host).get("/")).to(never));
}

// Only "did not become ready" was said, and the panic was nowhere in the message.
#[test]
fn a_setup_that_panics_is_found_with_its_panic() {
    let starts =
        |world: TestWorld| world.host().serve(Router::new().route("/", get(|| async { "tea" })));
    let panics = |world: TestWorld| {
        let port = "http".parse::<u16>().expect("PORT is a number");
        world.host().serve(Router::new().route(&format!("/{port}"), get(|| async { "tea" })))
    };
    let failure = found(deploys(explore(starts).get("/")).seeds(0..1).to(panics), "D6");
    let why = &failure.broken.why;
    assert!(why.contains(": the setup of the service panicked at "), "{failure}");
    assert!(why.contains("deploys.rs:") && why.contains("PORT is a number"), "{failure}");
}
