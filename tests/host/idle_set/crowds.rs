//! P5b, P8, P15: many connections in the idle set.

use super::{
    GET, connections, hello, host, idle_clients, long_plan, outcomes, start, wait_for_idle,
};
use crate::support::{Client, End, aside, block, now, pause, service_fn, settings, until_holds};
use axum::body::Body;
use http::{Request, Response};
use lameduck::{Host, Limits};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

// After a close, the watch for late bytes expired by the clock before its first read, because the
// worker was busy for longer than the watch. Late bytes were not counted. A close race must be
// counted, however late the watch runs (P5b).
#[test]
fn a_close_race_is_counted_even_if_its_watch_runs_late() {
    let has_raced = Arc::new(AtomicBool::new(false));
    let raced = has_raced.clone();
    let app = start(host(move |path, context| {
        let raced = raced.clone();
        async move {
            if path == "/busy" {
                context.draining().await;
                pause(3).await;
                // On a busy machine this handler may run before the close.
                let begin = now();
                while !raced.load(SeqCst) && begin.elapsed() < Duration::from_secs(2) {
                    block(Duration::from_millis(1));
                }
                // The watch ends after 10 ms.
                block(Duration::from_millis(100));
            }
            Body::from("hello")
        }
    }));
    let [mut client] = idle_clients(&app);
    let mut busy = Client::connect(app.main);
    busy.send_get("/busy");
    until_holds("its start", || app.status()["in_flight"] == 1);
    let racer = aside(move || {
        assert_eq!(client.end(), End::Closed);
        client.send(GET);
        has_raced.store(true, SeqCst);
        let _ = client.end();
    });
    app.stop();
    let report = app.report();
    racer.join().unwrap();
    assert_eq!(busy.answer().body(), "hello");
    assert_eq!(connections(&report), [2, 2, 1, 0]);
}

#[test]
fn a_connection_in_the_idle_set_expires_and_can_be_evicted() {
    // Long enough to see them idle first: the check reads `/proc` for every descriptor in use.
    let limits = Limits::default().keep_alive(Duration::from_secs(4)).connections_max(3);
    let service = service_fn(async |_: Request<lameduck::Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let app =
        start(Host::builder(settings().plan(long_plan()).limits(limits)).serve_hyper(service));
    let [mut first, mut second, third] = idle_clients(&app);
    drop(third);
    let mut fourth = Client::connect(app.main);
    assert_eq!(fourth.get("/").body(), "hello");
    assert_eq!(first.end(), End::Closed);
    assert_eq!(second.end(), End::Closed);
    let _ = app.end();
}

#[test]
fn a_thousand_idle_clients_that_do_not_close_are_counted_and_do_not_delay_the_exit() {
    let app = start(hello());
    let mut crowd: Vec<_> = (0..1_000).map(|_| Client::connect(app.main)).collect();
    for client in &mut crowd {
        assert_eq!(client.get("/").status, 200);
    }
    wait_for_idle(&app, 1_000);
    // Half of the clients send a request at the same time. The stop finds some requests in the
    // kernel; others arrive after the FIN.
    let racer = aside(move || {
        let mut answered = 0;
        for client in &mut crowd[..500] {
            let _ = client.try_send(GET);
        }
        for client in &mut crowd[..500] {
            answered += u64::from(client.try_answer().is_ok_and(|answer| answer.status == 200));
        }
        let ended = crowd[500..].iter_mut().all(|client| client.end() == End::Closed);
        (answered, ended)
    });
    app.stop();
    let report = app.report();
    let (answered, ended) = racer.join().unwrap();
    assert!(ended);
    assert!(report.shutdown < Duration::from_secs(4), "{:?}", report.shutdown);
    let [accepted, drained, close_races, reset] = connections(&report);
    assert_eq!((accepted, reset), (1_000, 0));
    assert_eq!(outcomes(&report), [1_000 + answered, 1_000 + answered, 0, 0, 0]);
    assert!(drained <= 1_000, "{drained}");
    assert!(answered + close_races <= 500, "{answered} {close_races}");
}

#[test]
fn a_flood_of_new_connections_does_not_starve_an_idle_one() {
    let app = start(hello());
    let [mut client] = idle_clients(&app);
    let over = Arc::new(AtomicBool::new(false));
    let flood = aside({
        let (over, main) = (over.clone(), app.main);
        move || {
            while !over.load(SeqCst) {
                crate::support::get(main, "/");
            }
        }
    });
    for _ in 0..200 {
        assert_eq!(client.get("/").body(), "hello");
    }
    over.store(true, SeqCst);
    flood.join().unwrap();
    let _ = app.end();
}

// With many connections, all are idle at once, and a new connection takes the slot of one that has
// left. Each must get its own responses.
#[test]
fn connections_that_come_and_go_in_a_full_idle_set_get_their_own_responses() {
    let app = start(host(async |path, _| {
        if path.ends_with('7') {
            tokio::task::yield_now().await;
        }
        Body::from(path)
    }));
    let mut crowd: Vec<_> = (0..400).map(|_| Client::connect(app.main)).collect();
    let (mut accepted, mut asked) = (400, 0);
    for round in 0..40 {
        for n in (round % 7..400).step_by(7) {
            crowd[n].send_get(&format!("/{round}/{n}"));
        }
        for n in (round % 5..400).step_by(5) {
            if n % 7 != round % 7 {
                crowd[n] = Client::connect(app.main);
                accepted += 1;
            }
        }
        for n in (round % 7..400).step_by(7) {
            assert_eq!(crowd[n].answer().body(), format!("/{round}/{n}"));
            asked += 1;
        }
    }
    // The kernel may hold new connections while closed ones are not noticed yet.
    until_holds("the crowd", || {
        let connections = &app.status()["connections"];
        connections["accepted"] == accepted && connections["open"] == 400
    });
    let report = app.end();
    assert_eq!(outcomes(&report), [asked, asked, 0, 0, 0]);
    assert_eq!(connections(&report), [accepted, 400, 0, 0]);
}
