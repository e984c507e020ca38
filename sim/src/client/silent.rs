//! Clients that say nothing, or whatever they are told to.

use super::{ClientId, Connect, http1};
use bytes::Bytes;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Connects, says nothing, and waits for the server to end it, for at most `patience`.
pub async fn byte_less<C: Connect>(client_id: &ClientId, connect: &C, patience: Duration) {
    raw(client_id, connect, &[Step::ReadToEnd { at_most: patience }]).await;
}

/// The preface of HTTP/2 and empty settings (RFC 9113 §3.4): the least that makes a connection speak it.
const HTTP2_HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Begins to speak HTTP/2, then answers nothing, no PING either, and waits for the server to end it.
pub async fn silent_http2<C: Connect>(client_id: &ClientId, connect: &C, patience: Duration) {
    let hello = Bytes::from_static(HTTP2_HELLO);
    raw(client_id, connect, &[Step::Send(hello), Step::ReadToEnd { at_most: patience }]).await;
}

/// A step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends these bytes.
    Send(Bytes),
    /// Does nothing for a while.
    Pause(Duration),
    /// Shuts its side of the connection.
    Fin,
    /// Reads until the connection ends, for at most so long.
    ReadToEnd {
        /// How long.
        at_most: Duration,
    },
}

/// Connects and does as the script says; stops at the first error. Returns all that it read, and records `ended` with how:
/// `fin`, `reset`, `timed-out`, or `dropped` if it closed the connection itself.
pub async fn raw<C: Connect>(client_id: &ClientId, connect: &C, script: &[Step]) -> Vec<u8> {
    let Ok(io) = http1::connect(client_id, connect).await else { return Vec::new() };
    let connection = client_id.connected();
    let mut io = io;
    let mut got = Vec::new();
    let mut how = "dropped";
    for step in script {
        let done = match step {
            Step::Send(bytes) => io.write_all(bytes).await,
            Step::Fin => io.shutdown().await,
            Step::Pause(pause) => {
                super::pause(*pause).await;
                Ok(())
            }
            Step::ReadToEnd { at_most } => {
                let read = tokio::select! {
                    biased;
                    read = io.read_to_end(&mut got) => Some(read),
                    () = super::pause(*at_most) => None,
                };
                how = if read.is_none() { "timed-out" } else { "fin" };
                read.unwrap_or(Ok(0)).map(|_| ())
            }
        };
        if done.is_err() {
            how = "reset";
            break;
        }
    }
    client_id.tell(
        "ended",
        &[
            ("connection", connection.into()),
            ("how", how.into()),
            ("answer_bytes", got.len().into()),
        ],
    );
    got
}
