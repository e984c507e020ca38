//! P4, P5: requests that are in flight at the stop get their responses, and the close of their
//! connections is announced.

#[cfg(target_os = "linux")]
use crate::support::deaf;
use crate::support::{
    App, Client, End, MAX_WAIT, Service,
    app::Workers,
    builder,
    frames::{DATA, Frame, GOAWAY, Http2, RST_STREAM, WINDOW_UPDATE},
    now, until_holds,
};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::Signal;
use std::{
    io::{Read, Write},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

#[test]
fn a_slow_response_a_stream_and_an_upload_finish_during_the_stop() {
    let mut service = Service::start(&["--lame-duck=100ms", "--drain=8s"]);
    let mut slow = Client::connect(service.main);
    slow.send_get("/slow?ms=900");
    let mut stream = Client::connect(service.main);
    stream.send_get("/stream?ms=900");
    let mut upload = Client::connect(service.main);
    upload.send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhello");
    service.wait_for_started(3);
    service.signal(Signal::TERM);
    service.wait_for_phase("draining");
    upload.send("world");
    let answer = upload.answer();
    assert_eq!((answer.status, answer.body().as_str()), (200, "helloworld"));
    assert_eq!(slow.answer().body(), "slow done\n");
    let streamed = stream.answer().body();
    assert!(streamed.starts_with("piece 0\n") && streamed.ends_with("end\n"), "{streamed}");
    for client in [&mut slow, &mut stream, &mut upload] {
        assert_eq!(client.end(), End::Closed);
    }
    assert_eq!(service.exit_code(), 0);
    let requests = &service.report()["requests"];
    assert_eq!(requests["started"], requests["finished"], "{requests}");
}

#[test]
fn responses_to_a_keep_alive_client_announce_the_close_from_the_stop_request_on() {
    let mut service = Service::start(&["--lame-duck=2s"]);
    let mut before = Client::connect(service.main);
    assert!(!before.get("/").says_close(), "nobody is told to go while serving");
    let mut during = Client::connect(service.main);
    during.send_get("/slow?ms=2000");
    service.wait_for_in_flight(1);
    service.terminate();
    let answer = before.get("/");
    assert!(answer.status == 200 && answer.says_close(), "asked after the stop: {answer:?}");
    assert_eq!(before.end(), End::Closed);
    let late = service.get("/nothing-here");
    assert!(late.status == 404 && late.says_close(), "whatever the answer is: {late:?}");
    let answer = during.answer();
    assert!(
        answer.status == 200 && answer.says_close(),
        "asked before it, answered after it: {answer:?}"
    );
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn a_response_whose_head_was_sent_before_the_stop_ends_complete_and_closes() {
    let mut service = Service::start(&["--lame-duck=0s", "--drain=8s"]);
    let mut client = Client::connect(service.main);
    client.send_get("/stream?ms=800");
    assert!(!client.head().unwrap().says_close());
    service.signal(Signal::TERM);
    let mut last = Vec::new();
    loop {
        let chunk = client.chunk().unwrap();
        if chunk.is_empty() {
            break;
        }
        last = chunk;
    }
    assert_eq!(last, b"end\n");
    assert_eq!(client.end(), End::Closed, "idle in the drain");
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn pipelined_requests_in_the_kernel_at_the_stop_are_served_or_not_started() {
    // RFC 9112 §9.6: after a response with `Connection: close` no further request is served. The
    // client may retry those that got no response.
    let mut service = Service::start(&["--lame-duck=300ms"]);
    let mut client = Client::connect(service.main);
    client.send("GET /slow?ms=2000 HTTP/1.1\r\nhost: t\r\n\r\nGET / HTTP/1.1\r\nhost: t\r\n\r\n");
    service.wait_for_in_flight(1);
    service.signal(Signal::TERM);
    let first = client.answer();
    assert!(first.status == 200 && first.says_close());
    assert_eq!(
        client.end(),
        End::Closed,
        "closed, and not reset: the answer must not be thrown away"
    );
    assert_eq!(service.exit_code(), 0);
    let requests = &service.report()["requests"];
    assert_eq!(requests["aborted"], 0, "{requests}");
}

#[test]
fn a_request_on_a_new_connection_accepted_in_the_drain_is_served() {
    // P5a: the kernel completed the handshake before the listener closed.
    let mut service = Service::start(&["--lame-duck=0s", "--drain=5s"]);
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(service.main)).collect();
    service.signal(Signal::TERM);
    for client in &mut clients {
        // Within the first-byte grace. A connection that is closed got no byte of a response.
        if client.try_send("GET / HTTP/1.1\r\nhost: test\r\n\r\n").is_ok() {
            match client.try_answer() {
                Ok(answer) => assert_eq!(answer.body(), "hello world"),
                Err(end) => assert!(end == End::Closed || end == End::Reset, "{end:?}"),
            }
        }
    }
    assert_eq!(service.exit_code(), 0);
}

/// A client far away, simulated on loopback: it discards the first SYN-ACK, and the kernel sends
/// the next after a second. Meanwhile the listeners are sealed. The client must be served (P5a).
#[cfg(target_os = "linux")]
#[test]
fn a_client_whose_handshake_was_pending_when_the_listeners_were_sealed_is_served() {
    let mut service = Service::start(&["--lame-duck=900ms"]);
    let mut client = deaf::connect(service.main);
    service.terminate();
    deaf::hear(&client);
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(MAX_WAIT)).unwrap();
    // This waits for the handshake.
    client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(service.exit_code(), 0);
    assert_eq!(service.report()["requests"]["started"], 1);
}

#[test]
fn an_http2_client_gets_a_goaway_within_the_delay_and_its_streams_finish() {
    let mut service = Service::start(&["--lame-duck=500ms", "--drain=8s"]);
    let mut client = Http2::connect(service.main);
    let slow = client.get("/slow?ms=3000");
    let stream = client.get("/stream?ms=3000");
    service.wait_for_started(2);
    let asked = now();
    service.signal(Signal::TERM);
    client.wait_for("a GOAWAY", |frame| frame.kind == GOAWAY);
    assert!(
        asked.elapsed().as_millis() < 2_500,
        "told within the delay, not at the end: {:?}",
        asked.elapsed()
    );
    assert_eq!(client.body(slow), "slow done\n");
    assert!(client.body(stream).ends_with("end\n"));
    client.read_to_end();
    let last: Vec<u32> =
        client.seen.iter().filter(|frame| frame.kind == GOAWAY).map(Frame::last_stream).collect();
    // RFC 9113 §6.8: the first GOAWAY warns, the last one names the last stream that was accepted.
    assert_eq!(last, [0x7fff_ffff, stream], "one graceful GOAWAY");
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn an_http2_stream_begun_between_the_warning_and_the_close_is_served() {
    let mut service = Service::start(&["--lame-duck=0s", "--drain=5s"]);
    let mut client = Http2::connect(service.main);
    let slow = client.get("/slow?ms=600");
    service.wait_for_started(1);
    service.signal(Signal::TERM);
    client.wait_for("a GOAWAY", |frame| frame.kind == GOAWAY && frame.last_stream() == 0x7fff_ffff);
    // This is sent before the response to the PING that came with the warning, so the warning
    // allows it.
    let late = client.get("/");
    assert_eq!(client.body(slow), "slow done\n");
    assert_eq!(client.body(late), "hello world");
    assert_eq!(service.exit_code(), 0);
}

#[tokio::test]
async fn a_common_http2_client_gets_complete_responses_and_a_clean_end() {
    let mut service = Service::start(&["--lame-duck=200ms", "--drain=5s"]);
    let io = TokioIo::new(tokio::net::TcpStream::connect(service.main).await.unwrap());
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    let request = |path: &str| {
        http::Request::get(format!("http://test{path}")).body(Empty::<bytes::Bytes>::new()).unwrap()
    };
    let slow = client.send_request(request("/slow?ms=700")).await;
    let stream = client.send_request(request("/stream?ms=700"));
    service.signal(Signal::TERM);
    let body = slow.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "slow done\n");
    if let Ok(streamed) = stream.await {
        assert!(streamed.into_body().collect().await.unwrap().to_bytes().ends_with(b"end\n"));
    }
    assert!(
        tasks.join_next().await.unwrap().unwrap().is_ok(),
        "the connection ends without an error"
    );
    assert_eq!(service.exit_code(), 0);
}

#[test]
fn an_upgraded_connection_lasts_through_the_drain_and_ends_with_the_cancel_wait() {
    // P6: the connection is bounded. P5: it is counted separately, not as an aborted request.
    let mut service = Service::start(&["--lame-duck=50ms", "--drain=500ms", "--cancel=500ms"]);
    let mut client = Client::connect(service.main);
    client.send("GET /upgrade HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n");
    let answer = client.head().unwrap();
    assert_eq!((answer.status, answer.header("upgrade")), (101, Some("echo")));
    service.signal(Signal::TERM);
    service.wait_for_phase("draining");
    client.send("still here");
    assert_eq!(client.exactly(10).unwrap(), b"still here");
    assert_eq!(service.exit_code(), 0);
    let report = service.report();
    assert_eq!(report["connections"]["upgraded"], 1, "{report}");
    assert_eq!(report["requests"]["aborted"], 0, "{report}");
}

#[test]
fn a_stream_that_its_client_resets_does_not_affect_the_outcomes_of_others() {
    // hyper had taken bytes of a stream that the window of the client had not. After a reset they
    // stayed counted as unsent for ever. Every later response of the connection therefore stayed in
    // flight and in memory. The report counted those as gone, or as aborted with exit code 3. They
    // must count as finished (P5c).
    let mut service = Service::start(&["--lame-duck=0s"]);
    let mut client = Http2::connect(service.main);
    // RFC 9113 §6.9: enough window on the connection, so that only the window of the stream closes.
    client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes());
    let big = client.get("/big?bytes=1000000");
    client.wait_for("the window's last byte", |frame| frame.stream == big && frame.kind == DATA);
    client.send(RST_STREAM, 0, big, &8_u32.to_be_bytes());
    for _ in 0..10 {
        let small = client.get("/");
        assert_eq!(client.body(small), "hello world");
    }
    until_holds("nothing in flight", || service.status()["in_flight"] == 0);
    drop(client);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 0);
    let requests = &service.report()["requests"];
    assert_eq!((&requests["finished"], &requests["gone"]), (&10.into(), &1.into()), "{requests}");
}

#[test]
fn a_small_response_counts_as_finished_before_a_big_one() {
    let mut service = Service::start(&["--lame-duck=0s", "--drain=300ms", "--cancel=300ms"]);
    let mut client = Http2::connect(service.main);
    client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 20).to_be_bytes());
    let big = client.get("/big?bytes=1000000");
    client.wait_for("the window's last byte", |frame| frame.stream == big && frame.kind == DATA);
    for _ in 0..10 {
        let small = client.get("/");
        assert_eq!(client.body(small), "hello world");
    }
    until_holds("the big one alone in flight", || service.status()["in_flight"] == 1);
    service.signal(Signal::TERM);
    assert_eq!(service.exit_code(), 3);
    let requests = &service.report()["requests"];
    assert_eq!(
        (&requests["finished"], &requests["aborted"]),
        (&10.into(), &1.into()),
        "{requests}"
    );
}

#[test]
fn a_response_after_the_end_of_its_http2_connection_has_an_outcome() {
    // A stream outlives its connection by a moment. A response without a body that was ready in
    // that moment waited for a flush of the closed connection. It was in flight for ever, and the
    // exit code was 3. It must get an outcome (P5c).
    let has_left = Arc::new(AtomicBool::new(false));
    let left = has_left.clone();
    let handler = async move || {
        // Meanwhile the client leaves. The connection is then polled before this handler.
        until_holds("the client has left", || left.load(SeqCst));
        tokio::task::yield_now().await;
        http::StatusCode::NO_CONTENT
    };
    let router = axum::Router::new().route("/", axum::routing::get(handler));
    let app = App::start_on(builder().serve(router), Workers::Threads(1));
    let mut stream = std::net::TcpStream::connect(app.main).unwrap();
    // RFC 9113 §3.4: the preface and empty SETTINGS. Then HEADERS that request `/`.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    stream.write_all(b"\0\0\x09\x01\x05\0\0\0\x01\x82\x86\x84\x01\x04test").unwrap();
    until_holds("the request", || app.status()["in_flight"] == 1);
    drop(stream);
    has_left.store(true, SeqCst);
    until_holds("its end", || app.status()["in_flight"] == 0);
    let report = app.end();
    assert_eq!((report.code(), report.requests.gone), (0, 1), "{report:?}");
}
