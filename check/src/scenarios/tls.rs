//! The end of TLS, and handshakes at the stop.

use crate::{
    scenario::{Grade, Need, Scenario, Weight},
    tls::Client,
    trial::{Abort, Trial, get, is_served, outcome, route},
};
use lameduck_wire::{End, http1::Parsed};
use std::{thread, time::Duration};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "tls/close-notify",
        weight: Weight::Always(Grade::Should),
        needs: &[Need::Tls],
        does: "Keeps TLS connections after a response, requests the stop, and records how each is \
               closed.",
        why: "Without a `close_notify` a client cannot distinguish the end of a connection from an \
              attack that cuts it.",
        rule: "RFC 8446 §6.1; RFC 9112 §9.8: servers should exchange closure alerts",
        repair: "Shut the TLS session down before the socket is closed.",
        play: close_notify,
    },
    Scenario {
        name: "tls/cut",
        weight: Weight::Always(Grade::Must),
        needs: &[Need::Tls, Need::Stream],
        does: "Requests a body without a length (HTTP/1.0) that is sent for longer than the grace \
               period, and the stop.",
        why: "The body ends with the connection. A `close_notify` marks it as complete, so the \
              client stores half a file.",
        rule: "RFC 9112 §9.8: a `close_notify` completes a message without a length",
        repair: "Close a connection whose response was cut without a `close_notify`.",
        play: cut,
    },
    Scenario {
        name: "tls/handshake",
        weight: Weight::LameDuck,
        needs: &[Need::Tls, Need::StopSignal],
        does: "Freezes the process, opens connections and sends the first message of the \
               handshake, requests the stop, continues the process, and sends a request after the \
               handshake.",
        why: "A handshake takes a round trip or two. A server that closes connections without a \
              request cuts clients that have just connected.",
        rule: "RFC 9112 §9.5: a close may cross a request",
        repair: "Give connections in their handshake some time for their first request.",
        play: handshake,
    },
];

const KEPT: usize = 3;
/// The close of a long lame duck is not waited for.
const CLOSE_MAX: Duration = Duration::from_secs(15);

fn close_notify(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let request = get(&trial.target.paths.plain);
    let mut clients = Vec::new();
    for n in 0..KEPT {
        let label = format!("kept {n}");
        let mut client = Client::begin(trial.connect(&label)?)?;
        client.request(&request).map_err(|end| {
            let why = client.describe(end);
            Abort::Broken(format!("{label}: no response before the stop: {why}"))
        })?;
        clients.push((client, label));
    }
    trial.stop()?;
    for (mut client, label) in clients {
        client.transport().set_max_wait(trial.target.grace.min(CLOSE_MAX));
        let end = client.end();
        // One that stays open is judged by `exit/idle`.
        let holds = client.has_close_notify() || end == End::Silent;
        let how = client.describe(end);
        trial.expect(holds, || format!("{label}: {how}, without a close_notify"));
    }
    Ok(())
}

fn cut(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let longer = 2 * trial.target.grace + Duration::from_secs(10);
    let longer = u64::try_from(longer.as_millis()).unwrap_or(u64::MAX);
    let path = route(trial.target.paths.stream.as_deref().unwrap_or_default(), longer);
    let mut client = Client::begin(trial.connect("stream")?)?;
    let sent = client.send(&format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n"));
    sent.map_err(|end| {
        Abort::Broken(format!("no handshake before the stop: {}", client.describe(end)))
    })?;
    thread::sleep(Duration::from_millis(300));
    trial.stop()?;
    // A reset that follows the end destroys what was not read.
    client.end();
    trial.exit()?;
    // It may have been silent for longer than a client waits, and have ended since.
    client.end();
    trial.expect(!looks_complete(&client.parsed()), || {
        "stream: it was cut, and looks complete".to_owned()
    });
    Ok(())
}

/// Returns whether a client takes this for the whole of what it has requested.
const fn looks_complete(parsed: &Parsed) -> bool {
    matches!(parsed, Parsed::Complete(response, _) if response.status < 400)
}

const OPENED: usize = 5;

fn handshake(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let request = get(&trial.target.paths.plain);
    trial.freeze()?;
    let mut clients = Vec::new();
    for n in 0..OPENED {
        let label = format!("handshake {n}");
        clients.push((Client::begin(trial.connect(&label)?)?, label));
    }
    trial.stop()?;
    trial.thaw()?;
    for (mut client, label) in clients {
        let response = client.request(&request);
        let what = match response {
            Err(End::Malformed) => client.describe(End::Malformed),
            Ok(_) | Err(_) => outcome(&response),
        };
        trial.expect(is_served(&response), || format!("{label}: {what}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::looks_complete;
    use lameduck_wire::http1::{parse, parse_at_close};

    // A server that refused the request by a 503 without a length, and closed with a
    // `close_notify`, was blamed for it.
    #[test]
    fn a_refusal_is_no_cut_stream() {
        let looks_complete =
            |bytes: &[u8]| (looks_complete(&parse(bytes)), looks_complete(&parse_at_close(bytes)));
        assert_eq!(looks_complete(b"HTTP/1.0 503 Busy\r\n\r\nlater"), (false, false));
        assert_eq!(looks_complete(b"HTTP/1.0 200 OK\r\n\r\npiece"), (false, true));
        let chunked = b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\npiece\r\n";
        assert_eq!(looks_complete(chunked), (false, false));
        assert_eq!(looks_complete(b""), (false, false));
    }
}
