//! Watches for a client that leaves while the handler of its fast-path request waits.

use crate::http::{
    exchange::connection_state::ConnectionState,
    server::{
        limits::{CLIENT_CHECK_INTERVAL, HALF_CLOSED_CHECK_INTERVAL},
        worker_metrics::{Counted, WorkerMetrics},
    },
};
use crate::{
    lifecycle::Moment,
    runtime::{Peer, Transport},
};
use std::{sync::Arc, task::Context};

/// The kernel is queried once the socket becomes readable, and at intervals, because a next request
/// may have made it readable. Nothing is read.
#[derive(Debug)]
pub(super) struct ClientWatch {
    /// Whether the socket became readable. It stays so.
    is_readable: bool,
    check_at: Option<Moment>,
    /// The connection is busy with HTTP/1.
    _counted: Counted,
}

/// What is known of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    /// It may be there. Check again at this moment.
    There { check_at: Moment },
    /// It can receive no response.
    Gone,
}

impl ClientWatch {
    pub(super) fn new(metrics: &Arc<WorkerMetrics>) -> Self {
        let counted = Counted::new(metrics, |metrics| &metrics.http1);
        Self { is_readable: false, check_at: None, _counted: counted }
    }

    /// Checks the client if that is due. Records a half-close in `connection`.
    pub(super) fn poll<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        connection: &ConnectionState,
        now: Moment,
    ) -> Client {
        let became_readable = !self.is_readable && io.poll_readable(cx).is_ready();
        self.is_readable |= became_readable;
        if became_readable || self.check_at.is_some_and(|check_at| now >= check_at) {
            if io.read_ahead() {
                // The reactor does not report these bytes any more.
                cx.waker().wake_by_ref();
            }
            match io.peer() {
                Peer::Gone => return Client::Gone,
                Peer::HalfClosed => connection.on_half_closed(),
                Peer::Open | Peer::Unknown => {}
            }
            self.check_at = None;
        }
        let interval = if connection.io.has_read_ended() {
            HALF_CLOSED_CHECK_INTERVAL
        } else {
            CLIENT_CHECK_INTERVAL
        };
        Client::There { check_at: *self.check_at.get_or_insert(now + interval) }
    }
}
