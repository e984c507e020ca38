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

    /// Connects. A server can accept a connection once the third packet of the handshake arrives,
    /// and the first bytes of the client follow that packet at once. So the connect completes, on
    /// both sides, at that moment.
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
        sleep(3 * latency).await;
        let far = match TcpStream::connect(self.server).await {
            Ok(far) => far,
            Err(error) => {
                sleep(latency).await;
                return Err(error);
            }
        };
        let connected = Instant::now();
        far.set_nodelay(true)?;
        let (near, end) = duplex(CAPACITY);
        let was_reset = Arc::new(AtomicBool::new(false));
        let near = Far { near, was_reset: was_reset.clone() };
        tokio::spawn(async move {
            let (far_read, far_write) = far.into_split();
            let (end_read, end_write) = split(end);
            let is_client_reset = AtomicBool::new(false);
            tokio::join!(
                carry(far_read, end_write, || latency, &was_reset),
                carry(end_read, far_write, || latency.min(connected.elapsed()), &is_client_reset)
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

/// Forwards one direction until its end, each part with the latency of its moment. A reset is
/// forwarded as end of file, after `was_reset` was set.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    latency: impl Fn() -> Duration,
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
            if send.send((Instant::now() + latency(), buffer[..read].to_vec())).is_err() {
                return;
            }
        }
        let _ = send.send((Instant::now() + latency(), Vec::new()));
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

#[cfg(test)]
mod tests {
    use super::Wire;
    use std::{
        io::Read,
        net::TcpListener,
        thread,
        time::{Duration, Instant},
    };
    use tokio::io::AsyncWriteExt;

    // A server that closed connections on which nothing arrived for some time was blamed for a
    // silence that no network has: the first byte followed the accept after a whole round trip.
    #[test]
    fn the_first_bytes_arrive_with_the_connection_and_later_ones_after_the_latency() {
        const LATENCY: Duration = Duration::from_millis(100);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire::new(listener.local_addr().unwrap(), LATENCY..=LATENCY);
        let begin = Instant::now();
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let accepted = Instant::now();
            let mut arrivals = [accepted; 2];
            for arrived in &mut arrivals {
                stream.read_exact(&mut [0; 1]).unwrap();
                *arrived = Instant::now();
            }
            (accepted, arrivals)
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sent = runtime.block_on(async {
            let mut line = wire.connect().await.unwrap();
            line.write_all(b"1").await.unwrap();
            tokio::time::sleep(2 * LATENCY).await;
            let sent = Instant::now();
            line.write_all(b"2").await.unwrap();
            tokio::time::sleep(2 * LATENCY).await;
            sent
        });
        let (accepted, [first, second]) = server.join().unwrap();
        assert!(first - accepted < LATENCY / 2, "{:?}", first - accepted);
        assert!(accepted - begin >= 3 * LATENCY, "{:?}", accepted - begin);
        assert!(second - sent >= LATENCY, "{:?}", second - sent);
    }
}
