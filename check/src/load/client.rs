//! Clients that follow the rules of HTTP.
//!
//! A client reuses a connection until it receives `Connection: close` or end of file, for which it
//! checks before each request. If a *reused* connection closes under a request anyway, the request
//! is counted as a close race: RFC 9112 §9.5 allows a client to send it again. On a new connection
//! it is lost, and so it is on one that stays open without a response.

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
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
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
    /// One is added before a server is killed, and another one after that.
    cuts: AtomicU64,
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
            cuts: AtomicU64::new(0),
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

    /// Kills a server that has not exited. What is in flight then is lost, and no close race.
    pub fn cut(&self, kill: impl FnOnce()) {
        self.cuts.fetch_add(1, Relaxed);
        kill();
        self.cuts.fetch_add(1, Relaxed);
    }

    /// Returns whether a server was killed since there had been this number of `cuts`.
    fn was_cut_since(&self, cuts: u64) -> bool {
        cuts % 2 == 1 || self.cuts.load(Relaxed) != cuts
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
        let is_kept = ask.exchange(&load, habit, &mut stream, is_reused).await;
        if is_kept && habit == Habit::KeepAlive {
            kept = Some(stream);
        }
    }
}

impl RequestSpec {
    /// Sends the request, and counts its outcome. Returns whether the server keeps the connection.
    async fn exchange(
        &self,
        load: &Load,
        habit: Habit,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
        is_reused: bool,
    ) -> bool {
        let (totals, name) = (&load.totals, format!("{habit:?} {} {}", self.method, self.target));
        let (bytes, mut received, cuts) = (self.bytes(habit), Vec::new(), load.cuts.load(Relaxed));
        let exchanging = exchange_bytes(stream, &bytes, &mut received);
        let answered = timeout(RESPONSE_MAX, exchanging).await;
        match answered.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(answer) => {
                if answer.status != 200 {
                    totals.refuse(format!("{name}: {}", answer.status));
                } else if self.is_answered_by(&answer) {
                    totals.answered.fetch_add(1, Relaxed);
                } else {
                    totals.lose(format!("{name}: {} with another body", answer.status));
                }
                answer.framing() != Some(Framing::Close) && !answer.says_close()
            }
            Err(error) => {
                // A connection on which nothing happens is open.
                let is_closed = error.kind() != io::ErrorKind::TimedOut;
                let is_race = is_reused && is_closed && received.is_empty();
                if is_race && !load.was_cut_since(cuts) {
                    totals.race(format!("{name}: closed under the request"));
                } else {
                    let kind = if is_reused { "kept" } else { "fresh" };
                    let bytes = received.len();
                    totals.lose(format!(
                        "{name} on a {kind} connection: {error} after {bytes} bytes"
                    ));
                }
                false
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
    let mut received = Vec::new();
    let exchanged = exchange_bytes(stream, request.as_bytes(), &mut received).await;
    exchanged.map_err(|error| Failure { error, answer_bytes: received.len() })
}

/// Sends a request and reads its response. What was received is left in `received`.
async fn exchange_bytes(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    request: &[u8],
    received: &mut Vec<u8>,
) -> io::Result<Response> {
    // Read even if the write fails: a response may have been sent before.
    let written = stream.write_all(request).await;
    let mut buffer = [0; 16 * 1024];
    loop {
        match parse(received) {
            Parsed::Complete(response, _) => return Ok(response),
            Parsed::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            Parsed::Partial => {}
        }
        match stream.read(&mut buffer).await {
            Ok(0) => {
                if let Parsed::Complete(response, _) = parse_at_close(received) {
                    return Ok(response);
                }
                return Err(written.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(read) => received.extend_from_slice(&buffer[..read]),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Habit, Load, RequestSpec, exchange};
    use crate::load::Wire;
    use socket2::SockRef;
    use std::{
        io::{self, Read, Write},
        net::TcpListener,
        sync::{Arc, atomic::Ordering::Relaxed},
        thread,
        time::Duration,
    };
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

    // A request that was sent while its server was being killed was a close race.
    #[test]
    fn a_request_that_begins_during_a_kill_is_cut_and_one_after_it_is_not() {
        let load = Load::new(Wire::direct(([127, 0, 0, 1], 1).into()), "/");
        let before = load.cuts.load(Relaxed);
        assert!(!load.was_cut_since(before));
        load.cut(|| assert!(load.was_cut_since(load.cuts.load(Relaxed))));
        assert!(load.was_cut_since(before) && !load.was_cut_since(load.cuts.load(Relaxed)));
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

    /// Plays a client whose server responds to the first request of a kept connection, and to the
    /// second by `half` only. Returns how many requests were lost, and how many close races were.
    async fn lost_and_races(half: &'static [u8], cut: Option<Duration>) -> (u64, u64) {
        let load = Arc::new(Load::new(Wire::direct(([127, 0, 0, 1], 1).into()), "/"));
        let (mut near, mut far) = tokio::io::duplex(1024);
        let spec = RequestSpec::get("/");
        let killed = load.clone();
        let server = tokio::spawn(async move {
            let _ = far.read(&mut [0; 1024]).await;
            far.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            let _ = far.read(&mut [0; 1024]).await;
            far.write_all(half).await.unwrap();
            tokio::time::sleep(cut.unwrap_or(Duration::MAX)).await;
            killed.cut(|| ());
        });
        assert!(spec.exchange(&load, Habit::KeepAlive, &mut near, false).await);
        assert!(!spec.exchange(&load, Habit::KeepAlive, &mut near, true).await);
        server.abort();
        (load.totals.lost(), load.totals.close_races.load(Relaxed))
    }

    // A client whose server had hung on a kept connection was counted as one whose connection was
    // just closed: a server that hung every kept connection at its stop lost nothing.
    #[tokio::test(start_paused = true)]
    async fn a_kept_connection_that_hangs_has_lost_its_request() {
        let half = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
        for half in [&b""[..], half] {
            assert_eq!(lost_and_races(half, None).await, (1, 0), "given up");
            assert_eq!(lost_and_races(half, Some(Duration::from_secs(9))).await, (1, 0), "killed");
        }
    }
}
