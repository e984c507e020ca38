//! Every response has a `Date` by the clock of the host.

use crate::support::{App, Client, app::Workers, frames::Http2, settings, until_holds};
use axum::{Router, routing::get};
use futures_util::stream;
use lameduck::{
    Host,
    lifecycle::Moment,
    os::TokioClock,
    runtime::{Clock, Sleep},
};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A clock whose time of day is set by the test.
#[derive(Debug)]
struct SetByHand {
    clock: TokioClock,
    wall: Arc<AtomicU64>,
}

impl Clock for SetByHand {
    fn now(&self) -> Moment {
        self.clock.now()
    }

    fn sleep_until(&self, at: Moment) -> Pin<Box<dyn Sleep>> {
        self.clock.sleep_until(at)
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.wall.load(Relaxed))
    }
}

async fn panics() {
    panic!("on purpose");
}

/// Returns the length of a response head over HTTP/2. HPACK encodes a repeated date as one byte.
fn http2_head(http2: &mut Http2, path: &str) -> usize {
    let stream = http2.get(path);
    http2
        .wait_for("a head", |frame| {
            frame.stream == stream && frame.kind == crate::support::frames::HEADERS
        })
        .payload
        .len()
}

// The system clock was set back by an hour. Responses through hyper and over HTTP/2 had the old
// time for that hour, while responses of the fast path had the new one. Every response must follow
// the clock within a second. Later the 400 of hyper had no date if a response preceded it at once.
#[test]
fn a_changed_clock_shows_on_every_response_within_a_second() {
    const BEFORE: (u64, &str) = (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT");
    const SET: [(u64, &str); 2] = [
        (784_108_177, "Sun, 06 Nov 1994 07:49:37 GMT"),
        (784_115_377, "Sun, 06 Nov 1994 09:49:37 GMT"),
    ];
    let routes = Router::new()
        .route("/", get(|| async { "hello" }))
        .route(
            "/stream",
            get(|| async {
                axum::body::Body::from_stream(stream::iter([Ok::<_, std::io::Error>("hello")]))
            }),
        )
        .route("/panic", get(panics))
        .route("/waits", get(|| async { std::future::pending::<()>().await }));
    let wall = Arc::new(AtomicU64::new(BEFORE.0));
    let clock = {
        let wall = wall.clone();
        |clock| SetByHand { clock, wall }
    };
    let host =
        Host::builder(settings().request_timeout(Some(Duration::from_millis(20)))).serve(routes);
    let app = App::spawn_by(host, Workers::Task, clock);
    app.wait_for_phase("serving");
    let mut client = Client::connect(app.main);
    let mut http2 = Http2::connect(app.main);
    let _ = http2_head(&mut http2, "/");
    let with_a_known_date = http2_head(&mut http2, "/");
    for (set, text) in std::iter::once(BEFORE).chain(SET) {
        wall.store(set, Relaxed);
        for path in ["/", "/stream", "/panic", "/waits", "/nothing"] {
            until_holds(&format!("the date of {path}"), || {
                client.get(path).header("date") == Some(text)
            });
        }
        for (before, responses) in [
            ("", 0),
            ("OPTIONS /nothing HTTP/1.1\r\nhost: t\r\n\r\n", 1),
            ("OPTIONS /nothing HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", 1),
        ] {
            let mut garbage = Client::connect(app.main);
            garbage.send(format!("{before}GET / HTTP/1.1\r\nno colon\r\n\r\n"));
            for _ in 0..responses {
                assert_eq!(garbage.answer().header("date"), Some(text), "{before}");
            }
            let refused = garbage.answer();
            assert_eq!((refused.status, refused.header("date")), (400, Some(text)), "{before}");
        }
        assert_eq!(app.probe("/liveness").header("date"), Some(text));
        if set != BEFORE.0 {
            let head = http2_head(&mut http2, "/");
            assert!(head > with_a_known_date + 10, "{head} bytes are no new date");
        }
    }
    let _ = app.end();
}
