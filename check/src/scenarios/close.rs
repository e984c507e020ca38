//! How a connection is closed.

use crate::{
    scenario::{Grade, Need, Scenario, Weight},
    trial::{Abort, Trial, outcome, route},
};
use std::{thread, time::Duration};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "close/unread-bytes",
    weight: Weight::Always(Grade::Should),
    needs: &[Need::Big],
    does: "Requests 2 MB with `Connection: close`, sends bytes that the server will not read, \
           requests the stop, and reads slowly.",
    why: "A socket that is closed with unread bytes sends RST, which destroys the part of the \
          response that the client has not read yet.",
    rule: "RFC 9112 §9.6: close in stages, first the write side",
    repair: "Shut down the write side, read and discard until the client's FIN, then close.",
    play: unread_bytes,
}];

const BIG: u64 = 2_000_000;

fn unread_bytes(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = route(trial.target.paths.big.as_deref().unwrap_or_default(), BIG);
    let mut client = trial.connect("unread bytes")?;
    client.set_receive_buffer(64 * 1024)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    client.send(request)?;
    // More than a server reads at once.
    let _ = client.send("unread bytes\r\n".repeat(10_000));
    thread::sleep(Duration::from_millis(100));
    trial.stop()?;
    trial.wait_until(Duration::from_millis(100));
    let response = client.response();
    let length = response.as_ref().map_or(0, |response| response.bytes.len());
    trial.expect(u64::try_from(length).unwrap_or(0) >= BIG, || {
        format!("{}, {} of {BIG} bytes", outcome(&response), client.unread().len().max(length))
    });
    Ok(())
}
