//! P5b: pipelined requests: those begun are answered, the rest is left for the client to send
//! again, and nothing that was answered is destroyed.
//!
//! The danger is the reset. A socket closed over unread bytes is reset by the kernel, and the reset
//! throws away what the client has not read yet (RFC 9112 §9.6).

use super::help::{End, Server, ms, pass, request, s};
use std::io::Write;

fn times(target: &str, count: usize) -> String {
    request(target).repeat(count)
}

#[test]
fn of_pipelined_requests_the_one_begun_is_answered_and_the_rest_left_to_the_client() {
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut client = server.connect();
    client.send(request("/slow?ms=700") + &times("/", 20));
    server.await_in_flight(1);
    server.stop();
    let answer = client.answer();
    assert_eq!((answer.text(), answer.says_close()), ("slow done\n", true), "{answer:?}");
    client.is_closed();
    let exit = server.exit_clean();
    // What a connection holds behind its last answer was once neither answered nor counted (P5b).
    assert_eq!((exit.requests("started"), exit.connections("close_races")), (1, 1), "{exit:?}");
}

#[test]
fn pipelined_requests_of_a_quiet_time_are_all_answered() {
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

/// Every answer that came was whole, the last said that it is the last, and the end was no reset.
#[test]
fn of_pipelined_requests_on_their_way_none_is_answered_in_part() {
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

/// The rest of the pipeline lies unread when the answer is out: without a lingering close the kernel would reset the
/// connection, and the client, which reads late, would find nothing.
#[test]
fn an_answer_is_not_destroyed_by_the_requests_behind_it() {
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for client in &mut clients {
        // More than one read of ours takes.
        client.send(request("/slow?ms=600") + &times("/", 3_000));
    }
    server.await_in_flight(10);
    server.stop_and_await("draining");
    pass(ms(700));
    for client in &mut clients {
        assert_eq!(client.answer().text(), "slow done\n");
        client.is_closed();
    }
    server.exit_clean();
}

/// The kernel took the answer at once, and the client takes a while: a reset now would throw away what is still under way.
#[test]
fn an_answer_that_is_on_its_way_is_not_destroyed_by_the_requests_behind_it() {
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

/// The handler answers before it has read the upload, and closes: what is still coming must not destroy its answer.
#[test]
fn an_early_answer_is_not_destroyed_by_the_upload_that_nobody_read() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.send("POST /nowhere HTTP/1.1\r\nhost: test\r\ncontent-length: 10000000\r\n\r\n");
        client.send(vec![b'x'; 200_000]);
    }
    // They go on sending for a while, as a client does that only looks for an answer when it has sent all.
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
fn an_early_answer_in_the_drain_is_not_destroyed_either() {
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

/// A client that sends for ever cannot hold the close for ever.
#[test]
fn an_upload_that_nobody_reads_is_bounded() {
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
fn an_answer_in_the_drain_ends_without_a_reset_though_the_client_sends_on() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.ask("/slow?ms=600");
    server.await_in_flight(1);
    server.stop();
    for _ in 0..30 {
        client.send(request("/"));
        pass(ms(30));
    }
    let (bytes, end) = client.rest();
    assert_eq!(bytes.windows(10).filter(|window| window == b"slow done\n").count(), 1);
    assert_eq!(end, End::Closed);
    let exit = server.exit_clean();
    assert_eq!(exit.requests("started"), 1);
}

/// The big answer is still on its way to a late reader when the connection closes over the rest of the pipeline, and over more
/// requests that come after it. A linger of fixed length gives up in the middle: then the kernel resets the connection, and
/// what it still held of the answer is gone.
#[test]
fn a_big_answer_to_a_late_reader_is_not_destroyed_by_the_requests_behind_it() {
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

/// A small answer made the connection forget that a big one before it was still on its way: it closed at once, and the reset that the
/// next request caused threw half of the big one away, with a report that said finished and clean.
#[test]
fn a_big_answer_is_not_destroyed_because_a_small_one_follows_it() {
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

/// It was taken for granted that ten segments leave at once. Into a receive buffer smaller than that they do not, and the reset
/// that the next request caused took back what lay behind.
#[test]
fn an_answer_is_not_destroyed_by_the_requests_behind_it_though_the_client_has_little_room() {
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

/// A body that one handler did not read was held against every later request of its connection: what stood behind the last answer was
/// taken for the rest of that body, and not counted.
#[test]
fn a_body_that_nobody_read_is_forgotten_with_its_request() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send("POST /nowhere HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(client.answer().status, 404);
    client.send(request("/slow?ms=500") + &times("/", 3));
    server.await_in_flight(1);
    server.stop();
    assert_eq!(client.answer().body, b"slow done\n");
    client.is_closed();
    let exit = server.exit_clean();
    assert_eq!((exit.requests("started"), exit.connections("close_races")), (2, 1), "{exit:?}");
}
