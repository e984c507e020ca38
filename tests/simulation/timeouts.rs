//! P15: how long the host waits for a client while serving, exact to the millisecond of simulated
//! time.

use crate::stage::{code, millis, only, play, tally};
use lameduck_sim::{
    network::{TurmoilNetWorld, TurmoilWorld, World},
    scenario::{
        Client, LimitsMs, Pacing, RequestKind, Scenario, StopBy, StopRequest, Traffic, run,
    },
};

/// A scenario whose stop request comes late, or after all requests have ended.
fn serving(about: &str, limits: LimitsMs, stop_at_ms: u64) -> Scenario {
    let mut scenario = Scenario::new(about);
    scenario.limits = limits;
    scenario.latency_ms = (2, 2);
    scenario.request_timeout_ms = None;
    scenario.stops = vec![StopRequest { at_ms: stop_at_ms, by: StopBy::Sigterm }];
    scenario
}

#[test]
fn a_connection_without_a_byte_has_its_timeout_and_no_more_than_a_sweep_beyond() {
    fn closed<W: World>() {
        let limits = LimitsMs { first_byte_timeout: Some(3_000), ..LimitsMs::default() };
        let scenario = serving("a connection that says nothing", limits, 8_000)
            .client(Client::new(100, RequestKind::Fast, Traffic::ByteLess));
        let outcome = play::<W>(&scenario);
        let ended = only(&outcome, "client-0", "ended");
        let connected = millis(&only(&outcome, "client-0", "connected"));
        assert_eq!((code(&outcome), ended.text("how")), (0, Some("fin")));
        assert!(
            (connected + 3_000..connected + 3_300).contains(&millis(&ended)),
            "{}",
            outcome.trace.text()
        );
    }
    closed::<TurmoilNetWorld>();
    closed::<TurmoilWorld>();
}

#[test]
fn a_body_that_pauses_for_less_than_the_timeout_is_served_and_one_that_pauses_for_more_is_not() {
    for (pause, fates) in [(900, [1, 0]), (1_100, [0, 1])] {
        let limits = LimitsMs { body_timeout: Some(1_000), ..LimitsMs::default() };
        let scenario = serving("an upload with pauses", limits, 12_000).client(Client::new(
            100,
            RequestKind::Echo(4_000),
            Traffic::Once(Pacing::SlowUpload(1_000, pause)),
        ));
        let outcome = run::<TurmoilNetWorld>(&scenario);
        let tally = tally(&outcome);
        assert_eq!(
            (code(&outcome), [tally.finished, tally.timed_out]),
            (0, fates),
            "{}",
            outcome.trace.text()
        );
    }
}

#[test]
fn a_reader_that_pauses_for_less_than_the_timeout_gets_all_and_one_that_pauses_for_more_is_gone() {
    for (pause, fates) in [(900, [1, 0]), (9_000, [0, 1])] {
        let limits = LimitsMs { send_timeout: Some(1_500), ..LimitsMs::default() };
        let scenario = serving("a reader with pauses", limits, 25_000).client(Client::new(
            100,
            RequestKind::Bytes(400_000),
            Traffic::Once(Pacing::SlowReader(150_000, pause)),
        ));
        let outcome = run::<TurmoilNetWorld>(&scenario);
        let tally = tally(&outcome);
        assert_eq!(
            (code(&outcome), [tally.finished, tally.gone]),
            (0, fates),
            "{}",
            outcome.trace.text()
        );
    }
}

#[test]
fn a_silent_connection_makes_room_at_the_limit_and_a_working_one_does_not() {
    let limits = LimitsMs { connections_max: Some(2), ..LimitsMs::default() };
    let keep_alive = Traffic::KeepAlive { requests: 20, every_ms: 100, retries: false };
    let scenario = serving("two connections at a limit of two, and a third", limits, 4_000)
        .client(Client::new(100, RequestKind::Fast, keep_alive))
        .client(Client::new(120, RequestKind::Fast, Traffic::ByteLess))
        .client(Client::once(1_000, RequestKind::Fast));
    let outcome = run::<TurmoilNetWorld>(&scenario);
    assert_eq!((code(&outcome), tally(&outcome).finished), (0, 21), "{}", outcome.trace.text());
    let evicted = outcome.report.as_ref().map(|report| report.connections.evicted);
    assert_eq!(evicted, Some(1));
    let ended = millis(&only(&outcome, "client-1", "ended"));
    assert!((1_000..1_050).contains(&ended), "{}", outcome.trace.text());
}
