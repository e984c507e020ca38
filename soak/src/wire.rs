//! A wire with latency: a proxy that hands on every byte, and every end, a fixed or random time later.

use std::{
    io,
    net::SocketAddr,
    ops::RangeInclusive,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

/// A running proxy; dropped, it takes no more connections.
#[derive(Debug)]
pub struct Wire {
    /// Where clients connect.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Wire {
    /// A wire to `server` with this one-way latency, drawn for each connection.
    ///
    /// # Errors
    /// The system's, if no port is to be had.
    pub async fn to(server: SocketAddr, latency: RangeInclusive<Duration>) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            let mut n = 0_u32;
            while let Ok((client, _)) = listener.accept().await {
                n = n.wrapping_add(1);
                let spread = *latency.end() - *latency.start();
                let latency = *latency.start() + spread.mul_f64(f64::from(n.wrapping_mul(2_654_435_761) >> 8) / f64::from(1 << 24));
                tokio::spawn(carry(client, server, latency));
            }
        });
        Ok(Self { address, accepting })
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What travels: bytes, or the end of them, and when it arrives.
enum Parcel {
    Bytes(Instant, Vec<u8>),
    End(Instant),
    Reset(Instant),
}

async fn carry(client: TcpStream, server: SocketAddr, latency: Duration) {
    // The connect travels too.
    sleep_until(Instant::now() + latency).await;
    let Ok(server) = TcpStream::connect(server).await else {
        reset(&client);
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::join!(one_way(client_read, server_write, latency), one_way(server_read, client_write, latency));
}

fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

async fn one_way(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, latency: Duration) {
    let (send, mut parcels) = mpsc::unbounded_channel();
    let reading = async move {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut buffer).await;
            let at = Instant::now() + latency;
            let sent = match read {
                Ok(0) => {
                    let _ = send.send(Parcel::End(at));
                    return;
                }
                Ok(read) => send.send(Parcel::Bytes(at, buffer[..read].to_vec())),
                Err(_) => {
                    let _ = send.send(Parcel::Reset(at));
                    return;
                }
            };
            if sent.is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some(parcel) = parcels.recv().await {
            match parcel {
                Parcel::Bytes(at, bytes) => {
                    sleep_until(at).await;
                    if to.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Parcel::End(at) => {
                    sleep_until(at).await;
                    let _ = to.shutdown().await;
                    return;
                }
                Parcel::Reset(at) => {
                    sleep_until(at).await;
                    reset(to.as_ref());
                    return;
                }
            }
        }
    };
    tokio::join!(reading, writing);
}
