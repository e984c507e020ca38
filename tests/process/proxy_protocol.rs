//! P5, P14, P15: the binary behind proxies that send PROXY headers.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    Client, End, Service, block, is_at_hand, now, run_to_end, scratch_path, service::command,
    until_holds,
};
use rustix::process::Signal;
use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Starts the service with two addresses, of which the second requires headers.
fn start(flags: &[&str]) -> (Service, [SocketAddr; 2]) {
    let service = Service::start(&[&["--proxy-protocol=127.0.0.1:0"], flags].concat());
    let bound = service.wait_for_line("bound");
    let (plain, proxied) = bound["main"].as_str().unwrap().split_once(", ").unwrap();
    let addresses = [plain, proxied].map(|address| address.parse().unwrap());
    (service, addresses)
}

/// Returns the lines of the log at the level of warnings or above.
fn complaints(service: &Service) -> Vec<String> {
    let is_complaint =
        |line: &serde_json::Value| line["level"] == "WARN" || line["level"] == "ERROR";
    service.lines().iter().filter(|line| is_complaint(line)).map(ToString::to_string).collect()
}

/// HAProxy, which forwards TCP with headers, and checks the server's health.
struct Haproxy {
    process: Child,
    config: PathBuf,
    front: SocketAddr,
}

impl Haproxy {
    /// It inherits its listening socket as its standard input.
    fn start(server: SocketAddr, header: &str) -> Self {
        let config = scratch_path("haproxy.cfg");
        let text = format!(
            "global
    nbthread 1
    maxconn 200
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend front
    bind fd@0
    default_backend app
backend app
    default-server check inter 50ms
    server app {server} {header}
"
        );
        fs::write(&config, text).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = listener.local_addr().unwrap();
        let mut command = Command::new("haproxy");
        command.arg("-db").arg("-f").arg(&config).stdin(OwnedFd::from(listener));
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { process, config, front }
    }

    fn is_installed() -> bool {
        let mut command = Command::new("haproxy");
        let quiet = command.arg("-v").stdout(Stdio::null()).stderr(Stdio::null());
        is_at_hand("haproxy", quiet.status().is_ok())
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_file(&self.config);
    }
}

#[test]
fn haproxy_announces_its_clients_and_its_health_checks_are_no_errors() {
    if !Haproxy::is_installed() {
        return;
    }
    for header in ["send-proxy", "send-proxy-v2"] {
        let (mut service, [_, address]) = start(&["--lame-duck=300ms"]);
        let proxy = Haproxy::start(address, header);
        let mut client = Client::connect(proxy.front);
        let own = client.local_address();
        assert_eq!(client.get("/peer").body(), format!("{own}\n"), "{header}");
        let checked = || service.status()["connections"]["accepted"].as_u64() >= Some(8);
        until_holds("some health checks", checked);
        assert_eq!(client.get("/peer").body(), format!("{own}\n"), "{header}");
        // The checks continue, and a client waits for its response.
        client.send_get("/slow?ms=2000");
        service.wait_for_in_flight(1);
        service.signal(Signal::TERM);
        let last = client.answer();
        assert_eq!((last.status, last.says_close()), (200, true), "{header}");
        assert_eq!(service.exit_code(), 0);
        let connections = &service.report()["connections"];
        for counter in ["proxy_headers_refused", "close_races", "reset", "handshakes_failed"] {
            assert_eq!(connections[counter], 0, "{header}: {counter}");
        }
        assert_eq!(complaints(&service), [""; 0], "{header}");
    }
}

#[test]
fn curl_sends_a_header_over_both_protocols_and_gets_nothing_without_one() {
    let (mut service, [plain, address]) = start(&[]);
    let curl = |flags: &[&str], address: SocketAddr| {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20"]).args(flags);
        command.args(["--write-out", "%{local_ip}:%{local_port}\n"]);
        command.arg(format!("http://{address}/peer"));
        run_to_end(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    };
    for protocol in ["--http1.1", "--http2-prior-knowledge"] {
        let ended = curl(&["--haproxy-protocol", protocol], address);
        let (peer, own) = ended.stdout.split_once('\n').unwrap();
        assert_eq!((peer, ended.code), (own.trim_end(), Some(0)), "{protocol}: {}", ended.stderr);
        // curl fails at once, with a code for each protocol, and prints only its own address.
        let ended = curl(&[protocol], address);
        assert!(!matches!(ended.code, None | Some(0 | 28)), "{protocol}: {ended:?}");
        assert_eq!(ended.stdout.lines().count(), 1, "{protocol}: {ended:?}");
    }
    let ended = curl(&["--haproxy-protocol", "--fail"], plain);
    assert_eq!(ended.code, Some(22), "a 400: {}", ended.stderr);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
}

// The log of a port that strangers scan must not fill a disk.
#[test]
fn refused_headers_are_all_counted_and_logged_once_a_second() {
    let begin = now();
    let (service, [_, address]) = start(&[]);
    for _ in 0..50 {
        let mut client = Client::connect(address);
        client.send("GET / HTTP/1.1\r\n");
        assert_eq!(client.end(), End::Closed);
    }
    // A line is written after the connection is closed, and received a moment later.
    until_holds("a line in the log", || !complaints(&service).is_empty());
    let lines = complaints(&service);
    let seconds = begin.elapsed().as_secs() as usize;
    assert!(lines.len() <= seconds + 1, "in {seconds} s: {lines:#?}");
    assert!(lines[0].contains("PROXY header refused") && lines[0].contains("no PROXY header"));
    let page = service.probe("/metrics").body();
    assert!(page.contains("\nlameduck_proxy_headers_refused_total 50\n"), "{page}");
    // One more line, after a second, has the number of the others.
    block(Duration::from_millis(1_100));
    let mut client = Client::connect(address);
    client.send("GET / HTTP/1.1\r\n");
    assert_eq!(client.end(), End::Closed);
    let left_out = || {
        let lines = service.lines();
        let counts = lines.iter().filter_map(|line| line["suppressed"].as_u64());
        counts.sum::<u64>() + complaints(&service).len() as u64
    };
    until_holds("all refusals in the log", || left_out() == 51);
}

// The error named `--addr`, which was not set. A failed start names the setting that is wrong
// (P14).
#[test]
fn an_address_with_headers_on_which_the_service_cannot_listen_is_named_with_its_setting() {
    let path = scratch_path("twice.sock");
    let flag = format!("--proxy-protocol=unix:{}", path.display());
    let ended = run_to_end(command().args(["--internal-addr=127.0.0.1:0", &flag, &flag]));
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let error = ended.stderr.lines().find(|line| line.starts_with("error: ")).unwrap();
    assert!(error.contains("(--proxy-protocol, APP_PROXY_PROTOCOL): Address already"), "{error}");
    let _ = fs::remove_file(path);
}
