//! The settings: one table for flags, environment and documents.

use crate::{
    env::ListenAddress,
    http::Limits,
    lifecycle::{Plan, PlanError},
};
use std::{error::Error, fmt, num::NonZeroUsize, time::Duration};

/// Everything an operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The main server's addresses. Default: `[::]:8080`, dual stack, or `0.0.0.0:8080` where IPv6 is not to be had.
    pub main_addresses: Vec<ListenAddress>,
    /// The internal server's address. Default: `[::]:8081`.
    pub internal_address: ListenAddress,
    /// The version of the app, which every handler can see.
    pub app_version: String,
    /// The deadline of every request. Default 5 s; `None` for none.
    pub request_timeout: Option<Duration>,
    /// How long each step of a life may take.
    pub plan: Plan,
    /// The platform's grace period. Default 30 s; zero for no check.
    pub grace_period: Duration,
    /// Limits on connections and requests.
    pub limits: Limits,
    /// Worker threads of a host that owns its process. Default: the cores the process may use.
    pub workers: Option<NonZeroUsize>,
    /// Whether another process may listen on the same port beside this one.
    pub port_sharing: PortSharing,
    main_addresses_are_default: bool,
}

/// Whether two processes may listen on one port (P14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PortSharing {
    /// A second instance is refused. The default.
    #[default]
    Exclusive,
    /// A second instance that says the same may listen beside this one.
    Shared,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            main_addresses: vec![ListenAddress::Port(8080)],
            internal_address: ListenAddress::Port(8081),
            app_version: String::new(),
            request_timeout: Some(Duration::from_secs(5)),
            plan: Plan::default(),
            grace_period: Duration::from_secs(30),
            limits: default_limits(),
            workers: None,
            port_sharing: PortSharing::Exclusive,
            main_addresses_are_default: true,
        }
    }
}

impl Settings {
    /// The defaults, and over them what the environment says. See [`SETTINGS`] for the variables.
    ///
    /// # Errors
    /// [`SettingsError`] names the variable and its value.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::default().with_env()
    }

    /// These settings, and over them what the environment says: for an app with defaults of its own.
    ///
    /// # Errors
    /// [`SettingsError`] names the variable and its value.
    pub fn with_env(self) -> Result<Self, SettingsError> {
        self.resolve(|_| Vec::new(), variable)
    }

    /// These settings, over them the environment, over it the flags; an address over a port of the same source. An empty
    /// variable is an unset one.
    ///
    /// # Errors
    /// [`SettingsError`] names the flag or variable and its value.
    pub fn resolve(
        self,
        flag: impl Fn(&Setting) -> Vec<String>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, SettingsError> {
        let variable = |setting: &Setting| {
            let value = variable(setting.variable).filter(|value| !value.is_empty());
            value.map(|value| setting.split(&value)).unwrap_or_default()
        };
        let mut settings = Self { main_addresses_are_default: true, ..self };
        for setting in SETTINGS {
            let rival =
                |given: &dyn Fn(&Setting) -> Vec<String>| setting.rival().is_some_and(|rival| !given(rival).is_empty());
            let by_flag = flag(setting);
            if !by_flag.is_empty() {
                if !(setting.is_port() && rival(&flag)) {
                    settings.apply(setting, &format!("--{}", setting.flag), &by_flag)?;
                }
            } else if !(rival(&flag) || setting.is_port() && rival(&variable)) {
                settings.apply(setting, setting.variable, &variable(setting))?;
            }
        }
        Ok(settings)
    }

    /// Adds an address of the main server; the first takes the place of the default.
    pub fn add_main_address(&mut self, address: ListenAddress) {
        if std::mem::take(&mut self.main_addresses_are_default) {
            self.main_addresses.clear();
        }
        self.main_addresses.push(address);
    }

    /// Holds the plan against the grace period.
    ///
    /// # Errors
    /// [`PlanError`], with the two values and what to change.
    pub fn check(&self) -> Result<(), PlanError> {
        self.plan.check_grace_period(self.grace_period)
    }

    fn apply(&mut self, setting: &Setting, source: &str, values: &[String]) -> Result<(), SettingsError> {
        for value in values {
            let applied = if value.contains(char::REPLACEMENT_CHARACTER) {
                Err("not valid UTF-8".to_owned())
            } else {
                (setting.apply)(self, value)
            };
            applied.map_err(|reason| SettingsError { source: source.to_owned(), value: value.clone(), reason })?;
        }
        Ok(())
    }
}

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Setting {
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// What a value looks like, for help texts.
    pub value: &'static str,
    /// The default, in words.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
    apply: fn(&mut Settings, &str) -> Result<(), String>,
}

impl Setting {
    /// Whether it may be given several times (in the environment: separated by commas).
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.flag == "addr"
    }

    /// The address that goes before this port, or the port that this address goes before.
    fn rival(&self) -> Option<&'static Self> {
        let flag = match self.flag {
            "port" => "addr",
            "addr" => "port",
            "internal-port" => "internal-addr",
            "internal-addr" => "internal-port",
            _ => return None,
        };
        SETTINGS.iter().find(|setting| setting.flag == flag)
    }

    fn is_port(&self) -> bool {
        self.flag.ends_with("port")
    }

    fn split(&self, value: &str) -> Vec<String> {
        if self.is_repeatable() {
            value.split(',').map(|part| part.trim().to_owned()).collect()
        } else {
            vec![value.to_owned()]
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("flag", &self.flag).field("variable", &self.variable).finish_non_exhaustive()
    }
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsError {
    /// The flag or variable it came from.
    pub source: String,
    /// What it said.
    pub value: String,
    /// Why that cannot be used.
    pub reason: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}: {}", self.source, self.value, self.reason)
    }
}

impl Error for SettingsError {}

/// Every setting, in the order of `--help`.
pub const SETTINGS: &[Setting] = &[
    Setting {
        flag: "port",
        variable: "APP_PORT",
        value: "PORT",
        default: "8080",
        help: "Port of the main server, on every address (IPv6 and IPv4); 0 lets the system choose",
        apply: |settings, value| {
            settings.add_main_address(ListenAddress::Port(parse_port(value, "APP_ADDR")?));
            Ok(())
        },
    },
    Setting {
        flag: "addr",
        variable: "APP_ADDR",
        value: "ADDRESS",
        default: "[::]:8080",
        help: "Address of the main server: [::]:8080, 127.0.0.1:0 or unix:/run/app.sock; may be repeated (in the variable: \
               separated by commas); goes before a port",
        apply: |settings, value| {
            settings.add_main_address(parse_address(value)?);
            Ok(())
        },
    },
    Setting {
        flag: "internal-port",
        variable: "INTERNAL_PORT",
        value: "PORT",
        default: "8081",
        help: "Port of the internal server (probes, status), on every address",
        apply: |settings, value| {
            settings.internal_address = ListenAddress::Port(parse_port(value, "INTERNAL_ADDR")?);
            Ok(())
        },
    },
    Setting {
        flag: "internal-addr",
        variable: "INTERNAL_ADDR",
        value: "ADDRESS",
        default: "[::]:8081",
        help: "Address of the internal server; goes before a port",
        apply: |settings, value| {
            settings.internal_address = parse_address(value)?;
            Ok(())
        },
    },
    Setting {
        flag: "app-version",
        variable: "APP_VERSION",
        value: "VERSION",
        default: "the crate's",
        help: "Version of the app, seen by every handler",
        apply: |settings, value| {
            if http::HeaderValue::from_str(value).is_err() {
                return Err("expected visible characters, since it is sent in a header".to_owned());
            }
            value.clone_into(&mut settings.app_version);
            Ok(())
        },
    },
    Setting {
        flag: "request-timeout",
        variable: "APP_REQUEST_TIMEOUT",
        value: "DURATION",
        default: "5s",
        help: "Deadline of every request, from its complete head to the head of the answer; 0s for none",
        apply: |settings, value| {
            let timeout = parse_duration(value)?;
            settings.request_timeout = (!timeout.is_zero()).then_some(timeout);
            Ok(())
        },
    },
    Setting {
        flag: "start",
        variable: "STARTUP_LIMIT",
        value: "DURATION",
        default: "60s",
        help: "Limit of the start: start hooks and listening",
        apply: |settings, value| parse_duration(value).map(|span| settings.plan.start = span),
    },
    Setting {
        flag: "lame-duck",
        variable: "SHUTDOWN_LAME_DUCK",
        value: "DURATION",
        default: "5s",
        help: "Lame duck delay: from the stop request until the listeners close; readiness fails, all is served",
        apply: |settings, value| parse_duration(value).map(|span| settings.plan.lame_duck = span),
    },
    Setting {
        flag: "drain",
        variable: "SHUTDOWN_DRAIN",
        value: "DURATION",
        default: "10s",
        help: "Drain limit: requests in flight finish",
        apply: |settings, value| parse_duration(value).map(|span| settings.plan.drain = span),
    },
    Setting {
        flag: "cancel",
        variable: "SHUTDOWN_CANCEL",
        value: "DURATION",
        default: "3s",
        help: "Cancel wait: contexts are cancelled, what still runs may return; then it is cut",
        apply: |settings, value| parse_duration(value).map(|span| settings.plan.cancel = span),
    },
    Setting {
        flag: "cleanup",
        variable: "SHUTDOWN_CLEANUP",
        value: "DURATION",
        default: "5s",
        help: "Budget of all stop hooks together",
        apply: |settings, value| parse_duration(value).map(|span| settings.plan.cleanup = span),
    },
    Setting {
        flag: "internal-close",
        variable: "SHUTDOWN_INTERNAL_CLOSE",
        value: "DURATION",
        default: "1s",
        help: "Limit of the internal server's own drain, last of all",
        apply: |settings, value| parse_duration(value).map(|span| settings.plan.internal_close = span),
    },
    Setting {
        flag: "grace-period",
        variable: "SHUTDOWN_GRACE_PERIOD",
        value: "DURATION",
        default: "30s",
        help: "The platform's grace period, which the worst case must fit into; 0s for no check",
        apply: |settings, value| parse_duration(value).map(|span| settings.grace_period = span),
    },
    Setting {
        flag: "connections-max",
        variable: "APP_CONNECTIONS_MAX",
        value: "COUNT",
        default: "the descriptor limit less 64",
        help: "Connections at one time; at the limit nothing more is accepted",
        apply: |settings, value| parse_count(value, 1, 10_000_000).map(|count| settings.limits.connections_max = count),
    },
    Setting {
        flag: "header-bytes-max",
        variable: "APP_HEADER_BYTES_MAX",
        value: "BYTES",
        default: "32768",
        help: "Bytes of a request head; more is answered with 431",
        apply: |settings, value| {
            parse_count(value, 8 * 1024, 1024 * 1024).map(|count| settings.limits.header_bytes_max = count)
        },
    },
    Setting {
        flag: "headers-max",
        variable: "APP_HEADERS_MAX",
        value: "COUNT",
        default: "100",
        help: "Header fields of a request; more is answered with 431",
        apply: |settings, value| parse_count(value, 1, 10_000).map(|count| settings.limits.headers_max = count),
    },
    Setting {
        flag: "header-timeout",
        variable: "APP_HEADER_TIMEOUT",
        value: "DURATION",
        default: "10s",
        help: "From the first byte of a request head to its last; then the client gets a 408",
        apply: |settings, value| parse_some_duration(value).map(|span| settings.limits.header_timeout = span),
    },
    Setting {
        flag: "keep-alive",
        variable: "APP_KEEP_ALIVE",
        value: "DURATION",
        default: "620s",
        help: "How long an idle connection is kept: longer than any balancer keeps its end",
        apply: |settings, value| parse_some_duration(value).map(|span| settings.limits.keep_alive = span),
    },
    Setting {
        flag: "http2-streams-max",
        variable: "APP_HTTP2_STREAMS_MAX",
        value: "COUNT",
        default: "200",
        help: "Streams at one time on an HTTP/2 connection",
        apply: |settings, value| {
            let count = parse_count(value, 1, 1_000_000)?;
            settings.limits.http2_streams_max = u32::try_from(count).unwrap_or(u32::MAX);
            Ok(())
        },
    },
    Setting {
        flag: "workers",
        variable: "APP_WORKERS",
        value: "COUNT",
        default: "the cores the process may use",
        help: "Worker threads of the main server",
        apply: |settings, value| {
            settings.workers = NonZeroUsize::new(parse_count(value, 1, 1024)?);
            Ok(())
        },
    },
];

#[cfg(unix)]
fn default_limits() -> Limits {
    Limits { connections_max: crate::os::connections_max(), ..Limits::default() }
}

#[cfg(not(unix))]
fn default_limits() -> Limits {
    Limits::default()
}

/// A variable of this process. One that is no text is not an unset one: it
/// comes with replacement characters, which no setting takes.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The longest duration that may be set.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A duration with a unit: `500ms`, `5s`, `1m 30s`. At most 24 hours.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let span = humantime::parse_duration(text)
        .map_err(|_| "expected a duration with a unit, such as 500ms, 5s or 1m".to_owned())?;
    if span > DURATION_MAX {
        return Err("longer than 24h".to_owned());
    }
    Ok(span)
}

fn parse_some_duration(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text)?;
    if span.is_zero() {
        return Err("must be longer than 0s".to_owned());
    }
    Ok(span)
}

fn parse_count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (least..=most).contains(count))
        .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
}

fn parse_address(text: &str) -> Result<ListenAddress, String> {
    text.parse().map_err(|error: std::io::Error| error.to_string())
}

fn parse_port(text: &str, address_variable: &str) -> Result<u16, String> {
    text.parse().map_err(|_| {
        if text.contains("://") {
            // Kubernetes sets NAME_PORT for every Service of the namespace (Docker links did): a Service named `app` is enough.
            format!(
                "expected a port from 0 to 65535; this looks like what Kubernetes injects for a Service of that name: set \
                 enableServiceLinks: false in the pod, rename the Service, or set {address_variable}, which goes before it"
            )
        } else {
            "expected a port from 0 to 65535".to_owned()
        }
    })
}
