//! P15, P5b: idle and silent connections, and which of them are closed at the connection limit.

use crate::support::{
    App, Client, End,
    app::Workers,
    block,
    frames::{GOAWAY, Http2},
    now, quick_plan, service_fn, settings, until_holds,
};
use axum::body::Body;
use http::{Request, Response};
use lameduck::{Host, HttpService, Limits};
use std::{convert::Infallible, time::Duration};

const ALL_WORKERS: [Workers; 3] = [Workers::Task, Workers::OneThread, Workers::Threads(1)];

fn hello(limits: Limits) -> Host<impl HttpService> {
    let plan = quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_secs(5));
    let service =
        async |_: Request<lameduck::Body>| Ok::<_, Infallible>(Response::new(Body::from("hello")));
    Host::builder(settings().plan(plan).limits(limits)).serve_hyper(service_fn(service))
}

fn at_most(connections_max: usize) -> Limits {
    Limits::default().connections_max(connections_max)
}

fn wait_for_open(app: &App, count: u64) {
    until_holds("the connections", || app.status()["connections"]["open"].as_u64() == Some(count));
}

#[test]
fn only_a_connection_without_a_byte_is_closed_after_the_first_byte_timeout() {
    // A connection that never sent a byte was kept for the keep-alive time of ten minutes. The
    // first-byte timeout must end it, and no other connection (P15).
    let limits = Limits::default().first_byte_timeout(Duration::from_millis(700));
    for workers in ALL_WORKERS {
        let app = App::start_on(hello(limits), workers);
        let mut working = Client::connect(app.main);
        assert_eq!(working.get("/").body(), "hello");
        let begin = now();
        let mut silent = Client::connect(app.main);
        assert_eq!(silent.end(), End::Closed, "{workers:?}");
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(700), "{workers:?}: {took:?}");
        assert!(took < Duration::from_secs(3), "{workers:?}: {took:?}");
        assert_eq!(working.get("/").body(), "hello", "it has sent a byte, and is kept alive");
        let status = app.status();
        assert_eq!(status["connections"]["first_byte_timeouts"], 1);
        let report = app.end();
        assert_eq!(
            (report.code(), report.connections.close_races, report.connections.evicted),
            (0, 0, 0)
        );
    }
}

#[test]
fn silent_connections_do_not_lock_out_a_client_at_the_connection_limit() {
    // At the connection limit, 120 connections without a byte locked out every other client for ten
    // minutes. They must be closed for new ones (P15).
    for workers in ALL_WORKERS {
        let app = App::start_on(hello(at_most(20)), workers);
        let mut silent: Vec<_> = (0..20).map(|_| Client::connect(app.main)).collect();
        wait_for_open(&app, 20);
        let begin = now();
        for n in 0..10 {
            assert_eq!(Client::connect(app.main).get("/").body(), "hello", "{workers:?} {n}");
        }
        assert!(begin.elapsed() < Duration::from_secs(3), "{workers:?}: {:?}", begin.elapsed());
        assert_eq!(silent[0].end(), End::Closed, "the oldest goes first");
        assert_eq!(silent[19].get("/").body(), "hello", "the last has its place");
        let report = app.end();
        assert!(report.connections.evicted >= 1, "{:?}", report.connections);
        assert_eq!((report.code(), report.requests.finished), (0, 11));
    }
}

#[test]
fn silent_connections_do_not_evict_active_clients() {
    for workers in ALL_WORKERS {
        let app = App::start_on(hello(at_most(10)), workers);
        let mut working: Vec<_> = (0..6).map(|_| Client::connect(app.main)).collect();
        for client in &mut working {
            assert_eq!(client.get("/").body(), "hello");
        }
        let mut strangers: Vec<_> = (0..30).map(|_| Client::connect(app.main)).collect();
        // Workers accept side by side: a late one of the strangers may make room for an early one.
        until_holds("most strangers make room", || {
            let is_open = |stranger: &mut Client| stranger.is_silent_for(Duration::from_millis(1));
            strangers.iter_mut().map(is_open).filter(|is_open| !is_open).count() >= 20
        });
        for client in &mut working {
            assert_eq!(client.get("/").body(), "hello", "{workers:?}");
        }
        assert_eq!(app.end().code(), 0);
    }
}

#[test]
fn among_active_clients_the_longest_idle_is_evicted() {
    for workers in ALL_WORKERS {
        let app = App::start_on(hello(at_most(3)), workers);
        let mut clients: Vec<_> = (0..3).map(|_| Client::connect(app.main)).collect();
        // A client has its response slightly before its connection counts as idle. No client can
        // see the difference.
        for client in &mut clients {
            assert_eq!(client.get("/").body(), "hello");
            block(Duration::from_millis(50));
        }
        assert_eq!(clients[0].get("/").body(), "hello");
        block(Duration::from_millis(100));
        let mut fourth = Client::connect(app.main);
        assert_eq!(fourth.get("/").body(), "hello");
        assert_eq!(clients[1].end(), End::Closed, "{workers:?}");
        assert_eq!(clients[0].get("/").body(), "hello");
        assert_eq!(clients[2].get("/").body(), "hello");
        assert_eq!(app.end().connections.evicted, 1);
    }
}

#[test]
fn an_idle_http2_connection_is_evicted_with_a_goaway() {
    for workers in ALL_WORKERS {
        let app = App::start_on(hello(at_most(1)), workers);
        let mut idle = Http2::connect(app.main);
        let stream = idle.get("/");
        assert_eq!(idle.body(stream), "hello");
        let mut next = Client::connect(app.main);
        next.send_get("/");
        idle.wait_for("a GOAWAY", |frame| frame.kind == GOAWAY);
        idle.read_to_end();
        assert_eq!(next.answer().body(), "hello");
        assert_eq!(app.end().connections.evicted, 1);
    }
}
