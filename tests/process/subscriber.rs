//! P15: a subscriber that panics costs only log lines. A process has one subscriber, so this test
//! runs itself again as a child process.

use super::os_process::{is_child, passes};
use crate::support::{App, Client, app::Workers, builder, pause, until_holds};
use axum::{Router, routing::get};
use lameduck::{
    Hook, ReadinessCheck,
    cli::logging::{self, LogError, LogFormat},
    lifecycle::Signal,
};
use std::{
    io,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tracing::{Event, Metadata, Subscriber, span};

/// Panics like `tracing_subscriber::fmt` without a reader, which reports its failed write with
/// `eprintln!`.
struct Broken;

static SAID: AtomicU32 = AtomicU32::new(0);

impl Subscriber for Broken {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("lameduck")
    }

    fn event(&self, _: &Event<'_>) {
        SAID.fetch_add(1, Ordering::Relaxed);
        panic!("nobody reads the log");
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

async fn panics() -> &'static str {
    panic!("on purpose")
}

#[test]
fn a_subscriber_that_panics_costs_only_its_lines() {
    // The first line of the driver after a stop request ended the process with 101: no lame duck
    // phase, no drain, no response for a waiting client. A check whose failure was logged did not
    // run again, and a panicking handler cost its connection. Only lines may be lost (P15).
    if !is_child() {
        return passes("subscriber::a_subscriber_that_panics_costs_only_its_lines");
    }
    tracing::subscriber::set_global_default(Broken).unwrap();
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let flapping = ReadinessCheck::new("flapping", || async {
        if ASKED.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
            Err(io::Error::other("not now"))
        } else {
            Ok(())
        }
    })
    .interval(Duration::from_millis(50));
    let router = Router::new()
        .route("/slow", get(|| async { pause(300).await }))
        .route("/panic", get(panics));
    let hook = Hook::on_stop("failing", || async { Err(io::Error::other("the disk is full")) });
    let app = App::start_on(
        builder().readiness_check(flapping).hook(hook).serve(router),
        Workers::Threads(1),
    );
    until_holds("a check that is run again", || ASKED.load(Ordering::Relaxed) > 4);
    assert_eq!(app.get("/panic").status, 500);
    let mut client = Client::connect(app.main);
    client.send_get("/slow");
    until_holds("the request", || app.status()["requests"]["in_flight"] == 1);
    app.signal(Signal::Terminate);
    assert_eq!(client.answer().status, 200);
    let report = app.report();
    assert_eq!((report.code(), report.requests.finished), (4, 2), "{report:?}");
    assert!(SAID.load(Ordering::Relaxed) > 5, "it was asked to say a lot");
}

/// Whether this process has a thread that writes a log.
fn has_log_thread() -> bool {
    let mut threads = std::fs::read_dir("/proc/self/task").expect("/proc").flatten();
    threads.any(|thread| {
        std::fs::read_to_string(thread.path().join("comm"))
            .is_ok_and(|name| name == "lameduck-log\n")
    })
}

/// A service that had set a subscriber before it installed the log panicked, with exit code 101.
#[test]
fn a_log_in_addition_to_a_subscriber_is_refused() {
    if !is_child() {
        return passes("subscriber::a_log_in_addition_to_a_subscriber_is_refused");
    }
    tracing::subscriber::set_global_default(Broken).unwrap();
    let refused = logging::install(LogFormat::Json, None).map(drop).unwrap_err();
    assert!(matches!(refused, LogError::AlreadySet), "{refused:?}");
    assert!(refused.to_string().contains("subscriber already"), "{refused}");
    until_holds("the end of the log's thread", || !has_log_thread());
}
