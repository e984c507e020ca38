//! P6: half a request head at the stop: it gets a short time of its own, and no more.

use super::help::{End, Server, ms, pass, s};

#[test]
fn half_a_head_that_is_finished_half_a_second_later_is_answered() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nho");
    server.await_accepted(1);
    server.stop_and_await("draining");
    pass(ms(500));
    client.send("st: test\r\n\r\n");
    let answer = client.answer();
    answer.is_hello();
    assert!(answer.says_close(), "{answer:?}");
    client.is_closed();
    server.exit_clean();
}

#[test]
fn half_a_head_that_is_never_finished_is_told_so_and_bounded() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nho");
    server.await_accepted(1);
    server.stop();
    let answer = client.answer();
    assert_eq!(answer.status, 408, "{answer:?}");
    assert!(answer.says_close(), "{answer:?}");
    assert!(answer.head.contains(" GMT\r\n"), "RFC 9110 §6.6.1: {answer:?}");
    client.is_closed();
    let exit = server.exit_clean().within(s(6));
    assert_eq!(exit.requests("started"), 0, "a request begins with its whole head");
}

/// A head that comes a byte at a time, each of them in time, would be for ever under way.
#[test]
fn a_head_that_trickles_is_bounded_too() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send("GET / HTTP/1.1\r\nhost: test\r\n");
    server.stop_and_await("draining");
    for _ in 0..40 {
        if std::io::Write::write_all(&mut client.stream, b"a: b\r\n").is_err() {
            break;
        }
        pass(ms(50));
    }
    let (bytes, end) = client.rest();
    assert!(bytes.starts_with(b"HTTP/1.1 408 "), "{:?}, {end:?}", String::from_utf8_lossy(&bytes));
    server.exit_clean().within(s(6));
}

#[test]
fn half_a_second_head_on_a_kept_connection_is_answered_when_it_is_finished() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.keep();
    client.send("GET / HT");
    // As long as a good connection is allowed to need for it.
    pass(ms(100));
    server.stop_and_await("draining");
    pass(ms(500));
    client.send("TP/1.1\r\nhost: test\r\n\r\n");
    client.answer().is_hello();
    client.is_closed();
    let exit = server.exit_clean();
    assert_eq!(exit.requests("finished"), 2);
}

#[test]
fn half_a_second_head_on_a_parked_connection_is_answered_when_it_is_finished() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.keep();
    pass(ms(1_500));
    client.send("G");
    pass(ms(100));
    server.stop_and_await("draining");
    pass(ms(400));
    client.send("ET / HTTP/1.1\r\nhost: test\r\n\r\n");
    client.answer().is_hello();
    server.exit_clean();
}

/// The first bytes of HTTP/2's preface and of an HTTP/1 method may be the same: nobody speaks yet, and nobody waits for ever.
#[test]
fn a_preface_that_stays_split_is_bounded() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send("PRI * HTTP/2");
    server.await_accepted(1);
    server.stop();
    let (bytes, end) = client.rest();
    assert_eq!(end, End::Closed, "{:?}", String::from_utf8_lossy(&bytes));
    server.exit_clean().within(s(6));
}

#[test]
fn half_a_head_in_the_lame_duck_delay_has_all_of_it_and_more() {
    let mut server = Server::start(&["--lame-duck", "700ms"]);
    let mut client = server.connect();
    server.stop_and_await("lame_duck");
    client.send("GET / HTTP/1.1\r\n");
    assert!(server.service.await_log(s(10), |line| line["phase"] == "draining"));
    pass(ms(300));
    client.send("host: test\r\n\r\n");
    client.answer().is_hello();
    server.exit_clean();
}

/// A `P` may be the beginning of a POST, or of the preface of HTTP/2, so it waits where idle connections do, and was closed as one: with
/// no byte, and counted nowhere.
#[test]
fn half_a_method_is_told_so_like_half_a_head() {
    for half in ["P", "PR", "PO", "G"] {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut client = server.connect();
        client.send(half);
        server.await_accepted(1);
        server.stop();
        assert_eq!(client.answer().status, 408, "{half}");
        client.is_closed();
        server.exit_clean().within(s(6));
    }
}
