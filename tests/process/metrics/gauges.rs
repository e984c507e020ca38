//! Gauges: connections by state, phases, results of the probes, latency, the process.

use super::page::{CLASSIC, Page};
use crate::support::{
    App, Client, Service, app::Workers, block, builder, frames, quick_plan, settings, until_holds,
};
use axum::{Router, routing::get};
use lameduck::{Host, ReadinessCheck};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

fn states(service: &Service) -> [f64; 5] {
    let page = Page::scrape(service.internal, CLASSIC);
    ["parked", "http1", "http2", "lingering", "upgraded"]
        .map(|state| page.of_host(&format!("connections{{state=\"{state}\"}}")))
}

#[test]
fn connections_are_counted_by_state() {
    let service = Service::start(&[]);
    let silent = Client::connect(service.main);
    until_holds("one without a byte", || states(&service) == [1.0, 0.0, 0.0, 0.0, 0.0]);
    let mut slow = Client::connect(service.main);
    slow.send_get("/stuck?ms=60000");
    until_holds("one with a request", || states(&service) == [1.0, 1.0, 0.0, 0.0, 0.0]);
    let mut http2 = frames::Http2::connect(service.main);
    let stream = http2.get("/");
    assert_eq!(http2.body(stream), "hello world");
    until_holds("one that speaks HTTP/2", || states(&service) == [1.0, 1.0, 1.0, 0.0, 0.0]);
    let mut upgraded = Client::connect(service.main);
    upgraded.send(
        "GET /upgrade HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
    );
    assert_eq!(upgraded.head().map(|head| head.status), Ok(101));
    until_holds("one that speaks something else", || states(&service) == [1.0, 1.0, 1.0, 0.0, 1.0]);
    drop((silent, slow, http2, upgraded));
    until_holds("none", || states(&service) == [0.0; 5]);
}

#[test]
fn an_idle_connection_is_parked_again() {
    let service = Service::start(&[]);
    let mut client = Client::connect(service.main);
    assert_eq!(client.get("/").status, 200);
    until_holds("parked", || states(&service) == [1.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn latency_runs_from_the_head_to_the_response_and_counts_only_finished_requests() {
    let service = Service::start(&["--request-timeout=200ms"]);
    assert_eq!(service.get("/slow?ms=120").status, 200);
    assert_eq!(
        service.get("/stream?ms=400").status,
        200,
        "the deadline is for the head, the latency for the whole"
    );
    assert_eq!(service.get("/slow?ms=9000").status, 503);
    let mut http2 = frames::Http2::connect(service.main);
    let stream = http2.get("/");
    assert_eq!(http2.body(stream), "hello world");
    until_holds("three are counted", || service.status()["requests"]["finished"] == 3);
    let page = Page::scrape(service.internal, CLASSIC);
    let below =
        |bound: &str| page.of_host(&format!("request_duration_seconds_bucket{{le=\"{bound}\"}}"));
    assert_eq!([below("0.1"), below("+Inf")], [1.0, 3.0], "{}", page.text);
    assert_eq!(page.of_host("request_duration_seconds_count"), 3.0);
    let sum = page.of_host("request_duration_seconds_sum");
    assert!((0.5..5.0).contains(&sum), "{sum}");
}

#[test]
fn a_stop_is_seen_phase_by_phase() {
    let service = Service::start(&["--lame-duck=100ms", "--drain=20s"]);
    let mut slow = Client::connect(service.main);
    slow.send_get("/slow?ms=3000");
    service.wait_for_in_flight(1);
    let serving = Page::scrape(service.internal, CLASSIC);
    assert_eq!((serving.of_host("ready"), serving.of_host("live")), (1.0, 1.0));
    assert_eq!(serving.of_host("serving"), 1.0);
    assert_eq!(serving.of_host("shutdown_elapsed_seconds"), 0.0);
    assert_eq!(
        serving.try_sample("lameduck_shutdown_deadline_timestamp_seconds"),
        None,
        "nobody asked it to stop"
    );
    service.terminate();
    service.wait_for_phase("draining");
    let draining = Page::scrape(service.internal, CLASSIC);
    assert_eq!((draining.of_host("ready"), draining.of_host("live")), (0.0, 1.0));
    assert_eq!(draining.of_host("serving"), 0.0);
    let current: Vec<_> =
        draining.like("lameduck_phase{").into_iter().filter(|(_, value)| *value > 0.0).collect();
    assert_eq!(current, [("lameduck_phase{phase=\"draining\"}", 1.0)]);
    assert!(draining.of_host("shutdown_elapsed_seconds") >= 0.1);
    #[expect(clippy::disallowed_methods, reason = "it is compared with the calendar")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let left = draining.of_host("shutdown_deadline_timestamp_seconds") - now;
    let bound = draining.of_host("shutdown_worst_case_seconds");
    assert!(left > 0.0 && left <= bound, "{left} of {bound}");
    let lame_duck = draining.of_host("phase_seconds_total{phase=\"lame_duck\"}");
    assert!((0.1..5.0).contains(&lame_duck), "{lame_duck}");
    assert_eq!(draining.of_host("phase_seconds_total{phase=\"cancelling\"}"), 0.0);
    assert_eq!(slow.answer().status, 200);
}

#[test]
fn a_failing_check_is_named() {
    let healthy = Arc::new(AtomicBool::new(true));
    let probe = healthy.clone();
    let check = ReadinessCheck::new("database", move || {
        let healthy = probe.load(Relaxed);
        async move { if healthy { Ok(()) } else { Err(io::Error::other("no route to it")) } }
    });
    let check = check.interval(Duration::from_millis(20));
    let app = App::start(builder().readiness_check(check).serve(Router::new()));
    let sees = |ready: f64| {
        let page = Page::scrape(app.internal, CLASSIC);
        (page.of_host("check_passing{check=\"database\"}"), page.of_host("ready")) == (ready, ready)
    };
    until_holds("it passes", || sees(1.0));
    healthy.store(false, Relaxed);
    until_holds("it fails", || sees(0.0));
    let _ = app.end();
}

#[test]
fn process_metrics_have_their_standard_names() {
    let service = Service::start(&[]);
    let page = Page::scrape(service.internal, CLASSIC);
    if !cfg!(target_os = "linux") {
        return;
    }
    let of_process = |name: &str| page.try_sample(&format!("process_{name}")).expect(name);
    assert!(of_process("resident_memory_bytes") > 1e6);
    assert!(of_process("virtual_memory_bytes") >= of_process("resident_memory_bytes"));
    assert!(of_process("open_fds") > 3.0 && of_process("open_fds") < of_process("max_fds"));
    assert!((0.0..60.0).contains(&of_process("cpu_seconds_total")));
    #[expect(clippy::disallowed_methods, reason = "it is compared with the calendar")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let age = now - of_process("start_time_seconds");
    assert!((-2.0..60.0).contains(&age), "it began {age} s ago");
}

#[test]
fn descriptors_in_use_follow_the_connections() {
    let service = Service::start(&[]);
    let open =
        || Page::scrape(service.internal, CLASSIC).try_sample("process_open_fds").unwrap_or(0.0);
    let before = open();
    let clients: Vec<Client> = (0..40).map(|_| Client::connect(service.main)).collect();
    until_holds("forty more", || !cfg!(target_os = "linux") || open() >= before + 40.0);
    drop(clients);
}

#[test]
fn the_page_responds_while_all_workers_are_blocked() {
    let held = Arc::new(AtomicBool::new(true));
    let holds = held.clone();
    let blocking = move || {
        let holds = holds.clone();
        async move {
            while holds.load(Relaxed) {
                block(Duration::from_millis(5));
            }
        }
    };
    let host =
        Host::builder(settings().plan(quick_plan())).serve(Router::new().route("/", get(blocking)));
    let app = App::start_on(host, Workers::Threads(1));
    let mut client = Client::connect(app.main);
    client.send_get("/");
    until_holds("it is in flight", || {
        Page::scrape(app.internal, CLASSIC).of_host("requests_in_flight") == 1.0
    });
    assert_eq!(
        Page::scrape(app.internal, CLASSIC).try_sample("process_open_fds"),
        None,
        "a host in somebody's world"
    );
    held.store(false, Relaxed);
    assert_eq!(client.answer().status, 200);
    let _ = app.end();
}
