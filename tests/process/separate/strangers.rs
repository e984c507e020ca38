//! P16: probes get a response whatever other clients hold or send on their port.

use crate::support::{
    App, Client, Service, aside, builder,
    frames::{END_HEADERS, END_STREAM, HEADERS, Http2, RST_STREAM, SETTINGS, frame},
    now, soon, wire,
};
use axum::Router;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// Returns the number of streams that have ended.
fn asked_to_the_end(client: &Http2) -> u64 {
    client.seen.iter().filter(|frame| frame.ends_stream()).count() as u64
}

/// More connections than the internal port accepts.
const STRANGERS: usize = 140;

/// Sends probes one after the other. Each must get its response within the timeout of a probe, 1 s,
/// or one of the two that follow it: the tests that run meanwhile have the same cores.
#[track_caller]
fn probes_are_responded_to(what: &str, internal: std::net::SocketAddr) {
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        soon(Duration::from_secs(1), || {
            let asked = now();
            assert_eq!(wire::get(internal, "/livez").status, 200, "{what}");
            longest = longest.max(asked.elapsed());
            asked.elapsed()
        });
    }
    report(&format!("{what}: {} ms at most", longest.as_millis()));
}

#[expect(
    clippy::print_stdout,
    clippy::disallowed_macros,
    reason = "the measure, shown by --nocapture"
)]
fn report(line: &str) {
    println!("{line}");
}

fn per_second(count: u64, begin: std::time::Instant) -> u64 {
    count * 1_000 / u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX).max(1)
}

#[test]
fn probes_respond_whatever_other_clients_hold_on_their_port() {
    // P16: 128 connections to the internal port each requested a page that their HTTP/2 windows did
    // not let out. Every probe waited for as long as they stayed. Probes must get responses.
    let service = Service::start(&[]);
    let internal = service.internal;
    let preface =
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(4, 0, 0, &[0, 4, 0, 0, 0, 0])[..]].concat();
    let status = frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\x82\x86\x04\x07/status");
    let half_block = frame(HEADERS, END_STREAM, 1, b"\x82\x86\x04\x07/status");
    let pages = "GET /status HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(300);
    let cases: [(&str, Vec<u8>); 10] = [
        ("no byte", Vec::new()),
        ("HTTP/2 with closed windows", [&preface[..], &status].concat()),
        ("the preface of HTTP/2", preface[..24].to_vec()),
        ("HTTP/2 without a request", preface.clone()),
        ("HTTP/2 with half a header block", [&preface[..], &half_block].concat()),
        ("a pipeline whose responses are not read", pages.into_bytes()),
        ("a partial head", b"GET /livez HTTP/1.1\r\nhost: localhost\r\n".to_vec()),
        ("a byte of a head", b"G".to_vec()),
        (
            "half a body",
            b"POST /livez HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n1234".to_vec(),
        ),
        ("an idle connection", b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in cases {
        let held: Vec<Client> = (0..STRANGERS)
            .map(|_| {
                let mut client = Client::connect(internal);
                let _ = client.try_send_within(&bytes, Duration::from_millis(200));
                client
            })
            .collect();
        probes_are_responded_to(what, internal);
        drop(held);
    }
}

#[test]
fn probes_respond_while_other_clients_connect_again_and_again() {
    let service = Service::start(&[]);
    let internal = service.internal;
    for (what, bytes) in
        [("connects without a byte", &b""[..]), ("half heads", b"GET /livez HTTP/1.1\r\n")]
    {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let strangers = aside(move || {
            let mut held = std::collections::VecDeque::new();
            let (begin, mut connects) = (now(), 0);
            while !seen.load(Relaxed) {
                let Ok(mut client) = Client::try_connect(internal) else { continue };
                let _ = client.try_send(bytes);
                held.push_back(client);
                connects += 1;
                if held.len() > STRANGERS {
                    held.pop_front();
                }
            }
            per_second(connects, begin)
        });
        probes_are_responded_to(what, internal);
        over.store(true, Relaxed);
        report(&format!("{what}: {} connections a second", strangers.join().unwrap()));
    }
}

#[test]
fn probes_respond_during_a_flood_of_page_requests() {
    // Many connections that send requests as fast as they can, over HTTP/1 and HTTP/2.
    let service = Service::start(&[]);
    let internal = service.internal;
    let over = Arc::new(AtomicBool::new(false));
    let strangers = [0, 1].map(|kind| {
        let seen = over.clone();
        aside(move || {
            let (begin, mut asked) = (now(), 0);
            while !seen.load(Relaxed) {
                if kind == 0 {
                    let mut clients: Vec<Client> =
                        (0..60).filter_map(|_| Client::try_connect(internal).ok()).collect();
                    for client in &mut clients {
                        let _ = client.try_send(
                            "GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20),
                        );
                    }
                    asked += clients
                        .iter_mut()
                        .map(|client| {
                            (0..20).map_while(|_| client.try_answer().ok()).count() as u64
                        })
                        .sum::<u64>();
                } else {
                    let mut clients: Vec<Http2> =
                        (0..60).map(|_| Http2::connect(internal)).collect();
                    for client in &mut clients {
                        for stream in 0..16 {
                            let head = b"\x82\x86\x04\x07/status";
                            let frame =
                                frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, head);
                            let _ = client.try_send(&frame, Duration::from_millis(100));
                        }
                    }
                    for client in &mut clients {
                        while asked_to_the_end(client) < 16 && client.next().is_some() {}
                        asked += asked_to_the_end(client);
                    }
                }
            }
            per_second(asked, begin)
        })
    });
    probes_are_responded_to("a flood of /metrics and /status", internal);
    over.store(true, Relaxed);
    let rates = strangers.map(|strangers| strangers.join().unwrap());
    report(&format!("pages a second over HTTP/1 and HTTP/2: {rates:?}"));
}

#[test]
fn probes_respond_while_a_user_route_holds_every_connection() {
    let app = App::start(
        builder()
            .internal_route("/hangs", |_| async {
                std::future::pending::<()>().await;
                http::Response::new("never")
            })
            .serve(Router::new()),
    );
    let _held: Vec<Client> = (0..STRANGERS)
        .map(|_| {
            let mut client = Client::connect(app.internal);
            client.send_get("/hangs");
            client
        })
        .collect();
    probes_are_responded_to("a route that does not respond", app.internal);
    assert_eq!(app.end().code(), 0);
}

#[test]
fn a_client_of_the_internal_port_that_times_out_is_not_logged() {
    // P13: a client of the internal port received nothing. Its line sent the operator to a metric
    // that stayed 0, and to a setting that had not expired. It also hid those of clients of the
    // service, of which one line a second is logged.
    let service = Service::start(&["--send-timeout", "1s"]);
    for (address, path) in [(service.internal, "/status"), (service.main, "/")] {
        let mut client = Http2::connect(address);
        // No window for the responses.
        client.send(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
        let stream = client.get(path);
        client.wait_for("the end", |frame| frame.stream == stream && frame.kind == RST_STREAM);
    }
    let line = service.wait_for_line("client timed out");
    assert_eq!((&line["path"], &line["suppressed"]), (&"/".into(), &0.into()), "{line}");
}
