//! Connections that are kept between two requests.

use crate::{
    scenario::{Grade, Need, Scenario, Weight},
    trial::{Abort, Trial, get},
};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    name: "idle/request-unread",
    weight: Weight::Always(Grade::Should),
    needs: &[Need::KeepAlive, Need::StopSignal],
    does: "Freezes the process, sends a request on each of several kept connections, requests the \
           stop, and continues the process.",
    why: "The requests had arrived before the stop. A server that closes its idle connections \
          without a last read of the socket resets them.",
    rule: "RFC 9112 §9.5 and §9.6; close(2) with unread bytes sends RST",
    repair: "Before an idle connection is closed, read once more, and serve what is there.",
    play: request_unread,
}];

const KEPT: usize = 5;

fn request_unread(trial: &mut Trial<'_>) -> Result<(), Abort> {
    trial.start()?;
    let path = trial.target.paths.plain.clone();
    let mut clients = trial.keep_all(KEPT)?;
    trial.freeze()?;
    for (client, _) in &mut clients {
        client.send(get(&path))?;
    }
    trial.stop()?;
    trial.thaw()?;
    for (mut client, label) in clients {
        let response = client.response();
        trial.expect_response(&label, &response);
    }
    Ok(())
}
