//! P4, P5: rolling restarts with real balancers, the short form of `just rollout`. Its control
//! without a delay must lose requests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use lameduck_check::{
    balancer::Kind,
    rollout::{Outcome, Rollout, roll},
    target::Target,
};
use std::{sync::Mutex, time::Duration};

/// One test at a time: three servers, a balancer and two dozen clients use one machine fully.
static TURN: Mutex<()> = Mutex::new(());

/// Restarts three servers behind a balancer. Returns `None` if it is not installed.
fn rolled(kind: Kind, lame_duck: &str, restarts: u64) -> Option<Outcome> {
    if !crate::support::is_at_hand(kind.name(), kind.is_installed()) {
        return None;
    }
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let command = [
        env!("CARGO_BIN_EXE_lameduck"),
        "--drill",
        "--workers=1",
        "--addr=127.0.0.1:{port}",
        "--internal-addr=127.0.0.1:{port2}",
        &format!("--lame-duck={lame_duck}"),
    ];
    let mut target = Target::new(command.into_iter().map(str::to_owned).collect());
    target.ready = Some("http://127.0.0.1:{port2}/readiness".to_owned());
    target.paths.echo = Some("/echo".to_owned());
    target.paths.slow = Some("/slow?ms={ms}".to_owned());
    let plan = Rollout {
        kind,
        target,
        keeping: 12,
        per_request: 6,
        restarts_min: restarts,
        responses_min: 500,
        span_max: Duration::from_secs(60),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(roll(&plan, |_| {})).unwrap();
    assert_eq!(outcome.error, None);
    assert!(outcome.restarts >= restarts && outcome.answered >= 500, "it got nowhere: {outcome:?}");
    Some(outcome)
}

fn assert_perfect(kind: Kind) {
    let mut outcomes = Vec::new();
    // On a busy machine the balancer can miss a whole delay.
    for _ in 0..3 {
        match rolled(kind, "2s", 4) {
            Some(outcome) if !outcome.is_perfect() => outcomes.push(outcome),
            Some(_) | None => return,
        }
    }
    panic!("{outcomes:#?}");
}

#[test]
fn with_haproxy_no_request_fails_while_each_server_is_restarted() {
    assert_perfect(Kind::Haproxy);
}

#[test]
fn with_nginx_no_request_fails_while_each_server_is_restarted() {
    assert_perfect(Kind::Nginx);
}

#[test]
fn with_haproxy_requests_fail_without_a_lame_duck_delay() {
    // After each restart the balancer sends requests to a closed port for up to 100 ms. One such
    // window without a request is possible; twelve are not.
    for _ in 0..3 {
        match rolled(Kind::Haproxy, "0s", 4) {
            Some(outcome) if outcome.failed == 0 => {}
            Some(_) | None => return,
        }
    }
    panic!("the harness sees no losses where there must be some");
}
