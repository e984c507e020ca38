//! Shared by the tests of `os`, in this process and in child processes.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use lameduck::{
    os::{OsListener, OsNetwork, Socket},
    runtime::{Address, ListenAddress, Listener, Network, Reservation, ServerRole},
};
use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Awaits `future` for at most 20 seconds.
#[expect(clippy::disallowed_methods, reason = "the bound of a test on real sockets is real time")]
pub(crate) async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it took more than 20 seconds")
}

pub(crate) fn any_port() -> ListenAddress {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) async fn listen(
    address: &ListenAddress,
    listeners: usize,
) -> io::Result<Vec<OsListener>> {
    OsNetwork::default().reserve(address, ServerRole::Main, listeners)?.listen().await
}

pub(crate) async fn listen_one(address: &ListenAddress) -> OsListener {
    listen(address, 1).await.unwrap().remove(0)
}

pub(crate) async fn accept(listener: &mut OsListener) -> io::Result<(Socket, Address)> {
    bounded(poll_fn(|cx| listener.poll_accept(cx))).await
}

pub(crate) fn tcp(address: &Address) -> SocketAddr {
    address.tcp().expect("a TCP address")
}

/// A directory that is removed after the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lameduck-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
