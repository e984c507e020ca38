//! Responses that leave in one write: those to the pipelined requests that were read together.

use crate::http::{
    exchange::in_flight::{InFlight, UnflushedResponses},
    server::caps::Caps,
};
use crate::{lifecycle::Moment, runtime::Transport};
use bytes::Bytes;
use std::{
    cell::Cell,
    mem,
    pin::Pin,
    task::{Context, Poll},
};

/// Complete responses in the order of their requests, and at most one incomplete response after
/// them.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) bytes: Vec<u8>,
    /// Where the last complete response ends in `bytes`.
    complete: usize,
    /// The requests in flight, each with the end of its response in `bytes`.
    requests: Vec<(InFlight, usize)>,
}

/// The result of a send.
pub(super) enum Sent {
    /// The kernel has taken all of them by this moment.
    All(Moment),
    /// The kernel takes no more for now.
    Blocked,
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
            self.bytes.clear();
            GATHERED.set(Some(self));
        }
    }

    /// Records that a response ends where `bytes` end. `in_flight` is its request, unless its
    /// outcome is settled.
    pub(super) fn end_response(&mut self, in_flight: Option<InFlight>) {
        self.complete = self.bytes.len();
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
        let mut written = 0;
        let mut polled = Poll::Ready(());
        while written < self.bytes.len() && polled.is_ready() {
            match Pin::new(&mut *io).poll_write(cx, &self.bytes[written..]) {
                Poll::Ready(Ok(0) | Err(_)) => return self.disconnect(),
                Poll::Ready(Ok(more)) => written += more,
                Poll::Pending => polled = Poll::Pending,
            }
        }
        match Pin::new(io).poll_flush(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return self.disconnect(),
            Poll::Pending => {
                drop(self.bytes.drain(..written));
                self.requests.drain(..).for_each(|(in_flight, _)| unflushed.push(in_flight));
                return Sent::Blocked;
            }
        }
        let now = unflushed.connection().server().clock.now();
        let sent = |in_flight: &mut InFlight| {
            in_flight.connection().on_request_ended();
            in_flight.finish(&|| now);
        };
        if polled.is_ready() {
            self.requests.iter_mut().for_each(|(in_flight, _)| sent(in_flight));
            self.requests.clear();
            self.bytes.clear();
            return Sent::All(now);
        }
        for (mut in_flight, end) in self.requests.drain(..) {
            if end <= written {
                sent(&mut in_flight);
            } else {
                unflushed.push(in_flight);
            }
        }
        drop(self.bytes.drain(..written));
        Sent::Blocked
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
        self.bytes.truncate(self.complete);
    }

    /// Returns what was not sent.
    pub(super) fn take_rest(&mut self) -> Bytes {
        Bytes::from(mem::take(&mut self.bytes))
    }
}
