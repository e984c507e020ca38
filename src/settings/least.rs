//! Checks of settings, most of them minimums. The table makes them for flags and variables; the
//! start makes them for settings made in code.

use super::{
    Settings, SettingsError,
    parse::{MODE_MAX, parse_host_name},
};
use crate::runtime::ListenAddress;
use std::{path::Path, time::Duration};

/// Enough for the head of any browser, and hyper's own minimum.
pub(super) const HEADER_BYTES_MIN: usize = 8 * 1024;

/// The kernel counts in seconds.
pub(super) const TCP_KEEPALIVE_MIN: Duration = Duration::from_secs(1);
/// Linux accepts no longer one: `MAX_TCP_KEEPIDLE`, some nine hours.
pub(super) const TCP_KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);

impl Settings {
    /// Treats a zero that was set in code as the environment does: an optional time of zero is
    /// `None`.
    pub(crate) fn read_zero_as_none(&mut self) {
        let Self { request_timeout, tcp_keepalive, limits, .. } = self;
        for span in [request_timeout, tcp_keepalive, &mut limits.connection_age_max] {
            *span = span.filter(|span| !span.is_zero());
        }
    }

    /// Checks settings made in code: minimums, two maximums, the forms of addresses and names, and
    /// the pair of TLS files.
    ///
    /// # Errors
    /// [`SettingsError`] with the setting, its value and the reason.
    pub(crate) fn check_minimums(&self) -> Result<(), SettingsError> {
        let limits = &self.limits;
        let counts = [
            ("connections-max", "limits.connections_max", limits.connections_max, 1),
            (
                "header-bytes-max",
                "limits.header_bytes_max",
                limits.header_bytes_max,
                HEADER_BYTES_MIN,
            ),
            ("headers-max", "limits.headers_max", limits.headers_max, 1),
            ("http2-streams-max", "limits.http2_streams_max", limits.http2_streams_max as usize, 1),
            ("backlog", "backlog", self.backlog as usize, 1),
        ];
        for (flag, field, count, least) in counts {
            if count < least {
                return Err(self.refused(
                    flag,
                    field,
                    count.to_string(),
                    &format!("must be at least {least}"),
                ));
            }
        }
        let spans = [
            ("first-byte-timeout", "limits.first_byte_timeout", limits.first_byte_timeout),
            ("tls-handshake-timeout", "limits.tls_handshake_timeout", limits.tls_handshake_timeout),
            ("header-timeout", "limits.header_timeout", limits.header_timeout),
            ("send-timeout", "limits.send_timeout", limits.send_timeout),
            ("body-timeout", "limits.body_timeout", limits.body_timeout),
            ("keep-alive", "limits.keep_alive", limits.keep_alive),
        ];
        for (flag, field, span) in spans {
            if span.is_zero() {
                return Err(self.refused(flag, field, "0s".to_owned(), "must be longer than 0s"));
            }
        }
        if let Some(silence) = self.tcp_keepalive
            && !silence.is_zero()
            && !(TCP_KEEPALIVE_MIN..=TCP_KEEPALIVE_MAX).contains(&silence)
        {
            return Err(self.refused(
                "tcp-keepalive",
                "tcp_keepalive",
                format!("{silence:?}"),
                "must be at least 1s and at most 32767s",
            ));
        }
        for name in &self.internal_hosts {
            if let Err(reason) = parse_host_name(name) {
                return Err(self.refused(
                    "internal-hosts",
                    "internal_hosts",
                    name.clone(),
                    &reason,
                ));
            }
        }
        if let Some(mode) = self.unix_mode
            && mode > MODE_MAX
        {
            return Err(self.refused(
                "unix-mode",
                "unix_mode",
                format!("{mode:o}"),
                "must be at most 777, in octal",
            ));
        }
        for address in &self.main_addresses {
            if let Err(error) = address.check() {
                return Err(self.refused(
                    "addr",
                    "main_addresses",
                    address.to_string(),
                    &error.to_string(),
                ));
            }
        }
        self.check_proxy_protocol()?;
        if let Err(error) = self.internal_address.check() {
            let address = self.internal_address.to_string();
            return Err(self.refused(
                "internal-addr",
                "internal_address",
                address,
                &error.to_string(),
            ));
        }
        self.check_tls_files()?;
        if http::HeaderValue::from_str(&self.app_version).is_err() {
            let reason = "expected visible characters, since it is sent in a header";
            return Err(self.refused(
                "app-version",
                "app_version",
                self.app_version.clone(),
                reason,
            ));
        }
        Ok(())
    }

    /// A certificate needs its key, and both need the feature `tls`.
    fn check_tls_files(&self) -> Result<(), SettingsError> {
        let refused = |flag, field, path: &Path, other, reason: &str| {
            Err(SettingsError {
                setting: String::from(field),
                value: path.display().to_string(),
                reason: format!("{reason}{}", self.knobs(&[flag, other])),
            })
        };
        match (&self.tls_cert, &self.tls_key) {
            (None, None) => Ok(()),
            (Some(path), Some(_)) if cfg!(not(feature = "tls")) => {
                let reason = "this program was built without the feature tls";
                refused("tls-cert", "tls_cert", path, "tls-key", reason)
            }
            (Some(_), Some(_)) => Ok(()),
            (Some(path), None) => {
                let reason = "a certificate needs its key: set tls_key, too";
                refused("tls-cert", "tls_cert", path, "tls-key", reason)
            }
            (None, Some(path)) => {
                let reason = "a key needs its certificate: set tls_cert, too";
                refused("tls-key", "tls_key", path, "tls-cert", reason)
            }
        }
    }

    /// Checks the addresses that require a PROXY header.
    fn check_proxy_protocol(&self) -> Result<(), SettingsError> {
        for address in &self.proxy_protocol_addresses {
            let is_any_port = matches!(address, ListenAddress::Tcp(tcp) if tcp.port() == 0);
            let reason = match address.check() {
                Err(error) => error.to_string(),
                Ok(()) if cfg!(not(feature = "proxy-protocol")) => {
                    "this program was built without the feature proxy-protocol".to_owned()
                }
                Ok(()) if !is_any_port && self.main_addresses.contains(address) => {
                    "this address is among the main addresses, where no header is expected"
                        .to_owned()
                }
                Ok(()) => continue,
            };
            let (flag, field) = ("proxy-protocol", "proxy_protocol_addresses");
            return Err(self.refused(flag, field, address.to_string(), &reason));
        }
        Ok(())
    }

    fn refused(&self, flag: &str, field: &str, value: String, reason: &str) -> SettingsError {
        SettingsError {
            setting: field.to_owned(),
            value,
            reason: format!("{reason}{}", self.knobs(&[flag])),
        }
    }
}
