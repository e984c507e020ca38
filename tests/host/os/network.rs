//! P14: a port belongs to one process, unless it is shared on purpose. P2: it is reserved before it
//! listens.

use crate::support::{
    App,
    app::Workers,
    builder,
    os::{accept, any_port, bounded, listen, listen_one, tcp},
};
use axum::Router;
use futures_util::future::{Either, select};
use lameduck::{
    Hook,
    lifecycle::Signal,
    os::{OsNetwork, ReusePort, SocketOptions},
    runtime::{Address, ListenAddress, Listener, Network, Reservation, ServerRole},
};
use std::{
    future::{pending, poll_fn},
    io::{self, ErrorKind, Read},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    sync::mpsc,
    task::Poll,
    time::Duration,
};
use tokio::{sync::oneshot, task::yield_now};

fn same(address: &Address) -> ListenAddress {
    ListenAddress::Tcp(tcp(address))
}

#[tokio::test]
async fn a_second_instance_is_refused_while_the_first_listens_with_one_socket_or_three() {
    for count in [1, 3] {
        let first = listen(&any_port(), count).await.unwrap();
        for second in [1, 3] {
            let error = OsNetwork::default()
                .reserve(&same(&first[0].local()), ServerRole::Main, second)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AddrInUse);
            assert!(error.raw_os_error().is_some(), "the system's reason is kept");
        }
    }
}

#[tokio::test]
async fn a_second_instance_is_refused_while_the_first_has_only_reserved() {
    let first = OsNetwork::default().reserve(&any_port(), ServerRole::Main, 2).unwrap();
    let error =
        OsNetwork::default().reserve(&same(&first.local()), ServerRole::Main, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

#[tokio::test]
async fn one_port_on_all_addresses_excludes_the_same_port_on_one() {
    let first = OsNetwork::default().reserve(&ListenAddress::Port(0), ServerRole::Main, 2).unwrap();
    let port = tcp(&first.local()).port();
    let second = ListenAddress::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    assert_eq!(
        OsNetwork::default().reserve(&second, ServerRole::Main, 1).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
    let _first = first.listen().await.unwrap();
    assert_eq!(
        OsNetwork::default().reserve(&second, ServerRole::Main, 1).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
}

/// Returns a port with a connection in TIME_WAIT, which a server that closes first leaves for a
/// minute.
async fn port_with_leftovers() -> ListenAddress {
    let mut listener = listen_one(&any_port()).await;
    let mut client = TcpStream::connect(tcp(&listener.local())).unwrap();
    let (server, _) = accept(&mut listener).await.unwrap();
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    same(&listener.local())
}

#[tokio::test]
async fn a_restart_is_not_delayed_by_connections_in_time_wait() {
    let address = port_with_leftovers().await;
    let mut again = listen(&address, 2).await.unwrap();
    let _client = TcpStream::connect(tcp(&again[0].local())).unwrap();
    let mut other = again.pop().unwrap();
    let mut one = again.pop().unwrap();
    bounded(select(
        poll_fn(move |cx| one.poll_accept(cx)),
        poll_fn(move |cx| other.poll_accept(cx)),
    ))
    .await;
}

#[tokio::test]
async fn a_reservation_over_connections_in_time_wait_is_exclusive() {
    let address = port_with_leftovers().await;
    let _first = OsNetwork::default().reserve(&address, ServerRole::Main, 2).unwrap();
    assert_eq!(
        OsNetwork::default().reserve(&address, ServerRole::Main, 2).unwrap_err().kind(),
        ErrorKind::AddrInUse
    );
}

/// Two instances that bind over connections in TIME_WAIT at the same moment both succeed, because
/// both try again with `SO_REUSEADDR`. Only one of them may listen (P14). The test performs the
/// steps of the rival, one step before or after our own.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn of_two_instances_that_bind_at_the_same_time_only_one_listens() {
    let rival = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    rival.set_reuse_address(true).unwrap();
    rival.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let address = ListenAddress::Tcp(rival.local_addr().unwrap().as_socket().unwrap());
    let ours = OsNetwork::default().reserve(&address, ServerRole::Main, 2).unwrap();
    let rival_listens = rival.listen(16).is_ok();
    rival.set_reuse_port(true).unwrap();
    let we_listen = ours.listen().await.is_ok();
    assert_ne!(rival_listens, we_listen);
}

#[tokio::test]
async fn instances_that_both_set_reuse_port_share_a_port() {
    let shared = || OsNetwork::new(SocketOptions::default().reuse_port(ReusePort::Yes));
    let first = shared().reserve(&any_port(), ServerRole::Main, 2).unwrap();
    let address = same(&first.local());
    let _first = first.listen().await.unwrap();
    let second = shared().reserve(&address, ServerRole::Main, 2).unwrap().listen().await.unwrap();
    assert_eq!(second.len(), 2);
    let error = OsNetwork::default().reserve(&address, ServerRole::Main, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse, "one that did not ask is refused");
}

#[tokio::test]
async fn a_reserved_port_refuses_connections_until_it_listens() {
    let reservation = OsNetwork::default().reserve(&any_port(), ServerRole::Main, 1).unwrap();
    let address = tcp(&reservation.local());
    assert_ne!(address.port(), 0);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let _listening = reservation.listen().await.unwrap();
    TcpStream::connect(address).unwrap();
}

#[tokio::test]
async fn a_dropped_reservation_gives_its_port_back() {
    let reservation = OsNetwork::default().reserve(&any_port(), ServerRole::Main, 1).unwrap();
    let address = same(&reservation.local());
    drop(reservation);
    OsNetwork::default().reserve(&address, ServerRole::Main, 1).unwrap();
}

// The main port of a start that was abandoned stayed bound until its last stop hook had ended. A
// successor could not start meanwhile (P14).
#[test]
fn an_abandoned_start_gives_its_port_back_before_its_stop_hooks_end() {
    const WAIT: Duration = Duration::from_secs(10);
    let (starting, start_waits) = mpsc::channel();
    let (stopping, stop_waits) = mpsc::channel();
    let (finish, finished) = oneshot::channel::<()>();
    let slow = Hook::pair(
        "slow",
        || async { Ok::<_, io::Error>(()) },
        move |()| async move {
            stopping.send(()).unwrap();
            finished.await.map_err(io::Error::other)
        },
    );
    let waiting = Hook::on_start("waiting", move || async move {
        starting.send(()).unwrap();
        pending::<io::Result<()>>().await
    });
    let host = builder().hook(slow).hook(waiting).serve(Router::new());
    let app = App::spawn(host, Workers::Task);
    start_waits.recv_timeout(WAIT).unwrap();
    let address = ListenAddress::Tcp(app.main);
    let reserve = || OsNetwork::default().reserve(&address, ServerRole::Main, 1);
    assert_eq!(reserve().unwrap_err().kind(), ErrorKind::AddrInUse);
    app.signal(Signal::Terminate);
    stop_waits.recv_timeout(WAIT).unwrap();
    reserve().unwrap();
    finish.send(()).unwrap();
    assert_eq!(app.report().code(), 0);
}

#[tokio::test]
async fn sibling_listeners_share_a_port_and_each_gets_connections() {
    const CLIENTS: usize = 64;
    let mut siblings = listen(&any_port(), 2).await.unwrap();
    let (mut one, mut other) = (siblings.remove(0), siblings.remove(0));
    assert_eq!(one.local(), other.local());
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| TcpStream::connect(tcp(&one.local())).unwrap()).collect();
    let mut accepted = [0, 0];
    while accepted[0] + accepted[1] < clients.len() {
        let next = select(poll_fn(|cx| one.poll_accept(cx)), poll_fn(|cx| other.poll_accept(cx)));
        match bounded(next).await {
            Either::Left((connection, _)) => accepted[0] += usize::from(connection.is_ok()),
            Either::Right((connection, _)) => accepted[1] += usize::from(connection.is_ok()),
        }
    }
    assert!(accepted[0] > 0 && accepted[1] > 0, "{accepted:?}");
}

#[tokio::test]
async fn a_port_on_all_addresses_serves_both_families_and_reports_ipv4_peers_as_ipv4() {
    let mut listener = listen_one(&ListenAddress::Port(0)).await;
    let local = tcp(&listener.local());
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, local.port())).unwrap();
    let (_server, peer) = accept(&mut listener).await.unwrap();
    assert_eq!(peer, Address::Tcp(client.local_addr().unwrap()));
    if local.is_ipv6() {
        match TcpStream::connect((Ipv6Addr::LOCALHOST, local.port())) {
            Ok(client) => {
                let (_server, peer) = accept(&mut listener).await.unwrap();
                assert_eq!(peer, Address::Tcp(client.local_addr().unwrap()));
            }
            // A machine can have IPv6 sockets without an IPv6 loopback address.
            Err(error) => assert_eq!(error.kind(), ErrorKind::AddrNotAvailable),
        }
    }
}

#[tokio::test]
async fn an_address_of_another_machine_is_refused_with_the_reason_of_the_system() {
    // RFC 5737: an address for documentation.
    let error = OsNetwork::default()
        .reserve(&"192.0.2.1:0".parse().unwrap(), ServerRole::Main, 1)
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrNotAvailable);
}

fn sharing() -> OsNetwork {
    OsNetwork::new(SocketOptions::default().reuse_port(ReusePort::Yes))
}

/// `--reuse-port` let the main and the internal server of one process have the same port. Each got
/// some of the other's clients, and strangers reached the internal routes. A port may be shared
/// only with other processes (P16).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_port_is_shared_with_other_processes_and_not_by_two_servers_of_one_process() {
    let network = sharing();
    let main = network.reserve(&ListenAddress::Port(0), ServerRole::Main, 2).unwrap();
    let port = tcp(&main.local()).port();
    let both = [ListenAddress::Port(port), ListenAddress::Tcp((Ipv4Addr::LOCALHOST, port).into())];
    for internal in &both {
        let error = network.reserve(internal, ServerRole::Internal, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{internal}");
        sharing().reserve(internal, ServerRole::Internal, 1).unwrap();
    }
    drop(main);
    network.reserve(&both[0], ServerRole::Internal, 1).unwrap();
}

/// A second instance that shares its port was refused on the address of an exclusive one, but not
/// on all addresses. It must be refused on both (P14).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_exclusive_port_on_one_address_cannot_be_shared_on_all_addresses() {
    let first = listen(&any_port(), 2).await.unwrap();
    let port = tcp(&first[0].local()).port();
    for everywhere in
        [ListenAddress::Port(port), ListenAddress::Tcp((Ipv4Addr::UNSPECIFIED, port).into())]
    {
        let error = sharing().reserve(&everywhere, ServerRole::Main, 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{everywhere}");
    }
}

/// An instance with `--reuse-port` checked for an exclusive one when it bound its port, and
/// listened later, once its start hooks were done. One without the flag that had started in between
/// got only a part of its clients, and neither had an error (P14).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_port_that_became_exclusive_before_it_was_listened_on_is_not_shared() {
    let shared = sharing().reserve(&any_port(), ServerRole::Main, 2).unwrap();
    let address = same(&shared.local());
    let exclusive = OsNetwork::default().reserve(&address, ServerRole::Main, 2).unwrap();
    let _exclusive = exclusive.listen().await.unwrap();
    assert_eq!(shared.listen().await.unwrap_err().kind(), ErrorKind::AddrInUse);
}

/// Any user may bind the abstract name that marked a port as exclusive. A start with `--reuse-port`
/// then failed. A name of another user must not prevent the start (P14).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_exclusive_name_of_another_user_does_not_prevent_sharing_a_port() {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr as UnixAddress};
    let free = tcp(&listen_one(&any_port()).await.local());
    let squatted = |suffix: &str| {
        let name =
            UnixAddress::from_abstract_name(format!("lameduck exclusive {free}{suffix}")).unwrap();
        // The names are only bound, so their owner is unknown.
        std::os::unix::net::UnixDatagram::bind_addr(&name).unwrap()
    };
    let _names = ["", " 1.0", &format!(" {}.0", std::process::id())].map(squatted);
    let shared = sharing().reserve(&ListenAddress::Tcp(free), ServerRole::Main, 1).unwrap();
    drop(shared);
    // An exclusive listener takes another name, and is found.
    let _exclusive = listen(&ListenAddress::Tcp(free), 2).await.unwrap();
    let error = sharing().reserve(&ListenAddress::Tcp(free), ServerRole::Main, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

/// Each instance with `--reuse-port` that was refused left a connection in the queue of the port's
/// lock. After some 4,100 of them, as of a unit that is restarted for ever, the next one shared the
/// port of an instance that had not agreed (P14).
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_exclusive_port_is_not_shared_however_often_that_is_tried() {
    let mut exclusive = listen(&any_port(), 2).await.unwrap();
    let address = same(&exclusive[0].local());
    for attempt in 0..5_000 {
        let refused = sharing().reserve(&address, ServerRole::Main, 1);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::AddrInUse, "attempt {attempt}");
        let are_idle = poll_fn(|cx| {
            Poll::Ready(exclusive.iter_mut().all(|one| one.poll_accept(cx).is_pending()))
        });
        assert!(are_idle.await);
        // The reactor has its turn, too.
        yield_now().await;
    }
}
