//! Responses that the server gives up. A client must be able to see that.

use crate::{
    scenario::{Grade, Need, Scenario, Weight},
    trial::{Abort, Trial, get, route},
};
use std::{thread, time::Duration};

const MUST: Weight = Weight::Always(Grade::Must);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "cut/handler",
        weight: MUST,
        needs: &[Need::Slow],
        does: "Requests a response that takes longer than the grace period, and the stop.",
        why: "What the handler did not finish must not be reported as done.",
        rule: "RFC 9110 §15.6.4: 503, or no response at all",
        repair: "Respond 503 when a request is cancelled, or close the connection.",
        play: handler,
    },
    Scenario {
        name: "cut/stream",
        weight: MUST,
        needs: &[Need::Stream],
        does: "Requests a body that is sent for longer than the grace period, and the stop.",
        why: "A stream that ends with its last chunk, or by a FIN without a length, looks \
              complete: the client stores half a file as the whole.",
        rule: "RFC 9112 §8: an incomplete message must be detectable; chunked, or a length",
        repair: "Reset the connection of a cut response. Never end its body regularly.",
        play: stream,
    },
    Scenario {
        name: "cut/big",
        weight: MUST,
        needs: &[Need::Big],
        does: "Requests 20 MB, reads nothing until the process has exited, then reads the rest.",
        why: "The rest of the body was dropped with the process. The client must see that.",
        rule: "RFC 9112 §8: an incomplete message must be detectable",
        repair: "Send large bodies with a length or chunked, not until the close.",
        play: big,
    },
];

/// Longer than any server waits.
fn beyond_grace(trial: &Trial<'_>) -> u64 {
    let twice = 2 * trial.target.grace + Duration::from_secs(10);
    u64::try_from(twice.as_millis()).unwrap_or(u64::MAX)
}

fn handler(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.slow.as_deref().unwrap_or_default();
    let path = route(path, beyond_grace(trial));
    let mut client = trial.connect("slow")?;
    client.send(get(&path))?;
    thread::sleep(Duration::from_millis(100));
    trial.stop()?;
    trial.exit()?;
    let response = client.response();
    trial.expect(response.as_ref().map_or(true, |response| response.status >= 400), || {
        let status = response.as_ref().map_or(0, |response| response.status);
        format!("slow: status {status}, although the handler cannot have finished")
    });
    Ok(())
}

fn stream(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.stream.as_deref().unwrap_or_default();
    let path = route(path, beyond_grace(trial));
    let mut client = trial.connect("stream")?;
    client.send(get(&path))?;
    thread::sleep(Duration::from_millis(300));
    trial.stop()?;
    trial.exit()?;
    let response = client.response();
    let is_cut = response.as_ref().map_or(true, |response| response.status >= 400);
    trial.expect(is_cut, || "stream: it was cut, and looks complete".to_owned());
    Ok(())
}

const BIG: u64 = 20_000_000;

fn big(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = route(trial.target.paths.big.as_deref().unwrap_or_default(), BIG);
    let mut client = trial.connect("big")?;
    client.set_receive_buffer(64 * 1024)?;
    client.send(get(&path))?;
    thread::sleep(Duration::from_millis(100));
    trial.stop()?;
    trial.exit()?;
    let response = client.response();
    let looks_complete = response
        .as_ref()
        .is_ok_and(|body| body.status < 400 && u64::try_from(body.bytes.len()).unwrap_or(0) < BIG);
    trial.expect(!looks_complete, || {
        let length = response.as_ref().map_or(0, |response| response.bytes.len());
        format!("big: {length} of {BIG} bytes, and it looks complete")
    });
    Ok(())
}
