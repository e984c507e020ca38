//! P4, P6: HTTP/2 connections get one graceful GOAWAY, are served up to the last stream, and are
//! bounded when the peer does not cooperate.

use super::{
    help::{End, Server, connect, ms, pass, s},
    http2_client::{ANY_STREAM, Goaway, Http2, Manners, PREFACE, StreamEnd},
};
use crate::support::in_time;
use std::time::Duration;

impl Server {
    /// Opens an HTTP/2 connection that has had a response.
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

/// Asserts a graceful GOAWAY: the warning, then the final one with the last stream that is served.
#[track_caller]
fn was_told_gracefully(client: &Http2, last: u32) {
    assert_eq!(client.goaways, [Goaway { last: ANY_STREAM, code: 0 }, Goaway { last, code: 0 }]);
}

#[test]
fn goaways_are_spread_over_the_lame_duck_delay() {
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
        // Streams that cross the first GOAWAY are served too: it promises to serve any stream.
        is_whole(&mut client, id, b"hello world");
        served += 1;
    }
    client.read_to_the_end();
    assert_eq!(client.end, Some(End::Closed));
    let exit = server.exit_clean();
    assert_eq!(exit.requests("finished"), served + 1);
}

#[test]
fn streams_in_flight_at_the_goaway_get_complete_responses() {
    let mut server = Server::start(&["--lame-duck", "300ms"]);
    let mut client = server.http2(Manners::Good);
    let slow = client.get("/slow?ms=1200");
    let stream = client.get("/stream?ms=1000");
    server.await_started(3);
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

/// A client sends requests before it sees the GOAWAY. Until its PONG arrives, the server cannot
/// know of them. They must be served (P4).
#[test]
fn streams_that_cross_the_goaway_on_the_wire_are_served() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.http2(Manners::NoPong);
    let begun = client.get("/slow?ms=600");
    server.await_started(2);
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
fn eighty_streams_of_one_connection_are_all_served() {
    let mut server = Server::start(&["--lame-duck", "200ms"]);
    let mut client = server.http2(Manners::Good);
    let ids: Vec<_> = (0..80).map(|n| client.get(&format!("/slow?ms={}", 500 + n * 15))).collect();
    server.await_started(81);
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
fn an_idle_http2_connection_gets_a_goaway_and_does_not_delay_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.http2(Manners::Good);
    server.stop();
    client.read_to_the_end();
    was_told_gracefully(&client, 1);
    assert_eq!(client.end, Some(End::Closed));
    server.exit_clean().within(s(3));
}

#[test]
fn a_peer_that_responds_to_no_ping_does_not_delay_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.http2(Manners::NoPong);
    server.stop();
    client.read_to_the_end();
    assert_eq!(client.goaways[0], Goaway { last: ANY_STREAM, code: 0 });
    server.exit_clean().within(s(5));
}

#[test]
fn an_http2_handshake_that_never_ends_does_not_delay_the_exit() {
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = server.connect();
    client.send(PREFACE);
    server.await_accepted(1);
    server.stop();
    client.rest();
    server.exit_clean().within(s(5));
}

#[test]
fn a_big_response_into_a_closed_window_is_bounded_and_counted_as_aborted() {
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
fn a_big_response_to_a_cooperative_reader_arrives_complete() {
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

/// A stream that is cut before its head gets a 503, and one after its head an RST_STREAM. Neither
/// looks complete, and the report names each (P5d).
#[test]
fn streams_that_outlast_the_drain_each_get_a_503_or_a_reset() {
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

/// The kernel held a response when the drain closed its connection. A client that receives opens
/// its windows. Its first WINDOW_UPDATE met the closed socket, and the reset destroyed the rest of
/// the response. The report said finished and clean for 35 of 3,429 requests of well-behaved
/// clients. Such a response must arrive complete (P5d).
#[test]
fn a_response_in_the_kernel_is_not_destroyed_by_window_updates() {
    const BYTES: usize = 1_500_000;
    let mut server = Server::start(&["--lame-duck", "0s"]);
    let mut client = Http2::connect(server.service.main, Manners::Good);
    client.open_windows_wide();
    let id = client.get(&format!("/big?bytes={BYTES}"));
    server.await_status(|status| status["requests"]["finished"] == 1);
    server.stop_and_await("draining");
    // Longer than the wait for a PONG.
    pass(ms(1_500));
    let stream = client.read_stream(id);
    assert_eq!((stream.end, stream.body.len()), (Some(StreamEnd::Whole), BYTES));
    drop(client);
    let exit = server.exit_clean();
    assert_eq!(exit.connections("reset"), 0, "{exit:?}");
}

/// A stream waited for a window until it was cut. The cut reset the whole connection, and destroyed
/// a finished response on another stream. That response must arrive complete (P5d).
#[test]
fn a_stream_cut_while_it_waits_for_a_window_does_not_reset_a_finished_one() {
    const BYTES: usize = 1_000_000;
    let mut server = Server::start(&["--lame-duck", "0s", "--drain", "500ms", "--cancel", "500ms"]);
    let mut client = Http2::connect(server.service.main, Manners::Mute);
    client.open_windows_wide();
    let whole = client.get(&format!("/big?bytes={BYTES}"));
    server.await_status(|status| status["requests"]["finished"] == 1);
    // More than the rest of the window of the connection.
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

/// Many clients wait for the server's SETTINGS before their first request. A client that connected
/// late in the lame duck delay got its GOAWAY before it could send one, at each attempt, and was
/// never served. It must be served (P4).
#[test]
fn a_late_client_that_waits_for_the_settings_is_served() {
    let (server, socket) = in_time(|| {
        let mut server = Server::start(&["--lame-duck", "2s"]);
        server.stop_and_await("lame_duck");
        pass(ms(1_600));
        let socket = connect(server.service.main);
        (server.since_stop() < s(2)).then(|| (server, socket.unwrap()))
    });
    let mut client = Http2::new(socket, Manners::Good);
    client.read_greeting();
    pass(ms(50));
    let id = client.get("/");
    is_whole(&mut client, id, b"hello world");
    client.read_to_the_end();
    was_told_gracefully(&client, id);
    server.exit_clean().within(s(6));
}

/// Each request restarted the wait for the PONG. A client that sent no PONG, but small requests all
/// the time, delayed the exit for the whole drain. The wait must be bounded (P6).
#[test]
fn a_busy_client_that_responds_to_no_ping_does_not_delay_the_exit() {
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
