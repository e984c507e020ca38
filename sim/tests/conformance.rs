//! Both networks behave alike where a shutdown depends on it. Tests of one network compare it with
//! Linux.
#![expect(clippy::unwrap_used, reason = "a test says what must not fail by unwrapping it")]

mod common;
#[path = "conformance/kernel.rs"]
mod kernel;

use common::{LIMIT, accept, listen, ms, now, sleep, within, world};
use lameduck::runtime::{
    ListenAddress, Listener, Network, Peek, QuiesceOutcome, Reservation, Seed, ServerRole,
    Transport,
};
use lameduck_sim::{
    Trace,
    network::{
        Attendance::Awaited, HostNetwork, LinkChange, LinuxWorld, TurmoilNetWorld, TurmoilWorld,
        World, WorldConfig,
    },
};
use std::{
    future::poll_fn,
    io::ErrorKind,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    task::Poll,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

/// Runs the same test on each network.
macro_rules! on_both_networks {
    ($($name:ident)*) => {
        mod on_turmoil_net { $(#[test] fn $name() { super::$name::<super::TurmoilNetWorld>(); })* }
        mod on_turmoil { $(#[test] fn $name() { super::$name::<super::TurmoilWorld>(); })* }
    };
}

on_both_networks! {
    a_closed_port_refuses
    a_reserved_port_refuses_until_it_listens
    a_port_is_reserved_once
    a_port_refuses_after_its_server_returned
    a_connection_queued_before_the_first_accept_is_accepted_later
    what_one_end_writes_the_other_reads
    a_dropped_stream_ends_the_peers_reads
    a_task_that_waits_is_woken_after_another_read
    a_half_closed_client_gets_its_answer
    a_stream_with_unread_bytes_resets_when_dropped
    a_megabyte_passes_a_reader_of_small_pieces
    a_held_link_delays_and_loses_nothing
    a_round_trip_takes_the_latency
    two_jobs_of_a_host_run_side_by_side
    an_overrun_names_the_hosts
    a_port_can_be_bound_again_while_old_connections_live
}

fn a_closed_port_refuses<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |_| {});
    world.spawn("client", Awaited, async |host| {
        assert_eq!(
            host.connect("server", 80).await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
    world.run(LIMIT).unwrap();
}

fn a_reserved_port_refuses_until_it_listens<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let reservation = host.reserve(&ListenAddress::Port(80), ServerRole::Main, 1).unwrap();
        sleep(ms(100)).await;
        let mut listener = reservation.listen().await.unwrap().pop().unwrap();
        accept(&mut listener).await;
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        assert_eq!(
            host.connect("server", 80).await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        sleep(ms(200)).await;
        host.connect("server", 80).await.unwrap();
    });
    world.run(LIMIT).unwrap();
}

fn a_port_is_reserved_once<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let first = host.reserve(&ListenAddress::Port(80), ServerRole::Main, 1).unwrap();
        assert_eq!(
            host.reserve(&ListenAddress::Port(80), ServerRole::Main, 1).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        let listeners = first.listen().await.unwrap();
        assert_eq!(
            host.reserve(&ListenAddress::Port(80), ServerRole::Main, 1).unwrap_err().kind(),
            ErrorKind::AddrInUse
        );
        drop(listeners);
        listen(&host, 80).await;
    });
    world.run(LIMIT).unwrap();
}

fn a_port_refuses_after_its_server_returned<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let mut listener = listen(&host, 80).await;
        accept(&mut listener).await;
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        host.connect("server", 80).await.unwrap();
        sleep(ms(100)).await;
        assert_eq!(
            host.connect("server", 80).await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
    });
    world.run(LIMIT).unwrap();
}

fn a_connection_queued_before_the_first_accept_is_accepted_later<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let mut listener = listen(&host, 80).await;
        sleep(ms(500)).await;
        for _ in 0..100 {
            accept(&mut listener).await.write_all(b"hi").await.unwrap();
        }
    });
    for _ in 0..100 {
        world.spawn("client", Awaited, async |host: W::Host| {
            let mut stream = host.connect("server", 80).await.unwrap();
            let mut got = String::new();
            stream.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, "hi");
        });
    }
    world.run(LIMIT).unwrap();
}

fn what_one_end_writes_the_other_reads<W: World>() {
    let (mut world, trace) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let mut stream = accept(&mut listen(&host, 80).await).await;
        let mut got = [0; 5];
        stream.read_exact(&mut got).await.unwrap();
        stream.write_all(&got).await.unwrap();
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        let mut stream = host.connect("server", 80).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "hello");
    });
    world.run(LIMIT).unwrap();
    assert!(trace.wire_bytes() >= 10);
}

// A session of TLS looks once more into the socket while its task waits. That read took the task's
// place as the one to be woken, and a request waited for a sweep.
fn a_task_that_waits_is_woken_after_another_read<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let mut io = accept(&mut listen(&host, 80).await).await;
        let mut looked = false;
        let read = poll_fn(|cx| {
            let mut room = [0; 5];
            let mut room = ReadBuf::new(&mut room);
            let polled = Pin::new(&mut io).poll_read(cx, &mut room);
            if polled.is_pending() && !looked {
                looked = true;
                assert!(io.read_now(&mut room).is_pending());
            }
            polled.map_ok(|()| room.filled().to_vec())
        });
        assert_eq!(within(ms(500), read).await.unwrap().unwrap(), b"hello");
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        let mut io = host.connect("server", 80).await.unwrap();
        sleep(ms(100)).await;
        io.write_all(b"hello").await.unwrap();
        sleep(ms(1_000)).await;
    });
    world.run(LIMIT).unwrap();
}

fn a_dropped_stream_ends_the_peers_reads<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        drop(accept(&mut listen(&host, 80).await).await);
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        let mut stream = host.connect("server", 80).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    });
    world.run(LIMIT).unwrap();
}

fn a_half_closed_client_gets_its_answer<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let mut stream = accept(&mut listen(&host, 80).await).await;
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        stream.write_all(got.as_bytes()).await.unwrap();
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        let mut stream = host.connect("server", 80).await.unwrap();
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        stream.shutdown().await.unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "bye");
    });
    world.run(LIMIT).unwrap();
}

fn a_stream_with_unread_bytes_resets_when_dropped<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let mut stream = accept(&mut listen(&host, 80).await).await;
        stream.read_exact(&mut [0; 1]).await.unwrap();
        sleep(ms(50)).await;
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        let mut stream = host.connect("server", 80).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
    world.run(LIMIT).unwrap();
}

/// The client completes a handshake before its final ACK arrives. If the listener has closed by
/// then, the connection is reset.
#[test]
fn a_handshake_under_way_when_the_listener_closes_is_reset() {
    let trace = Trace::new();
    let config = WorldConfig::new(Seed(1)).with_latency(ms(10), ms(10));
    let mut world = TurmoilNetWorld::new(config, trace);
    world.spawn("server", Awaited, async |host| {
        let listener = listen(&host, 80).await;
        sleep(ms(15)).await;
        drop(listener);
    });
    world.spawn("client", Awaited, async |host| {
        let mut stream = host.connect("server", 80).await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    });
    world.run(LIMIT).unwrap();
}

/// A simulated kernel that announced its window only after large reads once starved every upload
/// above 64 KiB. A reader of small pieces must get the whole upload.
fn a_megabyte_passes_a_reader_of_small_pieces<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let mut stream = accept(&mut listen(&host, 80).await).await;
        let (mut piece, mut bytes) = ([0; 1000], 0);
        loop {
            match stream.read(&mut piece).await.unwrap() {
                0 => break,
                got => bytes += got,
            }
        }
        assert_eq!(bytes, 1 << 20);
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        host.connect("server", 80).await.unwrap().write_all(&vec![7; 1 << 20]).await.unwrap();
    });
    world.run(LIMIT).unwrap();
}

fn a_held_link_delays_and_loses_nothing<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.change_link_at(ms(100), ("server", "client"), LinkChange::Hold);
    world.change_link_at(ms(1100), ("client", "server"), LinkChange::Release);
    world.spawn("server", Awaited, async |host: W::Host| {
        let mut stream = accept(&mut listen(&host, 80).await).await;
        let start = now();
        let mut got = String::new();
        stream.read_to_string(&mut got).await.unwrap();
        assert_eq!(got, "0123456789");
        assert!(start.elapsed() >= ms(1000), "{:?}", start.elapsed());
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        let mut stream = host.connect("server", 80).await.unwrap();
        sleep(ms(150)).await;
        for digit in b"0123456789" {
            stream.write_all(&[*digit]).await.unwrap();
            sleep(ms(10)).await;
        }
    });
    world.run(LIMIT).unwrap();
}

fn a_round_trip_takes_the_latency<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let mut stream = accept(&mut listen(&host, 80).await).await;
        while stream.read(&mut [0; 1]).await.unwrap() > 0 {
            stream.write_all(b"x").await.unwrap();
        }
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        let mut stream = host.connect("server", 80).await.unwrap();
        for _ in 0..20 {
            let start = now();
            stream.write_all(b"x").await.unwrap();
            stream.read_exact(&mut [0; 1]).await.unwrap();
            // The latency is 1 to 3 ms each way. turmoil delivers at its next tick of 5 ms, and the
            // sender waits for a tick, too.
            assert!(start.elapsed() >= ms(2) && start.elapsed() <= ms(20), "{:?}", start.elapsed());
        }
    });
    world.run(LIMIT).unwrap();
}

fn two_jobs_of_a_host_run_side_by_side<W: World>() {
    let (mut world, _) = world::<W>(1);
    for _ in 0..2 {
        world.spawn("host", Awaited, async |_| sleep(ms(100)).await);
    }
    assert!(world.run(LIMIT).unwrap() < ms(120));
}

fn a_port_can_be_bound_again_while_old_connections_live<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("server", Awaited, async |host: W::Host| {
        let mut listener = listen(&host, 80).await;
        let mut old = accept(&mut listener).await;
        drop(listener);
        sleep(ms(100)).await;
        let mut new = accept(&mut listen(&host, 80).await).await;
        old.write_all(b"old").await.unwrap();
        new.write_all(b"new").await.unwrap();
    });
    world.spawn("client", Awaited, async |host: W::Host| {
        let mut old = host.connect("server", 80).await.unwrap();
        sleep(ms(30)).await;
        assert_eq!(
            host.connect("server", 80).await.unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        sleep(ms(100)).await;
        let mut new = host.connect("server", 80).await.unwrap();
        for (stream, word) in [(&mut old, "old"), (&mut new, "new")] {
            let mut got = String::new();
            stream.read_to_string(&mut got).await.unwrap();
            assert_eq!(got, word);
        }
    });
    world.run(LIMIT).unwrap();
}

fn an_overrun_names_the_hosts<W: World>() {
    let (mut world, _) = world::<W>(1);
    world.spawn("quick", Awaited, async |_| {});
    world.spawn("stuck", Awaited, async |_| std::future::pending().await);
    assert_eq!(world.run(ms(1000)).unwrap_err().hosts, ["stuck"]);
}

#[test]
fn a_panic_in_a_job_goes_through_both_worlds() {
    fn panics<W: World>() {
        let (mut world, _) = world::<W>(1);
        world.spawn("host", Awaited, async |_| panic!("as asked"));
        let _ = world.run(LIMIT);
    }
    for run in [panics::<TurmoilNetWorld>, panics::<TurmoilWorld>] {
        let payload = std::panic::catch_unwind(run).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"as asked"));
    }
}
