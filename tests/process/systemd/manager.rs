//! The service manager's end of `NOTIFY_SOCKET`.

use crate::support::{aside, now, scratch_path, until, until_holds};
use std::{
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Instant,
};

/// Records every notification, in order.
pub(crate) struct Manager {
    /// The value of `NOTIFY_SOCKET`.
    pub(crate) address: String,
    heard: Arc<Mutex<Vec<Notification>>>,
    /// The empty messages that were received. Only [`Manager::heard`] sends them.
    empty: Arc<AtomicU64>,
    bound_to: SocketAddr,
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
        let empty = Arc::new(AtomicU64::new(0));
        let bound_to = socket.local_addr().unwrap();
        let (told, ends) = (heard.clone(), empty.clone());
        // This thread ends with the process of the test.
        aside(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                let message = std::str::from_utf8(&buffer[..length]).unwrap();
                let at = now();
                told.lock()
                    .unwrap()
                    .extend(message.lines().map(|line| Notification { at, line: line.to_owned() }));
                if length == 0 {
                    ends.fetch_add(1, SeqCst);
                }
            }
        });
        Self { address, heard, empty, bound_to, path: None }
    }

    /// Returns all lines that were sent until now. The socket keeps their order, so that they have
    /// been received once an empty message after them has.
    pub(crate) fn heard(&self) -> Vec<Notification> {
        let before = self.empty.load(SeqCst);
        UnixDatagram::unbound().unwrap().send_to_addr(&[], &self.bound_to).unwrap();
        until_holds("all notifications", || self.empty.load(SeqCst) > before);
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
