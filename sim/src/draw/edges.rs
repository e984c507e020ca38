//! When the phases of a scenario would begin, and times around these edges.

use super::Dice;
use crate::{hooks::ActEnd, scenario::Scenario};
use lameduck::lifecycle::ABORT_FLUSH;

/// Times to aim at, in milliseconds of the world. If a phase ends early, the later times are only
/// estimates.
#[derive(Clone, Debug)]
pub(super) struct Edges {
    /// The first stop request.
    pub(super) stop: u64,
    /// The end of the lame duck delay.
    pub(super) drain: u64,
    /// The end of the drain.
    pub(super) cancel: u64,
    /// When handlers that ignore the cancellation are dropped.
    pub(super) abort: u64,
    /// The end of the whole shutdown.
    pub(super) end: u64,
    all: Vec<u64>,
}

impl Edges {
    pub(super) fn of(scenario: &Scenario) -> Self {
        let rate = scenario.clock_skew_ppm.saturating_add(1_000_000).unsigned_abs();
        let world = |ms: u64| (ms * 1_000_000).div_ceil(rate);
        let plan = &scenario.plan;
        let stop = scenario.first_stop_ms().unwrap_or(0);
        let drain = stop + world(plan.lame_duck);
        let cancel = drain + world(plan.drain);
        let flush = u64::try_from(ABORT_FLUSH.as_millis()).unwrap_or(0).min(plan.cancel);
        let abort = cancel + world(plan.cancel - flush);
        let cleanup = cancel + world(plan.cancel);
        let close = abort + world(plan.cleanup);
        let end = cleanup + world(plan.cleanup + plan.internal_close);
        // Listeners settle for 20 ms; a silent connection has 250 ms, a partial head one second.
        let all = vec![
            stop,
            drain,
            drain,
            drain + world(20),
            drain + world(250),
            drain + world(1_000),
            cancel,
            cancel,
            abort,
            abort,
            cleanup,
            close,
            end,
        ];
        Self { stop, drain, cancel, abort, end, all }
    }

    /// Draws a time at an edge, ± 2 ms, or anywhere.
    pub(super) fn aim(&self, dice: &mut Dice) -> u64 {
        if dice.one_in(3) {
            return dice.below(self.end);
        }
        let edge = dice.pick(&self.all);
        dice.about(edge)
    }

    /// Draws a time at or after the first stop request.
    pub(super) fn after_stop(&self, dice: &mut Dice) -> u64 {
        let at = match dice.below(3) {
            0 => dice.between(self.abort, self.end),
            1 => self.stop + dice.pick(&[0, 0, 1, 2, 10]),
            _ => self.aim(dice),
        };
        at.max(self.stop)
    }
}

/// Returns how long the start hooks take if nothing stops them.
pub(super) fn start_takes(scenario: &Scenario) -> u64 {
    let done = scenario.hooks.iter().take_while(|hook| hook.start.end == ActEnd::Done);
    done.map(|hook| hook.start.after_ms).sum::<u64>().min(scenario.plan.start)
}
