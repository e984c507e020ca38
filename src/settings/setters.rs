//! Settings in code, as a chain.

use super::{PortSharing, Settings};
use crate::{
    http::Limits,
    lifecycle::{Plan, Signal},
    runtime::ListenAddress,
};
use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

/// Setters for a chain. Most set the field of their name.
impl Settings {
    /// Adds an address of the main server. The first one replaces the default.
    #[must_use]
    pub fn main_address(mut self, address: ListenAddress) -> Self {
        self.main_addresses.push(address);
        self
    }

    /// Adds an address to [`proxy_protocol_addresses`](#structfield.proxy_protocol_addresses).
    #[must_use]
    pub fn proxy_protocol_address(mut self, address: ListenAddress) -> Self {
        self.proxy_protocol_addresses.push(address);
        self
    }

    /// Sets [`internal_address`](#structfield.internal_address).
    #[must_use]
    pub fn internal_address(mut self, address: ListenAddress) -> Self {
        self.internal_address = address;
        self
    }

    /// Adds a name to [`internal_hosts`](#structfield.internal_hosts).
    #[must_use]
    pub fn internal_host(mut self, name: impl Into<String>) -> Self {
        self.internal_hosts.push(name.into());
        self
    }

    /// Sets [`stop_signals`](#structfield.stop_signals). With none, only a failure or a
    /// [`ShutdownHandle`](crate::ShutdownHandle) stops the host.
    #[must_use]
    pub fn stop_signals(mut self, signals: impl IntoIterator<Item = Signal>) -> Self {
        self.stop_signals = signals.into_iter().collect();
        self
    }

    /// Sets [`app_version`](#structfield.app_version).
    #[must_use]
    pub fn app_version(mut self, version: impl Into<String>) -> Self {
        self.app_version = version.into();
        self
    }

    /// Sets [`request_timeout`](#structfield.request_timeout).
    #[must_use]
    pub fn request_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Sets [`plan`](#structfield.plan).
    #[must_use]
    pub fn plan(mut self, plan: Plan) -> Self {
        self.plan = plan;
        self
    }

    /// Sets [`grace_period`](#structfield.grace_period).
    #[must_use]
    pub fn grace_period(mut self, grace_period: Duration) -> Self {
        self.grace_period = grace_period;
        self
    }

    /// Sets [`limits`](#structfield.limits).
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets [`workers`](#structfield.workers).
    #[must_use]
    pub fn workers(mut self, workers: Option<NonZeroUsize>) -> Self {
        self.workers = workers;
        self
    }

    /// Sets [`port_sharing`](#structfield.port_sharing).
    #[must_use]
    pub fn port_sharing(mut self, port_sharing: PortSharing) -> Self {
        self.port_sharing = port_sharing;
        self
    }

    /// Sets [`unix_mode`](#structfield.unix_mode).
    #[must_use]
    pub fn unix_mode(mut self, mode: Option<u32>) -> Self {
        self.unix_mode = mode;
        self
    }

    /// Sets [`backlog`](#structfield.backlog).
    #[must_use]
    pub fn backlog(mut self, backlog: u32) -> Self {
        self.backlog = backlog;
        self
    }

    /// Sets [`tcp_nodelay`](#structfield.tcp_nodelay).
    #[must_use]
    pub fn tcp_nodelay(mut self, nodelay: bool) -> Self {
        self.tcp_nodelay = nodelay;
        self
    }

    /// Sets [`tls_cert`](#structfield.tls_cert) and [`tls_key`](#structfield.tls_key).
    #[must_use]
    pub fn tls_files(mut self, cert: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        (self.tls_cert, self.tls_key) = (Some(cert.into()), Some(key.into()));
        self
    }

    /// Sets [`tcp_keepalive`](#structfield.tcp_keepalive).
    #[must_use]
    pub fn tcp_keepalive(mut self, keepalive: Option<Duration>) -> Self {
        self.tcp_keepalive = keepalive;
        self
    }
}
