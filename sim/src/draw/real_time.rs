//! What is different in scenarios for a world in real time: they are short, since every second of
//! them is a second, and have no fault that only a simulated network has.

use super::{Dice, Features};
use crate::scenario::{
    Fault, Filter, Pacing, PlanMs, RequestKind, Scenario, Time, TimeOf, Traffic, times,
};

/// Draws the features. The host's clock has no skew there, and the filter is always there.
pub(super) fn features(dice: &mut Dice) -> Features {
    Features {
        skew: false,
        no_filter: false,
        no_descriptors: false,
        accepts_aborted: false,
        // Long enough for an idle connection to give up its task.
        service_max: 3_500,
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
        streams: 0,
    }
}

/// A response that does not fit into the buffers of the real kernel.
pub(crate) const LARGER_THAN_THE_BUFFERS: usize = 8_000_000;

/// A response that fits into the buffers of the simulated kernels.
const FITS_INTO_THE_BUFFERS: usize = 60_000;

/// Removes what no world in real time can do.
pub(crate) fn leave_out(scenario: &mut Scenario) {
    let exists = |fault: &Fault| {
        !matches!(fault, Fault::NoDescriptors { .. } | Fault::AcceptAborted | Fault::Stall { .. })
    };
    scenario.faults.retain(exists);
    for client in &mut scenario.clients {
        let reads_late = matches!(
            client.traffic,
            Traffic::Stalls { .. } | Traffic::Once(Pacing::SlowReader(..))
        );
        if let (RequestKind::Bytes(bytes @ 300_000..), true) =
            (&mut client.request_kind, reads_late)
        {
            *bytes = LARGER_THAN_THE_BUFFERS;
            // In small pieces that many bytes take a core for seconds.
            scenario.caps.clear();
        }
    }
    for hook in &mut scenario.hooks {
        hook.start_blocks = false;
    }
    scenario.clock_skew_ppm = 0;
    scenario.syn_filter = Filter::Available;
}

/// Distance between two times of one kind, in milliseconds.
const GRID_MS: u64 = 6 * PLACE_MS;

/// Distance between the places of different kinds on that grid.
const PLACE_MS: u64 = 60;

/// Longest latency on that grid.
const LATENCY_MAX_MS: u64 = 5;

/// Moves each time to a place of its kind on a grid. Phases change at place 0, and a part of the
/// lame duck delay may begin at 3. Clients begin at 1, and what they wait for ends at 4. A timeout
/// is one place later than what it follows.
pub(super) fn spread(scenario: &mut Scenario) {
    for Time { of, ms, .. } in times(scenario) {
        let steps = ms.div_ceil(GRID_MS);
        *ms = match of {
            TimeOf::Edge if *ms == 0 => 0,
            TimeOf::Edge | TimeOf::Pause => steps.max(1) * GRID_MS,
            TimeOf::Begin | TimeOf::Timeout => steps * GRID_MS + PLACE_MS,
            TimeOf::Work => steps * GRID_MS + 3 * PLACE_MS,
        };
    }
    // On Linux only the host's reads are partial, and a reset is found before the next write.
    let is_alike =
        |fault: &Fault| !matches!(fault, Fault::PartialIo { .. } | Fault::ResetAll { .. });
    scenario.faults.retain(is_alike);
    // Requests, too, keep their place on the grid.
    if scenario.latency_ms.1 > LATENCY_MAX_MS {
        scenario.latency_ms = (LATENCY_MAX_MS / 2, LATENCY_MAX_MS);
    }
    // A pipelined response waits for the one before it only in the simulated kernels.
    let pipelined = scenario
        .clients
        .iter_mut()
        .filter(|client| matches!(client.traffic, Traffic::Pipelined { .. }));
    for client in pipelined {
        for kind in [&mut client.request_kind].into_iter().chain(&mut client.then) {
            if let RequestKind::Bytes(bytes) = kind {
                *bytes = (*bytes).min(FITS_INTO_THE_BUFFERS);
            }
        }
    }
    let most = scenario.plan.cleanup / scenario.hooks.len().max(1) as u64;
    for hook in &mut scenario.hooks {
        // The budgets of all hooks must fit into the cleanup.
        hook.budget_ms = hook.budget_ms.map(|budget| budget.min(most));
    }
    // The first stop comes when the start is over.
    let start: u64 = scenario.hooks.iter().map(|hook| hook.start.after_ms).sum();
    let start = start.div_ceil(GRID_MS) * GRID_MS;
    scenario.plan.start += start;
    scenario.stops.iter_mut().for_each(|stop| stop.at_ms += start);
    scenario.clients.iter_mut().for_each(|client| client.at_ms += start);
}
