//! P9: request deadlines, without a stop and together with the limit of the drain.

use crate::stage::{code, entered, millis, only, play, tally};
use lameduck_sim::{
    network::{TurmoilNetWorld, TurmoilWorld, World},
    scenario::{Client, RequestKind, Scenario, StuckResponse},
};

#[test]
fn a_request_deadline_is_kept_without_any_stop() {
    fn kept<W: World>() {
        let mut scenario = Scenario::new("a deadline while serving")
            .client(Client::once(100, RequestKind::Stuck(60_000, StuckResponse::Nothing)));
        scenario.request_timeout_ms = Some(500);
        scenario.stops[0].at_ms = 3_000;
        let outcome = play::<W>(&scenario);
        let begins = millis(&only(&outcome, "server", "handler begins"));
        assert_eq!(millis(&only(&outcome, "server", "handler ends")), begins + 500);
        assert_eq!(only(&outcome, "client-0", "completed").number("status"), Some(503));
        assert_eq!((tally(&outcome).timed_out, code(&outcome)), (1, 0), "a deadline is no abort");
    }
    kept::<TurmoilNetWorld>();
    kept::<TurmoilWorld>();
}

#[test]
fn a_request_deadline_at_the_very_instant_the_drain_ends_is_decided_once() {
    fn decided<W: World>(request_kind: &RequestKind) {
        let at = |timeout_ms: u64| {
            let mut scenario = Scenario::new("a deadline at the drain's")
                .client(Client::once(900, request_kind.clone()));
            scenario.latency_ms = (1, 1);
            scenario.request_timeout_ms = Some(timeout_ms);
            play::<W>(&scenario)
        };
        let begins = millis(&only(&at(1), "server", "handler begins"));
        for offset in [-1, 0, 1] {
            let outcome = at((4_000 - begins).saturating_add_signed(offset));
            let tally = tally(&outcome);
            assert_eq!(tally.timed_out + tally.finished, 1, "{}", outcome.trace.text());
            assert_eq!(only(&outcome, "client-0", "completed").number("status"), Some(503));
            assert_eq!(code(&outcome), 0);
            assert!(offset != -1 || tally.timed_out == 1);
            match offset {
                // If the deadline is 1 ms earlier, its response is still on the way when the drain
                // ends.
                -1 | 0 => assert!((3_999..=4_000).contains(&entered(&outcome, "cancelling"))),
                _ => assert_eq!(entered(&outcome, "cancelling"), 4_000),
            }
        }
    }
    for request_kind in
        [RequestKind::Slow(60_000), RequestKind::Stuck(60_000, StuckResponse::Nothing)]
    {
        decided::<TurmoilNetWorld>(&request_kind);
        decided::<TurmoilWorld>(&request_kind);
    }
}

#[test]
fn a_stream_is_not_cut_by_the_deadline_of_its_request() {
    let mut scenario = Scenario::new("a stream longer than the deadline")
        .client(Client::once(100, RequestKind::Stream(2_000)));
    scenario.request_timeout_ms = Some(300);
    let outcome = play::<TurmoilNetWorld>(&scenario);
    assert_eq!(only(&outcome, "client-0", "completed").number("status"), Some(200));
    assert_eq!((tally(&outcome).finished, code(&outcome)), (1, 0));
}

#[test]
fn a_clock_that_runs_fast_or_slow_changes_no_promise() {
    for clock_skew_ppm in [-100_000, 100_000] {
        let mut scenario = Scenario::new("a clock that is off by a tenth")
            .client(Client::once(900, RequestKind::Stuck(60_000, StuckResponse::Nothing)))
            .client(Client::once(100, RequestKind::Slow(60_000)))
            .client(Client::once(1_500, RequestKind::Slow(200)));
        scenario.clock_skew_ppm = clock_skew_ppm;
        scenario.request_timeout_ms = Some(2_000);
        let outcome = play::<TurmoilNetWorld>(&scenario);
        let lame_duck = entered(&outcome, "draining") - entered(&outcome, "lame_duck");
        assert!(
            if clock_skew_ppm > 0 { lame_duck < 1_000 } else { lame_duck > 1_000 },
            "{lame_duck}"
        );
    }
}
