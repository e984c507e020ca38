//! The third world in short: drawn scenarios on real sockets in real time, judged by the same
//! oracles. `just sim --network linux --seeds 0..1000` plays more of them.

use lameduck_sim::explore::{Exploration, Network, examine, play_on};
use std::sync::atomic::AtomicBool;

/// Number of scenarios.
const SCENARIOS: u64 = 32;
/// How many run at once. They mostly wait, and a stall of the machine voids all of these.
const AT_ONCE: usize = 8;

#[test]
#[expect(clippy::print_stderr, clippy::disallowed_macros, reason = "for whoever runs the tests")]
fn drawn_scenarios_keep_every_promise_on_real_sockets() {
    let never = AtomicBool::new(false);
    let draw = |seed| Network::Linux.draw(seed);
    let mut exploration = Exploration::new(play_on(Network::Linux), 0..SCENARIOS, &never);
    exploration.draw = &draw;
    exploration.replay_every = None;
    exploration.threads = AT_ONCE;
    let summary = exploration.run();
    // What the machine caused, alone it does not cause again.
    let is_found_again = |scenario| !examine(play_on(Network::Linux), scenario).broken.is_empty();
    let found = summary.found.iter().filter(|found| is_found_again(&found.scenario));
    let found: Vec<_> = found.map(|found| (found.seed, &found.broken)).collect();
    assert!(found.is_empty(), "{found:?}");
    // A machine that stalls all the time proves nothing, and is not the host's fault.
    let proved = summary.scenarios - summary.void;
    assert!(proved > 0, "no scenario ran without a stall of the machine");
    if proved * 2 < SCENARIOS {
        eprintln!("NOT PROVED: only {proved} scenarios ran without a stall of the machine");
        return;
    }
    let exercised = summary.exercised.iter().filter(|count| **count > 0).count();
    assert!(exercised >= 10, "they exercised {exercised} promises only");
}
