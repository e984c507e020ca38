//! Clients that follow the rules of HTTP.
//!
//! A client reuses a connection until it receives `Connection: close` or end of file, for which it
//! checks before each request. If a *reused* connection closes under a request anyway, the request
//! is counted as a close race: RFC 9112 §9.5 allows a client to send it again. On a new connection
//! it is lost.

use super::{
    totals::Totals,
    wire::{Line, Wire},
};
use lameduck_wire::http1::{Framing, Parsed, Response, parse, parse_at_close};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Waker},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{sleep, timeout},
};

/// How a client uses connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Keeps its connection.
    KeepAlive,
    /// Opens a new connection for every request.
    PerRequest,
}

/// A request, and the response it must get.
#[derive(Clone, Debug)]
pub struct RequestSpec {
    method: &'static str,
    target: String,
    body: Vec<u8>,
    expected: Option<Vec<u8>>,
}

impl RequestSpec {
    /// `GET target`; accepts a 200 with any body.
    #[must_use]
    pub fn get(target: &str) -> Self {
        Self { method: "GET", target: target.to_owned(), body: Vec::new(), expected: None }
    }

    /// `POST target` with this body; accepts a 200 with any body.
    #[must_use]
    pub fn post(target: &str, body: Vec<u8>) -> Self {
        Self { method: "POST", target: target.to_owned(), body, expected: None }
    }

    /// Accepts only this body.
    #[must_use]
    pub fn expecting(mut self, body: &[u8]) -> Self {
        self.expected = Some(body.to_vec());
        self
    }

    /// Encodes the request.
    fn bytes(&self, habit: Habit) -> Vec<u8> {
        let connection = match habit {
            Habit::KeepAlive => "keep-alive",
            Habit::PerRequest => "close",
        };
        let mut bytes = format!(
            "{} {} HTTP/1.1\r\nhost: localhost\r\nconnection: {connection}\r\n",
            self.method, self.target
        )
        .into_bytes();
        if self.method == "POST" {
            bytes.extend_from_slice(format!("content-length: {}\r\n", self.body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn is_answered_by(&self, answer: &Response) -> bool {
        self.expected.as_ref().is_none_or(|expected| answer.bytes == *expected)
    }
}

/// Shared by all clients of a load.
#[derive(Debug)]
pub struct Load {
    /// Connects to the server.
    pub wire: Wire,
    /// The requests, sent in turn; each client begins at a different one.
    pub asks: Vec<RequestSpec>,
    /// Pause before every request.
    pub think: Duration,
    /// Counts of all clients.
    pub totals: Totals,
    /// Set to end all clients after their current request.
    pub over: AtomicBool,
    clients: AtomicUsize,
    /// The first connect that failed on this side.
    fault: OnceLock<String>,
}

impl Load {
    /// Returns a load over this wire that requests `target` without a pause.
    #[must_use]
    pub fn new(wire: Wire, target: &str) -> Self {
        Self::of(wire, vec![RequestSpec::get(target)])
    }

    /// Returns a load over this wire that sends these requests, in turn, without a pause.
    ///
    /// # Panics
    /// If `asks` is empty.
    #[must_use]
    pub fn of(wire: Wire, asks: Vec<RequestSpec>) -> Self {
        assert!(!asks.is_empty(), "a load asks for something");
        Self {
            wire,
            asks,
            think: Duration::ZERO,
            totals: Totals::default(),
            over: AtomicBool::new(false),
            clients: AtomicUsize::new(0),
            fault: OnceLock::new(),
        }
    }

    /// Checks that the clients had all that they need from this system.
    ///
    /// # Errors
    /// If one could not connect for lack of descriptors or ports, for example. Then all have ended,
    /// and the server is not to blame.
    pub fn expect_no_fault(&self) -> Result<(), String> {
        self.fault.get().map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Counts a connect that the server refused. Any other failure ends the load.
    fn count_failed_connect(&self, error: &io::Error) {
        use io::ErrorKind::{ConnectionRefused, ConnectionReset, TimedOut};
        if matches!(error.kind(), ConnectionRefused | ConnectionReset | TimedOut) {
            self.totals.refused.fetch_add(1, Relaxed);
            return;
        }
        self.fault.get_or_init(|| format!("a client of the load cannot connect: {error}"));
        self.over.store(true, Relaxed);
    }
}

/// Longest wait for a response. After that the request counts as lost.
const RESPONSE_MAX: Duration = Duration::from_secs(30);

/// Sends requests one after the other until `load.over` is set.
pub async fn run(load: Arc<Load>, habit: Habit) {
    let mut kept: Option<Line> = None;
    let place = load.clients.fetch_add(1, Relaxed);
    for ask in load.asks.iter().cycle().skip(place % load.asks.len()) {
        if load.over.load(Relaxed) {
            return;
        }
        if !load.think.is_zero() {
            sleep(load.think).await;
        }
        let reused = kept.take().and_then(|mut stream| is_open(&mut stream).then_some(stream));
        let is_reused = reused.is_some();
        let mut stream = match reused {
            Some(stream) => stream,
            None => match load.wire.connect().await {
                Ok(stream) => stream,
                Err(error) => {
                    load.count_failed_connect(&error);
                    sleep(Duration::from_millis(2)).await;
                    continue;
                }
            },
        };
        let answered =
            match timeout(RESPONSE_MAX, exchange_bytes(&mut stream, &ask.bytes(habit))).await {
                Ok(answered) => answered,
                Err(_) => Err(Failure { error: io::ErrorKind::TimedOut.into(), answer_bytes: 0 }),
            };
        match answered {
            Ok(answer) => {
                if answer.status != 200 {
                    load.totals.refused_by_status.fetch_add(1, Relaxed);
                    load.totals.tell(format!(
                        "{habit:?} {} {}: {}",
                        ask.method, ask.target, answer.status
                    ));
                } else if ask.is_answered_by(&answer) {
                    load.totals.answered.fetch_add(1, Relaxed);
                } else {
                    load.totals.lose(format!(
                        "{} {}: {} with another body",
                        ask.method, ask.target, answer.status
                    ));
                }
                let is_kept = answer.framing() != Some(Framing::Close) && !answer.says_close();
                if is_kept && habit == Habit::KeepAlive {
                    kept = Some(stream);
                }
            }
            Err(failure) if failure.answer_bytes == 0 && is_reused => {
                load.totals.close_races.fetch_add(1, Relaxed);
                load.totals.tell(format!(
                    "{habit:?} {} {}: closed under the request",
                    ask.method, ask.target
                ));
            }
            Err(failure) => {
                let kind = if is_reused { "kept" } else { "fresh" };
                load.totals.lose(format!(
                    "{habit:?} {} {} on a {kind} connection: {} after {} bytes",
                    ask.method, ask.target, failure.error, failure.answer_bytes
                ));
            }
        }
    }
}

/// Returns whether a kept connection has not been closed by the server yet.
fn is_open(stream: &mut Line) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(stream).poll_read(&mut cx, &mut ReadBuf::new(&mut [0; 1])).is_pending()
}

/// Why there is no response.
#[derive(Debug)]
pub struct Failure {
    /// The error.
    pub error: io::Error,
    /// Bytes of the response that were received.
    pub answer_bytes: usize,
}

/// Sends a request and reads its response. One without a length ends with a FIN.
///
/// # Errors
/// [`Failure`] if no complete response arrives.
pub async fn exchange(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &str,
) -> Result<Response, Failure> {
    exchange_bytes(stream, request.as_bytes()).await
}

async fn exchange_bytes(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
) -> Result<Response, Failure> {
    let mut received = Vec::new();
    let fail = |error, received: &Vec<u8>| Failure { error, answer_bytes: received.len() };
    // Read even if the write fails: a response may have been sent before.
    let written = stream.write_all(request).await;
    let mut buffer = [0; 16 * 1024];
    loop {
        match parse(&received) {
            Parsed::Complete(response, _) => return Ok(response),
            Parsed::Malformed => return Err(fail(io::ErrorKind::InvalidData.into(), &received)),
            Parsed::Partial => {}
        }
        match stream.read(&mut buffer).await {
            Ok(0) => {
                if let Parsed::Complete(response, _) = parse_at_close(&received) {
                    return Ok(response);
                }
                let error = written.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                return Err(fail(error, &received));
            }
            Ok(read) => received.extend_from_slice(&buffer[..read]),
            Err(error) => return Err(fail(error, &received)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Load, exchange};
    use crate::load::Wire;
    use socket2::SockRef;
    use std::{
        io::{self, Read, Write},
        net::TcpListener,
        sync::atomic::Ordering::Relaxed,
        thread,
        time::Duration,
    };

    // A server was blamed for refused connections when the check itself had no descriptors left.
    #[test]
    fn a_connect_that_fails_on_this_side_is_no_refusal() {
        let load = Load::new(Wire::direct(([127, 0, 0, 1], 1).into()), "/");
        load.count_failed_connect(&io::ErrorKind::ConnectionRefused.into());
        assert_eq!(load.expect_no_fault(), Ok(()));
        // EMFILE.
        load.count_failed_connect(&io::Error::from_raw_os_error(24));
        assert_eq!(load.totals.refused.load(Relaxed), 1);
        let why = load.expect_no_fault().unwrap_err();
        assert!(why.contains("cannot connect") && why.contains("os error 24"), "{why}");
        assert!(load.over.load(Relaxed));
    }

    /// Returns the body of a response without a length, over a wire with this latency. The server
    /// ends the connection by a FIN, or by a reset.
    fn body(latency: Duration, is_reset: bool) -> Result<String, io::ErrorKind> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Wire::new(listener.local_addr().unwrap(), latency..=latency);
        let server = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").unwrap();
            thread::sleep(Duration::from_millis(50));
            if is_reset {
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let response = runtime.block_on(async {
            let mut line = wire.connect().await.unwrap();
            exchange(&mut line, "GET / HTTP/1.0\r\n\r\n").await
        });
        server.join().unwrap();
        response.map(|response| response.body()).map_err(|failure| failure.error.kind())
    }

    // A server of HTTP/1.0 lost every request, since its responses end with the connection.
    #[test]
    fn a_response_without_a_length_ends_with_a_fin() {
        for latency in [Duration::ZERO, Duration::from_millis(2)] {
            assert_eq!(body(latency, false), Ok("hello".to_owned()), "{latency:?}");
            assert_eq!(body(latency, true), Err(io::ErrorKind::ConnectionReset), "{latency:?}");
        }
    }
}
