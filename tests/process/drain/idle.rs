//! P5b, P6: connections on which nothing is asked: they do not hold the exit, and none of them
//! loses a request.

use super::{
    help::{Server, ms, pass, s},
    http2_client::{Http2, Manners},
};
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
    // It is parked after a second without a request.
    pass(ms(1_600));
    server.stop();
    client.is_closed();
    let exit = server.exit_clean().within(s(3));
    assert_eq!(exit.connections("drained"), 1);
}

#[test]
fn a_connection_kept_from_before_serves_in_the_lame_duck_delay_and_is_told_to_go() {
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

/// A request that was sent while nothing could be known of the stop, and arrives when the drain has long begun: the grace is
/// for the way there.
#[test]
fn a_new_connection_is_served_when_its_first_byte_comes_within_the_grace() {
    for round in 0..5 {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut client = server.connect();
        server.stop();
        pass(ms(30 * round));
        client.get("/");
        client.answer().is_hello();
        client.is_closed();
        server.exit_clean();
    }
}

#[test]
fn a_connection_that_never_sends_a_byte_is_closed_when_the_grace_is_over() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    server.stop();
    client.is_closed();
    let exit = server.exit_clean().within(s(3));
    assert!(exit.took >= ms(200), "it was given a chance: {exit:?}");
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

/// P5b, the last look. The requests lie in the kernel's buffers before the process knows of the stop, and it hears of both in
/// the same moment. A worker learns from its runtime what can be read, but may learn of the drain first: then only a look of its
/// own, before the FIN, can tell.
#[test]
fn requests_that_came_to_a_stopped_process_over_idle_connections_are_answered() {
    for wait in [ms(0); 10].into_iter().chain([ms(1_500)]) {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut clients: Vec<_> = (0..100).map(|_| server.keep()).collect();
        // Nothing, or long enough to be parked.
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
fn a_thousand_idle_connections_do_not_hold_up_the_fifty_requests_in_flight_nor_the_exit_after_them()
{
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut idle: Vec<_> = (0..1_000).map(|_| server.keep()).collect();
    let mut busy: Vec<_> = (0..50).map(|_| server.ask("/slow?ms=1500")).collect();
    server.await_in_flight(50);
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

/// A request that crosses our FIN gets no byte of an answer, so that its client may send it again. It was counted only if it came
/// within the microseconds of the close itself: of hundreds, none.
#[test]
fn a_request_that_crosses_the_close_on_the_wire_is_counted() {
    // On a busy machine a client may be too late, or a whole round.
    for _ in 0..20 {
        let mut server = Server::start(&["--lame-duck", "0s"]);
        let mut clients: Vec<_> = (0..10).map(|_| server.keep()).collect();
        server.stop();
        let mut sent_into_the_close = 0;
        for client in &mut clients {
            // The FIN has come, but the server cannot know that its client saw it.
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

/// A connection of HTTP/2 on which nothing was asked lingered for a second after its last GOAWAY, for an answer that there was not. Its
/// client acknowledges everything and waits for the server to close first.
#[test]
fn an_idle_http2_connection_holds_the_exit_hardly_longer_than_one_of_http1() {
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
    // The best of three: other work on the machine makes both longer.
    let best = |run: &dyn Fn() -> std::time::Duration| (0..3).map(|_| run()).min().unwrap();
    let (http1, http2) = (best(&http1), best(&http2));
    // It had a quarter of a second for a first request.
    assert!(http2 < http1 + ms(900), "{http2:?} beside {http1:?}");
}
