//! P4, P5, P6: unusual input of clients, on new connections and in the idle set.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its world should fail")]

mod half_close;

use crate::support::{
    App, Client, End,
    app::Workers,
    block,
    frames::{END_HEADERS, END_STREAM, HEADERS, Http2},
    now, quick_plan, service_fn, settings, soon, until_holds,
};
use axum::body::Body;
use futures_util::StreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use lameduck::{HalfClose, Host, HttpService, Limits, Report};
use std::{
    convert::Infallible,
    io::{Read, Write},
    time::Duration,
};

/// The path selects the response: `/405` refuses a request without reading its body, `/echo`
/// returns the body, `/101` switches protocols at once, and `/read-101` after reading the body.
fn paths() -> Host<impl HttpService> {
    limited(Limits::default())
}

fn limited(limits: Limits) -> Host<impl HttpService> {
    let plan = quick_plan().lame_duck(Duration::ZERO).drain(Duration::from_secs(15));
    Host::builder(settings().plan(plan).limits(limits).request_timeout(None)).serve_hyper(
        service_fn(async |request: Request<lameduck::Body>| {
            let status = |status| {
                Ok::<_, Infallible>(Response::builder().status(status).body(Body::empty()).unwrap())
            };
            let switch = || {
                let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
                response
                    .header(header::UPGRADE, "echo")
                    .header(header::CONNECTION, "upgrade")
                    .body(Body::empty())
            };
            match request.uri().path() {
                "/405" => status(StatusCode::METHOD_NOT_ALLOWED),
                "/101" => {
                    echo(hyper::upgrade::on(request));
                    Ok(switch().unwrap())
                }
                "/read-101" => {
                    let (head, body) = request.into_parts();
                    let read = body.collect().await.unwrap().to_bytes();
                    echo(hyper::upgrade::on(Request::from_parts(head, ())));
                    let mut response = switch().unwrap();
                    response
                        .headers_mut()
                        .insert("x-body", http::HeaderValue::from_bytes(&read).unwrap());
                    Ok(response)
                }
                "/cause" => {
                    let context = request.body().context().clone();
                    context.cancelled().await;
                    Ok(Response::new(Body::from(format!("{:?}", context.cancel_cause()))))
                }
                "/late" => {
                    let context = request.body().context().clone();
                    crate::support::pause(700).await;
                    Ok(Response::new(Body::from(format!("{:?}", context.cancel_cause()))))
                }
                "/large" => Ok(Response::new(Body::from("x".repeat(20_000)))),
                "/never" => std::future::pending().await,
                "/endless" => {
                    let piece = futures_util::stream::iter([Ok::<_, Infallible>("piece")]);
                    Ok(Response::new(Body::from_stream(
                        piece.chain(futures_util::stream::pending()),
                    )))
                }
                "/echo" => Ok(Response::new(Body::new(request.into_body()))),
                "/read" => Ok(Response::new(Body::from(
                    request.into_body().collect().await.unwrap().to_bytes(),
                ))),
                _ if request.method() == http::Method::CONNECT => {
                    status(StatusCode::METHOD_NOT_ALLOWED)
                }
                _ => Ok(Response::new(Body::from("hello"))),
            }
        }),
    )
}

#[expect(clippy::disallowed_methods, reason = "an upgraded connection ends with its client")]
fn echo(upgrade: hyper::upgrade::OnUpgrade) {
    drop(tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut reading, mut writing) = tokio::io::split(hyper_util::rt::TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
    }));
}

/// Starts the host with one worker on its own thread, as in `lameduck::run`.
fn start<S: HttpService>(host: Host<S>) -> App {
    App::start_on(host, Workers::Threads(1))
}

/// Returns the counts of started, finished, timed out, aborted and gone requests.
fn fates(report: &Report) -> [u64; 5] {
    let requests = &report.requests;
    [requests.started, requests.finished, requests.timed_out, requests.aborted, requests.gone]
}

/// Clients whose connections wait for the next request, in the idle set where there is one.
fn idle<const N: usize>(app: &App) -> [Client; N] {
    let clients = std::array::from_fn(|_| {
        let mut client = Client::connect(app.main);
        assert_eq!(client.get("/").body(), "hello");
        client
    });
    block(Duration::from_millis(1_500));
    clients
}

// An idle connection sent a request with `Upgrade: h2c` and a part of its body. The 405 was never
// sent, the connection ended without a byte, and the request was counted as finished. hyper returns
// a requested upgrade before it has flushed, and a connection that has just left the idle set
// cannot write at once.
#[test]
fn a_response_to_a_refused_upgrade_is_sent_before_the_connection_ends() {
    let app = start(paths());
    let requests = [
        "POST /405 HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: h2c\r\n\
         content-length: 200000\r\n\r\n",
        "CONNECT test:80 HTTP/1.1\r\nhost: test\r\ncontent-length: 200000\r\n\r\n",
    ];
    for request in requests {
        let [idle] = idle(&app);
        for mut client in [idle, Client::connect(app.main)] {
            client.send(format!("{request}{}", "x".repeat(100)));
            assert_eq!(client.answer().status, 405);
            assert_eq!(client.end(), End::Closed);
        }
    }
    let report = app.end();
    assert_eq!(fates(&report), [6, 6, 0, 0, 0]);
    assert_eq!(report.connections.upgraded, 0);
}

// A request asked for an upgrade, did not get it, and its connection was kept. When the connection
// ended, hyper returned the transport as if upgraded, and it was counted as upgraded. It must not
// be.
#[test]
fn a_refused_upgrade_is_not_counted_as_upgraded_when_its_connection_ends() {
    let app = start(paths());
    let mut client = Client::connect(app.main);
    client.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n");
    assert_eq!(client.answer().body(), "hello");
    client.send("bad request\r\n\r\n");
    assert_eq!(client.answer().status, 400);
    assert_eq!(client.end(), End::Closed);
    let report = app.end();
    assert_eq!(report.connections.upgraded, 0);
    assert_eq!(report.connections.open(), 0);
}

// The body of a request that switched protocols was read as the first bytes of the new protocol.
// The body must be read first.
#[test]
fn the_protocol_does_not_change_before_the_body_was_read() {
    let app = start(paths());
    let request = |path| {
        format!("POST {path} HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n")
    };
    for body in [
        "content-length: 4\r\n\r\nbody",
        "transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    ] {
        let mut client = Client::connect(app.main);
        client.send(format!("{}{body}new protocol", request("/101")));
        let answer = client.answer();
        assert_eq!((answer.status, answer.says_close()), (400, true));
        assert_eq!(client.end(), End::Closed);
        let mut client = Client::connect(app.main);
        client.send(format!("{}{body}new protocol", request("/read-101")));
        let head = client.head().unwrap();
        assert_eq!((head.status, head.header("x-body")), (101, Some("body")));
        assert_eq!(client.exactly(12).unwrap(), b"new protocol");
    }
    let mut client = Client::connect(app.main);
    client.send(
        "GET /101 HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n\
         new protocol",
    );
    assert_eq!(client.head().unwrap().status, 101);
    assert_eq!(client.exactly(12).unwrap(), b"new protocol");
    drop(client);
    until_holds("the end of all", || app.status()["connections"]["open"] == 0);
    assert_eq!(app.end().connections.upgraded, 3);
}

// A client takes a 101 with `Connection: close` for a refusal. So an upgrade announces nothing, on
// a connection of which the next response would announce its close (P4).
#[test]
fn an_upgrade_announces_no_close() {
    let app = start(limited(Limits::default().connection_age_max(Some(Duration::from_millis(1)))));
    let accepted = || app.status()["connections"]["accepted"].as_u64();
    for (path, expected) in [("/large", "close"), ("/101", "upgrade")] {
        let before = accepted();
        let mut client = Client::connect(app.main);
        until_holds("the accept", || accepted() > before);
        block(Duration::from_millis(20));
        client.send(format!(
            "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n"
        ));
        let head = client.head().unwrap();
        let options = head.headers.iter().filter(|(name, _)| name == "connection");
        let options: Vec<_> = options.map(|(_, value)| value.as_str()).collect();
        assert_eq!(options, [expected], "{path}");
    }
    assert_eq!(app.end().connections.upgraded, 1);
}

// In the drain hyper added `close` to a 101 on a connection whose request had arrived in part
// before (P5b).
#[test]
fn an_upgrade_in_the_drain_announces_no_close() {
    let app = start(paths());
    let mut client = Client::connect(app.main);
    client.send("GET /101 HTTP/1.1\r\nhost: test\r\n");
    // The half head has arrived.
    assert_eq!(Client::connect(app.main).get("/405").status, 405);
    app.stop();
    app.wait_for_phase("draining");
    client.send("connection: upgrade\r\nupgrade: echo\r\n\r\n");
    let head = client.head().unwrap();
    let options = head.headers.iter().filter(|(name, _)| name == "connection");
    let options: Vec<_> = options.map(|(_, value)| value.as_str()).collect();
    assert_eq!(options, ["upgrade"]);
    drop(client);
    assert_eq!(app.report().connections.upgraded, 1);
}

// A trailer section that ended with a bare LF swallowed the next request: hyper looks for CRLF, but
// its field parser also accepts LF. A proxy that accepts LF saw two requests where one was served,
// and matched responses to the wrong requests. A connection must close after trailers.
#[test]
fn no_request_is_served_after_a_trailer_section() {
    let app = start(paths());
    let chunked = "HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
    let next = "GET /405 HTTP/1.1\r\nhost: test\r\n\r\n";
    for trailers in ["a: b\n\n", "\n", "a: b\r\n\n", "a: b\r\n\r\n"] {
        for path in ["/read", "/echo", "/405"] {
            let mut client = Client::connect(app.main);
            client.send(format!("POST {path} {chunked}4\r\nbody\r\n0\r\n{trailers}{next}{next}"));
            let answer = client.answer();
            assert!(answer.says_close(), "{path} {trailers:?} {answer:?}");
            assert_eq!(client.end(), End::Closed);
        }
        let mut client = Client::connect(app.main);
        client.send(format!("POST / {chunked}0\r\n{trailers}{next}{next}"));
        assert!(client.answer().says_close());
        assert_eq!(client.end(), End::Closed);
    }
    // Without trailers the connection continues.
    let mut client = Client::connect(app.main);
    client.send(format!("POST /read {chunked}4\r\nbody\r\n0\r\n\r\n{next}"));
    let answer = client.answer();
    assert_eq!((&*answer.body(), answer.says_close()), ("body", false));
    assert_eq!(client.answer().status, 405);
    drop(client);
    let _ = app.end();
}

// RFC 9113 §8.3.1: a request was served whose `host` field differed from its `:authority`. Two
// readers of it could use two different hosts. Its stream must be refused, and no other.
#[test]
fn only_a_stream_whose_host_and_authority_differ_is_refused() {
    let app = start(paths());
    let mut client = Http2::connect(app.main);
    let fields = |authority: &str, hosts: &[&str]| {
        // GET, http, `/`. Then literals: `:authority` is entry 1 of the static table, `host` is 38.
        let mut block = b"\x82\x86\x84\x41".to_vec();
        block.push(u8::try_from(authority.len()).unwrap());
        block.extend_from_slice(authority.as_bytes());
        for host in hosts {
            block.extend_from_slice(&[0x0f, 0x17, u8::try_from(host.len()).unwrap()]);
            block.extend_from_slice(host.as_bytes());
        }
        block
    };
    for (authority, hosts, is_served) in [
        ("a", &["a"][..], true),
        ("a", &["A:80"], true),
        ("a", &["b"], false),
        ("a", &["a", "a"], false),
        ("a", &["a b"], false),
        ("u@a", &[], false),
        ("a", &[], true),
    ] {
        let stream = client.take_stream();
        client.send(HEADERS, END_STREAM | END_HEADERS, stream, &fields(authority, hosts));
        let body = client.body(stream);
        assert_eq!(body == "hello", is_served, "{authority:?} {hosts:?} {body:?}");
        assert!(is_served || body.starts_with("bad request: "), "{body:?}");
    }
    drop(client);
    assert_eq!(fates(&app.end()), [7, 7, 0, 0, 0]);
}

/// A host with a short header timeout, so that a wait for a head is found soon.
fn hasty() -> Host<impl HttpService> {
    limited(Limits::default().header_timeout(Duration::from_millis(400)))
}

// An empty line after a request made a kept connection wait for the rest of a head. The client got
// a 408 for a request that it had not sent. RFC 9112 §2.2: an empty line is ignored.
#[test]
fn an_empty_line_is_no_request() {
    let app = start(hasty());
    let post = "POST /read HTTP/1.1\r\nhost: test\r\ncontent-length: 4\r\n\r\nbody";
    for lines in ["\r\n", "\n", "\r\n\r\n\n", "\r"] {
        let mut new = Client::connect(app.main);
        let mut kept = Client::connect(app.main);
        assert_eq!(kept.get("/").body(), "hello");
        let mut through_hyper = Client::connect(app.main);
        through_hyper.send(format!("{post}{lines}"));
        assert_eq!(through_hyper.answer().body(), "body");
        let mut pipelined = Client::connect(app.main);
        pipelined.send(format!("GET / HTTP/1.1\r\nhost: test\r\n\r\n{lines}"));
        assert_eq!(pipelined.answer().body(), "hello");
        let [mut idle] = idle(&app);
        for client in [&mut new, &mut kept, &mut idle] {
            client.send(lines);
        }
        block(Duration::from_millis(1_500));
        for client in [&mut new, &mut kept, &mut through_hyper, &mut pipelined, &mut idle] {
            assert!(client.is_silent_for(Duration::from_millis(1)), "{lines:?}");
            if lines == "\r" {
                client.send("\n");
            }
            client.send(post);
            assert_eq!(client.answer().body(), "body", "{lines:?}");
            client.send(format!(
                "{lines}{}GET / HTTP/1.1\r\nhost: test\r\n\r\n",
                if lines == "\r" { "\n" } else { "" }
            ));
            assert_eq!(client.answer().body(), "hello", "{lines:?}");
        }
    }
    let _ = app.end();
}

// An empty line in the kernel was taken for a request when the drain began. The drain waited for it
// and sent a 408. It must not delay the drain or count as a race (P5b).
#[test]
fn an_empty_line_does_not_delay_the_drain_and_is_no_close_race() {
    soon(Duration::from_secs(1), || {
        let app = start(paths());
        let [mut idle] = idle(&app);
        let mut new = Client::connect(app.main);
        let mut kept = Client::connect(app.main);
        assert_eq!(kept.get("/").body(), "hello");
        let mut last = Client::connect(app.main);
        for client in [&mut idle, &mut new, &mut kept] {
            client.send("\r\n");
        }
        last.send("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n\r\n");
        assert_eq!(last.answer().body(), "hello");
        app.stop();
        let begin = now();
        for client in [&mut idle, &mut new, &mut kept, &mut last] {
            assert!(client.try_answer().is_err());
            assert_eq!(client.end(), End::Closed);
        }
        let took = begin.elapsed();
        assert_eq!(app.report().connections.close_races, 0);
        took
    });
}

// A client that sent empty lines for ever kept its connection for ever. The keep-alive timeout must
// end it (P6).
#[test]
fn empty_lines_do_not_keep_a_connection() {
    let app = start(limited(Limits::default().keep_alive(Duration::from_secs(2))));
    let mut client = Client::connect(app.main);
    assert_eq!(client.get("/").body(), "hello");
    let begin = now();
    while client.try_send("\r\n").is_ok() && begin.elapsed() < Duration::from_secs(10) {
        block(Duration::from_millis(50));
    }
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    let _ = app.end();
}

// RFC 9112 §3.2: an HTTP/1.1 request was served although its host was missing, repeated or invalid.
// It must get a 400.
#[test]
fn a_request_without_one_valid_host_is_refused() {
    let app = start(paths());
    let refused = [
        "",
        "host: a\r\nhost: a\r\n",
        "host: a\r\nhost: b\r\n",
        "host: a b\r\n",
        "host: u@a\r\n",
        "host: a/b\r\n",
    ];
    for method in ["GET", "OPTIONS"] {
        let idle = idle::<6>(&app);
        for (fields, idle) in refused.iter().zip(idle) {
            for mut client in [Client::connect(app.main), idle] {
                client.send(format!(
                    "{method} / HTTP/1.1\r\n{fields}\r\nGET / HTTP/1.1\r\nhost: test\r\n\r\n"
                ));
                let answer = client.answer();
                assert_eq!(
                    (answer.status, answer.says_close()),
                    (400, true),
                    "{method} {fields:?}"
                );
                assert_eq!(client.end(), End::Closed);
            }
        }
    }
    for request in [
        "GET / HTTP/1.1\r\nHOST:test:80\r\n\r\n",
        "GET / HTTP/1.1\r\nhost:\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: [::1]:80\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET http://test/ HTTP/1.1\r\nhost: test\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n",
    ] {
        let mut client = Client::connect(app.main);
        client.send(request);
        assert_eq!(client.answer().status, 200, "{request:?}");
    }
    let _ = app.end();
}

#[test]
fn a_body_that_nobody_read_is_never_taken_for_the_next_request() {
    // A handler responded with a large chunk and had not read its request's body. The connection
    // changed to vectored writes before hyper had looked at the body again, and the rest of the
    // body, which came later, was served as a request.
    let app = start(paths());
    let mut client = Client::connect(app.main);
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let length = smuggled.len();
    let head =
        format!("POST /large HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    client.send(head);
    assert_eq!(client.answer().body().len(), 20_000);
    let _ = client.try_send(smuggled);
    client.end();
    assert_eq!(fates(&app.end()), [1, 1, 0, 0, 0]);
}

#[test]
fn a_body_is_not_taken_for_a_head_that_takes_too_long() {
    // hyper skipped the rest of a body that the handler had not read. It counted as the begin of a
    // head, and the idle connection got a 408.
    let app = start(limited(Limits::default().header_timeout(Duration::from_millis(300))));
    let mut client = Client::connect(app.main);
    let body = "b".repeat(9_000);
    for _ in 0..2 {
        client.send(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000\r\n\r\n{body}"
        ));
        assert_eq!(client.answer().body(), "hello");
        block(Duration::from_millis(20));
    }
    assert!(client.is_silent_for(Duration::from_millis(900)));
    assert_eq!(client.get("/").body(), "hello");
    assert_eq!(fates(&app.end()), [3, 3, 0, 0, 0]);
}
