//! How a parked connection serves fast-path requests, and waits for their handlers.

use super::Parked;
use crate::http::{
    connection::{
        client_watch::{Client, ClientWatch},
        lingering::close_after_response,
        stall_timer::Delivery,
        transition::Transition,
        worker_context::WorkerContext,
    },
    exchange::http_service::HttpService,
    fast_path::serve::{FastPath, FastPathOutcome},
    server::{connection_slot::ConnectionSlot, limits::HalfClose},
};
use crate::{lifecycle::Moment, runtime::Transport};
use std::{pin::Pin, task::Context};

impl<T: Transport, S: HttpService> Parked<T, S> {
    /// Serves fast-path requests. If they used up the input, returns when the last response was
    /// sent, otherwise the transition.
    pub(super) fn serve(
        &mut self,
        cx: &mut Context<'_>,
        read: &[u8],
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        requests_left: &mut u32,
    ) -> Result<Moment, Transition<T, S>> {
        let (head_since, first) = (self.head_since(), *requests_left);
        let Some(io) = &mut self.io else { return Err(Transition::Close) };
        let fast_path = self
            .fast_path
            .get_or_insert_with(|| Box::new(FastPath::new(&worker.service, &worker.shared, slot)));
        let outcome = fast_path.serve(cx, io, read, requests_left);
        if let FastPathOutcome::AllServed(now) = outcome {
            self.on_served(now, worker, slot);
            return Ok(now);
        }
        // A later head began with this read.
        let head_since = head_since.filter(|_| *requests_left == first);
        self.follow(outcome, head_since, cx, worker, slot)
    }

    /// Polls the handler that waits. If it has responded, returns when the response was sent,
    /// otherwise the transition.
    pub(super) fn poll_handler(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
    ) -> Result<Moment, Transition<T, S>> {
        let (Some(io), Some(fast_path)) = (&mut self.io, &mut self.fast_path) else {
            return Err(Transition::Close);
        };
        let outcome = fast_path.resume(cx, io);
        self.follow(outcome, None, cx, worker, slot)
    }

    /// Watches for a client that leaves while its handler waits.
    fn watch_client(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
    ) -> Transition<T, S> {
        let (Some(io), Some(fast_path)) = (&mut self.io, &self.fast_path) else {
            return Transition::Close;
        };
        self.len = 0;
        self.partial_record = None;
        slot.set_busy();
        let client_watch =
            self.client_watch.get_or_insert_with(|| ClientWatch::new(&worker.shared.metrics));
        let connection = fast_path.connection();
        let was_half_closed = connection.io.is_half_closed();
        let client = client_watch.poll(cx, io, connection, worker.server().clock.now());
        let is_new = connection.io.is_half_closed() && !was_half_closed;
        let drops = is_new && worker.server().config.limits.half_close == HalfClose::Drop;
        match client {
            Client::There { check_at } if !drops => {
                if is_new {
                    // The handler sees the half-close when it is polled again.
                    cx.waker().wake_by_ref();
                }
                worker.wake_at(slot, check_at);
                Transition::Wait
            }
            Client::There { .. } | Client::Gone => {
                self.drop_handler();
                self.io = None;
                Transition::Close
            }
        }
    }

    /// Records that the last response was sent at `now`.
    #[inline]
    fn on_served(&mut self, now: Moment, worker: &WorkerContext<S>, slot: &ConnectionSlot) {
        self.len = 0;
        self.since = Some(now);
        self.partial_record = None;
        self.client_watch = None;
        self.delivery = Delivery::default();
        if let Some(fast_path) = &self.fast_path {
            fast_path.connection().responses.record_responses_in(slot);
            slot.record_sent(fast_path.connection().io.sent());
        }
        if worker.over_fast_path_limit() {
            self.fast_path = None;
        }
    }

    /// Continues after an outcome of the fast path. Returns when the last response was sent, or the
    /// transition. `head_since`: when the first byte arrived of a head that is still incomplete, if
    /// it was before the last read.
    fn follow(
        &mut self,
        outcome: FastPathOutcome<S>,
        head_since: Option<Moment>,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
    ) -> Result<Moment, Transition<T, S>> {
        match outcome {
            FastPathOutcome::AllServed(now) => {
                self.on_served(now, worker, slot);
                return Ok(now);
            }
            FastPathOutcome::Waits => return Err(self.watch_client(cx, worker, slot)),
            FastPathOutcome::LastSent(_)
            | FastPathOutcome::Fallback(_)
            | FastPathOutcome::Disconnected => {}
        }
        let (Some(mut io), Some(fast_path)) = (self.io.take(), self.fast_path.take()) else {
            return Err(Transition::Close);
        };
        Err(match outcome {
            FastPathOutcome::AllServed(_)
            | FastPathOutcome::Waits
            | FastPathOutcome::Disconnected => Transition::Close,
            FastPathOutcome::LastSent(read) => {
                let is_shut = Pin::new(&mut io).poll_shutdown(cx).is_ready();
                close_after_response(io, &read, fast_path.connection(), is_shut)
                    .map_or(Transition::Close, Transition::linger)
            }
            FastPathOutcome::Fallback(leftover) => {
                let mut handoff = fast_path.into_handoff(*leftover);
                handoff.head_since = head_since;
                Transition::ResumeHttp1(io, handoff)
            }
        })
    }
}
