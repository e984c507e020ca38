//! A connection that waits for its first or next request: without hyper, a buffer or a timer.
//!
//! Fast-path requests are served in this state, and do not end it: see
//! [`fast_path`](crate::http::fast_path::serve).

use super::{
    client_watch::ClientWatch,
    idle_handoff::IdleHandoff,
    lingering::{Lingering, close_at_once, head_timeout_response},
    stall_timer::Delivery,
    transition::{ReceivedAny, Transition},
    worker_context::WorkerContext,
};
use crate::http::{
    exchange::{
        final_reads::FinalReads,
        http_service::HttpService,
        sniff::{PREFACE, Sniffed, after_empty_lines, is_blank, sniff_as},
    },
    fast_path::serve::FastPath,
    server::{
        abort::AbortCause,
        caps::Caps,
        client_timeout::ClientTimeout,
        connection_slot::ConnectionSlot,
        idle_policy::{Awaited, Idle},
        limits::PARK_AFTER,
    },
};
use crate::{
    lifecycle::{Moment, Phase},
    runtime::{Negotiated, Peek, Transport},
};
use bytes::Bytes;
use std::{
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::ReadBuf;

mod serving;

/// A transport and the few bytes that do not determine the protocol yet.
pub(super) struct Parked<T: Transport, S: HttpService> {
    /// `None` only after the transport was passed on.
    io: Option<T>,
    bytes: [u8; UNDECIDED_MAX],
    len: u8,
    received_any: ReceivedAny,
    /// Since when the transport holds an incomplete record, which may be the beginning of a
    /// request. The record may turn out to hold none, so the wait goes on meanwhile.
    partial_record: Option<Moment>,
    /// When the current wait began; set at its first poll.
    since: Option<Moment>,
    /// Kept for a while after a fast-path request, since the next one may follow soon.
    fast_path: Option<Box<FastPath<S>>>,
    /// Present while the handler of a fast-path request waits.
    client_watch: Option<ClientWatch>,
    delivery: Delivery,
    /// How long input without a request delays the close.
    final_reads: FinalReads,
}

/// One byte more, and it is either the whole preface or not the preface.
const UNDECIDED_MAX: usize = PREFACE.len() - 1;

/// The largest read, in production every one.
pub(super) const READ_BUF_SIZE: usize = Caps::DEFAULT.read_buf_bytes.get();

/// Returns the part of a buffer that one read may fill, at least the preface of HTTP/2.
pub(super) fn read_buf<'a>(
    buf: &'a mut [MaybeUninit<u8>; READ_BUF_SIZE],
    caps: &Caps,
) -> ReadBuf<'a> {
    ReadBuf::uninit(&mut buf[..caps.read_buf_bytes.get().clamp(PREFACE.len(), READ_BUF_SIZE)])
}

impl<T: Transport, S: HttpService> Parked<T, S> {
    /// Creates the state of a connection that was just accepted.
    pub(super) fn new(io: T) -> Self {
        Self {
            io: Some(io),
            bytes: [0; UNDECIDED_MAX],
            len: 0,
            received_any: ReceivedAny::No,
            partial_record: None,
            since: None,
            fast_path: None,
            client_watch: None,
            delivery: Delivery::default(),
            final_reads: FinalReads::default(),
        }
    }

    /// Creates the state of a connection whose handshake ended `now`.
    pub(super) fn opened(io: T, now: Moment) -> Self {
        Self::resumed(io, &[], ReceivedAny::Handshake, now)
    }

    /// Creates the state of a connection that is idle after requests. `read` is at most the first
    /// byte of an empty line.
    pub(super) fn after_request(io: T, read: &[u8], since: Moment) -> Self {
        Self::resumed(io, read, ReceivedAny::Yes, since)
    }

    /// Creates the state of a connection that is resumed from the idle set, with the bytes that
    /// were read.
    pub(super) fn resumed(io: T, read: &[u8], received_any: ReceivedAny, since: Moment) -> Self {
        let mut this = Self::new(io);
        (this.received_any, this.since) = (received_any, Some(since));
        this.keep(read);
        this
    }

    /// Creates the state of a connection whose handler waits, and was polled in another task.
    pub(super) fn with_handler(
        worker: &WorkerContext<S>,
        io: T,
        fast_path: Box<FastPath<S>>,
    ) -> Self {
        let mut this = Self::new(io);
        this.received_any = ReceivedAny::Yes;
        this.fast_path = Some(fast_path);
        this.client_watch = Some(ClientWatch::new(&worker.shared.metrics));
        this
    }

    fn keep(&mut self, read: &[u8]) {
        let len = read.len().min(UNDECIDED_MAX);
        self.bytes[..len].copy_from_slice(&read[..len]);
        self.len = u8::try_from(len).unwrap_or(u8::MAX);
    }

    /// Returns the number of bytes that were read of a request. Half an empty line counts as none.
    fn request_bytes(&self) -> u8 {
        if is_blank(&self.bytes[..usize::from(self.len)]) { 0 } else { self.len }
    }

    /// Returns when the first byte of the next head arrived, or the part of a record that holds it.
    fn head_since(&self) -> Option<Moment> {
        if self.request_bytes() > 0 { self.since } else { self.partial_record }
    }

    /// Not inlined, so that only parked connections need its large stack frame.
    #[inline(never)]
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        idle_handoff: &IdleHandoff<T>,
    ) -> Transition<T, S> {
        let caps = worker.server().caps();
        let mut requests_left = caps.requests_per_poll.get_u32();
        let mut last_sent = None;
        if self.awaits_handler() {
            match self.poll_handler(cx, worker, slot) {
                Ok(now) => last_sent = Some(now),
                Err(next) => return next,
            }
        }
        loop {
            if requests_left == 0 {
                // Other tasks have a turn first.
                caps.requests_per_poll.note(caps.requests_per_poll.get());
                slot.set_busy();
                cx.waker().wake_by_ref();
                return Transition::Wait;
            }
            let len = usize::from(self.len);
            let Some(io) = &mut self.io else { return Transition::Close };
            let mut buf = [MaybeUninit::uninit(); READ_BUF_SIZE];
            let mut buf = read_buf(&mut buf, caps);
            if len > 0 {
                buf.put_slice(&self.bytes[..len]);
            }
            match Pin::new(io).poll_read(cx, &mut buf) {
                Poll::Pending => break,
                Poll::Ready(Err(_)) => return Transition::Close,
                Poll::Ready(Ok(())) => {
                    let read = buf.filled().len() - len;
                    caps.read_buf_bytes.note(buf.filled().len());
                    let bytes = after_empty_lines(buf.filled());
                    if is_blank(bytes) {
                        if read == 0 {
                            return self.on_client_ended(slot, caps);
                        }
                        // No request yet, so the wait continues. Empty lines use up the poll's
                        // budget, so that a client cannot hold the task with them, and no time
                        // limit waits for their end.
                        self.keep(bytes);
                        requests_left -= 1;
                        if requests_left > 0 {
                            continue;
                        }
                        caps.requests_per_poll.note(caps.requests_per_poll.get());
                        cx.waker().wake_by_ref();
                        break;
                    }
                    self.received_any = ReceivedAny::Yes;
                    self.final_reads.reset();
                    let negotiated =
                        self.io.as_ref().map_or(Negotiated::Unknown, Transport::negotiated);
                    match sniff_as(negotiated, bytes) {
                        Sniffed::Undecided if read > 0 => {
                            let began = self.head_since();
                            self.since = began.or_else(|| Some(worker.server().clock.now()));
                            self.keep(bytes);
                        }
                        // Or a part of the preface, then the end of the input. HTTP/1's parser
                        // refuses it, unless HTTP/2 was agreed on.
                        Sniffed::Undecided | Sniffed::Http1 if negotiated != Negotiated::Http2 => {
                            match self.serve(cx, bytes, worker, slot, &mut requests_left) {
                                Ok(now) => last_sent = Some(now),
                                Err(next) => return next,
                            }
                        }
                        Sniffed::Undecided | Sniffed::Http1 | Sniffed::Http2 => {
                            let bytes = Bytes::copy_from_slice(bytes);
                            return self
                                .io
                                .take()
                                .map_or(Transition::Close, |io| Transition::StartHttp2(io, bytes));
                        }
                    }
                }
            }
        }
        let now = last_sent.unwrap_or_else(|| worker.server().clock.now());
        self.wait(now, cx, worker, slot, idle_handoff)
    }

    /// Decides what to do without input: wait, move into the idle set, or close.
    fn wait(
        &mut self,
        now: Moment,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
        idle_handoff: &IdleHandoff<T>,
    ) -> Transition<T, S> {
        let server = &worker.server();
        let has_partial_record = self.io.as_ref().is_some_and(Transport::has_buffered);
        self.partial_record = has_partial_record.then(|| self.partial_record.unwrap_or(now));
        let since = *self.since.get_or_insert(now);
        let draining = server.phase() >= Phase::Draining;
        let idle = self.idle(since, slot);
        let until = idle.deadline(&server.config.limits, server.draining_since());
        // It may have served a request since it was chosen.
        let evicted = idle.awaited != Awaited::Head
            && slot.take_evicted()
            && now >= server.config.eviction_grace.ends(idle);
        if now < until && !evicted {
            self.final_reads.note_poll(now);
            slot.set_idle(idle);
            let until = match self.next_delivery_check(now, idle, worker) {
                Some(next_check) => until.min(next_check),
                None => return self.reset(worker, slot),
            };
            let mut again = until;
            if now < since + PARK_AFTER {
                again = until.min(since + PARK_AFTER);
            } else {
                self.fast_path = None;
            }
            let may_suspend = !draining && self.is_idle() && idle_handoff.is_open();
            // The reactor may not have reported readiness yet, especially on a new connection, so
            // peek at the socket.
            if may_suspend
                && (now >= since + PARK_AFTER || worker.has_many_tasks() && !self.has_data())
            {
                return self.io.take().map_or(Transition::Close, |io| {
                    Transition::Suspend(io, since, self.received_any)
                });
            }
            worker.wake_at(slot, again);
            return Transition::Wait;
        }
        let next = self.close(now, cx, worker, (idle.awaited, evicted));
        // A request that has just arrived is served first.
        if evicted && self.io.is_none() {
            slot.make_room();
        }
        if self.io.is_none() && !draining {
            match idle.awaited {
                _ if evicted => server.metrics.evicted.add_one(),
                Awaited::FirstByte => server.metrics.first_byte_timeouts.add_one(),
                Awaited::NextRequest
                | Awaited::Handshake
                | Awaited::Head
                | Awaited::Client
                | Awaited::Handler => {}
            }
        }
        next
    }

    /// Returns when to check again whether the client has received the last response; `None` if it
    /// is given up.
    fn next_delivery_check(
        &mut self,
        now: Moment,
        idle: Idle,
        worker: &WorkerContext<S>,
    ) -> Option<Moment> {
        if idle.awaited != Awaited::NextRequest {
            return Some(Moment::NEVER);
        }
        let timeout = worker.server().config.limits.send_timeout;
        if now >= self.delivery.next_check(idle.since, timeout) {
            let unacknowledged = self.io.as_ref().and_then(Transport::unacknowledged).unwrap_or(0);
            if self.delivery.expired(unacknowledged as u64, now) {
                return None;
            }
        }
        Some(self.delivery.next_check(idle.since, timeout))
    }

    fn reset(&mut self, worker: &WorkerContext<S>, slot: &ConnectionSlot) -> Transition<T, S> {
        worker.server().note_client_timeout(ClientTimeout::Send, slot.peer(), None);
        if let Some(io) = &mut self.io {
            io.reset_on_drop();
        }
        Transition::Reset
    }

    fn idle(&self, since: Moment, slot: &ConnectionSlot) -> Idle {
        if let (0, Some(since)) = (self.request_bytes(), self.partial_record) {
            return Idle { awaited: Awaited::Head, since };
        }
        match (self.request_bytes(), self.received_any) {
            (0, ReceivedAny::No) => Idle { awaited: Awaited::FirstByte, since: slot.accepted },
            (0, ReceivedAny::Handshake) => Idle { awaited: Awaited::FirstByte, since },
            (0, ReceivedAny::Yes) => Idle { awaited: Awaited::NextRequest, since },
            (1.., _) => Idle { awaited: Awaited::Head, since },
        }
    }

    /// Whether the connection waits for a request of which no byte has arrived.
    pub(super) const fn is_idle(&self) -> bool {
        self.len == 0 && self.partial_record.is_none() && !self.awaits_handler()
    }

    /// Whether the connection waits for a handler.
    pub(super) const fn awaits_handler(&self) -> bool {
        self.client_watch.is_some()
    }

    /// Whether the request in flight is a long stream.
    pub(super) fn has_stream(&self) -> bool {
        self.fast_path.as_ref().is_some_and(|fast_path| fast_path.connection().has_stream())
    }

    /// Closes a connection whose client has ended its side between two requests. It may still
    /// receive the last response.
    fn on_client_ended(&mut self, slot: &ConnectionSlot, caps: &Caps) -> Transition<T, S> {
        let Some(mut io) = self.io.take() else { return Transition::Close };
        let may_wait = caps.sent_at_once.is_exceeded_by(slot.sent() as usize);
        if may_wait && io.unacknowledged().is_some_and(|bytes| bytes > 0) {
            return Transition::linger(Lingering::until_acked(io));
        }
        io.end_cleanly();
        Transition::Close
    }

    /// Closes the transport without a wait. Returns whether a request was cut by that.
    pub(super) fn cut(&mut self) -> bool {
        if self.awaits_handler() {
            if let Some(fast_path) = &self.fast_path {
                fast_path.connection().responses.set_abort_cause(AbortCause::Shutdown);
            }
            self.cut_handler();
            return true;
        }
        if let Some(io) = self.io.take() {
            close_at_once(io);
        }
        false
    }

    /// Drops the handler, before the client sees the end of its connection.
    fn drop_handler(&mut self) {
        self.fast_path = None;
        self.client_watch = None;
    }

    /// Drops the handler. The connection must not end as if it had its response (P5d).
    fn cut_handler(&mut self) {
        self.drop_handler();
        if let Some(mut io) = self.io.take() {
            io.reset_on_drop();
        }
    }

    fn has_data(&self) -> bool {
        self.io.as_ref().is_some_and(|io| io.peek() == Peek::Data)
    }

    /// Final read, then FIN (P5b). A request that the kernel already holds is served. One that
    /// arrives later crosses the close, which cannot be prevented. Input that is no request delays
    /// the close as [`FinalReads`] says.
    #[cold]
    fn close(
        &mut self,
        now: Moment,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        (awaited, evicted): (Awaited, bool),
    ) -> Transition<T, S> {
        let Some(mut io) = self.io.take() else { return Transition::Close };
        io.read_ahead();
        let has_data = io.peek() == Peek::Data || io.has_buffered() && awaited != Awaited::Head;
        let is_needed = evicted && worker.server().evicts_busy();
        let may_delay = |reads: &FinalReads| match is_needed {
            true => reads.may_delay_room(now),
            false => reads.may_delay(now),
        };
        if has_data && may_delay(&self.final_reads) {
            // The readiness event is on its way.
            self.io = Some(io);
            cx.waker().wake_by_ref();
            return Transition::Wait;
        }
        if matches!(io.peek(), Peek::Ended | Peek::Broken) && self.request_bytes() == 0 {
            // Its client has closed it, which the reactor has not reported yet.
            io.end_cleanly();
            return Transition::Close;
        }
        let is_http2 = io.negotiated() == Negotiated::Http2;
        match self.request_bytes().max(u8::from(self.partial_record.is_some())) {
            0 if worker.server().phase() >= Phase::Draining => {
                worker.server().metrics.unannounced.add_one();
            }
            0 => {}
            // This may be the beginning of a POST.
            1..4 if !is_http2 => {
                return Transition::linger(Lingering::after_response(
                    io,
                    head_timeout_response(worker.server()),
                ));
            }
            // RFC 9113 §3.4: only an HTTP/2 client begins with "PRI ".
            1.. => return Transition::linger(Lingering::brief(io)),
        }
        if worker.server().tracks_close_races() {
            return Transition::linger(Lingering::counting_races(io));
        }
        let _ = Pin::new(&mut io).poll_shutdown(cx);
        if io.peek() == Peek::Data {
            Transition::linger(Lingering::brief(io))
        } else {
            Transition::Close
        }
    }
}

impl<T: Transport, S: HttpService> Drop for Parked<T, S> {
    fn drop(&mut self) {
        // The runtime may be dropped, and the connection with it.
        if self.awaits_handler() {
            self.cut_handler();
        }
    }
}
