//! A real balancer in front of real processes: HAProxy or nginx, as packaged by the distribution.
//!
//! Each is started from a configuration written for the run, in its own directory, on a port that
//! the system chooses. It is never reloaded, so a failed request is the servers' fault. The
//! settings are fair and known to expose losses: the balancer retries only what a careful operator
//! would allow it to retry.
//!
//! | | HAProxy | nginx |
//! |---|---|---|
//! | notices a stop | the readiness every 100 ms, fall 1, rise 1 | by a failed connect |
//! | retries | never: `retries 0`, `no option redispatch` | `error timeout`, but no sent POST |
//! | keeps connections | `http-reuse always` | `keepalive 32` |
//! | waits for a connect | 5 s | 5 s: a dropped SYN is sent again after one second |

use crate::{
    process::{Output, Process},
    target::Url,
};
use rustix::process::Signal;
use std::{
    fs, io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The balancer program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HAProxy, with active checks.
    Haproxy,
    /// nginx, without active checks.
    Nginx,
}

impl Kind {
    /// Returns its name, which is also the name of its program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Returns the time after which it sends requests to a server that is ready again.
    #[must_use]
    pub const fn settling(self) -> Duration {
        match self {
            // Its next probe.
            Self::Haproxy => Duration::from_millis(400),
            // `fail_timeout`, after the last failed connect.
            Self::Nginx => Duration::from_millis(1200),
        }
    }

    /// Returns whether its program is installed.
    #[must_use]
    pub fn is_installed(self) -> bool {
        Command::new(self.name())
            .arg("-v")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok()
    }
}

/// One server of the balancer.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Address for requests.
    pub address: SocketAddr,
    /// What is probed: the readiness, or a path of the server itself.
    pub probe: Url,
}

/// A running balancer. Dropping it ends the process.
#[derive(Debug)]
pub struct Balancer {
    process: Process,
    /// Address that it listens on.
    pub address: SocketAddr,
    directory: PathBuf,
}

/// Another process may take the chosen port before the balancer binds it. Then another port is
/// tried.
const PORTS_TRIED_MAX: u32 = 5;
const START_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(5);

impl Balancer {
    /// Starts a balancer in front of these servers, and waits until it listens.
    ///
    /// # Errors
    /// If its program is not installed, refuses its configuration, or does not listen in time.
    pub fn start(kind: Kind, backends: &[Backend]) -> io::Result<Self> {
        let mut failed = io::Error::other("no port was tried");
        for attempt in 0..PORTS_TRIED_MAX {
            // A separate address, so that no client's local port is in the way.
            let address = TcpListener::bind("127.0.0.9:0")?.local_addr()?;
            let directory = std::env::temp_dir().join(format!(
                "lameduck-{}-{}-{}-{attempt}",
                kind.name(),
                std::process::id(),
                address.port()
            ));
            fs::create_dir_all(&directory)?;
            match Self::start_on(kind, address, directory, backends) {
                Ok(balancer) => return Ok(balancer),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn start_on(
        kind: Kind,
        address: SocketAddr,
        directory: PathBuf,
        backends: &[Backend],
    ) -> io::Result<Self> {
        let config = directory.join("conf");
        let mut command = Command::new(kind.name());
        match kind {
            Kind::Haproxy => {
                fs::write(&config, haproxy(address, backends))?;
                command.arg("-db").arg("-f").arg(&config);
            }
            Kind::Nginx => {
                fs::write(&config, nginx(address, &directory, backends))?;
                command
                    .arg("-e")
                    .arg(directory.join("error.log"))
                    .arg("-p")
                    .arg(&directory)
                    .arg("-c")
                    .arg(&config);
            }
        }
        let process = Process::start(command.stdin(Stdio::null()), Output::Kept)
            .inspect_err(|_| drop(fs::remove_dir_all(&directory)))?;
        let mut me = Self { process, address, directory };
        let end = now() + START_MAX;
        while TcpStream::connect(address).is_err() {
            if me.process.exit().is_some() || now() >= end {
                me.process.await_output();
                return Err(io::Error::other(format!(
                    "{} does not listen: {}",
                    kind.name(),
                    me.said()
                )));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(me)
    }

    /// Returns its output and its error log.
    #[must_use]
    pub fn said(&self) -> String {
        let log = fs::read_to_string(self.directory.join("error.log")).unwrap_or_default();
        self.process.output() + &log
    }
}

impl Drop for Balancer {
    /// Sends SIGTERM before SIGKILL, so that it can clean up.
    fn drop(&mut self) {
        let _ = self.process.signal(Signal::TERM);
        let _ = self.process.exit_until(now() + STOP_MAX);
        self.process.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn haproxy(address: SocketAddr, backends: &[Backend]) -> String {
    let probe = backends.first().map_or("/", |backend| backend.probe.path.as_str());
    let mut config = format!(
        "global
    maxconn 2000
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    timeout check 1s
    retries 0
    no option redispatch
    http-reuse always
frontend front
    bind {address}
    default_backend app
backend app
    balance roundrobin
    option httpchk
    http-check send meth GET uri {probe} ver HTTP/1.1 hdr host localhost
    http-check expect status 200
    default-server check inter 100ms fall 1 rise 1
"
    );
    for (n, backend) in backends.iter().enumerate() {
        config += &format!(
            "    server s{n} {} addr {} port {}\n",
            backend.address,
            backend.probe.address.ip(),
            backend.probe.address.port()
        );
    }
    config
}

fn nginx(address: SocketAddr, directory: &Path, backends: &[Backend]) -> String {
    let servers: String = backends
        .iter()
        .map(|backend| format!("        server {} fail_timeout=1s;\n", backend.address))
        .collect();
    let at = |name: &str| directory.join(name).display().to_string();
    format!(
        "daemon off;
worker_processes 1;
pid {pid};
error_log {error} warn;
events {{ worker_connections 2000; }}
http {{
    access_log off;
    client_body_temp_path {body};
    proxy_temp_path {proxy};
    fastcgi_temp_path {fastcgi};
    uwsgi_temp_path {uwsgi};
    scgi_temp_path {scgi};
    keepalive_requests 1000000;
    upstream app {{
{servers}        keepalive 32;
    }}
    server {{
        listen {address};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header connection \"\";
            proxy_connect_timeout 5s;
        }}
    }}
}}
",
        pid = at("pid"),
        error = at("error.log"),
        body = at("body"),
        proxy = at("proxy"),
        fastcgi = at("fastcgi"),
        uwsgi = at("uwsgi"),
        scgi = at("scgi"),
    )
}

fn now() -> Instant {
    Instant::now()
}
