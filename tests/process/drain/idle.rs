//! P5b, P6: connections without a request in flight do not delay the exit, and no request on them
//! is lost.

use super::{
    help::{Server, ms, pass, s},
    http2_client::{Http2, Manners},
};
use crate::support::{in_time, now};
use std::io::Write;

#[test]
fn an_idle_connection_is_closed_and_does_not_delay_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.keep();
    server.stop();
    client.is_closed();
    server.exit_clean().within(s(3));
}

#[test]
fn a_parked_connection_is_closed_and_does_not_delay_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.keep();
    // The connection is parked after a second without a request.
    pass(ms(1_600));
    server.stop();
    client.is_closed();
    let exit = server.exit_clean().within(s(3));
    assert_eq!(exit.connections("drained"), 1);
}

#[test]
fn a_kept_connection_is_served_in_the_lame_duck_delay_and_its_close_announced() {
    let mut server = Server::start(&["--lame-duck", "1s"]);
    let (mut with_hyper, mut parked) = (server.keep(), server.keep());
    pass(ms(1_300));
    with_hyper.get("/");
    let before = with_hyper.answer();
    assert!(!before.says_close(), "{before:?}");
    server.stop_and_await("lame_duck");
    for client in [&mut with_hyper, &mut parked] {
        client.get("/");
        let answer = client.answer();
        answer.is_hello();
        assert!(answer.says_close(), "{answer:?}");
        client.is_closed();
    }
    let exit = server.exit_clean();
    assert!(exit.took >= ms(1_000), "P4: it lasts its whole delay, however idle: {exit:?}");
}

/// A client sends a request before it can know of the stop, and the request arrives after the drain
/// has begun. The grace covers the time on the wire (P6).
#[test]
fn a_new_connection_is_served_if_its_first_byte_arrives_within_the_grace() {
    for round in 0..5 {
        in_time(|| {
            let mut server = Server::start(&["--lame-duck", "0s"]);
            let begin = now();
            let mut client = server.connect();
            server.stop();
            pass(ms(30 * round));
            client.get("/");
            // The grace is 250 ms.
            if begin.elapsed() > ms(200) {
                return None;
            }
            client.answer().is_hello();
            client.is_closed();
            Some(server.exit_clean())
        });
    }
}

#[test]
fn a_connection_that_never_sends_a_byte_is_closed_when_the_grace_expires() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let begin = now();
    let mut client = server.connect();
    server.stop();
    client.is_closed();
    let exit = server.exit_clean().within(s(3));
    assert!(begin.elapsed() >= ms(250), "it was given a chance: {exit:?}");
}

#[test]
fn a_connection_that_was_silent_for_long_has_used_its_grace() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut clients: Vec<_> = (0..10).map(|_| server.connect()).collect();
    server.await_accepted(10);
    pass(ms(400));
    server.stop();
    for client in &mut clients {
        client.is_closed();
    }
    let exit = server.exit_clean().within(s(3));
    assert_eq!(exit.connections("drained"), 10);
}

/// P5b: requests lie in the kernel before the process sees the stop, and it sees both at the same
/// time. A worker learns from its runtime what can be read, but it can learn of the drain first.
/// Only a read of its own, before the FIN, finds such a request.
#[test]
fn requests_that_reached_a_suspended_process_over_idle_connections_are_served() {
    for wait in [ms(0); 10].into_iter().chain([ms(1_500)]) {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut clients: Vec<_> = (0..100).map(|_| server.keep()).collect();
        // Not at all, or long enough to be parked.
        pass(wait);
        server.freeze();
        for client in &mut clients {
            client.get("/");
        }
        server.stop_and_thaw();
        for client in &mut clients {
            client.answer().is_hello();
            client.is_closed();
        }
        let exit = server.exit_clean();
        assert_eq!(exit.requests("finished"), 200);
    }
}

#[test]
fn a_thousand_idle_connections_delay_neither_fifty_requests_nor_the_exit() {
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut idle: Vec<_> = (0..1_000).map(|_| server.keep()).collect();
    let mut busy: Vec<_> = (0..50).map(|_| server.ask("/slow?ms=1500")).collect();
    server.await_started(1_050);
    server.stop();
    for client in &mut busy {
        assert_eq!(client.answer().text(), "slow done\n");
    }
    let answered = server.since_stop();
    for client in &mut idle {
        client.is_closed();
    }
    let exit = server.exit_clean();
    assert_eq!(exit.requests("finished"), 1_050);
    assert!(exit.took < answered + s(2), "P8: {answered:?}, {exit:?}");
}

/// A request that crosses the FIN gets no byte of a response, so that its client can send it again.
/// It was counted only if it arrived within the microseconds of the close itself: none of hundreds
/// was. It must be counted as a close race (P5b).
#[test]
fn a_request_that_crosses_the_close_is_counted() {
    // On a busy machine a client can be too late, and so can all clients of a round.
    for _ in 0..20 {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut clients: Vec<_> = (0..10).map(|_| server.keep()).collect();
        server.stop();
        let mut sent_into_the_close = 0;
        for client in &mut clients {
            // The FIN has arrived, but the server cannot know that its client saw it.
            client.is_closed();
            sent_into_the_close +=
                u64::from(client.stream.write_all(b"GET / HTTP/1.1\r\n").is_ok());
        }
        let exit = server.exit_clean().within(s(3));
        let close_races = exit.connections("close_races");
        assert!(close_races <= sent_into_the_close, "{exit:?}");
        if close_races > 0 {
            return;
        }
    }
    panic!("none was counted");
}

/// An HTTP/2 connection without a request lingered for a second after its last GOAWAY, although it
/// had no response to wait for. Its client acknowledges everything and waits for the server to
/// close first. The exit must not wait for that (P8).
#[test]
fn an_idle_http2_connection_delays_the_exit_hardly_longer_than_an_http1_one() {
    let http1 = || {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut client = server.keep();
        server.stop();
        client.is_closed();
        server.exit_clean().took
    };
    let http2 = || {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut client = Http2::connect(server.service.main, Manners::Good);
        client.read_greeting();
        server.stop();
        client.read_to_the_end();
        server.exit_clean().took
    };
    // The best of three, because other work on the machine makes both longer.
    let best = |run: &dyn Fn() -> std::time::Duration| (0..3).map(|_| run()).min().unwrap();
    let (http1, http2) = (best(&http1), best(&http2));
    // The HTTP/2 connection has a quarter of a second for a first request.
    assert!(http2 < http1 + ms(900), "{http2:?} beside {http1:?}");
}
