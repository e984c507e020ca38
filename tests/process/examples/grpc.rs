//! P5d, P9: the example of gRPC, and grpcio, a client that shares no code with tonic. It has the
//! retries that every such client has by default: of calls that no server has begun.

use super::{Example, MAX_WAIT, in_time};
use lameduck::os::stdio::write_stderr_line;
use serde_json::Value;
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

/// The script in the same folder.
struct Client {
    /// Killed when it is dropped.
    _child: Child,
    commands: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Client {
    /// Returns `None` if Python or grpcio is missing. In CI they must be there.
    async fn start(addresses: &str) -> Option<Self> {
        let mut import = Command::new("python3");
        import.args(["-c", "import grpc"]).stderr(Stdio::null());
        if !import.status().await.is_ok_and(|status| status.success()) {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI needs the Python package grpcio: .ci/run installs it"
            );
            write_stderr_line("NOT TRIED: the Python package grpcio is missing");
            return None;
        }
        let script = crate::support::repository("tests/process/examples/grpc_client.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(addresses)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let commands = child.stdin.take().expect("stdin is piped");
        let lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
        Some(Self { _child: child, commands, lines })
    }

    /// Sends a command. Returns the line that it prints.
    async fn run(&mut self, command: &str) -> String {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.expect("it reads");
        self.line().await
    }

    async fn line(&mut self) -> String {
        let line = timeout(MAX_WAIT * 2, self.lines.next_line()).await.expect("it prints in time");
        line.expect("it is text").expect("it goes on")
    }
}

#[tokio::test]
async fn grpcio_sees_the_status_of_each_phase() {
    let environment = [
        ("APP_REQUEST_TIMEOUT", "1s"),
        ("SHUTDOWN_LAME_DUCK", "1500ms"),
        ("SHUTDOWN_DRAIN", "200ms"),
        ("SHUTDOWN_STREAMS", "1s"),
        ("SHUTDOWN_CANCEL", "500ms"),
    ];
    let mut app = Example::start("grpc", &environment).await;
    let Some(mut client) = Client::start(&app.main).await else { return };
    assert_eq!(app.get("/").await.text(), "hello world", "axum serves the same port");
    assert_eq!(client.run("call Hello").await, "Hello OK 1");
    assert_eq!(client.run("call Sleep").await, "Sleep DEADLINE_EXCEEDED 0");
    assert_eq!(client.run("health").await, "health 1");
    client.run("begin Count").await;
    app.terminate();
    app.line("lame duck: no longer ready, still serving").await;
    assert_eq!(client.run("health").await, "health 2", "not serving, from the stop request on");
    assert_eq!(client.run("call Hello").await, "Hello OK 1", "a lame duck serves");
    app.line("draining: listeners close, requests in flight finish").await;
    let count = client.run("end").await;
    assert!(count.starts_with("Count UNAVAILABLE ") && !count.ends_with(" 0"), "{count}");
    let end = app.end().await;
    assert_eq!(end.code, Some(0), "{end:#?}");
}

#[tokio::test]
async fn grpcio_sees_what_the_shutdown_cuts_as_unavailable() {
    let environment = [
        ("APP_REQUEST_TIMEOUT", "0s"),
        ("SHUTDOWN_LAME_DUCK", "0s"),
        ("SHUTDOWN_DRAIN", "200ms"),
        ("SHUTDOWN_CANCEL", "500ms"),
    ];
    let app = Example::start("grpc", &environment).await;
    let Some(mut client) = Client::start(&app.main).await else { return };
    assert_eq!(client.run("call Hello").await, "Hello OK 1");
    client.run("begin Sleep").await;
    app.poll_status("/in_flight", &1.into()).await;
    app.terminate();
    assert_eq!(client.run("end").await, "Sleep UNAVAILABLE 0");
    let end = app.end().await;
    assert_eq!(end.code, Some(3), "{end:#?}");
}

#[tokio::test]
async fn a_rolling_restart_of_three_replicas_fails_no_call() {
    let environment = [("SHUTDOWN_LAME_DUCK", "400ms"), ("SHUTDOWN_CANCEL", "500ms")];
    let mut apps = Vec::new();
    for _ in 0..3 {
        apps.push(Example::start("grpc", &environment).await);
    }
    let addresses: Vec<String> = apps.iter().map(|app| app.main.clone()).collect();
    let Some(mut client) = Client::start(&addresses.join(",")).await else { return };
    client.run("load").await;
    for (n, address) in addresses.iter().enumerate() {
        apps[n].wait_for_requests().await;
        let app = apps.remove(n);
        app.terminate();
        let end = app.end().await;
        assert_eq!(end.code, Some(0), "{end:#?}");
        let environment = [environment[0], environment[1], ("APP_ADDR", address.as_str())];
        apps.insert(n, Example::start("grpc", &environment).await);
    }
    for app in &apps {
        app.wait_for_requests().await;
    }
    let load = client.run("end").await;
    let words: Vec<&str> = load.split_whitespace().collect();
    let calls: u64 = words[1].parse().expect("a number of calls");
    assert!(calls > 100 && words.len() == 2, "no call fails: {load}");
}

impl Example {
    /// Waits until it has had requests.
    async fn wait_for_requests(&self) {
        in_time("requests", async {
            loop {
                let page = self.get_internal("/status").await.text();
                let status: Value = serde_json::from_str(&page).expect("the status is JSON");
                if status["requests"]["started"].as_u64() > Some(5) {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}
