//! How the server is started, reached and stopped: the flags that all commands share.

use crate::{
    probe::{Route, Routes, examine},
    target::{Listen, Stop, Target, Url},
};
use clap::Args;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses a time of at most a day.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    (time <= DAY).then_some(time).ok_or_else(|| "expected a time of at most 1day".to_owned())
}

/// How the server is started, reached and stopped.
#[derive(Debug, Args)]
pub(super) struct ServerArgs {
    /// Address on which the server listens, if it cannot be chosen; one server runs at a time
    /// [default: 127.0.0.1:8080]
    #[arg(long, conflicts_with = "port_env")]
    addr: Option<SocketAddr>,
    /// Environment variable with the port of the server; may be repeated. `{port}` in the
    /// command does the same
    #[arg(long, value_name = "NAME")]
    port_env: Vec<String>,
    /// URL that responds 200 when the server is ready; without it the server is ready when --path
    /// responds 200
    #[arg(long, value_name = "URL")]
    ready: Option<String>,
    /// URL that responds 200 for as long as the process runs
    #[arg(long, value_name = "URL")]
    live: Option<String>,
    /// The server speaks TLS, with any certificate: the scenarios of the family `tls` are tried,
    /// and no others
    #[arg(long)]
    pub(super) tls: bool,
    /// How the stop is requested: TERM, INT, QUIT, HUP, USR1, USR2, WINCH, http:POST:URL or
    /// cmd:'COMMAND'
    #[arg(long, default_value = "TERM")]
    stop: Stop,
    /// Time from the stop to SIGKILL; a server that still runs then has failed
    #[arg(long, default_value = "30s", value_parser = parse_time)]
    grace: Duration,
    /// Longest wait for the start
    #[arg(long, default_value = "20s", value_parser = parse_time)]
    start: Duration,
    /// Path whose GET responds 200 at once
    #[arg(long, default_value = "/")]
    path: String,
    /// Path that responds 200 after {ms} milliseconds [default: '/slow?ms={ms}' if it is there]
    #[arg(long, value_name = "PATH")]
    slow: Option<String>,
    /// Path that responds to a POST with its body [default: /echo if it is there]
    #[arg(long, value_name = "PATH")]
    echo: Option<String>,
    /// Path that sends a body in parts for {ms} milliseconds [default: '/stream?ms={ms}' if it is
    /// there]
    #[arg(long, value_name = "PATH")]
    stream: Option<String>,
    /// Path that sends a body of {n} bytes [default: '/big?bytes={n}' if it is there]
    #[arg(long, value_name = "PATH")]
    big: Option<String>,
    /// Path that upgrades to WebSocket [default: /ws if it is there]
    #[arg(long, value_name = "PATH")]
    ws: Option<String>,
    /// The server and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

impl ServerArgs {
    pub(super) fn target(&self) -> Result<Target, String> {
        if self.command.is_empty() {
            return Err("no server: its command follows `--`".to_owned());
        }
        let has_port = self.command.iter().any(|word| word.contains("{port}"));
        let listen = if has_port || !self.port_env.is_empty() {
            Listen::Chosen { variables: self.port_env.clone() }
        } else {
            Listen::At(self.addr.unwrap_or(ADDRESS))
        };
        if let (true, Some(addr)) = (has_port, self.addr) {
            return Err(format!("--addr {addr}: {{port}} in the command is a port that is chosen"));
        }
        self.expect_routes_of_tls()?;
        if !self.path.starts_with('/') {
            return Err(format!("--path {}: a path begins with a slash", self.path));
        }
        for (flag, url) in [("--ready", &self.ready), ("--live", &self.live)] {
            let Some(url) = url else { continue };
            let filled = url.replace("{port}", "1").replace("{port2}", "1");
            filled.parse::<Url>().map_err(|error| format!("{flag}: {error}"))?;
        }
        if self.grace.is_zero() {
            return Err("--grace 0s: expected a time from 1ms on".to_owned());
        }
        let mut target = Target::new(self.command.clone());
        target.listen = listen;
        (target.ready, target.live) = (self.ready.clone(), self.live.clone());
        target.tls = self.tls;
        target.stop = self.stop.clone();
        (target.grace, target.start_max) = (self.grace, self.start);
        target.paths.plain = self.path.clone();
        Ok(target)
    }

    /// Checks that there is time for what scenarios do in the lame duck delay, and after it.
    pub(super) fn expect_lame_duck(&self, lame_duck: Duration) -> Result<(), String> {
        let time = humantime::format_duration;
        if lame_duck.is_zero() {
            return Err("--lame-duck 0s: expected a time from 1ms on; a server that closes its \
                        listener at the stop has --profile bare"
                .to_owned());
        }
        if lame_duck < self.grace {
            return Ok(());
        }
        let (lame_duck, grace) = (time(lame_duck), time(self.grace));
        Err(format!("--lame-duck {lame_duck}: expected less than --grace {grace}"))
    }

    /// Checks that no route is given which the scenarios of TLS do not use.
    fn expect_routes_of_tls(&self) -> Result<(), String> {
        let unused = [
            ("--slow", &self.slow),
            ("--echo", &self.echo),
            ("--big", &self.big),
            ("--ws", &self.ws),
            ("--live", &self.live),
        ];
        match unused.into_iter().find(|(_, path)| self.tls && path.is_some()) {
            Some((flag, _)) => Err(format!("{flag}: the scenarios of --tls do not use it")),
            None => Ok(()),
        }
    }

    /// Returns the target of a server that gets a held socket, and is not started before. So its
    /// routes cannot be tried: the one that the load uses is there if it was given.
    pub(super) fn trusted(&self) -> Result<Target, String> {
        if let Some(addr) = self.addr {
            return Err(format!("--addr {addr}: the port of a held socket is chosen"));
        }
        let mut target = self.target()?;
        target.paths.slow.clone_from(&self.slow);
        Ok(target)
    }

    /// Checks that the server does not speak TLS, and that nothing is given which the load of a
    /// command does not use: no liveness, and no routes but `--slow` and the `used` ones.
    ///
    /// # Errors
    /// Names the flag.
    pub(super) fn expect_load(&self, command: &str, used: &[&str]) -> Result<(), String> {
        if self.tls {
            return Err(format!(
                "--tls: the clients of `{command}` speak no TLS; only `run` has it"
            ));
        }
        let flags = [
            ("--live", &self.live),
            ("--echo", &self.echo),
            ("--stream", &self.stream),
            ("--big", &self.big),
            ("--ws", &self.ws),
        ];
        let is_unused =
            |flag: &str, value: &Option<String>| value.is_some() && !used.contains(&flag);
        match flags.into_iter().find(|(flag, value)| is_unused(flag, value)) {
            Some((flag, _)) => Err(format!("{flag}: the load of `{command}` does not use it")),
            None => Ok(()),
        }
    }

    /// Returns the target with the routes that the server has.
    pub(super) fn examined(&self) -> Result<Target, String> {
        let mut target = self.target()?;
        examine(&mut target, &self.routes())?;
        Ok(target)
    }

    pub(super) fn routes(&self) -> Routes {
        let route = |given: &Option<String>, conventional: &str| {
            let path = given.clone().unwrap_or_else(|| conventional.to_owned());
            (!path.is_empty()).then(|| Route { path, is_given: given.is_some() })
        };
        Routes {
            slow: route(&self.slow, "/slow?ms={ms}"),
            echo: route(&self.echo, "/echo"),
            stream: route(&self.stream, "/stream?ms={ms}"),
            big: route(&self.big, "/big?bytes={n}"),
            upgrade: route(&self.ws, "/ws"),
        }
    }
}

/// Returns why a run takes several times as long as it could, if it does.
pub(super) fn slow_hint(target: &Target, jobs: usize) -> Option<String> {
    let (mut why, mut how) = (Vec::new(), Vec::new());
    if let Listen::At(_) = target.listen {
        why.push("its port cannot be chosen".to_owned());
        how.push("--port-env or {port} in the command".to_owned());
    }
    for flag in target.fixed() {
        why.push(format!("{flag} is the same for all"));
        how.push(format!("{{port}} or {{port2}} in {flag}"));
    }
    let (is_slow, why, how) = (!why.is_empty(), why.join(", and "), how.join(", and "));
    let hint =
        format!("one server runs at a time, since {why}; with {how}, {jobs} run at the same time");
    (is_slow && jobs > 1).then_some(hint)
}

#[cfg(test)]
mod tests {
    use super::{ServerArgs, slow_hint};
    use crate::target::{Listen, Target};
    use clap::{Args, Command, FromArgMatches};

    fn parsed(words: &[&str]) -> ServerArgs {
        let command = ServerArgs::augment_args(Command::new("run").no_binary_name(true));
        ServerArgs::from_arg_matches(&command.get_matches_from(words)).unwrap()
    }

    // A route and an address were ignored without a word.
    #[test]
    fn what_would_be_ignored_is_refused() {
        for (words, error) in [
            (&["--tls", "--slow", "/nope", "--", "a"][..], "--slow: the scenarios of --tls"),
            (&["--tls", "--ws", "/nope", "--", "a"], "--ws: the scenarios of --tls"),
            (&["--tls", "--live", "http://a:1/", "--", "a"], "--live: the scenarios of --tls"),
            (&["--addr", "127.0.0.1:1", "--", "a", "{port}"], "--addr 127.0.0.1:1: {port}"),
        ] {
            let found = parsed(words).target().unwrap_err();
            assert!(found.starts_with(error), "{found}");
        }
        for (flag, value) in [
            ("--tls", None),
            ("--live", Some("http://a:1/")),
            ("--stream", Some("/s")),
            ("--big", Some("/b")),
            ("--ws", Some("/w")),
        ] {
            let words: Vec<&str> = [flag].into_iter().chain(value).chain(["--", "a"]).collect();
            let error = parsed(&words).expect_load("rollout", &["--echo"]).unwrap_err();
            assert!(error.starts_with(flag) && error.contains("`rollout`"), "{error}");
        }
        let echo = parsed(&["--echo", "/e", "--slow", "/s", "--", "a"]);
        echo.expect_load("rollout", &["--echo"]).unwrap();
        assert!(echo.expect_load("soak", &[]).unwrap_err().starts_with("--echo: "));
        parsed(&["--tls", "--stream", "/s", "--", "a"]).target().unwrap();
        let error = parsed(&["--addr", "127.0.0.1:1", "--", "a"]).trusted().unwrap_err();
        assert!(error.starts_with("--addr") && error.contains("held socket"), "{error}");
        let trusted = parsed(&["--slow", "/s?ms={ms}", "--", "a"]).trusted().unwrap();
        assert_eq!(trusted.paths.slow.as_deref(), Some("/s?ms={ms}"));
    }

    // A run against a fixed port took seven minutes instead of two, and said nothing for as long.
    // The way out of that was no faster if --ready was fixed, too.
    #[test]
    fn a_fixed_port_has_a_hint_to_the_faster_way() {
        let mut target = Target::new(Vec::new());
        assert_eq!(slow_hint(&target, 4), None);
        target.live = Some("http://127.0.0.1:81/".to_owned());
        let hint = slow_hint(&target, 4).unwrap();
        let live = "--live is the same for all; with {port} or {port2} in --live, 4 run";
        assert!(hint.contains(live), "{hint}");
        target.listen = Listen::At(([127, 0, 0, 1], 8080).into());
        let hint = slow_hint(&target, 4).unwrap();
        for words in [
            "since its port cannot be chosen, and --live is the same for all; ",
            "with --port-env or {port} in the command, and {port} or {port2} in --live, 4 run",
        ] {
            assert!(hint.contains(words), "{hint}");
        }
        target.live = None;
        let hint = slow_hint(&target, 4).unwrap();
        assert!(hint.contains("chosen; with --port-env or {port} in the command, 4 run"), "{hint}");
        assert_eq!(slow_hint(&target, 1), None);
    }
}
