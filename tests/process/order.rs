//! P1, P2, P3, P4: the order of a shutdown, as a client sees it.

use crate::support::{Client, Service, now, until, until_holds, wire};
use lameduck_wire::http1::get_bytes;
use rustix::process::Signal;
use std::time::Duration;

#[test]
fn readiness_falls_while_everything_is_still_served() {
    let mut service = Service::start(&["--lame-duck=3s"]);
    assert_eq!(service.probe("/readiness").status, 200);
    let asked = now();
    service.signal(Signal::TERM);
    let refusal = until("readiness to fall", || {
        let answer = service.probe("/readiness");
        (answer.status == 503).then_some(answer)
    });
    assert!(asked.elapsed() < Duration::from_millis(2_500), "it fell within the stop");
    assert!(
        refusal.body().contains("lame_duck") || refusal.body().contains("lame duck"),
        "{}",
        refusal.body()
    );
    assert_eq!(service.get("/").body(), "hello world", "not ready, and serving");
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn new_connections_are_served_for_the_whole_lame_duck_delay_and_refused_after_it() {
    let mut service = Service::start(&["--lame-duck=700ms", "--drain=3s"]);
    let mut slow = Client::connect(service.main);
    // This request keeps the drain open, so that the test can observe it.
    slow.send_get("/slow?ms=2000");
    service.wait_for_in_flight(1);
    let asked = now();
    service.terminate();
    let mut served = 0;
    while !service.phases().contains(&"draining".to_owned()) {
        match Client::try_connect(service.main) {
            Ok(mut client) => {
                let _ = client.try_send(get_bytes("/"));
                match client.try_answer() {
                    Ok(answer) => assert_eq!(answer.body(), "hello world"),
                    Err(end) => assert!(
                        asked.elapsed() >= Duration::from_millis(700),
                        "{end:?} within the delay"
                    ),
                }
                served += 1;
            }
            Err(error) => {
                assert!(asked.elapsed() >= Duration::from_millis(700), "{error} within the delay");
            }
        }
    }
    assert!(asked.elapsed() >= Duration::from_millis(700), "the delay lasts in full");
    assert!(served > 1, "{served} connections within the delay");
    until_holds("a refused connection", || wire::is_refused(service.main));
    assert_eq!(
        service.probe("/liveness").status,
        200,
        "alive, though the main listeners are closed"
    );
    assert_eq!(slow.answer().body(), "slow done\n");
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn liveness_is_200_in_every_phase_and_the_internal_server_closes_last() {
    let mut service = Service::start(&["--lame-duck=1s", "--drain=1s", "--cancel=1s"]);
    let mut stuck = Client::connect(service.main);
    stuck.send_get("/stuck?ms=60000");
    service.wait_for_in_flight(1);
    service.signal(Signal::TERM);
    let mut phases = Vec::new();
    // Every probe gets a response until the listener is closed. A connection that crosses the close
    // may be cut.
    while let Ok(mut client) = Client::try_connect(service.internal) {
        let _ = client.try_send(get_bytes("/status"));
        let Ok(status) = client.try_answer() else { break };
        let status: serde_json::Value = serde_json::from_str(&status.body()).unwrap();
        assert_eq!(status["live"], true, "{status}");
        let phase = status["phase"].as_str().unwrap().to_owned();
        assert_eq!(status["ready"], phase == "serving", "{status}");
        if phases.last() != Some(&phase) {
            phases.push(phase);
        }
    }
    phases.retain(|phase| phase != "serving" && phase != "cleaning_up");
    assert_eq!(phases, ["lame_duck", "draining", "cancelling"]);
    assert_eq!(service.exit_code(), 3);
    assert!(wire::is_refused(service.main));
}

#[test]
fn the_log_shows_each_phase_once_and_in_order() {
    let mut service = Service::start(&["--lame-duck=50ms"]);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
    let all =
        ["starting", "serving", "lame_duck", "draining", "cancelling", "cleaning_up", "stopped"];
    assert_eq!(service.phases(), all);
    let report = service.report();
    let reported: Vec<&str> = report["phases"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|span| span["phase"].as_str())
        .collect();
    assert_eq!(reported, all);
    assert_eq!(report["reason"], "SIGTERM");
    assert_eq!(report["verdict"], "clean");
}

#[test]
fn an_idle_service_exits_as_soon_as_the_lame_duck_delay_expires() {
    // P8: idle and parked connections delay nothing (P6). Only the delay itself takes time.
    let mut service = Service::start(&["--lame-duck=300ms"]);
    let mut idle: Vec<Client> = (0..20).map(|_| Client::connect(service.main)).collect();
    for client in &mut idle {
        assert_eq!(client.get("/").status, 200);
    }
    let asked = now();
    service.signal(Signal::TERM);
    let (code, took) = service.exit_code_since(asked);
    assert_eq!(code, 0);
    assert!(took >= Duration::from_millis(300), "{took:?}: the delay lasts in full, however idle");
    assert!(took < Duration::from_secs(3), "{took:?}");
    for client in &mut idle {
        assert_eq!(client.end(), crate::support::End::Closed, "told to go with a FIN");
    }
}

#[test]
fn a_connection_that_never_sent_a_byte_delays_the_exit_by_no_more_than_its_grace() {
    let mut service = Service::start(&["--lame-duck=0s"]);
    let _silent: Vec<Client> = (0..10).map(|_| Client::connect(service.main)).collect();
    until_holds("them accepted", || service.status()["connections"]["open"] == 10);
    let asked = now();
    service.signal(Signal::TERM);
    let (code, took) = service.exit_code_since(asked);
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(3), "{took:?}");
}
