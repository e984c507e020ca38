//! Idle poller for any simulated network: idle connections wait there without a task each.
//!
//! The simulated networks have no epoll. The poller therefore reads from each connection, and keeps
//! the bytes that it read.

use bytes::Bytes;
use lameduck::runtime::{IdlePoller, Peek, Peer, Transport};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Polls its connections one by one.
#[derive(Debug)]
pub struct PolledIdlePoller<T> {
    places: Vec<(usize, Weak<Mutex<Place<T>>>)>,
}

#[derive(Debug)]
struct Place<T> {
    io: T,
    unread: Vec<u8>,
    /// A read returned an end of stream or an error.
    is_over: bool,
}

/// Bytes read ahead; more stay in the network until the owner reads.
const READ_AHEAD: usize = 64;

impl<T> Default for PolledIdlePoller<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PolledIdlePoller<T> {
    /// Creates an empty poller.
    #[must_use]
    pub const fn new() -> Self {
        Self { places: Vec::new() }
    }
}

impl<T: Transport> IdlePoller for PolledIdlePoller<T> {
    type Io = T;
    type Idle = PolledStream<T>;

    fn insert(&mut self, io: T, key: usize) -> Result<PolledStream<T>, T> {
        let place = Arc::new(Mutex::new(Place { io, unread: Vec::new(), is_over: false }));
        self.places.push((key, Arc::downgrade(&place)));
        Ok(PolledStream(place))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>, found: &mut Vec<usize>) -> Poll<()> {
        self.places.retain(|(key, place)| {
            let Some(place) = place.upgrade() else { return false };
            if lock(&place).poll_ahead(cx).is_ready() {
                found.push(*key);
            }
            true
        });
        if found.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    fn remove(&mut self, idle: PolledStream<T>) -> io::Result<(T, Bytes)> {
        let place = Arc::into_inner(idle.0).ok_or(io::ErrorKind::NotConnected)?;
        let Place { io, unread, .. } = place.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((io, unread.into()))
    }
}

impl<T: Transport> Place<T> {
    /// Returns `Ready` if there is something to read.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_over && self.unread.is_empty() {
            let mut room = [0; READ_AHEAD];
            let mut room = ReadBuf::new(&mut room);
            match Pin::new(&mut self.io).poll_read(cx, &mut room) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(read) => {
                    self.unread.extend_from_slice(room.filled());
                    self.is_over = read.is_err() || room.filled().is_empty();
                }
            }
        }
        Poll::Ready(())
    }
}

/// A connection that waits in a [`PolledIdlePoller`].
#[derive(Debug)]
pub struct PolledStream<T>(Arc<Mutex<Place<T>>>);

fn lock<T>(place: &Mutex<Place<T>>) -> MutexGuard<'_, Place<T>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: Transport> AsyncRead for PolledStream<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut place = lock(&self.0);
        if place.is_over && place.unread.is_empty() {
            return Poll::Ready(Ok(()));
        }
        if place.unread.is_empty() {
            return Pin::new(&mut place.io).poll_read(cx, buffer);
        }
        let now = buffer.remaining().min(place.unread.len());
        buffer.put_slice(&place.unread[..now]);
        drop(place.unread.drain(..now));
        Poll::Ready(Ok(()))
    }
}

impl<T: Transport> AsyncWrite for PolledStream<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut lock(&self.0).io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut lock(&self.0).io).poll_shutdown(cx)
    }
}

impl<T: Transport> Transport for PolledStream<T> {
    fn peek(&self) -> Peek {
        let place = lock(&self.0);
        if place.unread.is_empty() { place.io.peek() } else { Peek::Data }
    }

    fn peer(&self) -> Peer {
        lock(&self.0).io.peer()
    }

    fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let place = lock(&self.0);
        if place.unread.is_empty() { place.io.poll_readable(cx) } else { Poll::Ready(()) }
    }

    fn read_now(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut place = lock(&self.0);
        if place.is_over || !place.unread.is_empty() {
            drop(place);
            let noop = &mut Context::from_waker(Waker::noop());
            return Pin::new(self).poll_read(noop, buf);
        }
        place.io.read_now(buf)
    }

    fn discard_unread(&mut self) {
        let mut place = lock(&self.0);
        place.unread.clear();
        place.io.discard_unread();
    }

    fn unacknowledged(&self) -> Option<usize> {
        lock(&self.0).io.unacknowledged()
    }

    fn reset_on_drop(&mut self) {
        lock(&self.0).io.reset_on_drop();
    }
}
