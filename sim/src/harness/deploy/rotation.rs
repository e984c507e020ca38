//! Which processes get requests, as each node sees it.

use crate::trace::Trace;
use lameduck::runtime::Seed;
use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// One lag in this many is the longest one.
const LONGEST_ONE_IN: u64 = 3;

/// The processes that get requests. Each node applies the changes in order, each with a lag that is
/// drawn from the seed.
#[derive(Debug)]
pub(super) struct Rotation {
    trace: Trace,
    seed: Seed,
    lag_max: Duration,
    changes: Mutex<Vec<Change>>,
}

#[derive(Debug)]
struct Change {
    at: Duration,
    /// Each target, and whether it gets requests from now on.
    targets: Vec<(usize, bool)>,
}

impl Rotation {
    pub(super) const fn new(trace: Trace, seed: Seed, lag_max: Duration) -> Self {
        Self { trace, seed, lag_max, changes: Mutex::new(Vec::new()) }
    }

    /// Changes which targets get requests.
    pub(super) fn change(&self, targets: Vec<(usize, bool)>) {
        let at = self.trace.now().unwrap_or_default();
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).push(Change { at, targets });
    }

    /// Returns the targets that get requests from this node, in order.
    pub(super) fn view(&self, node: u64) -> Vec<usize> {
        let now = self.trace.now().unwrap_or_default();
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut applied, mut targets) = (Duration::ZERO, Vec::new());
        for (number, change) in (0..).zip(changes.iter()) {
            applied = applied.max(change.at + self.lag(node, number));
            if applied > now {
                break;
            }
            for (target, serves) in &change.targets {
                targets.retain(|other| other != target);
                if *serves {
                    targets.push(*target);
                }
            }
        }
        drop(changes);
        targets.sort_unstable();
        targets
    }

    fn lag(&self, node: u64, number: u64) -> Duration {
        let drawn = self.seed.nth((node << 16) ^ number) >> 8;
        if drawn.is_multiple_of(LONGEST_ONE_IN) {
            return self.lag_max;
        }
        let millis = u64::try_from(self.lag_max.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(drawn / LONGEST_ONE_IN % millis.saturating_add(1))
    }
}
