//! The single table for flags, environment and documents.

use super::{
    Settings,
    least::{HEADER_BYTES_MIN, TCP_KEEPALIVE_MAX, TCP_KEEPALIVE_MIN},
    parse::{
        parse_address, parse_count, parse_half_close, parse_host_name, parse_mode, parse_port,
        parse_positive_duration, parse_signals, parse_span, parse_switch,
    },
};
use crate::runtime::ListenAddress;
use std::{fmt, num::NonZeroUsize};

/// One row of the table.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Setting {
    /// The flag, without its dashes.
    pub flag: &'static str,
    /// The environment variable.
    pub variable: &'static str,
    /// The form of a value, for help texts.
    pub value: &'static str,
    /// The default, as text.
    pub default: &'static str,
    /// The effect of the setting.
    pub help: &'static str,
    pub(super) apply: fn(&mut Settings, &str) -> Result<(), String>,
}

impl Setting {
    /// Whether the setting may be given several times (in the environment: separated by commas).
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        matches!(self.flag, "addr" | "proxy-protocol" | "internal-hosts")
    }

    /// For a port the address that overrides it; for an address the port that it overrides.
    pub(super) fn alternative(&self) -> Option<&'static Self> {
        let flag = match self.flag {
            "port" => "addr",
            "addr" => "port",
            "internal-port" => "internal-addr",
            "internal-addr" => "internal-port",
            _ => return None,
        };
        SETTINGS.iter().find(|setting| setting.flag == flag)
    }

    pub(super) fn is_port(&self) -> bool {
        self.flag.ends_with("port")
    }

    pub(super) fn split(&self, value: &str) -> Vec<String> {
        if self.is_repeatable() {
            value.split(',').map(|part| part.trim().to_owned()).collect()
        } else {
            vec![value.to_owned()]
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting")
            .field("flag", &self.flag)
            .field("variable", &self.variable)
            .finish_non_exhaustive()
    }
}

/// All settings, in the order of `--help`.
pub const SETTINGS: &[Setting] = &[
    Setting {
        flag: "port",
        variable: "APP_PORT",
        value: "PORT",
        default: "8080",
        help: "Port of the main server on all addresses (IPv6 and IPv4); 0 lets the system choose",
        apply: |settings, value| {
            settings.main_addresses.push(ListenAddress::Port(parse_port(value, "APP_ADDR")?));
            Ok(())
        },
    },
    Setting {
        flag: "addr",
        variable: "APP_ADDR",
        value: "ADDRESS",
        default: "[::]:8080",
        help: "Address of the main server: [::]:8080 (which includes IPv4), 127.0.0.1:0 or \
               unix:/run/app.sock; may be repeated (in the variable: separated by commas); \
               overrides the port",
        apply: |settings, value| {
            settings.main_addresses.push(parse_address(value)?);
            Ok(())
        },
    },
    Setting {
        flag: "proxy-protocol",
        variable: "APP_PROXY_PROTOCOL",
        value: "ADDRESS",
        default: "none",
        help: "Address of the main server on which each connection begins with a PROXY header \
               (version 1 or 2); may be repeated (in the variable: separated by commas)",
        apply: |settings, value| {
            settings.proxy_protocol_addresses.push(parse_address(value)?);
            Ok(())
        },
    },
    Setting {
        flag: "unix-mode",
        variable: "APP_UNIX_MODE",
        value: "MODE",
        default: "from the umask",
        help: "Octal permissions of the Unix sockets that this process binds: 660 lets the owner \
               and the group connect",
        apply: |settings, value| parse_mode(value).map(|mode| settings.unix_mode = Some(mode)),
    },
    Setting {
        flag: "internal-port",
        variable: "INTERNAL_PORT",
        value: "PORT",
        default: "8081",
        help: "Port of the internal server (probes, status) on all addresses",
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
        help: "Address of the internal server; overrides the internal port",
        apply: |settings, value| {
            settings.internal_address = parse_address(value)?;
            Ok(())
        },
    },
    Setting {
        flag: "internal-hosts",
        variable: "INTERNAL_HOSTS",
        value: "NAME",
        default: "none",
        help: "Host name that the internal server accepts, in addition to IP addresses and \
               localhost: app.default.svc, .default.svc for all names below it, * for any name; \
               may be repeated (in the variable: separated by commas)",
        apply: |settings, value| {
            settings.internal_hosts.push(parse_host_name(value)?);
            Ok(())
        },
    },
    Setting {
        flag: "app-version",
        variable: "APP_VERSION",
        value: "VERSION",
        default: "the crate version",
        help: "Version of the app, available to every handler",
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
        help: "Deadline of every request, from its complete head to the response head; 0s disables \
               it",
        apply: |settings, value| {
            let timeout = parse_span(value)?;
            settings.request_timeout = (!timeout.is_zero()).then_some(timeout);
            Ok(())
        },
    },
    Setting {
        flag: "start",
        variable: "STARTUP_LIMIT",
        value: "DURATION",
        default: "60s",
        help: "Time limit of the start: start hooks and opening the listeners",
        apply: |settings, value| parse_span(value).map(|span| settings.plan.start = span),
    },
    Setting {
        flag: "lame-duck",
        variable: "SHUTDOWN_LAME_DUCK",
        value: "DURATION",
        default: "5s",
        help: "Lame duck delay: from the stop request until the listeners close; readiness fails, \
               all requests are served",
        apply: |settings, value| parse_span(value).map(|span| settings.plan.lame_duck = span),
    },
    Setting {
        flag: "drain",
        variable: "SHUTDOWN_DRAIN",
        value: "DURATION",
        default: "10s",
        help: "Drain limit: time for the requests in flight to finish",
        apply: |settings, value| parse_span(value).map(|span| settings.plan.drain = span),
    },
    Setting {
        flag: "streams",
        variable: "SHUTDOWN_STREAMS",
        value: "DURATION",
        default: "0s",
        help: "Budget of long streams, from the start of the drain; their ends are spread over it. \
               Other requests have only the drain",
        apply: |settings, value| parse_span(value).map(|span| settings.plan.streams = span),
    },
    Setting {
        flag: "cancel",
        variable: "SHUTDOWN_CANCEL",
        value: "DURATION",
        default: "3s",
        help: "Cancel wait: contexts are cancelled and handlers may return; then the rest is \
               aborted",
        apply: |settings, value| parse_span(value).map(|span| settings.plan.cancel = span),
    },
    Setting {
        flag: "cleanup",
        variable: "SHUTDOWN_CLEANUP",
        value: "DURATION",
        default: "5s",
        help: "Total time limit of all stop hooks",
        apply: |settings, value| parse_span(value).map(|span| settings.plan.cleanup = span),
    },
    Setting {
        flag: "internal-close",
        variable: "SHUTDOWN_INTERNAL_CLOSE",
        value: "DURATION",
        default: "1s",
        help: "Drain limit of the internal server, which closes last",
        apply: |settings, value| parse_span(value).map(|span| settings.plan.internal_close = span),
    },
    Setting {
        flag: "grace-period",
        variable: "SHUTDOWN_GRACE_PERIOD",
        value: "DURATION",
        default: "30s",
        help: "Grace period of the platform; the worst-case shutdown must fit into it; 0s disables \
               the check",
        apply: |settings, value| parse_span(value).map(|span| settings.grace_period = span),
    },
    Setting {
        flag: "connections-max",
        variable: "APP_CONNECTIONS_MAX",
        value: "COUNT",
        default: "the descriptor limit minus 64, and 8 per worker",
        help: "Maximum number of open connections; at the limit, idle ones are closed for new \
               ones, or new ones wait",
        apply: |settings, value| {
            let count = parse_count(value, 1, 10_000_000)?;
            settings.limits = settings.limits.connections_max(count);
            Ok(())
        },
    },
    Setting {
        flag: "header-bytes-max",
        variable: "APP_HEADER_BYTES_MAX",
        value: "BYTES",
        default: "32768",
        help: "Maximum size of a request head in bytes; a larger one gets a 431",
        apply: |settings, value| {
            parse_count(value, HEADER_BYTES_MIN, 1024 * 1024)
                .map(|count| settings.limits.header_bytes_max = count)
        },
    },
    Setting {
        flag: "headers-max",
        variable: "APP_HEADERS_MAX",
        value: "COUNT",
        default: "100",
        help: "Maximum number of header fields of a request; more get a 431",
        apply: |settings, value| {
            parse_count(value, 1, 10_000).map(|count| settings.limits.headers_max = count)
        },
    },
    Setting {
        flag: "first-byte-timeout",
        variable: "APP_FIRST_BYTE_TIMEOUT",
        value: "DURATION",
        default: "60s",
        help: "Maximum time from the accept of a connection to its first byte; then it is closed",
        apply: |settings, value| {
            parse_positive_duration(value).map(|span| settings.limits.first_byte_timeout = span)
        },
    },
    Setting {
        flag: "header-timeout",
        variable: "APP_HEADER_TIMEOUT",
        value: "DURATION",
        default: "10s",
        help: "Maximum time from the first byte of a request head to its last; then the client \
               gets a 408",
        apply: |settings, value| {
            parse_positive_duration(value).map(|span| settings.limits.header_timeout = span)
        },
    },
    Setting {
        flag: "send-timeout",
        variable: "APP_SEND_TIMEOUT",
        value: "DURATION",
        default: "30s",
        help: "Maximum time without a byte sent while a response is waiting to be sent; then the \
               response is aborted",
        apply: |settings, value| {
            parse_positive_duration(value).map(|span| settings.limits.send_timeout = span)
        },
    },
    Setting {
        flag: "body-timeout",
        variable: "APP_BODY_TIMEOUT",
        value: "DURATION",
        default: "30s",
        help: "Maximum time without a byte received while a handler waits for the body; then the \
               client gets a 503. If a task waits for it after the response, an HTTP/1 connection \
               is closed then",
        apply: |settings, value| {
            parse_positive_duration(value).map(|span| settings.limits.body_timeout = span)
        },
    },
    Setting {
        flag: "keep-alive",
        variable: "APP_KEEP_ALIVE",
        value: "DURATION",
        default: "620s",
        help: "Maximum idle time of a connection; must be longer than the idle timeout of any \
               balancer",
        apply: |settings, value| {
            parse_positive_duration(value).map(|span| settings.limits.keep_alive = span)
        },
    },
    Setting {
        flag: "stop-signals",
        variable: "APP_STOP_SIGNALS",
        value: "SIGNALS",
        default: "TERM,INT,QUIT,HUP",
        help: "Signals that request the stop, separated by commas; the others of the four are \
               ignored, also during the stop",
        apply: |settings, value| {
            parse_signals(value).map(|signals| settings.stop_signals = signals)
        },
    },
    Setting {
        flag: "connection-age-max",
        variable: "APP_CONNECTION_AGE_MAX",
        value: "DURATION",
        default: "0s",
        help: "Maximum age of a connection: then it announces its close, up to a tenth earlier; 0s \
               for no limit",
        apply: |settings, value| {
            let age = parse_span(value)?;
            settings.limits.connection_age_max = (!age.is_zero()).then_some(age);
            Ok(())
        },
    },
    Setting {
        flag: "half-close",
        variable: "APP_HALF_CLOSE",
        value: "POLICY",
        default: "serve",
        help: "Action when a client half-closes an HTTP/1 connection while its request runs: serve \
               (send the response, with the context cancelled), drop (the request), or ignore",
        apply: |settings, value| {
            parse_half_close(value).map(|policy| settings.limits.half_close = policy)
        },
    },
    Setting {
        flag: "http2-streams-max",
        variable: "APP_HTTP2_STREAMS_MAX",
        value: "COUNT",
        default: "200",
        help: "Maximum number of concurrent streams on an HTTP/2 connection",
        apply: |settings, value| {
            let count = parse_count(value, 1, 1_000_000)?;
            settings.limits.http2_streams_max = u32::try_from(count).unwrap_or(u32::MAX);
            Ok(())
        },
    },
    Setting {
        flag: "backlog",
        variable: "APP_BACKLOG",
        value: "COUNT",
        default: "4096",
        help: "Maximum length of the accept queue of each worker; net.core.somaxconn caps it",
        apply: |settings, value| {
            settings.backlog = u32::try_from(parse_count(value, 1, 1_000_000)?).unwrap_or(u32::MAX);
            Ok(())
        },
    },
    Setting {
        flag: "tcp-nodelay",
        variable: "APP_TCP_NODELAY",
        value: "on|off",
        default: "on",
        help: "Send small writes without delay (TCP_NODELAY); off makes pipelined requests ten \
               times slower",
        apply: |settings, value| parse_switch(value).map(|on| settings.tcp_nodelay = on),
    },
    Setting {
        flag: "tcp-keepalive",
        variable: "APP_TCP_KEEPALIVE",
        value: "DURATION",
        default: "60s",
        help: "Idle time before the kernel sends keep-alive probes: four, at intervals of a \
               quarter of it; then the connection is closed; 1s to 32767s, 0s disables the probes",
        apply: |settings, value| {
            let silence = parse_span(value)?;
            if !silence.is_zero() && silence < TCP_KEEPALIVE_MIN {
                return Err("shorter than 1s".to_owned());
            }
            if silence > TCP_KEEPALIVE_MAX {
                return Err("longer than 32767s".to_owned());
            }
            settings.tcp_keepalive = (!silence.is_zero()).then_some(silence);
            Ok(())
        },
    },
    Setting {
        flag: "tls-cert",
        variable: "APP_TLS_CERT",
        value: "FILE",
        default: "none",
        help: "Certificate chain, as PEM: with it the TCP listeners of the main server speak TLS; \
               read again when it changes",
        apply: |settings, value| {
            settings.tls_cert = Some(value.into());
            Ok(())
        },
    },
    Setting {
        flag: "tls-key",
        variable: "APP_TLS_KEY",
        value: "FILE",
        default: "none",
        help: "Private key of the certificate, as PEM",
        apply: |settings, value| {
            settings.tls_key = Some(value.into());
            Ok(())
        },
    },
    Setting {
        flag: "tls-handshake-timeout",
        variable: "APP_TLS_HANDSHAKE_TIMEOUT",
        value: "DURATION",
        default: "10s",
        help: "Maximum time from the accept of a connection to the end of its TLS handshake; then \
               it is closed",
        apply: |settings, value| {
            parse_positive_duration(value).map(|span| settings.limits.tls_handshake_timeout = span)
        },
    },
    Setting {
        flag: "workers",
        variable: "APP_WORKERS",
        value: "COUNT",
        default: "the available cores",
        help: "Number of worker threads of the main server",
        apply: |settings, value| {
            settings.workers = NonZeroUsize::new(parse_count(value, 1, 1024)?);
            Ok(())
        },
    },
];
