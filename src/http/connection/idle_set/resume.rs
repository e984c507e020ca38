//! Gives a connection of the idle set a task again.

use super::{IdleConnection, IdleSet};
use crate::http::{
    connection::{
        http1::Http1,
        http2::Http2,
        idle_handoff::{IdleHandoff, IdleInfo},
        parked::Parked,
        task::{Connection, State},
        transition::ReceivedAny,
    },
    exchange::{
        http_service::HttpService,
        sniff::{Sniffed, after_empty_lines, is_blank, sniff_as},
        tracked_io::joined,
    },
    fast_path::serve::{FastPath, HyperHandoff},
    server::connection_slot::ConnectionSlot,
};
use crate::runtime::{IdlePoller, Transport};
use bytes::Bytes;
use std::sync::Arc;

impl<L: IdlePoller, S: HttpService> IdleSet<L, S> {
    /// Gives a connection whose handler waits a task.
    pub(super) fn resume_waiting(&mut self, key: usize, mut fast_path: Box<FastPath<S>>) {
        let Some((_, slot, io, more)) = self.remove(key) else { return };
        if more.is_empty() {
            fast_path.for_another_task();
            let parked = Parked::with_handler(&self.worker, io, fast_path);
            return self.resume(slot, State::Parked(parked));
        }
        let Some(leftover) = fast_path.take_waiting() else { return };
        let mut handoff_to_hyper = fast_path.into_handoff(leftover.for_another_task());
        handoff_to_hyper.read = joined(handoff_to_hyper.read, more);
        let http1 = Http1::resume(&self.worker, io, *handoff_to_hyper);
        self.resume(slot, State::Http1(Box::new(http1)));
    }

    pub(super) fn resume_http1(&mut self, key: usize, mut handoff_to_hyper: HyperHandoff<S>) {
        let Some((_, slot, io, more)) = self.remove(key) else { return };
        handoff_to_hyper.read = joined(handoff_to_hyper.read, more);
        let http1 = Http1::resume(&self.worker, io, handoff_to_hyper);
        self.resume(slot, State::Http1(Box::new(http1)));
    }

    /// Resumes a connection if its transport has taken bytes out of the kernel, where the poller
    /// does not see them, and closes it if that was the client's end. An incomplete record has its
    /// own timeout, like a partial head.
    pub(super) fn wake_if_buffered(&mut self, key: usize) {
        let Some(IdleConnection { io, .. }) = self.connections.get(key) else { return };
        if io.has_buffered() {
            self.wake_task(key, Bytes::new());
        } else if io.has_kept_end() {
            self.on_client_ended(key);
        }
    }

    /// Resumes a connection, which begins with these bytes.
    pub(super) fn wake_task(&mut self, key: usize, read: Bytes) {
        let Some((info, slot, io, more)) = self.remove(key) else { return };
        self.resume_sniffed(&info, slot, io, &joined(read, more));
    }

    pub(super) fn resume_sniffed(
        &mut self,
        info: &IdleInfo,
        slot: ConnectionSlot,
        io: L::Io,
        read: &Bytes,
    ) {
        let read = read.slice_ref(after_empty_lines(read));
        let now = self.worker.server().clock.now();
        let state = match sniff_as(io.negotiated(), &read) {
            _ if is_blank(&read) => {
                State::Parked(Parked::resumed(io, &read, info.received_any, info.since))
            }
            Sniffed::Undecided => State::Parked(Parked::resumed(io, &read, ReceivedAny::Yes, now)),
            Sniffed::Http1 => {
                State::Http1(Box::new(Http1::new(&self.worker, &slot, io, read, now)))
            }
            Sniffed::Http2 => State::Http2(Box::new(Http2::new(&self.worker, &slot, io, read))),
        };
        self.resume(slot, state);
    }

    pub(super) fn resume(&mut self, slot: ConnectionSlot, state: State<L::Io, S>) {
        self.resume_with(self.handoff.clone(), slot, state);
    }

    pub(super) fn resume_with(
        &mut self,
        handoff: Arc<IdleHandoff<L::Io>>,
        slot: ConnectionSlot,
        state: State<L::Io, S>,
    ) {
        let slot = Arc::new(slot);
        self.resumed.push(slot.clone());
        let connection = Connection::resumed(self.worker.clone(), slot, handoff, state);
        self.worker.spawn(connection);
    }
}
