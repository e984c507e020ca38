//! Streams and GOAWAY.

use crate::{
    scenario::{Grade, Need, Scenario, Weight},
    trial::{Abort, Trial, route},
};
use lameduck_wire::{
    End,
    http2::{Client, Frame, GOAWAY, HEADERS, REFUSED_STREAM, RST_STREAM},
};
use std::{
    thread,
    time::{Duration, Instant},
};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "http2/goaway",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::Http2],
        does: "Keeps idle HTTP/2 connections, requests the stop, and waits for the GOAWAY.",
        why: "Without a GOAWAY the client does not know which requests to repeat on another \
              connection.",
        rule: "RFC 9113 §6.8: endpoints should always send a GOAWAY before closing",
        repair: "Use the graceful shutdown of the HTTP/2 library on every connection.",
        play: goaway,
    },
    Scenario {
        name: "http2/in-flight",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::Http2, Need::Slow],
        does: "Opens three streams whose responses take 500 ms, and requests the stop 150 ms \
               later.",
        why: "One HTTP/2 connection carries the requests of many users.",
        rule: "RFC 9113 §6.8: streams up to the last stream id are still served",
        repair: "After the GOAWAY keep the connection until its streams have ended.",
        play: in_flight,
    },
    Scenario {
        name: "http2/last-stream-id",
        weight: Weight::Always(Grade::Must),
        needs: &[Need::Http2],
        does: "Sends requests on one connection from before the stop until a GOAWAY arrives, and \
               compares the responses with its last stream id.",
        why: "The client repeats what is above the last stream id, and nothing else. A wrong id \
              loses requests or performs them twice.",
        rule: "RFC 9113 §6.8: the id is the highest that might be acted upon",
        repair: "Send a first GOAWAY with 2^31-1, wait a round trip, then send the exact one.",
        play: last_stream_id,
    },
    Scenario {
        name: "http2/requests-unread",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::Http2, Need::StopSignal],
        does: "Freezes the process, sends three requests on a kept connection, requests the stop, \
               and continues the process.",
        why: "The requests had arrived before the stop. Each must be served, or be refused in a \
              way that lets the client repeat it: above the last stream id of a GOAWAY, or by \
              RST_STREAM with REFUSED_STREAM.",
        rule: "RFC 9113 §6.8, §8.7: a request that was not processed may be repeated",
        repair: "Read the connection once more before it is closed, and do not reset it.",
        play: requests_unread,
    },
];

/// A GOAWAY of a long lame duck is not waited for any longer.
const GOAWAY_MAX: Duration = Duration::from_secs(15);

fn goaway(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let mut clients = Vec::new();
    for n in 0..3 {
        let label = format!("idle {n}");
        clients.push((trial.keep_http2(&label)?, label));
    }
    trial.stop()?;
    let most = trial.target.grace.min(GOAWAY_MAX);
    for (mut client, label) in clients {
        client.connection().set_max_wait(most.saturating_sub(trial.since_stop()));
        let found = client.find(|frame| frame.kind == GOAWAY).map(|_| ());
        let holds = is_warned(found, trial.since_stop(), trial.target.lame_duck);
        trial.expect(holds, || match found {
            Err(end) => format!("{label}: no GOAWAY, {end}"),
            Ok(()) => String::new(),
        });
    }
    Ok(())
}

/// A GOAWAY may come this long after the lame duck delay.
const GOAWAY_LATE: Duration = Duration::from_secs(1);

/// Returns whether there was a GOAWAY, or one may still come because the connection is open and the
/// lame duck delay may last. `waited` is the time since the stop.
fn is_warned(found: Result<(), End>, waited: Duration, lame_duck: Duration) -> bool {
    found.is_ok() || (found == Err(End::Silent) && waited < lame_duck + GOAWAY_LATE)
}

fn in_flight(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let takes = trial.beyond_stop(500);
    let path = route(trial.target.paths.slow.as_deref().unwrap_or_default(), takes);
    expect_streams(trial, &path, Duration::from_millis(150))
}

/// Opens three streams for this path, requests the stop later, and expects the responses.
pub(super) fn expect_streams(
    trial: &mut Trial<'_>,
    path: &str,
    begun: Duration,
) -> Result<(), Abort> {
    let mut client = trial.keep_http2("streams")?;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.request("GET", "localhost", path)?);
    }
    thread::sleep(begun);
    trial.stop()?;
    for stream in streams {
        let state = outcome_of(&mut client, stream);
        trial.expect(state == State::Served, || format!("stream {stream}: {state}"));
    }
    Ok(())
}

/// The outcome of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Served,
    /// With another status than 200.
    Refused(u16),
    /// With a status that cannot be read.
    Unreadable,
    /// With this error code.
    Reset(u32),
    Unresolved(End),
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Served => f.write_str("served"),
            Self::Refused(status) => write!(f, "status {status}"),
            Self::Unreadable => f.write_str("a response whose status cannot be read"),
            Self::Reset(code) => write!(f, "RST_STREAM with the error code {code}"),
            Self::Unresolved(end) => write!(f, "no response: the connection was {end}"),
        }
    }
}

fn outcome_of(client: &mut Client, stream: u32) -> State {
    let ends =
        |frame: &Frame| frame.stream == stream && (frame.ends_stream() || frame.kind == RST_STREAM);
    match client.find(ends) {
        Err(end) => State::Unresolved(end),
        Ok(frame) if frame.kind == RST_STREAM => State::Reset(frame.error_code()),
        Ok(_) => match client.status(stream) {
            Some(200) => State::Served,
            Some(status) => State::Refused(status),
            None => State::Unreadable,
        },
    }
}

/// The last stream id of the last GOAWAY.
fn last_id(client: &Client) -> Option<u32> {
    client.seen.iter().rev().find(|frame| frame.kind == GOAWAY).map(Frame::last_stream)
}

fn last_stream_id(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.plain.clone();
    let mut client = trial.keep_http2("busy")?;
    let pause = Duration::from_millis(5);
    let stop_after = Duration::from_millis(40 + trial.drawn(1, 20));
    let begin = Instant::now();
    let mut streams = Vec::new();
    client.connection().set_max_wait(pause);
    let mut is_stopped = false;
    let most = trial.target.grace.min(GOAWAY_MAX);
    let ended = loop {
        if !is_stopped && begin.elapsed() >= stop_after {
            trial.stop()?;
            is_stopped = true;
        }
        if is_stopped && trial.since_stop() >= most {
            break None;
        }
        match client.request("GET", "localhost", &path) {
            Ok(stream) => streams.push(stream),
            Err(_) => break Some(End::Reset),
        }
        // Reads for as long as a pause between two requests.
        match client.find(|frame| frame.kind == GOAWAY) {
            Ok(_) => break None,
            Err(End::Silent) => {}
            Err(end) => break Some(end),
        }
    };
    client.connection().set_max_wait(trial.max_wait());
    if ended.is_none() {
        for stream in &streams {
            outcome_above(&mut client, *stream);
        }
        // A first GOAWAY may have excluded nothing. The exact one comes with the close.
        client.connection().set_max_wait(Duration::from_secs(1));
        client.end();
    }
    for stream in streams {
        let state = outcome_above(&mut client, stream);
        let last = last_id(&client);
        let is_right = match (state, last) {
            (State::Reset(_), _) => true,
            (State::Unresolved(_), Some(last)) => stream > last,
            (State::Unresolved(_), None) => false,
            // It has a response.
            (_, last) => last.is_none_or(|last| stream <= last),
        };
        trial.expect(is_right, || match last {
            Some(last) => format!("stream {stream}, last stream id {last}: {state}"),
            None => format!("stream {stream}, without a GOAWAY: {state}"),
        });
    }
    Ok(())
}

/// Waits for the outcome of a stream, unless a GOAWAY has excluded it.
fn outcome_above(client: &mut Client, stream: u32) -> State {
    match last_id(client) {
        Some(last) if stream > last => {
            let was_served =
                client.seen.iter().any(|frame| frame.stream == stream && frame.kind == HEADERS);
            if was_served { State::Served } else { State::Unresolved(End::Closed) }
        }
        _ => outcome_of(client, stream),
    }
}

fn requests_unread(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.plain.clone();
    let mut client = trial.keep_http2("kept")?;
    trial.freeze()?;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(client.request("GET", "localhost", &path)?);
    }
    trial.stop()?;
    trial.thaw()?;
    for stream in streams {
        let state = outcome_above(&mut client, stream);
        let may_repeat = state == State::Reset(REFUSED_STREAM)
            || last_id(&client).is_some_and(|last| stream > last);
        trial.expect(may_repeat || state == State::Served, || format!("stream {stream}: {state}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{State, is_warned, outcome_of};
    use lameduck_wire::{
        End,
        http2::{Client, END_HEADERS, END_STREAM, HEADERS, frame},
    };
    use std::{io::Write, net::TcpListener, time::Duration};

    // A server with a lame duck delay of 20 s was blamed after 15 s, although its connections were
    // open and it would have sent a GOAWAY.
    #[test]
    fn a_goaway_may_come_with_the_end_of_the_lame_duck_delay() {
        let second = Duration::from_secs(1);
        let is_warned = |found, waited| is_warned(found, waited * second, 20 * second);
        assert!(is_warned(Err(End::Silent), 15) && is_warned(Ok(()), 21));
        assert!(!is_warned(Err(End::Silent), 21) && !is_warned(Err(End::Closed), 15));
    }

    // A server that refused every stream by 503 passed: the second 503 is an entry of the dynamic
    // table, which was not read and counted as 200.
    #[test]
    fn a_status_that_cannot_be_read_is_no_200() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = Client::connect(address, Duration::from_secs(2)).unwrap();
        let mut server = listener.accept().unwrap().0;
        for (stream, block) in [(1, &[0x88][..]), (3, b"\x48\x03503"), (5, &[0xbe])] {
            let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
            server.write_all(&head).unwrap();
        }
        assert_eq!(outcome_of(&mut client, 1), State::Served);
        assert_eq!(outcome_of(&mut client, 3), State::Refused(503));
        assert_eq!(outcome_of(&mut client, 5), State::Unreadable);
    }
}
