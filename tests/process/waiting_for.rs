//! P13: the log names what a shutdown waits for.

use crate::support::{Client, Service, until};
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn the_log_names_what_a_drain_waits_for_and_what_it_dropped() {
    // An operator saw zeros in the log while tracked work delayed a drain, and the warning that it
    // was dropped named nothing. Both must name it (P13).
    let mut service = Service::start(&[
        "--lame-duck=100ms",
        "--drain=500ms",
        "--cancel=500ms",
        "--request-timeout=30s",
    ]);
    assert_eq!(service.get("/work?ms=60000").status, 202);
    let mut upgraded = Client::connect(service.main);
    upgraded
        .send("GET /upgrade HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    assert_eq!(upgraded.head().unwrap().status, 101);
    let mut stuck = Client::connect(service.main);
    stuck.send_get("/stuck?ms=60000");
    service.wait_for_in_flight(1);
    let busy = until("the upgrade", || {
        Some(service.status()).filter(|status| status["waiting_for"]["by_kind"]["upgrade"] == 1)
    });
    assert_eq!(busy["waiting_for"]["by_kind"]["request"], 1, "{busy}");
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 3);
    let lines = service.lines();
    for phase in ["draining", "cancelling"] {
        let line = lines
            .iter()
            .find(|line| line["phase"] == phase && line.get("connections").is_some())
            .unwrap();
        let waiting_for = line["waiting_for"].as_str().unwrap_or_else(|| panic!("{line}"));
        for name in ["GET /work (work, ", "GET /stuck (request, ", "GET /upgrade (upgrade, "] {
            assert!(waiting_for.contains(name), "no {name} in {line}");
        }
        assert!(!waiting_for.contains("60000"), "no query: {line}");
    }
    let dropped = |name: &str| {
        let of = |line: &&Value| {
            line["message"].as_str().is_some_and(|said| said.starts_with("background work dropped"))
        };
        lines
            .iter()
            .filter(of)
            .find(|line| line["work"] == name)
            .unwrap_or_else(|| panic!("{name}: {lines:?}"))
    };
    let work = dropped("GET /work");
    assert_eq!(work["kind"], "work", "{work}");
    assert!(work["age_ms"].as_u64().unwrap() >= 800, "{work}");
}

#[test]
fn the_log_repeats_what_a_long_drain_waits_for() {
    // Between the lines of two phases a long drain logged nothing, so an operator could not see
    // whether it still made progress. The log must repeat what the drain waits for (P13).
    let mut service = Service::start(&[
        "--lame-duck=0ms",
        "--drain=4s",
        "--cancel=300ms",
        "--request-timeout=30s",
    ]);
    let mut slow = Client::connect(service.main);
    slow.send_get("/stuck?ms=60000");
    service.wait_for_in_flight(1);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 3);
    let lines = service.lines();
    let waits: Vec<&Value> =
        lines.iter().filter(|line| line["message"] == "still waiting").collect();
    assert!((2..=4).contains(&waits.len()), "after 1 s and after 3 s: {waits:?}");
    for line in waits {
        assert_eq!((&line["phase"], &line["requests"]), (&"draining".into(), &1.into()), "{line}");
        assert!(
            line["waiting_for"].as_str().unwrap().starts_with("GET /stuck (request, "),
            "{line}"
        );
    }
}
