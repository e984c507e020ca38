//! P4: what clients observe on their connections in the lame duck delay. A client that obeys the
//! protocol loses no request.
//!
//! The plan of these tests: SIGTERM at 1 s and a delay of 5 s, so the last tenth begins at 5.5 s.

use crate::stage::{code, millis, play};
use lameduck_sim::{
    network::{TurmoilNetWorld, TurmoilWorld, World},
    scenario::{Client, Outcome, RequestKind, Scenario, StopBy, StopRequest, Traffic},
};

const STOP: u64 = 1_000;
const LAST_TENTH: u64 = 5_500;
const DRAIN: u64 = 6_000;

fn scenario(about: &str) -> Scenario {
    let mut scenario = Scenario::new(about);
    scenario.plan.lame_duck = DRAIN - STOP;
    scenario.latency_ms = (1, 1);
    scenario
}

/// Returns when connections were opened in the first nine tenths of the delay, in milliseconds.
fn opened_in_the_delay(outcome: &Outcome) -> Vec<u64> {
    let opened = outcome.trace.events("connected").iter().map(millis).collect::<Vec<_>>();
    opened.into_iter().filter(|at| (STOP + 3..LAST_TENTH).contains(at)).collect()
}

fn nothing_is_lost(outcome: &Outcome) {
    let lost = outcome.trace.events("failed");
    // The server did not process these; the client sends them again.
    let lost: Vec<_> = lost
        .iter()
        .filter(|record| !matches!(record.text("how"), Some("stream-refused" | "not-sent")))
        .collect();
    assert!(lost.is_empty() && code(outcome) == 0, "{lost:?}\n{}", outcome.trace.text());
}

/// Every response in the delay closed its connection. A client that sent requests without a pause
/// opened a connection for each, and its latency grew by a factor of a hundred. Now each client
/// must open only a few connections.
#[test]
fn a_client_that_asks_without_a_pause_opens_connections_by_the_handful_and_not_by_request() {
    fn handful<W: World>() {
        let traffic = Traffic::KeepAlive { requests: 900, every_ms: 3, retries: true };
        let mut scenario = scenario("eight clients that ask all the time");
        for n in 0..8 {
            scenario = scenario.client(Client::new(800 + n * 3, RequestKind::Fast, traffic));
        }
        let outcome = play::<W>(&scenario);
        nothing_is_lost(&outcome);
        let opened = opened_in_the_delay(&outcome).len();
        let asked = outcome.trace.events("asks").iter().map(millis).collect::<Vec<_>>();
        let asked = asked.iter().filter(|at| (STOP..LAST_TENTH).contains(at)).count();
        // About ln(4.5 s / 5 ms) = 7 connections per client.
        assert!((8..8 * 16).contains(&opened) && asked > 2_000, "{opened} for {asked} requests");
    }
    handful::<TurmoilNetWorld>();
    handful::<TurmoilWorld>();
}

/// HTTP/2 connections opened in the delay got their GOAWAY within 10 ms, since its time was counted
/// from the stop request. The GOAWAYs must be spread over the rest of the delay.
#[test]
fn http2_connections_that_are_opened_in_the_delay_announce_one_by_one_after_their_first_response() {
    let mut scenario = scenario("twenty HTTP/2 clients that come in the delay");
    for n in 0..20 {
        let traffic = Traffic::Http2 { requests: 30, every_ms: 200 };
        scenario =
            scenario.client(Client::new(STOP + 100 + n * 150, RequestKind::Slow(5), traffic));
    }
    let outcome = play::<TurmoilNetWorld>(&scenario);
    nothing_is_lost(&outcome);
    let first = |event: &str, n: usize| {
        let records = outcome.trace.events(event);
        let is_its = |record: &&lameduck_sim::trace::Record| {
            *record.actor == *format!("client-{n}")
                && record.number("connection").is_none_or(|n| n == 0)
        };
        millis(records.iter().find(is_its).unwrap())
    };
    let mut waits: Vec<u64> = (0..20).map(|n| first("goaway", n) - first("head", n)).collect();
    waits.sort_unstable();
    let at_once = waits.iter().filter(|wait| **wait <= 10).count();
    assert!(at_once <= 2 && waits[19] > 1_000, "{waits:?}");
    assert!((0..20).all(|n| first("goaway", n) <= LAST_TENTH + 20));
    assert!(opened_in_the_delay(&outcome).len() < 20 * 16);
}

/// A client had a response early in the delay and then paused, so it got no announcement. Its next
/// request comes in the instant in which idle connections are closed. The request must be served,
/// or be one that the client may send again.
#[test]
fn a_client_that_sends_at_the_very_end_of_the_delay_is_served_or_may_send_again() {
    fn served<W: World>(opened: u64) {
        for offset in 0..9 {
            let every_ms = DRAIN - 6 + offset - opened;
            for traffic in [
                Traffic::KeepAlive { requests: 2, every_ms, retries: true },
                Traffic::Http2 { requests: 2, every_ms },
            ] {
                let mut scenario = scenario("a request at the end of the delay")
                    .client(Client::new(opened, RequestKind::Fast, traffic));
                scenario.probe_every_ms = 1_000;
                let outcome = play::<W>(&scenario);
                // The second attempt may reach a closed listener.
                let completed = outcome.trace.events("completed").len();
                let refused = outcome.trace.events("connect failed").len();
                let close_races = outcome.report.as_ref().unwrap().connections.close_races;
                assert_eq!(completed + refused, 2, "{offset}: {}", outcome.trace.text());
                let asked = outcome.trace.events("asks").get(1).map(millis);
                // A request that has arrived when the drain begins is served.
                let too_late = asked.is_some_and(|asked| asked + 2 > DRAIN);
                assert!(close_races == 0 || too_late, "{offset}: {}", outcome.trace.text());
            }
        }
    }
    // Right after the stop, in the middle of the delay, and late in it: the announcement comes
    // early, late or not at all.
    for opened in [STOP + 10, 3_000, 5_400] {
        served::<TurmoilNetWorld>(opened);
    }
    served::<TurmoilWorld>(3_000);
}

#[test]
fn a_connection_that_was_not_used_in_the_delay_is_counted_as_unannounced() {
    for (lame_duck, kept, unannounced) in [(5_000, 2, 2), (0, 2, 2), (5_000, 1, 1)] {
        let mut scenario = scenario("idle connections");
        scenario.plan.lame_duck = lame_duck;
        // Their second request would come long after the exit.
        let keeps = Traffic::KeepAlive { requests: 2, every_ms: 20_000, retries: false };
        for _ in 0..kept {
            scenario = scenario.client(Client::new(500, RequestKind::Fast, keeps));
        }
        // This connection gets an announcement, and its response closes it.
        let told = Traffic::KeepAlive { requests: 2, every_ms: 800, retries: false };
        scenario = scenario.client(Client::new(500, RequestKind::Slow(10), told));
        let outcome = play::<TurmoilNetWorld>(&scenario);
        let told_too_late = u64::from(lame_duck == 0);
        let connections = outcome.report.as_ref().unwrap().connections;
        assert_eq!(
            connections.unannounced,
            unannounced + told_too_late,
            "{}",
            outcome.trace.text()
        );
    }
}

/// P12: a second SIGINT ends the delay. Announcements that were due later are sent at once.
#[test]
fn a_second_interrupt_in_the_delay_ends_it_for_every_connection() {
    let traffic = [
        Traffic::KeepAlive { requests: 100, every_ms: 20, retries: true },
        Traffic::Http2 { requests: 100, every_ms: 20 },
    ];
    let mut scenario = scenario("SIGINT twice");
    scenario.stops = vec![
        StopRequest { at_ms: STOP, by: StopBy::Sigint },
        StopRequest { at_ms: STOP + 700, by: StopBy::Sigint },
    ];
    for (n, traffic) in (0..6).zip(traffic.into_iter().cycle()) {
        scenario = scenario.client(Client::new(STOP + 20 + n * 50, RequestKind::Slow(5), traffic));
    }
    let outcome = play::<TurmoilNetWorld>(&scenario);
    nothing_is_lost(&outcome);
    let exit = millis(&outcome.trace.events("exit")[0]);
    assert!(exit < STOP + 700 + 500, "{}", outcome.trace.text());
}
