//! P4: connections that are opened in the lame duck delay of a real host, and how their close is
//! announced.

use super::{
    help::{Client, Server, ms, pass, s},
    http2_client::{Http2, Manners, StreamEnd},
};
use std::{thread, time::Duration};

const DELAY: Duration = ms(3_000);
const LAST_TENTH: Duration = ms(2_700);

fn gets_hello(client: &mut Http2) {
    let id = client.get("/");
    let stream = client.read_stream(id);
    assert_eq!((stream.status, stream.end), (Some(200), Some(StreamEnd::Whole)), "{stream:?}");
}

/// 41 of 58 connections that were opened in the delay got their GOAWAY within 10 ms, and some of
/// their clients saw a request cancelled. The GOAWAYs must be spread over the rest of the delay
/// (P4).
#[test]
fn http2_connections_of_the_delay_get_their_goaways_spread_over_its_rest() {
    let mut server = Server::start(&["--lame-duck", "3s"]);
    server.stop_and_await("lame_duck");
    let main = server.service.main;
    let clients: Vec<_> = (0..24)
        .map(|n| {
            thread::spawn(move || {
                pass(ms(60 * n));
                let mut client = Http2::connect(main, Manners::Good);
                assert!(client.goaways.is_empty());
                gets_hello(&mut client);
                assert!(client.goaways.is_empty(), "in the moment of the first response");
                client
            })
        })
        .collect();
    let waits: Vec<(Duration, Duration)> = thread::scope(|scope| {
        let server = &server;
        let told = clients.into_iter().map(|client| {
            scope.spawn(move || {
                let mut client = client.join().unwrap();
                let opened = server.since_stop();
                client.read_until(|client| !client.goaways.is_empty());
                (opened, server.since_stop())
            })
        });
        let told: Vec<_> = told.collect();
        told.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let at_once = waits.iter().filter(|(opened, told)| *told - *opened < ms(20)).count();
    assert!(at_once <= 4, "{waits:?}");
    // A busy machine can be a little late.
    let in_time = waits.iter().filter(|(_, told)| *told < LAST_TENTH + ms(150)).count();
    assert!(in_time >= 22, "{waits:?}");
    let mut told: Vec<Duration> = waits.iter().map(|(_, told)| *told).collect();
    told.sort_unstable();
    let gaps = told.windows(2).filter(|pair| pair[1] - pair[0] > ms(10)).count();
    assert!(gaps >= 10, "not in a few bursts: {told:?}");
    server.exit_clean();
}

/// Every response of the delay closed its connection, so each request needed a new one. A
/// connection must be kept until its seeded moment (P4).
#[test]
fn a_busy_client_keeps_its_connections_in_the_delay() {
    let mut server = Server::start(&["--lame-duck", "3s"]);
    let mut client = server.keep();
    server.stop_and_await("lame_duck");
    client.get("/");
    assert!(client.answer().says_close(), "a connection of before, with its first response");
    let (mut connections, mut requests) = (0_u32, 0_u32);
    while server.since_stop() < LAST_TENTH - ms(50) {
        let mut client = server.connect();
        connections += 1;
        requests += asks_until_told(&server, &mut client);
    }
    assert!(connections < 40 && requests > connections * 4, "{requests} on {connections}");
    // In the last tenth every response announces the close.
    while server.since_stop() < LAST_TENTH + ms(20) {
        pass(ms(5));
    }
    if server.since_stop() < DELAY - ms(100) {
        let mut client = server.ask("/");
        assert!(client.answer().says_close());
    }
    server.exit_clean();
}

/// Returns the number of responses up to the first with `Connection: close`. That is not the first
/// response, except in the last tenth.
fn asks_until_told(server: &Server, client: &mut Client) -> u32 {
    let mut requests = 0;
    loop {
        let before = server.since_stop();
        client.get("/");
        let answer = client.answer();
        answer.is_hello();
        requests += 1;
        if answer.says_close() {
            let is_last_tenth = server.since_stop() >= LAST_TENTH;
            assert!(requests > 1 || is_last_tenth, "with its first response, at {before:?}");
            client.is_closed();
            return requests;
        }
        pass(ms(3));
    }
}

/// A connection in the idle set keeps its seeded moment, and that it has had a response. A
/// connection that is not used any more is counted (P4).
#[test]
fn idle_connections_of_the_delay_keep_their_moments_and_unused_ones_are_counted() {
    let mut server = Server::start(&["--lame-duck", "3s", "--workers", "1"]);
    let mut before: Vec<_> = (0..150).map(|_| server.keep()).collect();
    server.stop_and_await("lame_duck");
    let mut late: Vec<_> = (0..150).map(|_| server.keep()).collect();
    let opened = server.since_stop();
    // Long enough without a request to be in the idle set.
    pass(ms(1_300));
    let told = |clients: &mut [Client]| {
        let told = clients.iter_mut().map(|client| {
            client.get("/");
            let answer = client.answer();
            answer.is_hello();
            answer.says_close()
        });
        told.filter(|told| *told).count()
    };
    assert_eq!(told(&mut before[..100]), 100, "all that existed at the stop request");
    let half = told(&mut late[..100]);
    let asked = server.since_stop();
    if opened < ms(400) && asked < ms(2_000) {
        assert!((20..=85).contains(&half), "{half} of 100 at {asked:?}, opened by {opened:?}");
    }
    let exit = server.exit_clean().within(s(10));
    let unannounced = u64::try_from(50 + 50 + 100 - half).unwrap();
    assert_eq!(exit.connections("unannounced"), unannounced, "{exit:?}");
}
