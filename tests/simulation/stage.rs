//! Where scenarios are played: each twice, with the same trace, and held against the oracles.

use lameduck_sim::{
    network::World,
    scenario::{Outcome, Scenario, run},
    trace::Record,
};
use std::time::Duration;

/// Plays a scenario twice, the second time on a fresh thread, and holds it against every promise.
pub(crate) fn play<W: World>(scenario: &Scenario) -> Outcome {
    let first = run::<W>(scenario);
    let again = std::thread::scope(|scope| {
        scope.spawn(|| run::<W>(scenario)).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert_eq!(first.trace.text(), again.trace.text(), "P17: `{}` went differently the second time", scenario.about);
    assert_eq!(first.trace.hash(), again.trace.hash(), "P17: the bytes of `{}` differ", scenario.about);
    first
}

pub(crate) fn at(record: &Record) -> u64 {
    u64::try_from(record.at.as_micros()).unwrap()
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
