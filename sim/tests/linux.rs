//! The third world in short: drawn scenarios on real sockets in real time, judged by the same
//! oracles. `just sim --network linux --seeds 0..1000` plays more of them.

use lameduck_sim::explore::{Exploration, Network, play_on};
use std::sync::atomic::AtomicBool;

/// Number of scenarios. All of them run at once, and mostly wait.
const SCENARIOS: u64 = 32;

#[test]
fn drawn_scenarios_keep_every_promise_on_real_sockets() {
    let never = AtomicBool::new(false);
    let draw = |seed| Network::Linux.draw(seed);
    let mut exploration = Exploration::new(play_on(Network::Linux), 0..SCENARIOS, &never);
    exploration.draw = &draw;
    exploration.replay_every = None;
    exploration.threads = usize::try_from(SCENARIOS).unwrap();
    let summary = exploration.run();
    let found: Vec<_> = summary.found.iter().map(|found| (found.seed, &found.broken)).collect();
    assert!(found.is_empty(), "{found:?}");
    // A machine that stalls all the time proves nothing, and is not the host's fault.
    let proved = summary.scenarios - summary.void;
    assert!(proved * 2 >= SCENARIOS, "only {proved} scenarios ran without a stall of the machine");
    let exercised = summary.exercised.iter().filter(|count| **count > 0).count();
    assert!(exercised >= 10, "they exercised {exercised} promises only");
}
