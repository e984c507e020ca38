//! The listener and the stop signal of a server that is not lameduck.

use super::process::Process;
use crate::{
    host_run::MAIN_PORT,
    network::{AnyHost, AnyListener, BoxStream},
};
use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The listener of a server in the simulated network. It implements `axum::serve::Listener` (with
/// the feature `axum`, which is enabled by default).
pub struct SimListener {
    socket: Socket,
    gone: CancellationToken,
}

/// `None` once the process has exited.
#[derive(Clone)]
struct Socket(Arc<Mutex<Option<Box<dyn AnyListener>>>>);

impl Socket {
    fn lock(&self) -> MutexGuard<'_, Option<Box<dyn AnyListener>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes a port when it is dropped.
pub(super) struct Closing(Socket);

impl Drop for Closing {
    fn drop(&mut self) {
        let socket = self.0.lock().take();
        drop(socket);
    }
}

impl SimListener {
    /// Listens on the port of a process.
    pub(super) async fn open(process: &Process) -> io::Result<(Self, Closing)> {
        let listener = AnyHost::listen(&process.host, MAIN_PORT).await?;
        let socket = Socket(Arc::new(Mutex::new(Some(listener))));
        Ok((Self { socket: socket.clone(), gone: process.gone.clone() }, Closing(socket)))
    }

    /// Accepts a connection.
    ///
    /// # Errors
    /// The network's errors. None is expected.
    ///
    /// # Cancel safety
    /// No connection is lost if it is dropped early.
    pub async fn accept(&mut self) -> io::Result<(SimStream, SocketAddr)> {
        let stream = poll_fn(|cx| match self.socket.lock().as_mut() {
            Some(listener) => listener.poll_accept(cx),
            None => Poll::Pending,
        })
        .await?;
        let gone = Box::pin(self.gone.clone().cancelled_owned());
        // The simulated network does not have the address of the peer.
        Ok((SimStream { stream, gone }, SocketAddr::from(([0, 0, 0, 0], 0))))
    }

    /// Returns the address that it listens on.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], MAIN_PORT))
    }
}

impl fmt::Debug for SimListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimListener").field("local", &self.local_addr()).finish_non_exhaustive()
    }
}

#[cfg(feature = "axum")]
impl axum::serve::Listener for SimListener {
    type Io = SimStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (SimStream, SocketAddr) {
        match Self::accept(self).await {
            Ok(accepted) => accepted,
            Err(_) => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(Self::local_addr(self))
    }
}

/// A server's end of a connection. Once the process has exited, every operation fails.
pub struct SimStream {
    stream: BoxStream,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl SimStream {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.gone.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStream").finish_non_exhaustive()
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Completes when the platform stops the process: SIGTERM.
pub struct StopSignal(Pin<Box<WaitForCancellationFutureOwned>>);

impl StopSignal {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self(Box::pin(stop.cancelled_owned()))
    }
}

impl Future for StopSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

impl fmt::Debug for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopSignal").finish_non_exhaustive()
    }
}
