//! The server under test: how it is started, reached and stopped.

use rustix::process::Signal;
use std::{net::SocketAddr, str::FromStr, time::Duration};

/// Everything that is known about the server.
#[derive(Clone, Debug)]
pub struct Target {
    /// Program and arguments, with `{port}` and `{port2}` not yet replaced.
    pub command: Vec<String>,
    /// Where it listens.
    pub listen: Listen,
    /// URL that responds 200 when the server is ready, with the same placeholders. Without it the
    /// server is ready when `path` responds 200.
    pub ready: Option<String>,
    /// URL that responds 200 for as long as the process runs, with the same placeholders.
    pub live: Option<String>,
    /// Whether it speaks TLS there. Then only the scenarios of TLS are played.
    pub tls: bool,
    /// How it is stopped.
    pub stop: Stop,
    /// Time from the start of a stop command until the server is asked to stop.
    pub stop_takes: Duration,
    /// Time from the stop until SIGKILL.
    pub grace: Duration,
    /// Longest wait for the start.
    pub start_max: Duration,
    /// How long a lame duck is expected to serve new connections.
    pub lame_duck: Duration,
    /// The routes to use.
    pub paths: Paths,
    /// What is expected.
    pub profile: Profile,
}

impl Target {
    /// Returns a server with a chosen port, `{port}` in its command, that SIGTERM stops within
    /// 30 s.
    #[must_use]
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            listen: Listen::Chosen { variables: Vec::new() },
            ready: None,
            live: None,
            tls: false,
            stop: Stop::Signal(Signal::TERM),
            stop_takes: Duration::ZERO,
            grace: Duration::from_secs(30),
            start_max: Duration::from_secs(20),
            lame_duck: Duration::from_millis(100),
            paths: Paths { plain: "/".to_owned(), ..Paths::default() },
            profile: Profile::Kubernetes,
        }
    }

    /// Returns the flags of URLs, and of a stop command, that are the same for each start: servers
    /// that run at the same time cannot be told apart by them.
    #[must_use]
    pub fn fixed(&self) -> Vec<&'static str> {
        let names = ["{port}", "{port2}"];
        let is_fixed = |url: &Option<String>| {
            url.as_ref().is_some_and(|url| !names.iter().any(|name| url.contains(name)))
        };
        let flags = [
            ("--ready", is_fixed(&self.ready)),
            ("--live", is_fixed(&self.live)),
            ("--stop", !self.stop.has_any(&names)),
        ];
        flags.into_iter().filter(|(_, is_fixed)| *is_fixed).map(|(flag, _)| flag).collect()
    }
}

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On this address, which is the server's own choice.
    At(SocketAddr),
    /// On a free port of 127.0.0.1 that is chosen for each start, and passed in these environment
    /// variables as well as in place of `{port}`.
    Chosen {
        /// Names of the environment variables.
        variables: Vec<String>,
    },
}

/// Routes of the server. `None` is a route that it does not have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// `GET` responds 200 at once.
    pub plain: String,
    /// `GET` responds 200 after `{ms}` milliseconds.
    pub slow: Option<String>,
    /// `POST` responds 200 with the request's body.
    pub echo: Option<String>,
    /// `GET` responds 200 with a body that is sent in parts for `{ms}` milliseconds.
    pub stream: Option<String>,
    /// `GET` responds 200 with a body of `{n}` bytes.
    pub big: Option<String>,
    /// `GET` with an upgrade to WebSocket responds 101.
    pub upgrade: Option<String>,
}

/// How the stop is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// By this signal to the process.
    Signal(Signal),
    /// By a POST request to this URL.
    Post(String),
    /// By a shell command, in which `{pid}`, `{port}` and `{port2}` are replaced.
    Command(String),
}

/// Signals that stop some server: nginx stops gracefully by SIGQUIT, HAProxy by SIGUSR1, Apache by
/// SIGWINCH.
const SIGNALS: [(&str, Signal); 7] = [
    ("SIGTERM", Signal::TERM),
    ("SIGINT", Signal::INT),
    ("SIGQUIT", Signal::QUIT),
    ("SIGHUP", Signal::HUP),
    ("SIGUSR1", Signal::USR1),
    ("SIGUSR2", Signal::USR2),
    ("SIGWINCH", Signal::WINCH),
];

impl Stop {
    /// Returns the name for pictures and reports.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Signal(signal) => {
                SIGNALS.iter().find(|(_, known)| known == signal).map_or("signal", |(name, _)| name)
            }
            Self::Post(_) => "POST",
            Self::Command(_) => "stop command",
        }
    }

    /// Returns whether it is of one server: a signal, a text with one of these names, or a command
    /// with `{pid}`, which is replaced in no URL.
    #[must_use]
    pub fn has_any(&self, names: &[&str]) -> bool {
        let has = |text: &str| names.iter().any(|name| text.contains(name));
        match self {
            Self::Signal(_) => true,
            Self::Post(url) => has(url),
            Self::Command(command) => has(command) || command.contains("{pid}"),
        }
    }
}

impl FromStr for Stop {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_name = |name: &str| text == name || name.strip_prefix("SIG") == Some(text);
        if let Some((_, signal)) = SIGNALS.iter().find(|(name, _)| is_name(name)) {
            return Ok(Self::Signal(*signal));
        }
        if let Some(command) = text.strip_prefix("cmd:").filter(|command| !command.is_empty()) {
            return Ok(Self::Command(command.to_owned()));
        }
        if let Some(url) = text.strip_prefix("http:POST:") {
            let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
            url.replace("{port}", "1").replace("{port2}", "1").parse::<Url>()?;
            return Ok(Self::Post(url));
        }
        Err("expected TERM, INT, QUIT, HUP, USR1, USR2, WINCH, http:POST:URL or cmd:COMMAND"
            .to_owned())
    }
}

/// What the surroundings of the server need from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// Endpoints are withdrawn while the server stops: it must serve new connections for a while.
    Kubernetes,
    /// A proxy probes the server and keeps connections to it. The grades are those of
    /// `kubernetes`.
    Proxy,
    /// Clients connect directly, and nothing announces the stop: refused connections are expected.
    Bare,
}

impl Profile {
    /// Returns the name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Proxy => "proxy",
            Self::Bare => "bare",
        }
    }
}

/// A URL with an IP address, a port and a path. Names are not resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// The address to connect to.
    pub address: SocketAddr,
    /// The request target.
    pub path: String,
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a URL like http://127.0.0.1:8081/readiness");
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let authority = authority.replace("localhost", "127.0.0.1");
        let with_port_80 = |_| format!("{authority}:80").parse();
        let address = authority.parse().or_else(with_port_80).map_err(|_| wrong())?;
        Ok(Self { address, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::{Stop, Url};
    use rustix::process::Signal;

    #[test]
    fn a_stop_is_a_signal_a_request_or_a_command() {
        let post = Stop::Post("http://127.0.0.1:8081/stop".to_owned());
        assert_eq!("http:POST:127.0.0.1:8081/stop".parse(), Ok(post.clone()));
        assert_eq!("http:POST:http://127.0.0.1:8081/stop".parse(), Ok(post));
        assert_eq!("cmd:kill {pid}".parse(), Ok(Stop::Command("kill {pid}".to_owned())));
        assert_eq!("USR1".parse(), Ok(Stop::Signal(Signal::USR1)));
        assert_eq!("SIGWINCH".parse::<Stop>().unwrap().name(), "SIGWINCH");
        // A stop URL with https is refused here, and not by each scenario.
        for wrong in ["", "SIG", "KILL", "cmd:", "TERM ", "http:POST:https://127.0.0.1/stop"] {
            assert!(wrong.parse::<Stop>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_url_has_an_address() {
        let url: Url = "http://localhost:8081/a?b=c".parse().unwrap();
        assert_eq!((url.address.port(), url.path.as_str()), (8081, "/a?b=c"));
        assert_eq!("http://127.0.0.1".parse::<Url>().unwrap().path, "/");
        // An IPv6 address without a port was no URL.
        for (text, address) in [("http://[::1]/x", "[::1]:80"), ("http://[::1]:81/x", "[::1]:81")] {
            assert_eq!(text.parse::<Url>().unwrap().address.to_string(), address);
        }
        for wrong in ["127.0.0.1:80", "https://127.0.0.1/", "http://example.org/", "http://"] {
            assert!(wrong.parse::<Url>().unwrap_err().contains("not a URL"), "{wrong}");
        }
    }
}
