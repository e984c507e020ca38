//! P4, P6: HTTP/2 connections: told by one graceful GOAWAY, served up to the last stream, bounded
//! when the peer does not play along.

use super::{
    help::{End, Server, ms, pass, s},
    http2_client::{ANY_STREAM, Goaway, Http2, Manners, PREFACE, StreamEnd},
};
use std::time::Duration;

impl Server {
    /// An HTTP/2 connection that had a request answered.
    fn http2(&self, manners: Manners) -> Http2 {
        let mut client = Http2::connect(self.service.main, manners);
        let id = client.get("/");
        is_whole(&mut client, id, b"hello world");
        client
    }
}

#[track_caller]
fn is_whole(client: &mut Http2, id: u32, body: &[u8]) {
    let stream = client.read_stream(id);
    assert_eq!((stream.status, stream.end), (Some(200), Some(StreamEnd::Whole)), "{stream:?}");
    assert_eq!(stream.body, body);
}

/// The warning, then the last word with the last stream that is served.
#[track_caller]
fn was_told_gracefully(client: &Http2, last: u32) {
    assert_eq!(client.goaways, [Goaway { last: ANY_STREAM, code: 0 }, Goaway { last, code: 0 }]);
}

#[test]
fn connections_are_told_to_go_one_by_one_within_the_lame_duck_delay() {
    const DELAY: Duration = ms(1_500);
    let mut server = Server::start(&["--lame-duck", "1500ms"]);
    let clients: Vec<_> = (0..8).map(|_| server.http2(Manners::Good)).collect();
    server.stop();
    let told: Vec<Duration> = std::thread::scope(|scope| {
        let server = &server;
        let told = clients.into_iter().map(|mut client| {
            scope.spawn(move || {
                client.read_until(|client| !client.goaways.is_empty());
                let told = server.since_stop();
                client.read_to_the_end();
                was_told_gracefully(&client, 1);
                assert_eq!(client.end, Some(End::Closed));
                told
            })
        });
        told.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let early = told.iter().filter(|told| **told < DELAY).count();
    assert!(early >= 6, "P4: within the delay: {told:?}");
    let (first, last) = (told.iter().min().unwrap(), told.iter().max().unwrap());
    assert!(*last - *first > ms(100), "not all at once: {told:?}");
    server.exit_clean();
}

#[test]
fn a_stream_opened_in_the_lame_duck_delay_is_served() {
    let mut server = Server::start(&["--lame-duck", "800ms"]);
    let mut client = server.http2(Manners::Good);
    server.stop_and_await("lame_duck");
    let mut served = 0;
    while client.goaways.is_empty() {
        let id = client.get("/");
        // Even those that cross the first GOAWAY: it promises to serve any stream.
        is_whole(&mut client, id, b"hello world");
        served += 1;
    }
    client.read_to_the_end();
    assert_eq!(client.end, Some(End::Closed));
    let exit = server.exit_clean();
    assert_eq!(exit.requests("finished"), served + 1);
}

#[test]
fn streams_in_flight_at_the_goaway_are_answered_whole() {
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut client = server.http2(Manners::Good);
    let slow = client.get("/slow?ms=1200");
    let stream = client.get("/stream?ms=1000");
    server.await_in_flight(2);
    server.stop();
    client.read_to_the_end();
    was_told_gracefully(&client, stream);
    is_whole(&mut client, slow, b"slow done\n");
    let streamed = client.read_stream(stream);
    assert!(
        streamed.body.ends_with(b"end\n") && streamed.end == Some(StreamEnd::Whole),
        "{streamed:?}"
    );
    assert_eq!(client.end, Some(End::Closed));
    server.exit_clean();
}

/// The requests that a client sent before it saw the GOAWAY: until its PONG comes back nobody knows of them.
#[test]
fn streams_that_cross_the_goaway_on_the_wire_are_served() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.http2(Manners::NoPong);
    let begun = client.get("/slow?ms=600");
    server.await_in_flight(1);
    server.stop();
    client.read_until(|client| !client.goaways.is_empty());
    let crossing: Vec<_> = (0..5).map(|_| client.get("/")).collect();
    for id in &crossing {
        is_whole(&mut client, *id, b"hello world");
    }
    client.pong_at_last();
    client.read_to_the_end();
    was_told_gracefully(&client, crossing[4]);
    is_whole(&mut client, begun, b"slow done\n");
    let exit = server.exit_clean();
    assert_eq!(exit.requests("finished"), 7);
}

#[test]
fn eighty_streams_of_one_connection_are_all_answered() {
    let mut server = Server::start(&["--lame-duck", "200ms"]);
    let mut client = server.http2(Manners::Good);
    let ids: Vec<_> = (0..80).map(|n| client.get(&format!("/slow?ms={}", 500 + n * 15))).collect();
    server.await_in_flight(80);
    server.stop();
    client.read_to_the_end();
    was_told_gracefully(&client, ids[79]);
    for id in ids {
        is_whole(&mut client, id, b"slow done\n");
    }
    server.exit_clean();
}

#[test]
fn a_slow_upload_on_a_stream_is_read_to_its_end() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.http2(Manners::Good);
    let id = client.post("/echo");
    server.await_in_flight(1);
    server.stop();
    for n in 0..10 {
        pass(ms(80));
        client.send_data(id, b"0123456789", n == 9);
    }
    is_whole(&mut client, id, &b"0123456789".repeat(10));
    client.read_to_the_end();
    server.exit_clean();
}

#[test]
fn an_idle_connection_is_told_closed_and_does_not_delay_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.http2(Manners::Good);
    server.stop();
    client.read_to_the_end();
    was_told_gracefully(&client, 1);
    assert_eq!(client.end, Some(End::Closed));
    server.exit_clean().within(s(3));
}

#[test]
fn a_peer_that_answers_no_ping_does_not_hold_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.http2(Manners::NoPong);
    server.stop();
    client.read_to_the_end();
    assert_eq!(client.goaways[0], Goaway { last: ANY_STREAM, code: 0 });
    server.exit_clean().within(s(5));
}

#[test]
fn a_handshake_that_never_ends_does_not_hold_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send(PREFACE);
    server.await_accepted(1);
    server.stop();
    client.rest();
    server.exit_clean().within(s(5));
}

#[test]
fn a_big_answer_into_a_closed_window_is_bounded_and_counted_as_aborted() {
    let mut server = Server::start(&["--lame-duck", "0s", "--drain", "600ms", "--cancel", "600ms"]);
    let mut client = server.http2(Manners::NoWindow);
    let id = client.get("/big?bytes=10000000");
    server.await_in_flight(1);
    server.stop();
    client.read_to_the_end();
    assert_ne!(client.streams[&id].end, Some(StreamEnd::Whole), "a cut answer that looks whole");
    let exit = server.exit().within(s(5));
    assert_eq!((exit.code, exit.requests("aborted")), (3, 1), "{exit:?}");
}

#[test]
fn a_big_answer_to_a_reader_of_goodwill_arrives_whole() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.http2(Manners::Good);
    let id = client.get("/big?bytes=3000000");
    server.await_in_flight(1);
    server.stop();
    let stream = client.read_stream(id);
    assert_eq!((stream.body.len(), stream.end), (3_000_000, Some(StreamEnd::Whole)));
    client.read_to_the_end();
    server.exit_clean();
}

/// A stream cut before its head gets a 503, one cut after it RST_STREAM: neither looks whole, and the report tells each.
#[test]
fn streams_that_outlast_the_drain_get_a_503_or_a_reset_of_their_own() {
    let mut server = Server::start(&["--lame-duck", "0s", "--drain", "500ms", "--cancel", "700ms"]);
    let mut client = server.http2(Manners::Good);
    let silent = client.get("/stuck?ms=60000");
    let with_length = client.get("/stuck?ms=60000&head=1");
    let without = client.get("/stuck?ms=60000&chunked=1");
    server.await_in_flight(3);
    server.stop();
    client.read_to_the_end();
    let refused = &client.streams[&silent];
    assert_eq!((refused.status, refused.end), (Some(503), Some(StreamEnd::Whole)), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.body).contains("shutting down"), "{refused:?}");
    for id in [with_length, without] {
        let cut = &client.streams[&id];
        assert_eq!((cut.status, cut.end), (Some(200), Some(StreamEnd::Reset)), "{cut:?}");
    }
    let exit = server.exit().within(s(5));
    assert_eq!((exit.code, exit.requests("aborted")), (3, 3), "{exit:?}");
    let aborts = exit.report["aborts"].as_array().unwrap();
    assert!(
        aborts.iter().all(|abort| abort["path"] == "/stuck" && abort["method"] == "GET"),
        "{exit:?}"
    );
    assert_eq!(aborts.iter().filter(|abort| abort["head_sent"] == true).count(), 2, "{exit:?}");
}

/// An answer that was handed to the kernel lay there when the drain closed its connection. A client that receives opens its windows;
/// the first WINDOW_UPDATE met the closed socket, and the reset threw the rest of the answer away, with a report that said
/// finished and clean: 35 of 3,429 requests of well-behaved clients.
#[test]
fn an_answer_that_lies_in_the_kernel_is_not_destroyed_by_the_windows_that_its_client_opens() {
    const BYTES: usize = 1_500_000;
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = Http2::connect(server.service.main, Manners::Good);
    client.open_windows_wide();
    let id = client.get(&format!("/big?bytes={BYTES}"));
    server.await_status(|status| status["requests"]["finished"] == 1);
    server.stop_and_await("draining");
    // Longer than a PONG is waited for.
    pass(ms(1_500));
    let stream = client.read_stream(id);
    assert_eq!((stream.end, stream.body.len()), (Some(StreamEnd::Whole), BYTES));
    drop(client);
    let exit = server.exit_clean();
    assert_eq!(exit.connections("reset"), 0, "{exit:?}");
}

/// A stream that waits for a window until the cut took the whole connection with it by a reset, and on another stream an answer that
/// was finished.
#[test]
fn a_stream_that_is_cut_behind_its_window_does_not_take_a_finished_one_with_it() {
    const BYTES: usize = 1_000_000;
    let mut server = Server::start(&["--lame-duck", "0s", "--drain", "500ms", "--cancel", "500ms"]);
    let mut client = Http2::connect(server.service.main, Manners::Mute);
    client.open_windows_wide();
    let whole = client.get(&format!("/big?bytes={BYTES}"));
    server.await_status(|status| status["requests"]["finished"] == 1);
    // More than the rest of the connection's window.
    let blocked = client.get("/big?bytes=20000000");
    server.await_in_flight(1);
    server.stop();
    pass(ms(1_200));
    let stream = client.read_stream(whole);
    assert_eq!((stream.end, stream.body.len()), (Some(StreamEnd::Whole), BYTES));
    client.read_to_the_end();
    assert_ne!(client.streams[&blocked].end, Some(StreamEnd::Whole));
    let exit = server.exit();
    assert_eq!(
        (exit.code, exit.requests("finished"), exit.requests("aborted")),
        (3, 1, 1),
        "{exit:?}"
    );
}

/// Many clients wait for the server's SETTINGS before they ask. One that came late in the lame duck delay was told to go before it
/// could, again and again at each connect, and was never served.
#[test]
fn a_client_that_connects_late_in_the_lame_duck_delay_and_waits_for_the_settings_is_served() {
    let mut server = Server::start(&["--lame-duck", "500ms"]);
    server.stop_and_await("lame_duck");
    pass(ms(400));
    let mut client = Http2::connect(server.service.main, Manners::Good);
    client.read_greeting();
    pass(ms(50));
    let id = client.get("/");
    is_whole(&mut client, id, b"hello world");
    client.read_to_the_end();
    was_told_gracefully(&client, id);
    server.exit_clean().within(s(4));
}

/// Each request began the wait for the PONG anew: one that never came, but small requests all the time, held the whole drain.
#[test]
fn a_client_that_answers_no_ping_and_asks_all_the_time_does_not_hold_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.http2(Manners::NoPong);
    server.stop();
    client.read_until(|client| !client.goaways.is_empty());
    for _ in 0..40 {
        if client.end.is_some() {
            break;
        }
        let id = client.get("/");
        client.read_until(|client| client.streams[&id].end.is_some());
        pass(ms(100));
    }
    server.exit_clean().within(s(4));
}
