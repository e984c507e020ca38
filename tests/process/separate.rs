//! P16, P2, P3: probes have their own port, thread and descriptors.

use crate::support::{
    App, Client, Service,
    app::Workers,
    aside, builder,
    frames::{END_HEADERS, END_STREAM, HEADERS, Http2, frame},
    now, quick_plan, settings, until_holds, wire,
};
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
    slow.send_get("/slow?ms=800");
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

#[test]
fn checks_see_what_the_start_hooks_opened_as_soon_as_the_service_serves() {
    // The first run of a check was before the hooks, and the next a whole interval later. A pool
    // that was open after 0.3 s made the service ready after 5 s, and a check that runs once never
    // did. The start also waited for a check that hung because the pool was closed. Checks must run
    // as soon as the service serves (P2a).
    let is_open = Arc::new(AtomicBool::new(false));
    let (opened, asked, waited) = (is_open.clone(), is_open.clone(), is_open.clone());
    let open = move || async move {
        crate::support::pause(300).await;
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
            .hook(lameduck::Hook::on_start("pool", open))
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
                crate::support::block(Duration::from_millis(10));
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
    let host = builder().serve(
        Router::new()
            .route("/block", get(|| async { crate::support::block(Duration::from_secs(30)) })),
    );
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

#[test]
fn an_internal_route_that_never_ends_does_not_delay_the_exit() {
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

/// Returns the status of a request with these lines, on a new connection.
fn status_of(address: std::net::SocketAddr, head: &str) -> u16 {
    wire::request(address, &format!("{head}\r\nconnection: close\r\n\r\n")).status
}

#[test]
fn a_web_page_cannot_read_the_status_through_its_own_dns_name() {
    // DNS rebinding: the own name of a web page resolves to an internal address, and the browser
    // sends the page's requests there. `/status` responded to any Host, with addresses, version and
    // plan. Unknown names must be refused (P16).
    let app = App::start(
        Host::builder(settings().internal_host("app.default.svc").internal_host(".pods.example"))
            .internal_route("/mine", |_| async { http::Response::new("mine") })
            .serve(Router::new().route("/", get(|| async { "hello" }))),
    );
    let internal = app.internal;
    for path in ["/status", "/metrics", "/readiness", "/serving", "/liveness", "/mine", "/nowhere"]
    {
        let refused = wire::request(
            internal,
            &format!("GET {path} HTTP/1.1\r\nhost: evil.example:8081\r\nconnection: close\r\n\r\n"),
        );
        assert_eq!(refused.status, 421, "{path}");
        let text = refused.body();
        assert!(text.contains("evil.example:8081") && text.contains("internal_hosts"), "{text}");
    }
    assert_eq!(
        status_of(internal, "POST /mine HTTP/1.1\r\nhost: evil.example\r\ncontent-length: 0"),
        421
    );
    assert_eq!(
        status_of(internal, "GET http://evil.example/status HTTP/1.1\r\nhost: 127.0.0.1"),
        421,
        "absolute form"
    );
    // A kubelet, Prometheus by address and by a configured name, people, and requests without a
    // Host.
    for host in
        [internal.to_string(), "127.0.0.1".into(), "[::1]:8081".into(), "localhost:8081".into()]
    {
        assert_eq!(
            status_of(internal, &format!("GET /status HTTP/1.1\r\nhost: {host}")),
            200,
            "{host}"
        );
    }
    for host in ["app.default.svc:8081", "APP.default.svc.", "app-0.pods.example:8081"] {
        assert_eq!(
            status_of(internal, &format!("GET /metrics HTTP/1.1\r\nhost: {host}")),
            200,
            "{host}"
        );
    }
    assert_eq!(status_of(internal, "GET /readiness HTTP/1.0"), 200, "HAProxy's httpchk");
    assert_eq!(
        status_of(app.main, "GET / HTTP/1.1\r\nhost: www.example"),
        200,
        "the main server serves every name"
    );
    assert_eq!(app.end().code(), 0);
}

#[test]
fn a_rebound_dns_name_is_refused_over_http2() {
    let app = App::start(builder().serve(Router::new()));
    let mut http2 = Http2::connect(app.internal);
    let stream = http2.get_from("evil.example", "/status");
    assert!(http2.body(stream).contains("is not allowed here"));
    let stream = http2.get_from("localhost", "/serving");
    assert_eq!(http2.body(stream), "serving\n");
    assert_eq!(app.end().code(), 0);
}

#[test]
fn an_internal_unix_socket_responds_to_any_name() {
    // No web page can reach a Unix socket, and clients invent a name for it.
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream,
    };
    let path = crate::support::scratch_path("internal.sock");
    let mut service = Service::watch(crate::support::service::command().args([
        "--addr=127.0.0.1:0",
        "--log-format=json",
        "--lame-duck=0s",
        &format!("--internal-addr=unix:{}", path.display()),
    ]));
    service.wait_for_phase("serving");
    let mut stream = UnixStream::connect(&path).expect("it listens");
    stream
        .write_all(b"GET /serving HTTP/1.1\r\nhost: made-up.example\r\nconnection: close\r\n\r\n")
        .expect("it reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("it responds");
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    let asked = now();
    service.signal(rustix::process::Signal::TERM);
    assert_eq!(service.exit_code_since(asked).0, 0);
}

/// Returns the number of streams that have ended.
fn asked_to_the_end(client: &Http2) -> u64 {
    client.seen.iter().filter(|frame| frame.ends_stream()).count() as u64
}

/// More connections than the internal port accepts.
const STRANGERS: usize = 140;

/// Sends probes one after the other. Each must get its response within the timeout of a probe, 1 s.
#[track_caller]
fn probes_are_responded_to(what: &str, internal: std::net::SocketAddr) {
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        let asked = now();
        assert_eq!(wire::get(internal, "/livez").status, 200, "{what}");
        longest = longest.max(asked.elapsed());
    }
    assert!(longest < Duration::from_secs(1), "{what}: {longest:?}");
    report(&format!("{what}: {} ms at most", longest.as_millis()));
}

#[expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "the measure, shown by --nocapture"
)]
fn report(line: &str) {
    println!("{line}");
}

fn per_second(count: u64, begin: std::time::Instant) -> u64 {
    count * 1_000 / u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
}

#[test]
fn probes_respond_whatever_other_clients_hold_on_their_port() {
    // P16: 128 connections to the internal port each requested a page that their HTTP/2 windows did
    // not let out. Every probe waited for as long as they stayed. Probes must get responses.
    let service = Service::start(&[]);
    let internal = service.internal;
    let preface =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])[..]].concat();
    let status = frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x82\x86\x04\x07/status");
    let half_block = frame(HEADERS, END_STREAM, 1, b"\x82\x86\x04\x07/status");
    let pages = "GET /status HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(300);
    let cases: [(&str, Vec<u8>); 10] = [
        ("no byte", Vec::new()),
        ("HTTP/2 with closed windows", [&preface[..], &status].concat()),
        ("the preface of HTTP/2", preface[..24].to_vec()),
        ("HTTP/2 without a request", preface.clone()),
        ("HTTP/2 with half a header block", [&preface[..], &half_block].concat()),
        ("a pipeline whose responses are not read", pages.into_bytes()),
        ("a partial head", b"GET /livez HTTP/1.1\r\nhost: localhost\r\n".to_vec()),
        ("a byte of a head", b"G".to_vec()),
        (
            "half a body",
            b"POST /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n1234".to_vec(),
        ),
        ("an idle connection", b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        let held: Vec<Client> = (0..STRANGERS)
            .map(|_| {
                let mut client = Client::connect(internal);
                let _ = client.try_send_within(&bytes, Duration::from_millis(200));
                client
            })
            .collect();
        probes_are_responded_to(what, internal);
        drop(held);
    }
}

#[test]
fn probes_respond_while_other_clients_connect_again_and_again() {
    let service = Service::start(&[]);
    let internal = service.internal;
    for (what, bytes) in
        [("connects without a byte", &b""[..]), ("half heads", b"GET /livez HTTP/1.1\r\n")]
    {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let strangers = aside(move || {
            let mut held = std::collections::VecDeque::new();
            let (begin, mut connects) = (now(), 0);
            while !seen.load(Relaxed) {
                let Ok(mut client) = Client::try_connect(internal) else { continue };
                let _ = client.try_send(bytes);
                held.push_back(client);
                connects += 1;
                if held.len() > STRANGERS {
                    held.pop_front();
                }
            }
            per_second(connects, begin)
        });
        probes_are_responded_to(what, internal);
        over.store(true, Relaxed);
        report(&format!("{what}: {} connections a second", strangers.join().unwrap()));
    }
}

#[test]
fn probes_respond_during_a_flood_of_page_requests() {
    // Many connections that send requests as fast as they can, over HTTP/1 and HTTP/2.
    let service = Service::start(&[]);
    let internal = service.internal;
    let over = Arc::new(AtomicBool::new(false));
    let strangers = [0, 1].map(|kind| {
        let seen = over.clone();
        aside(move || {
            let (begin, mut asked) = (now(), 0);
            while !seen.load(Relaxed) {
                if kind == 0 {
                    let mut clients: Vec<Client> =
                        (0..60).filter_map(|_| Client::try_connect(internal).ok()).collect();
                    for client in &mut clients {
                        let _ = client.try_send(
                            "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20),
                        );
                    }
                    asked += clients
                        .iter_mut()
                        .map(|client| {
                            (0..20).map_while(|_| client.try_answer().ok()).count() as u64
                        })
                        .sum::<u64>();
                } else {
                    let mut clients: Vec<Http2> =
                        (0..60).map(|_| Http2::connect(internal)).collect();
                    for client in &mut clients {
                        for stream in 0..16 {
                            let head = b"\x82\x86\x04\x07/status";
                            let frame =
                                frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, head);
                            let _ = client.try_send(&frame, Duration::from_millis(100));
                        }
                    }
                    for client in &mut clients {
                        while asked_to_the_end(client) < 16 && client.next().is_some() {}
                        asked += asked_to_the_end(client);
                    }
                }
            }
            per_second(asked, begin)
        })
    });
    probes_are_responded_to("a flood of /metrics and /status", internal);
    over.store(true, Relaxed);
    let rates = strangers.map(|strangers| strangers.join().unwrap());
    report(&format!("pages a second over HTTP/1 and HTTP/2: {rates:?}"));
}

#[test]
fn probes_respond_while_a_user_route_holds_every_connection() {
    let app = App::start(
        builder()
            .internal_route("/hangs", |_| async {
                std::future::pending::<()>().await;
                http::Response::new("never")
            })
            .serve(Router::new()),
    );
    let _held: Vec<Client> = (0..STRANGERS)
        .map(|_| {
            let mut client = Client::connect(app.internal);
            client.send_get("/hangs");
            client
        })
        .collect();
    probes_are_responded_to("a route that does not respond", app.internal);
    assert_eq!(app.end().code(), 0);
}
