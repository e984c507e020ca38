//! How a connection is closed.

use crate::{
    scenario::{Grade, Need, Scenario, Weight},
    trial::{Abort, Trial, get, outcome, route},
};
use std::{thread, time::Duration};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "close/unread-bytes",
    weight: Weight::Always(Grade::Should),
    needs: &[Need::Big, Need::KeepAlive],
    does: "Requests 16 MB, sends many more requests after it on the same connection, requests the \
           stop, and then reads.",
    why: "A server may close after any response. A socket that is closed with unread bytes sends \
          RST, which destroys the part of the last response that the client has not read yet.",
    rule: "RFC 9112 §9.6: close in stages, first the write side",
    repair: "Shut down the write side, read and discard until the client's FIN, then close.",
    play: unread_bytes,
}];

/// More than the kernel buffers: the server is writing it at the stop.
const BIG: u64 = 16_000_000;
/// More requests than a server reads at once.
const PIPELINED: usize = 4000;

fn unread_bytes(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = route(trial.target.paths.big.as_deref().unwrap_or_default(), BIG);
    let mut client = trial.connect("unread bytes")?;
    client.set_receive_buffer(64 * 1024)?;
    client.send(get(&path))?;
    // The kernel may not take all of them.
    let _ = client.send_within(
        get(&trial.target.paths.plain).repeat(PIPELINED).as_bytes(),
        Duration::from_secs(1),
    );
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
