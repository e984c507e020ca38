//! P4, P5a: load through a whole shutdown: every request sent while it could be served gets a
//! response.

use crate::stage::{code, play, tally};
use lameduck_sim::{
    network::{TurmoilNetWorld, TurmoilWorld, World},
    scenario::{Client, Fault, Filter, RequestKind, Scenario, StopBy, Traffic},
};

fn load(request_kind: &RequestKind, traffic: Traffic, latency_ms: (u64, u64)) -> Scenario {
    let mut scenario = Scenario::new(format!("{traffic:?} at {latency_ms:?} ms"));
    scenario.latency_ms = latency_ms;
    for n in 0..8 {
        scenario = scenario.client(Client::new(n * 7, request_kind.clone(), traffic));
    }
    scenario
}

/// Number of requests that got no complete response. `play` has already let the oracle of P5 judge
/// which of them may fail.
fn lost(outcome: &lameduck_sim::scenario::Outcome) -> usize {
    outcome.trace.events("failed").len()
}

/// One-way latencies of clients close to the host, and of clients up to the other side of the
/// world.
const NEAR: [(u64, u64); 3] = [(1, 1), (1, 3), (5, 9)];
const FAR: [(u64, u64); 6] = [(10, 10), (10, 20), (20, 20), (40, 40), (100, 100), (10, 100)];

#[test]
fn keep_alive_clients_lose_nothing() {
    fn nothing<W: World>(latencies: &[(u64, u64)]) {
        for latency_ms in latencies {
            let traffic = Traffic::KeepAlive { requests: 200, every_ms: 10, retries: true };
            let outcome = play::<W>(&load(&RequestKind::Slow(5), traffic, *latency_ms));
            assert_eq!(
                (code(&outcome), lost(&outcome)),
                (0, 0),
                "{latency_ms:?}\n{}",
                outcome.trace.text()
            );
            assert!(tally(&outcome).finished > 100);
        }
    }
    nothing::<TurmoilNetWorld>(&NEAR);
    nothing::<TurmoilWorld>(&[(1, 3)]);
}

#[test]
fn clients_with_a_connection_per_request_lose_nothing() {
    for latency_ms in NEAR {
        let traffic = Traffic::PerRequest { requests: 120, every_ms: 20 };
        let outcome = play::<TurmoilNetWorld>(&load(&RequestKind::Fast, traffic, latency_ms));
        assert_eq!(
            (code(&outcome), lost(&outcome)),
            (0, 0),
            "{latency_ms:?}\n{}",
            outcome.trace.text()
        );
    }
}

/// P5a: a client whose handshake is pending when the listener is sealed is waited for, whatever its
/// latency.
#[test]
fn far_clients_lose_nothing_either() {
    let keep_alive = Traffic::KeepAlive { requests: 60, every_ms: 10, retries: true };
    let per_request = Traffic::PerRequest { requests: 60, every_ms: 20 };
    for latency_ms in FAR {
        for (traffic, workers) in
            [(keep_alive, 1), (keep_alive, 2), (per_request, 1), (per_request, 3)]
        {
            let mut scenario = load(&RequestKind::Slow(5), traffic, latency_ms);
            scenario.workers = workers;
            let outcome = play::<TurmoilNetWorld>(&scenario);
            assert_eq!(
                (code(&outcome), lost(&outcome)),
                (0, 0),
                "{traffic:?} {latency_ms:?}\n{}",
                outcome.trace.text()
            );
        }
    }
}

#[test]
fn http2_requests_with_a_goaway_in_flight_are_answered_or_refused_unprocessed() {
    fn answered<W: World>() {
        for latency_ms in [(1, 3), (10, 20)] {
            let traffic = Traffic::Http2 { requests: 150, every_ms: 15 };
            let outcome = play::<W>(&load(&RequestKind::Slow(40), traffic, latency_ms));
            assert_eq!(code(&outcome), 0, "{}", outcome.trace.text());
            assert!(!outcome.trace.events("goaway").is_empty());
        }
    }
    answered::<TurmoilNetWorld>();
    answered::<TurmoilWorld>();
}

#[test]
fn pipelined_requests_get_their_answers_in_one_go() {
    let scenario = Scenario::new("pipelined, before and in the lame duck")
        .client(Client::new(
            500,
            RequestKind::Fast,
            Traffic::Pipelined { requests: 10, every_ms: 0 },
        ))
        .client(Client::new(
            1_500,
            RequestKind::Slow(50),
            Traffic::Pipelined { requests: 10, every_ms: 0 },
        ));
    let outcome = play::<TurmoilNetWorld>(&scenario);
    assert_eq!(code(&outcome), 0);
    assert!(tally(&outcome).finished >= 11, "{}", outcome.trace.text());
}

#[test]
fn a_network_that_is_held_in_the_drain_and_released_loses_no_answer() {
    fn held<W: World>() {
        for (at_ms, for_ms) in [(1_500, 300), (1_990, 500), (2_100, 1_000)] {
            let mut scenario = load(
                &RequestKind::Slow(300),
                Traffic::KeepAlive { requests: 5, every_ms: 400, retries: true },
                (1, 3),
            );
            scenario.faults.push(Fault::Hold { at_ms, for_ms });
            let outcome = play::<W>(&scenario);
            assert_eq!(code(&outcome), 0, "{}", outcome.trace.text());
        }
    }
    held::<TurmoilNetWorld>();
    held::<TurmoilWorld>();
}

#[test]
fn with_several_workers_the_queue_is_emptied_all_the_same() {
    for (syn_filter, workers) in
        [(Filter::Available, 2), (Filter::Available, 3), (Filter::Missing, 2)]
    {
        let mut scenario =
            load(&RequestKind::Fast, Traffic::PerRequest { requests: 120, every_ms: 20 }, (1, 3));
        scenario.syn_filter = syn_filter;
        scenario.workers = workers;
        let outcome = play::<TurmoilNetWorld>(&scenario);
        assert_eq!(code(&outcome), 0);
        // Without a filter a handshake may be pending when the listener closes.
        let lost_most = if syn_filter == Filter::Available { 0 } else { 2 };
        assert!(lost(&outcome) <= lost_most, "{}", outcome.trace.text());
    }
}

#[test]
fn a_stop_by_code_under_load_is_a_stop_like_any_other() {
    let mut scenario = load(
        &RequestKind::Slow(20),
        Traffic::KeepAlive { requests: 200, every_ms: 10, retries: false },
        (1, 3),
    );
    scenario.stops[0].by = StopBy::Handle;
    let outcome = play::<TurmoilNetWorld>(&scenario);
    assert_eq!(code(&outcome), 0);
}

#[test]
fn other_seeds_go_differently() {
    let mut scenario = load(
        &RequestKind::Fast,
        Traffic::KeepAlive { requests: 50, every_ms: 20, retries: false },
        (1, 5),
    );
    let one = play::<TurmoilNetWorld>(&scenario).trace.hash();
    scenario.seed = 2;
    assert_ne!(one, play::<TurmoilNetWorld>(&scenario).trace.hash());
}
