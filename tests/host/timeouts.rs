//! P15, P6, P5d: a client that reads nothing of its response, or sends nothing of its body, is
//! bounded while serving.

use crate::support::{
    App, Client, End,
    app::Workers,
    block,
    frames::{
        DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Http2, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    },
    now, quick_plan, settings, until_holds,
};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    routing::{any, get, post},
};
use lameduck::{CancelCause, Host, Limits, Report, RequestContext};
use lameduck_wire::http2::request_block;
use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

mod late_bodies;

const LARGE: usize = 40 * 1024 * 1024;
const TIMEOUT: Duration = Duration::from_secs(1);
const ALL_WORKERS: [Workers; 2] = [Workers::Task, Workers::Threads(1)];

fn start(workers: Workers) -> App {
    let limits = Limits::default().send_timeout(TIMEOUT).body_timeout(TIMEOUT);
    let plan = quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_secs(15));
    let silent = || async {
        let first = futures_util::stream::once(async {
            Ok::<_, Infallible>(Bytes::from_static(b"data: first\n\n"))
        });
        let later = futures_util::stream::once(async {
            crate::support::pause(3_500).await;
            Ok(Bytes::from_static(b"data: later\n\n"))
        });
        Body::from_stream(futures_util::StreamExt::chain(first, later))
    };
    let late = async |Extension(context): Extension<RequestContext>| {
        context.set_timeout(Some(Duration::ZERO));
        std::future::pending::<()>().await;
    };
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/large", get(|| async { vec![b'x'; LARGE] }))
        .route("/middle", get(|| async { vec![b'x'; 2 * 1024 * 1024] }))
        .route("/seventy", get(|| async { vec![b'x'; 70_000] }))
        .route("/silent", get(silent))
        .route("/upload", post(|body: Bytes| async move { body.len().to_string() }))
        .route("/idle", post(|body: Body| async { body }))
        .route("/late", get(late));
    let host =
        Host::builder(settings().plan(plan).limits(limits).request_timeout(None)).serve(router);
    App::start_on(host, workers)
}

fn send_timeouts(app: &App) -> u64 {
    app.status()["connections"]["send_timeouts"].as_u64().unwrap_or_default()
}

fn in_flight(app: &App) -> u64 {
    app.status()["in_flight"].as_u64().unwrap_or_default()
}

/// Returns the counts of finished, timed out, aborted and gone requests.
fn outcomes(report: &Report) -> [u64; 4] {
    let requests = &report.requests;
    [requests.finished, requests.timed_out, requests.aborted, requests.gone]
}

#[test]
fn clients_that_read_nothing_of_large_responses_are_cut_after_the_send_timeout() {
    // 300 clients that requested a large response and read nothing held 1.1 GB of kernel memory for
    // ever. The send timeout must close them (P15).
    for workers in ALL_WORKERS {
        let app = start(workers);
        let begin = now();
        let mut clients: Vec<_> = (0..30).map(|_| Client::connect(app.main)).collect();
        for client in &mut clients {
            client.send_get("/large");
        }
        app.wait_for_started(30);
        until_holds("the cut", || in_flight(&app) == 0);
        let took = begin.elapsed();
        assert!(took >= TIMEOUT, "{workers:?}: {took:?}");
        assert!(took < Duration::from_secs(8), "{workers:?}: {took:?}");
        for client in &mut clients {
            assert_eq!(client.try_answer().err(), Some(End::Reset), "{workers:?}");
        }
        assert_eq!(send_timeouts(&app), 30);
        let report = app.end();
        assert_eq!(
            (report.code(), outcomes(&report)),
            (0, [0, 0, 0, 30]),
            "they are gone, and cost no exit code"
        );
    }
}

#[test]
fn an_unread_response_in_the_kernel_is_dropped_after_the_send_timeout() {
    // The kernel held an unread response. It counted as finished, and its connection as idle, which
    // gave it the keep-alive time of ten minutes. The send timeout must close it (P15).
    for workers in ALL_WORKERS {
        let app = start(workers);
        let mut idle = Client::connect(app.main);
        idle.send_get("/middle");
        until_holds("it has left", || app.status()["requests"]["finished"].as_u64() == Some(1));
        let mut last = Client::connect(app.main);
        last.send("GET /middle HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
        until_holds("both are closed", || app.status()["connections"]["open"].as_u64() == Some(0));
        assert_eq!(send_timeouts(&app), 2, "{workers:?}");
        assert_eq!(idle.try_answer().err(), Some(End::Reset), "{workers:?}");
        assert_eq!(last.try_answer().err(), Some(End::Reset), "{workers:?}");
        assert_eq!(app.end().code(), 0);
    }
}

#[test]
fn a_slow_reader_is_not_cut_while_it_reads() {
    let app = start(Workers::Threads(1));
    let mut slow = Client::connect(app.main);
    slow.send_get("/large");
    slow.head().ok();
    for _ in 0..6 {
        block(TIMEOUT / 4);
        assert!(slow.exactly(4 * 1024 * 1024).is_ok());
    }
    assert!(slow.exactly(LARGE - 24 * 1024 * 1024).is_ok());
    assert_eq!(slow.get("/").body(), "hello");
    let report = app.end();
    assert_eq!(outcomes(&report), [2, 0, 0, 0]);
}

#[test]
fn only_a_stream_whose_window_stays_closed_is_reset() {
    // The same over HTTP/2: the window was never opened, and the response waited for ever. Its
    // stream must be reset, and no other.
    for workers in ALL_WORKERS {
        for path in ["/large", "/seventy"] {
            let app = start(workers);
            let mut client = Http2::connect(app.main);
            // The window of the connection is large. Those of the streams have the default size.
            client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
            let begin = now();
            let stuck = client.get(path);
            let event_stream = client.get("/silent");
            let reset = |frame: &Frame| frame.kind == RST_STREAM && frame.stream == stuck;
            let mut moving = 0;
            while !client.seen.iter().any(reset) {
                let next = client.get("/");
                assert_eq!(client.body(next), "hello");
                moving += 1;
                block(Duration::from_millis(20));
                assert!(
                    begin.elapsed() < Duration::from_secs(10),
                    "{workers:?} {path}: {:?}",
                    client.seen.len()
                );
            }
            assert!(begin.elapsed() >= TIMEOUT, "{:?}", begin.elapsed());
            let got =
                client.seen.iter().filter(|frame| frame.stream == stuck && frame.kind == DATA);
            assert_eq!(got.map(|frame| frame.payload.len()).sum::<usize>(), 65_535);
            assert_eq!(
                client.body(event_stream),
                "data: first\n\ndata: later\n\n",
                "it was silent, and has time"
            );
            assert_eq!(send_timeouts(&app), 1);
            let report = app.end();
            assert_eq!((report.code(), outcomes(&report)), (0, [moving + 1, 0, 0, 1]));
        }
    }
}

#[test]
fn a_stream_without_a_window_is_reset_and_one_whose_window_opens_in_time_is_served() {
    let app = start(Workers::Threads(1));
    let mut client = Http2::connect(app.main);
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    let stuck = client.get("/");
    let served = client.get("/seventy");
    for _ in 0..8 {
        block(TIMEOUT / 3);
        client.send(WINDOW_UPDATE, 0, served, &8_000_u32.to_be_bytes());
    }
    client.send(WINDOW_UPDATE, 0, 0, &10_000_u32.to_be_bytes());
    client.send(WINDOW_UPDATE, 0, served, &10_000_u32.to_be_bytes());
    assert_eq!(client.body(served).len(), 70_000);
    client.wait_for("a reset", |frame| frame.kind == RST_STREAM && frame.stream == stuck);
    let report = app.end();
    assert_eq!((report.code(), outcomes(&report)), (0, [1, 0, 0, 1]));
}

// The host's own responses over HTTP/2 had no send timeout. A client that gave them no window kept
// their streams for the keep-alive time. In the drain it got a clean end without their text (P5d,
// P15).
#[test]
fn an_error_response_without_a_window_is_reset_and_not_left_out() {
    for stops in [false, true] {
        let app = start(Workers::Threads(1));
        let mut client = Http2::connect(app.main);
        client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let late = client.get("/late");
        // Above the limit of header fields.
        let mut fields = request_block("GET", "localhost", "/");
        fields.extend(b"\x00\x01a\x01b".repeat(101));
        let (refused, flags) = (late + 2, END_HEADERS | END_STREAM);
        client.send(HEADERS, flags, refused, &fields);
        for stream in [late, refused] {
            client.wait_for("a head", |frame| frame.kind == HEADERS && frame.stream == stream);
        }
        if stops {
            app.stop();
        }
        for stream in [late, refused] {
            let is_reset = |frame: &Frame| frame.kind == RST_STREAM && frame.stream == stream;
            client.wait_for("a reset", is_reset);
        }
        let report = app.end();
        assert_eq!(report.connections.send_timeouts, 2, "stops: {stops}");
        assert_eq!((report.code(), outcomes(&report)), (0, [0, 1, 0, 0]));
    }
}

#[test]
fn a_response_whose_length_is_the_window_ends_without_another_window() {
    let app = start(Workers::Threads(1));
    let mut client = Http2::connect(app.main);
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 1, 0x11, 0x70]);
    client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes());
    let stream = client.get("/seventy");
    assert_eq!(client.body(stream).len(), 70_000);
    assert_eq!(outcomes(&app.end()), [1, 0, 0, 0]);
}

#[test]
fn an_http2_client_that_reads_nothing_at_all_loses_its_connection() {
    for workers in ALL_WORKERS {
        let app = start(workers);
        let mut client = Http2::connect(app.main);
        client.send(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff]);
        client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes());
        client.get("/large");
        client.get("/silent");
        app.wait_for_started(2);
        until_holds("the cut", || app.status()["connections"]["open"].as_u64() == Some(0));
        let report = app.end();
        assert_eq!((report.code(), report.connections.reset), (0, 1), "{workers:?}");
        assert_eq!(report.requests.aborted, 0);
    }
}

#[test]
fn a_body_that_stops_gets_a_503_after_the_body_timeout() {
    for workers in ALL_WORKERS {
        let app = start(workers);
        let mut client = Client::connect(app.main);
        let begin = now();
        client.send("POST /upload HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n12345");
        let answer = client.answer();
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.body().contains("no byte of its body arrived"), "{}", answer.body());
        assert!(begin.elapsed() >= TIMEOUT, "{:?}", begin.elapsed());
        assert!(begin.elapsed() < TIMEOUT * 8, "{:?}", begin.elapsed());
        assert_eq!(client.end(), End::Closed);
        let mut slow = Client::connect(app.main);
        slow.send("POST /upload HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\n");
        for _ in 0..5 {
            block(TIMEOUT / 4);
            slow.send("x");
        }
        assert_eq!(slow.answer().body(), "5");
        let status = app.status();
        assert_eq!(status["connections"]["body_timeouts"], 1);
        let report = app.end();
        assert_eq!((report.code(), outcomes(&report)), (0, [1, 1, 0, 0]));
    }
}

/// The header block of a POST request.
fn post_head(path: &str) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x04, u8::try_from(path.len()).unwrap_or(0)];
    block.extend_from_slice(path.as_bytes());
    block.extend_from_slice(b"\x01\x04test");
    block
}

#[test]
fn on_http2_a_body_that_stops_costs_its_stream_and_a_bidirectional_one_goes_on() {
    for workers in ALL_WORKERS {
        let app = start(workers);
        let mut client = Http2::connect(app.main);
        let begin = now();
        client.send(HEADERS, 4, 1, &post_head("/idle"));
        client.send(DATA, 0, 1, b"first");
        client.send(HEADERS, 4, 3, &post_head("/upload"));
        client.send(DATA, 0, 3, b"12345");
        client.wait_for("a response", |frame| frame.stream == 3 && frame.ends_stream());
        assert!(begin.elapsed() >= TIMEOUT, "{:?}", begin.elapsed());
        assert!(begin.elapsed() < TIMEOUT * 8, "{:?}", begin.elapsed());
        block(TIMEOUT * 2);
        client.send(DATA, 1, 1, b" last");
        assert_eq!(client.body(1), "first last", "{workers:?}");
        let report = app.end();
        assert_eq!((report.code(), outcomes(&report)), (0, [1, 1, 0, 0]));
    }
}

#[test]
fn a_silent_event_stream_is_not_cut() {
    for workers in ALL_WORKERS {
        let app = start(workers);
        let mut client = Client::connect(app.main);
        assert_eq!(client.get("/silent").body(), "data: first\n\ndata: later\n\n");
        assert_eq!(outcomes(&app.end()), [1, 0, 0, 0]);
    }
}

/// Asks at its drop for the cause of the cancellation.
struct Asks(RequestContext, Arc<Mutex<Vec<Option<CancelCause>>>>);

impl Drop for Asks {
    fn drop(&mut self) {
        if let Ok(mut causes) = self.1.lock() {
            causes.push(self.0.cancel_cause());
        }
    }
}

// At the deadline the handler was dropped, and its context cancelled after that. What the handler
// held could not tell why it was dropped (P9). In the drain it was the same for a stalled body.
#[test]
fn a_handler_is_dropped_after_its_context_was_cancelled() {
    let causes = Arc::default();
    let seen = Arc::clone(&causes);
    let handler = async move |Extension(context): Extension<RequestContext>, body: Body| {
        let is_upload = !http_body::Body::is_end_stream(&body);
        if is_upload {
            context.set_timeout(None);
        }
        let _asks = Asks(context, seen);
        if is_upload {
            let _ = axum::body::to_bytes(body, 10).await;
        }
        std::future::pending::<()>().await;
    };
    let settings = settings().request_timeout(Some(Duration::from_millis(50)));
    let plan = quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_secs(9));
    let router = Router::new().route("/", any(handler));
    let app = App::start(Host::builder(settings.plan(plan)).serve(router));
    let mut client = Client::connect(app.main);
    assert_eq!(client.get("/").status, 503);
    let mut http2 = Http2::connect(app.main);
    let stream = http2.get("/");
    http2.wait_for("the response", |frame| frame.stream == stream && frame.ends_stream());
    client.send("POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\n");
    until_holds("it is in flight", || in_flight(&app) == 1);
    app.stop();
    assert_eq!(client.answer().status, 503);
    let report = app.report();
    assert_eq!(outcomes(&report), [0, 2, 1, 0]);
    let [deadline, shutdown] = [CancelCause::Deadline, CancelCause::Shutdown].map(Some);
    assert_eq!(*causes.lock().unwrap(), [deadline, deadline, shutdown]);
}

// When a client left, its handler and its body were dropped, and the context cancelled after that.
// What they held could not tell why it was dropped (P9).
#[test]
fn what_is_dropped_for_a_client_that_left_knows_the_cause() {
    let causes = Arc::default();
    let (in_handler, in_body) = (Arc::clone(&causes), Arc::clone(&causes));
    let handler = async move |Extension(context): Extension<RequestContext>| {
        let _asks = Asks(context, in_handler);
        std::future::pending::<()>().await;
    };
    let body = async move |Extension(context): Extension<RequestContext>| {
        let first = Some(Bytes::from_static(b"first"));
        let chunks =
            futures_util::stream::unfold((first, Asks(context, in_body)), async |(first, asks)| {
                match first {
                    Some(chunk) => Some((Ok::<_, Infallible>(chunk), (None, asks))),
                    None => std::future::pending().await,
                }
            });
        Body::from_stream(chunks)
    };
    let router = Router::new().route("/", any(handler)).route("/body", get(body));
    let plan = quick_plan().lame_duck(Duration::ZERO);
    let app = App::start(Host::builder(settings().plan(plan)).serve(router));
    let requests = [
        "GET / HTTP/1.1\r\nhost: t\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 5\r\n\r\n",
        "GET /body HTTP/1.1\r\nhost: t\r\n\r\n",
    ];
    for request in requests {
        let mut client = Client::connect(app.main);
        client.send(request);
        until_holds("it is in flight", || in_flight(&app) == 1);
        client.reset();
        until_holds("it is gone", || in_flight(&app) == 0);
    }
    let mut http2 = Http2::connect(app.main);
    for path in ["/", "/body"] {
        let stream = http2.get(path);
        until_holds("it is in flight", || in_flight(&app) == 1);
        http2.send(RST_STREAM, 0, stream, &8_u32.to_be_bytes());
        until_holds("it is gone", || in_flight(&app) == 0);
    }
    assert_eq!(outcomes(&app.end()), [0, 0, 0, 5]);
    assert_eq!(*causes.lock().unwrap(), [Some(CancelCause::ClientGone); 5]);
}
