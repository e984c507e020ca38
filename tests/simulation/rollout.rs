//! P2a, P4: A rolling restart of three replicas. The balancer in front of them polls readiness and
//! does not retry.

use crate::stage::twice;
use lameduck_sim::{
    network::{TurmoilNetWorld, TurmoilWorld, World},
    rollout::{Rollout, RolloutOutcome},
};
use std::time::Duration;

fn roll<W: World>(rollout: &Rollout) -> RolloutOutcome {
    let rolled = twice("a rolling restart", || rollout.run::<W>(), |rolled| rolled.trace.clone());
    assert!(rolled.ended.is_ok(), "{:?}", rolled.ended);
    assert_eq!(rolled.codes, [0, 0, 0], "every process that was replaced exited clean");
    rolled
}

fn lost_with_a_delay<W: World>(seed: u64) -> u64 {
    let rolled = roll::<W>(&Rollout::new(seed));
    assert!(rolled.counts.sent > 500 && rolled.counts.unserved == 0, "{:?}", rolled.counts);
    rolled.counts.failed
}

fn lost_without_a_delay<W: World>(seed: u64) -> u64 {
    let mut rollout = Rollout::new(seed);
    rollout.plan.lame_duck = Duration::ZERO;
    // The port is closed for only a few milliseconds, so it takes many clients to hit that time.
    rollout.clients = 8;
    rollout.every = Duration::from_millis(5);
    roll::<W>(&rollout).counts.failed
}

#[test]
fn a_rolling_restart_loses_no_request() {
    for seed in [1, 2] {
        assert_eq!(lost_with_a_delay::<TurmoilNetWorld>(seed), 0);
    }
    assert_eq!(lost_with_a_delay::<TurmoilWorld>(1), 0);
}

#[test]
fn without_a_lame_duck_delay_a_rolling_restart_loses_some() {
    assert!(lost_without_a_delay::<TurmoilNetWorld>(1) > 0);
    assert!(lost_without_a_delay::<TurmoilWorld>(1) > 0);
}
