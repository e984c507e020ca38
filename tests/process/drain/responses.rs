//! P5c: responses that are being sent at the stop arrive complete, however the client reads. A
//! client that does not read is bounded.

use super::help::{End, Server, ms, pass, request, s};
use std::{io::Read, time::Instant};

#[test]
fn a_request_in_flight_gets_a_complete_response_that_announces_the_close() {
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut client = server.ask("/slow?ms=2000");
    server.await_in_flight(1);
    server.stop();
    let answer = client.answer();
    assert_eq!(answer.text(), "slow done\n");
    assert!(answer.says_close(), "{answer:?}");
    client.is_closed();
    server.exit_clean();
}

#[test]
fn a_stream_in_flight_comes_to_its_end() {
    let mut server = Server::start(&["--lame-duck", "200ms"]);
    let mut client = server.ask("/stream?ms=1500");
    client.head();
    server.stop();
    let (bytes, end) = client.rest();
    assert!(bytes.ends_with(b"end\n\r\n0\r\n\r\n"), "{:?}", String::from_utf8_lossy(&bytes));
    assert_eq!(end, End::Closed);
    server.exit_clean();
}

#[test]
fn a_stream_until_close_comes_to_its_end_and_looks_complete() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send("GET /stream?ms=700 HTTP/1.0\r\n\r\n");
    server.await_started(1);
    server.stop();
    let (bytes, end) = client.rest();
    assert!(bytes.ends_with(b"end\n"), "{:?}", String::from_utf8_lossy(&bytes));
    assert_eq!(end, End::Closed);
    server.exit_clean();
}

/// A client may shut down its write side once it has sent everything (RFC 9112 §9.6: half-closed).
/// It still reads, and must get its response.
#[test]
fn a_half_closed_client_gets_its_response() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.ask("/slow?ms=600");
    client.finish_sending();
    server.await_started(1);
    server.stop();
    assert_eq!(client.answer().text(), "slow done\n");
    client.is_closed();
    server.exit_clean();
}

#[test]
fn a_client_that_is_gone_is_noticed_and_counted_and_does_not_delay_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s", "--request-timeout", "0s"]);
    let clients: Vec<_> = (0..3).map(|_| server.ask("/stuck?ms=60000")).collect();
    server.await_in_flight(3);
    for client in clients {
        client.vanish();
    }
    server.stop();
    let exit = server.exit().within(s(6));
    assert_eq!(exit.code, 0, "it was not us who cut them: {exit:?}");
    assert_eq!(exit.requests("gone"), 3, "{exit:?}");
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_stream_is_counted_as_gone() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.ask("/stream?ms=60000");
    client.head();
    client.vanish();
    server.stop();
    let exit = server.exit().within(s(6));
    assert_eq!((exit.code, exit.requests("gone")), (0, 1), "{exit:?}");
}

#[test]
fn a_slow_reader_gets_all_of_a_big_response() {
    const BYTES: usize = 8_000_000;
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.read_slowly();
    client.get(&format!("/big?bytes={BYTES}"));
    server.await_in_flight(1);
    server.stop_and_await("draining");
    client.head();
    let mut received = client.rest_so_far();
    let mut buffer = vec![0; 40_000];
    // About three seconds: far less than the drain, far more than a close would wait.
    while received < BYTES {
        let read = client.stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "it ends after {received} bytes");
        received += read;
        pass(ms(8));
    }
    client.is_closed();
    server.exit_clean();
}

/// hyper reports a response as written once the kernel took it, and the kernel takes megabytes.
/// After an exit the kernel delivers the rest, as long as the socket has no unread bytes. The
/// response must arrive (P5d).
#[test]
fn a_response_in_the_kernel_outlives_the_process() {
    const BYTES: usize = 1_500_000;
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.ask(&format!("/big?bytes={BYTES}"));
    server.await_accepted(1);
    server.stop();
    server.exit_clean().within(s(8));
    assert_eq!(client.answer().body.len(), BYTES);
    client.is_closed();
}

/// Workers perform the cut. On a busy machine the process had exited before they did: the report
/// counted the requests as aborted but named none, no connection was reset, and the kernel ended
/// each with a FIN. Every cut connection must be reset and named (P5d, P13). The test uses many,
/// because each takes a worker some time.
#[test]
fn clients_that_read_nothing_are_reset_after_the_drain_and_each_is_named() {
    const CLIENTS: u64 = 40;
    let mut server = Server::start(&["--lame-duck", "0s", "--drain", "800ms", "--cancel", "500ms"]);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.read_slowly();
        client.get("/big?bytes=50000000");
    }
    server.await_in_flight(CLIENTS);
    server.stop();
    let exit = server.exit().within(s(5));
    assert_eq!(
        (exit.code, exit.requests("aborted"), exit.connections("reset")),
        (3, CLIENTS, CLIENTS),
        "{exit:?}"
    );
    let aborts = exit.report["aborts"].as_array().unwrap();
    assert_eq!(aborts.len() as u64, CLIENTS, "{exit:?}");
    assert!(
        aborts.iter().all(|abort| abort["path"] == "/big" && abort["head_sent"] == true),
        "{exit:?}"
    );
    for client in &mut clients {
        let (bytes, end) = client.rest();
        assert_eq!(end, End::Reset, "a cut answer that looks whole, after {} bytes", bytes.len());
    }
}

#[test]
fn a_panic_costs_only_its_request_which_gets_a_500() {
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut client = server.ask("/panic");
    assert_eq!(client.answer().status, 500);
    server.stop_and_await("lame_duck");
    client.get("/panic");
    let answer = client.answer();
    assert_eq!((answer.status, answer.says_close()), (500, true), "{answer:?}");
    let exit = server.exit_clean();
    assert_eq!(exit.requests("panicked"), 2);
}

#[test]
fn a_request_whose_deadline_expires_in_the_drain_gets_a_503() {
    let mut server = Server::start(&["--lame-duck", "0s", "--request-timeout", "700ms"]);
    let mut client = server.ask("/stuck?ms=60000");
    server.await_in_flight(1);
    server.stop();
    let answer = client.answer();
    assert_eq!((answer.status, answer.says_close()), (503, true), "{answer:?}");
    client.is_closed();
    let exit = server.exit().within(s(4));
    assert_eq!((exit.code, exit.requests("timed_out")), (0, 1), "{exit:?}");
}

#[test]
fn twenty_kept_connections_with_a_request_each_all_announce_their_close() {
    let mut server = Server::start(&["--lame-duck", "100ms"]);
    let mut clients: Vec<_> = (0..20).map(|_| server.keep()).collect();
    for client in &mut clients {
        client.send(request("/slow?ms=2000"));
    }
    server.await_in_flight(20);
    server.stop();
    let began = Instant::now();
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!((answer.text(), answer.says_close()), ("slow done\n", true), "{answer:?}");
        client.is_closed();
    }
    assert!(began.elapsed() < s(6));
    server.exit_clean();
}

/// hyper sees that a response to HTTP/1.0 does not have `keep-alive` yet, and added it to the
/// `close` of the host. Only `close` must be sent (P4).
#[test]
fn an_http_1_0_client_with_keep_alive_gets_close_and_nothing_else() {
    let mut server = Server::start(&["--lame-duck", "500ms"]);
    let request = "GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
    let mut client = server.connect();
    client.send(request);
    let kept = client.answer();
    assert!(kept.head.contains("connection: keep-alive"), "{kept:?}");
    server.stop_and_await("lame_duck");
    client.send(request);
    let last = client.answer();
    assert!(last.says_close() && !last.head.contains("keep-alive"), "{last:?}");
    client.is_closed();
    server.exit_clean();
}
