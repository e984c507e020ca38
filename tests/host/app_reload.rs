//! SIGHUP reloads where the app says how, and signals that do not stop are ignored.

use crate::support::{App, builder, settings, until_holds};
use axum::{Router, routing::get};
use lameduck::{Host, lifecycle::Signal};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

fn router() -> Router {
    Router::new().route("/", get(|| async { "hello" }))
}

#[test]
fn sighup_reloads_one_at_a_time_and_failures_end_nothing() {
    let (begun, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (counted, waited) = (begun.clone(), done.clone());
    let host = builder().on_reload(move || {
        let number = counted.fetch_add(1, SeqCst);
        let waited = waited.clone();
        async move {
            waited.acquire().await.map_err(io::Error::other)?.forget();
            assert_ne!(number, 1, "the second one panics");
            if number == 2 { Err(io::Error::other("no such certificate")) } else { Ok(()) }
        }
    });
    let app = App::start(host.serve(router()));
    app.signal(Signal::Hangup);
    until_holds("the first", || begun.load(SeqCst) == 1);
    // Two more during the first are one more.
    app.signal(Signal::Hangup);
    app.signal(Signal::Hangup);
    until_holds("both received", || app.status()["phase"] == "serving");
    done.add_permits(1);
    until_holds("the second", || begun.load(SeqCst) == 2);
    done.add_permits(1);
    until_holds("the third", || {
        app.signal(Signal::Hangup);
        begun.load(SeqCst) == 3
    });
    done.add_permits(10);
    assert_eq!(app.get("/").body(), "hello");
    app.signal(Signal::Terminate);
    let report = app.report();
    assert_eq!(
        (report.code(), report.reason.map(|reason| reason.to_string()).as_deref()),
        (0, Some("SIGTERM"))
    );
}

#[test]
fn a_signal_that_does_not_stop_is_ignored() {
    let settings = settings().stop_signals([Signal::Terminate]);
    let app = App::start(Host::builder(settings).serve(router()));
    for signal in [Signal::Interrupt, Signal::Quit, Signal::Hangup] {
        app.signal(signal);
    }
    crate::support::block(Duration::from_millis(200));
    assert_eq!(app.status()["phase"], "serving");
    app.signal(Signal::Terminate);
    assert_eq!(app.report().code(), 0);
}
