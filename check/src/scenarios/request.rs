//! Requests that are on their way, or served, at the stop.

use crate::{
    scenario::{Grade, Need, Scenario, Weight},
    scenarios::lame_duck::send_in_time,
    trial::{Abort, Trial, get, is_served, outcome, route},
};
use lameduck_wire::{
    End,
    http1::{Client, Response},
};
use std::{
    thread,
    time::{Duration, Instant},
};

const SHOULD: Weight = Weight::Always(Grade::Should);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "request/in-flight",
        weight: SHOULD,
        needs: &[Need::Slow],
        does: "Requests responses that take 500 ms, and the stop 150 ms later.",
        why: "These are the requests that a graceful stop exists for.",
        rule: "RFC 9110 §9.2.2: the client may not repeat a request that may have been served",
        repair: "Handle the signal: close the listener, wait for the handlers, then exit.",
        play: in_flight,
    },
    Scenario {
        name: "request/half-head",
        weight: SHOULD,
        needs: &[],
        does: "Sends the first half of a request's head before the stop, and the rest 100 ms \
               after it.",
        why: "A request of which a byte has arrived is being sent; large cookies take several \
              packets. A server that sees the connection as idle closes it under the request.",
        rule: "RFC 9112 §9.6: a server that closes should have read the request in progress",
        repair: "Treat a connection with part of a head as busy, with a time limit.",
        play: half_head,
    },
    Scenario {
        name: "request/first-byte",
        weight: Weight::LameDuck,
        needs: &[],
        does: "Opens connections before the stop, and sends the first request 50 ms after it, or \
               after half of a shorter --lame-duck.",
        why: "Clients open connections in advance, and a request always arrives later than its \
              handshake.",
        rule: "RFC 9112 §9.5: a close may cross a request",
        repair: "Give connections that were never used some time for their first request.",
        play: first_byte,
    },
    Scenario {
        name: "request/pipelined",
        weight: SHOULD,
        needs: &[Need::KeepAlive, Need::StopSignal],
        does: "Freezes the process, sends four requests in one segment, requests the stop, and \
               continues the process.",
        why: "A server may close after any response, but only if that response says so. Then the \
              client knows which requests to repeat.",
        rule: "RFC 9112 §9.3.2 and §9.6",
        repair: "Serve all requests that were read, or announce the close with the last served.",
        play: pipelined,
    },
    Scenario {
        name: "request/upload",
        weight: SHOULD,
        needs: &[Need::Echo],
        does: "Sends half of a body before the stop and the rest 200 ms after it.",
        why: "An upload is a request in flight, although no handler may have begun.",
        rule: "RFC 9110 §9.2.2: a POST may not be repeated",
        repair: "Count a request from its first byte until its response is sent.",
        play: upload,
    },
    Scenario {
        name: "request/expect-continue",
        weight: SHOULD,
        needs: &[Need::Echo],
        does: "Sends a head with `Expect: 100-continue` before the stop, and the body 100 ms \
               after it.",
        why: "The client waits for the 100 response, so the connection looks idle to a server that \
              only counts bytes.",
        rule: "RFC 9110 §10.1.1: 100 or a final response must be sent",
        repair: "Count a request from its first byte until its response is sent.",
        play: expect_continue,
    },
    Scenario {
        name: "request/stream",
        weight: SHOULD,
        needs: &[Need::Stream],
        does: "Measures how long a body takes that is sent in parts for 600 ms, requests it on \
               several connections, and the stop after a third of its time.",
        why: "The response head was sent long ago. A server that counts handlers, not bodies, \
              exits in the middle.",
        rule: "RFC 9112 §8: the recipient sees an incomplete message",
        repair: "Count a request until the last byte of its body was written.",
        play: stream,
    },
    Scenario {
        name: "request/slow-reader",
        weight: SHOULD,
        needs: &[Need::Big],
        does: "Requests 16 MB, reads nothing for 300 ms, requests the stop, and reads all.",
        why: "The last part of a response waits in the server's buffers. A process that exits \
              after its handlers drops it.",
        rule: "RFC 9112 §8: the recipient sees an incomplete message",
        repair: "Wait until the kernel has taken the whole response, then close.",
        play: slow_reader,
    },
    Scenario {
        name: "request/half-closed",
        weight: Weight::Always(Grade::Info),
        needs: &[Need::Slow],
        does: "Sends a request that takes 300 ms and a FIN, and requests the stop 100 ms later.",
        why: "Some clients send a FIN after their last request and still read. Many servers take \
              it for a disconnect, which is allowed.",
        rule: "RFC 9112 §9.6 describes the half-close of a server only",
        repair: "Continue to write after the client's FIN.",
        play: half_closed,
    },
];

const CLIENTS: usize = 4;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Reads all responses and expects each.
pub(super) fn expect_all(trial: &mut Trial<'_>, clients: Vec<(Client, String)>) {
    for (mut client, label) in clients {
        let response = client.response();
        trial.expect_response(&label, &response);
    }
}

fn in_flight(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let takes = trial.beyond_stop(500);
    let path = route(trial.target.paths.slow.as_deref().unwrap_or_default(), takes);
    expect_in_flight(trial, &path, ms(150))
}

/// Requests this path on several connections, requests the stop later, and expects the responses.
pub(super) fn expect_in_flight(
    trial: &mut Trial<'_>,
    path: &str,
    begun: Duration,
) -> Result<(), Abort> {
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let label = format!("slow {n}");
        let mut client = trial.connect(&label)?;
        client.send(get(path))?;
        clients.push((client, label));
    }
    thread::sleep(begun);
    trial.stop()?;
    expect_all(trial, clients);
    Ok(())
}

fn half_head(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let request = get(&trial.target.paths.plain);
    let (first, second) = request.split_at(request.len() / 2);
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let label = format!("half head {n}");
        let mut client = trial.connect(&label)?;
        client.send(first)?;
        clients.push((client, label));
    }
    thread::sleep(ms(50));
    trial.stop()?;
    trial.wait_until(ms(100));
    for (client, _) in &mut clients {
        let _ = client.send(second);
    }
    expect_all(trial, clients);
    Ok(())
}

fn first_byte(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let request = get(&trial.target.paths.plain);
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let label = format!("unused {n}");
        clients.push((trial.connect(&label)?, label));
    }
    thread::sleep(ms(50));
    trial.stop()?;
    trial.wait_until(trial.early(ms(50)));
    send_in_time(trial, &mut clients, &request)?;
    expect_all(trial, clients);
    Ok(())
}

const PIPELINED: usize = 4;

fn pipelined(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let requests = get(&trial.target.paths.plain).repeat(PIPELINED);
    let mut client = trial.keep("pipelined")?;
    trial.freeze()?;
    client.send(requests)?;
    trial.stop()?;
    trial.thaw()?;
    let mut served = 0;
    let end = loop {
        match client.response() {
            Ok(response) if response.status == 200 => {
                served += 1;
                if served == PIPELINED || response.says_close() {
                    break None;
                }
            }
            other => break Some(other),
        }
    };
    trial.expect(end.is_none(), || {
        let end = end.as_ref().map(outcome).unwrap_or_default();
        format!("after {served} of {PIPELINED} responses, none of which announced it: {end}")
    });
    Ok(())
}

fn upload(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.echo.clone().unwrap_or_default();
    let body: String = ('a'..='z').cycle().take(20_000).collect();
    let (first, second) = body.split_at(10_000);
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut client = trial.connect("upload")?;
    client.send(head + first)?;
    thread::sleep(ms(100));
    trial.stop()?;
    trial.wait_until(ms(200));
    let _ = client.send(second);
    let response = client.response();
    let is_whole = response.as_ref().is_ok_and(|response| response.bytes == body.as_bytes());
    trial.expect(is_whole, || format!("upload: {}", outcome(&response)));
    Ok(())
}

fn expect_continue(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.echo.clone().unwrap_or_default();
    let mut client = trial.connect("expects 100")?;
    client.send(format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
         content-length: 5\r\n\r\n"
    ))?;
    thread::sleep(ms(50));
    trial.stop()?;
    trial.wait_until(ms(100));
    let _ = client.send("hello");
    let response = client.response();
    // RFC 9110 §10.1.1: a server may refuse the expectation.
    let is_refusal = response.as_ref().is_ok_and(|response| response.status == 417);
    let holds = is_refusal || is_served(&response);
    trial.expect(holds, || format!("expects 100: {}", outcome(&response)));
    Ok(())
}

fn stream(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let takes = trial.beyond_stop(600);
    let path = route(trial.target.paths.stream.as_deref().unwrap_or_default(), takes);
    let (mut first, begun) = begin(trial, "before the stop", &path)?;
    let response = first.response();
    if !is_served(&response) {
        return Err(Abort::Broken(format!("before the stop: {}", outcome(&response))));
    }
    // A busy machine may have delayed it.
    let usual = begun.elapsed().min(ms(takes));
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let label = format!("stream {n}");
        let (client, begun) = begin(trial, &label, &path)?;
        clients.push((client, begun, label));
    }
    thread::sleep(usual.saturating_sub(trial.target.stop_takes) / 3);
    trial.stop()?;
    // Each on its own thread, since the time of its end counts.
    thread::scope(|scope| {
        let read = |(mut client, begin, label): (Client, Instant, String)| {
            let response = client.response();
            (response, begin.elapsed(), label)
        };
        let clients = clients.into_iter().map(|client| scope.spawn(move || read(client)));
        for client in clients.collect::<Vec<_>>() {
            let Ok((response, took, label)) = client.join() else {
                return Err(Abort::Broken("a client panicked".to_owned()));
            };
            trial.expect(is_whole_stream(&response, took, usual), || {
                format!("{label}: {} after {} ms", outcome(&response), took.as_millis())
            });
        }
        Ok(())
    })
}

/// Requests this path on a new connection, and returns when.
fn begin(trial: &mut Trial<'_>, label: &str, path: &str) -> Result<(Client, Instant), Abort> {
    let mut client = trial.connect(label)?;
    let begin = Instant::now();
    client.send(get(path))?;
    Ok((client, begin))
}

/// Returns whether a response takes about as long as before the stop. Its length is not judged: one
/// that ends by a deadline has a different number of parts each time.
fn is_whole_stream(response: &Result<Response, End>, took: Duration, usual: Duration) -> bool {
    is_served(response) && took >= usual * 4 / 5
}

const BIG: u64 = 16_000_000;

fn slow_reader(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = route(trial.target.paths.big.as_deref().unwrap_or_default(), BIG);
    let mut clients = Vec::new();
    for n in 0..2 {
        let label = format!("slow reader {n}");
        let mut client = trial.connect(&label)?;
        client.set_receive_buffer(64 * 1024)?;
        client.send(get(&path))?;
        clients.push((client, label));
    }
    thread::sleep(ms(300));
    trial.stop()?;
    trial.wait_until(ms(150));
    for (mut client, label) in clients {
        let response = client.response();
        let length = response.as_ref().map_or(0, |response| response.bytes.len());
        trial.expect(u64::try_from(length).unwrap_or(0) >= BIG, || {
            format!("{label}: {}, {length} of {BIG} bytes", outcome(&response))
        });
    }
    Ok(())
}

fn half_closed(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let takes = trial.beyond_stop(300);
    let path = route(trial.target.paths.slow.as_deref().unwrap_or_default(), takes);
    let mut client = trial.connect("half-closed")?;
    client.send(get(&path))?;
    client.shut_write()?;
    thread::sleep(ms(100));
    trial.stop()?;
    let response = client.response();
    trial.expect_response("half-closed", &response);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{is_whole_stream, ms};
    use lameduck_wire::{End, http1::Response};

    // A server that sends for 600 ms was blamed when a later response had one part fewer than the
    // first. One that sends five parts, 120 ms apart, was blamed for 480 ms.
    #[test]
    fn a_stream_is_judged_by_its_time_and_not_by_its_length() {
        let response =
            |status| Ok(Response { minor: 1, status, headers: Vec::new(), bytes: Vec::new() });
        for usual in [ms(600), ms(480)] {
            assert!(is_whole_stream(&response(200), usual, usual));
            assert!(is_whole_stream(&response(200), usual - ms(90), usual));
            assert!(!is_whole_stream(&response(200), usual / 3 + ms(10), usual));
            assert!(!is_whole_stream(&response(503), usual, usual));
            assert!(!is_whole_stream(&Err(End::ClosedEarly), usual, usual));
        }
    }
}
