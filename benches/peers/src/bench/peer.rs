//! The servers that are measured, and how each is started.

use crate::{Result, identity};
use std::{env, fs, net::SocketAddr, path::PathBuf, process::Command};

/// A server of the comparison.
#[derive(Debug)]
pub struct Peer {
    pub name: &'static str,
    kind: Kind,
    pub speaks: Speaks,
    /// Whether it finishes requests in progress after a stop signal.
    pub drains: bool,
    pub http2: bool,
    /// Whether it closes connections without a byte at the stop. nginx waits for its header
    /// timeout, 60 s.
    pub closes_byteless: bool,
}

/// What its clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Http,
    /// HTTP through TLS.
    Tls,
    Grpc,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A binary of this package.
    Ours,
    /// The nginx of the system.
    Nginx,
    /// `go/main.go`, built by the bench.
    Go,
}

/// All servers, in the order of the table.
pub const PEERS: [Peer; 15] = [
    Peer { name: "lameduck", ..OURS },
    Peer { name: "bare", drains: false, ..OURS },
    Peer { name: "lameduck_axum", ..OURS },
    Peer { name: "axum", ..OURS },
    Peer { name: "graceful", ..OURS },
    Peer { name: "actix", ..OURS },
    Peer { name: "nginx", kind: Kind::Nginx, closes_byteless: false, ..OURS },
    Peer { name: "go", kind: Kind::Go, ..OURS },
    Peer { name: "floor", drains: false, http2: false, ..OURS },
    Peer { name: "lameduck_tokio", ..OURS },
    Peer { name: "lameduck_tls", speaks: Speaks::Tls, ..OURS },
    Peer { name: "bare_tls", speaks: Speaks::Tls, drains: false, ..OURS },
    Peer {
        name: "nginx_tls",
        kind: Kind::Nginx,
        speaks: Speaks::Tls,
        closes_byteless: false,
        ..OURS
    },
    Peer { name: "lameduck_grpc", speaks: Speaks::Grpc, ..OURS },
    Peer { name: "tonic_grpc", speaks: Speaks::Grpc, ..OURS },
];

const OURS: Peer = Peer {
    name: "",
    kind: Kind::Ours,
    speaks: Speaks::Http,
    drains: true,
    http2: true,
    closes_byteless: true,
};

const NGINX: &str = "/usr/sbin/nginx";

impl Peer {
    /// Returns the server with this name.
    pub fn named(name: &str) -> Result<&'static Self> {
        PEERS
            .iter()
            .find(|peer| peer.name == name)
            .ok_or_else(|| format!("no such server: {name}").into())
    }

    /// Returns whether it is one of the servers that keep this crate's promises.
    pub fn is_lameduck(&self) -> bool {
        self.name.starts_with("lameduck")
    }

    /// Returns why it cannot be measured here, or `None` if it can. Builds the Go program.
    pub fn missing(&self) -> Option<String> {
        match self.kind {
            Kind::Ours => (!self.binary().ok()?.exists())
                .then(|| "it is not built: `cargo build --release` does it".to_owned()),
            Kind::Nginx => (!self.binary().ok()?.exists())
                .then(|| "it is not installed: Debian's package `nginx-core`".to_owned()),
            Kind::Go => self
                .build_go()
                .err()
                .map(|error| format!("go is not installed, or cannot build it: {error}")),
        }
    }

    pub fn binary(&self) -> Result<PathBuf> {
        Ok(match self.kind {
            Kind::Ours | Kind::Go => env::current_exe()?.with_file_name(self.name),
            Kind::Nginx => PathBuf::from(NGINX),
        })
    }

    /// Returns the command that runs it under `wrapper`, which may be empty.
    pub fn command(&self, wrapper: &[String], address: SocketAddr, http2: bool) -> Result<Command> {
        let mut words = wrapper.to_vec();
        words.push(self.binary()?.display().to_string());
        match self.kind {
            Kind::Ours | Kind::Go => words.push(address.to_string()),
            Kind::Nginx => words.extend([
                "-c".to_owned(),
                self.nginx_config(address, http2)?.display().to_string(),
            ]),
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        if http2 {
            command.env("PEER_HTTP2", "1");
        }
        if self.speaks == Speaks::Tls {
            let [certificate, key] = &identity::get()?.files;
            command.env("APP_TLS_CERT", certificate).env("APP_TLS_KEY", key);
        }
        Ok(command)
    }

    /// Returns the signal that requests a graceful stop.
    pub const fn stop_signal(&self) -> rustix::process::Signal {
        match self.kind {
            Kind::Ours | Kind::Go => rustix::process::Signal::TERM,
            Kind::Nginx => rustix::process::Signal::QUIT,
        }
    }

    fn nginx_config(&self, address: SocketAddr, http2: bool) -> Result<PathBuf> {
        let directory = nginx_directory();
        fs::create_dir_all(&directory)?;
        let (listen, tls) = match self.speaks {
            Speaks::Tls => {
                let [certificate, key] = &identity::get()?.files;
                let (certificate, key) = (certificate.display(), key.display());
                (
                    format!("{address} ssl"),
                    format!("ssl_certificate {certificate}; ssl_certificate_key {key};"),
                )
            }
            Speaks::Http | Speaks::Grpc if http2 => (format!("{address} http2"), String::new()),
            Speaks::Http | Speaks::Grpc => (address.to_string(), String::new()),
        };
        let text = include_str!("../../nginx.conf");
        let text =
            text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
        let text = text.replace("LISTEN", &listen).replace("TLS", &tls);
        let path = directory.join("nginx.conf");
        fs::write(&path, text.replace("DIRECTORY", &directory.display().to_string()))?;
        Ok(path)
    }

    fn build_go(&self) -> Result<()> {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/go");
        let built = Command::new("go")
            .args(["build", "-o"])
            .arg(self.binary()?)
            .arg(".")
            .current_dir(source)
            .output()?;
        if built.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&built.stderr).into_owned().into())
        }
    }
}

/// Removes the temporary files of the servers.
pub fn clean_up() {
    // There are none if nginx was not measured.
    let _ = fs::remove_dir_all(nginx_directory());
    identity::clean_up();
}

fn nginx_directory() -> PathBuf {
    env::temp_dir().join(format!("lameduck-bench-nginx-{}", std::process::id()))
}
