//! Clients that send nothing, or what a script says.

use super::{
    ClientId, Connect,
    exchange::{EMPTY_LINE, NOISE_MAX},
    http1,
    odd_frames::PING_FRAME,
    tls::client_hello,
};
use bytes::Bytes;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

/// Connects, sends nothing but empty lines, if the client sends any, and waits at most `max_wait`
/// for the server to end the connection.
pub async fn byte_less<C: Connect>(client_id: &ClientId, connect: &C, max_wait: Duration) {
    among_noise(client_id, connect, &[], EMPTY_LINE, max_wait).await;
}

/// The HTTP/2 preface and empty SETTINGS (RFC 9113 §3.4), the least that starts HTTP/2.
const HTTP2_HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Length of the preface without the SETTINGS.
pub(super) const PREFACE_BYTES: usize = 24;

/// Starts HTTP/2 and sends nothing more but PINGs, if the client sends any, no PING ACK either.
/// Waits at most `max_wait` for the server to end the connection.
pub async fn silent_http2<C: Connect>(client_id: &ClientId, connect: &C, max_wait: Duration) {
    among_noise(client_id, connect, HTTP2_HELLO, &PING_FRAME, max_wait).await;
}

/// Connects, sends `hello`, and then `noise` after each pause between things that ask for nothing.
async fn among_noise<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    hello: &'static [u8],
    noise: &'static [u8],
    max_wait: Duration,
) {
    let mut steps = vec![Step::Send(Bytes::from_static(hello))];
    if let Some(every) = client_id.noise() {
        let noise = Step::Send(Bytes::from_static(noise));
        let both = [Step::ReadToEnd { at_most: every }, noise];
        steps.extend((0..NOISE_MAX).flat_map(|_| both.clone()));
    }
    steps.push(Step::ReadToEnd { at_most: max_wait });
    raw(client_id, connect, &steps).await;
}

/// Starts HTTP/2 in pieces of `bytes`, each but the first after a pause, and sends nothing more.
/// Without `is_whole` the last byte of the preface never comes. Reads until the server ends the
/// connection.
pub async fn slow_http2<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    bytes: usize,
    every: Duration,
    is_whole: bool,
) {
    let hello = if is_whole { HTTP2_HELLO } else { &HTTP2_HELLO[..PREFACE_BYTES - 1] };
    in_pieces(client_id, connect, hello, bytes, every).await;
}

/// Sends the ClientHello of a TLS handshake in pieces of `bytes`, each but the first after a pause,
/// and nothing more. Without `is_whole` its last byte never comes. Reads until the server ends the
/// connection.
pub async fn slow_hello<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    bytes: usize,
    every: Duration,
    is_whole: bool,
) {
    let mut hello = client_hello();
    if !is_whole {
        hello.pop();
    }
    in_pieces(client_id, connect, &hello, bytes, every).await;
}

async fn in_pieces<C: Connect>(
    client_id: &ClientId,
    connect: &C,
    hello: &[u8],
    bytes: usize,
    every: Duration,
) {
    let Ok(io) = http1::connect(client_id, connect).await else { return };
    let connection = client_id.connected();
    let (mut read, mut write) = tokio::io::split(io);
    let sending = async {
        for (n, piece) in hello.chunks(bytes.max(1)).enumerate() {
            super::pause(if n > 0 { every } else { Duration::ZERO }).await;
            if write.write_all(piece).await.is_err() || write.flush().await.is_err() {
                break;
            }
        }
        std::future::pending::<()>().await;
    };
    let mut got = Vec::new();
    let how = tokio::select! {
        biased;
        read = read.read_to_end(&mut got) => if read.is_ok() { "fin" } else { "reset" },
        () = sending => "dropped",
        () = super::pause(client_id.max_wait()) => "timed-out",
    };
    client_id.tell("ended", &[("connection", connection.into()), ("how", how.into())]);
}

/// Begins to connect, and gives up after a while, connected or not.
pub async fn abandoned<C: Connect>(client_id: &ClientId, connect: &C, after: Duration) {
    let connected = async {
        let Ok(_io) = http1::connect(client_id, connect).await else { return };
        client_id.connected();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = connected => {}
        () = super::pause(after) => client_id.tell("gives up connecting", &[]),
    }
}

/// Opens `count` connections, sends `bytes` on each, and keeps it until the server ends it.
pub async fn strangers<C: Connect>(client_id: &ClientId, connect: &C, bytes: Bytes, count: u64) {
    let mut all = JoinSet::new();
    for _ in 0..count {
        let (client_id, connect, bytes) = (client_id.clone(), connect.clone(), bytes.clone());
        all.spawn(async move {
            let script = [Step::Send(bytes), Step::ReadToEnd { at_most: client_id.max_wait() }];
            raw(&client_id, &connect, &script).await;
        });
    }
    while all.join_next().await.is_some() {}
}

/// Returns the bytes of an HTTP/2 client that asks for `path`, and gives its streams no window.
#[must_use]
pub fn windowless_request(path: &str) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS with INITIAL_WINDOW_SIZE 0.
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0]);
    // `:method: GET`, `:scheme: http`, and two literals (RFC 7541 §6).
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(4, path), (1, "localhost")] {
        block.extend([name, u8::try_from(value.len()).unwrap_or(0)]);
        block.extend(value.as_bytes());
    }
    // HEADERS with END_STREAM and END_HEADERS.
    bytes.extend([0, 0, u8::try_from(block.len()).unwrap_or(0), 1, 5, 0, 0, 0, 1]);
    bytes.extend(block);
    bytes
}

/// Step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send these bytes.
    Send(Bytes),
    /// Pause.
    Pause(Duration),
    /// Shut down the write side.
    Fin,
    /// Read until the connection ends, or until `at_most` has passed.
    ReadToEnd {
        /// Longest time to read.
        at_most: Duration,
    },
}

/// Connects and runs the script, up to the first error or the end of the connection. Returns all
/// bytes read. Records `ended` with `how` = `fin`, `reset`, `timed-out`, or `dropped` if the client
/// closed the connection first.
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
                if read.as_ref().is_some_and(Result::is_ok) {
                    break;
                }
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
