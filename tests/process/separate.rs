//! P16, P2, P3: probes have their own port, thread and descriptors.

mod names;
mod serving;
mod strangers;

use super::os_process::{is_child, passes};
use crate::support::{
    App, Client, Service, app::Workers, block, builder, now, pause, quick_plan, scratch_path,
    settings, until_holds, wire,
};
use axum::{Router, routing::get};
use lameduck::{Hook, Host, ReadinessCheck};
use std::{
    fs, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::Notify;

fn request(address: std::net::SocketAddr, method: &str, path: &str) -> wire::Answer {
    wire::request(
        address,
        &format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
    )
}

#[test]
fn each_server_serves_only_its_own_paths() {
    let service = Service::start(&[]);
    for path in [
        "/liveness",
        "/readiness",
        "/livez",
        "/readyz",
        "/serving",
        "/startupz",
        "/status",
        "/metrics",
    ] {
        assert_eq!(service.get(path).status, 404, "{path} on the main port");
        assert_eq!(service.probe(path).status, 200, "{path} on the internal port");
    }
    for path in ["/slow", "/metrics/"] {
        assert_eq!(service.probe(path).status, 404, "{path} on the internal port");
    }
}

#[test]
fn probes_treat_head_like_get_refuse_other_methods_and_are_never_stored() {
    let service = Service::start(&[]);
    for path in ["/liveness", "/readiness", "/serving", "/startupz", "/status", "/metrics"] {
        let mut client = Client::connect(service.internal);
        client.send(format!("HEAD {path} HTTP/1.1\r\nhost: localhost\r\n\r\n"));
        assert_eq!(client.head().unwrap().status, 200, "{path}");
        assert_eq!(
            client.get(path).header("cache-control"),
            Some("no-store"),
            "no body lay between the two"
        );
        let refused = request(service.internal, "POST", path);
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
    }
}

#[test]
fn the_status_is_json_with_what_an_operator_needs() {
    let service = Service::start(&["--app-version=1.2.3"]);
    let mut slow = Client::connect(service.main);
    slow.send_get("/slow?ms=2000");
    service.wait_for_in_flight(1);
    let answer = service.probe("/status");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let status: serde_json::Value = serde_json::from_str(&answer.body()).unwrap();
    assert_eq!((&status["phase"], &status["app_version"]), (&"serving".into(), &"1.2.3".into()));
    assert_eq!((&status["ready"], &status["live"]), (&true.into(), &true.into()));
    assert_eq!(status["serving"], true);
    assert_eq!((&status["in_flight"], &status["connections"]["open"]), (&1.into(), &1.into()));
    assert_eq!(status["plan"]["worst_case_ms"], 24_000);
    assert!(status["must_exit_within_ms"].is_null(), "nobody asked it to");
    assert_eq!(slow.answer().status, 200);
    service.terminate();
    let status = service.status();
    assert_eq!((&status["ready"], &status["serving"]), (&false.into(), &true.into()));
    let left = service.status()["must_exit_within_ms"].as_u64().unwrap();
    assert!(left > 10_000 && left <= 24_000, "{left}");
}

#[test]
fn a_failing_check_makes_it_unready_is_named_in_the_body_and_recovers() {
    let healthy = Arc::new(AtomicBool::new(true));
    let seen = healthy.clone();
    let check = ReadinessCheck::new("database", move || {
        let healthy = seen.load(Relaxed);
        async move {
            if healthy { Ok(()) } else { Err(io::Error::other("connection refused by db:5432")) }
        }
    });
    let hanging = ReadinessCheck::new("cache", || async { Ok::<(), io::Error>(()) })
        .interval(Duration::from_millis(20));
    let app = App::start(
        builder()
            .readiness_check(check.interval(Duration::from_millis(20)))
            .readiness_check(hanging)
            .serve(Router::new().route("/", get(|| async { "hello" }))),
    );
    until_holds("readiness", || app.probe("/readiness").status == 200);
    healthy.store(false, Relaxed);
    until_holds("the failure", || app.probe("/readiness").status == 503);
    let body = app.probe("/readyz").body();
    assert!(
        body.contains("database")
            && body.contains("connection refused by db:5432")
            && !body.contains("cache"),
        "{body}"
    );
    assert_eq!(
        app.probe("/liveness").status,
        200,
        "a failing dependency is no reason for a restart"
    );
    assert_eq!(app.get("/").body(), "hello", "nor for refusing anybody");
    healthy.store(true, Relaxed);
    until_holds("readiness again", || app.probe("/readiness").status == 200);
    assert_eq!(app.end().code(), 0);
}

// `/startupz` was 200 during the clean-up after a start that failed.
#[test]
fn a_start_that_failed_is_never_reported_as_complete() {
    let released = Arc::new(Notify::new());
    let waits = released.clone();
    let slow = Hook::on_stop("slow", move || async move {
        waits.notified().await;
        Ok::<(), io::Error>(())
    });
    let broken = Hook::on_start("broken", || async { Err::<(), _>(io::Error::other("no")) });
    let host = builder().hook(slow).hook(broken).serve(Router::new());
    let app = App::spawn(host, Workers::Task);
    app.wait_for_phase("cleaning_up");
    assert_eq!(app.probe("/startupz").status, 503);
    released.notify_one();
    assert_eq!(app.report().code(), 1);
}

// Checks end with the drain. Their last results became stale in it, and an operator read that the
// main runtime was stuck and a dependency down, in a process that only finished its requests.
#[test]
fn the_last_result_of_a_check_holds_through_the_drain() {
    let check = ReadinessCheck::new("database", || async { Ok::<(), io::Error>(()) })
        .interval(Duration::from_millis(20))
        .timeout(Duration::from_millis(20));
    let wait = get(|| async { pause(2_000).await });
    let settings = settings().plan(quick_plan().drain(Duration::from_secs(5)));
    let builder = Host::builder(settings).readiness_check(check);
    let app = App::start(builder.serve(Router::new().route("/wait", wait)));
    until_holds("readiness", || app.probe("/readiness").status == 200);
    let mut waiting = Client::connect(app.main);
    waiting.send_get("/wait");
    until_holds("the request", || app.status()["in_flight"] == 1);
    app.stop();
    app.wait_for_phase("draining");
    // A result is stale after 1.08 s.
    block(Duration::from_millis(1_300));
    let status = app.status();
    assert_eq!(
        (&status["phase"], &status["checks"][0]["passes"]),
        (&"draining".into(), &true.into())
    );
    assert_eq!(waiting.answer().status, 200);
    assert_eq!(app.report().code(), 0);
}

#[test]
fn checks_see_what_the_start_hooks_opened_as_soon_as_the_service_serves() {
    // The first run of a check was before the hooks, and the next a whole interval later. A pool
    // that was open after 0.3 s made the service ready after 5 s, and a check that runs once never
    // did. The start also waited for a check that hung because the pool was closed. Checks must run
    // as soon as the service serves (P2a).
    let is_open = Arc::new(AtomicBool::new(false));
    let (opened, asked, waited) = (is_open.clone(), is_open.clone(), is_open.clone());
    let open = move || async move {
        pause(300).await;
        opened.store(true, Relaxed);
        Ok::<(), io::Error>(())
    };
    let fails = ReadinessCheck::new("pool", move || {
        let is_open = asked.load(Relaxed);
        async move { if is_open { Ok(()) } else { Err(io::Error::other("not open")) } }
    });
    let hangs = ReadinessCheck::new("query", move || {
        let is_open = waited.load(Relaxed);
        async move { if is_open { Ok::<(), io::Error>(()) } else { std::future::pending().await } }
    });
    let app = App::start(
        builder()
            .hook(Hook::on_start("pool", open))
            .readiness_check(fails)
            .readiness_check(hangs.timeout(Duration::from_secs(60)).interval(Duration::MAX))
            .serve(Router::new()),
    );
    let serving = now();
    until_holds("readiness", || app.probe("/readiness").status == 200);
    assert!(serving.elapsed() < Duration::from_secs(3), "{:?}", serving.elapsed());
    assert_eq!(app.end().code(), 0);
}

#[test]
fn a_check_that_hangs_or_panics_fails_and_one_that_never_ran_is_not_ready() {
    let hanging = ReadinessCheck::new("hanging", std::future::pending::<Result<(), io::Error>>);
    let panicking = ReadinessCheck::new("panicking", || async {
        assert!(now().elapsed() > Duration::MAX, "on purpose");
        Ok::<(), io::Error>(())
    });
    let never = ReadinessCheck::new("never", std::future::pending::<Result<(), io::Error>>);
    let app = App::start(
        builder()
            .readiness_check(hanging.timeout(Duration::from_millis(50)))
            .readiness_check(panicking)
            .readiness_check(never.timeout(Duration::from_secs(60)))
            .serve(Router::new().route("/", get(|| async { "hello" }))),
    );
    until_holds("all three", || {
        let body = app.probe("/readiness").body();
        [
            "hanging fails: no result within 50ms",
            "panicked: on purpose",
            "never fails: has not run yet",
        ]
        .iter()
        .all(|words| body.contains(words))
    });
    assert_eq!(app.end().code(), 0, "checks hold nothing");
}

#[test]
fn probes_respond_while_every_worker_is_blocked_and_liveness_fails_until_they_recover() {
    let release = Arc::new(AtomicBool::new(false));
    let released = release.clone();
    let handler = move || {
        let released = released.clone();
        async move {
            while !released.load(Relaxed) {
                block(Duration::from_millis(10));
            }
            "blocked no more"
        }
    };
    let host = Host::builder(settings().request_timeout(None))
        .serve(Router::new().route("/block", get(handler)));
    let app = App::start_on(host, Workers::Threads(2));
    // The kernel chooses the worker of each connection. With enough of them, both workers get some.
    let mut clients: Vec<Client> = (0..32).map(|_| Client::connect(app.main)).collect();
    for client in &mut clients {
        client.send_get("/block");
    }
    until_holds("both workers blocked", || app.status()["in_flight"] == 2);
    let blocked = now();
    assert_eq!(app.probe("/readiness").status, 200);
    assert_eq!(app.probe("/liveness").status, 200, "a short block is none");
    until_holds("the wedge", || app.probe("/liveness").status == 503);
    assert!(
        blocked.elapsed() >= Duration::from_millis(2_500),
        "judged over two ticks: {:?}",
        blocked.elapsed()
    );
    let body = app.probe("/livez").body();
    assert!(
        body.contains("worker") && body.contains("it is busy with GET /block, which"),
        "{body}"
    );
    let blocked = app.status()["blocked"].clone();
    assert_eq!(
        (&blocked["request"]["method"], &blocked["request"]["path"]),
        (&"GET".into(), &"/block".into())
    );
    assert!(blocked["request"]["age_ms"].as_u64().unwrap() >= 2_500, "{blocked}");
    assert!(app.probe("/").body().contains("GET /block"), "the page names it");
    release.store(true, Relaxed);
    for client in &mut clients {
        assert_eq!(client.answer().body(), "blocked no more");
    }
    until_holds("life again", || app.probe("/liveness").status == 200);
    assert!(app.status()["blocked"].is_null());
    assert_eq!(app.end().code(), 0);
}

#[test]
fn a_stop_with_every_worker_blocked_ends_in_time_and_counts_the_cut_requests() {
    // A handler that blocks its worker can be neither cancelled nor dropped. The exit must cut it
    // in time, and the report must count it (P7, P13).
    let host = builder()
        .serve(Router::new().route("/block", get(|| async { block(Duration::from_secs(30)) })));
    let app = App::start_on(host, Workers::Threads(1));
    let mut client = Client::connect(app.main);
    client.send_get("/block");
    until_holds("the block", || app.status()["in_flight"] == 1);
    let asked = now();
    app.stop();
    app.wait_for_phase("draining");
    assert_eq!(app.probe("/liveness").status, 200, "P3: judged while Serving alone");
    let report = app.report();
    assert_eq!((report.code(), report.requests.aborted), (3, 1), "{report:?}");
    assert!(
        asked.elapsed() < quick_plan().worst_case() + Duration::from_secs(2),
        "P7: {:?}",
        asked.elapsed()
    );
}

#[test]
fn users_add_internal_routes_and_replace_built_in_ones() {
    let app = App::start(
        builder()
            .internal_route("/metrics", |request: http::Request<lameduck::Body>| async move {
                http::Response::new(format!("up 1 # {}\n", request.method()))
            })
            .internal_route("/livez", |_| async { http::Response::new("mine") })
            .internal_route("/panics", |_| async {
                if now().elapsed() < Duration::MAX {
                    panic!("on purpose")
                } else {
                    http::Response::new("")
                }
            })
            .serve(Router::new().route("/", get(|| async { "hello" }))),
    );
    assert_eq!(app.probe("/metrics").body(), "up 1 # GET\n");
    assert_eq!(request(app.internal, "POST", "/metrics").body(), "up 1 # POST\n");
    assert_eq!(app.probe("/livez").body(), "mine");
    assert_eq!(app.get("/metrics").status, 404);
    assert_eq!(app.probe("/panics").status, 500);
    assert_eq!(app.probe("/liveness").status, 200);
    assert_eq!(app.end().code(), 0);
}

/// A scrape that hung was logged as a request that the shutdown aborted, after a report that counts
/// none and the exit code 0.
#[test]
fn an_internal_route_that_never_ends_does_not_delay_the_exit() {
    if !is_child() {
        return passes("separate::an_internal_route_that_never_ends_does_not_delay_the_exit");
    }
    let path = scratch_path("log");
    let log = Arc::new(fs::File::create(&path).unwrap());
    tracing_subscriber::fmt().with_ansi(false).with_writer(log).init();
    let app = App::start(
        builder()
            .internal_route("/hangs", |_| async {
                std::future::pending::<()>().await;
                http::Response::new("never")
            })
            .serve(Router::new()),
    );
    let mut client = Client::connect(app.internal);
    client.send_get("/hangs");
    let asked = now();
    let report = app.end();
    assert_eq!(report.code(), 0, "what the internal server cuts is no request of the service");
    assert!(
        asked.elapsed() < quick_plan().worst_case() + Duration::from_secs(2),
        "{:?}",
        asked.elapsed()
    );
    // It is cut by now.
    let _ = client.try_answer();
    let log = fs::read_to_string(&path).unwrap();
    fs::remove_file(path).unwrap();
    assert!(!log.contains("request aborted"), "{log}");
    assert!(log.lines().last().unwrap().contains("verdict=\"clean\""), "the report: {log}");
}

#[test]
fn idle_probe_connections_and_half_requests_do_not_delay_the_exit() {
    let mut service = Service::start(&["--lame-duck=0s", "--internal-close=10s"]);
    let _silent = Client::connect(service.internal);
    let mut idle = Client::connect(service.internal);
    assert_eq!(idle.get("/livez").status, 200);
    let mut half = Client::connect(service.internal);
    half.send("GET /livez HT");
    let asked = now();
    service.signal(rustix::process::Signal::TERM);
    let (code, took) = service.exit_code_since(asked);
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn probes_respond_while_silent_connections_fill_the_internal_server() {
    // P16: the internal server accepts 128 connections, and kept silent ones as long as the main
    // server, for 620 s. A client that held them made the platform restart the process. Probes must
    // still get responses.
    let service = Service::start(&[]);
    let _silent: Vec<Client> = (0..300).map(|_| Client::connect(service.internal)).collect();
    let asked = now();
    assert_eq!(service.probe("/livez").status, 200);
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
}

#[test]
fn a_check_may_run_only_once() {
    // A result is stale after twice the interval, and that product overflowed: the host panicked
    // before it was bound. An infinite interval must be possible.
    let once = ReadinessCheck::new("migrated", || async { Ok::<(), io::Error>(()) })
        .interval(Duration::MAX);
    let app = App::start(builder().readiness_check(once).serve(Router::new()));
    until_holds("readiness", || app.probe("/readiness").status == 200);
    assert_eq!(app.end().code(), 0);
}
