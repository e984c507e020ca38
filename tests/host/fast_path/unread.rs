//! P5, P6: responses of the fast path that their client does not read.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

use super::{GET, host, outcomes, planned};
use crate::support::{App, Client, End, block, quick_plan, until_holds};
use axum::body::Body;
use std::time::Duration;

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
