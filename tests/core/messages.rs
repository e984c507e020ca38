//! P13: the names in logs, metrics and exit codes, which operators and tools rely on.

use core::time::Duration;
use lameduck::lifecycle::{Moment, Phase, Signal, StopReason, Verdict};

#[test]
fn every_phase_signal_reason_and_verdict_has_its_name() {
    let words = Phase::ALL.map(|phase| phase.to_string());
    assert_eq!(
        words,
        ["starting", "serving", "lame_duck", "draining", "cancelling", "cleaning_up", "stopped"]
    );
    assert_eq!(Phase::ALL.map(Phase::name).map(str::to_owned), words);

    let words = Signal::ALL.map(|signal| signal.to_string());
    assert_eq!(words, ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"]);
    assert_eq!(Signal::ALL.map(|signal| StopReason::Signal(signal).to_string()), words);
    let others = [
        StopReason::Requested,
        StopReason::TaskFailed,
        StopReason::StartFailed,
        StopReason::StartTimedOut,
    ];
    assert_eq!(
        others.map(|reason| reason.to_string()),
        ["requested", "task failed", "start failed", "start timed out"]
    );

    let verdicts =
        [Verdict::Clean, Verdict::Failed, Verdict::Aborted, Verdict::HookFailed, Verdict::Watchdog];
    let words = verdicts.map(|verdict| verdict.to_string());
    assert_eq!(words, ["clean", "failed", "aborted", "hook_failed", "watchdog"]);
    assert_eq!(verdicts.map(Verdict::name).map(str::to_owned), words);
    assert_eq!(verdicts.map(Verdict::exit_code), [0, 1, 3, 4, 5], "P13");
}

#[test]
fn a_phase_converts_to_a_number_and_back() {
    for phase in Phase::ALL {
        assert_eq!(Phase::from_u8(phase as u8), Some(phase));
    }
    assert_eq!(Phase::from_u8(Phase::Stopped as u8 + 1), None);
}

#[test]
fn a_moment_is_printed_in_seconds_since_the_epoch() {
    let moment = Moment::EPOCH + Duration::from_millis(1_500);
    assert_eq!(format!("{moment:?}"), "1.500000s");
    assert_eq!(format!("{:?}", Moment::EPOCH + Duration::from_micros(61_000_007)), "61.000007s");
    assert_eq!(format!("{:?}", Moment::NEVER), "never");
    assert_eq!(moment.since_epoch(), Duration::from_millis(1_500));
    assert_eq!(Moment::from_nanos(moment.as_nanos()), moment);
    assert_eq!(moment.minus(Duration::from_secs(2)), Moment::EPOCH, "never before the beginning");
    assert_eq!(Moment::EPOCH.since(moment), Duration::ZERO);
    assert_eq!(moment + Duration::MAX, Moment::NEVER, "never is the end");
}

#[test]
fn a_reason_is_a_failure_only_if_the_service_itself_failed() {
    let failures = [StopReason::TaskFailed, StopReason::StartFailed, StopReason::StartTimedOut];
    assert!(failures.iter().all(|reason| reason.is_failure()));
    let asked = [StopReason::Requested, StopReason::Signal(Signal::Quit)];
    assert!(asked.iter().all(|reason| !reason.is_failure()));
}
