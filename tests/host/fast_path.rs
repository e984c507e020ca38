//! P4, P5, P9, P15: requests that are served without hyper, and the handoff to hyper.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    App, Client, End, app::Workers, aside, block, builder, now, pause, quick_plan, settings,
    until_holds,
};
use axum::body::{Body, Bytes};
use http::{Request, Response, header};
use hyper::{
    body::{Frame, SizeHint},
    service::service_fn,
};
use lameduck::{Host, HttpService, Limits, Report, lifecycle::Plan};
use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::Notify, task::JoinSet};

/// A body of one piece that can misreport its length, be slow, or panic.
struct Odd {
    piece: Option<Bytes>,
    says: u64,
    /// The time that `poll_frame` takes for the piece.
    takes: Duration,
    panics: Panics,
}

/// The call in which a body panics.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Panics {
    Nowhere,
    AsItIsAskedForItsEnd,
    AfterItsPiece,
}

impl Odd {
    fn new(piece: impl Into<Bytes>, says: u64) -> Self {
        Self { piece: Some(piece.into()), says, takes: Duration::ZERO, panics: Panics::Nowhere }
    }
}

impl http_body::Body for Odd {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        block(self.takes);
        Poll::Ready(self.piece.take().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let panics = match self.panics {
            Panics::Nowhere => false,
            Panics::AsItIsAskedForItsEnd => true,
            Panics::AfterItsPiece => self.piece.is_none(),
        };
        assert!(!panics, "asked for its end, on purpose");
        self.piece.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.says)
    }
}

/// A host whose service calls `answer` with the path and the index of the request.
fn host<A, F>(answer: A) -> Host<impl HttpService>
where
    A: Fn(String, usize) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Body> + Send + 'static,
{
    planned(quick_plan(), answer)
}

/// Like [`host`], with this plan.
fn planned<A, F>(plan: Plan, answer: A) -> Host<impl HttpService>
where
    A: Fn(String, usize) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Body> + Send + 'static,
{
    let count = Arc::new(AtomicUsize::new(0));
    Host::builder(settings().plan(plan)).serve_hyper(service_fn(
        move |request: Request<lameduck::Body>| {
            let answer = answer(request.uri().path().to_owned(), count.fetch_add(1, SeqCst));
            async move { Ok::<_, Infallible>(Response::new(answer.await)) }
        },
    ))
}

/// Returns the counts of started, finished, timed out, aborted and gone requests.
fn outcomes(report: &Report) -> [u64; 5] {
    let requests = &report.requests;
    [requests.started, requests.finished, requests.timed_out, requests.aborted, requests.gone]
}

const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

// A body longer than its length was truncated to it. Its client took it for complete, and it was
// counted as finished. Later its connection was reset, which discarded earlier responses of the
// pipeline that were counted as finished. Nothing of such a response is written yet, so it must
// become a 500 (P5d).
#[test]
fn a_fast_path_body_longer_than_its_length_becomes_a_500() {
    let app = App::start(host(async |path, _| match &*path {
        "/long" => Body::new(Odd::new("all of it", 3)),
        "/very-long" => Body::new(Odd::new(vec![b'x'; 100_000], 3)),
        "/empty" => Body::new(Odd::new("all of it", 0)),
        _ => Body::from("hello"),
    }));
    for path in ["/long", "/very-long", "/empty"] {
        let mut client = Client::connect(app.main);
        client.send(format!("{GET}GET {path} HTTP/1.1\r\nhost: test\r\n\r\n{GET}"));
        assert_eq!(client.answer().body(), "hello");
        let error = client.answer();
        assert_eq!((error.status, &*error.body()), (500, "internal server error\n"), "{path}");
        assert!(error.header("date").is_some(), "{error:?}");
        assert_eq!(client.answer().body(), "hello", "the connection goes on after {path}");
    }
    let mut client = Client::connect(app.main);
    client.send("GET /long HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    let error = client.answer();
    assert!(error.status == 500 && error.says_close(), "{error:?}");
    assert_eq!(client.end(), End::Closed);
    let report = app.end();
    assert_eq!(outcomes(&report), [10, 6, 0, 4, 0], "{report:?}");
    assert!(report.aborts.iter().all(|abort| !abort.by_shutdown && !abort.head_sent), "{report:?}");
    assert_eq!(report.connections.reset, 0, "{report:?}");
}

// After a response, half of the next head was taken for a part of the previous request's body. The
// time for the head began a second late. Half a head must get its 408 in time (P15).
#[test]
fn half_a_head_after_a_fast_path_response_gets_its_408_in_time() {
    let limits = Limits::default().header_timeout(Duration::from_millis(300));
    let service = service_fn(async |_: Request<lameduck::Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let app = App::start(Host::builder(settings().limits(limits)).serve_hyper(service));
    let mut client = Client::connect(app.main);
    assert_eq!(client.get("/").body(), "hello");
    let begin = now();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n");
    assert_eq!(client.answer().status, 408);
    let took = begin.elapsed();
    assert!((300..1_000).contains(&took.as_millis()), "{took:?}");
    let _ = app.end();
}

// tokio's cooperative budget allows a task some 128 operations per poll, and then its socket
// reports that it is full. The unwritten responses go to hyper, together with the remaining
// requests, of which one is garbage. hyper must send all responses before it closes the connection.
#[test]
fn fast_path_requests_before_garbage_are_served_whatever_their_number() {
    for count in [1, 100, 127, 128, 130, 140, 200] {
        let app = App::start(host(async |_, _| Body::from("hello")));
        let mut client = Client::connect(app.main);
        client.send(format!("{}\0garbage\r\n\r\n", GET.repeat(count)));
        for nth in 1..=count {
            assert_eq!(
                client.try_answer().map(|answer| answer.body()).as_deref(),
                Ok("hello"),
                "{nth} of {count}"
            );
        }
        assert_eq!(client.end(), End::Closed);
        let count = count as u64;
        assert_eq!(outcomes(&app.end()), [count, count, 0, 0, 0]);
    }
}

// One client sent up to some 128 requests at once, and they were all served in one poll of its
// task. Other connections must have their turn after 16 requests.
#[test]
fn a_client_with_many_pipelined_requests_does_not_starve_others() {
    let (before, woken) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let seen = before.clone();
    let app = App::start_on(
        host(move |path, _| {
            let (before, woken) = (before.clone(), woken.clone());
            async move {
                match &*path {
                    "/wait" => {
                        woken.notified().await;
                        return Body::from(before.load(SeqCst).to_string());
                    }
                    "/wake" => woken.notify_one(),
                    _ => drop(before.fetch_add(1, SeqCst)),
                }
                Body::from("hello")
            }
        }),
        Workers::OneThread,
    );
    let mut other = Client::connect(app.main);
    other.send_get("/wait");
    until_holds("it waits", || app.status()["requests"]["in_flight"] == 1);
    let mut client = Client::connect(app.main);
    client.send(format!("GET /wake HTTP/1.1\r\nhost: test\r\n\r\n{}", GET.repeat(200)));
    let answer = other.answer().body();
    assert!(
        answer.parse::<usize>().unwrap() <= 32,
        "{answer} of one client's before the other's first"
    );
    for _ in 0..201 {
        assert_eq!(client.answer().body(), "hello");
    }
    assert_eq!(seen.load(SeqCst), 200);
    assert_eq!(outcomes(&app.end()), [202, 202, 0, 0, 0]);
}

// A request kept its connection state and the connection state kept the request. Neither was
// dropped. The request was in flight for ever, and the report counted it as aborted by the stop
// (exit code 3). A panic in `is_end_stream` must end its request (P5c).
#[test]
fn a_body_that_panics_when_it_is_polled_for_its_end_is_counted() {
    let app = App::start(host(async |path, _| {
        let panics = match &*path {
            "/at-once" => Panics::AsItIsAskedForItsEnd,
            _ => Panics::AfterItsPiece,
        };
        Body::new(Odd { panics, ..Odd::new("all of it", 9) })
    }));
    for path in ["/at-once", "/after"] {
        let mut client = Client::connect(app.main);
        client.send_get(path);
        let _ = client.end();
    }
    let report = app.end();
    assert_eq!((outcomes(&report), report.code()), ([2, 0, 0, 0, 2], 0), "{report:?}");
}

// The latency was read when the handler had returned, not when its body had been sent.
#[cfg(feature = "metrics")]
#[test]
fn latency_runs_to_the_end_of_a_fast_path_response() {
    let app = App::start(host(async |_, _| {
        Body::new(Odd { takes: Duration::from_millis(120), ..Odd::new("all of it", 9) })
    }));
    assert_eq!(app.get("/").body(), "all of it");
    until_holds("it is counted", || app.status()["requests"]["finished"] == 1);
    let page = app.probe("/metrics").body();
    let sum = page
        .lines()
        .find_map(|line| line.split_once("request_duration_seconds_sum ")?.1.parse::<f64>().ok());
    assert!(sum.unwrap() >= 0.12, "{sum:?}");
    let _ = app.end();
}

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

/// Requests `count` large responses and reads none.
fn stuff(app: &App, count: usize) -> Client {
    let mut client = Client::connect(app.main);
    client.send(GET.repeat(count));
    // Waits until the buffers of the kernel are full. The only sign of that is that no request
    // starts any more.
    let mut last = u64::MAX;
    until_holds("full buffers", || {
        block(Duration::from_millis(200));
        let started = app.status()["requests"]["started"].as_u64().unwrap();
        std::mem::replace(&mut last, started) == started && started > 1
    });
    client
}

#[test]
fn fast_path_responses_beyond_the_send_buffer_arrive_complete() {
    let app = App::start(host(async |_, number| {
        Body::from(number.to_string().repeat(13_000 / number.to_string().len()))
    }));
    let mut client = stuff(&app, 1_000);
    for number in 0..1_000_usize {
        let number = number.to_string();
        assert_eq!(client.answer().body(), number.repeat(13_000 / number.len()));
    }
    assert_eq!(client.get("/").status, 200, "the connection goes on");
    assert_eq!(outcomes(&app.end()), [1_001, 1_001, 0, 0, 0]);
}

#[test]
fn a_fast_path_response_unread_until_the_stop_is_reset_and_counted() {
    let app = App::start(host(async |_, _| Body::from(vec![b'x'; 13_000])));
    let mut client = stuff(&app, 1_000);
    app.stop();
    let report = app.report();
    let [started, finished, timed_out, aborted, gone] = outcomes(&report);
    assert_eq!((started, timed_out, gone), (finished + aborted, 0, 0), "{report:?}");
    assert!(finished > 0 && aborted > 0, "{report:?}");
    assert_eq!(report.connections.reset, 1, "{report:?}");
    assert_eq!(client.end(), End::Reset);
}

#[test]
fn a_fast_path_response_whose_client_leaves_is_counted_gone() {
    let app = App::start(host(async |_, _| Body::from(vec![b'x'; 13_000])));
    drop(stuff(&app, 1_000));
    until_holds("gone", || app.status()["requests"]["in_flight"] == 0);
    let report = app.end();
    let [started, finished, timed_out, aborted, gone] = outcomes(&report);
    assert_eq!((started, timed_out, aborted), (finished + gone, 0, 0), "{report:?}");
    assert!(finished > 0 && gone > 0, "{report:?}");
}

// A stop is requested while a handler blocks its worker. Its response must announce the close of
// the connection (P4).
#[test]
fn a_stop_while_a_fast_path_handler_blocks_is_announced_with_its_response() {
    let (begun, heard) = mpsc::channel();
    let app = App::start_on(
        host(move |path, _| {
            if path == "/block" {
                begun.send(()).unwrap();
                block(Duration::from_millis(400));
            }
            async { Body::from("hello") }
        }),
        Workers::Threads(1),
    );
    let mut client = Client::connect(app.main);
    client.send(format!("GET /block HTTP/1.1\r\nhost: test\r\n\r\n{GET}"));
    heard.recv().unwrap();
    app.stop();
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
        assert!((least..least + 150).contains(&took), "{path} took {took} ms");
    }
    let cancelled: Vec<_> =
        contexts.lock().unwrap().iter().map(lameduck::RequestContext::is_cancelled).collect();
    assert_eq!(cancelled, [true, true, true, false]);
    assert_eq!(outcomes(&app.end()), [4, 1, 3, 0, 0]);
}

// A client sent another request after the one with `connection: close`. It must get the complete
// response and a FIN, not a reset because of the unread bytes.
#[test]
fn a_fast_path_request_with_connection_close_is_the_last_one_served() {
    let app = App::start(host(async |_, _| Body::from("hello")));
    let mut client = Client::connect(app.main);
    client.send(format!("{GET}GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n{GET}"));
    assert!(!client.answer().says_close());
    let last = client.answer();
    assert!(last.says_close() && last.header(header::DATE.as_str()).is_some());
    assert_eq!(client.end(), End::Closed);
    let report = app.end();
    assert_eq!(outcomes(&report), [2, 2, 0, 0, 0], "{report:?}");
    assert_eq!(report.connections.close_races, 0, "the client's own end is no race");
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

// Connections whose last response was sent a moment ago have nothing left to do. They must not
// delay the exit, however many there are (P8).
#[test]
fn connections_that_were_just_served_do_not_delay_the_exit() {
    let app = App::start(host(async |_, _| Body::from("hello")));
    let mut clients: Vec<_> = (0..300).map(|_| Client::connect(app.main)).collect();
    for client in &mut clients {
        assert_eq!(client.get("/").body(), "hello");
    }
    let status = app.status();
    assert_eq!(
        (&status["connections"]["open"], &status["requests"]["in_flight"]),
        (&300.into(), &0.into()),
        "{status}"
    );
    let report = app.end();
    assert!(report.shutdown < Duration::from_millis(900), "{report:?}");
    assert_eq!(
        (outcomes(&report), report.connections.drained),
        ([300, 300, 0, 0, 0], 300),
        "{report:?}"
    );
    for client in &mut clients {
        assert_eq!(client.end(), End::Closed);
    }
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

// A client sends the HTTP/2 preface after HTTP/1 requests. It must get HTTP/2, as on a connection
// without requests.
#[test]
fn a_preface_after_a_fast_path_response_starts_http2() {
    let app = App::start(host(async |_, _| Body::from("hello")));
    let mut client = Client::connect(app.main);
    assert_eq!(client.get("/").body(), "hello");
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
    assert_eq!(client.exactly(9).map(|frame| frame[3]), Ok(4), "SETTINGS");
    drop(client);
    assert_eq!(outcomes(&app.end()), [1, 1, 0, 0, 0]);
}

// A client stops reading in the middle of a response. In the drain it has five seconds, and is then
// cut, even if more of the drain is left.
#[test]
fn a_client_that_stops_reading_is_cut_after_five_seconds_of_the_drain() {
    let plan = quick_plan().drain(Duration::from_secs(15));
    let app = App::start(planned(plan, async |_, _| Body::from(vec![b'x'; 13_000])));
    let mut client = stuff(&app, 1_000);
    app.stop();
    let report = app.report();
    assert!((5..8).contains(&report.shutdown.as_secs()), "{report:?}");
    let [started, finished, timed_out, aborted, gone] = outcomes(&report);
    assert_eq!((started, timed_out, gone), (finished + aborted, 0, 0), "{report:?}");
    assert_eq!(client.end(), End::Reset);
}

// The same client reads on when the drain has begun. Responses that had begun must arrive complete.
// Requests that had not begun are dropped and counted as a close race.
#[test]
fn a_client_that_reads_again_in_the_drain_gets_responses_that_had_begun() {
    let plan = quick_plan().drain(Duration::from_secs(15));
    let app = App::start(planned(plan, async |_, _| Body::from(vec![b'x'; 13_000])));
    let mut client = stuff(&app, 1_000);
    app.stop();
    app.wait_for_phase("draining");
    let mut whole = 0;
    let end = loop {
        match client.try_answer() {
            Ok(answer) => {
                assert_eq!(answer.bytes.len(), 13_000);
                whole += 1;
            }
            Err(end) => break end,
        }
    };
    assert_eq!(end, End::Closed);
    let report = app.report();
    assert_eq!(outcomes(&report), [whole, whole, 0, 0, 0], "{report:?}");
    assert_eq!(report.connections.close_races, 1, "{report:?}");
    assert!(report.shutdown < Duration::from_secs(5), "{report:?}");
}
