//! Ordinary requests in a plan with a longer budget for streams.

use super::{FLUSH, Model, What};
use lameduck::lifecycle::{Action, Moment, Plan};

impl Model {
    /// The next limit of ordinary requests, if it comes before the end of the current wait.
    pub(super) fn request_limit(&self) -> Option<Moment> {
        let waits = matches!(self.current(), Some(What::Drain | What::Cancelled | What::Flush));
        let (at, _) = self.requests.first().filter(|_| waits)?;
        (*at < self.until).then_some(*at)
    }

    /// Ordinary requests are cancelled, aborted and cut as if there were no streams.
    pub(super) fn limit_requests(&mut self, now: Moment) {
        let (_, action) = self.requests.remove(0);
        self.actions.push(action);
        if action == Action::CancelRequests {
            self.are_tasks_cancelled = true;
            let Plan { drain, streams, cancel, .. } = self.plan;
            let latest = self.clean_up_from.minus(streams - drain);
            let cut = (now + cancel).min(latest);
            self.requests = vec![
                (cut.minus(cancel.min(FLUSH)), Action::AbortRequests),
                (cut, Action::CutRequests),
            ];
        }
    }
}
