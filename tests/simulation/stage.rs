//! Runs each scenario twice, compares the traces, and judges the run by all oracles.

use lameduck_sim::{
    network::World,
    oracle,
    scenario::{Outcome, Scenario, run},
    trace::Record,
};

/// Runs a scenario twice, the second time on a fresh thread, and judges it by every promise.
pub(crate) fn play<W: World>(scenario: &Scenario) -> Outcome {
    let outcome = twice(&scenario.about, || run::<W>(scenario), |outcome| outcome.trace.clone());
    let broken: Vec<String> =
        oracle::broken(scenario, &outcome).iter().map(ToString::to_string).collect();
    assert!(
        broken.is_empty(),
        "{}:\n{}\n{}",
        scenario.about,
        broken.join("\n"),
        outcome.trace.text()
    );
    outcome
}

/// Runs something twice, the second time on a fresh thread, and compares the traces (P17).
pub(crate) fn twice<T: Send>(
    about: &str,
    run: impl Fn() -> T + Sync,
    trace: impl Fn(&T) -> lameduck_sim::Trace,
) -> T {
    let first = run();
    let again = std::thread::scope(|scope| {
        scope.spawn(&run).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    let (one, two) = (trace(&first), trace(&again));
    assert_eq!(one.text(), two.text(), "P17: `{about}` went differently the second time");
    assert_eq!(one.hash(), two.hash(), "P17: the bytes of `{about}` differ");
    assert_eq!(one.wire_bytes(), two.wire_bytes());
    first
}

/// Returns the exit code.
pub(crate) fn code(outcome: &Outcome) -> u64 {
    outcome.trace.events("exit")[0].number("code").unwrap()
}

/// Returns when the host entered a phase, in milliseconds of simulated time.
pub(crate) fn entered(outcome: &Outcome, phase: &str) -> u64 {
    let records = outcome.trace.events("phase");
    let entered = records.iter().find(|record| record.text("phase") == Some(phase));
    millis(entered.unwrap_or_else(|| panic!("never {phase}:\n{}", outcome.trace.text())))
}

/// Returns the only record of this event by this actor.
pub(crate) fn only(outcome: &Outcome, actor: &str, event: &str) -> Record {
    let mut records = outcome.trace.events(event);
    records.retain(|record| &*record.actor == actor);
    assert_eq!(records.len(), 1, "{actor} {event}:\n{}", outcome.trace.text());
    records.remove(0)
}

/// Returns the time of a record, in milliseconds of simulated time.
pub(crate) fn millis(record: &Record) -> u64 {
    u64::try_from(record.at.as_millis()).unwrap()
}

/// Returns the host's own count of requests by outcome.
pub(crate) fn tally(outcome: &Outcome) -> lameduck::RequestStats {
    outcome.report.as_ref().unwrap().requests
}
