//! P1, P5d, P7, P14: the binary speaks TLS, as clients of other families see it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    MAX_WAIT, Service, now, run_to_end, scratch_path,
    service::{ANYWHERE, command},
    settings, until_holds,
};
use axum::Router;
use lameduck::Host;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::Signal;
use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

/// The files of a certificate for `localhost` and its key.
pub(crate) struct Files {
    folder: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    pub(crate) fn new(name: &str) -> Self {
        let folder = scratch_path(name);
        fs::create_dir(&folder).unwrap();
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let pair = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        fs::write(&certificate, params.self_signed(&pair).unwrap().pem()).unwrap();
        fs::write(&key, pair.serialize_pem()).unwrap();
        Self { folder, certificate, key }
    }

    pub(crate) fn flags(&self) -> [String; 2] {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        [format!("--tls-cert={certificate}"), format!("--tls-key={key}")]
    }

    /// Creates a file that cannot be read: a pipe to which nothing writes.
    pub(crate) fn pipe(&self) -> PathBuf {
        let pipe = self.folder.join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        pipe
    }

    fn start(&self, flags: &[&str]) -> Service {
        let [certificate, key] = &self.flags();
        Service::start(&[&[certificate.as_str(), key.as_str()], flags].concat())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn piped(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn curl_gets_a_response_on_both_protocols() {
    let files = Files::new("curl");
    let mut service = files.start(&[]);
    let port = service.main.port();
    for (protocol, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let mut curl = piped("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", protocol, "--cacert"])
            .arg(&files.certificate)
            .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
            .args(["--write-out", "%{http_version}"])
            .arg(format!("https://localhost:{port}/"));
        let ended = run_to_end(&mut curl);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(ended.stdout, format!("hello world{version}"));
    }
    let page = service.probe("/metrics").body();
    assert!(page.contains("lameduck_tls_handshakes_total{outcome=\"completed\"} 2"), "{page}");
    assert!(page.contains("lameduck_tls_certificate_expiry_timestamp_seconds 67"), "{page}");
    let page = service.probe("/").body();
    assert!(page.contains("TLS certificate") && page.contains("It expires in <b>"), "{page}");
    let certificate = &service.status()["certificate"];
    assert!(certificate["expires_in_ms"].as_u64().is_some_and(|ms| ms > 0), "{certificate}");
    assert!(certificate["last_reload_ms_ago"].is_null(), "{certificate}");
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
}

/// Sends a GET request by openssl, and returns the TLS messages of the whole connection.
fn messages(address: SocketAddr, files: &Files, path: &str) -> std::thread::JoinHandle<String> {
    let mut openssl = piped("openssl");
    openssl
        .args(["s_client", "-msg", "-ign_eof", "-servername", "localhost", "-connect"])
        .arg(address.to_string())
        .arg("-CAfile")
        .arg(&files.certificate);
    let mut child = openssl.spawn().unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    child.stdin.take().unwrap().write_all(request.as_bytes()).unwrap();
    crate::support::aside(move || {
        String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
    })
}

/// What openssl prints of a close_notify from the server.
const CLOSE_NOTIFY: &str = "Alert [length 0002], warning close_notify";

fn has_close_notify(messages: &str) -> bool {
    messages.lines().any(|line| line.starts_with("<<<") && line.contains(CLOSE_NOTIFY))
}

#[test]
fn openssl_sees_a_close_notify_at_a_clean_end_and_none_at_a_cut() {
    let files = Files::new("openssl");
    let mut service = files.start(&["--lame-duck=0s", "--drain=200ms", "--cancel=500ms"]);
    let clean = messages(service.main, &files, "/").join().unwrap();
    assert!(clean.contains("hello world"), "{clean}");
    assert!(has_close_notify(&clean), "{clean}");
    let cut = messages(service.main, &files, "/stuck?ms=60000&head=1&chunked=1");
    service.wait_for_in_flight(1);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 3);
    let cut = cut.join().unwrap();
    assert!(cut.contains("stuck ha"), "{cut}");
    assert!(!has_close_notify(&cut), "{cut}");
}

#[test]
fn one_flag_alone_is_bad_usage_and_a_missing_file_a_failed_start() {
    let files = Files::new("usage");
    let [certificate, key] = files.flags();
    for (flags, code, expected) in [
        (
            vec![certificate.as_str()],
            2,
            "a certificate needs its key: set tls_key, too \
             (--tls-cert, --tls-key, APP_TLS_CERT, APP_TLS_KEY)",
        ),
        (vec![key.as_str()], 2, "a key needs its certificate"),
        (
            vec!["--tls-cert=/nowhere/a.pem", key.as_str()],
            1,
            "cannot speak TLS (--tls-cert, --tls-key, APP_TLS_CERT, APP_TLS_KEY): \
             cannot read /nowhere/a.pem: No such file",
        ),
    ] {
        let ended = run_to_end(command().args(ANYWHERE).args(&flags));
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{flags:?}: {}", ended.stderr);
        assert!(ended.took < MAX_WAIT);
    }
}

/// Flags for a certificate that cannot be read.
fn unreadable(files: &Files) -> [String; 2] {
    [format!("--tls-cert={}", files.pipe().display()), files.flags()[1].clone()]
}

// The files were read on the thread that handles signals. A pipe without a writer, or a file system
// that hangs, stopped the start for ever, without a line, and SIGTERM had no effect. The start is
// bounded (P7), and its failure loud (P14).
#[test]
fn a_certificate_that_cannot_be_read_ends_the_start_at_its_limit() {
    let files = Files::new("pipe-limit");
    let ended =
        run_to_end(command().args(ANYWHERE).args(unreadable(&files)).args(["--start=300ms"]));
    assert_eq!((ended.code, ended.stderr.trim_end().lines().count()), (Some(1), 1), "{ended:?}");
    for word in ["error: cannot speak TLS (--tls-cert", "pipe", "plan.start=300ms (--start"] {
        assert!(ended.stderr.contains(word), "no {word:?} in {}", ended.stderr);
    }
}

// The same start: a stop that is requested before Serving ends the process at once (P1).
#[test]
fn a_stop_ends_a_start_that_cannot_read_its_certificate() {
    let files = Files::new("pipe-stop");
    let mut service = Service::launch(command().args(ANYWHERE).args(unreadable(&files)));
    let threads = format!("/proc/{}/task", service.pid().as_raw_nonzero());
    until_holds("the thread that reads", || {
        let names = fs::read_dir(&threads).into_iter().flatten().flatten();
        names
            .map(|thread| fs::read_to_string(thread.path().join("comm")).unwrap_or_default())
            .any(|name| name.trim_end() == "lameduck-certif")
    });
    let asked = now();
    service.signal(Signal::TERM);
    let (code, took) = service.exit_code_since(asked);
    assert!(code == 0 && took < Duration::from_secs(5), "{code} after {took:?}");
    let report = service.wait_for_line("report");
    assert_eq!((&report["reason"], &report["verdict"]), (&"SIGTERM".into(), &"clean".into()));
}

/// The path of the certificate of the service under test, which reloads by SIGHUP.
const CERTIFICATE: &str = "LAMEDUCK_TEST_CERTIFICATE";

/// The process under test. Does nothing without a certificate; with one it does not return.
#[test]
fn victim() {
    let Some(certificate) = std::env::var_os(CERTIFICATE) else { return };
    tracing_subscriber::fmt().json().with_writer(io::stderr).init();
    lameduck::run(|| {
        nix::sys::signal::raise(nix::sys::signal::SIGHUP)?;
        let settings = settings().tls_files(&certificate, &certificate);
        let builder = Host::builder(settings).on_reload(|| std::future::ready(io::Result::Ok(())));
        Ok(builder.serve(Router::new()))
    })
}

// An operator reloaded a service that could not read its certificate. The line was `signal
// ignored`, as for a signal that is not among `--stop-signals`.
#[test]
fn a_reload_while_the_certificate_is_read_is_logged_as_one() {
    let files = Files::new("pipe-reload");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "tls::victim", "--nocapture"]).env(CERTIFICATE, files.pipe());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut service = Service::launch(&mut command);
    let line = service.wait_for_line("ignored");
    assert_eq!(line["fields"]["message"], "reload ignored: the process does not serve");
    assert_eq!(line["fields"]["phase"], "starting");
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
}
