//! A failure, and a replay, show what happened.

use crate::failure_of;
use axum::{Router, extract::Path, routing::get};
use lameduck_sim::{Failure, explore};
use std::time::Duration;

#[expect(clippy::disallowed_methods, reason = "a service that sleeps sleeps by the world's time")]
fn slow() -> Router {
    let report = |Path(id): Path<u64>| async move {
        let _span = tracing::info_span!("report", id).entered();
        tracing::info!(pages = 3, "the report is begun");
        drop(_span);
        tokio::time::sleep(Duration::from_secs(20)).await;
    };
    Router::new().route("/report/{id}", get(report)).layer(lameduck::RouteTimeout::none())
}

fn failure() -> Failure {
    failure_of(explore(|world| world.host().serve(slow())).get("/report/7").seeds(0..25).run())
}

// `.replay` showed the sentence again and nothing else: no timeline, no log, no picture.
#[test]
fn a_replay_shows_the_timeline_the_log_and_the_picture() {
    let found = failure();
    let replayed = explore(|world| world.host().serve(slow())).replay(found.replay()).run();
    let again = failure_of(replayed);
    assert_eq!(again.broken, found.broken);
    for failure in [found, again] {
        let text = failure.to_string();
        assert!(text.contains("a client sends GET /report/7"), "in words: {text}");
        assert!(text.contains("phase              "), "the timeline: {text}");
        assert!(text.contains("── draining ──"), "the phases: {text}");
        assert!(text.contains("server    host: request aborted"), "the host's log: {text}");
        assert!(text.contains("request 0: GET /report/7"), "the client: {text}");
        let log = "INFO harness::replay report{id=7}: the report is begun pages=3";
        assert!(text.contains(log), "the service's log and its spans: {text}");
        assert!(failure.svg().starts_with("<svg") && failure.trace().contains("phase"));
    }
}

#[test]
fn a_replay_that_passes_shows_it_too_and_needs_no_request() {
    let found = failure();
    let repaired = || Router::new().route("/report/{id}", get(|| async { "done" }));
    let passed = explore(move |world| world.host().serve(repaired())).replay(found.replay()).run();
    assert_eq!(passed.unwrap().scenarios, 1);
}
