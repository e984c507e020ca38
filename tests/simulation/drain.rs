//! P5c, P5d, P8, P10: requests in the drain: within its limit, at the limit, and beyond it.
//!
//! The plan of these tests: SIGTERM at 1 s, the drain from 2 s to 4 s, the cancel wait until 5 s.
//! Work that ignores the cancellation is dropped at 4.75 s. On a network with a latency of 1 ms a
//! request sent at 900 ms begins at 903 ms.

use crate::stage::{code, entered, only, play, tally};
use lameduck_sim::{
    network::{TurmoilNetWorld, TurmoilWorld, World},
    scenario::{Client, Outcome, RequestKind, Scenario, StuckResponse},
};

const DRAIN_ENDS: u64 = 4_000;
const ABORT: u64 = 4_750;

/// A scenario with one request at 900 ms, on a network with constant latency.
fn with_request(request_kind: RequestKind) -> Scenario {
    let mut scenario = Scenario::new(format!("{request_kind:?} through a shutdown"))
        .client(Client::once(900, request_kind));
    scenario.latency_ms = (1, 1);
    scenario.request_timeout_ms = None;
    scenario
}

/// Returns when the handler begins, which does not depend on its kind.
fn begins<W: World>() -> u64 {
    let outcome = play::<W>(&with_request(RequestKind::Slow(1)));
    crate::stage::millis(&only(&outcome, "server", "handler begins"))
}

fn body_bytes(outcome: &Outcome) -> (u64, u64) {
    let done = only(outcome, "client-0", "completed");
    (done.number("status").unwrap(), done.number("body_bytes").unwrap())
}

fn a_signal_while_idle<W: World>(settling_ms: u64) {
    let outcome = play::<W>(&Scenario::new("a signal while idle"));
    assert_eq!(code(&outcome), 0);
    assert_eq!(entered(&outcome, "lame_duck"), 1_000);
    assert_eq!(entered(&outcome, "draining"), 2_000);
    // P8: nothing delays the exit except the wait for pending handshakes.
    assert!(entered(&outcome, "stopped") <= 2_000 + settling_ms, "{}", outcome.trace.text());
}

#[test]
fn a_signal_while_idle_ends_the_process_when_the_lame_duck_delay_is_over() {
    a_signal_while_idle::<TurmoilNetWorld>(5);
    // In this world the host cannot see whether a handshake is pending, so it waits longer.
    a_signal_while_idle::<TurmoilWorld>(70);
}

fn a_slow_request<W: World>() {
    let begins = begins::<W>();
    for (offset, whole) in
        [(-1_000, Some(true)), (-1, Some(true)), (0, None), (1, Some(false)), (1_000, Some(false))]
    {
        let takes = (DRAIN_ENDS - begins).saturating_add_signed(offset);
        let outcome = play::<W>(&with_request(RequestKind::Slow(takes)));
        let (status, _) = body_bytes(&outcome);
        match whole {
            Some(true) => assert_eq!(status, 200, "{offset} ms from the limit"),
            Some(false) => assert_eq!(status, 503, "{offset} ms from the limit"),
            // At the same instant either order is allowed, but it must be the same in each run;
            // `play` compares two.
            None => assert!(status == 200 || status == 503),
        }
        assert_eq!(
            (code(&outcome), tally(&outcome).finished),
            (0, 1),
            "both are the handler's own answers"
        );
        if whole == Some(true) {
            let done = begins + takes;
            // Includes a round trip, until the client has acknowledged the response.
            assert!(
                (done..=done + 3).contains(&entered(&outcome, "cancelling")),
                "P8: {}",
                outcome.trace.text()
            );
        } else {
            assert_eq!(entered(&outcome, "cancelling"), DRAIN_ENDS);
        }
    }
}

#[test]
fn a_slow_request_finishes_within_the_drain_limit_and_is_cancelled_beyond_it() {
    a_slow_request::<TurmoilNetWorld>();
    a_slow_request::<TurmoilWorld>();
}

fn a_stuck_request<W: World>() {
    let begins = begins::<W>();
    for (offset, ends) in [(-1, Some(0)), (0, None), (1, Some(3)), (60_000, Some(3))] {
        let takes = (ABORT - begins).saturating_add_signed(offset);
        let outcome = play::<W>(&with_request(RequestKind::Stuck(takes, StuckResponse::Nothing)));
        let (status, _) = body_bytes(&outcome);
        let is_whole = match ends {
            Some(code) => code == 0,
            None => code(&outcome) == 0,
        };
        assert_eq!(status, if is_whole { 200 } else { 503 }, "{offset} ms from the abort");
        assert_eq!(code(&outcome), if is_whole { 0 } else { 3 }, "{offset} ms from the abort");
        assert_eq!(tally(&outcome).aborted, u64::from(!is_whole));
        assert!(entered(&outcome, "stopped") <= ABORT + 20, "P8: {}", outcome.trace.text());
    }
}

#[test]
fn a_stuck_request_is_cut_when_the_cancel_wait_is_nearly_over_and_its_client_is_told() {
    a_stuck_request::<TurmoilNetWorld>();
    a_stuck_request::<TurmoilWorld>();
}

fn a_cut_answer<W: World>() {
    for half in [StuckResponse::Length, StuckResponse::Chunked] {
        let outcome = play::<W>(&with_request(RequestKind::Stuck(60_000, half)));
        let how = only(&outcome, "client-0", "failed");
        assert!(matches!(how.text("how"), Some("reset-in-body" | "body-cut")), "{half:?}: {how}");
        assert_eq!((code(&outcome), tally(&outcome).aborted), (3, 1));
    }
}

#[test]
fn an_answer_that_is_cut_after_its_head_does_not_look_complete() {
    a_cut_answer::<TurmoilNetWorld>();
    a_cut_answer::<TurmoilWorld>();
}

#[test]
fn cooperative_and_stuck_handlers_side_by_side_each_get_their_own_end() {
    fn side_by_side<W: World>() {
        let mut scenario = Scenario::new("a cooperative, a stuck and a finishing handler")
            .client(Client::once(900, RequestKind::Slow(60_000)))
            .client(Client::once(900, RequestKind::Stuck(60_000, StuckResponse::Nothing)))
            .client(Client::once(900, RequestKind::Slow(1_500)))
            .client(Client::once(900, RequestKind::Stream(1_500)));
        scenario.request_timeout_ms = None;
        let outcome = play::<W>(&scenario);
        assert_eq!((tally(&outcome).finished, tally(&outcome).aborted), (3, 1));
        assert_eq!(only(&outcome, "client-0", "completed").number("status"), Some(503));
        assert_eq!(only(&outcome, "client-1", "completed").number("status"), Some(503));
        assert_eq!(only(&outcome, "client-2", "completed").number("status"), Some(200));
        assert_eq!(only(&outcome, "client-3", "completed").number("status"), Some(200));
        assert_eq!(code(&outcome), 3);
    }
    side_by_side::<TurmoilNetWorld>();
    side_by_side::<TurmoilWorld>();
}

#[test]
fn a_handler_that_panics_costs_its_request_and_not_the_exit_code() {
    let scenario = Scenario::new("a panic")
        .client(Client::once(500, RequestKind::Panic))
        .client(Client::once(1_500, RequestKind::Panic));
    let outcome = play::<TurmoilNetWorld>(&scenario);
    assert_eq!((code(&outcome), tally(&outcome).panicked, tally(&outcome).finished), (0, 2, 2));
}
