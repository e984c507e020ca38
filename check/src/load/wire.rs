//! A wire with latency: every byte, and every end of file, arrives some time after it was sent.
//!
//! It is part of the client, not a proxy in between. A proxy would complete the client's connect
//! before the server has accepted the connection, and a refused connect would look like a lost
//! request.

use std::{
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    thread,
    time::Duration,
};
use tokio::{
    io::{
        AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex, split,
    },
    net::TcpStream,
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

/// Opens connections to a server.
#[derive(Debug)]
pub struct Wire {
    server: SocketAddr,
    latency: RangeInclusive<Duration>,
    drawn: AtomicU32,
}

/// A connection, with or without latency.
pub type Line = Box<dyn Stream>;

/// A byte stream in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + std::fmt::Debug> Stream for S {}

/// Bytes that may be in transit before the other end reads.
const CAPACITY: usize = 1 << 20;

impl Wire {
    /// Returns a wire to `server`. Each connection draws its one-way latency from this range.
    #[must_use]
    pub fn new(server: SocketAddr, latency: RangeInclusive<Duration>) -> Self {
        Self { server, latency, drawn: AtomicU32::new(0) }
    }

    /// Returns a wire to `server` without latency.
    #[must_use]
    pub fn direct(server: SocketAddr) -> Self {
        Self::new(server, Duration::ZERO..=Duration::ZERO)
    }

    /// Connects. The handshake takes a round trip, like everything else.
    ///
    /// # Errors
    /// Errors of the system. Nothing was sent then.
    pub async fn connect(&self) -> io::Result<Line> {
        if self.latency.end().is_zero() {
            let near = TcpStream::connect(self.server).await?;
            near.set_nodelay(true)?;
            return Ok(Box::new(near));
        }
        let latency = self.draw();
        sleep(latency).await;
        let connected = TcpStream::connect(self.server).await;
        sleep(latency).await;
        let far = connected?;
        far.set_nodelay(true)?;
        let (near, end) = duplex(CAPACITY);
        let was_reset = Arc::new(AtomicBool::new(false));
        let near = Far { near, was_reset: was_reset.clone() };
        tokio::spawn(async move {
            let (far_read, far_write) = far.into_split();
            let (end_read, end_write) = split(end);
            let is_client_reset = AtomicBool::new(false);
            tokio::join!(
                carry(far_read, end_write, latency, &was_reset),
                carry(end_read, far_write, latency, &is_client_reset)
            );
        });
        Ok(Box::new(near))
    }

    /// Waits until the clients have received what the server has sent until now, and have seen
    /// which connections it has closed. Blocks the thread.
    pub fn await_arrivals(&self) {
        const READS: Duration = Duration::from_millis(100);
        thread::sleep(*self.latency.end() + READS);
    }

    /// Spreads the latencies evenly by the golden ratio, so that a few connections already cover
    /// the range.
    fn draw(&self) -> Duration {
        let n = self.drawn.fetch_add(1, Relaxed).wrapping_mul(2_654_435_769);
        let spread = *self.latency.end() - *self.latency.start();
        *self.latency.start() + spread.mul_f64(f64::from(n) / f64::from(u32::MAX))
    }
}

/// The client's end of a connection with latency.
#[derive(Debug)]
struct Far {
    near: DuplexStream,
    was_reset: Arc<AtomicBool>,
}

impl AsyncRead for Far {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.near).poll_read(cx, buffer))?;
        let is_end = buffer.filled().len() == before && buffer.remaining() > 0;
        Poll::Ready(if is_end && self.was_reset.load(Relaxed) {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(())
        })
    }
}

impl AsyncWrite for Far {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.near).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.near).poll_shutdown(cx)
    }
}

/// Forwards one direction until its end. A reset is forwarded as end of file, after `was_reset` was
/// set.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    latency: Duration,
    was_reset: &AtomicBool,
) {
    let (send, mut parcels) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = match from.read(&mut buffer).await {
                Ok(0) => break,
                Ok(read) => read,
                Err(_) => {
                    was_reset.store(true, Relaxed);
                    break;
                }
            };
            if send.send((Instant::now() + latency, buffer[..read].to_vec())).is_err() {
                return;
            }
        }
        let _ = send.send((Instant::now() + latency, Vec::new()));
    };
    let writing = async move {
        while let Some((at, bytes)) = parcels.recv().await {
            sleep_until(at).await;
            if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}
