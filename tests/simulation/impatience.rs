//! P12: a second SIGINT and a second SIGTERM in each phase.
//!
//! A stuck request and a hanging hook make every phase last: Starting until 500 ms, LameDuck from 1
//! s, Draining from 2 s, Cancelling from 4 s, the abort at 4.75 s, then CleaningUp.

use crate::stage::{code, entered, play};
use lameduck_sim::{
    hooks::{Act, ActEnd, HookScript},
    network::{TurmoilNetWorld, TurmoilWorld, World},
    scenario::{Client, Outcome, RequestKind, Scenario, StopBy, StuckResponse},
};

fn busy() -> Scenario {
    let mut scenario = Scenario::new("a stop that takes all its time")
        .hook(HookScript::new("hangs").start(Act::takes(500)).stop(Act::ends(ActEnd::Hangs)))
        .hook(HookScript::new("hangs too").stop(Act::ends(ActEnd::Hangs)))
        .client(Client::once(900, RequestKind::Stuck(60_000, StuckResponse::Nothing)));
    scenario.request_timeout_ms = None;
    scenario.stops[0].by = StopBy::Sigint;
    scenario
}

fn phases(outcome: &Outcome) -> Vec<(String, u64)> {
    let phase = |record: &lameduck_sim::trace::Record| {
        (record.text("phase").unwrap_or_default().to_owned(), crate::stage::millis(record))
    };
    outcome.trace.events("phase").iter().map(phase).collect()
}

fn a_second_sigterm<W: World>(at_ms: &[u64], bys: &[StopBy]) {
    let patient = phases(&play::<W>(&busy()));
    for &at_ms in at_ms {
        for &by in bys {
            let outcome = play::<W>(&busy().stop(at_ms, by));
            assert_eq!(phases(&outcome), patient, "{by:?} at {at_ms} ms");
            assert_eq!(code(&outcome), 3);
        }
    }
}

#[test]
fn a_second_sigterm_changes_nothing_in_any_phase() {
    let bys = [StopBy::Sigterm, StopBy::Sighup, StopBy::Handle];
    a_second_sigterm::<TurmoilNetWorld>(
        &[1_000, 1_500, 2_000, 3_000, 4_000, 4_500, 4_800, 5_000],
        &bys,
    );
    a_second_sigterm::<TurmoilWorld>(&[1_500, 3_000, 4_500, 5_000], &[StopBy::Sigterm]);
}

fn a_second_sigint<W: World>(bys: &[StopBy]) {
    for &by in bys {
        for at_ms in [1_000, 1_001, 1_500, 1_999] {
            let outcome = play::<W>(&busy().stop(at_ms, by));
            assert_eq!(entered(&outcome, "draining"), at_ms, "{by:?} in LameDuck");
        }
        for at_ms in [2_001, 3_000, 3_999] {
            let outcome = play::<W>(&busy().stop(at_ms, by));
            assert_eq!(entered(&outcome, "cancelling"), at_ms, "{by:?} in Draining");
        }
        for at_ms in [4_001, 4_400, 4_749] {
            let outcome = play::<W>(&busy().stop(at_ms, by));
            assert!(
                (at_ms..=at_ms + 20).contains(&entered(&outcome, "cleaning_up")),
                "{by:?} in Cancelling at {at_ms}"
            );
            assert_eq!(code(&outcome), 3);
        }
        let cleaning_up = entered(&play::<W>(&busy()), "cleaning_up");
        let outcome = play::<W>(&busy().stop(cleaning_up + 100, by));
        let begun = outcome.trace.events("hook begins");
        let second =
            begun.iter().filter(|record| record.text("stage") == Some("stop")).nth(1).unwrap();
        assert_eq!(
            crate::stage::millis(second),
            cleaning_up + 100,
            "{by:?} gives up the running hook and goes on"
        );
        assert!(
            entered(&outcome, "stopped") > cleaning_up + 100,
            "the next hook still has its time"
        );
    }
}

#[test]
fn a_second_sigint_ends_the_current_wait_in_each_phase() {
    a_second_sigint::<TurmoilNetWorld>(&[StopBy::Sigint, StopBy::Sigquit]);
    a_second_sigint::<TurmoilWorld>(&[StopBy::Sigint]);
}

#[test]
fn six_more_sigints_end_the_process_at_once_and_it_tells_the_truth() {
    let mut scenario = busy();
    for n in 1..=6 {
        scenario = scenario.stop(1_000 + n, StopBy::Sigint);
    }
    let outcome = play::<TurmoilNetWorld>(&scenario);
    assert_eq!(code(&outcome), 3);
    assert!(entered(&outcome, "stopped") <= 1_000 + 6 + 20, "{}", outcome.trace.text());
}

#[test]
fn a_second_sigint_during_the_start_is_as_good_as_one() {
    let mut scenario = Scenario::new("two signals while a hook starts")
        .hook(HookScript::new("slow").start(Act::takes(5_000)));
    scenario.stops[0].by = StopBy::Sigint;
    let outcome = play::<TurmoilNetWorld>(&scenario.stop(1_000, StopBy::Sigint));
    assert_eq!((code(&outcome), entered(&outcome, "cleaning_up")), (0, 1_000));
}
