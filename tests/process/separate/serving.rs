//! P2b: `/serving` holds through the lame duck delay, unless the process stopped itself.

use crate::support::{App, Client, app::Workers, quick_plan, settings, until_holds};
use axum::{Router, routing::get};
use lameduck::{
    BackgroundTask, Host, ReadinessCheck,
    lifecycle::{Plan, Signal},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

/// A plan whose lame duck delay outlasts the test. A further SIGINT ends it.
fn long_delay() -> Plan {
    quick_plan().lame_duck(Duration::from_secs(60))
}

#[test]
fn serving_holds_through_the_lame_duck_delay_and_ends_before_the_listeners() {
    // The kubelet probe of the manifest failed from SIGTERM on, so the endpoint was terminating and
    // not serving. kube-proxy had no fallback to it, and Cilium cut its connections, although the
    // process would have served them. `/serving` must hold during the delay (P2b).
    let app = App::start(
        Host::builder(settings().plan(long_delay()).grace_period(Duration::ZERO))
            .serve(Router::new().route("/", get(|| async { "hello" }))),
    );
    assert_eq!(
        (app.probe("/serving").status, app.probe("/serving").body().as_str()),
        (200, "serving\n")
    );
    app.signal(Signal::Terminate);
    app.wait_for_phase("lame_duck");
    assert_eq!((app.probe("/readiness").status, app.probe("/serving").status), (503, 200));
    assert_eq!(app.get("/").status, 200);
    let mut held = Client::connect(app.main);
    held.send("POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n1");
    app.signal(Signal::Interrupt);
    app.wait_for_phase("draining");
    let refused = app.probe("/serving");
    assert_eq!(
        (refused.status, refused.body().as_str()),
        (503, "not serving: phase is draining\n")
    );
    assert_eq!(app.report().code(), 0);
}

#[test]
fn serving_ends_at_once_after_a_stop_that_the_process_requested_itself() {
    // A background task fails, or code calls the shutdown handle. No platform is notified of that
    // stop, so the probe must fail at once (P2b).
    let app = App::start(
        Host::builder(settings().plan(long_delay()).grace_period(Duration::ZERO))
            .serve(Router::new()),
    );
    app.stop();
    app.wait_for_phase("lame_duck");
    let refused = app.probe("/serving");
    assert_eq!(refused.status, 503);
    assert_eq!(
        refused.body(),
        "not serving: phase is lame_duck, and the process requested the stop itself\n"
    );
    app.signal(Signal::Interrupt);
    assert_eq!(app.report().code(), 0);

    let fail = Arc::new(tokio::sync::Notify::new());
    let failing = fail.clone();
    let app = App::start(
        Host::builder(settings().plan(long_delay()).grace_period(Duration::ZERO))
            .background_task(BackgroundTask::new("feed", move |_| async move {
                failing.notified().await;
                Err::<(), _>(io::Error::other("on purpose"))
            }))
            .serve(Router::new()),
    );
    assert_eq!(app.probe("/serving").status, 200);
    fail.notify_one();
    app.wait_for_phase("lame_duck");
    assert_eq!(app.probe("/serving").status, 503);
    app.signal(Signal::Interrupt);
    assert_eq!(app.report().code(), 1);
}

#[test]
fn checks_run_during_the_lame_duck_delay_and_serving_follows_them() {
    // The checks ended at the stop request. In a delay of 35 s their last results became stale: a
    // probe that needs them would have failed on a healthy process, or passed without a database.
    // Checks must run during the delay (P2b).
    let (healthy, runs) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (seen, counted) = (healthy.clone(), runs.clone());
    let check = ReadinessCheck::new("database", move || {
        counted.fetch_add(1, Relaxed);
        let healthy = seen.load(Relaxed);
        async move { if healthy { Ok(()) } else { Err(io::Error::other("lost")) } }
    });
    let app = App::start(
        Host::builder(settings().plan(long_delay()).grace_period(Duration::ZERO))
            .readiness_check(check.interval(Duration::from_millis(20)))
            .serve(Router::new()),
    );
    until_holds("the first check", || app.probe("/serving").status == 200);
    app.signal(Signal::Terminate);
    app.wait_for_phase("lame_duck");
    let before = runs.load(Relaxed);
    until_holds("a check in the delay", || runs.load(Relaxed) > before + 1);
    assert_eq!(app.probe("/serving").status, 200);
    healthy.store(false, Relaxed);
    until_holds("its failure", || {
        app.probe("/serving").body() == "not serving: check database fails: lost\n"
    });
    healthy.store(true, Relaxed);
    until_holds("its recovery", || app.probe("/serving").status == 200);
    app.signal(Signal::Interrupt);
    assert_eq!(app.report().code(), 0);
}

#[test]
fn a_worker_wedged_in_the_lame_duck_delay_is_not_serving_but_alive() {
    let release = Arc::new(AtomicBool::new(false));
    let released = release.clone();
    let handler = move || {
        let released = released.clone();
        async move {
            while !released.load(Relaxed) {
                crate::support::block(Duration::from_millis(10));
            }
        }
    };
    let host = Host::builder(
        settings().plan(long_delay()).grace_period(Duration::ZERO).request_timeout(None),
    )
    .serve(Router::new().route("/block", get(handler)));
    let app = App::start_on(host, Workers::Threads(1));
    app.signal(Signal::Terminate);
    app.wait_for_phase("lame_duck");
    let mut client = Client::connect(app.main);
    client.send_get("/block");
    until_holds("the wedge", || app.probe("/serving").body().contains("worker 0"));
    assert_eq!(app.probe("/liveness").status, 200, "P3: a restart would only cut what is served");
    release.store(true, Relaxed);
    until_holds("its end", || app.probe("/serving").status == 200);
    assert_eq!(client.answer().status, 200);
    app.signal(Signal::Interrupt);
    assert_eq!(app.report().code(), 0);
}
