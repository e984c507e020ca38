//! A connection that is not ready for HTTP yet: its PROXY header and its TLS handshake are awaited.
//!
//! The handshake runs in the connection's task, with its own timeout. The drain includes it: a
//! client whose handshake is under way completes it and gets a response to its first request. The
//! bytes of a PROXY header are bounded like those of a request head, but are no request.

use super::{lingering::close_at_once, transition::Transition, worker_context::WorkerContext};
use crate::http::{
    exchange::{final_reads::FinalReads, http_service::HttpService},
    server::{
        connection_slot::ConnectionSlot,
        idle_policy::{Awaited, Idle},
    },
};
use crate::{
    lifecycle::Moment,
    runtime::{Opening as OpeningState, Peek, Transport},
};
use std::task::{Context, Poll};

/// A transport whose PROXY header or handshake is to be done.
pub(super) struct Opening<T> {
    /// `None` only after the transport was passed on.
    io: Option<T>,
    final_reads: FinalReads,
    header: Header,
}

/// What is known of a PROXY header that came in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Header {
    Unseen,
    Begun,
    /// Its last piece was read. What follows has the time of a first byte since then.
    Read {
        at: Moment,
    },
}

impl<T: Transport> Opening<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io: Some(io), final_reads: FinalReads::default(), header: Header::Unseen }
    }

    pub(super) fn poll<S: HttpService>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext<S>,
        slot: &ConnectionSlot,
    ) -> Transition<T, S> {
        let server = worker.server();
        let Some(io) = &mut self.io else { return Transition::Close };
        match io.poll_open(cx) {
            Poll::Ready(Ok(client)) => {
                if io.has_handshake() {
                    server.metrics.handshakes.add_one();
                }
                let io = self.io.take();
                return io.map_or(Transition::Close, |io| Transition::Opened(io, client));
            }
            Poll::Ready(Err(error)) => {
                match io.opening() {
                    // The client has closed the connection without a byte, as some health checks
                    // do.
                    OpeningState::Silent => {}
                    OpeningState::Header => server.note_refused_header(slot.peer(), &error),
                    OpeningState::Begun | OpeningState::Done => {
                        crate::log::debug!(peer = %slot.peer(), %error, "TLS handshake failed");
                        server.metrics.handshakes_failed.add_one();
                    }
                }
                return self.close();
            }
            Poll::Pending => {}
        }
        let now = server.clock.now();
        let awaited = match io.opening() {
            OpeningState::Silent => Awaited::FirstByte,
            OpeningState::Header => Awaited::Head,
            OpeningState::Begun | OpeningState::Done => Awaited::Handshake,
        };
        self.header = match (self.header, awaited) {
            (_, Awaited::Head) => Header::Begun,
            (Header::Begun, _) => Header::Read { at: now },
            (header, _) => header,
        };
        let since = match self.header {
            Header::Read { at } if awaited == Awaited::FirstByte => at,
            Header::Unseen | Header::Begun | Header::Read { .. } => slot.accepted,
        };
        let idle = Idle { awaited, since };
        let (limits, draining_since) = (&server.config.limits, server.draining_since());
        let handshake = Idle { awaited: Awaited::Handshake, since: slot.accepted };
        let idle_until = idle.deadline(limits, draining_since);
        let handshake_until = if io.has_handshake() {
            handshake.deadline(limits, draining_since)
        } else {
            Moment::NEVER
        };
        let until = idle_until.min(handshake_until);
        let evicted = slot.take_evicted();
        if now < until && !evicted {
            self.final_reads.note_poll(now);
            // At the connection limit a handshake makes room like a connection without a byte.
            slot.set_idle(Idle { awaited: Awaited::FirstByte, ..idle });
            worker.wake_at(slot, until);
            return Transition::Wait;
        }
        if io.peek() == Peek::Data && self.final_reads.may_delay(now) {
            // The readiness event is on its way.
            cx.waker().wake_by_ref();
            return Transition::Wait;
        }
        if evicted {
            server.metrics.evicted.add_one();
        } else if draining_since == Moment::NEVER {
            if awaited == Awaited::Head && idle_until <= handshake_until {
                server.note_refused_header(slot.peer(), &"incomplete after the header timeout");
            } else if handshake_until <= idle_until {
                crate::log::debug!(peer = %slot.peer(), "TLS handshake timed out");
                server.metrics.handshake_timeouts.add_one();
            } else {
                server.metrics.first_byte_timeouts.add_one();
            }
        }
        self.close()
    }

    fn close<S: HttpService>(&mut self) -> Transition<T, S> {
        self.cut();
        Transition::Close
    }

    /// Closes the transport without a wait.
    pub(super) fn cut(&mut self) {
        if let Some(io) = self.io.take() {
            close_at_once(io);
        }
    }
}
