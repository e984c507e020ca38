//! Unix sockets: a leftover path is taken over, and a path in use is left alone.

use crate::support::os::{Scratch, accept, bounded, listen, listen_one};
use futures_util::future::{Either, select};
use lameduck::{
    os::OsNetwork,
    runtime::{Address, ListenAddress, Listener, Network, Reservation, ServerRole},
};
use std::{
    future::poll_fn,
    io::ErrorKind,
    os::unix::net::{UnixListener, UnixStream},
    sync::Barrier,
};

#[tokio::test]
async fn a_socket_of_a_dead_process_is_taken_over() {
    let scratch = Scratch::new("stale");
    let path = scratch.path().join("app.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "the standard library leaves its path behind, as a killed process does");
    let mut listener = listen_one(&ListenAddress::Unix(path.clone())).await;
    let _client = UnixStream::connect(&path).unwrap();
    let (_server, peer) = accept(&mut listener).await.unwrap();
    assert_eq!(peer, Address::Unix(None));
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_that_accepts_connections_is_in_use() {
    let scratch = Scratch::new("in-use");
    let address = ListenAddress::Unix(scratch.path().join("app.sock"));
    let _first = listen_one(&address).await;
    let error = OsNetwork::default().reserve(&address, ServerRole::Main, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_file_that_is_not_a_socket_is_left_alone() {
    let scratch = Scratch::new("file");
    let path = scratch.path().join("precious");
    std::fs::write(&path, "data").unwrap();
    let error = OsNetwork::default()
        .reserve(&ListenAddress::Unix(path.clone()), ServerRole::Main, 1)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"data");
}

#[tokio::test]
async fn the_path_of_a_successor_is_not_unlinked() {
    let scratch = Scratch::new("successor");
    let path = scratch.path().join("app.sock");
    let first = listen_one(&ListenAddress::Unix(path.clone())).await;
    std::fs::remove_file(&path).unwrap();
    let mut successor = listen_one(&ListenAddress::Unix(path.clone())).await;
    drop(first);
    let _client = UnixStream::connect(&path).unwrap();
    accept(&mut successor).await.unwrap();
}

#[tokio::test]
async fn a_reservation_that_lost_its_path_fails_to_listen() {
    let scratch = Scratch::new("lost");
    let address = ListenAddress::Unix(scratch.path().join("app.sock"));
    let first = OsNetwork::default().reserve(&address, ServerRole::Main, 1).unwrap();
    // A reserved socket that does not listen yet looks like a leftover.
    let _second = OsNetwork::default().reserve(&address, ServerRole::Main, 1).unwrap();
    assert_eq!(first.listen().await.unwrap_err().kind(), ErrorKind::AddrInUse);
}

#[tokio::test]
async fn a_dropped_reservation_removes_its_path() {
    let scratch = Scratch::new("reservation");
    let path = scratch.path().join("app.sock");
    drop(
        OsNetwork::default()
            .reserve(&ListenAddress::Unix(path.clone()), ServerRole::Main, 2)
            .unwrap(),
    );
    assert!(!path.exists());
}

#[tokio::test]
async fn sibling_listeners_share_one_queue_and_the_path_stays_until_the_last_closes() {
    let scratch = Scratch::new("siblings");
    let path = scratch.path().join("app.sock");
    let mut siblings = listen(&ListenAddress::Unix(path.clone()), 2).await.unwrap();
    let (mut one, mut other) = (siblings.remove(0), siblings.remove(0));
    let _client = UnixStream::connect(&path).unwrap();
    match bounded(select(poll_fn(|cx| one.poll_accept(cx)), poll_fn(|cx| other.poll_accept(cx))))
        .await
    {
        Either::Left((accepted, _)) | Either::Right((accepted, _)) => drop(accepted.unwrap()),
    }
    drop(one);
    let _client = UnixStream::connect(&path).unwrap();
    accept(&mut other).await.unwrap();
    drop(other);
    assert!(!path.exists());
}

/// Only the umask decided which users may connect. A mode that is configured must apply before the
/// socket listens.
#[tokio::test]
async fn a_socket_has_its_configured_permissions_before_it_listens() {
    use lameduck::os::SocketOptions;
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new("mode");
    let path = scratch.path().join("app.sock");
    for mode in [0o600, 0o666] {
        let network = OsNetwork::new(SocketOptions::default().unix_mode(Some(mode)));
        let _reserved =
            network.reserve(&ListenAddress::Unix(path.clone()), ServerRole::Main, 1).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
    }
}

#[test]
fn an_abstract_name_is_not_a_path() {
    for name in ["@app", "\0app"] {
        let error = OsNetwork::default()
            .reserve(&ListenAddress::Unix(name.into()), ServerRole::Main, 1)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}

/// Two instances started together. One found the socket of the other before that listened, and
/// removed its path afterwards: both ran, and no client reached the other (P14). One may listen.
#[test]
fn of_two_instances_that_start_together_on_a_path_one_listens() {
    const ROUNDS: usize = 1_000;
    let scratch = Scratch::new("together");
    let address = ListenAddress::Unix(scratch.path().join("app.sock"));
    let begin = Barrier::new(2);
    let start = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let start = |_| {
            begin.wait();
            let listening = OsNetwork::default()
                .reserve(&address, ServerRole::Main, 1)
                .and_then(|reserved| runtime.block_on(reserved.listen()));
            begin.wait();
            listening.map(|_| ()).map_err(|error| error.kind())
        };
        (0..ROUNDS).map(start).collect::<Vec<_>>()
    };
    let (ours, theirs) = std::thread::scope(|scope| {
        let theirs = scope.spawn(start);
        (start(), theirs.join().unwrap())
    });
    for (round, both) in ours.into_iter().zip(theirs).enumerate() {
        let in_use = Err(ErrorKind::AddrInUse);
        assert!(both == (Ok(()), in_use) || both == (in_use, Ok(())), "round {round}: {both:?}");
    }
}
