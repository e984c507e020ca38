//! P7, P10: long streams have a separate budget, and end at moments spread over it. Nothing
//! else benefits from it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use crate::support::{
    App, Client, End, aside,
    frames::{Http2, RST_STREAM, SETTINGS},
    now, pause, quick_plan, settings, until_holds,
};
use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::Request,
    response::{IntoResponse, Response},
    routing::get,
};
use futures_util::{StreamExt, future::BoxFuture, stream};
use http::{StatusCode, header};
use hyper_util::rt::TokioIo;
use lameduck::{
    BackgroundTask, CancelCause, Host, Report, RequestContext, StreamShutdown, lifecycle::Plan,
};
use std::{
    convert::Infallible,
    future::pending,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, sync::mpsc};

const DRAIN: Duration = Duration::from_millis(400);
const CANCEL: Duration = Duration::from_millis(600);
const STREAMS: Duration = Duration::from_secs(4);
/// When everything but streams must have ended, and the time that a slow machine adds.
const ORDINARY: Duration = Duration::from_millis(400 + 600);
const SLACK: Duration = Duration::from_secs(1);

fn plan() -> Plan {
    quick_plan().lame_duck(Duration::ZERO).drain(DRAIN).cancel(CANCEL).streams(STREAMS)
}

/// Why contexts were cancelled.
type Causes = Arc<Mutex<Vec<Option<CancelCause>>>>;

/// A chunk every 20 ms, without end.
fn ticks() -> Body {
    Body::from_stream(stream::unfold((), |()| async {
        pause(20).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b"tick\n")), ()))
    }))
}

/// Changes the protocol. Without `context` it waits for ever, otherwise it says goodbye at the end
/// of the stream.
fn upgrade(request: Request, context: Option<RequestContext>) -> Response {
    #[expect(clippy::disallowed_methods, reason = "as libraries for WebSocket do")]
    upgrade_by(request, context, |chat| drop(tokio::spawn(chat)))
}

/// Like [`upgrade`], with a task that `spawn` starts.
fn upgrade_by(
    mut request: Request,
    context: Option<RequestContext>,
    spawn: impl FnOnce(BoxFuture<'static, ()>),
) -> Response {
    let upgrading = hyper::upgrade::on(&mut request);
    spawn(Box::pin(async move {
        let mut io = TokioIo::new(upgrading.await.unwrap());
        match context {
            Some(context) => {
                context.stream_end().await;
                let _ = io.write_all(b"bye").await;
            }
            None => drop(tokio::io::copy_bidirectional(&mut io, &mut tokio::io::empty()).await),
        }
    }));
    let headers = [(header::CONNECTION, "upgrade"), (header::UPGRADE, "chat")];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

fn start(plan: Plan) -> (App, Causes) {
    let causes = Causes::default();
    let heard = causes.clone();
    let spread = || async { (Extension(StreamShutdown::EndSpread), ticks()) };
    let silent = || async {
        let first = stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"tick\n")) });
        (Extension(StreamShutdown::EndSpread), Body::from_stream(first.chain(stream::pending())))
    };
    let asks = move |context: RequestContext| async move {
        context.cancelled().await;
        heard.lock().unwrap().push(context.cancel_cause());
        "returned in time"
    };
    let work = |context: RequestContext| async move {
        context.spawn(pending());
        "spawned"
    };
    let farewell = |context: RequestContext| async move {
        let watched = context.clone();
        context.spawn(async move { watched.cancelled().await });
        "spawned"
    };
    let chat =
        |context: RequestContext, request: Request| async move { upgrade(request, Some(context)) };
    let worker = |context: RequestContext, request: Request| async move {
        let spawn = |chat| context.spawn(chat);
        upgrade_by(request, Some(context.clone()), spawn)
    };
    let produces = |context: RequestContext| async move {
        let (chunks, produced) = mpsc::channel::<Result<_, Infallible>>(1);
        context.spawn(async move {
            while chunks.send(Ok("tick\n")).await.is_ok() {
                pause(20).await;
            }
        });
        let chunks = stream::unfold(produced, |mut produced: mpsc::Receiver<_>| async {
            produced.recv().await.map(|chunk| (chunk, produced))
        });
        (Extension(StreamShutdown::EndSpread), Body::from_stream(chunks))
    };
    let events = |context: RequestContext| async move {
        let ended = context.stream_end();
        let first = stream::once(async { Ok::<_, Infallible>("data: hello\n\n") });
        let last = stream::once(async {
            ended.await;
            Ok("data: bye\n\n")
        });
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(first.chain(last)))
    };
    let late_events = |context: RequestContext| async move {
        let first = stream::once(async { Ok::<_, Infallible>("data: hello\n\n") });
        let last = stream::once(async move {
            context.stream_end().await;
            Ok("data: bye\n\n")
        });
        ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(first.chain(last)))
    };
    let router = Router::new()
        .route("/spread", get(spread))
        .route("/events", get(events))
        .route("/late-events", get(late_events))
        .route("/worker-chat", get(worker))
        .route("/produced", get(produces))
        .route("/silent", get(silent))
        .route("/stuck", get(pending::<&'static str>))
        .route("/asks", get(asks))
        .route("/work", get(work))
        .route("/farewell", get(farewell))
        .route("/ticks", get(|| async { ticks() }))
        .route("/large", get(|| async { vec![b'x'; 40 << 20] }))
        .route("/chat", get(chat))
        .route("/endless-chat", get(|request: Request| async move { upgrade(request, None) }));
    let host = Host::builder(settings().plan(plan).request_timeout(None)).serve(router);
    (App::start(host), causes)
}

/// Sends a GET request and reads the response to its end in a new thread. Returns how it
/// ended, and when.
fn reader(app: &App, path: &'static str, fields: &str) -> std::thread::JoinHandle<Ended> {
    let mut client = Client::connect(app.main);
    client.send(format!("GET {path} HTTP/1.1\r\nhost: t\r\n{fields}\r\n"));
    aside(move || {
        let answer = client.try_answer();
        let status = answer.as_ref().map_or(0, |answer| answer.status);
        let mut rest: Vec<u8> =
            answer.as_ref().map(|answer| answer.body().into()).unwrap_or_default();
        if status == 101 {
            while let Ok(byte) = client.exactly(1) {
                rest.extend(byte);
            }
        }
        Ended { at: now(), status, reset: answer.err() == Some(End::Reset), rest }
    })
}

#[derive(Debug)]
struct Ended {
    at: Instant,
    status: u16,
    reset: bool,
    /// The body, or what followed a 101.
    rest: Vec<u8>,
}

fn wait_for_in_flight(app: &App, count: u64) {
    until_holds("they are in flight", || app.status()["in_flight"] == count);
}

/// Stops the host. Returns the earliest and the latest moment at which its drain can have begun.
fn drain(app: &App) -> (Instant, Instant) {
    let before = now();
    app.stop();
    app.wait_for_phase("draining");
    (before, now())
}

#[track_caller]
fn assert_bounded(report: &Report, begin: Instant) {
    assert!(report.shutdown < report.worst_case + SLACK, "P7: {report}");
    assert!(begin.elapsed() < report.worst_case + 2 * SLACK, "P7: {report}");
}

#[test]
fn the_ends_of_long_streams_are_spread_over_their_budget() {
    let (app, _) = start(plan());
    let readers: Vec<_> =
        (0..12).map(|n| reader(&app, ["/spread", "/silent"][n % 2], "")).collect();
    wait_for_in_flight(&app, 12);
    let (before, after) = drain(&app);
    let mut took = Vec::new();
    for reader in readers {
        let ended = reader.join().unwrap();
        assert_eq!((ended.status, ended.reset), (200, false), "each ends completely");
        took.push(ended.at - after.min(ended.at));
        assert!(ended.at - before < STREAMS + SLACK, "within the budget: {ended:?}");
    }
    // By the seed of the test, each third of the window has its ends.
    for third in 0..3_u32 {
        let (from, to) = (STREAMS * third / 3, STREAMS * (third + 1) / 3 + SLACK);
        assert!(took.iter().any(|took| (from..to).contains(took)), "no herd: {took:?}");
    }
    let report = app.report();
    assert_bounded(&report, before);
    assert_eq!((report.code(), report.requests.finished, report.streams_ended), (0, 12, 12));
}

#[test]
fn nothing_else_benefits_from_the_budget_of_streams() {
    let (app, causes) = start(plan());
    let streams: Vec<_> = (0..6).map(|_| reader(&app, "/spread", "")).collect();
    let upgrade = "connection: upgrade\r\nupgrade: chat\r\n";
    let [stuck, asks, ticks] = ["/stuck", "/asks", "/ticks"].map(|path| reader(&app, path, ""));
    let chat = reader(&app, "/endless-chat", upgrade);
    let mut unread = Client::connect(app.main);
    unread.read_nothing();
    unread.send_get("/large");
    wait_for_in_flight(&app, 10);
    assert_eq!(app.get("/work").body(), "spawned");
    until_holds("upgraded", || app.status()["connections"]["upgraded"] == 1);
    let (before, after) = drain(&app);
    let [stuck, asks, ticks, chat] = [stuck, asks, ticks, chat].map(|thread| {
        let ended = thread.join().unwrap();
        assert!(ended.at - before < ORDINARY + SLACK, "P7: {ended:?}");
        ended
    });
    assert_eq!((stuck.status, asks.status), (503, 200));
    assert!(asks.at - before >= DRAIN, "P10: not before its drain is over");
    assert_eq!(*causes.lock().unwrap(), [Some(CancelCause::Shutdown)]);
    assert!(ticks.reset, "P5d: {ticks:?}");
    assert_eq!(chat.status, 101);
    // The unread response of known length is cut last.
    until_holds("only streams are left", || {
        let status = app.status();
        let streams = status["waiting_for"]["by_kind"]["stream"].as_u64();
        streams == status["waiting_for"]["total"].as_u64()
    });
    assert!(after.elapsed() < ORDINARY + SLACK, "P7: {:?}", after.elapsed());
    let streams: Vec<_> = streams.into_iter().map(|stream| stream.join().unwrap()).collect();
    assert!(streams.iter().all(|ended| ended.status == 200 && !ended.reset), "{streams:?}");
    let last = streams.iter().map(|ended| ended.at).max().unwrap();
    assert!(last - after > ORDINARY + SLACK, "streams do: {:?}", last - after);
    let report = app.report();
    assert_bounded(&report, before);
    let requests = report.requests;
    assert_eq!((report.code(), report.work_dropped, report.streams_ended), (3, 1, 6), "{report}");
    assert_eq!((requests.finished, requests.aborted), (9, 3), "{report}");
    assert_eq!(unread.end(), End::Reset);
}

// Background tasks were cancelled with the root context, and so had the budget of streams.
#[test]
fn background_tasks_have_the_drain_of_ordinary_requests() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let task = |name: &'static str| {
        let ends = ends.clone();
        BackgroundTask::new(name, move |context| async move {
            if name == "stuck" {
                pending::<()>().await;
            }
            context.cancelled().await;
            ends.lock().unwrap().push(now());
            if name == "fails" { Err(std::io::Error::other("too late to count")) } else { Ok(()) }
        })
    };
    let spread = || async { (Extension(StreamShutdown::EndSpread), ticks()) };
    let host = Host::builder(settings().plan(plan()).request_timeout(None))
        .background_task(task("asks"))
        .background_task(task("fails"))
        .background_task(task("stuck"))
        .serve(Router::new().route("/spread", get(spread)));
    let app = App::start(host);
    let streams: Vec<_> = (0..6).map(|_| reader(&app, "/spread", "")).collect();
    wait_for_in_flight(&app, 6);
    let (before, after) = drain(&app);
    until_holds("only streams are left", || {
        let status = app.status();
        status["waiting_for"]["by_kind"]["stream"] == status["waiting_for"]["total"]
    });
    assert!(after.elapsed() < ORDINARY + SLACK, "P7: {:?}", after.elapsed());
    let streams: Vec<_> = streams.into_iter().map(|stream| stream.join().unwrap()).collect();
    assert!(streams.iter().all(|ended| ended.status == 200 && !ended.reset), "{streams:?}");
    let ends = ends.lock().unwrap();
    assert_eq!(ends.len(), 2);
    assert!(ends.iter().all(|end| (DRAIN..ORDINARY + SLACK).contains(&(*end - before))), "P10");
    let report = app.report();
    assert_bounded(&report, before);
    assert_eq!((report.code(), report.work_dropped), (3, 1), "{report}");
}

// The context of a request that had ended was not cancelled at the end of the drain of ordinary
// requests, and its work was dropped although it watched the context (P10).
#[test]
fn work_whose_request_has_ended_is_cancelled_with_ordinary_requests() {
    let (app, _) = start(plan());
    let stream = reader(&app, "/spread", "");
    wait_for_in_flight(&app, 1);
    assert_eq!(app.get("/farewell").body(), "spawned");
    let (before, _) = drain(&app);
    assert_eq!(stream.join().unwrap().status, 200);
    let report = app.report();
    assert_bounded(&report, before);
    assert_eq!((report.code(), report.work_dropped), (0, 0), "{report}");
}

#[test]
fn an_upgraded_connection_says_goodbye_at_its_moment() {
    let (app, _) = start(plan());
    let upgrade = "connection: upgrade\r\nupgrade: chat\r\n";
    let chats: Vec<_> = (0..6).map(|_| reader(&app, "/chat", upgrade)).collect();
    until_holds("upgraded", || app.status()["connections"]["upgraded"] == 6);
    let (before, after) = drain(&app);
    let ended: Vec<_> = chats.into_iter().map(|chat| chat.join().unwrap()).collect();
    assert!(ended.iter().all(|chat| chat.rest == b"bye"), "{ended:?}");
    let last = ended.iter().map(|chat| chat.at).max().unwrap();
    assert!(last - after > ORDINARY, "beyond the limits of requests: {:?}", last - after);
    let report = app.report();
    assert_bounded(&report, before);
    assert_eq!((report.code(), report.streams_ended), (0, 6));
}

// An event stream whose handler had awaited its moment was ended as the drain began, with all
// others. Its clients reconnected at once, and missed its last event (P10). So was, later, one of
// which the body awaited it.
#[test]
fn an_event_stream_that_awaits_its_moment_ends_itself() {
    let (app, _) = start(plan());
    let paths = ["/events", "/late-events"].into_iter().cycle();
    let events: Vec<_> = paths.take(6).map(|path| reader(&app, path, "")).collect();
    wait_for_in_flight(&app, 6);
    let (before, after) = drain(&app);
    let ended: Vec<_> = events.into_iter().map(|events| events.join().unwrap()).collect();
    for events in &ended {
        let body = String::from_utf8_lossy(&events.rest);
        assert_eq!(body, "data: hello\n\ndata: bye\n\n");
    }
    let last = ended.iter().map(|events| events.at).max().unwrap();
    assert!(last - after > ORDINARY, "beyond the limits of requests: {:?}", last - after);
    let report = app.report();
    assert_bounded(&report, before);
    assert_eq!((report.code(), report.streams_ended), (0, 6));
}

// The work of a request was dropped with ordinary requests if it was spawned before the request
// became a long stream, as it usually is. The connection of a WebSocket then ended without a
// goodbye, and a response that its work produced ended early and looked complete (P5d).
#[test]
fn the_work_of_a_long_stream_has_its_budget() {
    let (app, _) = start(plan());
    let upgrade = "connection: upgrade\r\nupgrade: chat\r\n";
    let chats: Vec<_> = (0..6).map(|_| reader(&app, "/worker-chat", upgrade)).collect();
    until_holds("upgraded", || app.status()["connections"]["upgraded"] == 6);
    let produced: Vec<_> = (0..6).map(|_| reader(&app, "/produced", "")).collect();
    wait_for_in_flight(&app, 6);
    let (before, after) = drain(&app);
    let ended: Vec<_> = chats.into_iter().map(|chat| chat.join().unwrap()).collect();
    assert!(ended.iter().all(|chat| chat.rest == b"bye"), "{ended:?}");
    let streams: Vec<_> = produced.into_iter().map(|stream| stream.join().unwrap()).collect();
    for ended in [ended, streams] {
        let last = ended.iter().map(|stream| stream.at).max().unwrap();
        assert!(last - after > ORDINARY, "beyond the limits of requests: {:?}", last - after);
    }
    let report = app.report();
    assert_bounded(&report, before);
    assert_eq!((report.code(), report.streams_ended), (0, 12), "{report}");
}

#[test]
fn an_ordinary_response_next_to_a_long_stream_is_cut_alone() {
    // By the seed of the test, the stream ends almost two seconds after the drain has begun.
    let (app, _) = start(plan().streams(STREAMS * 6));
    let mut client = Http2::connect(app.main);
    let stream = client.get("/spread");
    client.wait_for("the stream", |frame| frame.stream == stream);
    // RFC 9113 §6.5.2: SETTINGS_INITIAL_WINDOW_SIZE is 4. The rest of the response must wait.
    client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x10, 0]);
    let large = client.get("/large");
    client.wait_for("the response", |frame| frame.stream == large);
    let (before, _) = drain(&app);
    let reset =
        client.wait_for("the cut", |frame| frame.stream == large && frame.kind == RST_STREAM);
    assert!(before.elapsed() < ORDINARY + SLACK, "P7: {reset:?} after {:?}", before.elapsed());
    client.read_to_end();
    let report = app.report();
    assert_bounded(&report, before);
    let aborted = report.aborts.iter().map(|abort| abort.path.as_str()).collect::<Vec<_>>();
    assert_eq!(aborted, ["/large"], "{report}");
}

#[test]
fn without_a_budget_a_long_stream_ends_as_the_drain_begins() {
    let (app, _) = start(plan().streams(Duration::ZERO).drain(STREAMS));
    let stream = reader(&app, "/spread", "");
    wait_for_in_flight(&app, 1);
    // The drain may be over before its phase can be seen.
    let before = now();
    app.stop();
    let ended = stream.join().unwrap();
    assert!((ended.status, ended.reset) == (200, false) && ended.at - before < STREAMS / 2);
    assert_eq!(app.report().code(), 0);
}

/// A task that awaited the end of a long stream was still there when the stream was not. The report
/// counted the stream as one that the shutdown had ended, although its client had left long before.
#[test]
fn a_stream_that_ended_before_the_stop_is_not_counted() {
    let watched = |context: RequestContext| async move {
        let ended = context.stream_end();
        context.spawn(ended);
        ticks()
    };
    let short = |context: RequestContext| async move {
        let ended = context.stream_end();
        context.spawn(ended);
        "done"
    };
    let router = Router::new().route("/watched", get(watched)).route("/short", get(short));
    let plan = plan().streams(Duration::from_millis(200));
    let app = App::start(Host::builder(settings().plan(plan)).serve(router));
    let mut leaves = Client::connect(app.main);
    leaves.send_get("/watched");
    leaves.head().unwrap();
    drop(leaves);
    assert_eq!(app.get("/short").body(), "done");
    wait_for_in_flight(&app, 0);
    let report = app.end();
    assert_eq!((report.requests.gone, report.requests.finished), (1, 1), "{report}");
    assert_eq!((report.code(), report.streams_ended), (0, 0), "{report}");
}

// No test noticed a host that ends such a download with the drain, in the middle of the bytes that
// its head has promised.
#[test]
fn a_body_with_a_length_is_sent_whole_whatever_its_class() {
    let download = || async {
        let pieces = stream::unfold(10, |left: u32| async move {
            pause(50).await;
            (left > 0).then(|| (Ok::<_, Infallible>("tick\n"), left - 1))
        });
        let length = [(header::CONTENT_LENGTH, "50")];
        (length, Extension(StreamShutdown::EndAtDraining), Body::from_stream(pieces))
    };
    let plan = quick_plan().drain(Duration::from_secs(20));
    let router = Router::new().route("/", get(download));
    let app = App::start(Host::builder(settings().plan(plan)).serve(router));
    let mut client = Client::connect(app.main);
    client.send_get("/");
    client.head().unwrap();
    app.stop();
    assert_eq!(client.exactly(50).unwrap(), "tick\n".repeat(10).as_bytes());
    let report = app.report();
    assert_eq!((report.code(), report.requests.finished), (0, 1), "{report:?}");
}
