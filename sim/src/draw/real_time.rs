//! What is different in scenarios for a world in real time: they are short, since every second of
//! them is a second, and have no fault that only a simulated network has.

use super::{Dice, Features};
use crate::scenario::{Fault, Filter, PlanMs, Scenario};

/// Draws the features. The host's clock has no skew there, and the filter is always there.
pub(super) fn features(dice: &mut Dice) -> Features {
    Features {
        skew: false,
        no_filter: false,
        no_descriptors: false,
        accepts_aborted: false,
        long_service: false,
        ..Features::draw(dice)
    }
}

/// Draws a plan of some seconds at most.
pub(super) fn plan(dice: &mut Dice, features: Features) -> PlanMs {
    let mut span = |usual: &[u64]| {
        if features.zeros && dice.one_in(2) { dice.pick(&[0, 0, 1, 2]) } else { dice.pick(usual) }
    };
    PlanMs {
        start: span(&[500, 1_000, 2_000]).max(500),
        lame_duck: span(&[10, 200, 500, 700]),
        drain: span(&[20, 100, 300, 600, 1_500, 1_500]),
        cancel: span(&[20, 249, 250, 300, 600]),
        cleanup: span(&[20, 100, 300, 600]),
        internal_close: span(&[20, 100, 300, 500]),
    }
}

/// Removes what no world in real time can do.
pub(crate) fn leave_out(scenario: &mut Scenario) {
    let exists =
        |fault: &Fault| !matches!(fault, Fault::NoDescriptors { .. } | Fault::AcceptAborted);
    scenario.faults.retain(exists);
    scenario.clock_skew_ppm = 0;
    scenario.syn_filter = Filter::Available;
}
