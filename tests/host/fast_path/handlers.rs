//! P4, P9, P15: handlers on the fast path that wait, block or panic.

use super::{GET, host, outcomes};
use crate::support::{
    App, Client, End, app::Workers, aside, block, builder, now, pause, service_fn, settings,
    until_holds,
};
use axum::body::Body;
use http::{Request, Response};
use lameduck::Host;
use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};
use tokio::task::JoinSet;

// A handler yielded so that other tasks could run. hyper polled it once more at once, so no other
// task had run.
#[test]
fn a_handler_that_yields_lets_other_tasks_run() {
    let app = App::start_on(
        host(async |_, _| {
            let turn = Arc::new(AtomicBool::new(false));
            let others = turn.clone();
            let mut tasks = JoinSet::new();
            tasks.spawn(async move { others.store(true, SeqCst) });
            tokio::task::yield_now().await;
            let had = turn.load(SeqCst);
            tasks.join_all().await;
            Body::from(had.to_string())
        }),
        Workers::OneThread,
    );
    assert_eq!(app.get("/").body(), "true");
    let _ = app.end();
}

// A stop is requested while a handler blocks its worker. Its response must announce the close of
// the connection (P4).
#[test]
fn a_stop_while_a_fast_path_handler_blocks_is_announced_with_its_response() {
    let (begun, heard) = mpsc::channel();
    let is_released = Arc::new(AtomicBool::new(false));
    let released = is_released.clone();
    let app = App::start_on(
        host(move |path, _| {
            if path == "/block" {
                begun.send(()).unwrap();
                until_holds("the release", || released.load(SeqCst));
            }
            async { Body::from("hello") }
        }),
        Workers::Threads(1),
    );
    let mut client = Client::connect(app.main);
    client.send(format!("GET /block HTTP/1.1\r\nhost: test\r\n\r\n{GET}"));
    heard.recv().unwrap();
    app.stop();
    until_holds("the stop", || app.status()["phase"] != "serving");
    is_released.store(true, SeqCst);
    assert!(client.answer().says_close());
    assert_eq!(client.end(), End::Closed);
    let report = app.report();
    assert_eq!(outcomes(&report), [1, 1, 0, 0, 0], "{report:?}");
    assert_eq!(report.connections.close_races, 1, "{report:?}");
}

// A handler begins on the fast path and continues through hyper. It must have exactly one outcome,
// whichever ends it (P5c, P9).
#[test]
fn a_fast_path_handler_that_waits_is_timed_out_cancelled_and_counted_once() {
    let contexts = Arc::new(Mutex::new(Vec::new()));
    let kept = contexts.clone();
    let service = service_fn(move |request: Request<lameduck::Body>| {
        let context = request.body().context().clone();
        kept.lock().unwrap().push(context.clone());
        async move {
            match request.uri().path() {
                "/zero" => context.set_timeout(Some(Duration::ZERO)),
                "/own" => context.set_timeout(Some(Duration::from_millis(100))),
                "/none" => context.set_timeout(None),
                _ => {}
            }
            if request.uri().path() == "/none" {
                pause(500).await;
            } else {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Body::from("hello")))
        }
    });
    let app = App::start(
        Host::builder(settings().request_timeout(Some(Duration::from_millis(300))))
            .serve_hyper(service),
    );
    for (path, status, least) in
        [("/zero", 503, 0), ("/own", 503, 100), ("/", 503, 300), ("/none", 200, 500)]
    {
        let begin = now();
        assert_eq!(app.get(path).status, status, "{path}");
        let took = begin.elapsed().as_millis();
        // A timeout that is not applied, or another one, is later than a busy machine.
        assert!((least..least + 4_000).contains(&took), "{path} took {took} ms");
    }
    let cancelled: Vec<_> =
        contexts.lock().unwrap().iter().map(lameduck::RequestContext::is_cancelled).collect();
    assert_eq!(cancelled, [true, true, true, false]);
    assert_eq!(outcomes(&app.end()), [4, 1, 3, 0, 0]);
}

// A service panics in `call`, before there is a handler. The panic costs only that request, and
// later requests are served (P15).
#[test]
fn a_service_that_panics_when_it_is_called_costs_only_its_request() {
    let app = App::start(host(|path, _| {
        assert_ne!(path, "/panic", "on purpose");
        async { Body::from("hello") }
    }));
    let mut client = Client::connect(app.main);
    client.send(format!("{GET}GET /panic HTTP/1.1\r\nhost: test\r\n\r\n{GET}"));
    assert_eq!(
        [client.answer().status, client.answer().status, client.answer().status],
        [200, 500, 200]
    );
    let report = app.end();
    assert_eq!((outcomes(&report), report.requests.panicked), ([3, 3, 0, 0, 0], 1), "{report:?}");
}

// A handler keeps its context, head and body after the response. They must never change into those
// of a later request of the connection.
#[test]
fn the_context_and_the_fields_of_a_fast_path_request_outlive_its_response() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keeper = kept.clone();
    let service = service_fn(move |request: Request<lameduck::Body>| {
        let (head, body) = request.into_parts();
        body.context()
            .set_timeout(Some(Duration::from_secs(head.uri.path()[1..].parse().unwrap())));
        keeper.lock().unwrap().push((body, head));
        async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) }
    });
    let app = App::start(builder().serve_hyper(service));
    let mut client = Client::connect(app.main);
    for number in 1..=200 {
        client.send(format!(
            "GET /{number} HTTP/1.1\r\nhost: test\r\nx-number: {number}\r\nx-long: {}\r\n\r\n",
            "y".repeat(number * 7)
        ));
        assert_eq!(client.answer().body(), "hello");
    }
    let mut last = None;
    for (number, (body, head)) in (1..).zip(kept.lock().unwrap().iter()) {
        assert_eq!(head.uri.path(), format!("/{number}"));
        assert_eq!(head.headers["x-number"], number.to_string());
        assert_eq!(head.headers["x-long"].len(), number * 7);
        let deadline = body.context().deadline();
        assert!(deadline > last && !body.context().is_cancelled(), "{number}");
        last = deadline;
    }
    assert_eq!(outcomes(&app.end()), [200, 200, 0, 0, 0]);
}

// `block_in_place` moves the other tasks of its thread to another thread. A handler that begins on
// one thread may therefore end there alone.
#[test]
fn a_fast_path_handler_may_block_in_place() {
    let app = App::start(host(|_, number| async move {
        tokio::task::block_in_place(|| block(Duration::from_millis(30)));
        Body::from(number.to_string())
    }));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = Client::connect(app.main);
            aside(move || {
                client.send(GET.repeat(4));
                (0..4).map(|_| client.answer().body()).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut answers: Vec<usize> = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
        .map(|answer| answer.parse().unwrap())
        .collect();
    answers.sort_unstable();
    assert_eq!(answers, (0..32).collect::<Vec<_>>());
    assert_eq!(outcomes(&app.end()), [32, 32, 0, 0, 0]);
}

// A client leaves while its handler waits. The context must be cancelled and the handler dropped,
// although hyper has never called it.
#[test]
fn a_fast_path_handler_whose_client_leaves_is_cancelled_and_counted_gone() {
    let contexts = Arc::new(Mutex::new(Vec::new()));
    let kept = contexts.clone();
    let service = service_fn(move |request: Request<lameduck::Body>| {
        kept.lock().unwrap().push(request.body().context().clone());
        async move {
            if request.uri().path() == "/wait" {
                std::future::pending::<()>().await;
            }
            Ok::<_, Infallible>(Response::new(Body::from("hello")))
        }
    });
    let app = App::start(Host::builder(settings().request_timeout(None)).serve_hyper(service));
    let mut client = Client::connect(app.main);
    client.send(format!("{GET}GET /wait HTTP/1.1\r\nhost: test\r\n\r\n"));
    until_holds("it waits", || {
        app.status()["requests"]["started"] == 2 && app.status()["requests"]["finished"] == 1
    });
    // A response is unread, so the kernel sends a reset.
    drop(client);
    until_holds("it is gone", || app.status()["requests"]["gone"] == 1);
    let cancelled: Vec<_> =
        contexts.lock().unwrap().iter().map(lameduck::RequestContext::is_cancelled).collect();
    assert_eq!(cancelled, [false, true]);
    assert_eq!(outcomes(&app.end()), [2, 1, 0, 0, 1]);
}
