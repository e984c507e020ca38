//! A client that upgrades to an echo protocol and uses it until the server closes.
//!
//! In addition to the usual events it records `upgraded`, `farewell` (the server sent its
//! farewell), and `ended` with `how`.

use super::{ClientId, Connect, RequestSpec, http1, pause};
use std::{io, time::Duration};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Line that the client sends.
pub const PING: &[u8] = b"ping\n";
/// Last line from a server that ends the connection because of a shutdown.
pub const FAREWELL: &[u8] = b"bye!\n";

/// Requests the upgrade, then sends a line every `every` until the server closes.
pub async fn upgraded<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    ask: &RequestSpec,
    every: Duration,
) {
    let Ok(mut io) = http1::connect(client_id, connect).await else { return };
    let connection = client_id.connected();
    let how = tokio::select! {
        biased;
        said = converse(client_id, &mut io, ask, every) => match said {
            Ok(()) => "fin",
            Err(_) => "reset",
        },
        () = pause(client_id.max_wait()) => "timed-out",
    };
    client_id.tell("ended", &[("connection", connection.into()), ("how", how.into())]);
}

async fn converse<I>(
    client_id: &ClientId,
    io: &mut I,
    ask: &RequestSpec,
    every: Duration,
) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    io.write_all(&ask.bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if io.read(&mut byte).await? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    if !head.starts_with(b"HTTP/1.1 101 ") {
        return Ok(());
    }
    let announces = String::from_utf8_lossy(&head).to_lowercase().contains("\nconnection: close");
    let announced = announces.then(|| ("announces_close", 1_u64.into()));
    client_id.tell("upgraded", announced.as_slice());
    loop {
        io.write_all(PING).await?;
        let mut line = [0; PING.len()];
        if let Err(error) = io.read_exact(&mut line).await {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(()) } else { Err(error) };
        }
        if line == FAREWELL {
            client_id.tell("farewell", &[]);
            return Ok(());
        }
        pause(every).await;
    }
}
