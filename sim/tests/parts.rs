//! Tests of the parts that a host receives: clock, spawner and signals, and of the clients and the
//! balancer.
#![expect(clippy::unwrap_used, reason = "a test says what must not fail by unwrapping it")]

mod common;

use bytes::Bytes;
use common::{LIMIT, accept, listen, ms, now, serve_http, sleep, world};
use http_body_util::Empty;
use hyper::{Response, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lameduck::{
    lifecycle::{Moment, Signal},
    runtime::{Clock, SignalSource, Spawner, TaskKind},
};
use lameduck_sim::{
    SimClock, SimSpawner,
    balancer::{Balancer, Replica},
    client::{
        ClientId, ExchangePacing, First, How, Pace, RequestSpec, ResponseSummary, Retry, Route,
        keep_alive, multiplexed, one_request,
    },
    network::{
        Attendance::{Awaited, Background},
        HostNetwork, TurmoilNetWorld, TurmoilWorld, World,
    },
    scripted_signals,
};
use std::{
    convert::Infallible,
    future::poll_fn,
    pin::pin,
    sync::{Arc, mpsc},
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[test]
fn a_skewed_clock_wakes_by_its_own_time() {
    let (mut world, _) = world::<TurmoilNetWorld>(1);
    for (host, skew_ppm, world_millis) in
        [("even", 0, 1100), ("fast", 100_000, 1000), ("slow", -500_000, 2200)]
    {
        world.spawn(host, Awaited, async move |_| {
            let (clock, start) = (SimClock::with_skew(skew_ppm), now());
            let at = Moment::EPOCH + ms(1100);
            clock.sleep_until(at).await;
            assert!(clock.now() >= at && clock.now() < at + ms(3), "{:?}", clock.now());
            assert!(
                start.elapsed() >= ms(world_millis) && start.elapsed() < ms(world_millis + 3),
                "{:?}",
                start.elapsed()
            );
        });
    }
    world.run(LIMIT).unwrap();
}

#[test]
fn a_sleep_can_be_set_anew_and_never_means_never() {
    let (mut world, _) = world::<TurmoilNetWorld>(1);
    world.spawn("host", Awaited, async |_| {
        let clock = SimClock::new();
        let mut sleep = clock.sleep_until(Moment::NEVER);
        assert!(common::within(ms(5000), sleep.as_mut()).await.is_none());
        sleep.as_mut().reset(clock.now() + ms(10));
        sleep.await;
        assert_eq!(clock.now(), Moment::EPOCH + ms(5010));
    });
    world.run(LIMIT).unwrap();
}

#[test]
fn the_wall_shows_2030_and_follows() {
    let (mut world, _) = world::<TurmoilNetWorld>(1);
    world.spawn("host", Awaited, async |_| {
        let clock = SimClock::new();
        clock.sleep_until(Moment::EPOCH + ms(1500)).await;
        let since_1970 = clock.wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since_1970, Duration::from_millis(1_893_456_001_500));
    });
    world.run(LIMIT).unwrap();
}

#[test]
fn a_task_outlives_a_panic_in_another_and_the_trace_records_it() {
    let (mut world, trace) = world::<TurmoilNetWorld>(1);
    let told = trace.clone();
    world.spawn("host", Awaited, async move |_| {
        let spawner = SimSpawner::new("server", told, Arc::new(SimClock::new()));
        let worker =
            spawner.spawn(TaskKind::Worker(0), Box::pin(async { panic!("as asked") })).unwrap();
        let internal = spawner.spawn(TaskKind::InternalServer, Box::pin(sleep(ms(10)))).unwrap();
        worker.await;
        internal.await;
    });
    world.run(LIMIT).unwrap();
    assert_eq!(trace.events("room lost").len(), 1);
}

#[test]
fn the_watchdog_bites_unless_the_process_is_over() {
    let (mut world, trace) = world::<TurmoilNetWorld>(1);
    for (name, exits) in [("stuck", false), ("prompt", true)] {
        let told = trace.clone();
        world.spawn(name, Awaited, async move |_| {
            let spawner = SimSpawner::new(name, told, Arc::new(SimClock::new()));
            let (bitten, bites) = mpsc::channel();
            spawner.on_watchdog(move || bitten.send(()).unwrap());
            spawner.arm_watchdog(Moment::EPOCH + ms(100));
            sleep(ms(50)).await;
            if exits {
                spawner.process_exited();
            }
            sleep(ms(100)).await;
            assert_eq!(bites.try_recv().is_ok(), !exits);
        });
    }
    world.run(LIMIT).unwrap();
    let bites = trace.events("watchdog bites");
    assert_eq!(bites.iter().map(|bite| &*bite.actor).collect::<Vec<_>>(), ["stuck"]);
}

#[test]
fn signals_come_at_their_times_and_in_order() {
    let (mut world, trace) = world::<TurmoilNetWorld>(1);
    let (sender, mut signals) = scripted_signals("server", trace.clone());
    world.spawn("operator", Awaited, async move |_| {
        sender.play([(ms(20), Signal::Interrupt), (ms(10), Signal::Terminate)]).await;
    });
    world.spawn("server", Awaited, async move |_| {
        let start = now();
        assert_eq!(signals.recv().await, Signal::Terminate);
        assert_eq!(start.elapsed(), ms(10));
        assert_eq!(signals.recv().await, Signal::Interrupt);
        assert!(
            common::within(ms(1000), signals.recv()).await.is_none(),
            "silent once its senders are gone"
        );
    });
    world.run(LIMIT).unwrap();
    assert_eq!(
        trace.events("signal")[1].to_string(),
        "   0.020000 server signal signal=SIGINT delivery=sent"
    );
}

#[test]
fn a_client_tells_the_ways_to_fail_apart() {
    let (mut world, trace) = world::<TurmoilNetWorld>(1);
    world.spawn("server", Background, async |host| {
        let mut listener = listen(&host, 80).await;
        let answers: [&[u8]; 4] = [
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf",
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n",
        ];
        for answer in answers {
            let mut stream = accept(&mut listener).await;
            let _ = stream.read(&mut [0; 1000]).await.unwrap();
            stream.write_all(answer).await.unwrap();
        }
        let _unread = accept(&mut listener).await;
        sleep(ms(100)).await;
        drop(_unread);
        let _silent = accept(&mut listener).await;
        sleep(ms(60_000)).await;
    });
    let me = ClientId::new("client", trace.clone()).with_max_wait(ms(10_000));
    world.spawn("client", Awaited, async move |host| {
        let route = Route::new(host.clone(), "server", 80);
        for how in [
            How::EndBeforeHead,
            How::BodyCut,
            How::Garbled,
            How::EndBeforeHead,
            How::ResetBeforeHead,
            How::TimedOut,
        ] {
            let end =
                one_request(&me, &route, &RequestSpec::get("/"), ExchangePacing::PROMPT).await;
            assert_eq!(end.unwrap_err().how, how);
        }
        let end = one_request(
            &me,
            &Route::new(host, "server", 81),
            &RequestSpec::get("/"),
            ExchangePacing::PROMPT,
        )
        .await;
        assert_eq!(end.unwrap_err().how, How::Refused);
    });
    world.run(LIMIT).unwrap();
    assert_eq!(trace.events("failed").len(), 6);
    assert_eq!(trace.events("connect failed").len(), 1);
}

#[test]
fn a_client_retries_what_the_standard_lets_it_and_nothing_else() {
    for (retry, retries) in [(Retry::AsAllowed, 1), (Retry::Never, 0)] {
        let (mut world, trace) = world::<TurmoilNetWorld>(1);
        world.spawn("server", Background, async |host| {
            let mut listener = listen(&host, 80).await;
            loop {
                // The server responds once, and closes silently when the next request arrives.
                let mut stream = accept(&mut listener).await;
                let _ = stream.read(&mut [0; 1000]).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                let _ = stream.read(&mut [0; 1000]).await.unwrap();
            }
        });
        let me = ClientId::new("client", trace.clone());
        world.spawn("client", Awaited, async move |host| {
            let asks = [(ms(0), RequestSpec::get("/1")), (ms(10), RequestSpec::get("/2"))];
            keep_alive(&me, &Route::new(host, "server", 80), asks, retry).await;
        });
        world.run(LIMIT).unwrap();
        assert_eq!(trace.events("retries").len(), retries, "{}", trace.text());
        assert_eq!(trace.events("failed").len(), 1);
    }
}

/// Serves HTTP/2; sends a GOAWAY on each connection after 100 ms.
async fn serve_and_send_goaway<H: HostNetwork>(host: H) {
    let mut listener = listen(&host, 80).await;
    loop {
        let io = TokioIo::new(accept(&mut listener).await);
        let service = service_fn(async |_| {
            sleep(ms(150)).await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let mut connection = pin!(builder.auto_date_header(false).serve_connection(io, service));
        if common::within(ms(100), connection.as_mut()).await.is_none() {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

#[test]
fn an_http2_client_follows_a_goaway_to_a_new_connection() {
    fn hears<W: World>() {
        let (mut world, trace) = world::<W>(1);
        world.spawn("server", Background, serve_and_send_goaway);
        let me = ClientId::new("client", trace.clone());
        world.spawn("client", Awaited, async move |host: W::Host| {
            let asks = [
                (ms(0), RequestSpec::get("/1")),
                (ms(50), RequestSpec::get("/2")),
                (ms(250), RequestSpec::get("/3")),
            ];
            multiplexed(&me, &Route::new(host, "server", 80), asks, First::AtOnce).await;
        });
        world.run(LIMIT).unwrap();
        assert_eq!(trace.events("completed").len(), 3, "{}", trace.text());
        assert_eq!(trace.events("connected").len(), 2, "{}", trace.text());
        let goodbyes = trace.events("goaway");
        // Each connection gets two GOAWAYs: one that announces the close, and one with the last
        // stream that was served.
        assert_eq!(goodbyes[0].number("last_stream"), Some(0x7fff_ffff), "{}", trace.text());
        assert!(goodbyes.iter().all(|goodbye| goodbye.number("code") == Some(0)));
    }
    hears::<TurmoilNetWorld>();
    hears::<TurmoilWorld>();
}

#[test]
fn a_slow_reader_gets_all_of_a_big_body_in_the_end() {
    fn reads<W: World>() {
        let (mut world, trace) = world::<W>(1);
        world.spawn("server", Background, |host| serve_http(host, 80));
        world.spawn("client", Awaited, async move |host: W::Host| {
            let pacing = ExchangePacing {
                download: Pace::Trickle { bytes: 4000, pause: ms(100) },
                ..ExchangePacing::PROMPT
            };
            let me = ClientId::new("client", trace);
            let end = one_request(
                &me,
                &Route::new(host, "server", 80),
                &RequestSpec::get("/big/500000"),
                pacing,
            )
            .await;
            assert!(matches!(end, Ok(ResponseSummary { body_bytes: 500_000, .. })), "{end:?}");
        });
        assert!(world.run(LIMIT).unwrap() > ms(12_000));
    }
    reads::<TurmoilNetWorld>();
    reads::<TurmoilWorld>();
}

/// Serves HTTP on port 80. Readiness on port 81 is 200 until 1 s; the listener closes at 2 s.
async fn replica<H: HostNetwork>(host: H) {
    let serving = host.clone();
    let main = async move {
        common::within(ms(2000), serve_http(serving, 80)).await;
    };
    let internal = async move {
        let (mut listener, start) = (listen(&host, 81).await, now());
        loop {
            let (mut stream, _) =
                poll_fn(|cx| lameduck::runtime::Listener::poll_accept(&mut listener, cx))
                    .await
                    .unwrap();
            let _ = stream.read(&mut [0; 1000]).await;
            let status =
                if start.elapsed() < ms(1000) { "200 OK" } else { "503 Service Unavailable" };
            let answer =
                format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    };
    tokio::join!(main, internal);
}

#[test]
fn a_balancer_follows_readiness_and_loses_nothing_while_it_is_told_in_time() {
    fn balances<W: World>() {
        let (mut world, trace) = world::<W>(1);
        world.spawn("a", Background, |host| serve_http(host, 80));
        world.spawn("b", Background, replica);
        world.spawn("a", Background, async |host: W::Host| {
            // This replica is always ready.
            let mut listener = listen(&host, 81).await;
            loop {
                let mut stream = accept(&mut listener).await;
                let _ = stream.read(&mut [0; 1000]).await;
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                    .await
                    .unwrap();
            }
        });
        let told = trace.clone();
        world.spawn("balancer", Awaited, async move |host: W::Host| {
            let replicas = ["a", "b"].map(|name| Replica {
                name: name.to_owned(),
                main: Route::new(host.clone(), name, 80),
                internal: Route::new(host.clone(), name, 81),
            });
            let balancer = Balancer::new(
                ClientId::new("balancer", told.clone()),
                ClientId::new("prober", told),
                replicas,
            );
            let forwarding = async {
                sleep(ms(200)).await;
                for _ in 0..200 {
                    balancer.forward(&RequestSpec::get("/echo")).await;
                    sleep(ms(10)).await;
                }
            };
            tokio::select! {
                biased;
                () = forwarding => {}
                () = balancer.probe(ms(100)) => {}
            }
            let counts = balancer.counts();
            assert_eq!((counts.sent, counts.failed, counts.unserved), (200, 0, 0));
        });
        world.run(LIMIT).unwrap();
        assert_eq!(trace.events("in rotation").len(), 2, "{}", trace.text());
        assert_eq!(trace.events("out of rotation").len(), 1);
    }
    balances::<TurmoilNetWorld>();
    balances::<TurmoilWorld>();
}
