//! Runs each example as its reader would: in its own process, on real sockets, with a real SIGTERM.
//!
//! `cargo test` builds the examples first. With `--test` alone, `cargo build --examples` must be
//! run before it. No test sleeps: every wait is for a log line, a byte of a response or the exit,
//! and is bounded by [`MAX_WAIT`].
#![expect(clippy::disallowed_methods, reason = "a test of a process lives in real time")]

mod bad_settings;
mod grpc;

use crate::support::scratch_path;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::{future::Future, path::Path, path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    net::{TcpStream, UnixStream},
    process::{Child, ChildStderr, Command},
    time::timeout,
};

/// Far longer than any wait takes, even on a machine that is busy with other tests.
const MAX_WAIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn hello_responds_with_its_version_and_closes_its_database_last() {
    let mut app = Example::start("hello", &[("APP_VERSION", "1.2.3")]).await;
    app.line("serving: ready").await;

    let answer = app.get("/").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello world"));
    assert_eq!(answer.header("app-version"), Some("1.2.3"));
    assert_eq!(app.get_internal("/liveness").await.status, 200);
    assert_eq!(app.get_internal("/readiness").await.status, 200);

    app.terminate();
    app.line("lame duck: no longer ready, still serving").await;
    assert_eq!(app.get_internal("/readiness").await.status, 503);
    let answer = app.get("/").await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));

    let end = app.end().await;
    assert_eq!(end.code, Some(0), "{end:#?}");
    end.assert_order(&[
        "draining: listeners close, requests in flight finish",
        "closing down database connections",
        "report",
    ]);
}

#[tokio::test]
async fn axum_pool_is_closed_after_the_last_handler() {
    let mut app = Example::start("axum_pool", &[]).await;
    app.line("serving: ready").await;
    assert!(app.has_logged("pool opened"), "the start hook runs before anything is served");
    app.poll_readiness(200).await;

    assert_eq!(
        app.get_internal("/outage").await.text(),
        "the database is up\n",
        "a GET changes nothing"
    );
    assert_eq!(app.post_internal("/outage").await.text(), "the database is down\n");
    let unready = app.poll_readiness(503).await;
    assert!(unready.contains("database"), "the answer names the check: {unready}");
    assert_eq!(app.post_internal("/outage").await.text(), "the database is up\n");
    app.poll_readiness(200).await;

    // Longer than the lame duck delay, so that the handler runs when the drain begins.
    let mut query = app.send("GET", "/query/1000", "").await;
    app.poll_status("/in_flight", &1.into()).await;
    app.terminate();
    let answer = Answer::read(&mut query).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("query 1 took"));

    let end = app.end().await;
    assert_eq!(end.code, Some(0), "{end:#?}");
    end.assert_order(&[
        "draining: listeners close, requests in flight finish",
        "query done",
        "pool closed",
        "report",
    ]);
    let closed = end.line("pool closed");
    assert_eq!((&closed["in_use"], &closed["queries"]), (&0.into(), &1.into()));
}

#[tokio::test]
async fn event_streams_end_complete_when_the_drain_begins() {
    let mut app = Example::start("events", &[]).await;
    app.line("serving: ready").await;
    let mut streams = Vec::new();
    for path in ["/events", "/lines", "/farewell"] {
        let mut stream = app.send("GET", path, "").await;
        read_until(&mut stream, "tick 0").await;
        streams.push(stream);
    }

    app.terminate();
    let mut texts = Vec::new();
    for stream in &mut streams {
        let rest = read_all(stream).await;
        assert!(
            rest.ends_with("\r\n0\r\n\r\n"),
            "it ends with the last chunk, and not in a breach: {rest:?}"
        );
        texts.push(rest);
    }
    // Ticks arrive four times a second, and the lame duck delay lasts 600 ms. A stream that ended
    // at the stop request would lack this tick.
    for text in &texts {
        assert!(text.contains("tick 2"), "a lame duck serves on: {text:?}");
    }
    assert!(texts[2].contains("event: farewell"), "the last word: {:?}", texts[2]);

    let end = app.end().await;
    assert_eq!(end.code, Some(0), "{end:#?}");
    assert_eq!(end.report()["requests"]["finished"], 3);
}

/// A worker ended with its last connection, and its runtime with it. The confirmation was dropped
/// without a log line, 22 ms into a drain of ten seconds, with exit code 0. The drain must wait for
/// tracked work (P10). Only a real process has a runtime per worker, so this test needs one.
#[tokio::test]
async fn background_work_outlives_its_response_and_not_the_drain() {
    let mut app = Example::start("background", &[]).await;
    app.line("serving: ready").await;
    let mut order = app.send("POST", "/orders", "").await;
    let answer = Answer::read(&mut order).await;
    assert_eq!(answer.status, 202);

    app.terminate();
    assert!(!app.has_logged("confirmation sent"), "the confirmation takes longer than all of this");
    let end = app.end().await;
    assert_eq!(end.code, Some(0), "{end:#?}");
    end.assert_order(&[
        "no more jobs",
        "draining: listeners close, requests in flight finish",
        "confirmation sent",
        "cleaning up: stop hooks run",
        "report",
    ]);
    assert_eq!(end.line("no more jobs")["phase"], "lame_duck");
}

#[tokio::test]
async fn long_streams_end_at_a_moment_of_their_budget_and_a_websocket_says_so() {
    let environment = [("SHUTDOWN_LAME_DUCK", "0s"), ("SHUTDOWN_STREAMS", "1s")];
    let mut app = Example::start("events", &environment).await;
    app.line("serving: ready").await;
    let mut spread = app.send("GET", "/spread", "").await;
    read_until(&mut spread, "tick 0").await;
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let mut socket = TcpStream::connect(&app.main).await.expect("it listens");
    let request = format!("GET /socket HTTP/1.1\r\nhost: localhost\r\n{upgrade}\r\n");
    socket.write_all(request.as_bytes()).await.expect("it can be sent");
    read_until(&mut socket, "tick 0").await;
    app.terminate();
    assert!(read_all(&mut spread).await.ends_with("0\r\n\r\n"), "the last chunk");
    // RFC 6455 §5.5.1, §7.4.1: a close frame of 11 bytes, with the code 1012.
    let close = b"\x88\x0b\x03\xf4reconnect";
    let mut seen = Vec::new();
    while !seen.windows(close.len()).any(|window| window == close) {
        let read = in_time("the close frame", socket.read_buf(&mut seen)).await;
        assert_ne!(read.expect("it is not reset"), 0, "no close frame: {seen:?}");
    }
    drop(socket);
    let end = app.end().await;
    assert_eq!((end.code, &end.report()["streams_ended"]), (Some(0), &2.into()), "{end:#?}");
}

#[tokio::test]
async fn tower_stack_gives_ids_limits_compression_and_a_deadline_per_route() {
    let mut app = Example::start("tower_stack", &[("APP_REQUEST_TIMEOUT", "300ms")]).await;
    app.line("serving: ready").await;

    let answer = app.request("GET", "/", "x-request-id: mine\r\n").await;
    assert_eq!((answer.status, answer.header("x-request-id")), (200, Some("mine")));
    let answer = app.get("/").await;
    assert_eq!(
        answer.header("x-request-id").map(str::len),
        Some(36),
        "a UUID, if the client gave none"
    );

    let answer = app.request("GET", "/page", "accept-encoding: gzip\r\n").await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")));

    // The head alone is refused.
    let answer = app.request("POST", "/upload", "content-length: 20000\r\n").await;
    assert_eq!(answer.status, 413);

    let answer = app.get("/slow/10000").await;
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("deadline of 300ms"), "{}", answer.text());
    let answer = app.get("/report/900").await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "that took 900 ms\n"),
        "its route has a longer one"
    );

    app.terminate();
    let end = app.end().await;
    assert_eq!(end.code, Some(0), "{end:#?}");
    let traced = |line: &&Value| {
        line["message"] == "finished processing request" && line["span"]["id"] == "mine"
    };
    assert_eq!(end.log.iter().filter(traced).count(), 1, "the trace has the id: {end:#?}");
    let report = end.report();
    assert_eq!(
        (&report["requests"]["finished"], &report["requests"]["timed_out"]),
        (&5.into(), &1.into())
    );
}

/// The service does not log its addresses, so they are paths and not ports.
#[tokio::test]
async fn the_service_from_axum_serve_serves_as_a_lame_duck_and_exits_with_its_report() {
    let (main, internal) = (scratch_path("main"), scratch_path("internal"));
    let mut child = Command::new(executable("from_axum_serve"))
        .env_clear()
        .env("APP_ADDR", format!("unix:{}", main.display()))
        .env("INTERNAL_ADDR", format!("unix:{}", internal.display()))
        .env("SHUTDOWN_LAME_DUCK", "600ms")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the example starts");
    let get = async |path: &str, at: &Path| loop {
        let Ok(mut client) = UnixStream::connect(at).await else {
            tokio::task::yield_now().await;
            continue;
        };
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("a request");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        return answer;
    };
    let answer = in_time("the start", get("/", &main)).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello world"), "{answer}");
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    kill_process(id.expect("it runs"), Signal::TERM).expect("it can be told");
    in_time("the lame duck", async {
        while get("/readiness", &internal).await.starts_with("HTTP/1.1 200") {}
    })
    .await;
    let answer = in_time("a lame duck's answer", get("/", &main)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let status = in_time("the exit", child.wait()).await.expect("it can be waited for");
    assert_eq!(status.code(), Some(0));
}

/// A running example. It is killed when it is dropped.
struct Example {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    log: Vec<Value>,
    main: String,
    internal: String,
}

impl Example {
    /// Starts an example with an empty environment, and waits until its addresses are known.
    async fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(executable(name));
        command
            .env_clear()
            .envs([
                ("APP_ADDR", "127.0.0.1:0"),
                ("INTERNAL_ADDR", "127.0.0.1:0"),
                ("APP_WORKERS", "2"),
            ])
            .envs([
                ("SHUTDOWN_LAME_DUCK", "600ms"),
                ("SHUTDOWN_DRAIN", "10s"),
                ("SHUTDOWN_CANCEL", "1s"),
            ])
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the example starts");
        let lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let mut app =
            Self { child, lines, log: Vec::new(), main: String::new(), internal: String::new() };
        let bound = app.line("bound").await;
        let address = |field: &str| bound[field].as_str().expect("an address").to_owned();
        (app.main, app.internal) = (address("main"), address("internal"));
        app
    }

    /// Reads the log until a line has this message. The line may have been read already.
    async fn line(&mut self, message: &str) -> Value {
        loop {
            if let Some(line) = self.log.iter().find(|line| line["message"] == message) {
                return line.clone();
            }
            assert!(
                self.read_line(message).await,
                "the log ended without `{message}`: {:#?}",
                self.log
            );
        }
    }

    /// Whether a line with this message has been read.
    fn has_logged(&self, message: &str) -> bool {
        self.log.iter().any(|line| line["message"] == message)
    }

    /// Reads one line. Returns false at the end of the log.
    async fn read_line(&mut self, awaited: &str) -> bool {
        let line = in_time(awaited, self.lines.next_line()).await.expect("the log is text");
        let Some(line) = line else { return false };
        // Every line of the log is JSON. Only the error of a failed start is not.
        self.log
            .push(serde_json::from_str(&line).unwrap_or_else(|_| panic!("not a log line: {line}")));
        true
    }

    async fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "").await
    }

    async fn request(&self, method: &str, path: &str, headers: &str) -> Answer {
        Answer::read(&mut self.send(method, path, headers).await).await
    }

    async fn send(&self, method: &str, path: &str, headers: &str) -> TcpStream {
        send(&self.main, method, path, headers).await
    }

    async fn get_internal(&self, path: &str) -> Answer {
        Answer::read(&mut send(&self.internal, "GET", path, "").await).await
    }

    async fn post_internal(&self, path: &str) -> Answer {
        Answer::read(&mut send(&self.internal, "POST", path, "").await).await
    }

    /// Polls until readiness has this status. Returns its body.
    async fn poll_readiness(&self, status: u16) -> String {
        in_time("readiness", async {
            loop {
                let answer = self.get_internal("/readiness").await;
                if answer.status == status {
                    return answer.text();
                }
            }
        })
        .await
    }

    /// Polls until the status has this value at this pointer.
    async fn poll_status(&self, pointer: &str, value: &Value) {
        in_time(pointer, async {
            loop {
                let status: Value =
                    serde_json::from_str(&self.get_internal("/status").await.text()).expect("JSON");
                if status.pointer(pointer) == Some(value) {
                    return;
                }
            }
        })
        .await;
    }

    /// Sends SIGTERM to this process only.
    fn terminate(&self) {
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(id.expect("it runs"), Signal::TERM).expect("it can be told");
    }

    /// Reads the log to its end, and waits for the exit code.
    async fn end(mut self) -> End {
        while self.read_line("the end of the log").await {}
        let status = in_time("the exit", self.child.wait()).await.expect("it can be waited for");
        End { code: status.code(), log: self.log }
    }
}

/// The result of an example.
#[derive(Debug)]
struct End {
    /// `None` if a signal ended the process.
    code: Option<i32>,
    log: Vec<Value>,
}

impl End {
    fn line(&self, message: &str) -> &Value {
        &self.log[self.position(message)]
    }

    fn report(&self) -> Value {
        let report = self.line("report")["report"].as_str().expect("the report is text in a field");
        serde_json::from_str(report).expect("the report is JSON")
    }

    /// Asserts that the log has a line with each of these messages, in this order.
    fn assert_order(&self, messages: &[&str]) {
        let positions: Vec<usize> = messages.iter().map(|message| self.position(message)).collect();
        assert!(positions.is_sorted(), "{messages:?} are at {positions:?} of {:#?}", self.log);
    }

    fn position(&self, message: &str) -> usize {
        let position = self.log.iter().position(|line| line["message"] == message);
        position.unwrap_or_else(|| panic!("no line says `{message}`: {:#?}", self.log))
    }
}

/// An HTTP/1.1 response on a connection that ends with it.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        in_time("an answer", stream.read_to_end(&mut bytes))
            .await
            .expect("the answer ends, and is not reset");
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a whole head");
        let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
        let status =
            head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        Self { status, head, body: bytes[end + 4..].to_vec() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("a body of text")
    }
}

async fn send(address: &str, method: &str, path: &str, headers: &str) -> TcpStream {
    let mut stream =
        in_time("a connection", TcpStream::connect(address)).await.expect("it listens");
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n"
    );
    in_time("room for a request", stream.write_all(request.as_bytes()))
        .await
        .expect("it can be sent");
    stream
}

/// Reads until the text arrives, and drops everything read.
async fn read_until(stream: &mut TcpStream, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let read = in_time(text, stream.read_buf(&mut seen)).await.expect("it is not reset");
        assert_ne!(read, 0, "it ended without `{text}`: {}", String::from_utf8_lossy(&seen));
    }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    in_time("the end of a stream", stream.read_to_string(&mut text))
        .await
        .expect("it ends, and is not reset");
    text
}

async fn in_time<F: Future>(what: &str, wait: F) -> F::Output {
    match timeout(MAX_WAIT, wait).await {
        Ok(output) => output,
        Err(_) => panic!("waited {MAX_WAIT:?} for {what}"),
    }
}

/// This test is `target/<profile>/deps/…`. The examples are in `target/<profile>/examples`.
fn executable(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test has a path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("it lies two deep");
    let path = profile.join("examples").join(name);
    assert!(path.exists(), "{} is missing: cargo build --examples", path.display());
    path
}
