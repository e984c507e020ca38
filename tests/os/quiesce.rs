//! P5a: a connection whose handshake the kernel completed before the listener closed is accepted.

use crate::help::{Scratch, accept, any_port, listen_one, tcp};
use lameduck::{
    env::{Address, Backlog, ListenAddress, Listener, Look, Transport},
    os::{OsListener, SocketOptions},
};
use std::{
    future::poll_fn,
    io::{ErrorKind, Read, Write},
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    task::Poll,
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How many connections the queue gives without waiting for the runtime, which hears of nothing in between.
async fn accept_until_empty(listener: &mut OsListener) -> usize {
    poll_fn(|cx| {
        let mut accepted = 0;
        while let Poll::Ready(connection) = listener.poll_accept(cx) {
            connection.unwrap();
            accepted += 1;
        }
        Poll::Ready(accepted)
    })
    .await
}

#[cfg(target_os = "linux")]
async fn a_sealed_listener_gives_its_queue_and_lets_nobody_in(address: ListenAddress) {
    let mut listener = listen_one(&address).await;
    let local = tcp(&listener.local());
    let _queued: Vec<_> = (0..3).map(|_| TcpStream::connect(local).unwrap()).collect();
    assert!(matches!(listener.quiesce(), Backlog::Sealed));
    // This waits for something that must not happen: the handshake.
    let error = TcpStream::connect_timeout(&local, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(accept_until_empty(&mut listener).await, 3);
    drop(listener);
    assert_eq!(TcpStream::connect(local).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_sealed_ipv4_listener_gives_its_queue_and_lets_nobody_in() {
    a_sealed_listener_gives_its_queue_and_lets_nobody_in(any_port()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_sealed_ipv6_listener_gives_its_queue_and_lets_nobody_in() {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if TcpListener::bind(address).is_ok() {
        a_sealed_listener_gives_its_queue_and_lets_nobody_in(ListenAddress::Tcp(address)).await;
    }
}

/// The runtime hears of a connection only when its driver runs. A queue must not look empty until then.
#[tokio::test]
async fn a_quiesced_listener_asks_the_kernel_and_not_the_runtime() {
    let mut listener = listen_one(&any_port()).await;
    assert_eq!(accept_until_empty(&mut listener).await, 0);
    let _queued: Vec<_> = (0..5).map(|_| TcpStream::connect(tcp(&listener.local())).unwrap()).collect();
    listener.quiesce();
    assert_eq!(accept_until_empty(&mut listener).await, 5);
}

/// An accepted connection inherits the filter. It must not notice.
#[tokio::test]
async fn a_connection_from_a_sealed_queue_works_in_both_directions_to_its_end() {
    let mut listener = listen_one(&any_port()).await;
    let mut client = TcpStream::connect(tcp(&listener.local())).unwrap();
    listener.quiesce();
    let (mut server, _) = accept(&mut listener).await.unwrap();
    drop(listener);
    let worked = std::thread::Builder::new()
        .spawn(move || {
            client.write_all(&[7; 100_000]).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).unwrap();
            answer
        })
        .unwrap();
    let mut request = Vec::new();
    server.read_to_end(&mut request).await.unwrap();
    assert_eq!(request.len(), 100_000);
    server.write_all(&request).await.unwrap();
    drop(server);
    assert_eq!(worked.join().unwrap(), request);
}

#[tokio::test]
async fn a_quiesced_unix_listener_gives_its_queue_and_cannot_be_found() {
    let scratch = Scratch::new("quiesce");
    let path = scratch.path().join("app.sock");
    let mut listener = listen_one(&ListenAddress::Unix(path.clone())).await;
    let _queued: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    assert!(matches!(listener.quiesce(), Backlog::Sealed));
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(accept_until_empty(&mut listener).await, 3);
}

/// A filter on an inherited socket would outlive us: every connect to the successor would time out, for ever.
#[tokio::test]
async fn an_inherited_listener_is_left_to_its_successor_as_it_was() {
    let parent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = parent.local_addr().unwrap();
    let mut listener = OsListener::inherited(parent.try_clone().unwrap().into(), SocketOptions::default()).unwrap();
    assert_eq!(listener.local(), Address::Tcp(address));
    let _first = TcpStream::connect(address).unwrap();
    let (server, _) = accept(&mut listener).await.unwrap();
    assert_eq!(server.look(), Look::Empty);
    assert!(matches!(listener.quiesce(), Backlog::Inherited));
    drop(listener);
    let _second = TcpStream::connect(address).unwrap();
    let mut successor = OsListener::inherited(parent.into(), SocketOptions::default()).unwrap();
    accept(&mut successor).await.unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_descriptor_that_does_not_listen_is_not_inherited() {
    let (one, _other) = UnixStream::pair().unwrap();
    let error = OsListener::inherited(one.into(), SocketOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}
