//! The service manager: what it hands to us, and what it is told.
//!
//! | variable | what becomes of it |
//! |---|---|
//! | `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES` | sockets that it bound take the place of ours: [`sockets`] |
//! | `NOTIFY_SOCKET` | it is told the phases, and what is in flight: [`notifier`] |
//! | `WATCHDOG_USEC`, `WATCHDOG_PID` | it is told that we are alive, unless a worker is wedged |
//!
//! None of them is unset: no other thread may look at the environment meanwhile, and that is not ours to promise. A child
//! process is safe from `LISTEN_*` and `WATCHDOG_*` by their process id.
//!
//! Not used: `MAINPID`, because the manager knows whom it started, and a service that inherited `NOTIFY_SOCKET` by accident
//! would take its parent's place; `RELOADING`, because nothing reloads here.

mod notifier;
mod sockets;

use self::{notifier::Notifier, sockets::Handed};
use crate::{
    host::HostConfig,
    os::{NotifySocket, OsNetwork},
};
use std::time::Duration;

/// What the environment says of a service manager.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager {
    handed: Vec<Handed>,
    /// Where it listens, or why it cannot be told anything.
    notify: Option<Result<NotifySocket, String>>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads the environment. Sockets are handed over once in the life of a process: whoever asks again gets none. Call it
    /// before anything else is opened, so that a wrong `LISTEN_FDS` cannot mean a descriptor of ours.
    ///
    /// # Errors
    /// A sentence that names the variable, if it hands over what is no socket.
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

    /// Puts the inherited sockets in the place of the configured addresses, and lets the host tell the manager of its life.
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

/// How long the manager waits for a sign of life, if it does.
fn watchdog() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|micros| *micros > 0).map(Duration::from_micros)
}
