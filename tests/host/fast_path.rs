//! P5, P8, P15: requests that are served without hyper, and the handoff to hyper.

mod bodies;
mod handlers;
mod unread;

use crate::support::{
    App, Client, End, app::Workers, now, quick_plan, service_fn, settings, soon, until_holds,
};
use axum::body::Body;
use http::{Request, Response, header};
use lameduck::{Host, HttpService, Limits, Report, lifecycle::Plan};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::sync::Notify;

const GET: &str = "GET / HTTP/1.1\r\nhost: test\r\n\r\n";

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

// After a response, half of the next head was taken for a part of the previous request's body. The
// time for the head began a second late. Half a head must get its 408 in time (P15).
#[test]
fn half_a_head_after_a_fast_path_response_gets_its_408_in_time() {
    let limits = Limits::default().header_timeout(Duration::from_millis(300));
    let service = service_fn(async |_: Request<lameduck::Body>| {
        Ok::<_, Infallible>(Response::new(Body::from("hello")))
    });
    let app = App::start(Host::builder(settings().limits(limits)).serve_hyper(service));
    soon(Duration::from_secs(1), || {
        let mut client = Client::connect(app.main);
        assert_eq!(client.get("/").body(), "hello");
        let begin = now();
        client.send("GET / HTTP/1.1\r\nhost: test\r\n");
        assert_eq!(client.answer().status, 408);
        let took = begin.elapsed();
        assert!(took.as_millis() >= 300, "{took:?}");
        took
    });
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

// Connections whose last response was sent a moment ago have nothing left to do. They must not
// delay the exit, however many there are (P8).
#[test]
fn connections_that_were_just_served_do_not_delay_the_exit() {
    let plan = quick_plan().drain(Duration::from_secs(10));
    let app = App::start(planned(plan, async |_, _| Body::from("hello")));
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
    assert!(report.shutdown < Duration::from_secs(5), "{report:?}");
    assert_eq!(
        (outcomes(&report), report.connections.drained),
        ([300, 300, 0, 0, 0], 300),
        "{report:?}"
    );
    for client in &mut clients {
        assert_eq!(client.end(), End::Closed);
    }
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
