//! What the tests of this family share.

use lameduck::{
    env::{Address, ListenAddress, Listener, Network, Reservation},
    os::{OsListener, OsNetwork, Socket},
};
use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const CHILD: &str = "LAMEDUCK_TEST_CHILD";

/// Fails instead of hanging.
#[expect(clippy::disallowed_methods, reason = "the bound of a test on real sockets is real time")]
pub(crate) async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it took more than 20 seconds")
}

pub(crate) fn any_port() -> ListenAddress {
    "127.0.0.1:0".parse().unwrap()
}

pub(crate) async fn listen(address: &ListenAddress, listeners: usize) -> io::Result<Vec<OsListener>> {
    OsNetwork::default().reserve(address, listeners)?.listen().await
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

/// Whether this is the child that `child` started.
pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// The name of the test it stands in, as the test runner knows it.
macro_rules! this_test {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        let path = path.strip_suffix("::here").unwrap();
        path.strip_suffix("::{{closure}}").unwrap_or(path).split_once("::").unwrap().1
    }};
}
pub(crate) use this_test;

/// The test of this name again, alone in a process of its own.
pub(crate) fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, "1");
    command
}

/// A directory that goes away with the test.
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
