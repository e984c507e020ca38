//! Assertions of users' code. It is a separate test binary, since a run must reach all that are
//! in its test binary.

// Users forbid it, too: what the macros expand to must not count as unsafe code of theirs.
#![forbid(unsafe_code)]

mod tutorial;

use axum::{Router, routing::get};
use lameduck_sim::{Deploy, Failure, TestWorld, Trials, explore};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
};

type Service = lameduck::TowerService<Router>;

/// A part of a service, all of whose assertions are reached.
mod orders {
    use lameduck::{RequestContext, always, lifecycle::Phase, sometimes};

    pub(super) async fn order(context: axum::Extension<RequestContext>) {
        sometimes!(context.phase() == Phase::LameDuck, "an order in the lame duck delay");
        always!(is_valid(&3), "an order is valid");
    }

    /// Nothing is known of the type where the assertion is entered in the catalog.
    fn is_valid<T: PartialOrd + From<u8>>(amount: &T) -> bool {
        sometimes!("an order is examined");
        *amount > T::from(0)
    }

    #[expect(clippy::disallowed_methods, reason = "as users' handlers do")]
    pub(super) async fn on_a_blocking_thread() {
        let hashed = tokio::task::spawn_blocking(|| sometimes!("an order is hashed"));
        hashed.await.expect("it does not panic");
    }
}

/// A part with assertions that no run reaches.
mod prices {
    use lameduck::{RequestContext, always, lifecycle::Phase, sometimes};

    pub(super) async fn price(context: axum::Extension<RequestContext>) {
        sometimes!(context.phase() == Phase::Starting, "a price in the start");
    }

    /// No code calls it.
    pub(super) fn discount() {
        always!(true, "a discount is small");
        sometimes!("a discount is given");
    }
}

/// A part whose assertions do not hold.
mod stock {
    use lameduck::{RequestContext, always, lifecycle::Phase};

    pub(super) async fn item(context: axum::Extension<RequestContext>) {
        always!(context.phase() < Phase::Draining, "items come before the drain");
    }

    #[expect(clippy::disallowed_methods, reason = "as users' handlers do")]
    pub(super) async fn on_a_blocking_thread() {
        let counted = tokio::task::spawn_blocking(|| {
            always!(std::hint::black_box(1) > 2, "one is more than two");
        });
        counted.await.expect("it does not panic");
    }
}

/// A part that is built with an assertion in its setup.
mod setup {
    pub(super) fn host(world: lameduck_sim::TestWorld) -> lameduck::Host<super::Service> {
        lameduck::sometimes!("the host is built");
        world.host().serve(super::router())
    }
}

fn router() -> Router {
    Router::new()
        .route("/orders", get(orders::order))
        .route("/orders/hash", get(orders::on_a_blocking_thread))
        .route("/prices", get(prices::price))
        .route("/stock", get(stock::item))
        .route("/stock/count", get(stock::on_a_blocking_thread))
}

fn trials() -> Trials<Service> {
    explore(|world: TestWorld| world.host().serve(router()))
}

/// Runs that reach all assertions of `orders`.
fn of_orders() -> Trials<Service> {
    trials().get("/orders").get("/orders/hash").seeds(0..24)
}

fn failure_of(trials: Trials<Service>) -> Failure {
    let failure = trials.run().expect_err("an assertion was not reached or did not hold");
    assert_eq!(failure.broken.promise, "S7", "{failure}");
    failure
}

#[test]
fn what_no_run_reaches_fails_the_run_without_being_named_by_the_test() {
    let why = failure_of(of_orders().get("/prices")).broken.why;
    let never =
        "sometimes: no run reached \"a discount is given\" at sim/tests/assertions/main.rs:";
    assert!(why.contains(never), "{why}");
    assert!(why.contains("always: no run reached \"a discount is small\" at sim/tests/"), "{why}");
    let false_each_time = "sometimes: \"a price in the start\" did not hold in any run, although";
    assert!(why.contains(false_each_time), "{why}");
    // Nothing that was reached is named.
    assert!(!why.contains("in assertions::orders"), "{why}");
    for advice in [
        "Run more seeds, send a request that leads there",
        "assertions of some modules, .assertions_in(\"assertions::orders\")",
        ".may_miss_assertions(",
    ] {
        assert!(why.contains(advice), "{advice}: {why}");
    }
    // In no single run something can be seen that is missing in all.
    let failure = failure_of(of_orders()).to_string();
    assert!(failure.contains("to see one of the runs, replace"), "{failure}");
    prices::discount();
}

#[test]
fn orders_alone() {
    of_orders().assertions_in("assertions::orders").run().unwrap();
}

// LAMEDUCK_SEED=7 plays one shutdown again. One that passes was reported as S7, since it had not
// reached what only another seed reaches.
#[test]
fn a_single_seed_of_the_environment_need_not_reach_them() {
    failure_of(of_orders().assertions_in("assertions::orders").seeds(7..8));
    let mut again = Command::new(std::env::current_exe().expect("a test binary"));
    let run = again.args(["--exact", "orders_alone"]).env("LAMEDUCK_SEED", "7").output();
    assert!(run.expect("it can be started again").status.success());
}

#[test]
fn a_run_may_be_limited_to_the_assertions_of_a_module() {
    of_orders().assertions_in("assertions::orders").run().unwrap();
    let two = of_orders().assertions_in("assertions::orders").assertions_in("assertions::prices");
    let why = failure_of(two).broken.why;
    assert!(why.contains("a discount is given") && !why.contains("one is more"), "{why}");
    // A module has the modules inside, and none whose name begins alike.
    assert!(failure_of(of_orders().assertions_in("assertions")).broken.why.contains("a discount"));
    let mistyped = panic_of(of_orders().assertions_in("assertions::order"));
    assert!(
        mistyped.contains("\"assertions::order\" has no assertion, so the run proves nothing"),
        "{mistyped}"
    );
    assert!(mistyped.contains("assertions::orders, assertions::prices"), "{mistyped}");
}

#[test]
fn a_run_may_miss_assertions_for_a_reason() {
    of_orders().may_miss_assertions("this is about hashes").run().unwrap();
    let empty = catch_unwind(AssertUnwindSafe(|| of_orders().may_miss_assertions(" ")));
    assert!(empty.is_err(), "an exception without a reason");
    // What is reached must hold all the same.
    let broken = trials().get("/stock/count").may_miss_assertions("of the reason").seeds(0..2);
    assert!(failure_of(broken).broken.why.contains("one is more than two"));
}

#[test]
fn an_assertion_that_does_not_hold_is_named_with_its_place() {
    let limited = trials().get("/stock").seeds(0..200).assertions_in("assertions::orders");
    let failure = failure_of(limited);
    let why = &failure.broken.why;
    assert!(why.starts_with("always: items come before the drain does not hold at sim/"), "{why}");
    assert!(failure.to_string().contains("to reproduce it, replace"), "{failure}");
}

#[test]
fn an_assertion_in_blocking_work_and_one_in_the_setup_are_seen() {
    // `of_orders` passes only if its assertion on a blocking thread is reached.
    let why = failure_of(trials().get("/orders").seeds(0..20).assertions_in("assertions::orders"));
    assert!(why.broken.why.contains("\"an order is hashed\""), "{why}");
    let failure = failure_of(trials().get("/stock/count").seeds(0..6));
    assert!(failure.broken.why.starts_with("always: one is more than two does not"), "{failure}");
    explore(setup::host).get("/orders").assertions_in("assertions::setup").run().unwrap();
}

#[test]
fn deploys_reach_assertions_too() {
    let deploy = |trials: Trials<Service>| trials.seeds(0..6).deploy(Deploy::rolling(1)).run();
    deploy(of_orders().assertions_in("assertions::orders")).unwrap();
    let failure = deploy(of_orders()).expect_err("no deploy reached some");
    assert_eq!(failure.broken.promise, "S7", "{failure}");
    assert!(failure.broken.why.contains("no run reached \"a discount is given\""), "{failure}");
}

/// Returns the message of the panic of a run.
fn panic_of(trials: Trials<Service>) -> String {
    let payload = catch_unwind(AssertUnwindSafe(|| trials.run())).expect_err("it proves nothing");
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}
