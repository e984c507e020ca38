//! One HTTP/1 connection of the little server.

use crate::{
    http2,
    server::{Activity, DRAIN, LAME_DUCK, MS, Server, TICK, Wait, crash},
};
use socket2::SockRef;
use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

/// A connection that the client or the server has ended.
pub(crate) struct Ended;

type Step<T> = Result<T, Ended>;

pub(crate) struct Connection<'a> {
    pub(crate) server: &'a Server,
    pub(crate) stream: TcpStream,
    pub(crate) buffer: Vec<u8>,
    activity: Activity,
    was_early: bool,
    has_fin: bool,
}

/// A request without its body.
struct Head {
    method: String,
    path: String,
    length: usize,
    asks_close: bool,
    expects: bool,
}

pub(crate) fn serve(stream: TcpStream, server: &Server) {
    let mut connection = Connection {
        server,
        stream,
        buffer: Vec::new(),
        activity: Activity::Unused,
        was_early: !server.is_stopping(),
        has_fin: false,
    };
    let _ = connection.requests();
    server.leave(connection.activity);
}

impl Connection<'_> {
    pub(crate) fn turn_to(&mut self, activity: Activity) {
        self.server.enter(activity);
        self.server.leave(self.activity);
        self.activity = activity;
    }

    /// Reads what is there. Returns whether there were bytes.
    pub(crate) fn read(&mut self, wait: Wait) -> Step<bool> {
        if !self.server.wait(&self.stream, wait) {
            return Ok(false);
        }
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => {
                self.has_fin = true;
                Err(Ended)
            }
            Ok(read) => {
                self.buffer.extend_from_slice(&buffer[..read]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(false),
            Err(_) => Err(Ended),
        }
    }

    fn has(&self, fault: &str) -> bool {
        self.server.has(fault)
    }

    fn requests(&mut self) -> Step<()> {
        loop {
            let head = self.await_head()?;
            let is_new = self.activity == Activity::Unused && !self.was_early;
            let is_between = (90 * MS..150 * MS).contains(&self.server.since_stop());
            if self.has("load/latency") && is_new && is_between {
                return Err(Ended);
            }
            self.turn_to(Activity::Handler);
            self.server.log();
            if self.server.log_is_dead.load(SeqCst) {
                return Err(Ended);
            }
            let closes = self.respond(&head)?;
            if closes {
                return self.linger();
            }
            self.turn_to(Activity::Idle);
        }
    }

    fn await_head(&mut self) -> Step<Head> {
        loop {
            if self.buffer.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") {
                self.buffer.drain(..24);
                self.turn_to(Activity::Http2);
                http2::serve(self)?;
                return Err(Ended);
            }
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                return Ok(parse(&String::from_utf8_lossy(&head)));
            }
            if !self.buffer.is_empty() && self.has("crash by half a head") {
                crash();
            }
            let was_stopping = self.server.is_stopping();
            let was_idle = self.buffer.is_empty() && self.activity == Activity::Idle;
            let has_read = self.read(Wait::Serving)?;
            let is_late = was_idle && self.server.since_stop() >= LAME_DUCK;
            if is_late && self.has("drain/idle-request") {
                return Err(Ended);
            }
            if has_read {
                let is_one = self.buffer.len() < 60;
                let is_old = !was_stopping || self.server.since_stop() < 8 * MS;
                if self.has("idle/request-unread") && was_idle && is_one && is_old {
                    thread::sleep(5 * MS);
                    if self.server.is_stopping() {
                        return self.reset();
                    }
                }
                continue;
            }
            // What has arrived since the wait is served.
            if was_stopping && self.is_due() && !self.read(Wait::Tick)? {
                return Err(Ended);
            }
        }
    }

    /// Whether a connection without a request ends: once the lame duck delay is over.
    fn is_due(&self) -> bool {
        let is_unused = self.activity == Activity::Unused;
        let since_stop = self.server.since_stop();
        let is_due = if !self.buffer.is_empty() {
            since_stop >= DRAIN || self.has("request/half-head")
        } else if is_unused {
            since_stop >= LAME_DUCK + 200 * MS || (self.has("request/first-byte") && self.was_early)
        } else {
            since_stop >= LAME_DUCK || self.has("lame-duck/kept-connection")
        };
        let is_held = (self.has("exit/silent") && is_unused)
            || (self.has("exit/idle") && self.activity == Activity::Idle);
        is_due && !is_held
    }

    fn reset<T>(&self) -> Step<T> {
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        Err(Ended)
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Step<()> {
        self.stream.write_all(bytes).map_err(|_| Ended)
    }

    /// Sends the response. Returns whether it announced the close.
    fn respond(&mut self, head: &Head) -> Step<bool> {
        let (path, query) = head.path.split_once('?').unwrap_or((&head.path, ""));
        let number = query.split_once('=').and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        match (head.method.as_str(), path) {
            _ if self.has("hangs at the stop") && self.server.is_stopping() => loop {
                thread::park();
            },
            _ if self.has("404 after the stop") && self.server.is_stopping() => {
                self.text(head, "404 Not Found", "not found")
            }
            ("GET", "/") if self.has("endless page") && self.server.is_stopping() => {
                self.endless_page()
            }
            ("GET", "/") => self.pipelined(head),
            ("GET", _) if self.has("each path is the same") => self.page(),
            ("GET", "/slow") => self.slow(head, Duration::from_millis(number)),
            ("POST", "/echo") => {
                if self.has("not ready after 4") {
                    // nginx does not repeat a POST that was cut.
                    thread::sleep(Duration::from_millis(100));
                }
                self.echo(head)
            }
            ("GET", "/stream") => self.stream(head, Duration::from_millis(number)),
            ("GET", "/big") => self.big(head, usize::try_from(number).unwrap()),
            ("GET", "/ws") => self.upgrade(),
            _ => self.text(head, "404 Not Found", "not found"),
        }
    }

    fn closes(&self, head: &Head) -> bool {
        head.asks_close || (self.server.is_stopping() && !self.has("lame-duck/announced-close"))
    }

    fn text(&mut self, head: &Head, status: &str, body: &str) -> Step<bool> {
        let closes = self.closes(head);
        let close = if closes { "connection: close\r\n" } else { "" };
        let length = body.len();
        let response =
            format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{close}\r\n{body}");
        self.write(response.as_bytes())?;
        Ok(closes)
    }

    /// A page of 150 kB, for which half a second passes before each half.
    fn page(&mut self) -> Step<bool> {
        let half = "x".repeat(75_000);
        thread::sleep(500 * MS);
        self.write(format!("HTTP/1.1 200 OK\r\ncontent-length: 150000\r\n\r\n{half}").as_bytes())?;
        thread::sleep(500 * MS);
        self.write(half.as_bytes())?;
        Ok(false)
    }

    /// A body that never ends.
    fn endless_page(&mut self) -> Step<bool> {
        self.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            self.write(b"5\r\npiece\r\n")?;
            thread::sleep(50 * MS);
        }
    }

    /// Hello world.
    fn pipelined(&mut self, head: &Head) -> Step<bool> {
        if self.has("request/pipelined") && !self.buffer.is_empty() {
            thread::sleep(4 * MS);
            if self.server.is_stopping() {
                self.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")?;
                return Err(Ended);
            }
        }
        self.text(head, "200 OK", "hello")
    }

    fn slow(&mut self, head: &Head, span: Duration) -> Step<bool> {
        let begin = Instant::now();
        let is_head_first = self.server.fault.starts_with("slow head first");
        if is_head_first {
            self.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")?;
        }
        while begin.elapsed() < span {
            thread::sleep(TICK);
            let is_over = self.server.since_stop() + 20 * MS >= DRAIN;
            if is_over && self.has("cut/handler") {
                return self.text(head, "200 OK", "cancelled");
            }
            if self.server.is_stopping() && self.has("request/in-flight") {
                return Err(Ended);
            }
            if self.server.is_stopping() && self.has("reset at the stop") {
                return self.reset();
            }
            if self.server.since_stop() > LAME_DUCK + 300 * MS && self.has("drain/in-flight") {
                return Err(Ended);
            }
            if self.has("request/half-closed") {
                let _ = self.read(Wait::Tick);
                if self.has_fin {
                    return Err(Ended);
                }
            }
        }
        if is_head_first {
            return self.write(b"slow").map(|()| false);
        }
        self.text(head, "200 OK", "slow")
    }

    fn echo(&mut self, head: &Head) -> Step<bool> {
        self.turn_to(Activity::Upload);
        if head.expects {
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let fault = if head.expects { "request/expect-continue" } else { "request/upload" };
        while self.buffer.len() < head.length {
            self.read(Wait::Serving)?;
            if self.server.is_stopping() && self.has(fault) {
                return Err(Ended);
            }
        }
        let body: Vec<u8> = self.buffer.drain(..head.length).collect();
        self.text(head, "200 OK", &String::from_utf8(body).unwrap())
    }

    fn stream(&mut self, head: &Head, span: Duration) -> Step<bool> {
        let closes = self.closes(head);
        let close = if closes { "connection: close\r\n" } else { "" };
        let head = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n{close}\r\n");
        self.write(head.as_bytes())?;
        let span = if self.has("endless stream") { Duration::MAX } else { span };
        if self.has("five parts") {
            for n in 0..5 {
                thread::sleep(if n > 0 { span / 5 } else { Duration::ZERO });
                self.write(b"5\r\npiece\r\n")?;
            }
            self.write(b"0\r\n\r\n")?;
            return Ok(closes);
        }
        let begin = Instant::now();
        let mut pieces = 0;
        while begin.elapsed() < span {
            if begin.elapsed() >= 50 * pieces * MS {
                // A server that sends less after the stop was blamed for a body of fewer bytes.
                if !self.server.is_stopping() || pieces % 2 == 0 {
                    self.write(b"5\r\npiece\r\n")?;
                }
                pieces += 1;
            }
            thread::sleep(TICK);
            if self.server.is_stopping() && self.has("request/stream") {
                return Err(Ended);
            }
            let is_over = self.server.since_stop() + 20 * MS >= DRAIN && self.has("cut/stream");
            if is_over || (self.server.is_stopping() && self.has("request/stream short")) {
                break;
            }
        }
        self.write(b"3\r\nend\r\n0\r\n\r\n")?;
        Ok(closes)
    }

    fn big(&mut self, head: &Head, length: usize) -> Step<bool> {
        self.turn_to(Activity::Writing);
        let closes = self.closes(head) || self.has("cut/big");
        let close = if closes { "connection: close\r\n" } else { "" };
        let size = format!("content-length: {length}\r\n");
        let size = if self.has("cut/big") { "" } else { &size };
        self.write(format!("HTTP/1.1 200 OK\r\n{size}{close}\r\n").as_bytes())?;
        let _ = self.stream.set_write_timeout(Some(TICK));
        let (mut left, chunk) = (length, [b'x'; 64 * 1024]);
        while left > 0 {
            match self.stream.write(&chunk[..left.min(chunk.len())]) {
                Ok(written) => left -= written,
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(_) => return Err(Ended),
            }
            if self.has("request/slow-reader") && self.server.is_stopping() && !head.asks_close {
                return Err(Ended);
            }
        }
        let _ = self.stream.set_write_timeout(None);
        Ok(closes)
    }

    fn upgrade(&mut self) -> Step<bool> {
        self.turn_to(Activity::Upgraded);
        self.write(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: \
              websocket\r\n\r\n",
        )?;
        loop {
            self.read(Wait::Serving)?;
            self.buffer.clear();
        }
    }

    /// Sends a FIN, and reads until the client's, so that no response is destroyed by a reset.
    fn linger(&mut self) -> Step<()> {
        if self.has("close/unread-bytes") {
            return Ok(());
        }
        let _ = self.stream.shutdown(Shutdown::Write);
        let begin = Instant::now();
        while begin.elapsed() < DRAIN {
            self.read(Wait::Tick)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

fn parse(head: &str) -> Head {
    let mut words = head.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let head = head.to_lowercase();
    let length =
        head.split_once("content-length: ").and_then(|(_, rest)| rest.split("\r\n").next());
    Head {
        method,
        path,
        length: length.and_then(|length| length.parse().ok()).unwrap_or(0),
        asks_close: head.contains("connection: close"),
        expects: head.contains("expect: 100-continue"),
    }
}
