//! The service manager: what this process receives from it, and what it sends back.
//!
//! | variable | effect |
//! |---|---|
//! | `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES` | inherited sockets replace ours: [`sockets`] |
//! | `NOTIFY_SOCKET` | receives the phases and the requests in flight: [`notifier`] |
//! | `WATCHDOG_USEC`, `WATCHDOG_PID` | receives signs of life, unless a worker is wedged |
//!
//! None of the variables is unset: other threads may read the environment at the same time, and
//! lameduck cannot rule that out. The process id protects child processes from `LISTEN_*` and
//! `WATCHDOG_*`.
//!
//! `MAINPID` is never sent: the manager knows the process that it started. A child that inherited
//! `NOTIFY_SOCKET` would otherwise take its parent's place.

mod notifier;
mod sockets;

pub(crate) use sockets::inspect;

use self::notifier::Notifier;
use crate::{
    host_config::HostConfig,
    os::{NotifySocket, OsNetwork},
};
use std::time::Duration;

/// For a host that was built with [`Builder::systemd`](crate::Builder::systemd): puts the inherited
/// sockets in the place of the configured addresses, and reports the host's phases to the service
/// manager. Sockets are handed over once in a process: a second host gets none.
///
/// # Errors
/// A sentence that names the variable or the socket that cannot be used.
pub(crate) fn install(config: &mut HostConfig, network: &OsNetwork) -> Result<(), String> {
    if !config.systemd {
        return Ok(());
    }
    sockets::inherit(sockets::take()?, &mut config.settings, network)?;
    let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
    let Some(address) = address else { return Ok(()) };
    match NotifySocket::to(&address) {
        Ok(socket) => {
            let notifier = Notifier::new(socket, watchdog());
            config.observer = Some(Box::new(move |status| Box::pin(notifier.observe(status))));
        }
        Err(error) => {
            let error = format!("NOTIFY_SOCKET={}: {error}", address.to_string_lossy());
            crate::log::warn!(error, "cannot notify the service manager");
        }
    }
    Ok(())
}

/// Returns how long the manager waits for a sign of life, if its watchdog is enabled.
fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|micros| *micros > 0).map(Duration::from_micros)
}
