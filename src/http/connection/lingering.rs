//! A close that loses no response.
//!
//! If a socket is closed with unread input, or receives more after its close, the kernel resets the
//! connection. The reset discards what the server has written and the client has not received (RFC
//! 9112 §9.6). So this state writes the last bytes, shuts down the sending side, and reads and
//! discards for a while. It continues as long as the client makes progress with the response, then
//! closes.

use super::{
    stall_timer::{ProgressSample, StallTimer},
    worker_context::WorkerContext,
};
use crate::http::{
    exchange::{
        connection_state::ConnectionState, error_response::last_response,
        http_service::HttpService, in_flight::UnflushedResponses, sniff::is_blank,
    },
    server::{
        abort::AbortCause,
        caps::Cap,
        client_timeout::ClientTimeout,
        connection_slot::ConnectionSlot,
        limits::{ACK_CHECK_INTERVAL, LINGER, RACE_WATCH},
        state::ServerState,
    },
};
use crate::{
    lifecycle::Moment,
    runtime::{Peek, Transport},
};
use bytes::{Buf, Bytes};
use http::StatusCode;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::io::ReadBuf;

/// Unacknowledged bytes of a shut connection that are no part of a response: our FIN counts as one.
pub(super) const FIN_BYTES: usize = 1;

/// Returns the response to a request head that took too long: a 408 that announces the close (RFC
/// 9110 §15.5.9).
pub(super) fn head_timeout_response(server: &ServerState) -> Bytes {
    const LINE: &str = "the request head took too long\n";
    last_response(StatusCode::REQUEST_TIMEOUT, LINE, server)
}

/// A transport that is being closed.
pub(super) struct Lingering<T> {
    io: T,
    final_response: Bytes,
    step: Step,
    /// Time to read and discard, if the client does not close earlier.
    min_wait: Duration,
    response: Owed,
    /// Whether the end of the connection cuts a response. TLS then sends no close_notify.
    is_cut: bool,
    race: Race,
    /// The end of the connection: a close or a reset.
    end: Lingered,
    /// When to check whether the transport may be closed.
    until: Option<Moment>,
    /// The client's progress with the response.
    stall_timer: StallTimer,
    /// Responses that were written before, and that a transport with a buffer has not flushed yet.
    unflushed: Option<Arc<UnflushedResponses>>,
}

/// Whether there is a response that the client must receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Yes,
    No,
}

/// The transition that a lingering connection requests after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lingered {
    /// Stay in this state until woken.
    Wait,
    Close,
    Reset,
}

enum Acknowledgement {
    Awaited,
    Done,
    Missing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Writing,
    Shutting,
    Discarding,
    /// Waits for acknowledgements, with the sending side open.
    Acknowledging,
}

/// Whether input counts as a close race (RFC 9112 §9.5), which it does at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Race {
    NotCounted,
    Open,
    Seen,
}

impl<T: Transport> Lingering<T> {
    /// Closes a connection with unread input. `final_response` is written first.
    pub(super) fn after_response(io: T, final_response: Bytes) -> Self {
        Self {
            io,
            final_response,
            step: Step::Writing,
            min_wait: LINGER,
            response: Owed::Yes,
            is_cut: false,
            race: Race::NotCounted,
            end: Lingered::Close,
            until: None,
            stall_timer: StallTimer::default(),
            unflushed: None,
        }
    }

    /// Settles these responses once they were flushed.
    pub(super) fn settling(self, unflushed: Arc<UnflushedResponses>) -> Self {
        Self { unflushed: Some(unflushed), ..self }
    }

    /// Closes a connection on which responses are cut. `last_frame` is written first, so that the
    /// client sees the cut. There is no reset, which would discard complete responses on other
    /// streams.
    pub(super) fn after_cut(io: T, last_frame: Bytes) -> Self {
        Self { is_cut: true, ..Self::after_response(io, last_frame) }
    }

    /// Closes a connection without unread input. Done once the client has acknowledged the whole
    /// response; our FIN usually triggers that ACK.
    pub(super) fn until_acked(io: T) -> Self {
        Self { min_wait: Duration::ZERO, ..Self::after_response(io, Bytes::new()) }
    }

    /// Closes a connection without a request, and so without a response that the client must
    /// receive. Only leaves a moment for the last bytes of HTTP/2.
    pub(super) fn brief(io: T) -> Self {
        Self { min_wait: RACE_WATCH, response: Owed::No, ..Self::after_response(io, Bytes::new()) }
    }

    /// Closes an idle connection. What its client sends during the close gets no byte of a
    /// response, but is counted.
    pub(super) fn counting_races(io: T) -> Self {
        Self { min_wait: RACE_WATCH, race: Race::Open, ..Self::after_response(io, Bytes::new()) }
    }

    /// Resets a connection whose last response was cut, once the client has acknowledged what was
    /// written before. An earlier response may be on its way, and a reset would discard it.
    pub(super) fn before_reset(mut io: T) -> Self {
        io.reset_on_drop();
        let (step, end) = (Step::Acknowledging, Lingered::Reset);
        Self { step, end, ..Self::until_acked(io) }
    }

    /// Ends the connection without a further wait. Returns whether that cut a response.
    pub(super) fn cut(mut self) -> bool {
        if self.end == Lingered::Reset {
            return true;
        }
        let is_cut = self.is_cut || self.final_response.has_remaining();
        if is_cut {
            self.io.mark_cut();
        }
        close_at_once(self.io);
        is_cut
    }

    pub(super) fn poll<S: HttpService>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
    ) -> Lingered {
        if let Some(unflushed) = &self.unflushed
            && let Poll::Ready(Ok(())) = Pin::new(&mut self.io).poll_flush(cx)
        {
            unflushed.settle_flushed(|| worker.server().clock.now());
            self.unflushed = None;
        }
        // The abort does not end this state: it may be delivering the 503 of a request that was
        // just cut. The cut does.
        let closed = self.poll_close(cx, worker.server().caps().discards_per_poll);
        if self.race == Race::Seen {
            self.race = Race::NotCounted;
            worker.server().metrics.close_races.add_one();
        }
        if closed.is_ready() {
            return self.end;
        }
        let now = worker.server().clock.now();
        let until = *self.until.get_or_insert(now + self.min_wait);
        if now < until {
            worker.wake_at(slot, until);
            return Lingered::Wait;
        }
        match self.acknowledgement(worker.server(), slot, now) {
            Acknowledgement::Awaited => {}
            Acknowledgement::Done => return self.end,
            Acknowledgement::Missing => {
                worker.server().note_client_timeout(ClientTimeout::Send, slot.peer(), None);
                self.io.reset_on_drop();
                return Lingered::Reset;
            }
        }
        let check = now + ACK_CHECK_INTERVAL;
        self.until = Some(check);
        worker.wake_at(slot, check);
        Lingered::Wait
    }

    /// Whether the client is still receiving the response. While serving it has the send timeout;
    /// then the connection is reset, because the kernel would keep the rest for minutes. In the
    /// drain it has less time, but the kernel continues to send after the close. It also does for a
    /// connection that makes room: those that wait for it must not wait for its client.
    fn acknowledgement(
        &mut self,
        server: &ServerState,
        slot: &ConnectionSlot,
        now: Moment,
    ) -> Acknowledgement {
        let unacknowledged = self.io.unacknowledged().unwrap_or(0);
        // A transport may still hold the end, such as the close_notify of TLS.
        let has_sent = !matches!(self.step, Step::Writing | Step::Shutting);
        if has_sent && unacknowledged <= FIN_BYTES || self.response == Owed::No {
            return Acknowledgement::Done;
        }
        if slot.makes_room() && self.end == Lingered::Close {
            return Acknowledgement::Done;
        }
        let sample = ProgressSample { moved: [0, 0], unacknowledged: Some(unacknowledged as u64) };
        let since = self.stall_timer.last_progress(sample, now);
        if now < server.gives_up(since, ClientTimeout::Send) {
            return Acknowledgement::Awaited;
        }
        match server.stall_cause(since, ClientTimeout::Send, now) {
            AbortCause::Client => Acknowledgement::Missing,
            AbortCause::Shutdown | AbortCause::Body => Acknowledgement::Done,
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, reads_max: Cap) -> Poll<()> {
        let mut discard = [0; 4096];
        // The timer bounds a client that sends without end. This bounds one poll.
        for _ in 0..reads_max.get() {
            let io = Pin::new(&mut self.io);
            match self.step {
                Step::Writing if self.final_response.has_remaining() => match io
                    .poll_write(cx, &self.final_response)
                {
                    Poll::Ready(Ok(written)) if written > 0 => self.final_response.advance(written),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Step::Writing => {
                    if self.is_cut {
                        self.io.mark_cut();
                    }
                    self.step = Step::Shutting;
                }
                Step::Shutting => match io.poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => self.step = Step::Discarding,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Step::Discarding => {
                    let mut unread = ReadBuf::new(&mut discard);
                    match io.poll_read(cx, &mut unread) {
                        // The client sends nothing more, and may still receive.
                        Poll::Ready(Ok(())) if unread.filled().is_empty() => {
                            self.min_wait = Duration::ZERO;
                            self.until = None;
                            self.step = Step::Acknowledging;
                        }
                        Poll::Ready(Ok(()))
                            if self.race == Race::Open && !is_blank(unread.filled()) =>
                        {
                            self.race = Race::Seen;
                        }
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Step::Acknowledging => {
                    // A transport may hold bytes that the kernel has not taken yet.
                    let _ = io.poll_flush(cx);
                    return Poll::Pending;
                }
            }
        }
        reads_max.note(reads_max.get());
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Decides how to close a connection whose last response was written. Its sending side is shut,
/// unless the kernel had no place for its end (`is_shut`). `None`: it may be closed at once.
/// `read`: bytes that were read after the last request.
pub(super) fn close_after_response<T: Transport>(
    mut io: T,
    read: &Bytes,
    connection: &ConnectionState,
    is_shut: bool,
) -> Option<Lingering<T>> {
    io.read_ahead();
    let is_own_unread = connection.bodies.is_last_unread();
    let is_next_read = !is_blank(read);
    let is_unread = io.peek() == Peek::Data || io.has_buffered();
    let is_our_end = connection.responses.is_our_end();
    // Requests after the last response are not served. The client sends them again, as if they had
    // arrived after the close.
    let crosses = is_our_end && !is_own_unread;
    if is_next_read && crosses {
        connection.server().metrics.close_races.add_one();
    }
    if is_own_unread || is_next_read || is_unread {
        // What was not read may be an empty line, which is no request.
        let race = if crosses && !is_next_read { Race::Open } else { Race::NotCounted };
        return Some(Lingering { race, ..Lingering::after_response(io, Bytes::new()) });
    }
    // If the server ends the connection, the client may still send. The reset that this causes must
    // not find undelivered bytes. The same holds if the client ends it and the response was too
    // large to be sent at once.
    let is_at_risk = is_our_end
        || connection.server().caps().sent_at_once.is_exceeded_by(connection.io.sent() as usize);
    if !is_shut || is_at_risk && io.unacknowledged().is_some_and(|bytes| bytes > FIN_BYTES) {
        // A request that crosses our FIN arrives before the acknowledgement of the FIN.
        let race = if is_our_end { Race::Open } else { Race::NotCounted };
        return Some(Lingering { race, ..Lingering::until_acked(io) });
    }
    io.end_cleanly();
    None
}

/// Closes a connection with the host's error response in place of an aborted one, of which nothing
/// was written.
pub(super) fn close_with<T: Transport>(
    io: T,
    final_response: Bytes,
    read: &Bytes,
    connection: &ConnectionState,
) -> Option<Lingering<T>> {
    connection.responses.set_closes();
    let closing = close_after_response(io, read, connection, false)?;
    Some(Lingering { final_response, ..closing })
}

/// Closes a transport without a wait. Bytes that have arrived are read first: unread ones would
/// turn the close into a reset, which discards a complete response that is still on its way.
pub(super) fn close_at_once<T: Transport>(mut io: T) {
    io.discard_unread();
    let _ = Pin::new(&mut io).poll_shutdown(&mut Context::from_waker(Waker::noop()));
}
