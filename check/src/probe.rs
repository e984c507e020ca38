//! Finds out what a server can do, so that scenarios are skipped that cannot apply to it.

use crate::{
    scenario::{Need, Scenario},
    server::Server,
    target::{Listen, Stop, Target},
    tls,
    trial::route,
};
use lameduck_wire::{
    End,
    http1::{Client, Response},
    http2,
};
use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const MAX_WAIT: Duration = Duration::from_secs(5);
/// A shorter wait, for protocols that a server may not speak.
const HTTP2_PATIENCE: Duration = Duration::from_secs(1);

/// What the scenarios may use.
#[derive(Clone, Debug, Default)]
pub struct Abilities {
    present: BTreeSet<Need>,
}

impl Abilities {
    /// Returns the first need of a scenario that is missing.
    #[must_use]
    pub fn missing(&self, scenario: &Scenario) -> Option<Need> {
        scenario.all_needs().find(|need| !self.present.contains(need))
    }
}

/// A route that is tried: as it was given, or by its conventional path.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its path, with the placeholder.
    pub path: String,
    /// Whether it was given on the command line. Then the server must have it.
    pub is_given: bool,
}

/// The routes to try.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "named as the flags")]
pub struct Routes {
    pub slow: Option<Route>,
    pub echo: Option<Route>,
    pub stream: Option<Route>,
    pub big: Option<Route>,
    pub upgrade: Option<Route>,
}

/// Starts the server once, and tries what it has. Fills in the routes of the target.
///
/// # Errors
/// If the server does not start or does not stay in the foreground, its path does not respond 200,
/// or it does not have a route that was given.
pub fn examine(target: &mut Target, routes: &Routes) -> Result<Abilities, String> {
    let mut server = Server::start(target)?;
    let abilities = examine_started(&server, target, routes)?;
    server.expect_running()?;
    Ok(abilities)
}

fn examine_started(
    server: &Server,
    target: &mut Target,
    routes: &Routes,
) -> Result<Abilities, String> {
    let mut probe = Probe { server, present: BTreeSet::new() };
    if target.tls {
        let paths = &mut target.paths;
        probe.over_tls(&paths.plain)?;
        paths.stream =
            probe.route(&routes.stream, "--stream", Need::Stream, Probe::streams_over_tls)?;
        let present = [Need::Tls, Need::StopSignal];
        let is_signal = matches!(target.stop, Stop::Signal(_));
        probe.present.extend(present.into_iter().take(if is_signal { 2 } else { 1 }));
        return Ok(Abilities { present: probe.present });
    }
    probe.present.insert(Need::PlainText);
    probe.plain(&target.paths.plain)?;
    let paths = &mut target.paths;
    paths.slow = probe.route(&routes.slow, "--slow", Need::Slow, Probe::is_slow)?;
    paths.echo = probe.route(&routes.echo, "--echo", Need::Echo, Probe::is_echo)?;
    paths.stream = probe.route(&routes.stream, "--stream", Need::Stream, Probe::is_stream)?;
    paths.big = probe.route(&routes.big, "--big", Need::Big, Probe::is_big)?;
    paths.upgrade = probe.route(&routes.upgrade, "--ws", Need::Upgrade, Probe::is_upgrade)?;
    if probe.speaks_http2(&paths.plain) {
        probe.present.insert(Need::Http2);
    }
    let mut present = probe.present;
    if target.ready.is_some() {
        present.insert(Need::Ready);
    }
    if target.live.is_some() {
        present.insert(Need::Live);
    }
    if matches!(target.stop, Stop::Signal(_)) {
        present.insert(Need::StopSignal);
    }
    if matches!(target.listen, Listen::Chosen { .. }) {
        present.insert(Need::ChosenPort);
    }
    if Path::new("/proc/self/fd").exists() {
        present.insert(Need::LogPipe);
    }
    if cfg!(target_os = "linux") {
        present.insert(Need::Limits);
    }
    if unshare().is_some() {
        present.insert(Need::PidNamespace);
    }
    Ok(Abilities { present })
}

/// Returns a command that runs another one as PID 1 of a new namespace, or `None` if this user may
/// not create one. It creates a user namespace only where the PID namespace requires one, because
/// servers cannot change their user in it.
#[must_use]
pub fn unshare() -> Option<Command> {
    let works = |options: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(options).args(["true"]).stdin(Stdio::null());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let alone: &[&str] = &["--pid", "--fork", "--kill-child"];
    let as_user = [&["--user", "--map-current-user"], alone].concat();
    let options = [alone, &as_user].into_iter().find(|options| works(options))?;
    let mut command = Command::new("unshare");
    command.args(options);
    Some(command)
}

struct Probe<'a> {
    server: &'a Server,
    present: BTreeSet<Need>,
}

impl Probe<'_> {
    fn client(&self) -> Result<Client, String> {
        let mut client = Client::connect(self.server.address, MAX_WAIT)
            .map_err(|error| format!("cannot connect to {}: {error}", self.server.address))?;
        client.set_deadline(Instant::now() + MAX_WAIT);
        Ok(client)
    }

    fn request(&self, bytes: &str) -> Result<Response, String> {
        let mut client = self.client()?;
        let _ = client.send(bytes);
        client.response().map_err(|end| end.to_string())
    }

    fn get(&self, path: &str) -> Result<Response, String> {
        self.request(&format!(
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        ))
    }

    fn plain(&mut self, path: &str) -> Result<(), String> {
        let mut client = self.client()?;
        let first = client
            .request(path)
            .map_err(|end| format!("--path: GET {path} has no response: {end}"))?;
        if first.status != 200 {
            return Err(format!("--path: GET {path} responded {}, expected 200", first.status));
        }
        if !first.says_close() && client.request(path).is_ok() {
            self.present.insert(Need::KeepAlive);
        }
        Ok(())
    }

    /// Returns the path if the server has the route.
    fn route(
        &mut self,
        route: &Option<Route>,
        flag: &str,
        need: Need,
        has: impl Fn(&Self, &str) -> Result<(), String>,
    ) -> Result<Option<String>, String> {
        let Some(route) = route else { return Ok(None) };
        match has(self, &route.path) {
            Ok(()) => {
                self.present.insert(need);
                Ok(Some(route.path.clone()))
            }
            Err(why) if route.is_given => Err(format!("{flag} {}: {why}", route.path)),
            Err(_) => Ok(None),
        }
    }

    fn is_slow(&self, path: &str) -> Result<(), String> {
        let time = |ms| {
            let begin = Instant::now();
            is_200(&self.get(&route(path, ms))?)?;
            Ok(begin.elapsed())
        };
        follows_its_time(300, time)
    }

    fn is_echo(&self, path: &str) -> Result<(), String> {
        let body = "lameduck-check";
        let response = self.request(&format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))?;
        is_200(&response)?;
        if response.bytes != body.as_bytes() {
            return Err("the response does not have the request's body".to_owned());
        }
        Ok(())
    }

    fn is_stream(&self, path: &str) -> Result<(), String> {
        let time = |ms| {
            let mut client = self.client()?;
            let _ = client.send(format!(
                "GET {} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
                route(path, ms)
            ));
            let head = client.head().map_err(|end| end.to_string())?;
            is_200(&head)?;
            let begin = Instant::now();
            client.body(&head).map_err(|end| end.to_string())?;
            Ok(begin.elapsed())
        };
        follows_its_time(500, time)
    }

    fn is_big(&self, path: &str) -> Result<(), String> {
        let response = self.get(&route(path, 100_000))?;
        is_200(&response)?;
        if response.bytes.len() != 100_000 {
            let length = response.bytes.len();
            return Err(format!("the body has {length} bytes, although 100000 were requested"));
        }
        Ok(())
    }

    fn is_upgrade(&self, path: &str) -> Result<(), String> {
        let mut client = self.client()?;
        let _ = client.send(upgrade_request(path));
        let head = client.head().map_err(|end| end.to_string())?;
        (head.status == 101).then_some(()).ok_or(format!("responded {}, expected 101", head.status))
    }

    fn over_tls(&self, path: &str) -> Result<(), String> {
        match tls::status_of(self.server.address, &route(path, 100), MAX_WAIT) {
            Ok(200) => Ok(()),
            Ok(status) => Err(format!("GET {path} responded {status} over TLS, expected 200")),
            Err(error) => Err(none_over_tls(path, error)),
        }
    }

    fn streams_over_tls(&self, path: &str) -> Result<(), String> {
        let time = |ms| {
            let timed = tls::timed_body(self.server.address, &route(path, ms), MAX_WAIT);
            let (response, took) = timed.map_err(|error| none_over_tls(path, error))?;
            is_200(&response)?;
            Ok(took)
        };
        follows_its_time(500, time)
    }

    fn speaks_http2(&self, path: &str) -> bool {
        let request = || -> Result<(), End> {
            let failed = |_| End::Malformed;
            let mut client =
                http2::Client::connect(self.server.address, HTTP2_PATIENCE).map_err(failed)?;
            client.connection().set_deadline(Instant::now() + MAX_WAIT);
            client.read_everything().map_err(failed)?;
            let first = client.next_frame()?;
            if first.kind != http2::SETTINGS {
                return Err(End::Malformed);
            }
            let stream = client.request("GET", "localhost", path).map_err(failed)?;
            client.find(|frame| frame.stream == stream && frame.ends_stream())?;
            (client.status(stream) == Some(200)).then_some(()).ok_or(End::Malformed)
        };
        request().is_ok()
    }
}

/// Returns a request for an upgrade to WebSocket.
#[must_use]
pub fn upgrade_request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

fn none_over_tls(path: &str, error: Option<String>) -> String {
    let error = error.unwrap_or_else(|| "the connection was refused".to_owned());
    format!("GET {path} has no response over TLS: {error}")
}

/// Difference of the times that shows that a route follows its parameter.
const DIFFERENCE_MIN: Duration = Duration::from_millis(150);

/// Checks that a route takes about `ms` longer for `ms` milliseconds than for one. A server that
/// responds to every path in the same way does not have the route.
fn follows_its_time(ms: u64, time: impl Fn(u64) -> Result<Duration, String>) -> Result<(), String> {
    // The long one first: the first request of a route may take longer than the others.
    let (long, short) = (time(ms)?, time(1)?);
    let difference = long.saturating_sub(short);
    let why = || format!("it took {long:?} for {ms} ms, and {short:?} for 1 ms");
    (difference >= DIFFERENCE_MIN).then_some(()).ok_or_else(why)
}

fn is_200(response: &Response) -> Result<(), String> {
    (response.status == 200)
        .then_some(())
        .ok_or_else(|| format!("responded {}, expected 200", response.status))
}
