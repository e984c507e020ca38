//! A client's end of a connection, and the two tasks that forward its bytes after the latency.
//!
//! The client's end is in memory. It behaves as a socket that is as far away as the link says: what
//! the host sent arrives later, in order, and so do its FIN and its RST. The tasks stop reading
//! from the real socket when the client does not read, so that the kernel's buffers fill.

use super::{super::faulty::Break, host::Way};
use bytes::{Buf, Bytes, BytesMut};
use lameduck::runtime::{Peek, Transport};
use std::{
    collections::VecDeque,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf},
    net::{
        TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Notify, mpsc},
    time::Sleep,
};
use tokio_util::sync::CancellationToken;

/// Bytes that may be on their way or unread, in each direction. The simulated kernel has as many.
const WINDOW: usize = 64 * 1024;

/// Receive buffer of the real socket, beside the window. The kernel doubles it.
const RECEIVE_BUFFER: u32 = 8 * 1024;

/// Connects a real socket.
pub(super) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

/// What travels from one end to the other.
#[derive(Debug)]
enum Parcel {
    Bytes(Bytes),
    Fin,
    Reset,
}

/// A client's end of a connection.
pub struct LinuxStream {
    shared: Arc<Shared>,
    up: Way,
    sent: mpsc::UnboundedSender<(Instant, Parcel)>,
    /// Fires when the next parcel arrives.
    timer: Pin<Box<Sleep>>,
    is_shut: bool,
    resets: bool,
}

impl fmt::Debug for LinuxStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinuxStream").field("up", &self.up).finish_non_exhaustive()
    }
}

/// Shared by a client's end and its two tasks.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// There is room for what the host sends.
    room: Notify,
    /// The client has closed its end, and everything that it sent has arrived.
    all_sent: CancellationToken,
    /// The real socket is closed, in the regular way or by a reset.
    closed: CancellationToken,
    reset: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// What the host sent, with the times of arrival.
    down: VecDeque<(Instant, Parcel)>,
    down_bytes: usize,
    up_bytes: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// When the host's RST arrives.
    broken: Option<Instant>,
    /// The client has closed its end.
    is_left: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over what the host sent. Returns whether the client has closed its end.
    fn deliver(&self, at: Instant, parcel: Parcel) -> bool {
        let mut state = self.lock();
        match &parcel {
            Parcel::Bytes(bytes) => state.down_bytes += bytes.len(),
            Parcel::Reset => state.broken = state.broken.or(Some(at)),
            Parcel::Fin => {}
        }
        state.down.push_back((at, parcel));
        let wakers = [state.reader.take(), state.writer.take()];
        let is_left = state.is_left;
        drop(state);
        wakers.into_iter().flatten().for_each(Waker::wake);
        is_left
    }
}

impl State {
    /// Moves all bytes that have arrived into `buffer`, as a read from a socket does. Returns
    /// whether there were any.
    fn take_arrived(&mut self, now: Instant, buffer: &mut ReadBuf<'_>) -> bool {
        let before = buffer.filled().len();
        while let Some((at, Parcel::Bytes(bytes))) = self.down.front_mut()
            && *at <= now
            && buffer.remaining() > 0
        {
            let part = bytes.len().min(buffer.remaining());
            buffer.put_slice(&bytes[..part]);
            bytes.advance(part);
            self.down_bytes -= part;
            if bytes.is_empty() {
                self.down.pop_front();
            }
        }
        buffer.filled().len() > before
    }
}

impl Break for Shared {
    /// The network resets the connection, at both ends.
    #[expect(clippy::disallowed_methods, reason = "this world has real time")]
    fn reset(&self) -> bool {
        if self.closed.is_cancelled() || self.reset.is_cancelled() {
            return false;
        }
        self.reset.cancel();
        let mut state = self.lock();
        state.down.clear();
        state.down_bytes = 0;
        drop(state);
        self.deliver(Instant::now(), Parcel::Reset);
        true
    }
}

impl LinuxStream {
    /// Wraps a connected socket, and begins to forward.
    pub(super) fn new(socket: TcpStream, up: Way, down: Way) -> Self {
        let shared = Arc::new(Shared::default());
        if let Some(faults) = up.faults() {
            let weak: Weak<Shared> = Arc::downgrade(&shared);
            faults.watch(weak);
        }
        let (read, write) = socket.into_split();
        let (sent, parcels) = mpsc::unbounded_channel();
        forward(send_up(write, parcels, Arc::clone(&shared), up.clone()));
        forward(bring_down(read, down, Arc::clone(&shared)));
        Self { shared, up, sent, timer: timer(), is_shut: false, resets: false }
    }

    fn send(&mut self, parcel: Parcel) {
        let at = self.up.arrives(now());
        let _ = self.sent.send((at, parcel));
    }
}

/// Begins one direction. It ends with its connection or with the world.
#[expect(clippy::disallowed_methods, reason = "it ends with the world's runtime at the latest")]
fn forward(direction: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(direction));
}

#[expect(clippy::disallowed_methods, reason = "this world has real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "this world has real time")]
fn timer() -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(Duration::ZERO))
}

#[expect(clippy::disallowed_methods, reason = "this world has real time")]
async fn until(at: Instant) {
    tokio::time::sleep_until(at.into()).await;
}

/// Passes on what the client sends.
async fn send_up(
    mut write: OwnedWriteHalf,
    mut parcels: mpsc::UnboundedReceiver<(Instant, Parcel)>,
    shared: Arc<Shared>,
    way: Way,
) {
    let mut parts = 0;
    let sending = async {
        while let Some((at, parcel)) = parcels.recv().await {
            until(at).await;
            match parcel {
                Parcel::Bytes(bytes) => {
                    let length = bytes.len();
                    // The host's RST comes by the other direction.
                    let _ = write_parts(&mut write, bytes, &way, &mut parts).await;
                    let mut state = shared.lock();
                    state.up_bytes -= length;
                    let writer = state.writer.take();
                    drop(state);
                    writer.into_iter().for_each(Waker::wake);
                }
                Parcel::Fin => drop(write.shutdown().await),
                Parcel::Reset => return shared.reset.cancel(),
            }
        }
        shared.all_sent.cancel();
        shared.closed.cancelled().await;
    };
    tokio::select! {
        biased;
        () = shared.reset.cancelled() => {}
        () = shared.closed.cancelled() => {}
        () = sending => {}
    }
    if shared.reset.is_cancelled() {
        let _ = write.as_ref().set_zero_linger();
    }
    // A drop would send a FIN before the RST.
    write.forget();
}

/// Writes in pieces as the faults say.
async fn write_parts(
    write: &mut OwnedWriteHalf,
    mut bytes: Bytes,
    way: &Way,
    parts: &mut u32,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let part = match way.faults() {
            Some(faults) => faults.part_of(bytes.len(), parts),
            None => Some(bytes.len()),
        };
        match part {
            Some(part) => write.write_all(&bytes.split_to(part)).await?,
            // The host's thread reads what there is.
            None => tokio::task::yield_now().await,
        }
    }
    Ok(())
}

/// Passes on what the host sends, at most a window ahead of the client.
async fn bring_down(mut read: OwnedReadHalf, mut way: Way, shared: Arc<Shared>) {
    let bringing = async {
        loop {
            while shared.lock().down_bytes >= WINDOW {
                tokio::select! {
                    biased;
                    () = shared.room.notified() => {}
                    _ = read.ready(Interest::ERROR) => {
                        shared.deliver(way.arrives(now()), Parcel::Reset);
                        return true;
                    }
                }
            }
            let room = WINDOW - shared.lock().down_bytes;
            let mut bytes = BytesMut::with_capacity(room.min(WINDOW / 4));
            let read = read.read_buf(&mut bytes).await;
            let at = way.arrives(now());
            match read {
                Ok(0) => {
                    shared.deliver(at, Parcel::Fin);
                    break;
                }
                Ok(_) => {
                    if shared.deliver(at, Parcel::Bytes(bytes.freeze())) {
                        // Bytes for a closed end: its kernel responds with an RST.
                        until(at).await;
                        until(way.arrives(now())).await;
                        return true;
                    }
                }
                Err(_) => {
                    shared.deliver(at, Parcel::Reset);
                    return false;
                }
            }
        }
        // The host has sent its FIN. It may still send an RST.
        tokio::select! {
            biased;
            _ = read.ready(Interest::ERROR) => {
                let _ = shared.deliver(way.arrives(now()), Parcel::Reset);
            }
            () = shared.all_sent.cancelled() => {}
        }
        false
    };
    let resets = tokio::select! {
        biased;
        () = shared.reset.cancelled() => true,
        resets = bringing => resets,
    };
    if resets {
        let _ = read.as_ref().set_zero_linger();
        shared.reset.cancel();
    }
    shared.closed.cancel();
}

impl AsyncRead for LinuxStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        loop {
            let (mut state, now) = (me.shared.lock(), now());
            if state.take_arrived(now, buffer) {
                me.shared.room.notify_one();
                return Poll::Ready(Ok(()));
            }
            let State { down, reader, .. } = &mut *state;
            let Some((at, parcel)) = down.front() else {
                *reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let at = *at;
            if at > now {
                // The network may still reset the connection.
                *reader = Some(cx.waker().clone());
                drop(state);
                me.timer.as_mut().reset(at.into());
                ready!(me.timer.as_mut().poll(cx));
                continue;
            }
            return match parcel {
                Parcel::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                // The buffer has no room for the bytes.
                Parcel::Bytes(_) | Parcel::Fin => Poll::Ready(Ok(())),
            };
        }
    }
}

impl AsyncWrite for LinuxStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let me = self.get_mut();
        let mut state = me.shared.lock();
        if me.is_shut || state.broken.is_some_and(|at| at <= now()) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.up_bytes >= WINDOW {
            state.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let part = bytes.len().min(WINDOW - state.up_bytes);
        state.up_bytes += part;
        drop(state);
        me.send(Parcel::Bytes(Bytes::copy_from_slice(&bytes[..part])));
        Poll::Ready(Ok(part))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        if !std::mem::replace(&mut me.is_shut, true) {
            me.send(Parcel::Fin);
        }
        Poll::Ready(Ok(()))
    }
}

impl Transport for LinuxStream {
    fn peek(&self) -> Peek {
        let (state, now) = (self.shared.lock(), now());
        if state.broken.is_some_and(|at| at <= now) {
            return Peek::Broken;
        }
        match state.down.front() {
            Some((at, Parcel::Bytes(_))) if *at <= now => Peek::Data,
            Some((at, Parcel::Fin)) if *at <= now => Peek::Ended,
            Some(_) | None => Peek::Empty,
        }
    }

    fn reset_on_drop(&mut self) {
        self.resets = true;
    }
}

impl Drop for LinuxStream {
    fn drop(&mut self) {
        let now = now();
        let (mut is_unread, mut last) = (false, None);
        let mut state = self.shared.lock();
        state.is_left = true;
        for (at, parcel) in &state.down {
            if matches!(parcel, Parcel::Bytes(_)) {
                is_unread |= *at <= now;
                last = Some(*at);
            }
        }
        drop(state);
        if self.resets || is_unread {
            return self.send(Parcel::Reset);
        }
        if !self.is_shut {
            self.send(Parcel::Fin);
        }
        // Bytes on their way will find a closed end, whose kernel responds with an RST.
        if let Some(last) = last {
            let _ = self.sent.send((self.up.arrives(last), Parcel::Reset));
        }
    }
}
