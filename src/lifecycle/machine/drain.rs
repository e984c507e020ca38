//! From the end of the lame duck delay to the clean-up: drain, cancel, abort, cut.

use super::{
    super::{ABORT_FLUSH, Action, Moment, Outcome, Phase, Stop, requests::Requests},
    Lifecycle,
    state::{CancelStep, State},
};
use core::time::Duration;

impl Lifecycle {
    pub(super) fn on_main_closed(&mut self, now: Moment) -> Outcome {
        match self.state {
            // P8: nothing is left to wait for. The root context is still cancelled (P10), because
            // code outside the host may hold it and wait for the end of the run.
            State::Draining { stop, .. } => {
                self.cancel(now, stop);
                self.clean_up(now, stop);
                Outcome::Applied
            }
            State::Cancelling { stop, .. } => {
                self.clean_up(now, stop);
                Outcome::Applied
            }
            State::Starting { .. }
            | State::EndingStart { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::CleaningUp { .. }
            | State::Stopped { .. } => Outcome::Ignored,
        }
    }

    pub(super) fn drain(&mut self, now: Moment, stop: Stop) {
        let later = self.plan.cancel.saturating_add(self.clean_up_budget());
        let longest = self.plan.drain.max(self.plan.streams);
        let until = self.bounded(now, stop, longest, later);
        let extra = self.streams_extra();
        let requests = if extra.is_zero() {
            Requests::WithPhase
        } else {
            let later = later.saturating_add(extra);
            Requests::Served { until: self.bounded(now, stop, self.plan.drain, later) }
        };
        self.enter(now, Phase::Draining, State::Draining { stop, until, requests });
        self.actions.push_back(Action::Quiesce);
    }

    /// Ends a wait for ordinary requests, while long streams may take longer. The limits are those
    /// of a plan without streams.
    pub(super) fn end_request_wait(&mut self, now: Moment) {
        let (State::Draining { stop, requests, .. } | State::Cancelling { stop, requests, .. }) =
            self.state
        else {
            return;
        };
        let cancelled = || {
            let later = self.clean_up_budget().saturating_add(self.streams_extra());
            let cut_at = self.bounded(now, stop, self.plan.cancel, later);
            Requests::Cancelled { abort_at: self.abort_moment(cut_at), cut_at }
        };
        let Some((next, action)) = requests.next(cancelled) else { return };
        if let State::Draining { requests, .. } | State::Cancelling { requests, .. } =
            &mut self.state
        {
            *requests = next;
        }
        self.actions.push_back(action);
    }

    /// The time that long streams have in addition to the drain of ordinary requests.
    const fn streams_extra(&self) -> Duration {
        self.plan.streams.saturating_sub(self.plan.drain)
    }

    pub(super) fn cancel(&mut self, now: Moment, stop: Stop) {
        let until = self.bounded(now, stop, self.plan.cancel, self.clean_up_budget());
        let (step, requests) = (CancelStep::Asked, self.requests().after_root_cancelled());
        self.enter(now, Phase::Cancelling, State::Cancelling { stop, until, step, requests });
        self.actions.push_back(Action::CancelRoot);
    }

    /// The last part of the cancel wait is for flushing the responses of what is dropped here.
    pub(super) fn abort(&mut self, stop: Stop, until: Moment) {
        let (step, requests) = (CancelStep::Aborted, self.requests().after_abort());
        self.state = State::Cancelling { stop, until, step, requests };
        self.actions.push_back(Action::Abort);
    }

    pub(super) fn cut(&mut self, now: Moment, stop: Stop) {
        self.actions.push_back(Action::Cut);
        self.clean_up(now, stop);
    }

    const fn requests(&self) -> Requests {
        match self.state {
            State::Draining { requests, .. } | State::Cancelling { requests, .. } => requests,
            State::Starting { .. }
            | State::EndingStart { .. }
            | State::Serving
            | State::LameDuck { .. }
            | State::CleaningUp { .. }
            | State::Stopped { .. } => Requests::WithPhase,
        }
    }

    /// When handlers and tasks that ignore the cancellation are dropped, in a cancel wait that ends
    /// at `until`.
    pub(super) fn abort_moment(&self, until: Moment) -> Moment {
        until.minus(ABORT_FLUSH.min(self.plan.cancel))
    }
}
