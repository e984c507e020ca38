//! Serves readable connections of the idle set.

use super::{IdleConnection, IdleSet, slot_of};
use crate::http::{
    connection::{
        idle_handoff::{IdleState, saturated},
        lingering::{Race, close_after_response},
        parked::{READ_BUF_SIZE, read_buf},
        task::State,
        transition::ReceivedAny,
    },
    exchange::{
        http_service::HttpService,
        sniff::{Sniffed, after_empty_lines, is_blank, sniff_as},
        tracked_io::joined,
    },
    fast_path::serve::{FastPath, FastPathOutcome},
};
use crate::runtime::{IdlePoller, Transport};
use bytes::Bytes;
use std::{
    future::poll_fn,
    mem::{self, MaybeUninit},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

impl<L: IdlePoller, S: HttpService> IdleSet<L, S> {
    /// Serves the connections that were found to be readable.
    pub(crate) async fn serve(&mut self) {
        poll_fn(|cx| {
            self.serve_found(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Serves connections that are readable now, if there are any.
    pub(crate) async fn serve_ready_now(&mut self) {
        poll_fn(|cx| {
            if let Some(poller) = self.poller.as_mut().filter(|_| !self.connections.is_empty())
                && poller.poll_ready(cx, &mut self.found).is_ready()
            {
                self.serve_found(cx);
            }
            Poll::Ready(())
        })
        .await;
    }

    fn serve_found(&mut self, cx: &mut Context<'_>) {
        let mut found = mem::take(&mut self.found);
        for key in found.drain(..) {
            let Some(connection) = self.connections.get(key) else { continue };
            match connection.info.state {
                IdleState::Closing(_) => self.count_race(cx, key),
                IdleState::Waiting if self.is_draining() => self.wake_task(key, Bytes::new()),
                IdleState::Waiting => self.serve_one(cx, key),
            }
        }
        self.found = found;
    }

    /// Discards input after our FIN. It gets no response, but is counted as a close race (RFC 9112
    /// §9.5).
    pub(super) fn count_race(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(IdleConnection { io, info, .. }) = self.connections.get_mut(key) else { return };
        let IdleState::Closing(race) = &mut info.state else { return };
        let mut discard = [0; READ_BUF_SIZE];
        let mut unread = ReadBuf::new(&mut discard);
        match Pin::new(io).poll_read(cx, &mut unread) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) if !unread.filled().is_empty() => {
                if !is_blank(unread.filled()) && mem::replace(race, Race::Seen) == Race::Open {
                    self.worker.server().metrics.close_races.add_one();
                }
            }
            Poll::Ready(Ok(()) | Err(_)) => self.close(key),
        }
    }

    /// Serves fast-path requests. The connection stays in the set unless its last response was sent
    /// or hyper must take over.
    fn serve_one(&mut self, cx: &mut Context<'_>, key: usize) {
        let Some(IdleConnection { io, info }) = self.connections.get_mut(key) else { return };
        let caps = self.worker.server().caps();
        let mut buf = [MaybeUninit::uninit(); READ_BUF_SIZE];
        let mut buf = read_buf(&mut buf, caps);
        match Pin::new(&mut *io).poll_read(cx, &mut buf) {
            Poll::Pending => return self.wake_if_buffered(key),
            Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
            Poll::Ready(Ok(())) => return self.on_client_ended(key),
            Poll::Ready(Err(_)) => return self.close(key),
        }
        let read = after_empty_lines(buf.filled());
        if read.is_empty() {
            return self.wake_if_buffered(key);
        }
        match sniff_as(io.negotiated(), read) {
            Sniffed::Http1 => {}
            Sniffed::Undecided | Sniffed::Http2 => {
                return self.wake_task(key, Bytes::copy_from_slice(read));
            }
        }
        info.received_any = ReceivedAny::Yes;
        let mut fast_path =
            FastPath::new(&self.worker.service, &self.worker.shared, &slot_of(info));
        let mut requests_left = caps.requests_per_poll.get_u32();
        match fast_path.serve(cx, io, read, &mut requests_left) {
            FastPathOutcome::AllServed(now) => {
                info.since = now;
                info.responded |= fast_path.connection().responses.has_responded();
                info.delivered = false;
                info.sent = saturated(fast_path.connection().io.sent());
                self.undelivered.remove(&key);
                self.wake_if_buffered(key);
            }
            FastPathOutcome::Waits => self.resume_waiting(key, Box::new(fast_path)),
            FastPathOutcome::Fallback(leftover) => {
                self.resume_http1(key, *fast_path.into_handoff(leftover.for_another_task()));
            }
            FastPathOutcome::LastSent(read) => {
                let is_shut = Pin::new(io).poll_shutdown(cx).is_ready();
                let Some((_, slot, io, more)) = self.remove(key) else { return };
                let read = joined(read, more);
                match close_after_response(io, &read, fast_path.connection(), is_shut) {
                    Some(lingering) => self.resume(slot, State::Lingering(Box::new(lingering))),
                    None => self.count_closed(),
                }
            }
            FastPathOutcome::Disconnected => self.close(key),
        }
    }
}
