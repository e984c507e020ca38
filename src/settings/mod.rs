//! The settings, and their sources: flags override the environment, which overrides the defaults.

mod knobs;
mod least;
mod parse;
mod setters;
mod table;

use knobs::Knobs;
pub use parse::{ParseDurationError, parse_duration};
pub use table::{SETTINGS, Setting};

use crate::{
    host_error::HostError,
    http::{HalfClose, Limits},
    lifecycle::{BadSetting, Plan, Signal},
    runtime::ListenAddress,
};
use std::{
    error::Error,
    fmt::{self, Write as _},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

/// All settings of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The main server's addresses. Empty, the default, means `[::]:8080`, dual stack, or
    /// `0.0.0.0:8080` where IPv6 is not available.
    pub main_addresses: Vec<ListenAddress>,
    /// Further addresses of the main server, on which each connection begins with a header of the
    /// PROXY protocol, version 1 or 2. The client's address is the one in the header. A connection
    /// without a header is closed. Only proxies may reach such an address, since any client can
    /// claim any address there. If these are set and `main_addresses` is empty, there is no default
    /// address. Needs the feature `proxy-protocol`. Default: none.
    pub proxy_protocol_addresses: Vec<ListenAddress>,
    /// The internal server's address. Default: `[::]:8081`.
    pub internal_address: ListenAddress,
    /// Host names that the internal server responds to, in addition to IP addresses and
    /// `localhost`: `app.default.svc`, `.default.svc` for every name below it, `*` for any.
    /// Default: none.
    pub internal_hosts: Vec<String>,
    /// The version of the app, visible to every handler.
    pub app_version: String,
    /// The deadline of every request. Default 5 s; `None` or zero for none.
    pub request_timeout: Option<Duration>,
    /// The time limits of all steps, from start to exit.
    pub plan: Plan,
    /// The platform's grace period. Default 30 s; zero for no check.
    pub grace_period: Duration,
    /// Limits on connections and requests.
    pub limits: Limits,
    /// Worker threads of a host that owns its process. Default: the number of cores that the
    /// process may use.
    pub workers: Option<NonZeroUsize>,
    /// Whether another process may listen on the same port.
    pub port_sharing: PortSharing,
    /// Permissions of the Unix sockets that this process binds, such as `0o660`; at most `0o777`.
    /// Default: `None`, set by the umask.
    pub unix_mode: Option<u32>,
    /// The accept queue of each worker: connections that the kernel completes before they are
    /// accepted. Default 4096, minimum 1; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Sends small writes at once (`TCP_NODELAY`). Default on.
    pub tcp_nodelay: bool,
    /// The idle time after which the kernel probes a TCP peer (`SO_KEEPALIVE`). Default 60 s,
    /// minimum 1 s; `None` or zero for no probes.
    pub tcp_keepalive: Option<Duration>,
    /// The signals that request the stop; the others of the four are logged and ignored, also while
    /// the host stops. Without SIGINT and SIGQUIT, no signal ends a wait (P12). Without any, only a
    /// failure or a [`ShutdownHandle`](crate::ShutdownHandle) stops the host. Default: all four.
    /// With [`Builder::on_reload`](crate::Builder::on_reload), SIGHUP reloads.
    pub stop_signals: Vec<Signal>,
    /// The certificate chain of the main server, a PEM file. With it and
    /// [`tls_key`](Self::tls_key) the main server's TCP listeners speak TLS; needs the feature
    /// `tls`. Default: none.
    pub tls_cert: Option<PathBuf>,
    /// The key of [`tls_cert`](Self::tls_cert), a PEM file: PKCS #8, PKCS #1 or SEC 1.
    pub tls_key: Option<PathBuf>,
    /// The sources of settings in addition to code.
    knobs: Knobs,
    /// Flags that the program does not define.
    undefined_flags: Vec<&'static str>,
}

/// Whether two processes may listen on one port (P14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PortSharing {
    /// A second instance is refused. The default.
    #[default]
    Exclusive,
    /// A second instance with the same setting may also listen.
    Shared,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            main_addresses: Vec::new(),
            proxy_protocol_addresses: Vec::new(),
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
            stop_signals: Signal::ALL.to_vec(),
            tls_cert: None,
            tls_key: None,
            knobs: Knobs::Fields,
            undefined_flags: Vec::new(),
        }
    }
}

impl Settings {
    /// Returns the defaults, overridden by the environment. See [`SETTINGS`] for the variables.
    ///
    /// # Errors
    /// [`SettingsError`] with the variable and its value.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::default().with_env()
    }

    /// Returns these settings, overridden by the environment. For an app with its own defaults.
    ///
    /// # Errors
    /// [`SettingsError`] with the variable and its value.
    pub fn with_env(self) -> Result<Self, SettingsError> {
        let knobs = self.knobs.max(Knobs::Variables);
        let settings = self.resolve(|_| Vec::new(), variable)?;
        Ok(Self { knobs, ..settings })
    }

    /// Returns these settings, overridden by the environment, overridden by flags. An address
    /// overrides a port from the same source. An empty variable counts as unset.
    ///
    /// # Errors
    /// [`SettingsError`] with the flag or variable and its value.
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
        // Values from the environment or flags replace these.
        let own_addresses = std::mem::take(&mut settings.main_addresses);
        let own_proxy_protocol_addresses = std::mem::take(&mut settings.proxy_protocol_addresses);
        let own_hosts = std::mem::take(&mut settings.internal_hosts);
        for setting in SETTINGS {
            let alternative = |given: &dyn Fn(&Setting) -> Vec<String>| {
                setting.alternative().is_some_and(|alternative| !given(alternative).is_empty())
            };
            let by_flag = flag(setting);
            if !by_flag.is_empty() {
                if !(setting.is_port() && alternative(&flag)) {
                    settings.apply(setting, &format!("--{}", setting.flag), &by_flag, |value| {
                        vec![value.to_owned()]
                    })?;
                }
            } else if !(alternative(&flag) || setting.is_port() && alternative(&variable)) {
                settings.apply(setting, setting.variable, &variable(setting), |value| {
                    setting.split(value)
                })?;
            }
        }
        if settings.main_addresses.is_empty() {
            settings.main_addresses = own_addresses;
        }
        if settings.proxy_protocol_addresses.is_empty() {
            settings.proxy_protocol_addresses = own_proxy_protocol_addresses;
        }
        if settings.internal_hosts.is_empty() {
            settings.internal_hosts = own_hosts;
        }
        settings.knobs = Knobs::Flags;
        Ok(settings)
    }

    /// The addresses that the main server will listen on: [`main_addresses`](Self::main_addresses),
    /// or the default if there are none.
    #[must_use]
    pub fn main_addresses_or_default(&self) -> &[ListenAddress] {
        const DEFAULT: &[ListenAddress] = &[ListenAddress::Port(8080)];
        let is_default = self.main_addresses.is_empty() && self.proxy_protocol_addresses.is_empty();
        if is_default { DEFAULT } else { &self.main_addresses }
    }

    /// Checks what does not depend on the machine: minimums, the forms of addresses and names, the
    /// pair of TLS files, and the plan against the grace period. Of the maximums it checks those of
    /// `tcp_keepalive` and `unix_mode`; the others hold only for flags and variables. The start of
    /// a host does the same.
    ///
    /// # Errors
    /// [`HostError`] with the setting, its value, and what to change.
    pub fn check(&self) -> Result<(), HostError> {
        self.check_minimums().map_err(|error| HostError::settings(error.to_string(), error))?;
        self.plan.check_grace_period(self.grace_period).map_err(|error| self.explain(error))
    }

    fn apply(
        &mut self,
        setting: &Setting,
        setting_name: &str,
        values: &[String],
        split: impl Fn(&str) -> Vec<String>,
    ) -> Result<(), SettingsError> {
        for value in values {
            self.apply_one(setting, &split(value)).map_err(|reason| SettingsError {
                setting: setting_name.to_owned(),
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

/// A setting with an unusable value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingsError {
    /// The flag, variable or field that the value came from.
    pub setting: String,
    /// The value.
    pub value: String,
    /// The reason why the value is unusable.
    pub reason: String,
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A value may contain any character, but this must stay one line (P14).
        write!(f, "{}=", self.setting)?;
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
            tls_handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(620),
            connection_age_max: None,
            http2_streams_max: 200,
            half_close: HalfClose::Serve,
            is_connections_max_set: false,
            #[cfg(feature = "__caps")]
            caps: crate::http::Caps::DEFAULT,
        }
    }
}

#[cfg(unix)]
use crate::os::connections_max;

/// Other systems have no readable limit.
#[cfg(not(unix))]
const fn connections_max() -> usize {
    10_000
}

/// A variable of this process. A value that is not valid UTF-8 is still set: it contains
/// replacement characters, which no setting accepts.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}
