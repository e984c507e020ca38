//! Whether the client of an HTTP/2 connection makes progress: with its responses, and with an
//! upload that a task of the app reads after the response.

use super::Http2;
use crate::http::{
    connection::{
        stall_timer::ProgressSample, transition::Transition, worker_context::WorkerContext,
    },
    exchange::{body_wait::CONFIRM_CHECK, http_service::HttpService},
    server::{
        abort::AbortCause, client_timeout::ClientTimeout, connection_slot::ConnectionSlot,
        limits::STREAM_RESETS_FIRST,
    },
};
use crate::{lifecycle::Moment, runtime::Transport};
use std::{sync::Arc, task::Context, time::Duration};

impl<T: Transport, S: HttpService> Http2<T, S> {
    /// Returns until when the connection is busy with a request body that a task reads after the
    /// response. `None` without such a body, and once its client was given up.
    pub(super) fn upload_until(
        &mut self,
        cx: &Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        now: Moment,
    ) -> Option<Moment> {
        let bodies = &self.connection.bodies;
        if self.has_response() || !bodies.are_bodies_held() {
            self.given_up_at = None;
            return None;
        }
        bodies.wake_when_unheld(cx.waker());
        if !bodies.are_all_awaited() {
            // A task is to go on, and not the client.
            return Some(Moment::NEVER);
        }
        let mut until: Option<Moment> = None;
        for late_body in bodies.awaited() {
            if let Some(check) = late_body.next_check(Moment::EPOCH, now) {
                until = Some(until.map_or(check, |until| until.min(check)));
            } else {
                bodies.on_wait_ended(Arc::as_ptr(&late_body));
                worker.server().note_client_timeout(ClientTimeout::Body, slot.peer(), None);
            }
        }
        // If data has arrived since the client was given up, the task must first have read it.
        let data = self.connection.io.inflow.data();
        let goes_on =
            until.is_none() && self.given_up_at.replace(data).is_some_and(|at| at != data);
        if goes_on { Some(now + CONFIRM_CHECK) } else { until }
    }

    /// Returns since when the client has made no progress on the whole connection, and when it is
    /// given up; `NEVER` if the server does not wait for the client.
    ///
    /// Bytes that cannot be written count against the client, whatever the handlers do. Bytes that
    /// its windows hold back count if nothing else happens, such as an upload. A PING from the
    /// client, and its acknowledgement by the server, do not show that the client reads. A stream
    /// has its own timeout ([`http2_streams`](super::http2_streams)), which expires first.
    pub(super) fn stalled(&mut self, worker: &WorkerContext<S>, now: Moment) -> (Moment, Moment) {
        let connection = &self.connection;
        let has_buffered =
            connection.responses.has_buffered() && !connection.are_handlers_running();
        if connection.io.is_flushed() && !has_buffered {
            self.stall_timer.reset();
            return (now, Moment::NEVER);
        }
        let (other, grace) = if !connection.io.is_flushed() {
            (connection.io.written(), Duration::ZERO)
        } else if connection.bodies.are_bodies_held() {
            (connection.io.inflow.data(), STREAM_RESETS_FIRST)
        } else {
            (0, STREAM_RESETS_FIRST)
        };
        let sample = ProgressSample {
            moved: [connection.responses.delivered(), other],
            unacknowledged: connection.io.unacknowledged_of_all(),
        };
        let since = self.stall_timer.last_progress(sample, now);
        (since, worker.server().gives_up(since, ClientTimeout::Send) + grace)
    }

    /// Whether the last bytes of a response have waited for the client for too long. hyper has
    /// given up its stream, so it cannot be reset. So the connection accepts no further stream, and
    /// is cut once nothing else makes progress.
    pub(super) fn has_stuck_response(&mut self, worker: &WorkerContext<S>, now: Moment) -> bool {
        let Some(moved) = self.unflushed.first().filter(|_| self.connection.io.is_flushed()) else {
            self.last_bytes.reset();
            return false;
        };
        let sample = ProgressSample { moved, unacknowledged: None };
        let since = self.last_bytes.last_progress(sample, now);
        now >= worker.server().gives_up(since, ClientTimeout::Send)
    }

    /// Cuts a connection on which no response makes progress.
    pub(super) fn cut_stalled(
        &mut self,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        since: Moment,
        now: Moment,
    ) -> Transition<T, S> {
        worker.server().note_client_timeout(ClientTimeout::Send, slot.peer(), None);
        let abort_cause = worker.server().stall_cause(since, ClientTimeout::Send, now);
        self.connection.responses.set_abort_cause(abort_cause);
        if abort_cause == AbortCause::Shutdown {
            self.cut();
            return Transition::Close;
        }
        drop(self.hyper.take());
        let Some(mut io) = self.take_io() else { return Transition::Close };
        // Otherwise the kernel would keep the unsent bytes for this client for minutes.
        io.reset_on_drop();
        Transition::Reset
    }
}
