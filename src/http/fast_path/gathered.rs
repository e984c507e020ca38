//! Responses that leave in one write: those to the pipelined requests that were read together.

use crate::http::{
    exchange::in_flight::{InFlight, UnflushedResponses},
    server::caps::Caps,
};
use crate::{lifecycle::Moment, runtime::Transport};
use bytes::{Buf, Bytes, buf::Chain};
use std::{
    cell::Cell,
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

/// Complete responses in the order of their requests, and at most one incomplete response after
/// them.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) bytes: Vec<u8>,
    /// The body of the last response, if it is too long to be copied. It follows `bytes`.
    long_body: Bytes,
    /// Where the last complete response ends in `bytes`.
    complete: usize,
    /// The requests in flight, each with the end of its response in `bytes`.
    requests: Vec<(InFlight, usize)>,
}

/// The result of a send.
pub(super) enum Sent {
    /// The kernel has taken all of them by this moment.
    All(Moment),
    /// Some of them are left: the kernel is full, or other connections have a turn first.
    Incomplete,
    /// The connection is broken.
    Disconnected,
}

thread_local! {
    /// The memory of the last responses, to be reused.
    static GATHERED: Cell<Option<Box<Gathered>>> = const { Cell::new(None) };
}

impl Gathered {
    /// Returns an empty one, with the memory that this thread has kept.
    pub(super) fn take() -> Box<Self> {
        GATHERED.take().unwrap_or_default()
    }

    /// Keeps the memory for the next responses of this thread.
    pub(super) fn keep(mut self: Box<Self>, caps: &Caps) {
        // Not noted: what a thread has kept depends on the worlds before this one.
        if self.bytes.capacity() <= caps.out_kept_bytes.get() {
            self.clear();
            GATHERED.set(Some(self));
        }
    }

    /// Adds the body of the last response after its head.
    pub(super) fn add_body(&mut self, body: Bytes, caps: &Caps) {
        if caps.sent_at_once.is_exceeded_by(body.len()) {
            self.long_body = body;
        } else {
            self.bytes.extend_from_slice(&body);
        }
    }

    /// Whether nothing is to be added before these responses are sent.
    pub(super) fn is_full(&self, caps: &Caps) -> bool {
        !self.long_body.is_empty() || caps.sent_at_once.is_reached_by(self.bytes.len())
    }

    fn len(&self) -> usize {
        self.bytes.len() + self.long_body.len()
    }

    /// Records that a response ends where the gathered bytes end. `in_flight` is its request,
    /// unless its outcome is settled.
    pub(super) fn end_response(&mut self, in_flight: Option<InFlight>) {
        self.complete = self.len();
        if let Some(in_flight) = in_flight {
            self.requests.push((in_flight, self.complete));
        }
    }

    /// Writes and flushes the responses. Then their requests are finished. Those whose responses
    /// were not sent wait in `unflushed`, and `bytes` has the rest.
    pub(super) fn send<T: Transport>(
        &mut self,
        cx: &mut Context<'_>,
        io: &mut T,
        unflushed: &UnflushedResponses,
    ) -> Sent {
        self.complete = 0;
        let writes_max = unflushed.connection().server().caps().writes_per_poll;
        let (mut written, mut writes) = (0, 0);
        while written < self.len() && !writes_max.is_reached_by(writes) {
            writes += 1;
            let polled_write = if self.long_body.is_empty() {
                Pin::new(&mut *io).poll_write(cx, &self.bytes[written..])
            } else {
                self.poll_write_long(cx, io, written)
            };
            match polled_write {
                Poll::Ready(Ok(0) | Err(_)) => return self.disconnect(),
                Poll::Ready(Ok(more)) => written += more,
                Poll::Pending => break,
            }
        }
        // A later close looks for what the client has not acknowledged.
        unflushed.connection().io.on_sent(written);
        match Pin::new(io).poll_flush(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return self.disconnect(),
            Poll::Pending => {
                self.remove(written);
                self.requests.drain(..).for_each(|(in_flight, _)| unflushed.push(in_flight));
                return Sent::Incomplete;
            }
        }
        let now = unflushed.connection().server().clock.now();
        let sent = |in_flight: &mut InFlight| {
            in_flight.connection().on_request_ended();
            in_flight.finish(&|| now);
        };
        if written == self.len() {
            self.requests.iter_mut().for_each(|(in_flight, _)| sent(in_flight));
            self.requests.clear();
            self.clear();
            return Sent::All(now);
        }
        for (mut in_flight, end) in self.requests.drain(..) {
            if end <= written {
                sent(&mut in_flight);
            } else {
                unflushed.push(in_flight);
            }
        }
        self.remove(written);
        Sent::Incomplete
    }

    /// Writes what follows the first `written` bytes, with one call as far as `io` can.
    fn poll_write_long<T: Transport>(
        &self,
        cx: &mut Context<'_>,
        io: &mut T,
        written: usize,
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(io);
        match written.checked_sub(self.bytes.len()) {
            Some(written) => io.poll_write(cx, &self.long_body[written..]),
            None => {
                let slices = [&self.bytes[written..], &self.long_body[..]].map(IoSlice::new);
                io.poll_write_vectored(cx, &slices)
            }
        }
    }

    /// Removes the first `written` bytes.
    fn remove(&mut self, written: usize) {
        let of_short = written.min(self.bytes.len());
        drop(self.bytes.drain(..of_short));
        self.long_body.advance(written - of_short);
    }

    /// The connection is broken: its client gets none of these responses.
    fn disconnect(&mut self) -> Sent {
        for (in_flight, _) in self.requests.drain(..) {
            in_flight.connection().on_request_ended();
        }
        Sent::Disconnected
    }

    /// Discards what follows the last complete response.
    pub(super) fn discard_incomplete(&mut self) {
        if self.complete < self.len() {
            self.bytes.truncate(self.complete);
            self.long_body = Bytes::new();
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        if !self.long_body.is_empty() {
            self.long_body = Bytes::new();
        }
    }

    /// Returns what was not sent.
    pub(super) fn take_rest(&mut self) -> Chain<Bytes, Bytes> {
        Bytes::from(mem::take(&mut self.bytes)).chain(mem::take(&mut self.long_body))
    }
}
