//! P4: a connection that has reached the age limit announces its close, and loses nothing.

use crate::support::{
    App, Client, End,
    app::Workers,
    block,
    frames::{GOAWAY, Http2},
    now, quick_plan, settings,
};
use axum::{Router, routing::get};
use lameduck::{Host, Limits};
use std::time::Duration;

const AGE: Duration = Duration::from_secs(2);
const ALL_WORKERS: [Workers; 2] = [Workers::Task, Workers::Threads(1)];

fn start(workers: Workers, age_max: Option<Duration>) -> App {
    let plan = quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_secs(5));
    let limits = Limits::default().connection_age_max(age_max);
    let slow = || async {
        crate::support::pause(2_500).await;
        "slow"
    };
    let router = Router::new().route("/", get(|| async { "hello" })).route("/slow", get(slow));
    App::start_on(Host::builder(settings().plan(plan).limits(limits)).serve(router), workers)
}

#[test]
fn http1_announces_with_the_next_response() {
    for workers in ALL_WORKERS {
        let app = start(workers, Some(AGE));
        let begin = now();
        let mut parked = Client::connect(app.main);
        let mut busy = Client::connect(app.main);
        assert!(!parked.get("/").says_close(), "{workers:?}");
        let announced = loop {
            let response = busy.get("/");
            if response.says_close() {
                break begin.elapsed();
            }
            assert!(begin.elapsed() < AGE + Duration::from_secs(3), "{workers:?}");
            block(Duration::from_millis(50));
        };
        assert!(announced >= AGE * 8 / 10, "{workers:?}: {announced:?}");
        assert_eq!(busy.end(), End::Closed);
        // An idle connection is not closed for its age: it would lose a request under way.
        block(AGE / 2);
        let last = parked.get("/");
        assert_eq!((last.body().as_str(), last.says_close()), ("hello", true), "{workers:?}");
        assert_eq!(parked.end(), End::Closed);
        let report = app.end();
        assert_eq!((report.code(), report.connections.close_races), (0, 0));
    }
}

#[test]
fn http2_sends_a_goaway_and_serves_the_open_streams() {
    for workers in ALL_WORKERS {
        let app = start(workers, Some(AGE));
        let mut idle = Http2::connect(app.main);
        let stream = idle.get("/");
        assert_eq!(idle.body(stream), "hello");
        let mut busy = Http2::connect(app.main);
        let slow = busy.get("/slow");
        busy.wait_for("a GOAWAY", |frame| frame.kind == GOAWAY);
        assert_eq!(busy.body(slow), "slow", "{workers:?}");
        idle.wait_for("a GOAWAY", |frame| frame.kind == GOAWAY);
        idle.read_to_end();
        assert_eq!(app.end().code(), 0);
    }
}

#[test]
fn without_the_setting_no_connection_ages() {
    let app = start(Workers::Task, None);
    let mut client = Client::connect(app.main);
    assert!(!client.get("/").says_close());
    block(AGE);
    assert!(!client.get("/").says_close());
    assert_eq!(app.end().code(), 0);
}
