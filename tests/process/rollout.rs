//! P4, P5: rolling restarts behind real balancers, the short form of `just rollout`; and its
//! control, which must fail.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use lameduck_soak::{
    balancer::Kind,
    rollout::{Outcome, Plan, roll},
};
use std::{sync::Mutex, time::Duration};

/// One at a time: three servers, a balancer and two dozen clients are enough for one machine.
static TURN: Mutex<()> = Mutex::new(());

/// Rolls three servers behind `kind`; `None` if there is no such program on this machine.
fn rolled(kind: Kind, lame_duck: &str, restarts: u64) -> Option<Outcome> {
    if !crate::support::is_at_hand(kind.name(), kind.is_installed()) {
        return None;
    }
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let plan = Plan {
        kind,
        binary: env!("CARGO_BIN_EXE_lameduck").into(),
        lame_duck: lame_duck.to_owned(),
        keeping: 12,
        per_request: 6,
        restarts_min: restarts,
        answers_min: 500,
        span_max: Duration::from_secs(60),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(roll(&plan, |_| {})).unwrap();
    assert!(outcome.restarts >= restarts && outcome.answered >= 500, "it got nowhere: {outcome:?}");
    Some(outcome)
}

#[test]
fn no_request_fails_behind_haproxy_while_each_server_is_restarted() {
    if let Some(outcome) = rolled(Kind::Haproxy, "500ms", 4) {
        assert!(outcome.is_perfect(), "{outcome:#?}");
    }
}

#[test]
fn no_request_fails_behind_nginx_while_each_server_is_restarted() {
    if let Some(outcome) = rolled(Kind::Nginx, "500ms", 4) {
        assert!(outcome.is_perfect(), "{outcome:#?}");
    }
}

#[test]
fn without_a_lame_duck_delay_requests_fail_behind_haproxy() {
    // Each restart leaves it up to 100 ms of sending requests to a closed port. One that nobody asked for in that time is
    // possible; twelve are not.
    for _ in 0..3 {
        match rolled(Kind::Haproxy, "0s", 4) {
            Some(outcome) if outcome.failed == 0 => {}
            Some(_) | None => return,
        }
    }
    panic!("the harness sees no losses where there must be some");
}
