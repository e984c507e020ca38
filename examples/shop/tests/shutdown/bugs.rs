//! Each planted bug is found, and the message names its cause. `docs/cookbook.md` shows each.

use crate::{cookbook::is_shown, found};
use shop::Bug;

#[track_caller]
fn is_named(bug: Bug, promise: &str, causes: &[&str]) {
    let failure = found(bug);
    println!("{failure}");
    assert_eq!(failure.broken.promise, promise);
    for cause in causes {
        assert!(failure.broken.why.contains(cause), "{cause}");
    }
    is_shown(bug, &failure);
}

#[test]
fn detached_work() {
    is_named(Bug::DetachedWork, "S2", &["untracked tasks were still running at the exit"]);
}

#[test]
fn a_pool_that_is_closed_early() {
    is_named(Bug::PoolClosedEarly, "S5", &["got 50", "Pool has been closed"]);
}

#[test]
fn a_flush_in_the_wrong_order() {
    is_named(Bug::FlushAfterThePool, "S3", &["the hook audit", "Pool has been closed"]);
}

#[test]
fn a_message_that_is_acknowledged_before_it_is_stored() {
    is_named(Bug::AcknowledgedFirst, "S4", &["was acknowledged and is not stored"]);
}

#[test]
fn an_endless_stream() {
    is_named(Bug::EndlessStream, "S1", &["the shutdown aborted GET /prices"]);
}

#[test]
fn an_ignored_cancellation() {
    let causes = ["POST /orders", "did not end when its context was cancelled"];
    is_named(Bug::IgnoredCancellation, "S1", &causes);
}

#[test]
fn tracked_work_that_panics() {
    let causes = ["tracked work of POST /orders panicked", "a receipt has no address"];
    is_named(Bug::PanickingWork, "S3", &causes);
}
