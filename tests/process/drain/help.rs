//! Shared by the tests of the drain: a server to stop, and clients that see every byte and how the
//! connection ends.

use super::service::Service;
use rustix::process::{Resource, Rlimit, Signal};
use serde_json::Value;
use socket2::SockRef;
use std::{
    io::{self, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::Once,
    thread,
    time::{Duration, Instant},
};

/// The longest wait of a test. It is longer than any test should take.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(20);

/// A running service, and the time of its stop request.
pub(crate) struct Server {
    pub(crate) service: Service,
    stopped: Option<Instant>,
}

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    /// From the stop request to the exit.
    pub(crate) took: Duration,
    pub(crate) report: Value,
}

impl Server {
    /// Starts the service with its drill routes, on a port that the system chooses.
    pub(crate) fn start(args: &[&str]) -> Self {
        Self::launch(Command::new(binary()).args(["--addr", "127.0.0.1:0"]).args(args))
    }

    /// Starts a whole command line. Only `--drill` is added.
    pub(crate) fn launch(command: &mut Command) -> Self {
        let service = Service::launch(command.arg("--drill")).unwrap();
        Self { service, stopped: None }
    }

    pub(crate) fn connect(&self) -> Client {
        Client::new(connect(self.service.main).unwrap())
    }

    /// Opens a connection and requests `target`.
    pub(crate) fn ask(&self, target: &str) -> Client {
        let mut client = self.connect();
        client.get(target);
        client
    }

    /// Opens a connection that has had a response and is kept alive.
    pub(crate) fn keep(&self) -> Client {
        let mut client = self.ask("/");
        client.answer().is_hello();
        client
    }

    pub(crate) fn stop(&mut self) {
        self.stopped = Some(Instant::now());
        self.service.signal(Signal::TERM).unwrap();
    }

    pub(crate) fn stop_and_await(&mut self, phase: &str) {
        self.stop();
        assert!(
            self.service.await_log(MAX_WAIT, |line| line["phase"] == phase),
            "it never got to {phase}"
        );
    }

    /// The time since the stop request.
    pub(crate) fn since_stop(&self) -> Duration {
        self.stopped.unwrap().elapsed()
    }

    /// Returns the status by the internal server.
    pub(crate) fn status(&self) -> Value {
        let mut probe = Client::new(connect(self.service.internal).unwrap());
        probe.send("GET /status HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        serde_json::from_slice(&probe.answer().body).unwrap()
    }

    /// Waits until `count` requests are in flight.
    pub(crate) fn await_in_flight(&self, count: u64) {
        self.await_status(|status| status["in_flight"] == count);
    }

    /// Waits until `count` requests have started. Unlike the number in flight, it never falls.
    pub(crate) fn await_started(&self, count: u64) {
        self.await_status(|status| status["requests"]["started"] == count);
    }

    /// Waits until `count` connections are accepted. By then their bytes had time to be read.
    pub(crate) fn await_accepted(&self, count: u64) {
        self.await_status(|status| status["connections"]["accepted"] == count);
    }

    pub(crate) fn await_status(&self, such: impl Fn(&Value) -> bool) {
        let end = Instant::now() + MAX_WAIT;
        loop {
            let status = self.status();
            if such(&status) {
                return;
            }
            assert!(Instant::now() < end, "its status never came to be as expected: {status}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops the process with SIGSTOP. The kernel keeps its sockets, and no thread runs.
    pub(crate) fn freeze(&self) {
        self.service.signal(Signal::STOP).unwrap();
        let end = Instant::now() + MAX_WAIT;
        // Or the process has ended already.
        while !["T", "Z"].contains(&self.process_stat(0).as_str()) {
            assert!(Instant::now() < end);
            thread::yield_now();
        }
    }

    /// Sends the stop signal while the process is frozen, so that it sees the signal first.
    pub(crate) fn stop_and_thaw(&mut self) {
        self.stop();
        self.thaw();
    }

    pub(crate) fn thaw(&self) {
        self.service.signal(Signal::CONT).unwrap();
    }

    /// The user and system time that the process has used.
    pub(crate) fn cpu_time(&self) -> Duration {
        // proc_pid_stat(5): fields 14 and 15, in ticks of 1/100 s. Indexes count from the state,
        // which is field 3.
        let ticks = |field| self.process_stat(field).parse::<u64>().unwrap();
        Duration::from_millis(10 * (ticks(11) + ticks(12)))
    }

    fn process_stat(&self, field: usize) -> String {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.service.id())).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(field).unwrap().to_owned()
    }

    /// Waits for the exit, whatever the exit code.
    pub(crate) fn exit(mut self) -> Exit {
        let status = self.service.wait(MAX_WAIT).unwrap();
        let took = self.since_stop();
        let exit =
            Exit { code: status.code().unwrap(), took, report: self.service.report().unwrap() };
        let count = |outcome: &str| exit.requests(outcome);
        let fates = ["finished", "timed_out", "aborted", "gone"].map(count).iter().sum::<u64>();
        assert_eq!(
            count("started"),
            fates,
            "P5: each request ends as exactly one of them: {exit:?}"
        );
        assert_eq!(exit.report["connections"]["open"], 0, "{exit:?}");
        exit
    }

    /// Waits for exit code 0. Every request must have finished, and no connection may be reset.
    pub(crate) fn exit_clean(self) -> Exit {
        let exit = self.exit();
        assert_eq!(exit.code, 0, "{exit:?}");
        assert_eq!(exit.requests("started"), exit.requests("finished"), "{exit:?}");
        assert_eq!(exit.connections("reset"), 0, "{exit:?}");
        exit
    }
}

impl Exit {
    /// Returns the number of requests with this outcome.
    pub(crate) fn requests(&self, outcome: &str) -> u64 {
        self.report["requests"][outcome].as_u64().unwrap()
    }

    pub(crate) fn connections(&self, what: &str) -> u64 {
        self.report["connections"][what].as_u64().unwrap()
    }

    /// Asserts that the shutdown took less than `most` (P6, P8), which includes seconds of slack.
    pub(crate) fn within(self, most: Duration) -> Self {
        assert!(self.took < most, "it took {:?}, and {most:?} would have been long", self.took);
        self
    }
}

/// A client's connection. It keeps received bytes that are not consumed yet.
pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    received: Vec<u8>,
}

/// The end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a FIN: everything before it looks complete.
    Closed,
    /// With a reset: the response before it looks incomplete.
    Reset,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn is_hello(&self) {
        assert_eq!((self.status, self.text()), (200, "hello world"), "{self:?}");
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Whether the response announces the close of its connection (P4).
    pub(crate) fn says_close(&self) -> bool {
        self.head.to_ascii_lowercase().contains("\r\nconnection: close\r\n")
    }
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, received: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn get(&mut self, target: &str) {
        self.send(request(target));
    }

    /// Reads once. Returns `None` after data, and otherwise the end of the connection.
    fn more(&mut self) -> Option<End> {
        let mut buffer = [0; 64 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Some(End::Closed),
            Ok(read) => {
                self.received.extend_from_slice(&buffer[..read]);
                None
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Some(End::Reset),
            // The process was stopped and continued. The kernel does not restart a read that has a
            // timeout (`signal(7)`).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(error) => panic!("{error}, after {:?}", String::from_utf8_lossy(&self.received)),
        }
    }

    /// Reads until enough bytes arrived, asserts that they equal `bytes`, and consumes them.
    pub(crate) fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        while self.received.len() < bytes.len() {
            assert_eq!(self.more(), None, "{:?}", String::from_utf8_lossy(&self.received));
        }
        let rest = self.received.split_off(bytes.len());
        assert_eq!(
            String::from_utf8_lossy(&std::mem::replace(&mut self.received, rest)),
            String::from_utf8_lossy(bytes)
        );
    }

    /// Reads and consumes a head.
    pub(crate) fn head(&mut self) -> String {
        let end = loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            let end = self.more();
            assert_eq!(end, None, "no answer, but {:?}", String::from_utf8_lossy(&self.received));
        };
        let rest = self.received.split_off(end + 4);
        String::from_utf8(std::mem::replace(&mut self.received, rest)).unwrap()
    }

    /// Reads a response, which must have a `content-length`.
    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head();
        let length = head.to_ascii_lowercase();
        let length = length
            .split_once("content-length: ")
            .and_then(|(_, rest)| rest.split_once("\r\n"))
            .unwrap()
            .0;
        let length: usize = length.parse().unwrap();
        while self.received.len() < length {
            let end = self.more();
            assert_eq!(
                end,
                None,
                "the answer ends after {} of {length} bytes",
                self.received.len()
            );
        }
        let rest = self.received.split_off(length);
        let body = std::mem::replace(&mut self.received, rest);
        Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head, body }
    }

    /// Consumes the bytes received until now. Returns their number.
    pub(crate) fn rest_so_far(&mut self) -> usize {
        std::mem::take(&mut self.received).len()
    }

    /// Reads everything until the end of the connection.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Some(end) = self.more() {
                return (std::mem::take(&mut self.received), end);
            }
        }
    }

    /// Asserts that the connection ends with a FIN, without a byte before it.
    pub(crate) fn is_closed(&mut self) {
        let (bytes, end) = self.rest();
        assert_eq!((String::from_utf8_lossy(&bytes).as_ref(), end), ("", End::Closed));
    }
}

impl Client {
    /// Shuts down the write side. The client can still read.
    pub(crate) fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    /// Closes the connection with a reset, as after a crash of the client.
    pub(crate) fn vanish(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Shrinks the receive buffer to the minimum of the kernel.
    pub(crate) fn read_little(&self) {
        SockRef::from(&self.stream).set_recv_buffer_size(1).unwrap();
    }

    /// Shrinks the receive buffer.
    pub(crate) fn read_slowly(&self) {
        SockRef::from(&self.stream).set_recv_buffer_size(64 * 1024).unwrap();
    }
}

pub(crate) fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

/// Opens a connection whose reads fail instead of hanging.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, MAX_WAIT)?;
    stream.set_read_timeout(Some(MAX_WAIT))?;
    stream.set_write_timeout(Some(MAX_WAIT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

pub(crate) fn binary() -> &'static Path {
    allow_many_descriptors();
    Path::new(env!("CARGO_BIN_EXE_lameduck"))
}

/// Lets time pass that the test needs, because it tests what happens afterwards.
pub(crate) fn pass(time: Duration) {
    thread::sleep(time);
}

pub(crate) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(crate) const fn s(s: u64) -> Duration {
    Duration::from_secs(s)
}

/// Some tests hold a thousand connections, and their servers inherit this limit.
fn allow_many_descriptors() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let wanted = limit.maximum.map_or(8192, |maximum| maximum.min(8192));
        if limit.current.is_some_and(|current| current < wanted) {
            rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit })
                .unwrap();
        }
    });
}
