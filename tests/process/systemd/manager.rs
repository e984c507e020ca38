//! The service manager's end of `NOTIFY_SOCKET`.

use crate::support::{aside, now, scratch_path, until};
use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Instant,
};

/// Records every notification, in order.
pub(crate) struct Manager {
    /// The value of `NOTIFY_SOCKET`.
    pub(crate) address: String,
    heard: Arc<Mutex<Vec<Notification>>>,
    path: Option<PathBuf>,
}

/// A line, and the time of its arrival.
#[derive(Clone, Debug)]
pub(crate) struct Notification {
    pub(crate) at: Instant,
    pub(crate) line: String,
}

impl Manager {
    pub(crate) fn at_a_path() -> Self {
        let path = scratch_path("notify");
        let mut manager =
            Self::hearing(UnixDatagram::bind(&path).unwrap(), path.display().to_string());
        manager.path = Some(path);
        manager
    }

    pub(crate) fn with_an_abstract_name() -> Self {
        let name = scratch_path("notify").display().to_string();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self::hearing(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    fn hearing(socket: UnixDatagram, address: String) -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let told = heard.clone();
        // This thread ends with the process of the test.
        aside(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let message = std::str::from_utf8(&buffer[..length]).unwrap();
                let at = now();
                told.lock()
                    .unwrap()
                    .extend(message.lines().map(|line| Notification { at, line: line.to_owned() }));
            }
        });
        Self { address, heard, path: None }
    }

    /// Returns all lines until now.
    pub(crate) fn heard(&self) -> Vec<Notification> {
        self.heard.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.heard().into_iter().map(|heard| heard.line).collect()
    }

    /// Returns the number of lines that begin with `begin`.
    pub(crate) fn count(&self, begin: &str) -> usize {
        self.lines().iter().filter(|line| line.starts_with(begin)).count()
    }

    /// Waits for a line that begins with `begin`.
    #[track_caller]
    pub(crate) fn wait_for(&self, begin: &str) {
        until(&format!("{begin} at the manager"), || (self.count(begin) > 0).then_some(()));
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}
