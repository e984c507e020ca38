//! P5c, P6: request bodies that are being received at the stop. A slow one is read to its end, a
//! stalled one is bounded, and a client with `Expect: 100-continue` always gets a response.

use super::help::{Client, Server, ms, pass, s};
use crate::support::in_time;

const EXPECTING: &str =
    "POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";

fn uploading(server: &Server, length: usize) -> Client {
    let mut client = server.connect();
    client.send(format!("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {length}\r\n\r\n"));
    server.await_in_flight(1);
    client
}

#[test]
fn a_client_that_got_a_100_before_the_stop_is_served() {
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut client = server.connect();
    client.send(EXPECTING);
    client.expect(CONTINUE);
    server.stop_and_await("draining");
    pass(ms(300));
    client.send("hello");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.says_close()), ("hello", true), "{answer:?}");
    server.exit_clean();
}

#[test]
fn a_client_that_expects_a_100_in_the_lame_duck_delay_gets_it() {
    let mut server = Server::start(&["--lame-duck", "600ms"]);
    let mut client = server.connect();
    server.stop_and_await("lame_duck");
    client.send(EXPECTING);
    client.expect(CONTINUE);
    client.send("hello");
    assert_eq!(client.answer().text(), "hello");
    server.exit_clean();
}

#[test]
fn a_client_whose_head_is_completed_in_the_drain_gets_its_100() {
    let (mut client, server) = in_time(|| {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut client = server.connect();
        let (begun, rest) = EXPECTING.split_at(10);
        client.send(begun);
        server.await_accepted(1);
        server.stop_and_await("draining");
        pass(ms(200));
        client.send(rest);
        // A head has a second.
        (server.since_stop() < ms(900)).then_some((client, server))
    });
    client.expect(CONTINUE);
    pass(ms(300));
    client.send("hello");
    let answer = client.answer();
    assert_eq!((answer.text(), answer.says_close()), ("hello", true), "{answer:?}");
    server.exit_clean();
}

/// A handler that does not read the body responds at once. The client waits for a response before
/// it sends the body, and must get one.
#[test]
fn a_client_that_expects_a_100_and_is_refused_gets_its_response() {
    let mut server = Server::start(&["--lame-duck", "500ms"]);
    let mut client = server.connect();
    server.stop_and_await("lame_duck");
    client.send(EXPECTING.replace("/echo", "/nowhere"));
    let answer = client.answer();
    assert_eq!((answer.status, answer.says_close()), (404, true), "{answer:?}");
    client.is_closed();
    server.exit_clean().within(s(5));
}

#[test]
fn a_slow_upload_is_read_to_its_end_in_the_drain() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = uploading(&server, 20);
    server.stop();
    for _ in 0..20 {
        client.send("y");
        pass(ms(80));
    }
    let answer = client.answer();
    assert_eq!((answer.text(), answer.says_close()), ("y".repeat(20).as_str(), true), "{answer:?}");
    client.is_closed();
    server.exit_clean();
}

#[test]
fn a_slow_chunked_upload_is_read_to_its_end_in_the_drain() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    server.await_in_flight(1);
    server.stop();
    for _ in 0..10 {
        client.send("3\r\nabc\r\n");
        pass(ms(80));
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.answer().text(), "abc".repeat(10));
    client.is_closed();
    server.exit_clean();
}

#[test]
fn a_stalled_upload_gets_a_503_and_does_not_delay_the_exit_beyond_the_drain() {
    let mut server = Server::start(&[
        "--lame-duck",
        "0s",
        "--drain",
        "800ms",
        "--cancel",
        "500ms",
        "--request-timeout",
        "0s",
    ]);
    let mut client = uploading(&server, 20);
    client.send("abc");
    server.stop();
    let answer = client.answer();
    assert_eq!((answer.status, answer.says_close()), (503, true), "{answer:?}");
    client.is_closed();
    let exit = server.exit().within(s(5));
    assert_eq!((exit.code, exit.requests("aborted")), (3, 1), "{exit:?}");
    assert_eq!(exit.report["aborts"][0]["method"], "POST", "{exit:?}");
}

#[test]
fn a_client_that_leaves_during_its_upload_does_not_delay_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s", "--request-timeout", "0s"]);
    let mut client = uploading(&server, 20);
    client.send("abc");
    client.vanish();
    server.stop();
    let exit = server.exit().within(s(6));
    assert_eq!(exit.code, 0, "{exit:?}");
    assert_eq!(exit.requests("aborted"), 0, "{exit:?}");
}
