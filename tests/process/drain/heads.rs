//! P6: half a request head at the stop gets a short time of its own, and no more.

use super::help::{Client, End, Server, ms, pass, s};
use crate::support::in_time;
use std::time::Duration;

/// A head that began before the drain has a second in it.
const WITHIN_THE_GRACE: Duration = Duration::from_millis(900);

#[test]
fn half_a_head_that_is_completed_half_a_second_later_is_served() {
    in_time(|| {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut client = server.connect();
        client.send("GET / HTTP/1.1\r\nho");
        server.await_accepted(1);
        server.stop_and_await("draining");
        pass(ms(500));
        client.send("st: test\r\n\r\n");
        if server.since_stop() > WITHIN_THE_GRACE {
            return None;
        }
        let answer = client.answer();
        answer.is_hello();
        assert!(answer.says_close(), "{answer:?}");
        client.is_closed();
        Some(server.exit_clean())
    });
}

#[test]
fn half_a_head_that_is_never_completed_gets_a_408_in_time() {
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

/// A head that arrives byte by byte could last for ever, if each byte extended its time.
#[test]
fn a_head_that_trickles_is_bounded() {
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

/// Sends a head in two parts, the second one in the drain. Returns `None` if that was too late.
fn send_across_the_stop(
    server: &mut Server,
    client: &mut Client,
    first: &str,
    rest: &str,
) -> Option<()> {
    client.send(first);
    // A good connection needs no longer than this to deliver the bytes.
    pass(ms(100));
    server.stop_and_await("draining");
    pass(ms(400));
    client.send(rest);
    (server.since_stop() <= WITHIN_THE_GRACE).then_some(())
}

#[test]
fn a_second_head_on_a_kept_connection_is_served_when_it_is_complete() {
    in_time(|| {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut client = server.keep();
        send_across_the_stop(&mut server, &mut client, "GET / HT", "TP/1.1\r\nhost: test\r\n\r\n")?;
        client.answer().is_hello();
        client.is_closed();
        let exit = server.exit_clean();
        assert_eq!(exit.requests("finished"), 2);
        Some(())
    });
}

#[test]
fn a_second_head_on_a_parked_connection_is_served_when_it_is_complete() {
    in_time(|| {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut client = server.keep();
        pass(ms(1_500));
        send_across_the_stop(&mut server, &mut client, "G", "ET / HTTP/1.1\r\nhost: test\r\n\r\n")?;
        client.answer().is_hello();
        Some(server.exit_clean())
    });
}

/// The first bytes of the HTTP/2 preface and of an HTTP/1 method can be the same. While the
/// protocol is undecided, the wait must still be bounded (P6).
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
fn half_a_head_in_the_lame_duck_delay_may_be_completed_in_the_drain() {
    in_time(|| {
        let mut server = Server::start(&["--lame-duck", "700ms"]);
        let mut client = server.connect();
        server.stop_and_await("lame_duck");
        client.send("GET / HTTP/1.1\r\n");
        if server.since_stop() > ms(700) {
            return None;
        }
        assert!(server.service.await_log(s(10), |line| line["phase"] == "draining"));
        pass(ms(300));
        client.send("host: test\r\n\r\n");
        if server.since_stop() > ms(700) + WITHIN_THE_GRACE {
            return None;
        }
        client.answer().is_hello();
        Some(server.exit_clean())
    });
}

/// A `P` can begin a POST or the HTTP/2 preface, so its connection waits where idle ones do. It was
/// closed as an idle one: without a byte, and not counted. It must get a 408, like half a head
/// (P6).
#[test]
fn half_a_method_gets_a_408_like_half_a_head() {
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
