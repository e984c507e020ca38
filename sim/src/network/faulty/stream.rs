//! A connection whose reads and writes are partial or late, and which may be reset.

use super::{Break, Faults, lock};
use crate::spins;
use lameduck::runtime::{Peek, Peer, Transport};
use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, Weak},
    task::{Context, Poll, Waker, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection of a [`FaultyNetwork`](super::FaultyNetwork).
pub struct FaultyStream<T> {
    shared: Arc<Mutex<Breakable<T>>>,
    worker: usize,
    faults: Option<Arc<Faults>>,
    reads: u32,
    writes: u32,
    /// Whether it counts as open.
    is_counted: bool,
}

struct Breakable<T> {
    /// `None` once the connection was reset.
    io: Option<T>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// The next write finds that the connection was reset.
    breaks_at_a_write: bool,
}

impl<T: Transport> FaultyStream<T> {
    pub(super) fn new(io: T, worker: usize, faults: Option<Arc<Faults>>) -> Self {
        let shared =
            Breakable { io: Some(io), reader: None, writer: None, breaks_at_a_write: false };
        let shared = Arc::new(Mutex::new(shared));
        if let Some(faults) = &faults {
            let weak: Weak<Mutex<Breakable<T>>> = Arc::downgrade(&shared);
            faults.watch(weak);
        }
        Self { shared, worker, faults, reads: 0, writes: 0, is_counted: false }
    }

    pub(super) fn note_accepted(&mut self) {
        if let Some(faults) = &self.faults {
            faults.note_accepted();
            self.is_counted = true;
        }
    }

    /// Pending while the worker is stalled.
    fn poll_runs(&self, cx: &Context<'_>) -> Poll<()> {
        self.faults
            .as_ref()
            .map_or(Poll::Ready(()), |faults| faults.stalls.poll_runs(self.worker, cx))
    }
}

impl<T> Drop for FaultyStream<T> {
    fn drop(&mut self) {
        if let Some(faults) = self.faults.as_ref().filter(|_| self.is_counted) {
            faults.note_closed();
        }
    }
}

impl<T> fmt::Debug for FaultyStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStream").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Breakable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Breakable").finish_non_exhaustive()
    }
}

impl<T: Transport> Break for Mutex<Breakable<T>> {
    fn reset(&self) -> bool {
        let (io, wakers) = {
            let mut shared = lock(self);
            (shared.io.take(), [shared.reader.take(), shared.writer.take()])
        };
        let Some(mut io) = io else { return false };
        io.reset_on_drop();
        drop(io);
        wakers.into_iter().flatten().for_each(Waker::wake);
        true
    }

    fn reset_at_a_write(&self) -> bool {
        let mut shared = lock(self);
        shared.breaks_at_a_write = shared.io.is_some();
        shared.breaks_at_a_write
    }
}

fn reset<R>() -> Poll<io::Result<R>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl<T: Transport> AsyncRead for FaultyStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        spins::note_poll();
        ready!(me.poll_runs(cx));
        let mut shared = lock(&me.shared);
        let Some(io) = shared.io.as_mut() else { return reset() };
        let part = match &me.faults {
            None => Some(buffer.remaining()),
            Some(faults) => faults.part_of(buffer.remaining(), &mut me.reads),
        };
        let Some(part) = part else {
            // A spurious wake-up.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let polled = if part >= buffer.remaining() {
            Pin::new(io).poll_read(cx, buffer)
        } else {
            let mut some = buffer.take(part);
            let polled = Pin::new(io).poll_read(cx, &mut some);
            let read = some.filled().to_vec();
            buffer.put_slice(&read);
            polled
        };
        if polled.is_pending() && me.faults.is_some() {
            shared.reader = Some(cx.waker().clone());
        }
        polled
    }
}

impl<T: Transport> AsyncWrite for FaultyStream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        spins::note_poll();
        ready!(me.poll_runs(cx));
        if lock(&me.shared).breaks_at_a_write
            && me.shared.reset()
            && let Some(faults) = &me.faults
        {
            faults.trace.record(&faults.name, "a write found a reset", &[]);
        }
        let mut shared = lock(&me.shared);
        let Some(io) = shared.io.as_mut() else { return reset() };
        let part = match &me.faults {
            None => Some(bytes.len()),
            Some(faults) => faults.part_of(bytes.len(), &mut me.writes),
        };
        let Some(part) = part else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let polled = Pin::new(io).poll_write(cx, &bytes[..part.min(bytes.len())]);
        if polled.is_pending() && me.faults.is_some() {
            shared.writer = Some(cx.waker().clone());
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match lock(&self.shared).io.as_mut() {
            Some(io) => Pin::new(io).poll_flush(cx),
            None => reset(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match lock(&self.shared).io.as_mut() {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => reset(),
        }
    }
}

impl<T: Transport> Transport for FaultyStream<T> {
    fn peek(&self) -> Peek {
        // A stalled worker would not look. It must not find bytes that it cannot read.
        let faults = self.faults.as_ref();
        if faults.is_some_and(|faults| faults.stalls.are_on(self.worker)) {
            return Peek::Empty;
        }
        lock(&self.shared).io.as_ref().map_or(Peek::Broken, Transport::peek)
    }

    fn peer(&self) -> Peer {
        let faults = self.faults.as_ref();
        if faults.is_some_and(|faults| faults.stalls.are_on(self.worker)) {
            return Peer::Open;
        }
        lock(&self.shared).io.as_ref().map_or(Peer::Gone, Transport::peer)
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.poll_runs(cx));
        lock(&self.shared).io.as_ref().map_or(Poll::Pending, |io| io.poll_readable(cx))
    }

    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let faults = self.faults.as_ref();
        if faults.is_some_and(|faults| faults.stalls.are_on(self.worker)) {
            return Poll::Pending;
        }
        match lock(&self.shared).io.as_mut() {
            Some(io) => io.read_now(buf),
            None => reset(),
        }
    }

    fn discard_unread(&mut self) {
        if let Some(io) = lock(&self.shared).io.as_mut() {
            io.discard_unread();
        }
    }

    fn unacknowledged(&self) -> Option<usize> {
        lock(&self.shared).io.as_ref().and_then(Transport::unacknowledged)
    }

    fn reset_on_drop(&mut self) {
        if let Some(io) = lock(&self.shared).io.as_mut() {
            io.reset_on_drop();
        }
    }
}
