//! The settings, and where they come from: flags over environment over defaults.

mod knobs;
mod least;
mod parse;
mod table;

use knobs::Knobs;
pub use parse::parse_duration;
pub use table::{SETTINGS, Setting};

use crate::{
    http::{HalfClose, Limits},
    lifecycle::{BadSetting, Plan, PlanError},
    runtime::ListenAddress,
};
use std::{
    error::Error,
    fmt::{self, Write as _},
    num::NonZeroUsize,
    time::Duration,
};

/// Everything an operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The main server's addresses. Empty, as it is by default, means `[::]:8080`, dual stack, or `0.0.0.0:8080` where IPv6 is not
    /// to be had.
    pub main_addresses: Vec<ListenAddress>,
    /// The internal server's address. Default: `[::]:8081`.
    pub internal_address: ListenAddress,
    /// Host names that the internal server responds to, in addition to IP addresses and `localhost`: `app.default.svc`,
    /// `.default.svc` for every name below it, `*` for any. Default: none.
    pub internal_hosts: Vec<String>,
    /// The version of the app, which every handler can see.
    pub app_version: String,
    /// The deadline of every request. Default 5 s; `None` or zero for none.
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
    /// Permissions of the Unix sockets that this process binds, such as `0o660`; at most `0o777`.
    /// Default: `None`, as the umask has it.
    pub unix_mode: Option<u32>,
    /// Connections that the kernel completes and queues before they are accepted, for each worker. Default 4096, least 1; the
    /// kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Sends small writes at once (`TCP_NODELAY`). Default on.
    pub tcp_nodelay: bool,
    /// After this much silence the kernel asks a TCP peer whether it is still there. Default 60 s, at least one; `None`
    /// or zero never asks.
    pub tcp_keepalive: Option<Duration>,
    /// What else than code may have set them.
    knobs: Knobs,
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
            main_addresses: Vec::new(),
            internal_address: ListenAddress::Port(8081),
            internal_hosts: Vec::new(),
            app_version: String::new(),
            request_timeout: Some(Duration::from_secs(5)),
            plan: Plan::default(),
            grace_period: Duration::from_secs(30),
            limits: Limits::default(),
            workers: None,
            port_sharing: PortSharing::Exclusive,
            unix_mode: None,
            backlog: 4096,
            tcp_nodelay: true,
            tcp_keepalive: Some(Duration::from_secs(60)),
            knobs: Knobs::Fields,
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
        let knobs = self.knobs.max(Knobs::Variables);
        let settings = self.resolve(|_| Vec::new(), variable)?;
        Ok(Self { knobs, ..settings })
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
            Vec::from_iter(value)
        };
        let mut settings = self;
        // What the environment or a flag says takes their place.
        let own_addresses = std::mem::take(&mut settings.main_addresses);
        let own_hosts = std::mem::take(&mut settings.internal_hosts);
        for setting in SETTINGS {
            let rival = |given: &dyn Fn(&Setting) -> Vec<String>| {
                setting.rival().is_some_and(|rival| !given(rival).is_empty())
            };
            let by_flag = flag(setting);
            if !by_flag.is_empty() {
                if !(setting.is_port() && rival(&flag)) {
                    settings.apply(setting, &format!("--{}", setting.flag), &by_flag, |value| {
                        vec![value.to_owned()]
                    })?;
                }
            } else if !(rival(&flag) || setting.is_port() && rival(&variable)) {
                settings.apply(setting, setting.variable, &variable(setting), |value| {
                    setting.split(value)
                })?;
            }
        }
        if settings.main_addresses.is_empty() {
            settings.main_addresses = own_addresses;
        }
        if settings.internal_hosts.is_empty() {
            settings.internal_hosts = own_hosts;
        }
        settings.knobs = Knobs::Flags;
        Ok(settings)
    }

    /// Adds an address of the main server. The first takes the place of the default, and of nothing that was chosen.
    pub fn add_main_address(&mut self, address: ListenAddress) {
        self.main_addresses.push(address);
    }

    /// Where the main server is to listen: [`main_addresses`](Self::main_addresses), or the default if there is none.
    #[must_use]
    pub fn main_addresses_or_default(&self) -> &[ListenAddress] {
        const DEFAULT: &[ListenAddress] = &[ListenAddress::Port(8080)];
        if self.main_addresses.is_empty() { DEFAULT } else { &self.main_addresses }
    }

    /// Holds the plan against the grace period.
    ///
    /// # Errors
    /// [`PlanError`], with the two values and what to change.
    pub fn check(&self) -> Result<(), PlanError> {
        self.plan.check_grace_period(self.grace_period)
    }

    fn apply(
        &mut self,
        setting: &Setting,
        source: &str,
        values: &[String],
        split: impl Fn(&str) -> Vec<String>,
    ) -> Result<(), SettingsError> {
        for value in values {
            self.apply_one(setting, &split(value)).map_err(|reason| SettingsError {
                source: source.to_owned(),
                value: value.clone(),
                reason,
            })?;
        }
        Ok(())
    }

    fn apply_one(&mut self, setting: &Setting, parts: &[String]) -> Result<(), String> {
        for (n, part) in parts.iter().enumerate() {
            if part.contains(char::REPLACEMENT_CHARACTER) {
                return Err("not valid UTF-8".to_owned());
            }
            (setting.apply)(self, part).map_err(|reason| match parts.len() {
                1 => reason,
                count => format!("number {} of {count}, {part:?}: {reason}", n + 1),
            })?;
        }
        Ok(())
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
        // A value may hold anything, and this is one line (P14).
        write!(f, "{}=", self.source)?;
        for char in self.value.chars() {
            if char.is_control() {
                write!(f, "{}", char.escape_default())?;
            } else {
                f.write_char(char)?;
            }
        }
        write!(f, ": {}", self.reason)
    }
}

impl Error for SettingsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&BadSetting)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: connections_max(),
            header_bytes_max: 32 * 1024,
            headers_max: 100,
            first_byte_timeout: Duration::from_secs(60),
            header_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(620),
            http2_streams_max: 200,
            half_close: HalfClose::Serve,
        }
    }
}

#[cfg(unix)]
use crate::os::connections_max;

/// Other systems have no such limit that could be read.
#[cfg(not(unix))]
const fn connections_max() -> usize {
    10_000
}

/// A variable of this process. One that is no text is not an unset one: it
/// comes with replacement characters, which no setting takes.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}
