//! P10, P13: what the handler of an internal route sees of the process, and its spawned work.

use crate::support::{
    App,
    app::Workers,
    aside,
    frames::{Http2, SETTINGS},
    now, pause, quick_plan, settings, until_holds, wire,
};
use axum::Router;
use lameduck::{
    Body, Builder, Hook, Host, Limits, RequestContext,
    lifecycle::{Phase, Signal},
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

fn builder(lame_duck: Duration) -> Builder {
    let plan = quick_plan().lame_duck(lame_duck).drain(Duration::from_secs(8));
    let plan = plan.cleanup(Duration::from_secs(15));
    Host::builder(settings().plan(plan).grace_period(Duration::ZERO))
}

fn context(request: &http::Request<Body>) -> RequestContext {
    request.body().context().clone()
}

/// An internal route for the operators asked its context for the phase. It was Serving in every
/// phase, from the start to the stop hooks.
#[test]
fn the_context_of_an_internal_route_has_the_phase_of_the_process() {
    let [may_start, may_end] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
    let wait = |is_released: &Arc<AtomicBool>| {
        let is_released = is_released.clone();
        move || async move {
            while !is_released.load(Relaxed) {
                pause(5).await;
            }
            Ok::<(), io::Error>(())
        }
    };
    // A second signal ends the delay.
    let host = builder(Duration::from_secs(60))
        .hook(Hook::on_start("waits", wait(&may_start)))
        .hook(Hook::on_stop("slow", wait(&may_end)))
        .internal_route("/phase", |request| async move {
            let context = context(&request);
            http::Response::new(format!("{} {}", context.phase().name(), context.is_cancelled()))
        })
        .serve(Router::new());
    let app = App::spawn(host, Workers::Task);
    let phase = || app.probe("/phase").body().to_owned();
    assert_eq!(phase(), "starting false");
    may_start.store(true, Relaxed);
    app.wait_for_phase("serving");
    assert_eq!(phase(), "serving false");
    app.signal(Signal::Terminate);
    app.wait_for_phase("lame_duck");
    assert_eq!(phase(), "lame_duck false");
    app.signal(Signal::Interrupt);
    app.wait_for_phase("cleaning_up");
    assert_eq!(phase(), "cleaning_up true");
    may_end.store(true, Relaxed);
    assert_eq!(app.report().code(), 0);
}

/// An internal route began an export in the background. The drain did not wait for it, its
/// context was not notified of the stop, and its panic was exit code 0.
#[test]
fn the_drain_waits_for_the_work_of_an_internal_route() {
    let done = Arc::new(AtomicU32::new(0));
    let noted = done.clone();
    let host = builder(Duration::from_millis(50))
        .internal_route("/work", move |request| {
            let (context, noted) = (context(&request), noted.clone());
            let watched = context.clone();
            context.spawn(async move {
                watched.stopping().await;
                watched.draining().await;
                pause(300).await;
                noted.fetch_add(1, Relaxed);
            });
            async { http::Response::new("begun") }
        })
        .internal_route("/panics", |request| async move {
            let work = async { assert!(now().elapsed() > Duration::MAX, "on purpose") };
            context(&request).spawn(work);
            http::Response::new("begun")
        })
        .serve(Router::new());
    let app = App::start(host);
    for path in ["/work", "/panics"] {
        assert_eq!(app.probe(path).body(), "begun");
    }
    let report = app.end();
    assert_eq!(done.load(Relaxed), 1);
    let drain = report.phases.iter().find(|(phase, _)| *phase == Phase::Draining).unwrap().1;
    assert!(drain >= Duration::from_millis(300), "{drain:?}");
    assert_eq!((report.code(), report.work_dropped, report.work_panicked), (1, 0, 1), "{report}");
}

/// The work of an internal route awaited the end of its long stream. That never came: the work held
/// the drain to its limit, was dropped, and made the exit code 3 (P8, P13).
#[test]
fn the_long_stream_of_an_internal_route_ends_with_the_drain_of_the_process() {
    let cancelled = Arc::new(AtomicU32::new(0));
    let noted = cancelled.clone();
    let serve = |plan| {
        let noted = noted.clone();
        let host = Host::builder(settings().plan(plan)).internal_route("/work", move |request| {
            let (context, noted) = (context(&request), noted.clone());
            context.clone().spawn(async move {
                let ended = context.stream_end();
                tokio::select! {
                    biased;
                    () = context.cancelled() => drop(noted.fetch_add(1, Relaxed)),
                    () = ended => {}
                }
            });
            async { http::Response::new("begun") }
        });
        let app = App::start(host.serve(Router::new()));
        for _ in 0..6 {
            assert_eq!(app.probe("/work").body(), "begun");
        }
        let report = app.end();
        assert_eq!((report.code(), report.work_dropped), (0, 0), "{report}");
        report.phases.iter().find(|(phase, _)| *phase == Phase::Draining).unwrap().1
    };
    let long = Duration::from_secs(5);
    let drain = serve(quick_plan().drain(long));
    assert!(drain < long / 2, "{drain:?}");
    // A long stream outlasts the drain of ordinary requests, and so does its context.
    let ordinary = Duration::from_millis(200);
    let drain = serve(quick_plan().drain(ordinary).streams(Duration::from_secs(3)));
    assert!(drain > ordinary + Duration::from_millis(600), "{drain:?}");
    assert_eq!(cancelled.load(Relaxed), 0);
}

/// A handler of an internal route awaited the end of its long stream. The report counted the
/// stream, although no request to the internal port is in it (P13).
#[test]
fn a_long_stream_of_an_internal_route_is_not_in_the_report() {
    let waits = Arc::new(AtomicBool::new(false));
    let noted = waits.clone();
    let host = builder(Duration::from_millis(50))
        .internal_route("/stream", move |request| {
            let end = context(&request).stream_end();
            noted.store(true, Relaxed);
            async {
                end.await;
                http::Response::new("ended")
            }
        })
        .serve(Router::new());
    let app = App::start(host);
    let internal = app.internal;
    let stream = aside(move || wire::get(internal, "/stream").body().to_owned());
    until_holds("it waits", || waits.load(Relaxed));
    let report = app.end();
    assert_eq!(stream.join().unwrap(), "ended");
    assert_eq!((report.code(), report.streams_ended), (0, 0), "{report}");
}

/// A connection of the internal server has few streams (P16).
#[test]
fn a_connection_to_the_internal_server_has_few_streams() {
    // RFC 9113 §6.5.2: SETTINGS_MAX_CONCURRENT_STREAMS is 3.
    const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
    for (limits, main, internal) in
        [(Limits::default(), 200, 16), (Limits::default().http2_streams_max(4), 4, 4)]
    {
        let settings = settings().limits(limits);
        let app = App::start(Host::builder(settings).serve(Router::new()));
        for (address, most) in [(app.main, main), (app.internal, internal)] {
            let mut client = Http2::connect(address);
            let said =
                client.wait_for("SETTINGS", |frame| frame.kind == SETTINGS && frame.flags == 0);
            let mut fields = said.payload.chunks_exact(6);
            let field = fields.find(|field| field[..2] == MAX_CONCURRENT_STREAMS).unwrap();
            assert_eq!(field[2..], u32::to_be_bytes(most));
        }
        assert_eq!(app.end().code(), 0);
    }
}
