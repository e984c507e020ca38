//! Connection state that only the kernel has: peeked bytes, resets, unacknowledged bytes.

use crate::support::os::{accept, any_port, bounded, listen_one, tcp};
use futures_util::FutureExt;
use lameduck::{
    os::Socket,
    runtime::{IdlePoller, ListenAddress, Listener, Peek, Transport},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpStream},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn pair(address: ListenAddress) -> (Socket, TcpStream) {
    let mut listener = listen_one(&address).await;
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, tcp(&listener.local()).port())).unwrap();
    let (server, _) = accept(&mut listener).await.unwrap();
    (server, client)
}

/// `peek` calls the kernel, so the runtime need not run in between. Loopback delivers within the
/// call that sends.
#[tokio::test]
async fn a_peek_distinguishes_data_nothing_and_the_end() {
    let (mut server, mut client) = pair(any_port()).await;
    assert_eq!(server.peek(), Peek::Empty);
    client.write_all(b"x").unwrap();
    assert_eq!(server.peek(), Peek::Data);
    assert_eq!(server.peek(), Peek::Data, "a look takes nothing");
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.peek(), Peek::Data, "what came before the end is seen before it");
    assert_eq!(bounded(server.read_u8()).await.unwrap(), b'x');
    assert_eq!(server.peek(), Peek::Ended);
}

#[tokio::test]
async fn a_peek_at_a_reset_connection_finds_it_broken() {
    let (server, client) = pair(any_port()).await;
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(server.peek(), Peek::Broken);
}

#[tokio::test]
async fn a_unix_connection_can_be_peeked() {
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    let socket = Socket::from(ours);
    assert_eq!(socket.peek(), Peek::Empty);
    theirs.try_write(b"x").unwrap();
    assert_eq!(socket.peek(), Peek::Data);
}

#[tokio::test]
async fn a_cut_connection_ends_with_a_reset_and_not_with_a_fin() {
    let (mut server, mut client) = pair(any_port()).await;
    server.write_all(b"half an ans").await.unwrap();
    server.reset_on_drop();
    drop(server);
    let mut answer = Vec::new();
    assert_eq!(client.read_to_end(&mut answer).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_connection_that_is_not_cut_ends_with_a_fin() {
    let (mut server, mut client) = pair(any_port()).await;
    server.write_all(b"an answer").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"an answer");
}

#[cfg(target_os = "linux")]
async fn what_the_peer_has_no_room_for_is_unacknowledged(address: ListenAddress) {
    let (mut server, mut client) = pair(address).await;
    let Some(before) = server.unacknowledged() else { return }; // a sandbox without netlink
    assert_eq!(before, 0);
    // Writes until the kernel takes no more.
    let chunk = vec![0; 1 << 20];
    let mut sent = 0;
    while let Some(Ok(n)) = server.write(&chunk).now_or_never() {
        sent += n;
    }
    let waiting = server.unacknowledged().unwrap();
    assert!(waiting > 0 && waiting <= sent, "{waiting} of {sent}");
    let reader = std::thread::Builder::new()
        .spawn(move || {
            client.read_exact(&mut vec![0; sent]).unwrap();
            // A byte in return carries the acknowledgement of everything before it.
            client.write_all(b"x").unwrap();
            client
        })
        .unwrap();
    bounded(server.read_u8()).await.unwrap();
    assert_eq!(server.unacknowledged(), Some(0));
    reader.join().unwrap();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn bytes_beyond_the_buffer_of_an_ipv4_peer_are_unacknowledged() {
    what_the_peer_has_no_room_for_is_unacknowledged(any_port()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn bytes_beyond_the_buffer_of_an_ipv4_peer_of_a_dual_stack_socket_are_unacknowledged() {
    what_the_peer_has_no_room_for_is_unacknowledged(ListenAddress::Port(0)).await;
}

// At a stop the kernel was asked once for each idle connection, which took most of the time until
// the exit. One query must tell those apart whose clients lack bytes.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_query_finds_the_shut_connections_that_have_unacknowledged_bytes() {
    for address in [any_port(), ListenAddress::Port(0)] {
        let mut listener = listen_one(&address).await;
        let mut poller = listener.idle_poller().unwrap();
        let at = (Ipv4Addr::LOCALHOST, tcp(&listener.local()).port());
        let clients = [TcpStream::connect(at).unwrap(), TcpStream::connect(at).unwrap()];
        let (acknowledged, _) = accept(&mut listener).await.unwrap();
        let (mut stuck, _) = accept(&mut listener).await.unwrap();
        let chunk = vec![0; 1 << 20];
        while let Some(Ok(_)) = stuck.write(&chunk).now_or_never() {}
        let shut = [acknowledged, stuck].into_iter().enumerate().map(|(key, socket)| {
            let mut idle = poller.insert(socket, key).unwrap();
            idle.shutdown().now_or_never().unwrap().unwrap();
            idle
        });
        let shut: Vec<_> = shut.collect();
        let Some(one_by_one) = shut[1].unacknowledged() else { return }; // without netlink
        assert!(poller.query_shut());
        // The FIN counts as a byte until it is acknowledged, which loopback does at once.
        assert!(poller.unacknowledged(&shut[0]).unwrap() <= 1);
        assert_eq!(poller.unacknowledged(&shut[1]), Some(one_by_one));
        drop(clients);
    }
}

/// A property of the connection that its listener sets: no delay of small writes.
#[tokio::test]
async fn a_response_in_small_writes_is_not_delayed() {
    let (mut server, mut client) = pair(any_port()).await;
    for byte in [b"a", b"b", b"c"] {
        server.write_all(byte).await.unwrap();
    }
    let mut answer = [0; 3];
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"abc");
}

/// An accepted connection is reset if its process dies. A close by the process itself must not do
/// that to a response of which the peer has not acknowledged a byte.
#[tokio::test]
async fn a_response_beyond_the_buffer_of_the_peer_survives_the_drop() {
    for shut in [false, true] {
        let (mut server, mut client) = pair(any_port()).await;
        let chunk = vec![0; 1 << 20];
        let mut sent = 0;
        while let Some(Ok(n)) = server.write(&chunk).now_or_never() {
            sent += n;
        }
        if shut {
            server.shutdown().await.unwrap();
        }
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        assert_eq!(answer.len(), sent);
    }
}
