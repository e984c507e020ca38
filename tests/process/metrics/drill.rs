//! P5, P13: after a drill, the last scrape of an operator agrees with the report exactly.

#![expect(clippy::unwrap_used, reason = "a drill that cannot be held should fail the test")]

use super::page::{CLASSIC, OPENMETRICS, Page};
use crate::support::{Client, Service, until_holds};
use rustix::process::Signal;
use serde_json::Value;

/// Half a head keeps the internal server open for a second after the start of its close. The rest
/// of the head then scrapes at the very end.
struct LastScrape(Client);

impl LastScrape {
    fn prepare(service: &Service, accept: &str) -> Self {
        let mut client = Client::connect(service.internal);
        client.send(format!("GET /metrics HTTP/1.1\r\nhost: localhost\r\naccept: {accept}\r\n"));
        Self(client)
    }

    fn take(mut self) -> Page {
        self.0.send("\r\n");
        Page::of(&self.0.answer())
    }
}

#[track_caller]
fn assert_agrees(page: &Page, report: &Value) {
    let requests = &report["requests"];
    let connections = &report["connections"];
    let pairs = [
        ("requests_started_total", &requests["started"]),
        ("requests_total{outcome=\"finished\"}", &requests["finished"]),
        ("requests_total{outcome=\"timed_out\"}", &requests["timed_out"]),
        ("requests_total{outcome=\"aborted\"}", &requests["aborted"]),
        ("requests_total{outcome=\"gone\"}", &requests["gone"]),
        ("requests_in_flight", &requests["in_flight"]),
        ("request_duration_seconds_count", &requests["finished"]),
        ("request_duration_seconds_bucket{le=\"+Inf\"}", &requests["finished"]),
        ("panics_total", &requests["panicked"]),
        ("work_dropped_total", &report["work_dropped"]),
        ("work_panicked_total", &report["work_panicked"]),
        ("connections_accepted_total", &connections["accepted"]),
        ("connections_drained_total", &connections["drained"]),
        ("connections_reset_total", &connections["reset"]),
        ("close_races_total", &connections["close_races"]),
        ("connections_upgraded_total", &connections["upgraded"]),
        ("accept_errors_total", &connections["accept_errors"]),
    ];
    for (sample, reported) in pairs {
        let reported = reported.as_u64().unwrap_or_else(|| panic!("no {sample} in {report}"));
        #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
        let reported = reported as f64;
        assert!(
            (page.of_host(sample) - reported).abs() < f64::EPSILON,
            "{sample} is not {reported} in {}",
            page.text
        );
    }
    // The duration of each finished phase agrees with the report, which has whole milliseconds.
    for phase in report["phases"].as_array().unwrap() {
        let name = phase["phase"].as_str().unwrap();
        if ["lame_duck", "draining", "cancelling"].contains(&name) {
            let ms = page.of_host(&format!("phase_seconds_total{{phase=\"{name}\"}}")) * 1000.0;
            assert!((ms - phase["ms"].as_f64().unwrap()).abs() <= 1.0, "{name}: {ms} ms, {phase}");
        }
    }
}

#[test]
fn the_last_scrape_agrees_with_the_report_exactly() {
    let mut service = Service::start(&[
        "--request-timeout=300ms",
        "--lame-duck=200ms",
        "--drain=300ms",
        "--cancel=600ms",
    ]);
    for n in 0..25 {
        assert_eq!(service.get(if n % 2 == 0 { "/" } else { "/slow?ms=5" }).status, 200);
    }
    assert_eq!(service.get("/panic").status, 500);
    assert_eq!(service.get("/slow?ms=5000").status, 503, "its deadline came first");
    // A client that leaves with most of a response unread, so that the kernel sends a reset.
    let mut leaver = Client::connect(service.main);
    leaver.send_get("/big?bytes=100000000");
    assert_eq!(leaver.head().unwrap().status, 200);
    drop(leaver);
    until_holds("the one who left is counted", || service.status()["requests"]["gone"] == 1);
    let mut idle = Client::connect(service.main);
    assert_eq!(idle.get("/").status, 200);
    let mut stuck = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(service.main);
        client.send_get("/stuck?ms=60000&head=1");
        assert_eq!(client.head().unwrap().status, 200, "no deadline cuts what has begun");
        stuck.push(client);
    }
    let before = Page::scrape(service.internal, CLASSIC);
    assert_eq!(
        (before.of_host("requests_in_flight"), before.of_host("requests_started_total")),
        (3.0, 32.0)
    );

    service.terminate();
    let (classic, open) =
        (LastScrape::prepare(&service, CLASSIC), LastScrape::prepare(&service, OPENMETRICS));
    service.wait_for_phase("cleaning_up");
    let pages = [classic.take(), open.take()];
    assert_eq!(service.exit_code(), 3, "requests were cut");

    let report = service.report();
    assert_eq!(
        report["requests"]["finished"], 27,
        "25 and the idle one's, and the 500 after a panic"
    );
    assert_eq!(report["requests"]["aborted"], 3);
    assert_eq!(
        (&report["requests"]["timed_out"], &report["requests"]["gone"]),
        (&1.into(), &1.into())
    );
    for page in &pages {
        assert_agrees(page, &report);
        assert_eq!(page.of_host("requests_aborted_by_stop_total"), 3.0);
        assert_eq!(page.of_host("phase{phase=\"cleaning_up\"}"), 1.0);
        assert_eq!(
            page.like("lameduck_connections{").iter().map(|(_, open)| open).sum::<f64>(),
            0.0,
            "all are closed"
        );
        assert_eq!(
            page.of_host("shutdown_worst_case_seconds") * 1000.0,
            report["worst_case_ms"].as_f64().unwrap()
        );
    }
}

#[test]
fn a_clean_run_leaves_all_other_outcomes_at_zero() {
    let mut service = Service::start(&["--lame-duck=100ms"]);
    for _ in 0..10 {
        assert_eq!(service.get("/").status, 200);
    }
    service.signal(Signal::TERM);
    service.wait_for_phase("lame_duck");
    let last = LastScrape::prepare(&service, OPENMETRICS);
    service.wait_for_phase("cleaning_up");
    let page = last.take();
    assert_eq!(service.exit_code(), 0);
    assert_agrees(&page, &service.report());
    assert_eq!(page.of_host("requests_total{outcome=\"finished\"}"), 10.0);
    assert_eq!(page.of_host("requests_aborted_by_stop_total"), 0.0);
}
