//! Parsers for the values of settings.

use crate::{http::HalfClose, lifecycle::Signal, runtime::ListenAddress};
use std::{error::Error, fmt, time::Duration};

/// The maximum of every duration.
const DURATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Parses a duration with a unit: `500ms`, `5s`, `1m 30s`. At most 24 hours.
///
/// # Errors
/// [`ParseDurationError`], with what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, ParseDurationError> {
    let error = ParseDurationError("expected a duration with a unit, such as 500ms, 5s or 1m");
    let span = humantime::parse_duration(text).map_err(|_| error)?;
    if span > DURATION_MAX {
        return Err(ParseDurationError("longer than 24h"));
    }
    Ok(span)
}

/// The text is not a duration that a setting accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseDurationError(&'static str);

impl fmt::Display for ParseDurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for ParseDurationError {}

pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

pub(super) fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    let span = parse_span(text)?;
    if span.is_zero() {
        return Err("must be longer than 0s".to_owned());
    }
    Ok(span)
}

pub(super) fn parse_count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    text.parse()
        .ok()
        .filter(|count| (least..=most).contains(count))
        .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
}

pub(super) fn parse_address(text: &str) -> Result<ListenAddress, String> {
    text.parse().map_err(|error: std::io::Error| error.to_string())
}

pub(super) fn parse_host_name(text: &str) -> Result<String, String> {
    let is_of_a_name =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text == "*" || (!text.trim_matches('.').is_empty() && text.bytes().all(is_of_a_name)) {
        return Ok(text.to_owned());
    }
    Err("expected a host name without a port, such as app.default.svc or .default.svc, or *"
        .to_owned())
}

pub(super) fn parse_port(text: &str, address_variable: &str) -> Result<u16, String> {
    text.parse().map_err(|_| {
        if text.contains("://") {
            // Kubernetes sets NAME_PORT for every Service of the namespace, as Docker links did. A
            // Service named `app` is enough.
            format!(
                "expected a port from 0 to 65535; this looks like what Kubernetes injects for a \
                 Service of that name: set enableServiceLinks: false in the pod, rename the \
                 Service, or set {address_variable}, which overrides it"
            )
        } else {
            "expected a port from 0 to 65535".to_owned()
        }
    })
}

/// All permission bits of a file that have a meaning for a socket.
pub(super) const MODE_MAX: u32 = 0o777;

pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= MODE_MAX && !text.starts_with('+'));
    mode.ok_or_else(|| "expected permissions in octal, from 0 to 777, such as 660".to_owned())
}

pub(super) fn parse_half_close(text: &str) -> Result<HalfClose, String> {
    match text {
        "serve" => Ok(HalfClose::Serve),
        "drop" => Ok(HalfClose::Drop),
        "ignore" => Ok(HalfClose::Ignore),
        _ => Err("expected serve, drop or ignore".to_owned()),
    }
}

/// Parses names of signals, with or without `SIG`, separated by commas.
pub(super) fn parse_signals(text: &str) -> Result<Vec<Signal>, String> {
    let parse = |name: &str| {
        let name = name.trim();
        let is_of = |signal: &Signal| {
            let full = signal.name();
            name.eq_ignore_ascii_case(full) || name.eq_ignore_ascii_case(&full["SIG".len()..])
        };
        Signal::ALL.into_iter().find(is_of).ok_or_else(|| {
            format!("{name:?} is none of TERM, INT, QUIT and HUP, separated by commas")
        })
    };
    text.split(',').map(parse).collect()
}

pub(super) fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("expected on or off".to_owned()),
    }
}
