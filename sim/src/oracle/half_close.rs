//! P6: a handler learns that its client has shut its side.

use super::{Exercise, Judgement, RunHistory};
use crate::scenario::{Pacing, RequestKind, Traffic};
use lameduck::lifecycle::Phase;
use std::time::Duration;

/// Longest time in which the host does not notice that a client has shut its side.
const NOTICED: Duration = Duration::from_millis(2_000 + 250);
/// The same if its FIN makes the socket readable.
const NOTICES: Duration = Duration::from_millis(5);
/// Interval between sweeps over the connections after the stop request.
const SWEEP_STOPPING: Duration = Duration::from_millis(20);

/// Checks that the context of a running handler is cancelled soon after its client has shut its
/// side.
pub(super) fn half_closes_are_noticed(history: &RunHistory<'_>) -> Judgement {
    let end = history.began(Phase::Cancelling).or(history.began(Phase::CleaningUp));
    let end = end.or(history.exit().map(|(at, _)| at)).unwrap_or(Duration::MAX);
    let mut judged = 0;
    if !history.delivers() || !history.resets() || history.uses_another_app() {
        return Ok(Exercise::No);
    }
    for observed in &history.requests {
        let traffic = history.client(observed).map(|client| client.traffic);
        let shuts = matches!(
            traffic,
            Some(Traffic::Once(Pacing::HalfClosed) | Traffic::Leaves { half_closed: true, .. })
        );
        let kind = history.request_kind(observed);
        let waits = matches!(kind, Some(RequestKind::Slow(_) | RequestKind::Unlimited(_)));
        let (Some(sent), true, true) = (observed.sent, shuts, waits) else { continue };
        let name = format!("client-{}/{}", observed.client, observed.number);
        let begins =
            history.server("handler begins").find(|record| record.text("of") == Some(&name));
        let Some(begins) = begins else { continue };
        let of_it = |event| history.of_its_handler(begins, event).map(|record| record.at);
        let by = begins.at.max(sent + history.under_way())
            + history.world(NOTICED)
            + SWEEP_STOPPING
            + history.tolerance();
        let runs = by < end && of_it("handler ends").is_none_or(|ends| ends > by);
        let noticed = of_it("half-close noticed");
        // It makes the socket readable.
        let at_once = begins.at.max(sent + history.under_way()) + NOTICES + history.rounding();
        // What precedes the close_notify of TLS may have come with it.
        let is_exact = history.tolerance().is_zero()
            && !history.scenario.tls
            && !history.has_partial_io()
            && !history.is_disturbed((sent, at_once));
        let runs_on = of_it("handler ends").is_none_or(|ends| ends > at_once);
        if is_exact && at_once < end && runs_on && noticed.is_none_or(|at| at > at_once) {
            return Err(format!(
                "client-{} shut its side at {sent:?}, and its handler did not learn of it at once, \
                 by {at_once:?}, but at {noticed:?}",
                observed.client
            ));
        }
        if runs && noticed.is_none_or(|at| at > by) {
            return Err(format!(
                "client-{} shut its side at {sent:?}, and its handler did not learn of it by \
                 {by:?}",
                observed.client
            ));
        }
        judged += usize::from(noticed.is_some());
    }
    Ok(Exercise::of(judged))
}
