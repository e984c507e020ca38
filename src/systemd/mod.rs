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
//! `MAINPID` is not used: the manager knows the process that it started, and a service that
//! inherited `NOTIFY_SOCKET` by accident would take its parent's place. `RELOADING` is not used,
//! because nothing reloads here.

mod notifier;
mod sockets;

use self::{notifier::Notifier, sockets::Handed};
use crate::{
    host::HostConfig,
    os::{NotifySocket, OsNetwork},
};
use std::time::Duration;

/// The service manager's part of the environment.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    handed: Vec<Handed>,
    /// The manager's notification socket, or why it cannot be used.
    notify: Option<Result<NotifySocket, String>>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads the environment. Sockets are returned once per process; later calls return none. Call
    /// it before anything else is opened, so that a wrong `LISTEN_FDS` cannot refer to a descriptor
    /// that this process opened.
    ///
    /// # Errors
    /// A sentence that names the variable, if a descriptor in it is not a socket.
    pub(crate) fn from_env() -> Result<Self, String> {
        let handed = sockets::take()?;
        let notify = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty()).map(
            |address| {
                NotifySocket::to(&address).map_err(|error| {
                    format!("NOTIFY_SOCKET={}: {error}", address.to_string_lossy())
                })
            },
        );
        Ok(Self { handed, notify, watchdog: watchdog() })
    }

    /// Replaces the configured addresses by the inherited sockets, and registers the notifications
    /// to the manager with the host.
    ///
    /// # Errors
    /// A sentence that names the socket which cannot be used.
    pub(crate) fn install(
        self,
        config: &mut HostConfig,
        network: &OsNetwork,
    ) -> Result<(), String> {
        sockets::inherit(self.handed, &mut config.settings, network)?;
        match self.notify {
            Some(Ok(socket)) => {
                let notifier = Notifier::new(socket, self.watchdog);
                config.observer = Some(Box::new(move |status| Box::pin(notifier.observe(status))));
            }
            Some(Err(error)) => {
                crate::log::warn!(error, "the service manager cannot be told anything");
            }
            None => {}
        }
        Ok(())
    }
}

/// Returns how long the manager waits for a sign of life, if its watchdog is enabled.
fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|micros| *micros > 0).map(Duration::from_micros)
}
