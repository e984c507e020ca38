//! Clients that follow the rules of HTTP.
//!
//! A client reuses a connection until it is told `Connection: close` or sees its end. It looks for an end before it sends. A
//! request that meets an end anyway on a *reused* connection is sent again on another, as RFC 9112 §9.5 allows, and counted;
//! on a fresh connection it is lost.

use super::{tally::Tally, wire::Wire};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf},
    time::{sleep, timeout},
};

/// How a client behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Keeps its connection.
    KeepAlive,
    /// Takes a new connection for every request.
    PerRequest,
}

/// What every client of a load shares.
#[derive(Debug)]
pub struct Load {
    /// The way to the server.
    pub wire: Wire,
    /// The request target, such as `/slow?ms=5`.
    pub target: String,
    /// A pause before every request.
    pub think: Duration,
    /// Counts.
    pub tally: Tally,
    /// Set to end all clients after their current request.
    pub over: AtomicBool,
}

impl Load {
    /// A load over this wire that asks for `target` without a pause.
    #[must_use]
    pub fn new(wire: Wire, target: &str) -> Self {
        Self {
            wire,
            target: target.to_owned(),
            think: Duration::ZERO,
            tally: Tally::default(),
            over: AtomicBool::new(false),
        }
    }
}

/// An answer takes at most this long; a longer silence is a loss.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Sends requests one after the other until the load is over.
pub async fn run(load: Arc<Load>, habit: Habit) {
    let mut kept: Option<DuplexStream> = None;
    while !load.over.load(Relaxed) {
        if !load.think.is_zero() {
            sleep(load.think).await;
        }
        let reused = kept.take().and_then(|mut stream| is_open(&mut stream).then_some(stream));
        let is_reused = reused.is_some();
        let mut stream = match reused {
            Some(stream) => stream,
            None => match load.wire.connect().await {
                Ok(stream) => stream,
                Err(_) => {
                    load.tally.refused.fetch_add(1, Relaxed);
                    sleep(Duration::from_millis(2)).await;
                    continue;
                }
            },
        };
        let connection = match habit {
            Habit::KeepAlive => "keep-alive",
            Habit::PerRequest => "close",
        };
        let request = format!("GET {} HTTP/1.1\r\nhost: soak\r\nconnection: {connection}\r\n\r\n", load.target);
        let answered = match timeout(ANSWER_MAX, exchange(&mut stream, &request)).await {
            Ok(answered) => answered,
            Err(_) => Err(Failure { error: io::ErrorKind::TimedOut.into(), answer_bytes: 0 }),
        };
        match answered {
            Ok(answer) => {
                let count = if answer.status < 500 { &load.tally.answered } else { &load.tally.refused_by_status };
                count.fetch_add(1, Relaxed);
                if answer.keeps_alive && habit == Habit::KeepAlive {
                    kept = Some(stream);
                }
            }
            Err(failure) if failure.answer_bytes == 0 && is_reused => {
                load.tally.raced.fetch_add(1, Relaxed);
            }
            Err(failure) => {
                let kind = if is_reused { "kept" } else { "fresh" };
                load.tally.lose(format!(
                    "{habit:?} on a {kind} connection: {} after {} bytes",
                    failure.error, failure.answer_bytes
                ));
            }
        }
    }
}

/// Whether the end of a kept connection has not arrived yet.
fn is_open(stream: &mut DuplexStream) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut [0; 1])).is_pending()
}

/// What an answer said.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Whether the connection may be used again.
    pub keeps_alive: bool,
    /// Its body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Failure {
    /// What happened.
    pub error: io::Error,
    /// How much of an answer had come.
    pub answer_bytes: usize,
}

/// Sends a request and reads its answer, which must have a length or be chunked.
///
/// # Errors
/// [`Failure`] if the answer does not come whole.
pub async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> Result<Answer, Failure> {
    let mut received = Vec::new();
    let fail = |error, received: &Vec<u8>| Failure { error, answer_bytes: received.len() };
    // A write that fails may still find an answer that was sent before.
    let written = stream.write_all(request.as_bytes()).await;
    let mut buffer = [0; 16 * 1024];
    loop {
        match parse(&received) {
            Parsed::Whole(answer) => return Ok(answer),
            Parsed::Broken(why) => {
                return Err(fail(io::Error::new(io::ErrorKind::InvalidData, why), &received));
            }
            Parsed::Part => {}
        }
        match stream.read(&mut buffer).await {
            Ok(0) => {
                let error = written.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                return Err(fail(error, &received));
            }
            Ok(read) => received.extend_from_slice(&buffer[..read]),
            Err(error) => return Err(fail(error, &received)),
        }
    }
}

enum Parsed {
    Whole(Answer),
    Part,
    Broken(&'static str),
}

fn parse(received: &[u8]) -> Parsed {
    let Some(head_end) = received.windows(4).position(|window| window == b"\r\n\r\n") else { return Parsed::Part };
    let Ok(head) = std::str::from_utf8(&received[..head_end]) else { return Parsed::Broken("the head is not text") };
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
    let Some(status) = status else { return Parsed::Broken("no status") };
    let (mut length, mut chunked, mut keeps_alive) = (None, false, true);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse::<usize>().ok(),
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => keeps_alive = !value.eq_ignore_ascii_case("close"),
            _ => {}
        }
    }
    let body = &received[head_end + 4..];
    if chunked {
        return match body.ends_with(b"0\r\n\r\n") {
            true => Parsed::Whole(Answer { status, keeps_alive, body: body.to_vec() }),
            false => Parsed::Part,
        };
    }
    match length {
        Some(length) if body.len() >= length => Parsed::Whole(Answer { status, keeps_alive, body: body[..length].to_vec() }),
        Some(_) => Parsed::Part,
        None => Parsed::Broken("neither a length nor chunked"),
    }
}
