//! A close that destroys nothing.
//!
//! A socket that is closed while bytes of the client lie unread is reset by the kernel, and the reset throws away what we have
//! written and the client has not read (RFC 9112 §9.6). So: last words, shut our side, read and discard for a while, close.

use super::{berth::Berth, connection::Next, crew::Crew, limits::LINGER, service::HttpService};
use crate::{env::Transport, lifecycle::Moment};
use bytes::{Buf, Bytes};
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::ReadBuf;

/// A transport on its way out.
pub(crate) struct Lingering<T> {
    io: T,
    farewell: Bytes,
    step: Step,
    until: Option<Moment>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Saying,
    Shutting,
    Discarding,
}

impl<T: Transport> Lingering<T> {
    pub(crate) fn new(io: T, farewell: Bytes) -> Self {
        Self { io, farewell, step: Step::Saying, until: None }
    }

    pub(crate) fn poll<S: HttpService>(&mut self, cx: &mut Context<'_>, crew: &Crew<S>, berth: &Berth) -> Next<T> {
        let now = crew.side.clock.now();
        let until = *self.until.get_or_insert(now + LINGER);
        // The abort does not end it: what it guards may be the very 503 of a request that was just cut. The cut does.
        if now >= until {
            return Next::Close;
        }
        match self.poll_close(cx) {
            Poll::Ready(()) => Next::Close,
            Poll::Pending => {
                berth.wake_at(until);
                Next::Wait
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waste = [0; 4096];
        // A client that sends for ever is bounded by the time; this bounds one poll.
        for _ in 0..64 {
            let io = Pin::new(&mut self.io);
            match self.step {
                Step::Saying if self.farewell.has_remaining() => match io.poll_write(cx, &self.farewell) {
                    Poll::Ready(Ok(written)) if written > 0 => self.farewell.advance(written),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Step::Saying => self.step = Step::Shutting,
                Step::Shutting => match io.poll_shutdown(cx) {
                    Poll::Ready(Ok(())) => self.step = Step::Discarding,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                Step::Discarding => {
                    let mut unread = ReadBuf::new(&mut waste);
                    match io.poll_read(cx, &mut unread) {
                        Poll::Ready(Ok(())) if unread.filled().is_empty() => return Poll::Ready(()),
                        Poll::Ready(Ok(())) => {}
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
