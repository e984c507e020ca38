//! P5a: a connection whose handshake the kernel completed before the listener closed is accepted.

#[cfg(target_os = "linux")]
use crate::support::deaf;
use crate::support::os::{Scratch, accept, any_port, bounded, listen, listen_one, tcp};
use lameduck::{
    os::{OsListener, SocketOptions},
    runtime::{Address, ListenAddress, Listener, Peek, QuiesceOutcome, Transport},
};
use std::{
    future::poll_fn,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    task::Poll,
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Returns the number of connections that the queue yields in one poll. The reactor does not run in
/// between.
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

/// Removes the capability to attach a filter from this thread, as in a container.
#[cfg(target_os = "linux")]
fn without_net_admin() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut sets = capabilities(None).unwrap();
    sets.effective.remove(CapabilitySet::NET_ADMIN);
    set_capabilities(None, sets).unwrap();
}

#[cfg(target_os = "linux")]
async fn a_sealed_listener_gives_its_queue_and_lets_nobody_in(address: ListenAddress) {
    let mut listener = listen_one(&address).await;
    let local = tcp(&listener.local());
    let _queued: Vec<_> = (0..3).map(|_| TcpStream::connect(local).unwrap()).collect();
    assert!(matches!(listener.quiesce(), QuiesceOutcome::Sealed));
    // This waits for a handshake that must not complete.
    let error = TcpStream::connect_timeout(&local, Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert_eq!(accept_until_empty(&mut listener).await, 3);
    drop(listener);
    assert_eq!(TcpStream::connect(local).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_sealed_ipv4_listener_yields_its_queue_and_accepts_no_new_connection() {
    a_sealed_listener_gives_its_queue_and_lets_nobody_in(any_port()).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_sealed_ipv6_listener_yields_its_queue_and_accepts_no_new_connection() {
    let address = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
    if TcpListener::bind(address).is_ok() {
        a_sealed_listener_gives_its_queue_and_lets_nobody_in(ListenAddress::Tcp(address)).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_listener_is_sealed_without_privilege() {
    without_net_admin();
    a_sealed_listener_gives_its_queue_and_lets_nobody_in(any_port()).await;
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        let address = ListenAddress::Tcp((Ipv6Addr::LOCALHOST, 0).into());
        a_sealed_listener_gives_its_queue_and_lets_nobody_in(address).await;
    }
}

/// Listeners that are closed one by one leave gaps in the reuseport group, into which the kernel
/// moves others. A new connection must not reach a listener that still listens, whatever the kernel
/// moves (P5a).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn siblings_sealed_without_privilege_accept_no_new_connection_until_all_are_closed() {
    without_net_admin();
    for first_closed in 0..3 {
        let mut listeners = listen(&any_port(), 3).await.unwrap();
        let local = tcp(&listeners[0].local());
        let _queued: Vec<_> = (0..30).map(|_| TcpStream::connect(local).unwrap()).collect();
        for listener in &mut listeners {
            assert!(matches!(listener.quiesce(), QuiesceOutcome::Sealed));
        }
        let mut accepted = 0;
        for close in [first_closed, 0, 0] {
            for _ in 0..10 {
                // The kernel would spread them over the listeners.
                let error =
                    TcpStream::connect_timeout(&local, Duration::from_millis(5)).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TimedOut);
            }
            accepted += accept_until_empty(&mut listeners.remove(close)).await;
        }
        assert_eq!(accepted, 30);
        assert_eq!(TcpStream::connect(local).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

/// Some systems send with a TTL of 255, which the decoy does not reject. Such a client must be
/// accepted (P5a).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_with_the_largest_ttl_is_accepted_from_a_listener_sealed_without_privilege() {
    without_net_admin();
    for address in [any_port(), ListenAddress::Port(0)] {
        let mut listener = listen_one(&address).await;
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, tcp(&listener.local()).port()));
        assert!(matches!(listener.quiesce(), QuiesceOutcome::Sealed));
        let near =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        near.set_ttl_v4(255).unwrap();
        near.connect(&local.into()).unwrap();
        let (mut server, _) = accept(&mut listener).await.unwrap();
        drop(listener);
        near.send(b"asked").unwrap();
        let mut asked = [0; 5];
        bounded(server.read_exact(&mut asked)).await.unwrap();
        assert_eq!(&asked, b"asked");
    }
}

/// Polls in real time until `handshakes` returns `count`.
#[cfg(target_os = "linux")]
#[expect(clippy::disallowed_methods, reason = "the kernel completes a handshake in real time")]
async fn until_handshakes(listener: &OsListener, count: usize) {
    let counted = async {
        while listener.handshakes() != Some(count) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    bounded(counted).await;
}

/// `at` is the address that the client connects to, if it differs from the listener's.
#[cfg(target_os = "linux")]
async fn a_handshake_is_counted_until_it_is_complete_and_then_in_the_queue(
    address: ListenAddress,
    at: Option<Ipv4Addr>,
) {
    let mut listener = listen_one(&address).await;
    let local = tcp(&listener.local());
    let at = at.map_or(local, |at| SocketAddr::from((at, local.port())));
    assert_eq!(listener.handshakes(), Some(0));
    let client = deaf::connect(at);
    until_handshakes(&listener, 1).await;
    assert!(matches!(listener.quiesce(), QuiesceOutcome::Sealed));
    assert_eq!(listener.handshakes(), Some(1), "the filter harms none that has begun");
    assert_eq!(accept_until_empty(&mut listener).await, 0);
    deaf::hear(&client);
    until_handshakes(&listener, 0).await;
    assert_eq!(accept_until_empty(&mut listener).await, 1);
    assert_eq!(listener.handshakes(), Some(0));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_pending_handshake_is_counted_until_it_is_in_the_queue_of_a_sealed_ipv4_listener() {
    a_handshake_is_counted_until_it_is_complete_and_then_in_the_queue(any_port(), None).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_handshake_of_either_family_is_counted_by_a_dual_stack_listener() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        let dual_stack = || ListenAddress::Port(0);
        a_handshake_is_counted_until_it_is_complete_and_then_in_the_queue(
            dual_stack(),
            Some(Ipv4Addr::LOCALHOST),
        )
        .await;
        a_handshake_is_counted_until_it_is_complete_and_then_in_the_queue(dual_stack(), None).await;
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn handshakes_with_other_listeners_are_not_counted() {
    let listener = listen_one(&any_port()).await;
    let same_address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let same_port = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), tcp(&listener.local()).port()));
    for other in [same_address, same_port] {
        // Another process may use that port.
        let Ok(other) = TcpListener::bind(other) else { continue };
        let address = other.local_addr().unwrap();
        let other = OsListener::inherited(other.into(), SocketOptions::default()).unwrap();
        let _deaf = deaf::connect(address);
        until_handshakes(&other, 1).await;
        assert_eq!(listener.handshakes(), Some(0));
    }
}

/// A connected client is in the queue, and is no handshake.
#[tokio::test]
async fn a_unix_listener_has_no_handshakes() {
    let scratch = Scratch::new("handshakes");
    let path = scratch.path().join("app.sock");
    let listener = listen_one(&ListenAddress::Unix(path.clone())).await;
    let _queued = UnixStream::connect(&path).unwrap();
    assert_eq!(listener.handshakes(), Some(0));
}

/// The runtime learns of a connection only when its driver runs. Until then the queue must not look
/// empty (P5a).
#[tokio::test]
async fn a_quiesced_listener_polls_the_kernel_and_not_the_reactor() {
    let mut listener = listen_one(&any_port()).await;
    assert_eq!(accept_until_empty(&mut listener).await, 0);
    let _queued: Vec<_> =
        (0..5).map(|_| TcpStream::connect(tcp(&listener.local())).unwrap()).collect();
    listener.quiesce();
    assert_eq!(accept_until_empty(&mut listener).await, 5);
}

/// An accepted connection inherits the filter, which must not affect it.
#[tokio::test]
async fn a_connection_from_a_sealed_queue_works_in_both_directions() {
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
async fn a_quiesced_unix_listener_yields_its_queue_and_its_path_is_gone() {
    let scratch = Scratch::new("quiesce");
    let path = scratch.path().join("app.sock");
    let mut listener = listen_one(&ListenAddress::Unix(path.clone())).await;
    let _queued: Vec<_> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    assert!(matches!(listener.quiesce(), QuiesceOutcome::Sealed));
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(accept_until_empty(&mut listener).await, 3);
}

/// A filter on an inherited socket outlives this process, and every connect to the successor would
/// time out for ever. The listener must be left unchanged (P5a).
#[tokio::test]
async fn an_inherited_listener_is_left_unchanged_for_its_successor() {
    let parent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = parent.local_addr().unwrap();
    let mut listener =
        OsListener::inherited(parent.try_clone().unwrap().into(), SocketOptions::default())
            .unwrap();
    assert_eq!(listener.local(), Address::Tcp(address));
    let _first = TcpStream::connect(address).unwrap();
    let (server, _) = accept(&mut listener).await.unwrap();
    assert_eq!(server.peek(), Peek::Empty);
    assert!(listener.is_inherited());
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
