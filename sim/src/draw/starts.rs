//! Draws start hooks that block their thread while the stop is requested: they cannot be cancelled,
//! and finish late. It uses its own dice, so that the rest of the scenario does not depend on it.

use super::Dice;
use crate::{
    hooks::ActEnd,
    scenario::{Scenario, StopBy, StopRequest},
};

/// Adds one to one of twelve scenarios with hooks.
pub(super) fn draw(dice: &mut Dice, scenario: &mut Scenario) {
    if scenario.hooks.is_empty() || scenario.reloads.is_some() || !dice.one_in(12) {
        return;
    }
    let count = scenario.hooks.len() as u64;
    let nth = usize::try_from(dice.below(count)).unwrap_or(0);
    let before: u64 = scenario.hooks[..nth].iter().map(|hook| hook.start.after_ms).sum();
    if scenario.hooks[..nth].iter().any(|hook| hook.start.end != ActEnd::Done) {
        return;
    }
    let hook = &mut scenario.hooks[nth];
    hook.start.after_ms = dice.pick(&[20, 49, 51, 60, 150, 400, 1_500]);
    hook.start.end = dice.pick(&[ActEnd::Done, ActEnd::Done, ActEnd::Done, ActEnd::Fails]);
    hook.start_blocks = true;
    let lasts = hook.start.after_ms;
    let by = dice.pick(&[StopBy::Sigterm, StopBy::Sigint, StopBy::Handle]);
    let at_ms = before + 1 + dice.below(lasts);
    scenario.stops = vec![StopRequest { at_ms, by }];
    if dice.one_in(2) {
        let by = dice.pick(&[StopBy::Sigint, StopBy::Sigquit]);
        let at_ms = at_ms + dice.pick(&[1, 10, 30, 49, 60, 200]);
        scenario.stops.push(StopRequest { at_ms, by });
    }
    scenario.clients.clear();
    scenario.faults.clear();
}
