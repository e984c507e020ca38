//! P5b: pipelined requests. Those that have begun are served, the rest is left for the client to
//! send again, and no response is destroyed.
//!
//! The danger is the reset. The kernel resets a socket that is closed with unread bytes, and the
//! reset destroys what the client has not read yet (RFC 9112 §9.6).

use super::help::{End, Server, ms, pass, request, s};
use std::io::Write;

fn times(target: &str, count: usize) -> String {
    request(target).repeat(count)
}

#[test]
fn of_pipelined_requests_the_started_one_is_served_and_the_rest_left_to_the_client() {
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut client = server.connect();
    client.send(request("/slow?ms=2000") + &times("/", 20));
    server.await_in_flight(1);
    server.stop();
    let answer = client.answer();
    assert_eq!((answer.text(), answer.says_close()), ("slow done\n", true), "{answer:?}");
    client.is_closed();
    let exit = server.exit_clean();
    // Requests after the last response count as a close race (P5b).
    assert_eq!((exit.requests("started"), exit.connections("close_races")), (1, 1), "{exit:?}");
}

#[test]
fn pipelined_requests_before_a_stop_are_all_served() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send(times("/", 100));
    for _ in 0..100 {
        client.answer().is_hello();
    }
    server.stop();
    client.is_closed();
    server.exit_clean();
}

/// Every response must be complete, the last must announce the close, and the connection must not
/// end with a reset.
#[test]
fn of_pipelined_requests_during_a_stop_none_gets_half_a_response() {
    let mut server = Server::start(&["--lame-duck", "200ms"]);
    let mut client = server.connect();
    client.send(times("/slow?ms=5", 400));
    client.answer();
    server.stop();
    let mut answers = 1;
    loop {
        let answer = client.answer();
        assert_eq!(answer.text(), "slow done\n");
        answers += 1;
        if answer.says_close() {
            break;
        }
    }
    client.is_closed();
    let exit = server.exit_clean();
    assert_eq!(exit.requests("finished"), answers);
}

/// The rest of the pipeline is unread when the response is sent. Without a lingering close the
/// kernel would reset the connection, and a client that reads late would find nothing. The response
/// must arrive (P5d).
#[test]
fn a_response_is_not_destroyed_by_later_requests() {
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for client in &mut clients {
        // More than one read of the server takes.
        client.send(request("/slow?ms=1500") + &times("/", 3_000));
    }
    server.await_in_flight(10);
    server.stop_and_await("draining");
    pass(ms(1_500));
    for client in &mut clients {
        assert_eq!(client.answer().text(), "slow done\n");
        client.is_closed();
    }
    server.exit_clean();
}

/// The kernel took the response at once, and the client reads it slowly. A reset would destroy the
/// part that is still on its way (P5d).
#[test]
fn a_response_on_its_way_is_not_destroyed_by_later_requests() {
    const BYTES: usize = 1_500_000;
    let mut server = Server::start(&["--lame-duck", "200ms"]);
    let mut client = server.connect();
    client.read_slowly();
    server.stop_and_await("lame_duck");
    client.send(request(&format!("/big?bytes={BYTES}")) + &times("/", 2_000));
    pass(ms(300));
    assert_eq!(client.answer().body.len(), BYTES);
    client.is_closed();
    server.exit_clean();
}

/// A handler responds before it has read the upload, and the connection closes. The bytes that
/// still arrive must not destroy the response (P5d).
#[test]
fn an_early_response_is_not_destroyed_by_its_unread_upload() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("POST /nowhere HTTP/1.1\r\nhost: test\r\ncontent-length: 10000000\r\n\r\n");
        client.send(vec![b'x'; 200_000]);
    }
    // The clients send for a while, as a client does that reads its response only after it has sent
    // everything.
    for _ in 0..40 {
        for client in &mut clients {
            let _ = client.stream.write_all(&[b'x'; 10_000]);
        }
        pass(ms(5));
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 404);
    }
    drop(clients);
    server.stop();
    server.exit_clean();
}

#[test]
fn an_early_response_in_the_drain_is_not_destroyed_by_its_unread_upload() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send("POST /nowhere HTTP/1.1\r\nhost: test\r\n");
    server.await_accepted(1);
    server.stop_and_await("draining");
    client.send("content-length: 10000000\r\n\r\n");
    for _ in 0..40 {
        let _ = client.stream.write_all(&[b'x'; 10_000]);
        pass(ms(5));
    }
    let answer = client.answer();
    assert_eq!((answer.status, answer.says_close()), (404, true), "{answer:?}");
    server.exit_clean().within(s(8));
}

/// A client that sends for ever must not delay the close for ever (P6).
#[test]
fn an_unread_upload_is_bounded() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send("POST /nowhere HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000000\r\n\r\n");
    server.await_status(|status| status["requests"]["finished"] == 1);
    server.stop();
    while client.stream.write_all(&[b'x'; 10_000]).is_ok() {
        assert!(server.since_stop() < s(8), "it reads on and on");
    }
    server.exit_clean().within(s(8));
}

#[test]
fn a_response_in_the_drain_ends_without_a_reset_although_the_client_sends_more() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.ask("/slow?ms=1500");
    server.await_in_flight(1);
    server.stop();
    for _ in 0..60 {
        client.send(request("/"));
        pass(ms(30));
    }
    let (bytes, end) = client.rest();
    assert_eq!(bytes.windows(10).filter(|window| window == b"slow done\n").count(), 1);
    assert_eq!(end, End::Closed);
    let exit = server.exit_clean();
    assert_eq!(exit.requests("started"), 1);
}

/// A big response is on its way to a late reader when the connection closes with unread requests,
/// and more requests arrive after it. A linger of fixed length would end in the middle. The kernel
/// would then reset the connection and drop its part of the response.
#[test]
fn a_big_response_to_a_late_reader_is_not_destroyed_by_later_requests() {
    const BYTES: usize = 3_000_000;
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut client = server.connect();
    client.read_slowly();
    server.stop_and_await("lame_duck");
    client.send(request(&format!("/big?bytes={BYTES}")) + &times("/", 50));
    pass(ms(1_000));
    for _ in 0..30 {
        let _ = client.stream.write_all(times("/", 5).as_bytes());
        pass(ms(10));
    }
    assert_eq!(client.answer().body.len(), BYTES);
    client.is_closed();
    server.exit_clean();
}

/// After a small response, the connection forgot that a big one before it was still on its way, and
/// closed at once. The reset that the next request caused destroyed half of the big response, and
/// the report said finished and clean. Both must arrive (P5d).
#[test]
fn a_big_response_is_not_destroyed_by_a_small_one_after_it() {
    const BYTES: usize = 1_500_000;
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.read_slowly();
    client.send(request(&format!("/big?bytes={BYTES}")) + &request("/slow?ms=400"));
    server.await_status(|status| status["requests"]["finished"] == 1);
    server.stop();
    server.await_status(|status| status["requests"]["finished"] == 2);
    pass(ms(300));
    let _ = client.stream.write_all(request("/").as_bytes());
    pass(ms(100));
    assert_eq!(client.answer().body.len(), BYTES);
    assert_eq!(client.answer().body, b"slow done\n");
    client.is_closed();
    server.exit_clean();
}

/// The host assumed that ten segments leave at once. A smaller receive buffer does not take them,
/// and the reset that the next request caused destroyed the rest. The response must arrive complete
/// (P5d).
#[test]
fn a_response_into_a_small_receive_buffer_is_not_destroyed_by_later_requests() {
    for bytes in [3_000, 12_000] {
        let mut server = Server::start(&["--lame-duck", "300ms"]);
        let mut client = server.connect();
        client.read_little();
        server.stop_and_await("lame_duck");
        client.get(&format!("/big?bytes={bytes}"));
        pass(ms(100));
        let _ = client.stream.write_all(times("/", 3).as_bytes());
        pass(ms(100));
        let answer = client.answer();
        assert_eq!((answer.status, answer.body.len()), (200, bytes));
        drop(client);
        server.exit_clean();
    }
}

/// After a request whose body its handler did not read, every later byte of the connection was
/// taken for the rest of that body. Requests after the last response were not counted. They must
/// count as a close race (P5b).
#[test]
fn an_unread_body_does_not_affect_later_requests() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send("POST /nowhere HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(client.answer().status, 404);
    client.send(request("/slow?ms=2000") + &times("/", 3));
    server.await_in_flight(1);
    server.stop();
    assert_eq!(client.answer().body, b"slow done\n");
    client.is_closed();
    let exit = server.exit_clean();
    assert_eq!((exit.requests("started"), exit.connections("close_races")), (2, 1), "{exit:?}");
}
