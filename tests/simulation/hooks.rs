//! P11: hooks, and stop requests during the start.

use crate::stage::{code, entered, millis, only, play};
use lameduck_sim::{
    hooks::{Act, ActEnd, HookScript},
    network::{TurmoilNetWorld, TurmoilWorld, World},
    scenario::{Client, Outcome, RequestKind, Scenario, StopBy},
};

fn hooks_that(outcome: &Outcome, event: &str, stage: &str) -> Vec<String> {
    let mut records = outcome.trace.events(event);
    records.retain(|record| record.text("stage") == Some(stage));
    records.iter().filter_map(|record| record.text("hook").map(str::to_owned)).collect()
}

#[test]
fn a_signal_during_the_start_ends_it_cleanly_and_stops_what_was_started() {
    fn ends<W: World>() {
        for by in [StopBy::Sigterm, StopBy::Sigint, StopBy::Handle] {
            let mut scenario = Scenario::new("a stop while the second hook starts")
                .hook(HookScript::new("first"))
                .hook(HookScript::new("second").start(Act::takes(5_000)));
            scenario.stops[0].by = by;
            let outcome = play::<W>(&scenario);
            assert_eq!(code(&outcome), 0);
            assert_eq!(hooks_that(&outcome, "hook begins", "stop"), ["first"]);
            assert_eq!(entered(&outcome, "cleaning_up"), 1_000);
            assert!(
                outcome
                    .trace
                    .events("phase")
                    .iter()
                    .all(|record| record.text("phase") != Some("serving"))
            );
        }
    }
    ends::<TurmoilNetWorld>();
    ends::<TurmoilWorld>();
}

#[test]
fn a_signal_in_the_very_instant_a_start_hook_finishes_still_stops_that_hook() {
    let finishes = 1_000;
    for offset in [-1, 0, 1] {
        let scenario = Scenario::new("a stop as the hook finishes").hook(
            HookScript::new("only").start(Act::takes(u64::saturating_add_signed(finishes, offset))),
        );
        // The oracle of P11 compares start hooks with stop hooks.
        let outcome = play::<TurmoilNetWorld>(&scenario);
        let started = hooks_that(&outcome, "hook ends", "start").len();
        assert_eq!(hooks_that(&outcome, "hook begins", "stop").len(), started);
        assert_eq!(started, usize::from(offset <= 0), "{}", outcome.trace.text());
    }
}

#[test]
fn a_start_hook_that_fails_or_hangs_ends_the_start_and_nothing_was_served() {
    fn ends<W: World>() {
        for (end, at) in [(ActEnd::Fails, 200), (ActEnd::Panics, 200), (ActEnd::Hangs, 10_000)] {
            let mut scenario = Scenario::new("a start hook that does not end well")
                .hook(HookScript::new("first"))
                .hook(HookScript::new("second").start(Act { after_ms: 200, end }))
                .client(Client::once(0, RequestKind::Fast));
            scenario.stops[0].at_ms = 60_000;
            let outcome = play::<W>(&scenario);
            assert_eq!((code(&outcome), entered(&outcome, "cleaning_up")), (1, at), "{end:?}");
            assert_eq!(hooks_that(&outcome, "hook begins", "stop"), ["first"]);
            assert_eq!(only(&outcome, "client-0", "connect failed").text("how"), Some("refused"));
        }
    }
    ends::<TurmoilNetWorld>();
    ends::<TurmoilWorld>();
}

#[test]
fn a_stop_hook_that_hangs_is_given_up_and_stops_no_other() {
    fn given_up<W: World>() {
        let scenario = Scenario::new("a hook that hangs between two that do not")
            .hook(HookScript::new("first").stop(Act::takes(100)))
            .hook(HookScript::new("hangs").stop(Act::ends(ActEnd::Hangs)))
            .hook(HookScript::new("last").stop(Act::takes(100)));
        let outcome = play::<W>(&scenario);
        assert_eq!(code(&outcome), 4);
        assert_eq!(hooks_that(&outcome, "hook ends", "stop"), ["last", "first"]);
        // The stop hooks share one second.
        let took = entered(&outcome, "stopped") - entered(&outcome, "cleaning_up");
        assert!(took <= 1_000 + 300, "{took}");
    }
    given_up::<TurmoilNetWorld>();
    given_up::<TurmoilWorld>();
}

#[test]
fn a_stop_hook_that_fails_or_panics_stops_no_other_and_the_exit_code_says_so() {
    for end in [ActEnd::Fails, ActEnd::Panics] {
        let scenario = Scenario::new("a stop hook that does not end well")
            .hook(HookScript::new("first"))
            .hook(HookScript::new("second").stop(Act { after_ms: 50, end }));
        let outcome = play::<TurmoilNetWorld>(&scenario);
        assert_eq!(code(&outcome), 4);
        assert_eq!(hooks_that(&outcome, "hook begins", "stop"), ["second", "first"]);
    }
}

#[test]
fn a_stop_hook_within_its_own_budget_waits_for_nobody() {
    let mut hook = HookScript::new("budgeted").stop(Act::ends(ActEnd::Hangs));
    hook.budget_ms = Some(300);
    let outcome =
        play::<TurmoilNetWorld>(&Scenario::new("a hook with a budget of its own").hook(hook));
    let began = millis(&outcome.trace.events("hook begins")[1]);
    assert!(entered(&outcome, "stopped") - began <= 300 + 300);
    assert_eq!(code(&outcome), 4);
}

#[test]
fn a_start_hook_that_finishes_in_the_instant_of_the_signal_stops_before_those_it_may_need() {
    // P11: a start hook finished in the instant of the signal, but the host had already given it
    // up. Its stop hook then ran during and after the stop hook of an earlier one, which it may
    // need. It must run first. Found by exploration with seed 244.
    let scenario = Scenario::new("a stop as the second hook finishes")
        .hook(HookScript::new("first").stop(Act::takes(50)))
        .hook(HookScript::new("second").start(Act::takes(1_000)).stop(Act::takes(50)));
    let outcome = play::<TurmoilNetWorld>(&scenario);
    assert_eq!(hooks_that(&outcome, "hook ends", "start"), ["first", "second"]);
    let mut stops = outcome.trace.records();
    stops
        .retain(|record| record.event.starts_with("hook ") && record.text("stage") == Some("stop"));
    let told: Vec<_> = stops
        .iter()
        .map(|record| (record.event, record.text("hook").unwrap_or_default()))
        .collect();
    assert_eq!(
        told,
        [
            ("hook begins", "second"),
            ("hook ends", "second"),
            ("hook begins", "first"),
            ("hook ends", "first")
        ]
    );
}
